//! A question for the address of a name.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Type};

use super::attempt::{Attempt, Step, socket};
use crate::act::Report;

/// Asks `server`; what came back is the first address of the answer, or the response code.
pub fn ask(server: SocketAddr, tcp: bool, name: &str, wait_ms: u64) -> Report {
    Attempt::run(|_| {
        let (kind, protocol) = if tcp { (Type::STREAM, Protocol::TCP) } else { (Type::DGRAM, Protocol::UDP) };
        let mut made = socket(Domain::for_address(server), kind, Some(protocol), wait_ms).step("socket")?;
        let question = question(name);
        let mut answer = vec![0; 4096];
        if tcp {
            let wait = Duration::from_millis(wait_ms.max(1));
            made.connect_timeout(&server.into(), wait).step("connect")?;
            let length = (question.len() as u16).to_be_bytes();
            made.write_all(&[&length[..], &question].concat()).step("send")?;
            made.read_exact(&mut answer[..2]).step("receive")?;
            let length = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
            answer.resize(length, 0);
            made.read_exact(&mut answer).step("receive")?;
        } else {
            made.send_to(&question, &server.into()).step("send")?;
            let length = made.read(&mut answer).step("receive")?;
            answer.truncate(length);
        }
        read_answer(&answer, question.len()).step("receive").map(Some)
    })
}

/// A query for the A record of `name`.
pub fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x4d, 0x57, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Reads the address of an answer whose first record follows a question of the same length and points back to it.
fn read_answer(answer: &[u8], question_bytes: usize) -> io::Result<String> {
    let malformed = || io::Error::other("malformed answer");
    let code = answer.get(3).ok_or_else(malformed)? & 15;
    let answers = answer.get(7).ok_or_else(malformed)?;
    if code != 0 || *answers == 0 {
        return Ok(format!("rcode {code}"));
    }
    let address = answer.get(question_bytes + 12..question_bytes + 16).ok_or_else(malformed)?;
    let address: [u8; 4] = address.try_into().map_err(|_| malformed())?;
    Ok(Ipv4Addr::from(address).to_string())
}
