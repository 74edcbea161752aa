//! `dnswall demo`: a small server with a resolver, a database and a compromised process, played in a cgroup and
//! network namespaces of its own.
//!
//! [`network`] and [`cgroup`] are the stage, `far_side` is everything beyond the wall, `part` is what the demo's
//! own processes do, `story` is the play, `narrator` tells it. Nothing is left behind: the network has no name and
//! goes with the process, and everything else is removed by a `janitor` that outlives the demo, however it ends.

pub mod cgroup;
pub mod netlink;
pub mod netns;
pub mod network;

mod dns;
mod far_side;
mod interrupt;
mod janitor;
mod narrator;
mod part;
mod stage;
mod story;

use std::io;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

pub use part::part;

use far_side::FarSide;
use narrator::Narrator;
use part::Act;
use stage::Stage;
use story::Scene;

/// The hidden subcommand as which the binary starts itself; its one argument goes to [`part`].
pub const PART_COMMAND: &str = "demo-part";

/// How to play.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Say nothing while it plays; the caller prints the [`Outcome`].
    pub silent: bool,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Everything that was tried, in order.
    pub attempts: Vec<Attempt>,
    /// How often something that should not have reached the other side did.
    pub leaks: u64,
    /// Whether the wall did everything as it should, and nothing was left behind.
    pub as_expected: bool,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// What, for people.
    pub title: String,
    /// The unit in which it was tried.
    pub unit: String,
    /// What came back, when it was allowed.
    pub answer: Option<String>,
    /// The number of the error, when it was not.
    pub errno: Option<i32>,
    /// How long it took, in microseconds.
    pub elapsed_us: u64,
    /// The alert about it.
    pub alert: Option<Value>,
    /// Whether the wall did as it should.
    pub as_expected: bool,
}

/// This host, or who runs the demo, cannot play it.
#[derive(Debug, thiserror::Error)]
#[error("the demo needs root, to build a network and a wall of its own")]
pub struct NeedsRoot;

/// Plays it all, and leaves nothing behind.
///
/// # Errors
/// [`NeedsRoot`], or what went wrong on the stage; a wall that does not do as it should is no error but an
/// [`Outcome`].
pub fn play(options: Options) -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Err(NeedsRoot.into());
    }
    let start = Instant::now();
    let narrator = Narrator::new(options.silent);
    narrator.opening(story::POLICY)?;
    let mut stage = Stage::set()?;
    let far =
        FarSide::listen(&stage.network, &story::FRIENDLY, &story::HOSTILE).context("play the other side")?;
    let raising = Instant::now();
    stage.raise_wall(story::POLICY)?;
    narrator.wall_stands(raising.elapsed())?;

    let own = Path::new("/proc/self/exe");
    let intruder = stage.plant(story::INTRUDER)?;
    let mut attempts = vec![visit(&stage, &narrator, own)?];
    for scene in story::scenes() {
        narrator.scene(scene.title)?;
        let exe = if scene.by_intruder { intruder.as_path() } else { own };
        attempts.push(perform(&stage, &scene, exe)?);
        attempts.last().map_or(Ok(()), |attempt| narrator.outcome(attempt))?;
    }
    let leaks = far.leaks();
    stage.clear()?;
    let as_expected = leaks == 0 && attempts.iter().all(|attempt| attempt.as_expected);
    let outcome = Outcome { attempts, leaks, as_expected, took_ms: start.elapsed().as_millis() as u64 };
    narrator.closing(&outcome)?;
    Ok(outcome)
}

/// Who comes from outside is served: a wall for what leaves does not keep visitors out.
fn visit(stage: &Stage, narrator: &Narrator, exe: &Path) -> Result<Attempt> {
    let title = "A visitor comes to the shop, port 443";
    narrator.scene(title)?;
    let window = Act::Serve { at: story::SHOP_WINDOW };
    let (shop, opened) = stage.play(exe, story::SHOP, 0, window).context("open the shop")?;
    let start = Instant::now();
    let answer = match opened.errno {
        Some(number) => Err(io::Error::from_raw_os_error(number)),
        None => far_side::visit(&stage.network, story::SHOP_WINDOW),
    };
    let elapsed_us = start.elapsed().as_micros() as u64;
    drop(shop);
    let attempt = Attempt {
        title: title.into(),
        unit: story::SHOP.into(),
        as_expected: answer.is_ok(),
        errno: answer.as_ref().err().and_then(io::Error::raw_os_error),
        answer: answer.ok(),
        elapsed_us,
        alert: None,
    };
    narrator.outcome(&attempt)?;
    Ok(attempt)
}

fn perform(stage: &Stage, scene: &Scene, exe: &Path) -> Result<Attempt> {
    let Scene { title, unit, act, refused_as, .. } = scene;
    // Raw sockets are root's; whether the wall lets root open one is the question.
    let uid = if matches!(act, Act::RawSocket) { 0 } else { story::SHOP_UID };
    let (player, outcome) =
        stage.play(exe, unit, uid, act.clone()).with_context(|| format!("play: {title}"))?;
    let alert = refused_as.and_then(|_| stage.alert_about(&player).ok());
    let as_expected = match refused_as {
        None => outcome.answer.is_some(),
        Some(kind) => {
            outcome.errno == Some(libc::EPERM) && alert.as_ref().is_some_and(|alert| alert["kind"] == *kind)
        }
    };
    let part::Outcome { answer, errno, elapsed_us } = outcome;
    Ok(Attempt {
        title: (*title).into(),
        unit: (*unit).into(),
        answer,
        errno,
        elapsed_us,
        alert,
        as_expected,
    })
}
