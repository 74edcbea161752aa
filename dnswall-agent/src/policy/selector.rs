//! Takes one entry of a `from` list, gives a [`Selector`]: which workloads a rule binds.

use super::file::FromTable;
use super::problem::{Problem, quoted};
use super::table::Field;
use super::unit::{CgroupPath, Unit, read_cgroup, read_unit};
use dnswall_common::identity::CONTAINER_ID_BYTES;
use std::fmt;
use std::ops::Range;
use toml::Spanned;

/// The shortest container id prefix, in hexadecimal digits: what `docker ps` shows.
pub const CONTAINER_DIGITS_MIN: usize = 12;

/// The longest path of an executable, in bytes (`PATH_MAX`).
pub const EXE_BYTES_MAX: usize = 4096;

/// One `from` entry: a process matches when it matches every key that is written.
#[derive(Clone, Debug)]
pub struct Selector {
    /// Where it is written.
    pub span: Range<usize>,
    /// The systemd unit it runs in.
    pub unit: Option<Unit>,
    /// The cgroup it is in, or below.
    pub cgroup: Option<CgroupPath>,
    /// The first digits of the id of the container it runs in.
    pub container: Option<String>,
    /// Its user.
    pub user: Option<Spanned<User>>,
    /// The path of its executable; a `*` stands for any characters within one directory.
    pub exe: Option<Spanned<String>>,
}

/// What `user` names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum User {
    /// By number.
    Id(u32),
    /// By name, as this host's user database has it.
    Name(String),
}

impl Selector {
    /// Whether it names a user and nothing else.
    pub fn is_user_alone(&self) -> bool {
        let Self { span: _, unit, cgroup, container, user, exe } = self;
        user.is_some() && unit.is_none() && cgroup.is_none() && container.is_none() && exe.is_none()
    }
}

impl fmt::Display for Selector {
    /// As a policy writes it, keys always in the same order: equal entries have equal text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| match user.get_ref() {
            User::Id(id) => format!("user = {id}"),
            User::Name(name) => format!("user = {name:?}"),
        });
        let keys = [
            self.unit.as_ref().map(|unit| format!("unit = {:?}", unit.to_string())),
            self.cgroup.as_ref().map(|cgroup| format!("cgroup = {:?}", cgroup.as_str())),
            self.container.as_ref().map(|container| format!("container = {container:?}")),
            user,
            self.exe.as_ref().map(|exe| format!("exe = {:?}", exe.get_ref())),
        ];
        let keys: Vec<String> = keys.into_iter().flatten().collect();
        write!(f, "{{ {} }}", keys.join(", "))
    }
}

/// Who may open raw sockets, and what the wall does not see into, where the policy does not say: a host must be able to get
/// its address.
pub(super) fn dhcp_clients() -> Vec<Selector> {
    let unit = |name: &&str| read_unit(&Spanned::new(0..0, (*name).to_owned())).ok();
    let unit = Some(Unit::AnyOf(DHCP_CLIENTS.iter().filter_map(unit).collect()));
    vec![Selector { span: 0..0, unit, cgroup: None, container: None, user: None, exe: None }]
}

/// The units in which distributions run a DHCP client: all of them open AF_PACKET sockets, dhcpcd raw ones too.
const DHCP_CLIENTS: &[&str] = &[
    "systemd-networkd.service",
    "NetworkManager.service",
    "networking.service",
    "ifup@*.service",
    "dhcpcd.service",
    "dhcpcd@*.service",
    "dhclient@*.service",
    "wickedd-dhcp4.service",
    "cloud-init-local.service",
];

/// Reads one entry. Keys that are wrong are noted and left out; `None` when nothing usable is left.
pub(super) fn read(table: &FromTable, problems: &mut Vec<Problem>) -> Option<Selector> {
    if table.is_empty {
        problems.push(
            Problem::error(table.span.clone(), "this entry names nobody")
                .why("an entry without keys would match every process")
                .hint("name a workload, like { unit = \"orders.service\" }, or leave the whole list out for everyone"),
        );
        return None;
    }
    if let Field::Given(pod) = &table.pod {
        problems.push(
            Problem::error(pod.span(), "not yet: `pod`")
                .why("pods cannot be told apart by this version")
                .hint("name the pod's `cgroup` or `container` for now"),
        );
    }
    let selector = Selector {
        span: table.span.clone(),
        unit: checked(&table.unit, read_unit, problems),
        cgroup: checked(&table.cgroup, read_cgroup, problems),
        container: checked(&table.container, container, problems),
        user: checked(&table.user, user, problems)
            .zip(span(&table.user))
            .map(|(user, span)| Spanned::new(span, user)),
        exe: checked(&table.exe, exe, problems)
            .zip(span(&table.exe))
            .map(|(exe, span)| Spanned::new(span, exe)),
    };
    let keys = [&table.unit, &table.cgroup, &table.container, &table.user, &table.exe, &table.pod];
    let written = keys.iter().filter(|key| !key.is_absent()).count();
    let understood = usize::from(selector.unit.is_some())
        + usize::from(selector.cgroup.is_some())
        + usize::from(selector.container.is_some())
        + usize::from(selector.user.is_some())
        + usize::from(selector.exe.is_some());
    // An entry that lost a key would match more than was written.
    (understood > 0 && understood == written).then_some(selector)
}

