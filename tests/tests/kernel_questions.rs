//! Tables of questions through the programs themselves: their form, and listed names.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::Result;
use dnswall_common::reason::Reason;
use dnswall_tests::lab::packet::protocol::{TCP, UDP, UDP_LITE};
use dnswall_tests::lab::packet::{SYN, URG, ip, ip_from, ipv4, question, tcp, udp};
use dnswall_tests::lab::table::Expect::{Pass, Refused, Rule};
use dnswall_tests::lab::table::{POLICY, check, play};
use dnswall_tests::lab::{Direction, Lab};
use dnswall_tests::lists;

/// A question with a name in wire form, and a type.
fn asks_for(name: &[u8], kind: u8) -> Vec<u8> {
    [&[0x4d, 0x57, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name, &[0, kind, 0, 1]].concat()
}

/// A name of four long labels, in wire form, that is so long.
fn long_name(bytes: usize) -> Vec<u8> {
    let label = |length: usize| [vec![length as u8], vec![b'n'; length]].concat();
    [label(63), label(63), label(63), label(bytes - 3 * 64 - 2), vec![0]].concat()
}

fn changed(message: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] = byte;
    message
}

/// To the resolver, from a port.
fn datagram_from(port: u16, message: &[u8]) -> Vec<u8> {
    ip("192.0.2.53", UDP, &udp(port, 53, message))
}

/// Messages in the first segment of a connection, each behind its length.
fn stream(flags: u8, messages: &[&[u8]]) -> Vec<u8> {
    let behind = |message: &&[u8]| [&(message.len() as u16).to_be_bytes(), *message].concat();
    let payload: Vec<u8> = messages.iter().flat_map(behind).collect();
    ip("192.0.2.53", TCP, &tcp(53, flags, &payload))
}

/// One message in such a segment, behind a length that is another's.
fn misfit(length: u16, message: &[u8]) -> Vec<u8> {
    ip("192.0.2.53", TCP, &tcp(53, SYN, &[&length.to_be_bytes(), message].concat()))
}

#[test]
fn only_questions_in_one_piece_leave() -> Result<()> {
    let fine = asks_for(b"\x03www\x07example\0", 1);
    let with = |at, byte| changed(&fine, at, byte);
    let asked = |message: &[u8]| datagram_from(40_000, message);
    let answer = with(2, 0x81);
    let length = fine.len() as u16;
    let rule = || Rule("dns.resolvers");
    let malformed = || Refused(Reason::MalformedQuestion, "default");
    let other = || Refused(Reason::NotAQuestion, "default");
    let split = || Refused(Reason::SplitQuestion, "default");
    // Taken for a label, each would end within these zeroes, and the name there.
    let label = |begin: &[u8]| asks_for(&[begin, &[0; 200]].concat(), 1);
    check(
        Direction::Egress,
        &[
            ("a question", asked(&fine), rule()),
            ("over tcp", stream(SYN, &[&fine]), rule()),
            ("an inverse query", asked(&with(2, 1 << 3)), other()),
            ("a status query", asked(&with(2, 2 << 3)), other()),
            ("operation 8", asked(&with(2, 8 << 3)), other()),
            ("256 answers", asked(&with(6, 1)), malformed()),
            ("256 authorities", asked(&with(8, 1)), malformed()),
            ("a name of 255 bytes", asked(&asks_for(&long_name(255), 1)), rule()),
            ("a name of 256 bytes", asked(&asks_for(&long_name(256), 1)), malformed()),
            ("a pointer", asked(&label(b"\x01a\xc0\x0c")), malformed()),
            ("a label of 64 bytes", asked(&label(&[64])), malformed()),
            ("a label of a kind that was never used", asked(&label(&[0x80])), malformed()),
            ("a question from port 53", datagram_from(53, &fine), rule()),
            ("an update from port 53", datagram_from(53, &with(2, 5 << 3)), other()),
            ("an answer from port 53", datagram_from(53, &answer), rule()),
            ("an answer from a port that ends like it", datagram_from(0x135, &answer), other()),
            ("an urgent byte", stream(SYN | URG, &[&fine]), split()),
            ("half a length", ip("192.0.2.53", TCP, &tcp(53, SYN, &[0])), split()),
            ("a length of more than there is", misfit(length + 1, &fine), split()),
            ("one that cuts off the class", misfit(length - 1, &fine), malformed()),
            ("one that cuts off the type, too", misfit(length - 4, &fine), malformed()),
            ("one within the name", misfit(20, &fine), malformed()),
        ],
    )
}

