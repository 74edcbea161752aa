//! Takes the bytes of one ring record, gives an [`Event`] whose numbers are all known, or says which one is not.

use std::mem::offset_of;
use std::ops::RangeInclusive;

use dnswall_common::event::{Event, IDENTITY_OLD_SOCKET, IDENTITY_SOCKET, hook};
use dnswall_common::image::{MODE_AUDIT, MODE_ENFORCE};
use dnswall_common::limits::EVENT_PAYLOAD_BYTES;
use dnswall_common::reason::Reason;

/// Bytes of a ring record.
pub const EVENT_BYTES: usize = size_of::<Event>();

/// Why a ring record is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It has another length than this agent's events.
    #[error("ring record of {0} bytes, expected {EVENT_BYTES}")]
    Length(usize),
    /// The hook's number is unknown.
    #[error("unknown hook {0}")]
    Hook(u8),
    /// The reason's number is unknown.
    #[error("unknown reason {0}")]
    Reason(u8),
    /// The mode's number is unknown.
    #[error("unknown mode {0}")]
    Mode(u8),
    /// The identity's number is unknown.
    #[error("unknown identity {0}")]
    Identity(u8),
    /// The address family is neither 4 nor 6, or it is where there is no address.
    #[error("unknown address family {0}")]
    Family(u8),
    /// The payload claims more bytes than it has room for.
    #[error("payload of {0} bytes, at most {EVENT_PAYLOAD_BYTES} fit")]
    PayloadBytes(u16),
}

impl DecodeError {
    /// The field at fault, as `status` and metrics name it.
    pub const fn field(&self) -> &'static str {
        DecodeFailures::FIELDS[self.index()]
    }

    const fn index(&self) -> usize {
        match self {
            Self::Length(_) => 0,
            Self::Hook(_) => 1,
            Self::Reason(_) => 2,
            Self::Mode(_) => 3,
            Self::Identity(_) => 4,
            Self::Family(_) => 5,
            Self::PayloadBytes(_) => 6,
        }
    }
}

/// How many ring records could not be decoded, by the field at fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeFailures {
    counts: [u64; Self::FIELDS.len()],
}

impl DecodeFailures {
    const FIELDS: [&'static str; 7] =
        ["length", "hook", "reason", "mode", "identity", "family", "payload-bytes"];

    /// Counts one more.
    pub fn count(&mut self, error: &DecodeError) {
        self.counts[error.index()] += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Field and count, those that are zero included.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::FIELDS.into_iter().zip(self.counts)
    }
}

/// Reads one ring record.
///
/// # Errors
/// When the length is another one or a number is not known; nothing is guessed.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    decode_of(bytes, hook::EGRESS..=hook::DEVICE)
}

/// Reads one record of the ring of questions and answers.
///
/// # Errors
/// As [`decode`].
pub fn decode_question(bytes: &[u8]) -> Result<Event, DecodeError> {
    decode_of(bytes, hook::QUESTION..=hook::ANSWER)
}

fn decode_of(bytes: &[u8], hooks: RangeInclusive<u8>) -> Result<Event, DecodeError> {
    let record: &[u8; EVENT_BYTES] = bytes.try_into().map_err(|_| DecodeError::Length(bytes.len()))?;
    let event = read(record);
    if !hooks.contains(&event.hook) {
        return Err(DecodeError::Hook(event.hook));
    }
    if Reason::from_number(event.reason).is_none() {
        return Err(DecodeError::Reason(event.reason));
    }
    if ![MODE_ENFORCE, MODE_AUDIT].contains(&event.mode) {
        return Err(DecodeError::Mode(event.mode));
    }
    if ![IDENTITY_SOCKET, IDENTITY_OLD_SOCKET].contains(&event.identity) {
        return Err(DecodeError::Identity(event.identity));
    }
    let has_address = ![hook::SOCKET, hook::DEVICE].contains(&event.hook);
    if has_address != [4, 6].contains(&event.family) || !has_address && event.family != 0 {
        return Err(DecodeError::Family(event.family));
    }
    if usize::from(event.payload_bytes) > EVENT_PAYLOAD_BYTES {
        return Err(DecodeError::PayloadBytes(event.payload_bytes));
    }
    Ok(event)
}

