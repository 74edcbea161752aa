//! Takes the words of `policy explain`, gives who is meant and what the flow is, or says which word is wrong.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::Path;

use dnswall_common::flow::{Address, Flow, protocol};

use super::environment::HostEnvironment;
use super::executables;
use crate::blocklist::name::DomainName;
use crate::compile::{Environment, Identity, RootCgroup};
use crate::control::api::{ExplainRequest, IdentityShown};
use crate::kernel::executable_identity;

/// Who is meant, and what the flow is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// For the compiled policy.
    pub identity: Identity,
    /// For people.
    pub shown: IdentityShown,
    /// What is asked about.
    pub what: What,
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A connection to an address.
    Flow(Flow),
    /// The question for a name, and a connection to where it leads.
    Name(DomainName<'static>, u8, u16),
}

/// A word that is no answer to who, where to or what port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct QuestionError {
    /// What is wrong.
    pub error: String,
    /// What to write.
    pub hint: &'static str,
}

impl Question {
    /// Reads the words, as they are meant on this host.
    ///
    /// # Errors
    /// Which word is wrong.
    pub fn parse(request: &ExplainRequest, host: &HostEnvironment) -> Result<Self, QuestionError> {
        let ExplainRequest { from, to, port } = request;
        let root = host.root_cgroup();
        let mut asker = Asker { said: Said::default(), root: &root, host, elsewhere: false };
        // What a process is comes first, so that the others can say it is somewhere else.
        let (processes, others): (Vec<&String>, Vec<&String>) =
            from.iter().partition(|word| word.starts_with("pid:"));
        asker.elsewhere = others.iter().any(|word| word.starts_with("cgroup:"));
        for word in processes.into_iter().chain(others) {
            asker.hear(word)?;
        }
        let Said { identity, exe, heard: _ } = asker.said;
        let mut identity = identity;
        if identity.cgroup.is_empty() {
            identity.cgroup.clone_from(&root.path);
        }
        let shown = IdentityShown {
            cgroup: identity.cgroup.clone(),
            unit: identity.unit.clone(),
            container: identity.container.clone(),
            uid: identity.uid,
            exe,
        };
        Ok(Self { identity, shown, what: what(to, port)? })
    }
}

#[derive(Default)]
struct Said {
    identity: Identity,
    exe: Option<String>,
    heard: Vec<String>,
}

struct Asker<'a> {
    said: Said,
    root: &'a RootCgroup,
    host: &'a HostEnvironment,
    /// The cgroup is said as well.
    elsewhere: bool,
}

const WHO: &str = "write unit:NAME, cgroup:PATH, container:ID, user:NAME, exe:PATH or pid:NUMBER";

impl Asker<'_> {
    fn hear(&mut self, word: &str) -> Result<(), QuestionError> {
        let Some((key, value)) = word.split_once(':').filter(|(_, value)| !value.is_empty()) else {
            return Err(wrong(format!("`{word}` does not say who"), WHO));
        };
        if self.said.heard.iter().any(|heard| heard == key) {
            return Err(wrong(format!("`{key}` is said twice"), "one process has one of each"));
        }
        self.said.heard.push(key.to_owned());
        match key {
            "unit" => self.unit(value),
            "cgroup" if value.starts_with('/') => self.said.identity.cgroup = value.to_owned(),
            "cgroup" => {
                let hint = "write the path as /proc/PID/cgroup shows it, like /system.slice/orders.service";
                return Err(wrong(format!("`{value}` is not a cgroup's path"), hint));
            }
            "container" if value.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                self.said.identity.container = Some(value.to_ascii_lowercase());
            }
            "container" => {
                return Err(wrong(
                    format!("`{value}` is not a container's id"),
                    "write its hexadecimal digits",
                ));
            }
            "user" => self.said.identity.uid = Some(self.user(value)?),
            "exe" => self.exe(Path::new(value), value)?,
            "pid" => self.process(value)?,
            _ => return Err(wrong(format!("`{key}` is not a way to say who"), WHO)),
        }
        Ok(())
    }

    // `a-b.slice` is the cgroup /a.slice/a-b.slice.
    fn unit(&mut self, name: &str) {
        let Some(stem) = name.strip_suffix(".slice") else {
            self.said.identity.unit = Some(name.to_owned());
            return;
        };
        let mut path = self.root.path.trim_end_matches('/').to_owned();
        let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
        for end in ends {
            path.push_str(&format!("/{}.slice", &stem[..end]));
        }
        self.said.identity.cgroup = path;
    }

    fn exe(&mut self, path: &Path, shown: &str) -> Result<(), QuestionError> {
        let identity = executables::identity(self.host.host(), path).map_err(|error| {
            wrong(format!("the executable {shown} cannot be read: {error}"), "name a program on this host")
        })?;
        self.said.identity.exe = Some(identity);
        self.said.exe = Some(shown.to_owned());
        Ok(())
    }

    fn user(&self, value: &str) -> Result<u32, QuestionError> {
        value.parse().ok().or_else(|| self.host.uid(value)).ok_or_else(|| {
            let hint = "write a name that the host's /etc/passwd or name service knows, or a number";
            wrong(format!("this host has no user `{value}`"), hint)
        })
    }

    fn process(&mut self, pid: &str) -> Result<(), QuestionError> {
        let gone = |_| wrong(format!("there is no process {pid} to look at"), "name one that runs now");
        let pid_number: u32 =
            pid.parse().map_err(|_| wrong(format!("`{pid}` is not a process's number"), "write digits"))?;
        let proc = Path::new("/proc").join(pid_number.to_string());
        let cgroups = fs::read_to_string(proc.join("cgroup")).map_err(gone)?;
        let status = fs::read_to_string(proc.join("status")).map_err(gone)?;
        let cgroup = cgroups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        if !cgroup.starts_with("/..") {
            self.said.identity.cgroup = cgroup.to_owned();
        } else if !self.elsewhere {
            // From a container's cgroup namespace the path leads up and says no names on the way.
            let hint = "write cgroup:PATH as well, as /proc/PID/cgroup on the host shows it";
            return Err(wrong(
                format!("the cgroup of process {pid} cannot be seen from this container"),
                hint,
            ));
        }
        // Real, effective, saved, file system: the socket has the last.
        self.said.identity.uid = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
        // Kernel threads have none.
        let exe = proc.join("exe");
        if let Ok(identity) = File::open(&exe).and_then(|file| executable_identity(&file)) {
            self.said.identity.exe = Some(identity);
            self.said.exe = fs::read_link(&exe).ok().map(|path| path.display().to_string());
        }
        Ok(())
    }
}

