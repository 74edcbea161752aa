//! Takes `[proof]` and `[heartbeat]` of agent.toml, gives how often it is tried whether the wall stands and whether alerts arrive.

use std::time::Duration;

use super::section::Section;

/// Least and most time between two proofs: the kernel tells of one flow once a second.
pub const PROOF_RANGE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3_600));
/// Least and most time between two looks at links, programs and maps.
pub const WATCH_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// Least and most time between two tests of whether alerts arrive.
pub const HEARTBEAT_RANGE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(86_400));
/// Time between two of them, unless it is said.
pub(super) const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(300);

/// How the wall is proven to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofConfig {
    /// Between two tries of what is forbidden.
    pub interval: Duration,
    /// Between two looks at links, programs and maps.
    pub watch: Duration,
    /// What a first try that is let through is a reason for.
    pub at_start: AtStart,
}

/// What the agent does when the wall it has just raised lets through what it must refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// Ends, and says so.
    Refuse,
    /// Says so, and goes on.
    Report,
}

impl Default for ProofConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60), watch: Duration::from_secs(5), at_start: AtStart::Refuse }
    }
}

/// Reads `[proof]`.
pub(super) fn read_proof(top: &mut Section<'_, '_>) -> ProofConfig {
    let mut proof = ProofConfig::default();
    if let Some(mut section) = top.section("proof", "[proof]", &["interval", "watch", "at-start"]) {
        proof.interval = section.duration("interval", PROOF_RANGE).unwrap_or(proof.interval);
        proof.watch = section.duration("watch", WATCH_RANGE).unwrap_or(proof.watch);
        let choices = [("refuse", AtStart::Refuse), ("report", AtStart::Report)];
        proof.at_start = section.choice("at-start", &choices).map_or(proof.at_start, |(_, choice)| choice);
    }
    proof
}

/// Reads `[heartbeat]`: the time between two tests, if there are to be any.
pub(super) fn read_heartbeat(top: &mut Section<'_, '_>) -> Option<Duration> {
    let usual = Some(HEARTBEAT_DEFAULT);
    let Some(mut section) = top.section("heartbeat", "[heartbeat]", &["enabled", "interval"]) else {
        return usual;
    };
    let interval = section.duration("interval", HEARTBEAT_RANGE).or(usual);
    interval.filter(|_| section.boolean("enabled").unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn the_proof_has_limits() {
        let parse = |text: &str| Config::parse(&format!("[proof]\n{text}"), "agent.toml");
        let said = parse("interval = \"2s\"\nwatch = \"1h\"\nat-start = \"report\"").unwrap().proof;
        let (interval, watch) = (Duration::from_secs(2), Duration::from_secs(3_600));
        assert_eq!(said, ProofConfig { interval, watch, at_start: AtStart::Report });
        for wrong in ["interval = \"1s\"", "watch = \"2h\"", "at-start = \"maybe\"", "often = true"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_heart_beats_unless_it_is_said() {
        let heartbeat = |text: &str| {
            Config::parse(&format!("[heartbeat]\n{text}"), "agent.toml").map(|config| config.heartbeat)
        };
        assert_eq!(heartbeat("").unwrap(), Some(HEARTBEAT_DEFAULT));
        assert_eq!(heartbeat("interval = \"5s\"").unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(heartbeat("enabled = false\ninterval = \"5s\"").unwrap(), None);
        for wrong in ["interval = \"4s\"", "interval = \"25h\"", "enabled = 1", "often = true"] {
            assert!(heartbeat(wrong).is_err(), "{wrong}");
        }
    }
}
