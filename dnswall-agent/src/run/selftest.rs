//! Tests whether alerts arrive: has the canary's event become an alert, and follows it through the spool to every sink.
//! Takes what the prover and the spool know of it, gives it step by step.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

use crate::alert::{AlertDelivered, AlertTaken, Asked, Telling, group};
use crate::control::api::{AlertTested, ProofStatus, StepShown};
use crate::durable;
use crate::spool::{SinkTrace, Trace};

/// The file in the state where the number of the last test is.
const NUMBER_FILE: &str = "selftest";

/// Numbers the tests and knows the last one; a copy knows the same.
#[derive(Clone, Debug)]
pub struct Selftests(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    number: u64,
    last: Option<Begun>,
    arrived: Option<Timestamp>,
}

/// A test whose alert is on its way.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Counts the tests.
    pub number: u64,
    /// Its alert.
    pub id: Uuid,
    /// When it began.
    pub time: Timestamp,
    /// What became of the attempt.
    pub proof: ProofStatus,
    /// From the kernel to the agent, in nanoseconds; `None` when the event never came.
    pub ring_ns: Option<u64>,
}

impl Selftests {
    /// Goes on with the numbers of the agent before.
    pub fn new(state: &Path) -> Self {
        let file = state.join(NUMBER_FILE);
        let number =
            std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self(Arc::new(Mutex::new(Inner { file, number, last: None, arrived: None })))
    }

    /// What the next test's alert says; `trace` knows how far an alert has come.
    pub fn next(&self, asked: Asked, trace: impl FnOnce(Uuid) -> Option<Trace>) -> Telling {
        let (number, file, last) = {
            let mut inner = self.inner();
            inner.number += 1;
            (inner.number, inner.file.clone(), inner.last.clone())
        };
        // A number that is used twice is better than no test.
        if let Err(error) = durable::replace(&file, format!("{number}\n").as_bytes()) {
            tracing::warn!(%error, "the number of the test is not kept");
        }
        let previous = last.and_then(|last| Some(delivered(last.number, &trace(last.id)?)));
        Telling { id: group::new_id(Timestamp::now()), number, asked, previous }
    }

    /// The test's alert is on its way.
    pub fn begun(&self, begun: Begun) {
        self.inner().last = Some(begun);
    }

    /// The last test.
    pub fn last(&self) -> Option<Begun> {
        self.inner().last.clone()
    }

    /// When the last test was whose alert is everywhere, as far as anybody looked.
    pub fn arrived(&self) -> Option<Timestamp> {
        self.inner().arrived
    }