fn what(to: &str, port: &str) -> Result<What, QuestionError> {
    let Ok(address) = to.parse::<IpAddr>() else {
        let name = DomainName::new(to).map_err(|_| {
            wrong(
                format!("`{to}` is not an address and no name"),
                "write like 10.0.3.7, fd00::7 or api.example.com",
            )
        })?;
        let (protocol, port) = protocol_and_port(port, false)?;
        if protocol == protocol::SERVE {
            return Err(wrong(format!("`{to}` is not an address"), "write the address that asks"));
        }
        return Ok(What::Name(name.into_owned(), protocol, port));
    };
    let (address, is_v6) = match address {
        IpAddr::V4(address) => (Address::V4(address.to_bits()), false),
        IpAddr::V6(address) => (Address::from_v6_bytes(&address.octets()), true),
    };
    let is_v6 = is_v6 && matches!(address, Address::V6(..));
    let (protocol, port) = protocol_and_port(port, is_v6)?;
    Ok(What::Flow(Flow { address, protocol, port }))
}

const PORT: &str = "write tcp/443, udp/53, sctp/5000, icmp/echo, icmp/TYPE, ip/PROTOCOL, \
                    or serve to ask whether the address may ask a DNS server here";

fn protocol_and_port(text: &str, is_v6: bool) -> Result<(u8, u16), QuestionError> {
    let refused = || wrong(format!("`{text}` is not a protocol and port"), PORT);
    if text == "serve" {
        return Ok((protocol::SERVE, 53));
    }
    let (name, value) = text.split_once('/').ok_or_else(refused)?;
    let icmp = if is_v6 { protocol::ICMPV6 } else { protocol::ICMP };
    let number = || value.parse::<u16>().map_err(|_| refused());
    Ok(match (name, value) {
        ("tcp", _) => (protocol::TCP, number()?),
        ("udp", _) => (protocol::UDP, number()?),
        ("sctp", _) => (protocol::SCTP, number()?),
        ("icmp", "echo") => (icmp, if is_v6 { 128 << 8 } else { 8 << 8 }),
        ("icmp", _) => (icmp, u16::from(value.parse::<u8>().map_err(|_| refused())?) << 8),
        ("ip", _) => (value.parse().map_err(|_| refused())?, 0),
        _ => return Err(refused()),
    })
}

