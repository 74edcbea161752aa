//! A flood of refusals: every one of them is in the count of an alert, or counted as what became of it; and an alert of
//! somebody else's comes through it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::act::{Act, address, udp};
use dnswall_tests::pace::within;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::Value;

const POLICY: &str = "version = 1\nmode = \"enforce\"\n";
/// How long the flood takes.
const FLOOD: Duration = Duration::from_secs(10);
/// How long a rare alert may take, and how long the agent may need to count to the end.
const RARE_WITHIN: Duration = Duration::from_secs(2);
const COUNTED_WITHIN: Duration = Duration::from_secs(30);
const RARE: &str = "198.51.100.77:4711";

fn sum(rows: &Value, of: &str) -> u64 {
    rows.as_array().map_or(0, |rows| rows.iter().filter_map(|row| row[of].as_u64()).sum())
}

/// What was refused, and what became of all that.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    /// What the kernel refused, twice counted.
    by_rule: u64,
    by_reason: u64,
    /// What it made of that: events, refusals that the next event of their flow tells, and events that found no room.
    sent: u64,
    suppressed: u64,
    lost: u64,
    /// What the agent learned of, and what it made of that: the counts of alerts as they arrived, and what is in none.
    observed: u64,
    alerted: u64,
    pending: u64,
    overflowed: u64,
    orphaned: u64,
    refused_by_the_spool: u64,
    /// What the agent itself tried.
    of_the_proof: u64,
}

impl Account {
    fn of(wall: &Wall) -> Result<Self> {
        let status = wall.agent.status()?;
        let counter = |name: &str| status["counters"][name].as_u64().unwrap_or_default();
        let mut alerts = wall.agent.alerts()?;
        // Which counts what is in no other.
        alerts.retain(|alert| alert["kind"] != "alerts.lost");
        Ok(Self {
            by_rule: sum(&status["rules"], "denied"),
            by_reason: sum(&status["reasons"], "denied"),
            sent: counter("events-sent"),
            suppressed: counter("events-suppressed"),
            lost: counter("events-lost"),
            observed: counter("refusals-observed"),
            alerted: alerts.iter().filter_map(|alert| alert["count"].as_u64()).sum(),
            pending: counter("refusals-pending"),
            overflowed: counter("refusals-overflowed"),
            orphaned: counter("refusals-orphaned"),
            refused_by_the_spool: status["spool"]["refused_refusals"].as_u64().unwrap_or_default(),
            of_the_proof: counter("refusals-of-the-proof"),
        })
    }

    /// Refusals that the agent never learned of: their events found no room, and their flows were forgotten before it could
    /// look at the kernel's counts.
    fn untold(&self) -> Option<u64> {
        self.by_rule.checked_sub(self.observed + self.of_the_proof)
    }

    /// Nothing is on its way any more, and every refusal is in exactly one place, on either side.
    fn is_settled(&self) -> bool {
        let by_kernel = self.sent + self.suppressed + self.lost;
        let by_agent = self.alerted + self.overflowed + self.orphaned + self.refused_by_the_spool;
        self.pending == 0
            && (self.by_rule, self.by_rule) == (self.by_reason, by_kernel)
            && self.observed == by_agent
            && self.untold().is_some_and(|untold| untold <= self.lost)
    }
}

/// How many are refused by whoever floods, until it is told to stop.
type Flood = fn(&Wall, &AtomicBool) -> Result<u64>;

/// Floods, and has somebody else refused once in the middle; how long that one's alert took.
fn through(flood: Flood) -> Result<Duration> {
    let wall = Wall::raise(POLICY)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let began = Instant::now();
            flood(&wall, &stop).map(|refused| (refused, began.elapsed()))
        });
        let began = Instant::now();
        let rare = rare(&wall);
        thread::sleep(FLOOD.saturating_sub(began.elapsed()));
        stop.store(true, Ordering::Relaxed);
        let (flooded, lasted) = flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        let took = rare?;
        let rate = flooded as f64 / lasted.as_secs_f64();
        let account = settled(&wall)?;
        eprintln!(
            "{rate:.0} refusals a second; the other one's alert after {took:?}; {:?} untold, {account:?}",
            account.untold()
        );
        ensure!(account.by_rule == flooded + 1 + account.of_the_proof, "{flooded} refused: {account:?}");
        Ok(took)
    })
}

fn rare(wall: &Wall) -> Result<Duration> {
    thread::sleep(FLOOD / 2);
    let known = wall.agent.alerts()?.len();
    let report = wall.run(&at("quiet.service").uid(65534), udp(RARE))?;
    ensure!(report.is_refused(), "{report:?}");
    let refused = Instant::now();
    let is_rare = |alert: &Value| alert["workload"]["unit"] == "quiet.service";
    wall.agent.wait_for_alert(known, is_rare).context("the alert of the other one")?;
    Ok(refused.elapsed())
}

fn settled(wall: &Wall) -> Result<Account> {
    let until = Instant::now() + within(COUNTED_WITHIN);
    loop {
        let account = Account::of(wall)?;
        if account.is_settled() {
            return Ok(account);
        }
        ensure!(Instant::now() < until, "not accounted for: {account:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn one_destination_again_and_again() -> Result<()> {
    let took = through(|wall, stop| {
        let act = Act::Flood { to: vec![address("198.51.100.1:9")], one_socket: true };
        let flood = wall.start(&at("noisy.service").uid(65534), act)?;
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(flood.finish()?.counts.iter().map(|(_, refused)| refused).sum())
    })?;
    ensure!(took <= within(RARE_WITHIN), "the other one's alert took {took:?}");
    Ok(())
}

/// The ring is full all the time, and flows are forgotten as fast as they come.
#[test]
fn more_destinations_than_anybody_remembers() -> Result<()> {
    let took = through(|wall, stop| {
        let mut refused = 0;
        while !stop.load(Ordering::Relaxed) {
            let act = Act::Sweep { from: address("[2001:db8:f::]:9000"), count: 200_000 };
            let report = wall.run(&at("noisy.service").uid(65534), act)?;
            refused += report.counts.iter().map(|(_, refused)| refused).sum::<u64>();
        }
        Ok(refused)
    })?;
    ensure!(took <= within(RARE_WITHIN), "the other one's alert took {took:?}");
    Ok(())
}
