//! Takes bytes that a process or a stranger chose, gives text that is safe to print and to store.

use std::fmt::Write as _;

/// Text of at most `bytes_max` bytes of `bytes`. What is not UTF-8, controls the terminal or turns the direction of
/// writing appears as `\xNN` or `\u{…}`; text that was cut ends in `…`.
pub fn printable(bytes: &[u8], bytes_max: usize) -> String {
    let cut = bytes.len() > bytes_max;
    let bytes = if cut { whole_characters(&bytes[..bytes_max]) } else { bytes };
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push(&mut text, character);
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if cut {
        text.push('…');
    }
    text
}

fn push(text: &mut String, character: char) {
    let code = u32::from(character);
    let _ = match code {
        0..0x20 | 0x7f => write!(text, "\\x{code:02x}"),
        _ if misleads(code) => write!(text, "\\u{{{code:x}}}"),
        _ => text.write_char(character),
    };
}

/// C1 controls, line separators, marks that are invisible or turn the direction of writing, tags, byte order mark.
const fn misleads(code: u32) -> bool {
    matches!(
        code,
        0x80..=0x9f
            | 0xad
            | 0x61c
            | 0x180e
            | 0x200b..=0x200f
            | 0x2028..=0x202e
            | 0x2060..=0x206f
            | 0xfeff
            | 0xfff9..=0xfffb
            | 0xe0000..=0xe007f
    )
}

/// Without a character that the cut went through.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    for back in 1..=bytes.len().min(3) {
        let start = bytes.len() - back;
        let length = match bytes[start] {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            0x80..=0xbf => continue,
            _ => return bytes,
        };
        return if length > back { &bytes[..start] } else { bytes };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_text_stays_as_it_is() {
        assert_eq!(printable("/usr/bin/größe 名\\n".as_bytes(), 100), "/usr/bin/größe 名\\n");
    }

    #[test]
    fn a_terminal_never_sees_an_escape() {
        assert_eq!(printable(b"a\x1b[31mb\n\x7f\x9b", 100), "a\\x1b[31mb\\x0a\\x7f\\x9b");
        assert_eq!(printable("x\u{202e}txt\u{9b}".as_bytes(), 100), "x\\u{202e}txt\\u{9b}");
    }

    #[test]
    fn a_cut_is_marked_and_splits_no_character() {
        assert_eq!(printable(b"abcdef", 3), "abc…");
        assert_eq!(printable("aß".as_bytes(), 2), "a…");
        assert_eq!(printable("名名".as_bytes(), 5), "名…");
        assert_eq!(printable("名名".as_bytes(), 6), "名名");
        assert_eq!(printable(&[0x80, 0x80, 0x80, 0x80], 3), "\\x80\\x80\\x80…");
    }

    proptest! {
        #[test]
        fn nothing_that_controls_comes_out(bytes in proptest::collection::vec(any::<u8>(), 0..200), bytes_max in 0usize..200) {
            let text = printable(&bytes, bytes_max);
            prop_assert!(text.chars().all(|c| !c.is_control() && !misleads(u32::from(c))));
        }
    }
}
