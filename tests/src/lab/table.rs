//! Tables of packets: what each should meet, under one policy.

use anyhow::Result;
use dnswall_common::reason::Reason;

use super::{Direction, Lab, Outcome};

/// The policy of the tables.
pub const POLICY: &str = r#"
version = 1
mode = "enforce"

[dns]
resolvers = ["192.0.2.53", "2001:db8::53"]

[dns.serve]
from = ["10.0.0.0/8", "2001:db8:10::/48"]

[[allow]]
name = "web"
to = ["198.51.100.0/24", "2001:db8:1::/48"]
ports = ["tcp/443", "udp/443", "udp/4000-5000"]

[[allow]]
name = "ping"
to = ["198.51.100.7", "2001:db8:1::7"]
ports = ["icmp/echo"]

[[allow]]
name = "sctp"
to = ["198.51.100.8"]
ports = ["sctp/9"]

[[allow]]
name = "all"
to = ["203.0.113.9", "2001:db8:9::9"]

[[deny]]
name = "hole"
to = ["198.51.100.66", "2001:db8:1::66"]
"#;

/// What a packet should meet.
pub enum Expect {
    /// Passes, and a rule of this name is counted.
    Rule(&'static str),
    /// Passes without a rule.
    Pass,
    /// Refused for this reason, by the rule of this name.
    Refused(Reason, &'static str),
}

/// Plays a table under [`POLICY`], in this process's one lab.
///
/// # Errors
/// The kernel's.
///
/// # Panics
/// When a packet meets something else.
pub fn check(direction: Direction, cases: &[(&str, Vec<u8>, Expect)]) -> Result<()> {
    Lab::shared(POLICY, |lab| play(lab, direction, cases))
}

/// Plays a table.
///
/// # Errors
/// See [`check`].
///
/// # Panics
/// When a packet meets something else.
pub fn play(lab: &mut Lab, direction: Direction, cases: &[(&str, Vec<u8>, Expect)]) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, packet, expect) in cases {
        let met = lab.run(direction, packet)?;
        let wanted = match expect {
            Expect::Rule(rule) => Outcome { passed: true, refused: None, rule: Some((*rule).to_owned()) },
            Expect::Pass => Outcome { passed: true, refused: None, rule: None },
            Expect::Refused(reason, rule) => {
                Outcome { passed: false, refused: Some(*reason), rule: Some((*rule).to_owned()) }
            }
        };
        if met != wanted {
            wrong.push(format!("{name}: met {met:?}, wanted {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} packets:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}
