//! Takes `[lists]` of agent.toml, gives how lists are fetched.

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;

/// Least and most time that fetching one list may take.
pub const TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));

/// How lists are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListsConfig {
    /// A file of authorities that servers are known by, beside the host's.
    pub ca: Option<PathBuf>,
    /// How long one list may take.
    pub timeout: Duration,
}

impl Default for ListsConfig {
    fn default() -> Self {
        Self { ca: None, timeout: Duration::from_secs(300) }
    }
}

/// Reads it.
pub(super) fn read_lists(top: &mut Section<'_, '_>) -> ListsConfig {
    let usual = ListsConfig::default();
    let Some(mut section) = top.section("lists", "[lists]", &["ca", "timeout"]) else { return usual };
    let ca = section.path("ca");
    let timeout = section.duration("timeout", TIMEOUT_RANGE).unwrap_or(usual.timeout);
    ListsConfig { ca, timeout }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn a_list_may_take_a_second_to_an_hour() {
        let lists =
            |text: &str| Config::parse(&format!("[lists]\n{text}"), "agent.toml").map(|config| config.lists);
        assert_eq!(lists("").unwrap(), ListsConfig::default());
        let said = ListsConfig { ca: Some(PathBuf::from("/a.pem")), timeout: Duration::from_secs(1) };
        assert_eq!(lists("ca = \"/a.pem\"\ntimeout = \"1s\"").unwrap(), said);
        for wrong in ["ca = \"a.pem\"", "timeout = \"0s\"", "timeout = \"2h\"", "url = \"https://a\""] {
            assert!(lists(wrong).is_err(), "{wrong}");
        }
    }
}
