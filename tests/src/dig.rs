//! The real `dig`, and what it makes of a refusal.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::act::{Act, Report};
use crate::pace::within;
use crate::resolver::ANSWER;
use crate::wall::Wall;
use crate::who::{DIG, Who};

/// Asks with `dig`; gives what it saw as a probe would report it, and its process id.
///
/// # Errors
/// When `dig` is missing or the act is no question.
pub fn ask(wall: &Wall, who: &Who, act: &Act) -> Result<(Report, u32)> {
    let Act::Dns { server, tcp, name } = act else { bail!("dig only asks") };
    if !Path::new(DIG).is_file() {
        bail!("{DIG} does not exist: install bind9-dnsutils (cargo xtask test does)");
    }
    let mut arguments = vec![format!("@{}", server.ip()), name.clone(), "A".into()];
    arguments.extend(["+tries=1", "+retry=0"].map(String::from));
    arguments.push(format!("+time={}", within(WAIT).as_secs()));
    arguments.extend(tcp.then(|| "+tcp".into()));
    let start = Instant::now();
    let (text, pid) =
        wall.output(who, Act::Launch { program: PathBuf::from(DIG), arguments }).context("run dig")?;
    let elapsed_us = start.elapsed().as_micros() as u64;
    let ok = text.contains("status: NOERROR") && text.contains(ANSWER);
    let refused = ["not permitted", "permission denied"].iter().any(|words| text.contains(words));
    let errno = refused.then_some(libc::EPERM);
    Ok((Report { ok, errno, elapsed_us, received: Some(text), ..Report::default() }, pid))
}

/// Only silence takes this long.
const WAIT: Duration = Duration::from_secs(1);
