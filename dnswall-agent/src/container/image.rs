//! What an image is called.

use super::text;

/// The first of these that is a name; a digest says little to a person, but more than nothing.
pub fn named<'n>(names: impl IntoIterator<Item = Option<&'n str>>) -> Option<String> {
    let mut digest = None;
    for name in names.into_iter().flatten().filter(|name| !name.is_empty()) {
        if !is_digest(name) {
            return text(name);
        }
        digest = digest.or(Some(name));
    }
    digest.and_then(text)
}

fn is_digest(name: &str) -> bool {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_before_a_digest() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(named([Some(&*digest), Some("shop/api:1")]).as_deref(), Some("shop/api:1"));
        assert_eq!(named([Some(&*digest), Some(""), None]), Some(digest.clone()));
        assert_eq!(named([None, Some("")]), None);
    }
}