fn checked<T>(
    field: &Field<Spanned<String>>,
    check: impl Fn(&Spanned<String>) -> Result<T, Problem>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let Field::Given(written) = field else { return None };
    check(written).map_err(|problem| problems.push(problem)).ok()
}

fn span(field: &Field<Spanned<String>>) -> Option<Range<usize>> {
    match field {
        Field::Given(written) => Some(written.span()),
        Field::Absent | Field::Wrong => None,
    }
}

fn container(written: &Spanned<String>) -> Result<String, Problem> {
    let text = written.get_ref().as_str();
    let problem = |message: String| Problem::error(written.span(), message);
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits {
        return Err(problem(format!("not yet: the container name {}", quoted(text)))
            .why("containers can only be told apart by id in this version")
            .hint("write at least the first 12 digits of its id, as `docker ps` or `crictl ps` shows it"));
    }
    if !(CONTAINER_DIGITS_MIN..=CONTAINER_ID_BYTES).contains(&text.len()) {
        return Err(problem(format!("{} has {} digits", quoted(text), text.len()))
            .why(format!(
                "a container's id is {CONTAINER_DIGITS_MIN} to {CONTAINER_ID_BYTES} hexadecimal digits"
            ))
            .hint("write at least the first 12, as `docker ps` or `crictl ps` shows them"));
    }
    Ok(text.to_ascii_lowercase())
}

fn user(written: &Spanned<String>) -> Result<User, Problem> {
    let text = written.get_ref().as_str();
    let problem = |message: String| Problem::error(written.span(), message);
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u32>() {
            // (uid_t)-1 means "no user" to every system call.
            Ok(id) if id != u32::MAX => Ok(User::Id(id)),
            _ => Err(problem(format!("there is no user {}", quoted(text)))
                .why(format!("user ids are numbers from 0 to {}", u32::MAX - 1))),
        };
    }
    if text.contains('*') {
        return Err(problem(format!("{} has a star", quoted(text)))
            .why("users are named one by one")
            .hint("write an entry for each user"));
    }
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == ':' || c == '/';
    if text.is_empty() || text.starts_with('-') || text.contains(odd) {
        return Err(problem(format!("{} is not the name or number of a user", quoted(text)))
            .hint("write like \"postgres\" or 1000"));
    }
    Ok(User::Name(text.to_owned()))
}

fn exe(written: &Spanned<String>) -> Result<String, Problem> {
    let text = written.get_ref().as_str();
    let shown = quoted(text);
    let problem = |message: String| Problem::error(written.span(), message);
    if !text.starts_with('/') {
        return Err(problem(format!("{shown} is not an absolute path"))
            .why("which file a name means depends on the process that asks")
            .hint(format!("write the whole path, like /usr/bin/{}", text.trim_start_matches(['.', '/']))));
    }
    if text.ends_with('/') {
        return Err(problem(format!("{shown} is a directory"))
            .hint(format!("write {text}* for the executables in it")));
    }
    if text.contains("**") {
        return Err(problem(format!("{shown} has a double star"))
            .why("a star stands for any characters within one directory")
            .hint("write one star, or name the directories"));
    }
    if text.contains('\0') || text.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return Err(problem(format!("{shown} is not a plain path"))
            .hint("write it without empty parts, `.` and `..`"));
    }
    if text.len() > EXE_BYTES_MAX {
        return Err(problem(format!("this path has {} bytes", text.len()))
            .why(format!("no path has more than {EXE_BYTES_MAX}")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: fmt::Debug>(
        read: impl Fn(&Spanned<String>) -> Result<T, Problem>,
        text: &str,
    ) -> Result<T, String> {
        let problem =
            |problem: Problem| format!("{} | {}", problem.message, problem.hint.unwrap_or_default());
        read(&Spanned::new(0..text.len(), text.to_owned())).map_err(problem)
    }

    #[test]
    fn other_keys_say_what_to_write() {
        assert_eq!(check(container, "0123456789AB"), Ok("0123456789ab".into()));
        assert!(check(container, "0123456789a").is_err() && check(container, &"0".repeat(65)).is_err());
        assert!(check(container, "web").unwrap_err().contains("not yet"));
        assert_eq!(check(user, "1000"), Ok(User::Id(1000)));
        assert_eq!(check(user, "postgres"), Ok(User::Name("postgres".into())));
        assert!(
            check(user, "4294967295").is_err() && check(user, "a b").is_err() && check(user, "").is_err()
        );
        assert!(check(exe, "curl").unwrap_err().contains("/usr/bin/curl"));
        assert!(check(exe, "/opt/app/").unwrap_err().contains("/opt/app/*"));
        assert!(check(exe, "/opt/../x").is_err() && check(exe, "/opt/**").is_err());
        assert_eq!(check(exe, "/opt/*/bin/app"), Ok("/opt/*/bin/app".into()));
    }
}
