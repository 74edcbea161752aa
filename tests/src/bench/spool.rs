//! How fast alerts reach the disk, and how soon one is with a sink: the spool by itself, in a directory, flushed as ever.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dnswall_agent::alert::Alert;
use dnswall_agent::spool::{Lane, Limits, QUEUE_ALERTS_MAX, Settled, Spool, Taken};
use serde::Serialize;

use crate::act::udp;
use crate::wall::Wall;
use crate::who::at;

/// What the spool does.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Bytes of the alert as JSON.
    pub alert_bytes: usize,
    /// Alerts that were pushed as fast as they were taken.
    pub alerts: u64,
    /// Of these, on disk and with the sink in a second.
    pub each_second: f64,
    /// Bytes that were handed to the disk for each (`wchar` in `/proc/self/io`).
    pub written_bytes: u64,
    /// One alone, from push to sink: median.
    pub alone: Duration,
    /// The same: 99 of 100 took less.
    pub alone_slow: Duration,
}

/// Measures in `directory`, with an alert of a real wall.
///
/// # Errors
/// When an alert does not come.
pub fn measure(directory: &Path, alerts: u64) -> Result<Cost> {
    let json = real_alert()?;
    let alert: Alert = serde_json::from_str(&json).context("read an alert")?;
    let sinks = ["bench".to_owned()];
    let (spool, writer, mut lanes) = Spool::open(&directory.join("alerts.redb"), BYTES_MAX, &sinks)?;
    let mut lane = lanes.pop().context("take the sink's way")?;
    let writing = thread::spawn(move || writer.run(|_| {}));

    let mut alone = Vec::new();
    for _ in 0..ALONE {
        let pushed = Instant::now();
        ensure!(spool.push(&alert), "the spool is full");
        take(&mut lane, 1)?;
        alone.push(pushed.elapsed());
    }
    alone.sort_unstable();

    let written = written_bytes()?;
    let began = Instant::now();
    thread::scope(|scope| {
        let taking = scope.spawn(|| take(&mut lane, alerts));
        let (mut pushed, mut waiting) = (0, 0);
        while pushed < alerts {
            // Not more at once than there is place for: what has no place is not waited for.
            if waiting + HALF >= QUEUE_ALERTS_MAX as u64 {
                while !spool.is_saved() {
                    thread::sleep(Duration::from_micros(200));
                }
                waiting = 0;
            }
            ensure!(spool.push(&alert), "the spool is full");
            (pushed, waiting) = (pushed + 1, waiting + 1);
        }
        taking.join().map_err(|_| anyhow::anyhow!("the sink panicked"))?
    })?;
    let took = began.elapsed();
    spool.close();
    ensure!(matches!(lane.wait(LIMITS, PATIENCE), Taken::Ended), "there is more");
    drop(lane);
    writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
    let written = written_bytes()? - written;
    Ok(Cost {
        alert_bytes: json.len(),
        alerts,
        each_second: alerts as f64 / took.as_secs_f64(),
        written_bytes: written / alerts,
        alone: alone[alone.len() / 2],
        alone_slow: alone[alone.len() * 99 / 100],
    })
}

/// Takes so many as a sink would.
fn take(lane: &mut Lane, alerts: u64) -> Result<()> {
    let mut taken = 0;
    while taken < alerts {
        let Taken::Batch(batch) = lane.wait(LIMITS, PATIENCE) else {
            anyhow::bail!("no alert came; {taken} of {alerts} had come")
        };
        let bytes = batch.iter().map(|entry| entry.json.len()).sum();
        lane.settle(&batch, Settled { alerts: batch.len(), rejected: Vec::new(), bytes });
        taken += batch.len() as u64;
    }
    Ok(())
}

/// The alert of a refused datagram, as a file gets it.
fn real_alert() -> Result<String> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let report = wall.run(&at("bench.service").uid(65534), udp("198.51.100.1:443"))?;
    ensure!(report.is_refused(), "{report:?}");
    Ok(wall.agent.wait_for_alert(0, |alert| alert["workload"]["unit"] == "bench.service")?.to_string())
}

fn written_bytes() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io").context("read /proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|bytes| bytes.parse().ok()).context("find wchar")
}

/// Alerts that come alone.
const ALONE: usize = 300;
const BYTES_MAX: u64 = 64 * 1024 * 1024;
const HALF: u64 = QUEUE_ALERTS_MAX as u64 / 2;
const LIMITS: Limits = Limits { alerts: 500, bytes: 1024 * 1024 };
const PATIENCE: Duration = Duration::from_secs(10);
