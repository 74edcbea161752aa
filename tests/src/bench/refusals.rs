//! What a refused packet costs, by what becomes of the word of it: nanoseconds beyond a program that returns 1.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use dnswall_common::counter::Counter;
use dnswall_common::limits::EVENT_INTERVAL_NS;
use serde::Serialize;

use crate::lab::packet::protocol::UDP;
use crate::lab::packet::{ip, udp};
use crate::lab::{Direction, Lab, ReturnOne};

/// Flows that are refused once each; their events fill less than half the ring.
const FLOWS: u32 = 4_000;

/// What becomes of the word of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Sent,
    Suppressed,
    Lost,
}

impl Word {
    const fn counter(self) -> Counter {
        match self {
            Self::Sent => Counter::EventsSent,
            Self::Suppressed => Counter::EventsSuppressed,
            Self::Lost => Counter::EventsLost,
        }
    }
}

/// What one kind of refusal costs.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Which.
    pub class: &'static str,
    /// Median of the rounds' averages.
    pub ns: u64,
    /// The least.
    pub min_ns: u64,
    /// The most.
    pub max_ns: u64,
}

/// Measures each kind in turn, so many rounds. Every packet runs once: caches are as cold as it leaves them.
///
/// # Errors
/// When the programs cannot be run, or something else became of a refusal.
pub fn measure(rounds: usize) -> Result<Vec<Cost>> {
    let return_one = ReturnOne::load()?;
    let mut lab = Lab::new("version = 1\nmode = \"enforce\"\n")?;
    let mut samples = [const { Vec::new() }; CLASSES.len()];
    for round in 0..rounds as u32 {
        let fresh = |turn: u32| packets((3 * round + turn) * FLOWS);
        let (told, known, lost) = (fresh(0), fresh(0), fresh(1));
        lab.drain()?;
        samples[0].push(average(&told, |packet| return_one.measure(packet, 1))?);
        samples[1].push(average_in(&mut lab, &told, Word::Sent)?);
        samples[2].push(average_in(&mut lab, &known, Word::Suppressed)?);
        interval();
        lab.drain()?;
        samples[3].push(average_in(&mut lab, &known, Word::Sent)?);
        fill(&mut lab)?;
        samples[4].push(average_in(&mut lab, &lost, Word::Lost)?);
        interval();
        // What is left of the second half is for one event a second.
        fill(&mut lab)?;
        samples[5].push(average_in(&mut lab, &lost, Word::Lost)?);
    }
    Ok(CLASSES.iter().zip(samples).map(|(class, sample)| cost(class, sample)).collect())
}

fn cost(class: &'static str, mut sample: Vec<u64>) -> Cost {
    sample.sort_unstable();
    let at = |place: usize| sample.get(place).copied().unwrap_or_default();
    Cost { class, ns: at(sample.len() / 2), min_ns: at(0), max_ns: at(sample.len().saturating_sub(1)) }
}

fn interval() {
    thread::sleep(Duration::from_nanos(EVENT_INTERVAL_NS));
}

/// Refuses flows of their own until the ring has no place for one more.
fn fill(lab: &mut Lab) -> Result<()> {
    let mut number = 0;
    loop {
        let lost = lab.counter(Counter::EventsLost)?;
        average(&packets(FILLING + number), |packet| Ok(lab.repeat(Direction::Egress, packet, 1)?.1))?;
        if lab.counter(Counter::EventsLost)? > lost {
            return Ok(());
        }
        number += FLOWS;
        ensure!(number < 10 * FLOWS, "the ring does not fill");
    }
}

fn average_in(lab: &mut Lab, packets: &[Vec<u8>], word: Word) -> Result<u64> {
    let before = lab.counter(word.counter())?;
    let ns = average(packets, |packet| {
        let (value, ns) = lab.repeat(Direction::Egress, packet, 1)?;
        ensure!(value == 0, "a packet passed");
        Ok(ns)
    })?;
    let became = lab.counter(word.counter())? - before;
    // One event a second has a place in the second half of the ring.
    ensure!(became + 2 >= packets.len() as u64, "{became} of {} were {word:?}", packets.len());
    Ok(ns)
}

fn average(packets: &[Vec<u8>], mut each: impl FnMut(&[u8]) -> Result<u64>) -> Result<u64> {
    let sum = packets.iter().map(|packet| each(packet)).sum::<Result<u64>>()?;
    Ok(sum / packets.len() as u64)
}

/// A datagram to each of [`FLOWS`] addresses.
fn packets(first: u32) -> Vec<Vec<u8>> {
    let network = Ipv4Addr::new(10, 0, 0, 0).to_bits();
    let to = |number| Ipv4Addr::from_bits(network + first + number).to_string();
    (0..FLOWS).map(|number| ip(&to(number), UDP, &udp(40_000, 443, b"payload"))).collect()
}

/// Where the flows that only fill begin.
const FILLING: u32 = 1 << 23;

const CLASSES: [&str; 6] = [
    "return 1",
    "a new flow, told",
    "a known flow, suppressed",
    "a known flow, told",
    "a new flow, no place",
    "a known flow, no place",
];