    /// Looks whether the last test's alert is everywhere.
    pub fn look(&self, trace: impl FnOnce(Uuid) -> Option<Trace>) {
        let Some(Begun { id, time, .. }) = self.last() else { return };
        if trace(id).is_some_and(|trace| trace.is_done() && trace.sinks.iter().all(|sink| !sink.lost)) {
            self.inner().arrived = Some(time);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change in it is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn delivered(number: u64, trace: &Trace) -> AlertDelivered {
    let since = |at: Instant| trace.taken.map(|taken| micros(at.saturating_duration_since(taken)));
    let sink = |SinkTrace { name, settled, lost, error }: &SinkTrace| AlertTaken {
        name: name.clone(),
        taken_us: settled.filter(|_| !lost).and_then(since),
        error: if *lost { Some("it was lost".to_owned()) } else { error.clone() },
    };
    AlertDelivered {
        number,
        id: trace.id,
        saved_us: trace.saved.and_then(since),
        sinks: trace.sinks.iter().map(sink).collect(),
    }
}

/// A test, step by step. `spool_trouble` is why the disk cannot be written.
pub fn shown(
    begun: &Begun,
    trace: Option<&Trace>,
    spool_trouble: Option<&str>,
    reader: Reader,
) -> AlertTested {
    let Begun { number, id, time, proof, ring_ns } = begun;
    let mut steps = vec![kernel(proof), ring(proof, *ring_ns, reader)];
    let taken = trace.and_then(|trace| trace.taken);
    let saved = trace.and_then(|trace| trace.saved);
    let between = |from: Option<Instant>, to: Option<Instant>| {
        from.zip(to).map(|(from, to)| micros(to.saturating_duration_since(from)))
    };
    steps.push(StepShown {
        name: "spool".to_owned(),
        passed: saved.is_some(),
        micros: between(taken, saved),
        note: match (taken, saved) {
            (_, Some(_)) => None,
            (Some(_), None) => {
                let why = spool_trouble.unwrap_or("it was not written in time");
                Some(format!("the alert is not on disk: {why}"))
            }
            (None, None) if ring_ns.is_some() => Some("the spool had no room for the alert".to_owned()),
            (None, None) => Some("no alert came to it".to_owned()),
        },
    });
    let sinks = trace.map(|trace| trace.sinks.as_slice()).unwrap_or_default();
    for SinkTrace { name, settled, lost, error } in sinks {
        let note = match (settled, lost, taken) {
            (Some(_), false, _) => None,
            (Some(_), true, _) => {
                Some("it refused the alert for good, or the alert made room before it had it".to_owned())
            }
            (None, _, Some(_)) => {
                Some(error.clone().unwrap_or_else(|| "it has not taken the alert yet".to_owned()))
            }
            (None, _, None) => Some("no alert came to it".to_owned()),
        };
        steps.push(StepShown {
            name: format!("sink {name}"),
            passed: note.is_none(),
            micros: between(taken, *settled),
            note,
        });
    }
    AlertTested {
        number: *number,
        id: id.to_string(),
        time: format!("{time:.3}"),
        passed: steps.iter().all(|step| step.passed),
        steps,
    }
}

/// How the reader of events is.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// It goes round.
    pub alive: bool,
    /// Events that found their ring full, since the wall was raised.
    pub lost: u64,
}

fn kernel(proof: &ProofStatus) -> StepShown {
    let of = |outcomes: &[&str]| {
        proof.attempts.iter().find(|attempt| outcomes.contains(&attempt.outcome.as_str()))
    };
    // What was judged and not told is a matter of the ring.
    let judged = of(&["refused", "reported"]).or(of(&["untold"]));
    let leaked = of(&["passed", "other-mode"]);
    let note = match judged.filter(|_| leaked.is_none()) {
        Some(attempt) if attempt.expected == "refused" => {
            format!("{} to {} was refused", attempt.protocol, attempt.to)
        }
        Some(attempt) => {
            format!("{} to {} was let through and reported (audit)", attempt.protocol, attempt.to)
        }
        None => proof.note.clone(),
    };
    let passed = judged.is_some() && leaked.is_none();
    StepShown { name: "kernel".to_owned(), passed, micros: None, note: Some(note) }
}

fn ring(proof: &ProofStatus, ring_ns: Option<u64>, reader: Reader) -> StepShown {
    let note = match ring_ns {
        Some(_) => None,
        None if !reader.alive => Some("nobody reads the ring: the agent's reader is stuck".to_owned()),
        None if proof.attempts.iter().any(|attempt| attempt.outcome == "untold") => Some(format!(
            "the kernel counted the refusal and its event never came ({} events were lost so far)",
            reader.lost
        )),
        None => Some("there was no event to come".to_owned()),
    };
    StepShown {
        name: "ring".to_owned(),
        passed: ring_ns.is_some(),
        micros: ring_ns.map(|ns| ns / 1_000),
        note,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::AttemptStatus;

    fn begun(outcome: &str, state: &str, ring_ns: Option<u64>) -> Begun {
        let attempt = AttemptStatus {
            protocol: "udp".to_owned(),
            to: "192.0.2.119:9".to_owned(),
            expected: "refused".to_owned(),
            outcome: outcome.to_owned(),
            ..AttemptStatus::default()
        };
        let proof = ProofStatus {
            state: state.to_owned(),
            note: "said".to_owned(),
            attempts: vec![attempt],
            ..ProofStatus::default()
        };
        Begun { number: 7, id: Uuid::from_u128(7), time: Timestamp::UNIX_EPOCH, proof, ring_ns }
    }

    fn trace(taken: bool, saved: bool, sinks: Vec<SinkTrace>) -> Trace {
        let now = Instant::now();
        Trace::new(
            Uuid::from_u128(7),
            taken.then_some(now),
            saved.then_some(now + Duration::from_millis(4)),
            sinks,
        )
    }

    fn sink(settled: bool, lost: bool, error: Option<&str>) -> SinkTrace {
        let settled = settled.then(|| Instant::now() + Duration::from_millis(9));
        SinkTrace { name: "siem".to_owned(), settled, lost, error: error.map(str::to_owned) }
    }

    /// The first step that failed, and what it says.
    fn failed(begun: &Begun, trace: Option<&Trace>, trouble: Option<&str>, alive: bool) -> Option<String> {
        let tested = shown(begun, trace, trouble, Reader { alive, lost: 3 });
        let step = tested.steps.into_iter().find(|step| !step.passed);
        assert_eq!(tested.passed, step.is_none());
        step.map(|step| format!("{}: {}", step.name, step.note.unwrap_or_default()))
    }

    #[test]
    fn each_part_that_is_broken_is_named() {
        let good = begun("refused", "proven", Some(1_500_000));
        let whole = trace(true, true, vec![sink(true, false, None)]);
        assert_eq!(failed(&good, Some(&whole), None, true), None);
        let says = |begun: &Begun, trace: Option<&Trace>, trouble, alive| {
            failed(begun, trace, trouble, alive).unwrap_or_default()
        };
        let leak = begun("passed", "failed", None);
        assert_eq!(says(&leak, None, None, true), "kernel: said");
        let free = Begun {
            proof: ProofStatus {
                state: "nothing-forbidden".to_owned(),
                note: "free".to_owned(),
                ..ProofStatus::default()
            },
            ..good.clone()
        };
        assert_eq!(says(&free, None, None, true), "kernel: free");
        let untold = begun("untold", "failed", None);
        assert!(says(&untold, None, None, true).starts_with("ring: the kernel counted the refusal"));
        assert!(says(&untold, None, None, false).starts_with("ring: nobody reads the ring"));
        let nowhere = trace(false, false, vec![sink(false, false, None)]);
        assert_eq!(says(&good, Some(&nowhere), None, true), "spool: the spool had no room for the alert");
        let unsaved = trace(true, false, vec![sink(true, false, None)]);
        let full = says(&good, Some(&unsaved), Some("no space left"), true);
        assert_eq!(full, "spool: the alert is not on disk: no space left");
        let down = trace(true, true, vec![sink(false, false, Some("TLS: unknown issuer"))]);
        assert_eq!(says(&good, Some(&down), None, true), "sink siem: TLS: unknown issuer");
        let slow = trace(true, true, vec![sink(false, false, None)]);
        assert_eq!(says(&good, Some(&slow), None, true), "sink siem: it has not taken the alert yet");
        let lost = trace(true, true, vec![sink(true, true, None)]);
        assert!(says(&good, Some(&lost), None, true).starts_with("sink siem: it refused the alert for good"));
    }

    #[test]
    fn numbers_go_on_and_each_test_tells_of_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let tests = Selftests::new(directory.path());
        let first = tests.next(Asked::Schedule, |_| None);
        assert_eq!((first.number, first.previous), (1, None));
        tests.begun(begun("refused", "proven", Some(1)));
        let second = tests.next(Asked::Command, |id| {
            assert_eq!(id, Uuid::from_u128(7));
            Some(trace(true, true, vec![sink(true, false, None), sink(false, false, Some("down"))]))
        });
        let previous = second.previous.unwrap();
        assert_eq!((second.number, previous.number), (2, 7));
        assert!(previous.saved_us.is_some() && previous.sinks[0].taken_us.is_some());
        assert_eq!((previous.sinks[1].taken_us, previous.sinks[1].error.as_deref()), (None, Some("down")));
        assert_eq!(tests.arrived(), None);
        tests.look(|_| Some(trace(true, true, vec![sink(true, false, None)])));
        assert_eq!(tests.arrived(), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(Selftests::new(directory.path()).next(Asked::Schedule, |_| None).number, 3);
        std::fs::write(directory.path().join(NUMBER_FILE), "x").unwrap();
        assert_eq!(Selftests::new(directory.path()).next(Asked::Schedule, |_| None).number, 1);
    }
}
