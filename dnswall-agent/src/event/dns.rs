//! Takes the payload that goes with a DNS message, gives its question, or what it answers. The bytes are a stranger's.

use std::net::IpAddr;

use dnswall_common::event::Event;
use dnswall_common::flow::protocol;
use domain::base::{Message, ParsedName};
use domain::rdata::AllRecordData;

/// What a DNS message asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name as sent, in presentation form: escaped, without the last dot (`.` is the root).
    pub name: String,
    /// The type, `TYPE65280` when it has no name.
    pub kind: String,
    /// The message's id.
    pub id: u16,
}

/// What a resolver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it answers.
    pub question: Question,
    /// `NOERROR`, `NXDOMAIN`, …
    pub code: String,
    /// Addresses, as far as they can be read.
    pub addresses: Vec<IpAddr>,
    /// How long they may be used: the shortest time of all records that were read.
    pub ttl_secs: Option<u32>,
    /// Names that it is another name of, likewise.
    pub aliases: Vec<String>,
    /// Whether the server left something out.
    pub truncated: bool,
    /// Bytes of the message.
    pub bytes: u32,
}

/// Records of an answer that are read.
pub const RECORDS_MAX: usize = 64;

/// The question of an event, when it carries one that can be read.
pub fn question(event: &Event) -> Option<Question> {
    questions(event).next()
}

/// Every question of an event: over TCP there may be several in a segment.
pub fn questions(event: &Event) -> impl Iterator<Item = Question> {
    messages(event).filter_map(|(message, _)| question_of(message))
}

/// Every answer of an event, likewise.
pub fn answers(event: &Event) -> impl Iterator<Item = Answer> {
    messages(event).filter_map(|(message, bytes)| answer_of(message, bytes))
}

/// The messages of an event, as far as they are in it, and how long each was.
fn messages(event: &Event) -> impl Iterator<Item = (&[u8], u32)> {
    let mut left = event.payload.get(..usize::from(event.payload_bytes)).unwrap_or_default();
    let is_over_tcp = event.protocol == protocol::TCP;
    // A header without options, and that of UDP.
    let headers = if event.family == 4 { 28 } else { 48 };
    let datagram = event.packet_bytes.saturating_sub(headers);
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        if !is_over_tcp {
            return Some((std::mem::take(&mut left), datagram));
        }
        // Over TCP a message follows its length.
        let (length, behind) = left.split_first_chunk::<2>()?;
        let length = u16::from_be_bytes(*length);
        let (message, rest) = behind.split_at(behind.len().min(length.into()));
        left = rest;
        Some((message, length.into()))
    })
}

/// An answer, of which the end may be missing; `bytes` is how long it was.
pub fn answer_of(message: &[u8], bytes: u32) -> Option<Answer> {
    let question = question_of(message)?;
    let message = Message::from_slice(message).ok()?;
    let header = message.header();
    let (mut addresses, mut aliases, mut ttl_secs) = (Vec::new(), Vec::new(), None::<u32>);
    // What is cut off ends the walk.
    let records = message.answer().into_iter().flatten().map_while(Result::ok).take(RECORDS_MAX);
    for record in records {
        let ttl = record.ttl().as_secs();
        ttl_secs = Some(ttl_secs.map_or(ttl, |least| least.min(ttl)));
        match record.to_any_record::<AllRecordData<_, ParsedName<_>>>().map(|record| record.into_data()) {
            Ok(AllRecordData::A(data)) => addresses.push(IpAddr::V4(data.addr())),
            Ok(AllRecordData::Aaaa(data)) => addresses.push(IpAddr::V6(data.addr())),
            Ok(AllRecordData::Cname(data)) => aliases.push(data.cname().to_string()),
            _ => {}
        }
    }
    Some(Answer {
        question,
        code: header.rcode().to_string(),
        addresses,
        ttl_secs,
        aliases,
        truncated: header.tc(),
        bytes,
    })
}

/// The first question of a message, of which the end may be missing.
pub fn question_of(message: &[u8]) -> Option<Question> {
    let message = Message::from_slice(message).ok()?;
    let question = message.first_question()?;
    let name = question.qname().to_string();
    Some(Question {
        name: if name.is_empty() { ".".to_owned() } else { name },
        kind: question.qtype().to_string(),
        id: message.header().id(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;
    use proptest::prelude::*;

    fn message(question: &[u8]) -> Vec<u8> {
        let mut message = b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
        message.extend(question);
        message
    }

    fn shown(question: &[u8]) -> Option<(String, String)> {
        question_of(&message(question)).map(|question| (question.name, question.kind))
    }

    #[test]
    fn a_question_is_read_over_udp_and_tcp() {
        let mut event = sample::event();
        let asked = Question { name: "example.com".to_owned(), kind: "A".to_owned(), id: 0x1234 };
        assert_eq!(question(&event), Some(asked.clone()));
        event.protocol = protocol::TCP;
        event.payload.copy_within(..100, 2);
        event.payload_bytes += 2;
        assert_eq!(question(&event), Some(asked));
        event.payload_bytes = 1;
        assert_eq!(question(&event), None);
    }

    #[test]
    fn names_are_escaped_and_types_named() {
        assert_eq!(shown(b"\x00\x00\x02\x00\x01"), Some((".".to_owned(), "NS".to_owned())));
        assert_eq!(
            shown(b"\x03a.\x1b\x00\xff\x00\x00\x01"),
            Some(("a\\.\\027".to_owned(), "TYPE65280".to_owned()))
        );
        assert_eq!(shown(b"\x01\xff\x00\x00\xff\x00\x01"), Some(("\\255".to_owned(), "ANY".to_owned())));
    }

    #[test]
    fn what_cannot_be_read_is_no_question() {
        assert_eq!(question_of(b""), None);
        assert_eq!(question_of(&message(b"")), None);
        assert_eq!(shown(b"\x07exam"), None);
        assert_eq!(shown(b"\xc0\x0c\x00\x01\x00\x01"), None, "a pointer to itself");
        assert_eq!(shown(b"\xc0\xff\x00\x01\x00\x01"), None, "a pointer out of the message");
    }

    #[test]
    fn the_longest_name_fits_the_payload() {
        let mut question = Vec::new();
        for bytes in [63, 63, 63, 61] {
            question.push(bytes);
            question.extend(std::iter::repeat_n(b'a', usize::from(bytes)));
        }
        question.extend(b"\x00\x00\x01\x00\x01");
        assert!(message(&question).len() <= dnswall_common::limits::EVENT_PAYLOAD_BYTES);
        assert_eq!(shown(&question).map(|(name, _)| name.len()), Some(253));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(head in proptest::collection::vec(any::<u8>(), 0..300), valid: bool) {
            let bytes = if valid { message(&head) } else { head };
            if let Some(question) = question_of(&bytes) {
                prop_assert!(question.name.len() <= 4 * 255 && question.name.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            }
        }
    }
}
