//! A made-up zone whose names say what is to be answered: `KIND-TTL-NUMBER.anything`.
//!
//! The addresses of a number are known to whoever asks, so that a probe can go there whatever was answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::ask::wire;

/// Where a server of the zone answers, at the far side: policies allow it.
pub const ZONE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));
/// The same over IPv6.
pub const ZONE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x77));
/// From where the server answers what is asked at [`ZONE`], when it is to be another one: no policy allows it.
pub const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 78));
/// A port that every address at the far side serves.
pub const PORT: u16 = 8443;

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The address.
    Host,
    /// The address, its owner written out and in another case.
    Plain,
    /// Twenty addresses, of this number and those behind it.
    Many,
    /// Three aliases, the last in another zone, and its address.
    Alias,
    /// The same with every name written out.
    PlainAlias,
    /// The same as the first, but that the first alias is for one second.
    Hurried,
    /// The address, under another id.
    WrongId,
    /// The address, from another port.
    WrongPort,
    /// The address, from another server.
    WrongServer,
    /// The address of another name, which the answer says was asked for.
    Unasked,
    /// The address of another name in the answer to this one.
    Poison,
    /// An alias, and the address of another name.
    PoisonAlias,
    /// The address, as additional information.
    Additional,
    /// A private address.
    Private,
    /// The address, with an error.
    Error,
    /// The address, in a message that says it is a question.
    Question,
    /// The address in another class.
    Class,
    /// Text in which an answer stands; over TCP the server cuts where that begins.
    Cut,
    /// Text in which answers stand one after the other, at a place that the number moves: whoever asks may have it cut there.
    Text,
}

/// Names of the made-up zone, one after the other, and where to go then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Follow {
    /// The server.
    pub server: SocketAddr,
    /// Asked over TCP.
    pub tcp: bool,
    /// IPv6 addresses, or IPv4; each in turn otherwise.
    pub v6: Option<bool>,
    /// What is answered.
    pub kind: Kind,
    /// Seconds to live.
    pub ttl: u32,
    /// The number of the first name.
    pub first: u32,
    /// How many names.
    pub count: u32,
    /// The name below which they are.
    pub zone: String,
    /// Ports to connect to.
    pub ports: Vec<u16>,
    /// Bytes that may wait to be read of a connection, where it is not for the kernel to say.
    pub window: Option<usize>,
    /// Asks for all names before it waits for the first answer (over UDP).
    pub at_once: bool,
}

impl Follow {
    /// So many names from this number on, asked for over UDP and one after the other, for IPv4 addresses.
    pub fn asks(kind: Kind, zone: &str, first: u32, count: u32) -> Self {
        Self {
            server: SocketAddr::new(ZONE, 53),
            tcp: false,
            v6: Some(false),
            kind,
            ttl: 60,
            first,
            count,
            zone: zone.to_owned(),
            ports: Vec::new(),
            window: None,
            at_once: false,
        }
    }
}

