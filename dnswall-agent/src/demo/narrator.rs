//! Tells the play to a person.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::{Attempt, Outcome};

/// Who speaks on standard output, or keeps silent for `--output json`.
pub(super) struct Narrator {
    silent: bool,
    pause: Duration,
}

impl Narrator {
    /// One that speaks, with pauses where a person follows; or one that does not.
    pub(super) fn new(silent: bool) -> Self {
        let watched = !silent && io::stdout().is_terminal();
        Self { silent, pause: if watched { PAUSE } else { Duration::ZERO } }
    }

    /// The scene, before anything happens.
    pub(super) fn opening(&self, policy: &str) -> io::Result<()> {
        self.say(&format!(
            "{BOLD}A small server behind a wall, in a cgroup and a network of its own.{BOLD:#}"
        ))?;
        self.say("What is on your host is not touched, and nothing is left behind.\n")?;
        self.say("This is all that may leave it:\n")?;
        policy.lines().try_for_each(|line| self.say(&format!("    {DIM}{line}{DIM:#}")))?;
        self.say("")
    }

    /// The wall stands.
    pub(super) fn wall_stands(&self, took: Duration) -> io::Result<()> {
        self.say(&format!("The wall stands ({} ms).\n", took.as_millis()))
    }

    /// What is tried next.
    pub(super) fn scene(&self, title: &str) -> io::Result<()> {
        self.say(title)
    }

    /// What came of it.
    pub(super) fn outcome(&self, attempt: &Attempt) -> io::Result<()> {
        let after = attempt.elapsed_us;
        match (&attempt.answer, attempt.errno) {
            (Some(answer), _) if attempt.as_expected => {
                self.say(&format!("    {GREEN}allowed{GREEN:#}  answered {answer:?} after {after} µs"))?;
            }
            (None, Some(libc::EPERM)) if attempt.as_expected => {
                self.say(&format!("    {RED}refused{RED:#}  \"operation not permitted\" after {after} µs"))?;
            }
            (Some(answer), _) => {
                self.wrong(&format!("it was answered {answer:?}, and should not have been"))?
            }
            (None, Some(libc::EPERM)) => {
                self.wrong("it was refused, and should not have been, or not like this")?
            }
            (None, errno) => {
                self.wrong(&format!("it failed with error number {}", errno.unwrap_or_default()))?
            }
        }
        attempt.alert.iter().try_for_each(|alert| self.alert(alert))?;
        self.say("")?;
        std::thread::sleep(self.pause);
        Ok(())
    }

    /// The end.
    pub(super) fn closing(&self, outcome: &Outcome) -> io::Result<()> {
        let allowed = outcome.attempts.iter().filter(|attempt| attempt.answer.is_some()).count();
        let refused = outcome.attempts.len() - allowed;
        let alerts = outcome.attempts.iter().filter(|attempt| attempt.alert.is_some()).count();
        let Outcome { leaks, took_ms, as_expected, .. } = outcome;
        let seconds = *took_ms as f64 / 1000.0;
        self.say(&format!(
            "{allowed} allowed, {refused} refused, {alerts} alerts; {leaks} of the refused reached the other side."
        ))?;
        self.say(&format!("Took {seconds:.1} s. No cgroup, network, pin, file or process is left."))?;
        if *as_expected {
            self.say("\nTo see what it would say about this host, blocking nothing:  dnswall agent run")
        } else {
            self.say(&format!("\n{RED}Not everything went as it should.{RED:#}"))
        }
    }

    fn alert(&self, alert: &Value) -> io::Result<()> {
        let text = |pointer: &str| match alert.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => "?".to_owned(),
            Some(other) => other.to_string(),
        };
        let line = |name: &str, what: String| self.say(&format!("             {DIM}{name:<8}{DIM:#} {what}"));
        self.say(&format!("    {YELLOW}alert{YELLOW:#}    {BOLD}{}{BOLD:#}", text("/kind")))?;
        let exe = text("/process/exe");
        line("who", format!("{exe}, pid {}, {}", text("/process/pid"), text("/process/user")))?;
        line("where", format!("unit {}", text("/workload/unit")))?;
        let to = match text("/flow/destination").as_str() {
            "?" => "nothing yet".to_owned(),
            address if address.contains(':') => format!("[{address}]:{}", text("/flow/destination_port")),
            address => format!("{address}:{}", text("/flow/destination_port")),
        };
        line("to", format!("{to}, {}", text("/flow/protocol")))?;
        if let Some(Value::String(name)) = alert.pointer("/dns/name") {
            line("asked", name.clone())?;
        }
        line("why", format!("{} (rule {})", text("/reason"), text("/rule")))
    }

    fn wrong(&self, what: &str) -> io::Result<()> {
        self.say(&format!("    {RED}NOT AS IT SHOULD BE{RED:#}: {what}"))
    }

    fn say(&self, line: &str) -> io::Result<()> {
        if self.silent {
            return Ok(());
        }
        writeln!(anstream::stdout(), "{line}")
    }
}

const PAUSE: Duration = Duration::from_millis(450);
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();
