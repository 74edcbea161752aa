//! What a question costs, by how many names are listed: nanoseconds, memory, and the time until a list decides.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::lab::packet::protocol::UDP;
use crate::lab::packet::{ip, question, udp};
use crate::lab::{Direction, Lab};
use crate::lists;

/// Names that are asked once each.
const COLD: usize = 20_000;

/// Turns in a round.
const TURNS: usize = 20;

/// What lists of one size cost.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Names in the list.
    pub names: usize,
    /// Bytes of the table in the kernel.
    pub kernel_bytes: usize,
    /// Milliseconds from the file to the table and the index.
    pub build_ms: u128,
    /// Milliseconds from those to the kernel's judging by them.
    pub publish_ms: u128,
    /// Nanoseconds of each kind of question.
    pub questions: Vec<Question>,
    /// Nanoseconds that a name costs more which was never asked before: the median over [`COLD`] of them.
    pub cold_added_ns: u64,
}

/// What one question costs beyond the same packet to a port that is not DNS.
#[derive(Debug, Serialize)]
pub struct Question {
    /// Its name.
    pub name: String,
    /// Median.
    pub ns: u64,
    /// A tenth of the turns took less.
    pub min_ns: u64,
    /// A tenth took more.
    pub max_ns: u64,
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs of a packet in a round.
    pub repeat: u32,
    /// Rounds.
    pub rounds: usize,
}

const POLICY: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["192.0.2.53"]
[[allow]]
to = ["192.0.2.53"]
ports = ["udp/54"]
[[blocklist]]
name = "bench"
source = "/nowhere"
"#;

/// Hot names: what servers ask for all the time, and long ones.
const HOT: [&str; 4] = [
    "example.com",
    "www.example.com",
    "sqs.eu-west-1.amazonaws.com",
    "ip-10-0-12-34.eu-central-1.compute.internal.prod.example.com",
];

/// Name number `at` of a list.
pub fn listed(at: usize) -> String {
    format!("h{at:x}.{}{}.bad-{}.example", ["cdn", "www", "x"][at % 3], at % 977, at % 10_007)
}

/// Writes a list with so many names.
///
/// # Errors
/// The kernel's.
pub fn write(path: &Path, names: usize) -> Result<()> {
    let mut file = BufWriter::new(File::create(path).with_context(|| format!("make {}", path.display()))?);
    for at in 0..names {
        writeln!(file, "{}", listed(at))?;
    }
    Ok(file.flush()?)
}

/// Measures lists of one size.
///
/// # Errors
/// When the kernel refuses a program, or a question meets another verdict than it should.
pub fn measure(lab: &mut Lab, directory: &Path, names: usize, effort: Effort) -> Result<Cost> {
    let path = directory.join("names.txt");
    write(&path, names)?;
    let start = Instant::now();
    let lists = lists::read(&path, directory)?;
    let build_ms = start.elapsed().as_millis();
    fs::remove_file(&path)?;
    ensure!(lists.entries() == names, "{} of {names} names were read", lists.entries());
    let start = Instant::now();
    lab.publish_lists(POLICY, &lists)?;
    let publish_ms = start.elapsed().as_millis();
    for at in (0..names).step_by(names.div_ceil(1_000).max(1)) {
        let refused = lab.repeat(Direction::Egress, &packet(&listed(at), 53), 1)?.0 == 0;
        ensure!(refused, "{} passes", listed(at));
    }
    let questions = hot(lab, effort)?;
    let cold_added_ns = cold(lab)?;
    let kernel_bytes = size_of_val(lists.table.as_slice());
    Ok(Cost { names, kernel_bytes, build_ms, publish_ms, questions, cold_added_ns })
}

fn hot(lab: &mut Lab, effort: Effort) -> Result<Vec<Question>> {
    let mut samples = vec![Vec::new(); HOT.len()];
    // In short turns: the machine's speed changes within a second by more than a question costs.
    for _ in 0..effort.rounds * TURNS {
        for (name, samples) in HOT.iter().zip(&mut samples) {
            let turn = (effort.repeat / TURNS as u32).max(1);
            let mut run = |port| lab.repeat(Direction::Egress, &packet(name, port), turn);
            let ((passed, question), (_, other)) = (run(53)?, run(54)?);
            ensure!(passed == 1, "{name} is refused");
            samples.push(question.saturating_sub(other));
        }
    }
    let question = |(name, mut samples): (&&str, Vec<u64>)| {
        samples.sort_unstable();
        let (min_ns, max_ns) = (samples[samples.len() / 10], samples[samples.len() * 9 / 10]);
        Question { name: (*name).to_owned(), ns: samples[samples.len() / 2], min_ns, max_ns }
    };
    Ok(HOT.iter().zip(samples).map(question).collect())
}

/// In single runs, which cost more than one of many: so beside single runs of one name.
fn cold(lab: &mut Lab) -> Result<u64> {
    let (mut fresh, mut same) = (Vec::new(), Vec::new());
    let known = packet("h0.cdn0.good-1.example", 53);
    for at in 0..COLD {
        let packet = packet(&format!("c{at:x}.{}.good-{}.example", at % 7, at * 31), 53);
        let (passed, ns) = lab.repeat(Direction::Egress, &packet, 1)?;
        ensure!(passed == 1, "a name that no list has is refused");
        fresh.push(ns);
        same.push(lab.repeat(Direction::Egress, &known, 1)?.1);
    }
    fresh.sort_unstable();
    same.sort_unstable();
    Ok(fresh[COLD / 2].saturating_sub(same[COLD / 2]))
}

fn packet(name: &str, port: u16) -> Vec<u8> {
    ip("192.0.2.53", UDP, &udp(40_000, port, &question(name)))
}
