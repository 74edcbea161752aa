//! Takes bytes that a process or a stranger chose, gives text that is safe to print and to store.

/// What `bytes` begin with, in at most `bytes_max` bytes as JSON has them (a `"` or a `\` has two there). What is not UTF-8, controls
/// the terminal or turns the direction of writing appears as `\xNN` or `\u{…}`, whole or not at all; text that was cut ends in `…`.
pub fn printable(bytes: &[u8], bytes_max: usize) -> String {
    // No byte becomes less than one, and what the cut goes through is beyond the bound already.
    let bytes = &bytes[..bytes.len().min(bytes_max.saturating_add(CHARACTER_BYTES_MAX))];
    let (mut text, mut room) = (String::with_capacity(bytes.len()), bytes_max);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if !push(&mut text, character, &mut room) {
                return text + "…";
            }
        }
        for byte in chunk.invalid() {
            if !append(&mut text, &format!("\\x{byte:02x}"), &mut room) {
                return text + "…";
            }
        }
    }
    text
}

/// How many bytes one byte becomes at most.
pub const GROWTH_MAX: usize = r"\\xff".len();
/// Bytes of the longest character.
const CHARACTER_BYTES_MAX: usize = 4;

/// Whether there was room for it.
fn push(text: &mut String, character: char, room: &mut usize) -> bool {
    let code = u32::from(character);
    match code {
        0..0x20 | 0x7f => append(text, &format!("\\x{code:02x}"), room),
        _ if misleads(code) => append(text, &format!("\\u{{{code:x}}}"), room),
        _ => append(text, character.encode_utf8(&mut [0; CHARACTER_BYTES_MAX]), room),
    }
}

fn append(text: &mut String, piece: &str, room: &mut usize) -> bool {
    let bytes = piece.len() + piece.matches(['"', '\\']).count();
    let Some(left) = room.checked_sub(bytes) else { return false };
    *room = left;
    text.push_str(piece);
    true
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
        assert_eq!(printable("名名".as_bytes(), 0), "…");
        assert_eq!(printable(b"", 0), "");
    }

    #[test]
    fn what_is_escaped_counts_as_long_as_json_has_it() {
        assert_eq!(printable(&[0x80; 4], 10), "\\x80\\x80…");
        assert_eq!(printable(&[0x80; 4], 9), "\\x80…");
        assert_eq!(printable(b"\n\n", 10), "\\x0a\\x0a");
        assert_eq!(printable("\u{2028}\u{2028}".as_bytes(), 9), "\\u{2028}…");
        assert_eq!(printable(b"\"\\\"", 5), "\"\\…");
    }

    proptest! {
        #[test]
        fn nothing_that_controls_comes_out(bytes in proptest::collection::vec(any::<u8>(), 0..200), bytes_max in 0usize..200) {
            let text = printable(&bytes, bytes_max);
            prop_assert!(text.chars().all(|c| !c.is_control() && !misleads(u32::from(c))));
            let json = serde_json::to_string(&text).unwrap().len() - "\"\"".len();
            let is_cut = json > bytes_max;
            prop_assert!(json <= bytes_max + "…".len() && (!is_cut || text.ends_with('…')), "{text}");
            prop_assert!(!is_cut || bytes.len() * GROWTH_MAX > bytes_max, "{text}");
            prop_assert!(bytes.len() <= bytes_max || text.ends_with('…'), "{text}");
        }
    }
}
