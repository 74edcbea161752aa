//! Netlink messages: one is put together, those of an answer are taken apart. What is cut off is left out.

/// A request: a header, a fixed part and attributes.
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(super) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Self { bytes }
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |inner| inner.bytes.extend(value));
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// Kind and body of each message.
pub(super) fn messages(answer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    parts(answer, HEADER_BYTES, |bytes| {
        let length = usize::try_from(u32::from_ne_bytes(field(bytes, 0)?)).ok()?;
        Some((u16::from_ne_bytes(field(bytes, 4)?), length))
    })
}

/// Kind and value of each attribute.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    parts(bytes, ATTRIBUTE_BYTES, |bytes| {
        let length = usize::from(u16::from_ne_bytes(field(bytes, 0)?));
        Some((u16::from_ne_bytes(field(bytes, 2)?) & NLA_TYPE_MASK, length))
    })
}

/// `BYTES` bytes from `at` on.
pub(super) fn field<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<[u8; BYTES]> {
    bytes.get(at..at + BYTES)?.try_into().ok()
}

/// Pieces that begin with their kind and length, header included, and are padded to four bytes.
fn parts(
    mut rest: &[u8],
    header_bytes: usize,
    head: impl Fn(&[u8]) -> Option<(u16, usize)>,
) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, length) = head(rest)?;
        let body = rest.get(header_bytes..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// `struct nlmsghdr`
const HEADER_BYTES: usize = 16;
/// `struct nlattr`
const ATTRIBUTE_BYTES: usize = 4;
/// Without the flags for nesting and byte order.
const NLA_TYPE_MASK: u16 = 0x3fff;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_put_together_is_taken_apart() {
        let mut message = Message::new(20, 0, &[1, 2, 3, 4]);
        message.nest(5, |inner| {
            inner.attribute(6, b"abc");
            inner.attribute(7, b"");
        });
        let bytes = [message.finish(9), Message::new(3, 0, &[]).finish(10)].concat();
        let found: Vec<(u16, &[u8])> = messages(&bytes).collect();
        assert_eq!((found.len(), found[0].0, found[1]), (2, 20, (3, &[][..])));
        let nested: Vec<(u16, &[u8])> = attributes(&found[0].1[4..]).collect();
        assert_eq!((nested.len(), nested[0].0), (1, 5));
        let inner: Vec<(u16, &[u8])> = attributes(nested[0].1).collect();
        assert_eq!(inner, [(6, &b"abc"[..]), (7, &b""[..])]);
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes in proptest::collection::vec(0u8..40, 0..400)) {
            for (_, body) in messages(&bytes) {
                prop_assert!(attributes(body).count() <= bytes.len() / ATTRIBUTE_BYTES);
            }
        }
    }
}
