//! Takes `[alerts]` and `[spool]` of agent.toml, gives how alerts are made, shown and kept.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use super::section::Section;
use crate::alert::limit::Limits;

/// Least and most time between two alerts of one flow.
pub const INTERVAL_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// Least and most alerts that a workload may have, at once and a minute.
pub const WORKLOAD_RANGE: (i64, i64) = (1, 1_000_000);
/// Least and most bytes of the spool.
pub const SPOOL_BYTES_RANGE: (i64, i64) = (4 << 20, 4 << 30);
/// Bytes of the spool, unless it is said.
pub(super) const SPOOL_BYTES_DEFAULT: u64 = 64 << 20;

/// How alerts are made and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertsConfig {
    /// The least time between two alerts of one flow.
    pub interval: Duration,
    /// What the agent itself prints on standard output.
    pub terminal: Terminal,
    /// How many alerts of one kind and severity a workload may have.
    pub limits: Limits,
}

/// What the agent prints on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Terminal {
    /// Lines for a person.
    Text,
    /// JSON lines.
    Json,
    /// No alerts.
    Off,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), terminal: Terminal::Text, limits: Limits::default() }
    }
}

/// Reads `[alerts]`, and where it says what the terminal is for.
pub(super) fn read_alerts(top: &mut Section<'_, '_>) -> (AlertsConfig, Option<Range<usize>>) {
    let mut alerts = AlertsConfig::default();
    let keys = ["interval", "terminal", "workload-burst", "workload-per-minute"];
    let Some(mut section) = top.section("alerts", "[alerts]", &keys) else { return (alerts, None) };
    alerts.interval = section.duration("interval", INTERVAL_RANGE).unwrap_or(alerts.interval);
    let mut number = |key, usual| {
        section.integer(key, WORKLOAD_RANGE).and_then(|number| u32::try_from(number).ok()).unwrap_or(usual)
    };
    alerts.limits = Limits {
        burst: number("workload-burst", alerts.limits.burst),
        per_minute: number("workload-per-minute", alerts.limits.per_minute),
    };
    let choices = [("text", Terminal::Text), ("json", Terminal::Json), ("off", Terminal::Off)];
    let (span, terminal) = section.choice("terminal", &choices).unzip();
    alerts.terminal = terminal.unwrap_or(alerts.terminal);
    (alerts, span)
}

/// Reads `[spool]`: its most bytes.
pub(super) fn read_spool(top: &mut Section<'_, '_>) -> u64 {
    top.section("spool", "[spool]", &["max-bytes"])
        .and_then(|mut section| section.integer("max-bytes", SPOOL_BYTES_RANGE))
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(SPOOL_BYTES_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn intervals_have_a_unit_and_limits() {
        let interval = |text: &str| {
            Config::parse(&format!("[alerts]\ninterval = \"{text}\""), "agent.toml")
                .map(|config| config.alerts.interval.as_millis())
                .map_err(|problems| problems.list()[0].message.clone())
        };
        assert_eq!(interval("1s"), Ok(1_000));
        assert_eq!(interval("1m 30s"), Ok(90_000));
        assert_eq!(interval("1500ms"), Ok(1_500));
        assert_eq!(interval("1h"), Ok(3_600_000));
        for wrong in ["", "10", "0s", "999ms", "2h", "-5s", "1 month", "forever"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_workload_has_at_least_one_alert() {
        let limits = |text: &str| Config::parse(text, "agent.toml").map(|config| config.alerts.limits);
        let usual = Limits::default();
        assert_eq!(limits("[alerts]\nworkload-burst = 1").unwrap(), Limits { burst: 1, ..usual });
        let most = Limits { per_minute: 1_000_000, ..usual };
        assert_eq!(limits("[alerts]\nworkload-per-minute = 1_000_000").unwrap(), most);
        for wrong in ["workload-burst = 0", "workload-per-minute = 1_000_001", "workload-burst = \"9\""] {
            assert!(limits(&format!("[alerts]\n{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_spool_has_a_least_and_a_most_size() {
        let bytes = |text: &str| Config::parse(text, "agent.toml").map(|config| config.spool_bytes_max);
        assert_eq!(bytes("[spool]\n").unwrap(), SPOOL_BYTES_DEFAULT);
        assert_eq!(bytes("[spool]\nmax-bytes = 4194304").unwrap(), 4 << 20);
        for wrong in ["max-bytes = 4194303", "max-bytes = 4294967297", "max-bytes = \"64MB\"", "bytes = 1"] {
            assert!(bytes(&format!("[spool]\n{wrong}")).is_err(), "{wrong}");
        }
    }
}
