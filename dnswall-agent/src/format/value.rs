//! Takes text that strangers chose, gives a value that is short enough and breaks no line.

use crate::event::text::printable;

/// Bytes of any value, unless the format says less. ArcSight's limit for most, and what Elasticsearch indexes of a keyword.
pub const VALUE_BYTES_MAX: usize = 1_023;
/// Bytes of a value of a process above the parent, of which there may be eight.
pub const ANCESTOR_BYTES_MAX: usize = 95;
/// Bytes of the name of a pod, a container, a node and the like, and of one name among several of DNS.
pub const NAMED_BYTES_MAX: usize = 255;
/// Bytes of a label: Kubernetes allows 317 for its key and 63 for its value.
pub const LABEL_BYTES_MAX: usize = 383;
/// Bytes of what an image is called, its registry and digest included.
pub const IMAGE_BYTES_MAX: usize = 511;
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

/// The same of what an orchestrator or a runtime names, and of names in DNS: both allow 253 bytes.
pub fn named(text: &str) -> String {
    bounded(text, NAMED_BYTES_MAX)
}

/// What comes after the last `/` of a path.
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}

/// An image's name and its tag, of a reference like `registry:5000/shop/api:1.2@sha256:…`.
pub fn image_parts(image: &str) -> (&str, Option<&str>) {
    let named = image.split_once('@').map_or(image, |(named, _)| named);
    match named.rsplit_once(':') {
        // A registry's port is no tag.
        Some((name, tag)) if !tag.contains('/') && !name.is_empty() && name != "sha256" => (name, Some(tag)),
        _ => (named, None),
    }
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
        assert_eq!(bounded("\n\n\n", 8), "\\x0a…");
        assert_eq!(bounded("ßßßß", 6), "ß…");
    }

    #[test]
    fn a_path_without_a_name_is_its_own() {
        assert_eq!(["/usr/bin/dig", "dig", "/", "/a/"].map(file_name), ["dig", "dig", "/", "/a/"]);
    }

    #[test]
    fn an_image_has_a_name_and_perhaps_a_tag() {
        for (image, name, tag) in [
            ("registry:5000/shop/api:1.2@sha256:ab", "registry:5000/shop/api", Some("1.2")),
            ("registry:5000/shop/api", "registry:5000/shop/api", None),
            ("api:latest", "api", Some("latest")),
            ("sha256:abcd", "sha256:abcd", None),
            (":", ":", None),
            ("", "", None),
        ] {
            assert_eq!(image_parts(image), (name, tag), "{image}");
        }
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