#[test]
fn a_second_message_asks_for_the_same_name() -> Result<()> {
    let fine = asks_for(b"\x03www\x07example\0", 1);
    let (short, long) = (&fine[..fine.len() - 1], asks_for(&long_name(255), 1));
    let split = || Refused(Reason::SplitQuestion, "default");
    // The flow was counted as allowed before.
    let denied = || Refused(Reason::QuestionType, "dns.resolvers");
    let behind = |first: &[u8], second: &[u8]| stream(SYN, &[first, second]);
    let first = stream(SYN, &[&fine]);
    let cases = [
        (
            "with another id, of another type",
            behind(&fine, &changed(&asks_for(b"\x03www\x07example\0", 28), 0, 1)),
            Rule("dns.resolvers"),
        ),
        ("in another case", behind(&fine, &asks_for(b"\x03WWW\x07exAmple\0", 28)), Rule("dns.resolvers")),
        ("another name", behind(&fine, &asks_for(b"\x03www\x07exbmple\0", 1)), split()),
        ("a longer one", behind(&fine, &asks_for(b"\x03www\x07example\x03org\0", 1)), split()),
        ("other flags", behind(&fine, &changed(&fine, 2, 0)), split()),
        ("a long name", behind(&long, &long), Rule("dns.resolvers")),
        ("one that differs at its end", behind(&long, &changed(&long, 12 + 253, b'x')), split()),
        ("without its end", behind(&fine, short), split()),
        ("less than it says", [&first[..], &[0, fine.len() as u8], short].concat(), split()),
        ("a third", stream(SYN, &[&fine, &fine, &fine]), split()),
        ("half a length", [&first[..], &[0]].concat(), split()),
        ("a refused type", behind(&fine, &asks_for(b"\x03www\x07example\0", 10)), denied()),
    ];
    Lab::shared(&POLICY.replace("[dns]\n", "[dns]\ndeny-types = [\"NULL\"]\n"), |lab| {
        play(lab, Direction::Egress, &cases)
    })
}

