//! What the canary tries, and what its attempts prove. Takes the image that was published and what came of each attempt;
//! asks no kernel and no clock.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dnswall_common::flow::Flow;
use dnswall_common::reason::Reason;

use super::arrival::{Arrived, is_documentation_address};
use super::attempt::Attempt;
use crate::compile::{Identity, MapImage, Outcome, explain};

/// Where the canary may go, the first that fits: nobody has these addresses (RFC 5737, RFC 3849).
const ADDRESSES: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 119)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 119)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 119)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0x77)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xd57a, 0, 0, 0, 0, 0x77)),
];
/// On which ports, the first that is forbidden: discard, DNS, and what else a policy may have left closed.
const PORTS: [u16; 6] = [9, 53, 443, 853, 25, 47_808];

/// One attempt, and what the policy has the kernel do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What to do.
    pub attempt: Attempt,
    /// It must be refused; else it must be let through and reported.
    pub refused: bool,
}

/// Why there is nothing to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// The policy lets the agent go everywhere.
    Forbidden,
    /// This host's own networks are the documentation's.
    Usable,
}

/// What one attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// `None` when nobody objected, else the error's number.
    pub error: Option<i32>,
    /// Its event.
    pub arrived: Option<Arrived>,
    /// Whether the kernel counted the refusal, looked at when there was no event.
    pub counted: bool,
}

/// What one attempt proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Refused, and told.
    Refused,
    /// Let through, and told, as audit has it.
    Reported,
    /// Let through.
    Passed,
    /// Reported where it should be refused, or the other way round.
    OtherMode,
    /// Judged, and nobody told.
    Untold,
    /// Somebody else refused it before the wall saw it.
    Elsewhere,
    /// There is no way there, so that nothing was sent.
    NoWay,
}

impl Proof {
    /// As `status` writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reported => "reported",
            Self::Passed => "passed",
            Self::OtherMode => "other-mode",
            Self::Untold => "untold",
            Self::Elsewhere => "refused-elsewhere",
            Self::NoWay => "no-way",
        }
    }
}

/// What to try: for each family and protocol the first that the policy forbids to this process. `usable` says whether an
/// address is as good as nobody's here.
///
/// # Errors
/// Why there is nothing.
pub fn plan(
    image: &MapImage,
    identity: &Identity,
    usable: impl Fn(IpAddr) -> bool,
) -> Result<Vec<Planned>, Nothing> {
    let addresses: Vec<IpAddr> = ADDRESSES.into_iter().filter(|address| usable(*address)).collect();
    let mut planned = Vec::new();
    for (is_v4, tcp) in [(true, false), (true, true), (false, false), (false, true)] {
        let family = || addresses.iter().filter(|address| address.is_ipv4() == is_v4);
        let candidates =
            PORTS.iter().flat_map(|port| family().map(|to| Attempt { to: SocketAddr::new(*to, *port), tcp }));
        let forbidden: Vec<(Planned, bool)> =
            candidates.filter_map(|attempt| forbidden(image, identity, attempt)).collect();
        // What is forbidden to everybody does not depend on whom the kernel takes the canary for.
        let best = forbidden.iter().find(|(_, everybody)| *everybody).or(forbidden.first());
        planned.extend(best.map(|(planned, _)| *planned));
    }
    match (planned.is_empty(), addresses.is_empty()) {
        (false, _) => Ok(planned),
        (true, true) => Err(Nothing::Usable),
        (true, false) => Err(Nothing::Forbidden),
    }
}

fn forbidden(image: &MapImage, identity: &Identity, attempt: Attempt) -> Option<(Planned, bool)> {
    debug_assert!(is_documentation_address(attempt.address()), "the canary goes nowhere else");
    let flow = Flow { address: attempt.address(), protocol: attempt.protocol(), port: attempt.to.port() };
    let said = explain(image, identity, &flow);
    let refused = match said.outcome {
        Outcome::Allowed => return None,
        Outcome::Denied => true,
        Outcome::WouldDeny => false,
    };
    Some((Planned { attempt, refused }, said.reason == Reason::NoRule.name()))
}

/// What an attempt proves.
pub fn judge(planned: &Planned, tried: &Tried) -> Proof {
    let Tried { error, arrived, counted } = *tried;
    let refused = error == Some(libc::EPERM);
    match (planned.refused, arrived.map(|arrived| arrived.denied)) {
        (true, Some(false)) | (false, Some(true)) => Proof::OtherMode,
        // Also a connection that began and whose packets are refused, as it is where too many addresses are this host's.
        (true, Some(true)) if refused || planned.attempt.tcp => Proof::Refused,
        (true, Some(true)) => Proof::Passed,
        (false, Some(false)) => Proof::Reported,
        (_, None) if counted => Proof::Untold,
        (_, None) if refused => Proof::Elsewhere,
        (_, None) if error.is_some() => Proof::NoWay,
        (true, None) => Proof::Passed,
        (false, None) => Proof::Untold,
    }
}

