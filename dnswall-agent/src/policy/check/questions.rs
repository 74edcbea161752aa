//! What `[dns]` says of the questions themselves.

use super::Check;
use crate::policy::problem::Problem;
use crate::policy::table::Field;
use crate::policy::{Events, quoted};
use std::num::NonZeroU32;
use toml::Spanned;

/// One question in so many, where a policy that samples does not say.
const SAMPLE: NonZeroU32 = NonZeroU32::new(100).expect("a number");
/// One question in so many, at most.
const SAMPLE_MAX: u32 = 1_000_000;

impl Check<'_> {
    /// Which questions are told of.
    pub(super) fn events(&mut self, events: &Field<Spanned<String>>, sample: &Field<Spanned<i64>>) -> Events {
        let level = self.word("events", events, LEVELS).unwrap_or(Level::Off);
        let of = match sample {
            Field::Given(written) => {
                let number = u32::try_from(*written.get_ref()).ok().filter(|number| *number <= SAMPLE_MAX);
                let number = number.and_then(NonZeroU32::new);
                if number.is_none() {
                    let given = quoted(&written.get_ref().to_string());
                    self.problems.push(
                        Problem::error(written.span(), format!("`sample` cannot be {given}"))
                            .why(format!(
                                "one question in so many is told of: a number from 1 to {SAMPLE_MAX}"
                            ))
                            .hint("write sample = 100"),
                    );
                }
                if level != Level::Sampled {
                    self.problems.push(
                        Problem::error(written.span(), "`sample` without events = \"sampled\"")
                            .why("the other words say by themselves how many questions are told of")
                            .hint("leave it out, or write events = \"sampled\""),
                    );
                }
                number.unwrap_or(SAMPLE)
            }
            Field::Absent | Field::Wrong => SAMPLE,
        };
        match level {
            Level::Off => Events::Off,
            Level::Denied => Events::Denied,
            Level::All => Events::All,
            Level::Sampled => Events::Sampled(of),
        }
    }
}

/// A word of `events`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Off,
    Denied,
    All,
    Sampled,
}

const LEVELS: &[(&str, Level)] =
    &[("off", Level::Off), ("denied", Level::Denied), ("all", Level::All), ("sampled", Level::Sampled)];
