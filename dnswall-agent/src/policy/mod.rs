//! Takes policy.toml, gives a checked policy, or every mistake in it with its place.
//!
//! `text → Document → PolicyFile → Policy`: `syntax` finds what is TOML, `file` which keys are written and of what
//! type, `check` what they mean. Each step goes on after a mistake, so that one reading reports them all. Nothing
//! here does I/O or reads a clock; names of users and paths of executables stay as they are written, and
//! [`crate::compile`] resolves them.

mod builtin;
mod check;
mod destination;
pub mod encrypted;
mod file;
pub mod internet;
mod ports;
mod problem;
mod selector;
mod syntax;
mod table;
mod unit;

pub use builtin::{BUILTIN_ORIGIN, default_policy, resolvers_of};
pub use destination::Destination;
pub use ports::{Ports, Protocol};
pub(crate) use problem::quoted;
pub use problem::{PROBLEMS_SHOWN_MAX, Problem, Problems, Severity, Warning};
pub use selector::{CONTAINER_DIGITS_MIN, EXE_BYTES_MAX, Selector, User};
pub use unit::{CGROUP_LEVELS_MAX, CgroupPath, Unit};

use sha2::{Digest, Sha256};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Range;

use crate::blocklist::{KnownGoodNames, List, Pattern};

/// The longest policy, in bytes.
pub const POLICY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest name of a rule or scope, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A policy whose every part has a meaning. An empty `from` is "everyone", an empty `ports` is "any".
#[derive(Clone, Debug)]
pub struct Policy {
    /// What alerts and `status` call it: the file's name without directories and `.toml`.
    pub name: String,
    /// Where the text came from.
    pub origin: String,
    /// The text as it was written.
    pub text: String,
    /// SHA-256 of the text.
    pub digest: [u8; 32],
    /// Whether it blocks or only reports.
    pub mode: Mode,
    /// What happens to connections that are older than this policy.
    pub existing: Existing,
    /// Who may ask whom for names.
    pub dns: Dns,
    /// What is refused whatever else allows it.
    pub deny: Vec<Rule>,
    /// What is allowed.
    pub allow: Vec<Rule>,
    /// Workloads treated apart; the first that matches decides.
    pub scopes: Vec<Scope>,
    /// Who may open raw sockets.
    pub raw: Vec<Selector>,
    /// Who may open sockets and devices whose traffic the wall does not see. Empty is nobody.
    pub unjudged: Vec<Selector>,
    /// Lists of names that are refused, or told of.
    pub blocklists: Vec<Blocklist>,
    /// Names that no list may refuse.
    pub known_good: KnownGood,
}

/// Report and block, or only report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Report and block.
    Enforce,
    /// Only report.
    Audit,
}

/// What happens to live connections when the policy changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Existing {
    /// They live on.
    Keep,
    /// They end when the new policy refuses them.
    Cut,
}

/// Whether encrypted DNS may pass rules that name neither its port nor its resolvers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encrypted {
    /// Ports of encrypted DNS are left out of ranges and `any`, and resolvers that are known to speak it of networks; their names
    /// are not asked for.
    Deny,
    /// They are ports like any other.
    Allow,
}

/// Which questions are told of, beside those that are alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Events {
    /// None.
    Off,
    /// Those that are refused, or would be.
    Denied,
    /// Each, and its answer.
    All,
    /// Those that are refused, and one in so many of all others, with its answer.
    Sampled(NonZeroU32),
}

/// How much may be asked. `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a name, its dots included.
    pub name_length: Option<u8>,
    /// Bytes of a label.
    pub label_length: Option<u8>,
    /// Labels of a name.
    pub labels: Option<u8>,
    /// Questions of a workload in a second.
    pub questions_per_second: Option<u32>,
    /// Different names below one registered domain that a workload may ask for in a minute.
    pub names_per_domain: Option<u32>,
    /// Answers in a minute that there is no such name, after which a workload asks no more until it is over.
    pub nxdomain_per_minute: Option<u32>,
    /// Types of question as numbers, and bytes of answers to them in a minute, after which a workload does not ask for that type.
    pub answer_bytes: Vec<(u16, u32)>,
}

/// Where something is written.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// Line, from 1.
    pub line: usize,
}

/// `[dns]`
#[derive(Clone, Debug)]
pub struct Dns {
    /// Where it begins.
    pub place: Place,
    /// Servers elsewhere that may be asked.
    pub resolvers: Vec<IpAddr>,
    /// Who may ask `resolvers`. Stubs may be asked by everyone: that is what they are for.
    pub clients: Vec<Selector>,
    /// Whether encrypted DNS may pass rules that name neither its port nor its resolvers.
    pub encrypted: Encrypted,
    /// Where it says so; nowhere when it does not.
    pub encrypted_at: Place,
    /// Types of question that are refused, as numbers.
    pub deny_types: Vec<u16>,
    /// Which questions are told of, beside those that are alerts.
    pub events: Events,
    /// How much may be asked, by everyone whose scope says nothing else.
    pub limits: Limits,
    /// Where they are written; nowhere when they are not.
    pub limits_at: Place,
    /// Processes that are resolvers themselves.
    pub recursors: Vec<Recursor>,
    /// Resolvers on this host's loopback, those listed in `resolvers` included.
    pub stubs: Vec<Stub>,
    /// Who may ask a DNS server on this host.
    pub serve: Option<Serve>,
}

