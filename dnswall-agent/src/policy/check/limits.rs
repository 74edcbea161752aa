//! What `[dns.limits]`, and a scope's, say of how much may be asked.

use super::Check;
use crate::policy::Limits;
use crate::policy::file::LimitsTable;
use crate::policy::problem::{Problem, quoted};
use crate::policy::table::Field;
use dnswall_common::name::LABELS_MAX;
use dnswall_common::quota::{DISTINCT_MAX, TYPES_MAX};
use domain::base::iana::Rtype;
use toml::Spanned;

/// The longest name and label (RFC 1035, 2.3.4), the first without the root's dot.
const NAME_BYTES_MAX: u32 = 253;
const LABEL_BYTES_MAX: u32 = 63;
/// Counts that are a limit to somebody.
const COUNT_MAX: u32 = 1_000_000;

impl Check<'_> {
    /// The limits of a table; what it does not say is as in `above`.
    pub(super) fn limits(&mut self, table: Option<LimitsTable>, above: &Limits) -> Limits {
        let Some(table) = table else { return above.clone() };
        let bytes = |number: Option<u32>| number.and_then(|number| u8::try_from(number).ok());
        let wide = |number: Option<u8>| number.map(u32::from);
        Limits {
            name_length: bytes(self.limit(
                "name-length",
                &table.name_length,
                NAME_BYTES_MAX,
                wide(above.name_length),
            )),
            label_length: bytes(self.limit(
                "label-length",
                &table.label_length,
                LABEL_BYTES_MAX,
                wide(above.label_length),
            )),
            labels: bytes(self.limit("labels", &table.labels, LABELS_MAX as u32, wide(above.labels))),
            questions_per_second: self.limit(
                "questions-per-second",
                &table.questions_per_second,
                COUNT_MAX,
                above.questions_per_second,
            ),
            names_per_domain: self.limit(
                "names-per-domain",
                &table.names_per_domain,
                DISTINCT_MAX,
                above.names_per_domain,
            ),
            nxdomain_per_minute: self.limit(
                "nxdomain-per-minute",
                &table.nxdomain_per_minute,
                COUNT_MAX,
                above.nxdomain_per_minute,
            ),
            answer_bytes: match table.answer_bytes {
                Field::Given(entries) => self.answer_bytes(&entries),
                Field::Absent | Field::Wrong => above.answer_bytes.clone(),
            },
        }
    }

    /// A number from 1 to `most`, or "none".
    fn limit(
        &mut self,
        key: &str,
        field: &Field<Spanned<String>>,
        most: u32,
        above: Option<u32>,
    ) -> Option<u32> {
        let Field::Given(written) = field else { return above };
        let text = written.get_ref().replace('_', "");
        if text == NONE {
            return None;
        }
        match text.parse().ok().filter(|number| (1..=most).contains(number)) {
            Some(number) => Some(number),
            None => {
                self.problems.push(
                    Problem::error(
                        written.span(),
                        format!("`{key}` cannot be {}", quoted(written.get_ref())),
                    )
                    .why(format!("it is a number from 1 to {most}, or \"{NONE}\""))
                    .hint(format!("write {key} = {}, or leave it out", most.min(100))),
                );
                above
            }
        }
    }

    fn answer_bytes(&mut self, entries: &[(Spanned<String>, Spanned<i64>)]) -> Vec<(u16, u32)> {
        let mut limits: Vec<(u16, u32)> = Vec::new();
        for (kind, bytes) in entries {
            let Ok(rtype) = kind.get_ref().to_ascii_uppercase().parse::<Rtype>() else {
                self.problems.push(
                    Problem::error(
                        kind.span(),
                        format!("{} is not a type of question", quoted(kind.get_ref())),
                    )
                    .why("types are known by the names of their records, or as TYPE and a number")
                    .hint("write like answer-bytes = { TXT = 65536 }"),
                );
                continue;
            };
            match u32::try_from(*bytes.get_ref()).ok().filter(|bytes| *bytes > 0) {
                Some(_) if limits.iter().any(|(kind, _)| *kind == rtype.to_int()) => self.problems.push(
                    Problem::error(kind.span(), format!("{rtype} is named twice"))
                        .why("a type has one limit")
                        .hint("take one of them out"),
                ),
                Some(bytes) => limits.push((rtype.to_int(), bytes)),
                None => self.problems.push(
                    Problem::error(
                        bytes.span(),
                        format!("`{}` cannot be {}", kind.get_ref(), bytes.get_ref()),
                    )
                    .why(format!(
                        "it is how many bytes of answers may come in a minute: from 1 to {}",
                        u32::MAX
                    ))
                    .hint("to refuse a type altogether write it into `deny-types` of [dns]"),
                ),
            }
        }
        if let Some((kind, _)) = entries.get(TYPES_MAX) {
            self.problems.push(
                Problem::error(kind.span(), format!("`answer-bytes` names {} types", entries.len()))
                    .why(format!("the kernel weighs answers of {TYPES_MAX}"))
                    .hint("keep those that carry data: TXT, NULL, CNAME"),
            );
        }
        limits
    }
}

/// What lifts a limit that is everyone's.
const NONE: &str = "none";
