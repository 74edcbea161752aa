//! Patterns with `*`, which stands for any text, and nothing else.

/// Whether the whole text is what the pattern says. Greedy with one way back, so linear for each star.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if *byte == text[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((after, at)) => {
                    retry = Some((after, at + 1));
                    p = after;
                    n = at + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_match_as_in_a_shell() {
        let cases: [(&str, &str, bool); 11] = [
            ("python3*", "python3.11", true),
            ("python3*", "python", false),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*.so", "x.so.so", true),
            ("*ab", "aab", true),
            ("**x", "x", true),
            ("exact", "exacts", false),
            ("", "a", false),
            ("a?", "ab", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
