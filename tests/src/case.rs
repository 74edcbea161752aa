//! One line of a table: who does what, and what comes of it.

use crate::act::Act;
use crate::who::Who;

/// One line.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    /// Who.
    pub who: Who,
    /// Does what.
    pub act: Act,
    /// What comes of it.
    pub expect: Expect,
    /// Whether `policy explain` knows enough to agree (it does not for what is no matter of address and port).
    pub explained: bool,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It arrives, it is answered, nobody is told.
    Allowed(Because),
    /// `EPERM` at once, nothing arrives, an alert says so.
    Refused(Alarm),
    /// Nothing arrives, an alert says so; what the application sees is a matter of the kernel.
    Dropped(Alarm),
    /// It arrives, it is answered, an alert says that it would not.
    WouldDeny(Alarm),
}

impl Expect {
    /// Refused, but the application does not hear of it, or does not listen.
    #[must_use]
    pub const fn unheard(self) -> Self {
        match self {
            Self::Refused(alarm) => Self::Dropped(alarm),
            other => other,
        }
    }
}

/// Why it is allowed, as `policy explain` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Because {
    /// Reason's name.
    pub reason: &'static str,
    /// Rule's name.
    pub rule: &'static str,
}

/// What the alert says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Its kind.
    pub kind: &'static str,
    /// Reason's name.
    pub reason: &'static str,
    /// Rule's name.
    pub rule: &'static str,
}

impl Alarm {
    /// Whether it is what is asked, not who is asked, that is refused.
    pub fn is_about_question(&self) -> bool {
        ["dns.name", "dns.type", "dns.limit", "dns.malformed"].contains(&self.kind)
            || self.reason == "denied-name"
    }
}

/// One line of a table.
pub fn case(name: &'static str, who: Who, act: Act, expect: Expect) -> Case {
    Case { name, who, act, expect, explained: true }
}

impl Case {
    /// Without asking `policy explain`, which does not know what decides here.
    #[must_use]
    pub fn unexplained(self) -> Self {
        Self { explained: false, ..self }
    }
}

/// Allowed by a rule.
pub const fn allowed(rule: &'static str) -> Expect {
    Expect::Allowed(Because { reason: "rule", rule })
}

/// Allowed without any rule.
pub const fn passes(reason: &'static str) -> Expect {
    Expect::Allowed(Because { reason, rule: "default" })
}

/// Refused because no rule names it.
pub const fn refused(kind: &'static str) -> Expect {
    Expect::Refused(Alarm { kind, reason: "no-rule", rule: "default" })
}

/// Refused because the rules that name it are for others.
pub const fn not_for_you(kind: &'static str) -> Expect {
    Expect::Refused(Alarm { kind, reason: "not-for-this-workload", rule: "default" })
}

/// Refused by a rule.
pub const fn denied(kind: &'static str, rule: &'static str) -> Expect {
    Expect::Refused(Alarm { kind, reason: "rule", rule })
}

/// Refused for another reason.
pub const fn refused_for(kind: &'static str, reason: &'static str) -> Expect {
    Expect::Refused(Alarm { kind, reason, rule: "default" })
}

/// Only reported, because no rule names it.
pub const fn would_refuse(kind: &'static str) -> Expect {
    Expect::WouldDeny(Alarm { kind, reason: "no-rule", rule: "default" })
}

/// Only reported, because a rule refuses it.
pub const fn would_deny(kind: &'static str, rule: &'static str) -> Expect {
    Expect::WouldDeny(Alarm { kind, reason: "rule", rule })
}