impl Kind {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Host, "host"),
        (Self::Plain, "plain"),
        (Self::Many, "many"),
        (Self::Alias, "alias"),
        (Self::PlainAlias, "plainalias"),
        (Self::Hurried, "hurried"),
        (Self::WrongId, "wrongid"),
        (Self::WrongPort, "wrongport"),
        (Self::WrongServer, "wrongserver"),
        (Self::Unasked, "unasked"),
        (Self::Poison, "poison"),
        (Self::PoisonAlias, "poisonalias"),
        (Self::Additional, "additional"),
        (Self::Private, "private"),
        (Self::Error, "error"),
        (Self::Question, "question"),
        (Self::Class, "class"),
        (Self::Cut, "cut"),
        (Self::Text, "text"),
    ];

    /// The name for a number, below `zone`.
    pub fn name(self, ttl: u32, number: u32, zone: &str) -> String {
        let kind = Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("host", |(_, name)| name);
        format!("{kind}-{ttl}-{number}.{zone}")
    }

    /// What the first label of a name says.
    fn read(label: &str) -> Option<(&'static Self, u32, u32)> {
        let mut words = label.split('-');
        let word = words.next()?.to_ascii_lowercase();
        let (kind, _) = Self::ALL.iter().find(|(_, name)| *name == word)?;
        Some((kind, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    }

    /// Where its answers lead.
    pub fn address(self, number: u32, v6: bool) -> IpAddr {
        match self {
            Self::Private => Ipv4Addr::new(10, 0, 9, (number % 250 + 1) as u8).into(),
            Self::Many => address(number + 19, v6),
            _ => address(number, v6),
        }
    }
}

/// The address of a number; of IPv4 there are 250.
pub fn address(number: u32, v6: bool) -> IpAddr {
    match v6 {
        true => Ipv6Addr::from((0x2a00_0077u128 << 96) + u128::from(number) + 1).into(),
        false => Ipv4Addr::new(8, 8, 9, (number % 250 + 1) as u8).into(),
    }
}

/// An answer, and from where it comes.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The message.
    pub message: Vec<u8>,
    /// From which port and server; where it was asked otherwise.
    pub from: Option<SocketAddr>,
    /// Where it is cut over TCP, counted from its length on.
    pub cut: usize,
}

/// Answers a question, one for another name with an error; `None` for what is no question.
pub fn answer(question: &[u8]) -> Option<Answer> {
    let id = u16::from_be_bytes([*question.first()?, *question.get(1)?]);
    let (labels, end) = labels(question, 12)?;
    let kind_of_record = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
    let Some((kind, ttl, number)) = labels.first().and_then(|label| Kind::read(label)) else {
        let mut message = Message::new(id, question, end);
        message.flags |= 3;
        return Some(Answer { message: message.bytes(), from: None, cut: 0 });
    };
    let v6 = match kind_of_record {
        1 => false,
        28 => true,
        // It has no other records.
        _ => return Some(Answer { message: Message::new(id, question, end).bytes(), from: None, cut: 0 }),
    };
    let asked = wire(&labels.join("."));
    let mut message = Message::new(id, question, end);
    let host = |owner: &[u8], number| record(owner, ttl, 1, &kind.address_of(number, v6));
    let (mut from, mut cut) = (None, 0);
    match kind {
        Kind::Host
        | Kind::WrongId
        | Kind::WrongPort
        | Kind::WrongServer
        | Kind::Private
        | Kind::Error
        | Kind::Question => {
            message.answers.push(host(POINTER, number));
        }
        Kind::Cut | Kind::Text => {
            let mut inner = Message::new(id, question, end);
            inner.answers.push(host(POINTER, number));
            let inner = inner.bytes();
            let inner = [&(inner.len() as u16).to_be_bytes()[..], &inner].concat();
            let string = [&[inner.len() as u8][..], &inner].concat();
            let padding = number as usize % string.len();
            let text = match kind {
                Kind::Cut => string,
                _ => [vec![padding as u8], vec![b'x'; padding], string.repeat(60)].concat(),
            };
            message.answers.push(record_of(POINTER, 16, ttl, 1, &text));
            if *kind == Kind::Cut {
                cut = 2 + message.bytes().len() - inner.len();
            }
        }
        Kind::Class => message.answers.push(record(POINTER, ttl, 3, &kind.address_of(number, v6))),
        Kind::Plain => message.answers.push(host(&asked.to_ascii_uppercase(), number)),
        Kind::Many => message.answers.extend((number..number + 20).map(|number| host(POINTER, number))),
        Kind::Alias | Kind::PlainAlias | Kind::Hurried => {
            let chain = [asked.clone(), wire("one.cdn.test"), wire("two.cdn.test"), wire("edge.other.test")];
            let is_plain = *kind == Kind::PlainAlias;
            let mut at = end + 4;
            let mut pointer = POINTER.to_vec();
            for (index, pair) in chain.windows(2).enumerate() {
                let owner = if is_plain { pair[0].clone() } else { pointer.clone() };
                let is_hurried = *kind == Kind::Hurried && index == 0;
                let alias = record_of(&owner, 5, if is_hurried { 1 } else { ttl }, 1, &pair[1]);
                // The next owner is where this one's target stands.
                let target = at + alias.len() - pair[1].len();
                pointer = (0xc000 | target as u16).to_be_bytes().to_vec();
                at += alias.len();
                message.answers.push(alias);
            }
            let owner = if is_plain { chain[3].clone() } else { pointer };
            message.answers.push(host(&owner, number));
        }
        Kind::Unasked => {
            let other = [&question[..12], &wire("other.app.example"), &question[end..end + 4]].concat();
            message = Message::new(id, &other, other.len() - 4);
            message.answers.push(host(POINTER, number));
        }
        Kind::Poison => message.answers.push(host(&wire("victim.app.example"), number)),
        Kind::PoisonAlias => {
            message.answers.push(record_of(POINTER, 5, ttl, 1, &wire("one.cdn.test")));
            message.answers.push(host(POINTER, number));
            message.answers.push(host(&wire("two.cdn.test"), number));
        }
        Kind::Additional => {
            message.answers.push(record_of(POINTER, 16, ttl, 1, b"\x02no"));
            message.additional.push(host(POINTER, number));
        }
    }
    match kind {
        Kind::WrongId => message.id ^= 0x0101,
        Kind::WrongPort => from = Some(SocketAddr::new(ZONE, 5353)),
        Kind::WrongServer => from = Some(SocketAddr::new(ELSEWHERE, 53)),
        Kind::Error => message.flags |= 2,
        Kind::Question => message.flags &= 0x7fff,
        _ => {}
    }
    Some(Answer { message: message.bytes(), from, cut })
}

