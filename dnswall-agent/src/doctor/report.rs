//! What the doctor says: a line for each thing looked at, and what is and is not enforced on this host.

use serde::{Deserialize, Serialize};

/// How a finding bears on enforcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// The wall stands, with less than it could have.
    Warn,
    /// The wall cannot stand here.
    Fail,
}

impl Level {
    /// The word for it, as JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name.
    pub name: String,
    /// How it bears on enforcement.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What that means for enforcement.
    pub meaning: String,
    /// What to do about it; nothing when it is well.
    pub fix: Option<String>,
}

impl Check {
    /// It is as it should be.
    pub fn ok(name: &str, found: impl Into<String>, meaning: &str) -> Self {
        let (name, meaning) = (name.to_owned(), meaning.to_owned());
        Self { name, level: Level::Ok, found: found.into(), meaning, fix: None }
    }

    /// The wall stands, with less than it could have.
    pub fn warn(name: &str, found: impl Into<String>, meaning: &str, fix: &str) -> Self {
        let (name, meaning) = (name.to_owned(), meaning.to_owned());
        Self { name, level: Level::Warn, found: found.into(), meaning, fix: Some(fix.to_owned()) }
    }

    /// The wall cannot stand here.
    pub fn fail(name: &str, found: impl Into<String>, meaning: &str, fix: &str) -> Self {
        Self { level: Level::Fail, ..Self::warn(name, found, meaning, fix) }
    }
}

/// Everything the doctor found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The worst level of all checks.
    pub level: Level,
    /// Kernel release.
    pub kernel: String,
    /// Each thing looked at.
    pub checks: Vec<Check>,
    /// What a policy enforces on this host.
    pub enforced: Vec<String>,
    /// What no policy enforces on this host.
    pub not_enforced: Vec<String>,
}

impl Report {
    /// The findings that keep the wall from standing.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.level == Level::Fail)
    }
}