/// Where everything else stays and passes, headers without options are read in place.
#[test]
fn questions_on_loopback_are_looked_at() -> Result<()> {
    let fine = asks_for(b"\x03www\x07example\0", 1);
    let (update, answer) = (changed(&fine, 2, 5 << 3), changed(&fine, 2, 0x81));
    let to = |protocol, segment: &[u8]| ip_from(Some("127.0.0.1"), "127.0.0.53", protocol, segment);
    let to6 = |protocol, segment: &[u8]| ip_from(Some("::1"), "::1", protocol, segment);
    let (loopback, stub) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 53));
    let behind = |message: &[u8]| [&(message.len() as u16).to_be_bytes(), message].concat();
    let with_option = |message: &[u8]| {
        let mut segment = tcp(53, SYN, &[&[1, 1, 1, 1], &behind(message)[..]].concat());
        segment[12] = 0x60;
        segment
    };
    let other = || Refused(Reason::NotAQuestion, "default");
    let split = || Refused(Reason::SplitQuestion, "default");
    let fragment = ipv4(loopback, stub, UDP, &[], 0x2000, &udp(40_000, 53, &fine));
    check(
        Direction::Loopback,
        &[
            ("a question", to(UDP, &udp(40_000, 53, &fine)), Pass),
            ("v6", to6(UDP, &udp(40_000, 53, &fine)), Pass),
            ("over tcp", to(TCP, &tcp(53, SYN, &behind(&fine))), Pass),
            ("over tcp, v6", to6(TCP, &tcp(53, SYN, &behind(&fine))), Pass),
            ("behind a tcp option", to(TCP, &with_option(&fine)), Pass),
            ("behind a tcp option, v6", to6(TCP, &with_option(&fine)), Pass),
            ("an update", to(UDP, &udp(40_000, 53, &update)), other()),
            ("an update, v6", to6(UDP, &udp(40_000, 53, &update)), other()),
            ("an update over tcp", to(TCP, &tcp(53, SYN, &behind(&update))), other()),
            ("an update over tcp, v6", to6(TCP, &tcp(53, SYN, &behind(&update))), other()),
            ("an update over udp-lite", to(UDP_LITE, &udp(40_000, 53, &update)), other()),
            (
                "an update behind an ip option",
                ipv4(loopback, stub, UDP, &[148, 4, 0, 0], 0, &udp(40_000, 53, &update)),
                other(),
            ),
            ("the first fragment of a question", fragment, Refused(Reason::Fragment, "default")),
            ("an urgent byte", to(TCP, &tcp(53, SYN | URG, &behind(&fine))), split()),
            ("an urgent byte, v6", to6(TCP, &tcp(53, SYN | URG, &behind(&fine))), split()),
            ("an answer from port 53", to(UDP, &udp(53, 53, &answer)), Pass),
            ("an answer from port 53, v6", to6(UDP, &udp(53, 53, &answer)), Pass),
            ("one from a port that ends like it", to(UDP, &udp(0x135, 53, &answer)), other()),
            ("one from a port that ends like it, v6", to6(UDP, &udp(0x135, 53, &answer)), other()),
            ("to a port that ends like it", to(UDP, &udp(40_000, 0x135, &update)), Pass),
            ("to a port that ends like it, v6", to6(UDP, &udp(40_000, 0x135, &update)), Pass),
        ],
    )
}

/// By tables of two sizes, of which each is a map of its own.
#[test]
fn listed_names_are_not_asked_for() -> Result<()> {
    const LISTED: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["192.0.2.53", "2001:db8::53"]
[[blocklist]]
name = "names"
source = "/nowhere"
"#;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("names.txt");
    let ask = |name: &str| ip("192.0.2.53", UDP, &udp(40_000, 53, &question(name)));
    let ask6 = |name: &str| ip("2001:db8::53", UDP, &udp(40_000, 53, &question(name)));
    // The first rule that counts them is the one that leads to the resolver.
    let (refused, resolvers) = (|| Refused(Reason::ListedName, "dns.resolvers"), || Rule("dns.resolvers"));
    let denied = || Refused(Reason::DeniedName, "dns.resolvers");
    for more in [0, 5_000] {
        let names: Vec<String> = (0..more).map(|index| format!("n{index}.example.net")).collect();
        fs::write(&path, format!("evil.example\n{}\n", names.join("\n")))?;
        let lists = lists::read(&path, directory.path())?;
        Lab::shared(POLICY, |lab| {
            lab.publish_lists(LISTED, &lists)?;
            play(
                lab,
                Direction::Egress,
                &[
                    ("the name", ask("evil.example"), refused()),
                    ("below it, in another case", ask6("www.EVIL.Example"), refused()),
                    ("below it, of eight labels", ask("1.2.3.4.5.6.evil.example"), refused()),
                    ("of nine", ask("1.2.3.4.5.6.7.evil.example"), refused()),
                    ("of nine, over IPv6", ask6("1.2.3.4.5.6.7.evil.example"), refused()),
                    ("another", ask("xevil.example"), resolvers()),
                    ("above it", ask6("example"), resolvers()),
                    ("another of nine labels", ask("1.2.3.4.5.6.7.xevil.example"), resolvers()),
                    ("an encrypted resolver's", ask("dns.google"), denied()),
                    ("below one, of nine labels", ask("1.2.3.4.5.6.7.dns.google"), denied()),
                    ("the root", ask(""), resolvers()),
                ],
            )
        })?;
    }
    Ok(())
}
