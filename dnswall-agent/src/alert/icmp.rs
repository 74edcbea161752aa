//! Takes type and code of an ICMP message, gives the words a person knows them by.

use super::AlertIcmp;

/// The protocol whose types have other numbers.
const V6: &str = "icmpv6";

/// `echo-request`, `destination-unreachable code 3`, or the numbers where there is no name.
pub fn words(protocol: &str, icmp: AlertIcmp) -> String {
    let AlertIcmp { kind, code } = icmp;
    let name = if protocol == V6 { v6(kind) } else { v4(kind) };
    match (name, code) {
        (Some(name), 0) => name.to_owned(),
        (Some(name), _) => format!("{name} code {code}"),
        (None, _) => format!("type {kind} code {code}"),
    }
}

// Names of IANA's "ICMP Type Numbers", in small letters.
const fn v4(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0 => "echo-reply",
        3 => "destination-unreachable",
        5 => "redirect",
        8 => "echo-request",
        9 => "router-advertisement",
        10 => "router-solicitation",
        11 => "time-exceeded",
        12 => "parameter-problem",
        13 => "timestamp-request",
        14 => "timestamp-reply",
        17 => "address-mask-request",
        18 => "address-mask-reply",
        42 => "extended-echo-request",
        43 => "extended-echo-reply",
        _ => return None,
    })
}

// Names of IANA's "ICMPv6 type Numbers".
const fn v6(kind: u8) -> Option<&'static str> {
    Some(match kind {
        1 => "destination-unreachable",
        2 => "packet-too-big",
        3 => "time-exceeded",
        4 => "parameter-problem",
        128 => "echo-request",
        129 => "echo-reply",
        130 => "multicast-listener-query",
        131 => "multicast-listener-report",
        132 => "multicast-listener-done",
        133 => "router-solicitation",
        134 => "router-advertisement",
        135 => "neighbor-solicitation",
        136 => "neighbor-advertisement",
        137 => "redirect",
        143 => "multicast-listener-report-v2",
        160 => "extended-echo-request",
        161 => "extended-echo-reply",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_names_of_its_own() {
        for (protocol, kind, code, expected) in [
            ("icmp", 8, 0, "echo-request"),
            ("icmp", 3, 3, "destination-unreachable code 3"),
            ("icmp", 128, 0, "type 128 code 0"),
            ("icmp", 40, 1, "type 40 code 1"),
            ("icmpv6", 128, 0, "echo-request"),
            ("icmpv6", 1, 4, "destination-unreachable code 4"),
            ("icmpv6", 8, 0, "type 8 code 0"),
        ] {
            assert_eq!(words(protocol, AlertIcmp { kind, code }), expected, "{protocol}");
        }
    }
}