/// What all attempts prove together: a connection whose packet got lost before the wall saw it is no leak when a datagram
/// of the same family was refused as it has to be.
pub fn settle(proofs: &mut [(Planned, Proof)]) {
    let stands = |is_v4: bool, proofs: &[(Planned, Proof)]| {
        proofs.iter().any(|(planned, proof)| {
            !planned.attempt.tcp
                && planned.attempt.to.is_ipv4() == is_v4
                && matches!(proof, Proof::Refused | Proof::Reported)
        })
    };
    let families = [stands(false, proofs), stands(true, proofs)];
    for (planned, proof) in proofs {
        let began = match (planned.refused, *proof) {
            (true, Proof::Passed) | (false, Proof::Untold) => planned.attempt.tcp,
            _ => false,
        };
        if began && families[usize::from(planned.attempt.to.is_ipv4())] {
            *proof = Proof::Elsewhere;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::compile::{FixedEnvironment, compile};
    use crate::policy::parse;

    fn image(text: &str) -> MapImage {
        let policy = parse(&format!("version = 1\n{text}"), "test").unwrap();
        compile(&policy, &FixedEnvironment::default()).unwrap().0
    }

    fn planned(text: &str) -> Result<Vec<String>, Nothing> {
        let identity = Identity { uid: Some(0), cgroup: "/".to_owned(), ..Identity::default() };
        let planned = plan(&image(text), &identity, |_| true)?;
        let shown = |planned: &Planned| {
            let Attempt { to, tcp } = planned.attempt;
            format!("{} {to} {}", if tcp { "tcp" } else { "udp" }, planned.refused)
        };
        Ok(planned.iter().map(shown).collect())
    }

    #[test]
    fn each_family_and_protocol_is_tried_where_it_is_forbidden() {
        let all = |port: u16, refused: bool| -> Vec<String> {
            ["udp 192.0.2.119", "tcp 192.0.2.119", "udp [2001:db8:77::77]", "tcp [2001:db8:77::77]"]
                .map(|to| format!("{to}:{port} {refused}"))
                .to_vec()
        };
        assert_eq!(planned("mode = \"enforce\""), Ok(all(9, true)));
        assert_eq!(planned("mode = \"audit\""), Ok(all(9, false)));
        let rest = "mode = \"enforce\"\n[[allow]]\nname = \"a\"\nto = [\"any\"]\n";
        assert_eq!(planned(&format!("{rest}ports = [\"tcp/1-52\", \"udp/1-52\"]")), Ok(all(53, true)));
        let one = planned(&format!("{rest}ports = [\"udp/any\"]")).unwrap();
        assert!(one.contains(&"tcp 192.0.2.119:9 true".to_owned()), "{one:?}");
        // DNS stays forbidden where everything else is allowed.
        assert_eq!(planned(&format!("{rest}ports = [\"tcp/any\", \"udp/any\"]")), Ok(all(53, true)));
    }

    #[test]
    fn a_policy_that_allows_everything_leaves_nothing_to_try() {
        let all = "mode = \"enforce\"\n[[allow]]\nname = \"a\"\nto = [\"any\"]\n\
                   [dns]\nencrypted = \"allow\"\n[[dns.recursor]]\nfrom = [{ user = \"0\" }]\nto = [\"any\"]\n";
        match planned(all) {
            Err(nothing) => assert_eq!(nothing, Nothing::Forbidden),
            Ok(planned) => panic!("{planned:?}"),
        }
        let identity = Identity::default();
        assert_eq!(plan(&image("mode = \"enforce\""), &identity, |_| false), Err(Nothing::Usable));
    }

    #[test]
    fn what_an_attempt_proves() {
        let check = |refused: bool, tcp: bool, error: Option<i32>, denied: Option<bool>, expected: Proof| {
            let attempt = Attempt { to: "192.0.2.119:9".parse().unwrap(), tcp };
            let arrived =
                denied.map(|denied| Arrived { denied, at_connect: tcp, generation: 1, at: Instant::now() });
            let tried = Tried { error, arrived, counted: false };
            let proof = judge(&Planned { attempt, refused }, &tried);
            assert_eq!(proof, expected, "{refused} {tcp} {tried:?}");
        };
        let (eperm, unreachable) = (Some(libc::EPERM), Some(libc::ENETUNREACH));
        for tcp in [false, true] {
            check(true, tcp, eperm, Some(true), Proof::Refused);
            check(true, tcp, None, None, Proof::Passed);
            check(true, tcp, None, Some(false), Proof::OtherMode);
            check(true, tcp, eperm, None, Proof::Elsewhere);
            check(true, tcp, unreachable, None, Proof::NoWay);
            check(false, tcp, None, Some(false), Proof::Reported);
            check(false, tcp, None, None, Proof::Untold);
            check(false, tcp, eperm, Some(true), Proof::OtherMode);
            check(false, tcp, eperm, None, Proof::Elsewhere);
            check(false, tcp, unreachable, None, Proof::NoWay);
        }
        check(true, true, None, Some(true), Proof::Refused);
        check(true, false, None, Some(true), Proof::Passed);
    }

    #[test]
    fn a_lost_packet_is_no_leak_beside_a_refused_datagram() {
        let planned =
            |to: &str, tcp| Planned { attempt: Attempt { to: to.parse().unwrap(), tcp }, refused: true };
        let (v4, v6) = ("192.0.2.119:9", "[2001:db8:77::77]:9");
        let mut proofs = [
            (planned(v4, false), Proof::Refused),
            (planned(v4, true), Proof::Passed),
            (planned(v6, false), Proof::NoWay),
            (planned(v6, true), Proof::Passed),
        ];
        settle(&mut proofs);
        assert_eq!(
            proofs.map(|(_, proof)| proof),
            [Proof::Refused, Proof::Elsewhere, Proof::NoWay, Proof::Passed]
        );
        let mut leaks = [(planned(v4, false), Proof::Passed), (planned(v4, true), Proof::Refused)];
        settle(&mut leaks);
        assert_eq!(leaks[0].1, Proof::Passed, "a datagram that left is one");
    }
}
