//! What it costs to ask for a name and go where it leads: without a wall, with one whose rule is for addresses, and with one whose
//! rule is for names.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::act::{Act, Order, Report};
use crate::process::Process;
use crate::wall::Wall;
use crate::zone::{Follow, Kind, PORT, ZONE};

/// How long a question and a connection take together, in nanoseconds.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// What is in between.
    pub name: &'static str,
    /// Median and 99th percentile.
    pub ns: (u64, u64),
}

/// Names in a round.
const NAMES: u32 = 1_000;
const WAYS: [(&str, Option<&str>); 3] = [
    ("nothing", None),
    ("a rule for addresses", Some("address.service")),
    ("a rule for names", Some("name.service")),
];
const POLICY: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["203.0.113.77"]
[[allow]]
to = ["internet"]
ports = ["tcp/8443"]
from = [{ unit = "address.service" }]
[[allow]]
to = ["*.bench.example"]
ports = ["tcp/8443"]
from = [{ unit = "name.service" }]
"#;

/// Measures them side by side.
///
/// # Errors
/// When something does not start, or does not get through.
pub fn measure(rounds: usize) -> Result<Vec<Cost>> {
    let mut wall = Wall::prepare()?;
    let at_far_side = |act| Order {
        cgroup: None,
        netns: Some(wall.network.far.path()),
        uid: 0,
        maker: None,
        wait_ms: 0,
        act,
    };
    let _zone = Process::start(wall.probe(), &at_far_side(Act::Zone { at: vec![ZONE] }))?;
    wall.agent.start(Some(POLICY))?;
    let mut samples = vec![Vec::new(); WAYS.len()];
    let mut first = 0;
    for round in 0..rounds {
        // Each round begins with another one: whoever is first meets a cold machine.
        for way in (0..WAYS.len()).map(|at| (at + round) % WAYS.len()) {
            samples[way].push(follow(&wall, WAYS[way].1, first)?);
            first += NAMES;
        }
    }
    let middle = |mut numbers: Vec<u64>| {
        numbers.sort_unstable();
        numbers[numbers.len() / 2]
    };
    let costs = WAYS.iter().zip(samples).map(|((name, _), samples)| {
        let (medians, slow) = samples.into_iter().unzip();
        Cost { name, ns: (middle(medians), middle(slow)) }
    });
    Ok(costs.collect())
}

fn follow(wall: &Wall, unit: Option<&str>, first: u32) -> Result<(u64, u64)> {
    let names = Follow {
        server: SocketAddr::new(ZONE, 53),
        tcp: false,
        v6: None,
        kind: Kind::Host,
        ttl: 60,
        first,
        count: NAMES,
        zone: "bench.example".to_owned(),
        ports: vec![PORT],
        window: None,
        at_once: false,
    };
    let cgroup = unit.map(|unit| wall.tree.child(unit)).transpose()?;
    let order = Order {
        cgroup,
        netns: Some(wall.network.near.path()),
        uid: 0,
        maker: None,
        wait_ms: 1_000,
        act: Act::Follow(names),
    };
    let Report { tallies, counts, .. } = Process::spawn(wall.probe(), &order)?.report()?;
    ensure!(tallies.iter().all(|tally| tally.ok == u64::from(NAMES)), "{tallies:?}");
    counts.first().copied().context("how long it took")
}
