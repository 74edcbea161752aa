//! Just enough DNS for a play: one question for an address, one answer.

use std::net::Ipv4Addr;

/// Longest message either side sends, in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 512;

/// A question for the IPv4 address of a name.
pub(super) fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x64, 0x77, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The answer to a question: this address, for a minute.
pub(super) fn answer(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let mut message = question.to_vec();
    if let Some(header) = message.get_mut(..12) {
        header[2] |= 0x80;
        header[7] = 1;
    }
    // A pointer to the name of the question, type A, class IN, 60 seconds, four bytes.
    message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    message.extend(address.octets());
    message
}

/// The address in an answer made by [`answer`].
pub(super) fn address_of(message: &[u8]) -> Option<Ipv4Addr> {
    let start = message.len().checked_sub(4)?;
    let octets: [u8; 4] = message.get(start..)?.try_into().ok()?;
    (message.get(7) == Some(&1)).then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_carries_its_address() {
        let address = Ipv4Addr::new(10, 0, 3, 7);
        assert_eq!(address_of(&answer(&question("db.example"), address)), Some(address));
        assert_eq!(address_of(&question("db.example")), None);
        assert_eq!(address_of(&[]), None);
    }
}
