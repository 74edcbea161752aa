//! The question of a DNS message, and what it answers: whatever the bytes are, what is shown of them is plain and short.

use dnswall_agent::event::dns::{RECORDS_MAX, answer_of, question_of};

/// Bytes of the longest name as it is shown: each of 255 as `\ddd`.
const NAME_BYTES_MAX: usize = 4 * 255;

/// Reads it.
pub fn check(data: &[u8]) {
    let Some(question) = question_of(data) else { return };
    assert!(!question.name.is_empty() && question.name.len() <= NAME_BYTES_MAX, "{question:?}");
    assert!(question.name.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{question:?}");
    assert!(question.kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{question:?}");
    assert_eq!(question.id, u16::from_be_bytes([data[0], data[1]]));
    // A question that is whole stays what it is, whatever follows.
    let longer = [data, b"\x00\xff\xc0\x0c"].concat();
    assert_eq!(question_of(&longer), Some(question.clone()));
    let answer = answer_of(data, 7).expect("it has a question");
    assert_eq!((&answer.question, answer.bytes), (&question, 7));
    assert!(answer.addresses.len() + answer.aliases.len() <= RECORDS_MAX, "{answer:?}");
    for alias in answer.aliases.iter().chain([&answer.code]) {
        assert!(
            alias.len() <= NAME_BYTES_MAX && alias.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{alias}"
        );
    }
}