fn wrong(error: String, hint: &'static str) -> QuestionError {
    QuestionError { error, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostRoot;

    fn identity(path: &Path) -> Option<crate::compile::FileId> {
        executables::identity(&HostRoot::default(), path).ok()
    }

    fn ask(from: &[&str], to: &str, port: &str) -> Result<Question, QuestionError> {
        let from = from.iter().map(|word| (*word).to_owned()).collect();
        let request = ExplainRequest { from, to: to.to_owned(), port: port.to_owned() };
        let root = RootCgroup { id: 9, path: "/test".to_owned() };
        Question::parse(&request, &HostEnvironment::new(HostRoot::default(), root, 0))
    }

    #[test]
    fn everything_can_be_said() {
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let exe = format!("exe:{}", shell.display());
        let question =
            ask(&["unit:orders.service", "user:root", "container:0ABCdef", &exe], "10.0.3.7", "tcp/5432");
        let question = question.unwrap();
        let expected = Identity {
            cgroup: "/test".to_owned(),
            unit: Some("orders.service".to_owned()),
            container: Some("0abcdef".to_owned()),
            uid: Some(0),
            exe: identity(&shell),
        };
        assert!(expected.exe.is_some());
        assert_eq!(question.identity, expected);
        let flow = Flow { address: Address::V4(0x0a00_0307), protocol: 6, port: 5432 };
        assert_eq!(question.what, What::Flow(flow));
        assert_eq!(question.shown.exe.as_deref(), shell.to_str());
    }

    #[test]
    fn slices_are_paths_below_the_wall() {
        assert_eq!(
            ask(&["unit:a-b.slice"], "::1", "udp/1").unwrap().identity.cgroup,
            "/test/a.slice/a-b.slice"
        );
        assert_eq!(ask(&["cgroup:/x/y"], "::1", "udp/1").unwrap().identity.cgroup, "/x/y");
    }

    #[test]
    fn this_process_is_looked_at() {
        let pid = format!("pid:{}", std::process::id());
        let question = ask(&["user:4242", &pid], "1.2.3.4", "tcp/1").unwrap();
        assert!(question.identity.cgroup.starts_with('/'));
        assert_eq!(question.identity.exe, identity(&std::env::current_exe().unwrap()));
        assert_eq!(question.identity.uid, Some(4242), "what is said beside it counts");
    }

    #[test]
    fn protocols_and_ports() {
        let flow = |to, port| {
            ask(&[], to, port).map(|question| match question.what {
                What::Flow(flow) => (flow.protocol, flow.port),
                What::Name(_, protocol, port) => (protocol, port),
            })
        };
        assert_eq!(flow("1.2.3.4", "icmp/echo"), Ok((1, 8 << 8)));
        assert_eq!(flow("2001:db8::1", "icmp/echo"), Ok((58, 128 << 8)));
        assert_eq!(flow("::ffff:1.2.3.4", "icmp/echo"), Ok((1, 8 << 8)));
        assert_eq!(flow("1.2.3.4", "icmp/13"), Ok((1, 13 << 8)));
        assert_eq!(flow("1.2.3.4", "ip/47"), Ok((47, 0)));
        assert_eq!(flow("1.2.3.4", "serve"), Ok((255, 53)));
        assert_eq!(flow("1.2.3.4", "sctp/9"), Ok((132, 9)));
        assert_eq!(flow("API.example.com", "tcp/443"), Ok((6, 443)));
        assert!(flow("api.example.com", "serve").is_err());
    }

    #[test]
    fn each_wrong_word_is_named() {
        let error = |from: &[&str], to, port| ask(from, to, port).unwrap_err().error;
        assert_eq!(error(&["orders"], "1.1.1.1", "tcp/1"), "`orders` does not say who");
        assert_eq!(error(&["unit:"], "1.1.1.1", "tcp/1"), "`unit:` does not say who");
        assert_eq!(error(&["pod:a/b"], "1.1.1.1", "tcp/1"), "`pod` is not a way to say who");
        assert_eq!(error(&["unit:a.service", "unit:b.service"], "1.1.1.1", "tcp/1"), "`unit` is said twice");
        assert_eq!(error(&["cgroup:x"], "1.1.1.1", "tcp/1"), "`x` is not a cgroup's path");
        assert_eq!(error(&["container:web"], "1.1.1.1", "tcp/1"), "`web` is not a container's id");
        assert_eq!(error(&["user:no such"], "1.1.1.1", "tcp/1"), "this host has no user `no such`");
        assert!(error(&["exe:/none"], "1.1.1.1", "tcp/1").starts_with("the executable /none cannot be read"));
        assert_eq!(
            error(&["pid:4294967294"], "1.1.1.1", "tcp/1"),
            "there is no process 4294967294 to look at"
        );
        assert_eq!(error(&[], "example..com", "tcp/1"), "`example..com` is not an address and no name");
        for port in ["443", "tcp/x", "tcp/70000", "icmp/300", "gre/1", "tcp/"] {
            assert_eq!(error(&[], "1.1.1.1", port), format!("`{port}` is not a protocol and port"));
        }
    }
}