/// Every field by its own offset. A literal without `..`: a new field does not build until it is read here.
fn read(record: &[u8; EVENT_BYTES]) -> Event {
    macro_rules! at {
        ($field:ident) => {
            bytes_at(record, offset_of!(Event, $field))
        };
        ($field:ident, second) => {
            bytes_at(record, offset_of!(Event, $field) + 8)
        };
    }
    Event {
        time_ns: u64::from_ne_bytes(at!(time_ns)),
        cookie: u64::from_ne_bytes(at!(cookie)),
        cgroup: u64::from_ne_bytes(at!(cgroup)),
        netns: u64::from_ne_bytes(at!(netns)),
        start_ns: u64::from_ne_bytes(at!(start_ns)),
        exe_number: u64::from_ne_bytes(at!(exe_number)),
        refusals: u64::from_ne_bytes(at!(refusals)),
        entry: u64::from_ne_bytes(at!(entry)),
        source: [u64::from_ne_bytes(at!(source)), u64::from_ne_bytes(at!(source, second))],
        destination: [u64::from_ne_bytes(at!(destination)), u64::from_ne_bytes(at!(destination, second))],
        exe_device: u32::from_ne_bytes(at!(exe_device)),
        uid: u32::from_ne_bytes(at!(uid)),
        pid: u32::from_ne_bytes(at!(pid)),
        generation: u32::from_ne_bytes(at!(generation)),
        rule: u32::from_ne_bytes(at!(rule)),
        packet_bytes: u32::from_ne_bytes(at!(packet_bytes)),
        source_port: u16::from_ne_bytes(at!(source_port)),
        destination_port: u16::from_ne_bytes(at!(destination_port)),
        payload_bytes: u16::from_ne_bytes(at!(payload_bytes)),
        protocol: u8::from_ne_bytes(at!(protocol)),
        family: u8::from_ne_bytes(at!(family)),
        hook: u8::from_ne_bytes(at!(hook)),
        reason: u8::from_ne_bytes(at!(reason)),
        mode: u8::from_ne_bytes(at!(mode)),
        identity: u8::from_ne_bytes(at!(identity)),
        parent: u32::from_ne_bytes(at!(parent)),
        comm: at!(comm),
        payload: at!(payload),
    }
}

/// `N` bytes of the record; the offsets above are all inside it, so this never takes the zeroes.
fn bytes_at<const N: usize>(record: &[u8; EVENT_BYTES], offset: usize) -> [u8; N] {
    record.get(offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;
    use proptest::prelude::*;

    #[test]
    fn what_the_kernel_writes_is_read_back() {
        let event = sample::event();
        let again = decode(&sample::bytes(&event)).unwrap();
        assert_eq!(sample::bytes(&again), sample::bytes(&event));
        assert_eq!(again.destination_port, 53);
    }

    #[test]
    fn each_unknown_number_is_named() {
        let good = sample::bytes(&sample::event());
        assert_eq!(decode(&good[1..]).unwrap_err(), DecodeError::Length(EVENT_BYTES - 1));
        assert_eq!(decode(&[]).unwrap_err(), DecodeError::Length(0));
        let with = |offset: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[offset] = value;
            decode(&bytes).unwrap_err()
        };
        assert_eq!(with(offset_of!(Event, hook), 0), DecodeError::Hook(0));
        assert_eq!(with(offset_of!(Event, hook), 7), DecodeError::Hook(7), "a question, in the other ring");
        assert_eq!(with(offset_of!(Event, reason), 60), DecodeError::Reason(60));
        assert_eq!(with(offset_of!(Event, mode), 3), DecodeError::Mode(3));
        assert_eq!(with(offset_of!(Event, identity), 0), DecodeError::Identity(0));
        assert_eq!(with(offset_of!(Event, family), 5), DecodeError::Family(5));
        assert_eq!(with(offset_of!(Event, payload_bytes) + 1, 2), DecodeError::PayloadBytes(512 + 29));
        assert_eq!(decode_question(&good).unwrap_err(), DecodeError::Hook(hook::EGRESS));
        let mut answer = good.clone();
        answer[offset_of!(Event, hook)] = hook::ANSWER;
        assert!(decode_question(&answer).is_ok());
    }

    #[test]
    fn failures_are_counted_by_field() {
        let mut failures = DecodeFailures::default();
        failures.count(&DecodeError::Hook(77));
        failures.count(&DecodeError::Hook(78));
        failures.count(&DecodeError::Length(3));
        assert_eq!(failures.total(), 3);
        assert_eq!(failures.iter().find(|(field, _)| *field == "hook"), Some(("hook", 2)));
        assert_eq!(DecodeError::PayloadBytes(300).field(), "payload-bytes");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..EVENT_BYTES + 64)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_record_is_either_refused_or_kept_whole(bytes in proptest::collection::vec(any::<u8>(), EVENT_BYTES), sane: bool) {
            let mut bytes = bytes;
            if sane {
                for (offset, value) in [
                    (offset_of!(Event, hook), 1), (offset_of!(Event, reason), 2), (offset_of!(Event, mode), 1),
                    (offset_of!(Event, identity), 1), (offset_of!(Event, family), 6),
                    (offset_of!(Event, payload_bytes), 32), (offset_of!(Event, payload_bytes) + 1, 1),
                ] {
                    bytes[offset] = value;
                }
            }
            let decoded = decode(&bytes);
            prop_assert!(!sane || decoded.is_ok());
            if let Ok(event) = decoded {
                prop_assert_eq!(sample::bytes(&event), bytes);
            }
        }
    }
}
