//! Takes an alert, gives one line of text in the words of whoever reads it: a person, a program, a SIEM.
//!
//! Pure functions of the alert: nothing here does I/O, reads a clock or knows where the line goes. What strangers chose
//! (names, paths, command lines) is cleaned and bounded by [`value`] before a format escapes it. A line never has a line
//! break, and in every format but text it has [`Alert::id`]: an alert may arrive twice, and who stores by it stores it once.

pub mod cef;
pub mod ecs;
pub mod journal;
pub mod leef;
mod object;
pub mod ocsf;
pub mod otlp;
mod sentence;
pub mod syslog;
pub mod value;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod schema;

use crate::alert::{Alert, text};

/// Who says it, in every format.
const PRODUCT: &str = "dnswall";
/// Which version of it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How an alert becomes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// For a person.
    Text {
        /// With colours, which only a terminal understands.
        colour: bool,
    },
    /// The JSON object of this project, which has everything.
    Json,
    /// The Elastic Common Schema.
    Ecs,
    /// The Open Cybersecurity Schema Framework.
    Ocsf,
    /// ArcSight's Common Event Format.
    Cef,
    /// QRadar's Log Event Extended Format.
    Leef,
}

impl Format {
    /// All of them, the text without colour.
    pub const ALL: [Self; 6] =
        [Self::Text { colour: false }, Self::Json, Self::Ecs, Self::Ocsf, Self::Cef, Self::Leef];

    /// The alert as one line, without its end.
    pub fn encode(&self, alert: &Alert) -> String {
        match self {
            Self::Text { colour } => text::line(alert, *colour),
            Self::Json => alert.to_json(),
            Self::Ecs => ecs::line(alert),
            Self::Ocsf => ocsf::line(alert),
            Self::Cef => cef::line(alert),
            Self::Leef => leef::line(alert),
        }
    }

    /// Whether a line is a JSON object.
    pub const fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Ecs | Self::Ocsf)
    }

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Json => "json",
            Self::Ecs => "ecs",
            Self::Ocsf => "ocsf",
            Self::Cef => "cef",
            Self::Leef => "leef",
        }
    }

    /// The format of that name; text is without colour.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Kind;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Bytes of a line in a format of others, whatever the alert has in it.
    const LINE_BYTES_MAX: usize = 64 * 1_024;

    fn check(name: &str, alert: &Alert) {
        for format in Format::ALL {
            let line = format.encode(alert);
            let breaks = |c: char| c.is_control() && (format, c) != (Format::Leef, '\t');
            assert!(!line.contains(breaks), "{name}, {format:?}: {line:?}");
            assert!(!line.contains(['\u{2028}', '\u{2029}']), "{name}, {format:?}: {line:?}");
            let is_text = matches!(format, Format::Text { .. });
            assert!(is_text || line.contains(&alert.id.to_string()), "{name}, {format:?}: {line}");
            let is_own = is_text || format == Format::Json;
            assert!(is_own || line.len() <= LINE_BYTES_MAX, "{name}, {format:?}: {} bytes", line.len());
        }
    }

    #[test]
    fn every_kind_goes_through_every_format() {
        let alerts = sample::alerts();
        for (name, alert) in &alerts {
            check(name, alert);
        }
        for kind in Kind::ALL {
            assert!(alerts.iter().any(|(_, alert)| alert.kind == kind), "no {kind} among the samples");
        }
    }

    #[test]
    fn nothing_that_strangers_choose_makes_a_line_endless() {
        for text in ["\\", "\"", "=", "|", "]", "\n", "ß", "\u{2028}", "\0"] {
            check(text, &sample::hostile(&text.repeat(10_000)));
            check(text, &sample::hostile_tampering(&text.repeat(10_000)));
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_line_or_a_schema(text in any::<String>()) {
            for alert in [sample::hostile(&text), sample::hostile_tampering(&text)] {
                check(&text, &alert);
                let read: Value = serde_json::from_str(&Format::Ecs.encode(&alert)).unwrap();
                prop_assert_eq!(schema::ecs::problems(&read), [""; 0]);
                let read: Value = serde_json::from_str(&Format::Ocsf.encode(&alert)).unwrap();
                prop_assert_eq!(schema::ocsf::problems(&read), [""; 0]);
                prop_assert_eq!(serde_json::from_str::<Alert>(&Format::Json.encode(&alert)).unwrap(), alert);
            }
        }
    }

    #[test]
    fn each_has_its_name() {
        for format in Format::ALL {
            assert_eq!(Format::named(format.name()), Some(format));
        }
        assert_eq!(Format::named("xml"), None);
    }
}