impl Kind {
    fn address_of(self, number: u32, v6: bool) -> IpAddr {
        if self == Self::Private { self.address(number, v6) } else { address(number, v6) }
    }
}

/// Where the question's name is.
const POINTER: &[u8] = &[0xc0, 12];

struct Message {
    id: u16,
    flags: u16,
    question: Vec<u8>,
    answers: Vec<Vec<u8>>,
    additional: Vec<Vec<u8>>,
}

impl Message {
    /// An answer to the question whose name ends there.
    fn new(id: u16, question: &[u8], end: usize) -> Self {
        let question = question[12..end + 4].to_vec();
        Self { id, flags: 0x8180, question, answers: Vec::new(), additional: Vec::new() }
    }

    fn bytes(&self) -> Vec<u8> {
        let counts = [1, self.answers.len() as u16, 0, self.additional.len() as u16];
        let head = [self.id, self.flags].into_iter().chain(counts).flat_map(u16::to_be_bytes);
        head.chain(self.question.iter().copied())
            .chain(self.answers.concat())
            .chain(self.additional.concat())
            .collect()
    }
}

fn record(owner: &[u8], ttl: u32, class: u16, address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => record_of(owner, 1, ttl, class, &address.octets()),
        IpAddr::V6(address) => record_of(owner, 28, ttl, class, &address.octets()),
    }
}

fn record_of(owner: &[u8], kind: u16, ttl: u32, class: u16, data: &[u8]) -> Vec<u8> {
    let fixed = [kind, class].into_iter().flat_map(u16::to_be_bytes).chain(ttl.to_be_bytes());
    let length = (data.len() as u16).to_be_bytes();
    owner.iter().copied().chain(fixed).chain(length).chain(data.iter().copied()).collect()
}

/// The labels of a question's name, and where it ends.
fn labels(message: &[u8], mut at: usize) -> Option<(Vec<String>, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        if length == 0 {
            return Some((labels, at + 1));
        }
        labels.push(String::from_utf8_lossy(message.get(at + 1..at + 1 + length)?).into_owned());
        at += 1 + length;
    }
}
