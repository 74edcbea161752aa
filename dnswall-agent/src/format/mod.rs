//! Takes an alert, gives one line of text in the words of whoever reads it: a person, a program, a SIEM.
//!
//! Pure functions of the alert: nothing here does I/O, reads a clock or knows where the line goes. What strangers chose
//! (names, paths, command lines) is cleaned and bounded by [`value`] before a format escapes it. A line never has a line
//! break.

pub mod cef;
pub mod ecs;
pub mod leef;
mod object;
pub mod ocsf;
mod sentence;
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

    #[test]
    fn each_has_its_name() {
        for format in Format::ALL {
            assert_eq!(Format::named(format.name()), Some(format));
        }
        assert_eq!(Format::named("xml"), None);
    }
}
