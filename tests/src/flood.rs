//! A flood of refusals: every one of them is in the count of an alert, or counted as what became of it; and an alert of
//! somebody else's comes through it.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::act::{Act, udp};
use crate::pace::within;
use crate::wall::Wall;
use crate::who::at;

/// Who sends what.
#[derive(Clone, Debug)]
pub struct Flood {
    /// A thread that sends for each.
    pub to: Vec<SocketAddr>,
    /// See [`Act::Storm`].
    pub addresses: u32,
    /// How long.
    pub takes: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Datagrams that were refused, as their sender counts them.
    pub refused: u64,
    /// The same in a second.
    pub rate: f64,
    /// How long the alert of somebody else, who was refused once in the middle, took.
    pub rare: Duration,
    /// Every refusal.
    pub account: Account,
}

impl Flood {
    /// Each of so many threads to one address of its own.
    pub fn at_one(threads: u8, takes: Duration) -> Self {
        let to = (0..threads).map(|at| ([198, 51, 100, 1 + at], 9).into()).collect();
        Self { to, addresses: 1, takes }
    }

    /// Each to more addresses than anybody remembers: the ring is full all the time, and flows are forgotten as fast as they come.
    pub fn at_ever_new(threads: u8, takes: Duration) -> Self {
        let to = (0..threads).map(|at| ([0x2001, 0xdb8, 0xf, at.into(), 0, 0, 0, 0], 9000).into()).collect();
        Self { to, addresses: EVER_NEW, takes }
    }

    /// Floods, has somebody else refused once in the middle, and counts to the end.
    ///
    /// # Errors
    /// When a refusal is in no place or in two, or the other one's alert does not come.
    pub fn run(&self) -> Result<Outcome> {
        let wall = Wall::raise(POLICY)?;
        let act = Act::Storm { to: self.to.clone(), addresses: self.addresses };
        let process = wall.start(&at("noisy.service").uid(65534), act)?;
        let began = Instant::now();
        thread::sleep(self.takes / 2);
        let rare = rare(&wall);
        thread::sleep(self.takes.saturating_sub(began.elapsed()));
        let report = process.finish()?;
        let lasted = began.elapsed();
        let rare = rare?;
        let refused = report.counts.iter().map(|(_, refused)| refused).sum();
        let account = settled(&wall)?;
        ensure!(account.by_rule == refused + 1 + account.of_the_proof, "{refused} refused: {account:?}");
        Ok(Outcome { refused, rate: refused as f64 / lasted.as_secs_f64(), rare, account })
    }
}

/// How long it takes until somebody else's alert is there.
fn rare(wall: &Wall) -> Result<Duration> {
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

/// What was refused, and what became of all that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// What the kernel refused, counted by rule.
    pub by_rule: u64,
    /// The same by reason.
    pub by_reason: u64,
    /// What it made of that: events,
    pub sent: u64,
    /// refusals that the next event of their flow tells,
    pub suppressed: u64,
    /// and events that found no room.
    pub lost: u64,
    /// What the agent learned of,
    pub observed: u64,
    /// and what it made of that: the counts of alerts as they arrived,
    pub alerted: u64,
    /// what the next alert will count,
    pub pending: u64,
    /// and what is in none: too many flows at once,
    pub overflowed: u64,
    /// flows whose events were lost,
    pub orphaned: u64,
    /// and more alerts than the spool could take.
    pub refused_by_the_spool: u64,
    /// What the agent itself tried.
    pub of_the_proof: u64,
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
    pub fn untold(&self) -> Option<u64> {
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

fn sum(rows: &Value, of: &str) -> u64 {
    rows.as_array().map_or(0, |rows| rows.iter().filter_map(|row| row[of].as_u64()).sum())
}

const POLICY: &str = "version = 1\nmode = \"enforce\"\n";
/// How long a rare alert may take.
pub const RARE_WITHIN: Duration = Duration::from_secs(2);
/// How long the agent may need to count to the end.
const COUNTED_WITHIN: Duration = Duration::from_secs(30);
const RARE: &str = "198.51.100.77:4711";
/// Many times as many as the kernel remembers.
const EVER_NEW: u32 = 4_000_000;
