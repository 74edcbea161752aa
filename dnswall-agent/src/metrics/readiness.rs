//! Takes a sample, gives whether the agent is ready: the wall stands, the kernel has a policy, refusals are told.

use std::fmt;

use super::sample::Sample;
use crate::control::api::Status;

/// What readiness is made of, and what is wrong with each part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// The wall stands.
    pub wall: Option<String>,
    /// The kernel judges by a policy.
    pub policy: Option<String>,
    /// The reader of events goes round.
    pub reader: Option<String>,
}

impl Readiness {
    /// Looks at a sample.
    pub fn of(sample: &Sample) -> Self {
        let Sample { status, reader, .. } = sample;
        let no_policy = (status.mode == "none").then(|| "the kernel has none".to_owned());
        let stuck = || format!("it has not been round for {} s", reader.quiet.as_secs());
        Self { wall: fallen(status), policy: no_policy, reader: (!reader.is_alive).then(stuck) }
    }

    /// Whether all is well.
    pub fn is_ready(&self) -> bool {
        let Self { wall, policy, reader } = self;
        [wall, policy, reader].iter().all(|part| part.is_none())
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wall, policy, reader } = self;
        for (part, wrong) in [("wall", wall), ("policy", policy), ("reader", reader)] {
            writeln!(f, "{part}: {}", wrong.as_deref().unwrap_or("ok"))?;
        }
        Ok(())
    }
}

// Says why whenever [`Status::stands`] says no.
fn fallen(status: &Status) -> Option<String> {
    if status.stands() {
        return None;
    }
    let whole = |state: &str| matches!(state, "attached" | "not-available");
    let hooks = status.hooks.iter().filter(|hook| !whole(&hook.state));
    let mut said: Vec<String> = hooks.map(|hook| format!("hook {} is {}", hook.name, hook.state)).collect();
    if status.hooks.is_empty() {
        said.push("nothing is attached".to_owned());
    }
    if status.proof.state == "failed" {
        said.push(format!("the last proof failed: {}", status.proof.note));
    }
    said.extend(status.tamper.standing.iter().cloned());
    // One line: whoever wrote it, it says of one part.
    Some(said.join("; ").replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::{HookStatus, ProofStatus, TamperStatus};
    use crate::metrics::Reader;
    use std::time::Duration;

    fn sample() -> Sample {
        let hook = HookStatus {
            name: "dw_egress".to_owned(),
            state: "attached".to_owned(),
            ..HookStatus::default()
        };
        let status = Status { mode: "enforce".to_owned(), hooks: vec![hook], ..Status::default() };
        let reader = Reader { quiet: Duration::from_millis(200), is_alive: true };
        Sample { status, reader, ..Sample::default() }
    }

    #[test]
    fn all_is_well() {
        let readiness = Readiness::of(&sample());
        assert!(readiness.is_ready());
        assert_eq!(readiness.to_string(), "wall: ok\npolicy: ok\nreader: ok\n");
    }

    #[test]
    fn each_part_says_what_is_wrong() {
        let said = |spoil: fn(&mut Sample)| {
            let mut sample = sample();
            spoil(&mut sample);
            let readiness = Readiness::of(&sample);
            assert!(!readiness.is_ready());
            let wrong: Vec<String> = readiness
                .to_string()
                .lines()
                .filter(|line| !line.ends_with(": ok"))
                .map(str::to_owned)
                .collect();
            wrong.join("|")
        };
        assert_eq!(said(|it| it.status.hooks[0].state = "gone".to_owned()), "wall: hook dw_egress is gone");
        assert_eq!(said(|it| it.status.hooks.clear()), "wall: nothing is attached");
        assert_eq!(
            said(|it| it.status.tamper =
                TamperStatus { standing: vec!["a map\nis not".to_owned()], ..TamperStatus::default() }),
            "wall: a map is not"
        );
        assert_eq!(
            said(|it| it.status.proof = ProofStatus {
                state: "failed".to_owned(),
                note: "let through".to_owned(),
                ..ProofStatus::default()
            }),
            "wall: the last proof failed: let through"
        );
        assert_eq!(said(|it| it.status.mode = "none".to_owned()), "policy: the kernel has none");
        assert_eq!(
            said(|it| it.reader = Reader { quiet: Duration::from_secs(25), is_alive: false }),
            "reader: it has not been round for 25 s"
        );
    }
}
