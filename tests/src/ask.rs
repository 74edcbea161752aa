//! Questions, byte for byte.

use std::net::SocketAddr;

use crate::act::{Act, MessageBy};
use crate::resolver::{RESOLVER, RESOLVER_V6};

/// A question with this name (in wire form) and type, and `rest` behind it.
pub fn message(name: &[u8], kind: u16, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![0x4d, 0x57, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(name);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message.extend(rest);
    message
}

/// A name in wire form.
pub fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// Asked of the resolver that policies allow.
pub fn asked(message: &[u8], by: MessageBy) -> Act {
    Act::Message { server: SocketAddr::new(RESOLVER, 53), message: message.to_vec(), by }
}

/// Asked of the same over IPv6.
pub fn asked6(message: &[u8], by: MessageBy) -> Act {
    Act::Message { server: SocketAddr::new(RESOLVER_V6, 53), message: message.to_vec(), by }
}
