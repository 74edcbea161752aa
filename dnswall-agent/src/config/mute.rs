//! Takes the `[[mute]]` tables of agent.toml, gives what alerts nobody wants for a while.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::section::Section;
use super::sink::NAME_BYTES_MAX;
use crate::alert::Kind;
use crate::alert::filter::{Filter, FilterText};
use crate::alert::mute::Mute;
use crate::policy::{Problem, quoted};

/// Mutes at most.
pub const MUTES_MAX: usize = 64;

/// Every key.
pub(super) const KEYS: &[&str] = &["reason", "until", "kind", "workload", "rule", "name"];

/// Reads one.
pub(super) fn read_mute(mut section: Section<'_, '_>) -> Option<Mute> {
    section.require("reason", "write reason = \"…\", for whoever finds this later");
    section.require(
        "until",
        "write until = \"2026-12-31\": what is muted for ever is what an attacker looks for",
    );
    let until =
        section.name("until", NAME_BYTES_MAX).and_then(|text| {
            let until = end_of(&text);
            if until.is_none() {
                let problem =
                    Problem::error(section.value_span("until"), format!("{} is no date", quoted(&text)));
                section.note(problem.hint(
                    "write like \"2026-12-31\" (to the end of that day, UTC) or \"2026-12-31T12:00:00Z\"",
                ));
            }
            until
        });
    let reason = section.name("reason", NAME_BYTES_MAX);
    let mut text = |key: &str| section.name(key, NAME_BYTES_MAX);
    let (kind, workload, rule, name) = (text("kind"), text("workload"), text("rule"), text("name"));
    if let Some(kind) = kind.as_deref().filter(|kind| Kind::named(kind).is_some_and(Kind::is_never_muted)) {
        let problem =
            Problem::error(section.value_span("kind"), format!("alerts of kind `{kind}` are never muted"));
        section.note(problem.hint("take this [[mute]] out"));
    }
    let filter = FilterText { kind, workload, rule, name, ..FilterText::default() };
    if ["kind", "workload", "rule", "name"].iter().all(|key| section.lacks(key)) {
        section.require("kind", "write kind, workload, rule or name: which alerts are meant");
    }
    // What is written is all text: nothing in it can be misunderstood.
    let filter = Filter::parse(&filter, Timestamp::UNIX_EPOCH).ok()?;
    Some(Mute { reason: reason?, filter, until: until? })
}

/// A time, or the end of a day.
fn end_of(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let day: Date = text.parse().ok()?;
    Some(day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn a_mute_has_a_reason_an_end_and_something_that_it_is_about() {
        let text = "[[mute]]\nreason = \"r\"\nuntil = \"2027-01-31\"\nkind = \"dns.*\"\nworkload = \"a*\"\n";
        let mutes = Config::parse(text, "agent.toml").unwrap().mutes;
        assert_eq!(mutes[0].until, "2027-02-01T00:00:00Z".parse().unwrap());
        let exact = text.replace("2027-01-31", "2027-01-31T12:00:00Z");
        let mutes = Config::parse(&exact, "agent.toml").unwrap().mutes;
        assert_eq!(mutes[0].until, "2027-01-31T12:00:00Z".parse().unwrap());
        let wrong = "[[mute]]\nkind = \"tamper\"\n[[mute]]\nreason = \"r\"\nuntil = \"soon\"\n";
        let problems = Config::parse(wrong, "agent.toml").unwrap_err();
        let messages: Vec<&str> = problems.list().iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "[[mute]] has no `reason`",
                "[[mute]] has no `until`",
                "alerts of kind `tamper` are never muted",
                "[[mute]] has no `kind`",
                "`soon` is no date",
            ]
        );
    }
}
