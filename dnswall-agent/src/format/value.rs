//! Takes text that strangers chose, gives a value that is short enough and breaks no line.

use crate::event::text::printable;

/// Bytes of any value, unless the format says less. ArcSight's limit for most, and what Elasticsearch indexes of a keyword.
pub const VALUE_BYTES_MAX: usize = 1_023;
/// Bytes of a value of a process above the parent, of which there may be eight.
pub const ANCESTOR_BYTES_MAX: usize = 127;
/// What stands at the end of a value that was cut.
pub const CUT_MARK: &str = "…";

/// The text without what controls a terminal or ends a line, of at most `bytes_max` bytes, [`CUT_MARK`] included.
pub fn bounded(text: &str, bytes_max: usize) -> String {
    let mut value = printable(text.as_bytes(), bytes_max.max(CUT_MARK.len()));
    if value.len() > bytes_max {
        let room = bytes_max.saturating_sub(CUT_MARK.len());
        let end = (0..=room).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
        value.truncate(end);
        value.push_str(CUT_MARK);
    }
    value
}

/// The same with the usual limit.
pub fn value(text: &str) -> String {
    bounded(text, VALUE_BYTES_MAX)
}

/// What comes after the last `/` of a path.
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cut_is_marked() {
        assert_eq!(bounded("abcdef", 6), "abcdef");
        assert_eq!(bounded("abcdefg", 6), "abc…");
        assert_eq!(bounded("ab\ncd", 20), "ab\\x0acd");
        assert_eq!(bounded("\n\n\n", 8), "\\x0a\\…");
        assert_eq!(bounded("ßßßß", 6), "ß…");
    }

    #[test]
    fn a_path_without_a_name_is_its_own() {
        assert_eq!(["/usr/bin/dig", "dig", "/", "/a/"].map(file_name), ["dig", "dig", "/", "/a/"]);
    }

    proptest! {
        #[test]
        fn nothing_is_longer_or_breaks_a_line(text in any::<String>(), bytes_max in 3usize..64) {
            let value = bounded(&text, bytes_max);
            prop_assert!(value.len() <= bytes_max, "{value:?}");
            let breaks = |c: char| c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c);
            prop_assert!(!value.contains(breaks));
        }
    }
}