impl Dns {
    /// The resolvers and stubs that are named, where questions are told of.
    pub fn told_resolvers(&self) -> Vec<IpAddr> {
        if self.events == Events::Off {
            return Vec::new();
        }
        let stubs = self.stubs.iter().map(|stub| stub.address);
        self.resolvers.iter().copied().chain(stubs).collect()
    }
}

/// `[[dns.recursor]]`
#[derive(Clone, Debug)]
pub struct Recursor {
    /// Where it begins.
    pub place: Place,
    /// The processes.
    pub from: Vec<Selector>,
    /// Whom they may ask.
    pub to: Vec<Destination>,
}

/// `[[dns.stub]]`, or a loopback address in `resolvers`.
#[derive(Clone, Debug)]
pub struct Stub {
    /// Where it begins.
    pub place: Place,
    /// Where it listens.
    pub address: IpAddr,
    /// Whose answers count.
    pub from: Vec<Selector>,
}

/// `[dns.serve]`
#[derive(Clone, Debug)]
pub struct Serve {
    /// Where it begins.
    pub place: Place,
    /// Who may ask.
    pub from: Vec<Destination>,
}

/// `[[allow]]` or `[[deny]]`
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where it begins.
    pub place: Place,
    /// What it is called.
    pub name: Option<String>,
    /// Where it leads: addresses.
    pub to: Vec<Destination>,
    /// Where it leads: names, and with them to what they stand for.
    pub names: Vec<Pattern>,
    /// Where those names may lead; empty is the internet, and for what is refused anywhere.
    pub answers: Vec<Destination>,
    /// Which protocols and ports.
    pub ports: Vec<Ports>,
    /// Whom it binds.
    pub from: Vec<Selector>,
}

/// `[[scope]]`
#[derive(Clone, Debug)]
pub struct Scope {
    /// Where it begins.
    pub place: Place,
    /// What it is called.
    pub name: Option<String>,
    /// Whom it holds.
    pub from: Vec<Selector>,
    /// Whether the policy blocks there or only reports.
    pub mode: Mode,
    /// What happens to their connections when the policy changes.
    pub existing: Existing,
    /// How much they may ask.
    pub limits: Limits,
}

/// `[[blocklist]]`
#[derive(Clone, Debug)]
pub struct Blocklist {
    /// Where it begins.
    pub place: Place,
    /// Where its source is written.
    pub source: Range<usize>,
    /// What it says.
    pub list: List,
}

/// `[known-good]`, and where its lists are written.
#[derive(Clone, Debug, Default)]
pub struct KnownGood {
    /// Names and files of names.
    pub names: KnownGoodNames,
    /// Where each file is written.
    pub sources: Vec<Range<usize>>,
}

/// Reads a policy.
///
/// # Errors
/// Every mistake in it, those in its syntax included.
pub fn parse(text: &str, origin: &str) -> Result<Policy, Problems> {
    let refused = |problems| Err(Problems::new(origin, text, problems));
    if text.len() > POLICY_BYTES_MAX {
        let problem = Problem::error(0..0, format!("this policy has {} bytes", text.len()))
            .why(format!("a policy may have {POLICY_BYTES_MAX}"))
            .hint("merge destinations into networks, or rules that differ only in `to`");
        return Err(Problems::new(origin, "", vec![problem]));
    }
    let document = syntax::Document::new(text);
    let (table, mut problems) = document.parse();
    let file = file::PolicyFile::read(table.get_ref(), document.text(), &mut problems);
    let policy = check::policy(file, text, origin, document.is_whole(), &mut problems);
    match policy {
        Some(policy) if problems.is_empty() => Ok(policy),
        _ => refused(problems),
    }
}

impl Policy {
    /// Problems found later, with this policy's text.
    pub fn problems(&self, problems: Vec<Problem>) -> Problems {
        Problems::new(self.origin.clone(), self.text.clone(), problems)
    }
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Limits {
    /// As a policy writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name_length,
            label_length,
            labels,
            questions_per_second,
            names_per_domain,
            nxdomain_per_minute,
            answer_bytes,
        } = self;
        let wide = |number: &Option<u8>| number.map(u32::from);
        let numbers = [
            ("name-length", wide(name_length)),
            ("label-length", wide(label_length)),
            ("labels", wide(labels)),
            ("questions-per-second", *questions_per_second),
            ("names-per-domain", *names_per_domain),
            ("nxdomain-per-minute", *nxdomain_per_minute),
        ];
        let said = numbers.into_iter().filter_map(|(key, number)| Some(format!("{key} {}", number?)));
        let weighed = answer_bytes.iter().map(|(kind, bytes)| {
            format!("answer-bytes {} {bytes}", domain::base::iana::Rtype::from_int(*kind))
        });
        let all: Vec<String> = said.chain(weighed).collect();
        if all.is_empty() { f.write_str("none") } else { f.write_str(&all.join(", ")) }
    }
}

impl fmt::Display for Events {
    /// As a policy writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Denied => f.write_str("denied"),
            Self::All => f.write_str("all"),
            Self::Sampled(of) => write!(f, "sampled, one in {of}"),
        }
    }
}

impl Mode {
    /// As a policy writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        }
    }
}

impl Existing {
    /// As a policy writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Cut => "cut",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}
