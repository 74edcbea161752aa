//! The policy that decides, and how another takes its place: whole, or not at all.

mod pending;

use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;

use super::environment::HostEnvironment;
use super::fetcher;
use super::store::{Origin, Store, StoreError, Stored};
use super::told::{self, Counts};
use crate::alert::{PolicyRules, RuleBook};
use crate::blocklist::fetch::Depot;
use crate::compile::{MapImage, PolicyDiff, RootCgroup, compile, diff};
use crate::doctor::facts::wall_stands;
use crate::host::HostRoot;
use crate::kernel::{PublishError, Raised, Wall, WallError, WallOptions, seed};
use crate::policy::{BUILTIN_ORIGIN, Policy, Problems, Warning, default_policy, parse, resolvers_of};

pub use pending::{CONFIRM_RANGE, Pending};

/// The wall and the policy it enforces.
pub struct Engine<W = Wall> {
    wall: W,
    store: Store,
    running: Running,
    /// While the running policy is on trial.
    pending: Option<Pending>,
    book: Arc<RwLock<RuleBook>>,
    trouble: Option<String>,
    lapsed: Option<String>,
    /// Hears of each change of the policy that decides.
    changed: Option<SyncSender<()>>,
}

/// What an image is published to: the wall, or a test's idea of one.
pub trait Publish {
    /// The number the next publication will have.
    fn next_generation(&self) -> u32;
    /// Makes the image the one that decides, and gives its number.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    fn publish(&mut self, image: &mut MapImage) -> Result<u32, PublishError>;
}

/// The policy that decides.
pub struct Running {
    /// As it was written.
    pub policy: Policy,
    /// As the kernel has it.
    pub image: MapImage,
    /// Where it came from.
    pub origin: Origin,
    /// Which publication it is.
    pub generation: u32,
    /// Which parts of it do nothing here.
    pub warnings: Vec<Warning>,
    /// The host it was compiled for.
    pub environment: HostEnvironment,
}

/// What an apply did.
#[derive(Debug)]
pub struct Change {
    /// Digest of the policy before.
    pub previous: String,
    /// What differs.
    pub diff: PolicyDiff,
}

/// Why the policy that decides is still the one before.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The new one has mistakes.
    #[error("{} is not a valid policy", .0.origin())]
    Invalid(Problems),
    /// The file cannot be read.
    #[error("read policy {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is more than the kernel's maps hold.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The wall cannot be raised.
    #[error(transparent)]
    Wall(#[from] WallError),
    /// It cannot be kept, and what cannot be restored does not decide.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nothing to go back to.
    #[error("there is no policy before this one")]
    NoPrevious,
    /// The running one is on trial.
    #[error("policy {name} waits for its confirmation ({seconds_left} s left)")]
    OnTrial {
        /// Its name.
        name: String,
        /// Until it is taken back.
        seconds_left: u64,
    },
    /// No policy is on trial.
    #[error("no policy waits for a confirmation")]
    NothingToConfirm,
    /// It was taken back before the confirmation came.
    #[error("the confirmation came too late: the policy before decides again")]
    TooLate,
    /// A wall stands whose policy is not known.
    #[error(
        "a wall stands at {0}, and the state directory does not hold its policy: the built-in one would open it. \
         Give --policy FILE, or the right --state DIR, or take the wall down with `dnswall agent detach`"
    )]
    Stranger(PathBuf),
}

/// A policy that is to be compiled again.
pub struct Outdated {
    stored: Stored,
    environment: HostEnvironment,
    /// Which publication of it.
    generation: u32,
}

impl Outdated {
    /// Compiles it. Reading its lists may take seconds: not to be done while others wait for the engine. It keeps the number of the
    /// publication that it was compiled from, by which [`Engine::refresh`] knows whether it comes too late.
    ///
    /// # Errors
    /// Why an apply would refuse it.
    pub fn compile(self) -> Result<Running, EngineError> {
        let running = prepare(self.stored, self.environment)?;
        Ok(Running { generation: self.generation, ..running })
    }
}

impl Engine {
    /// Raises the wall, or takes over the one that stands, with the policy of this file, else the last good one,
    /// else the built-in one.
    ///
    /// # Errors
    /// Why not; a wall that stood before still stands, with the policy it had.
    pub fn start(
        options: &WallOptions,
        host: HostRoot,
        file: Option<&Path>,
        store: Store,
        book: Arc<RwLock<RuleBook>>,
        depot: Arc<Depot>,
    ) -> Result<(Self, Raised), EngineError> {
        let stored = chosen(options, &host, file, &store)?;
        let root = HostEnvironment::root_at(&options.cgroup).map_err(WallError::Host)?;
        let (on_trial, current) = (store.trial(), store.current()?);
        let has_decided = [&on_trial, &current]
            .iter()
            .any(|kept| kept.as_ref().is_some_and(|kept| kept.origin.digest == stored.origin.digest));
        let environment = HostEnvironment::new(host, root, seed(&options.pins))
            .with_scratch(store.directory())
            .with_depot(depot);
        let environment = match has_decided {
            true => environment.decided(),
            false => {
                fetcher::before_start(&environment, &stored.text);
                environment
            }
        };
        let mut running = prepare(stored, environment)?;
        let before = on_trial.clone().or(current);
        let staged = store.stage(running.stored())?;
        let (wall, raised) = Wall::raise(options, &mut running.image)?;
        let generation = running.image.header.generation;
        running.generation = generation;
        name_rules(&book, &running, generation);
        // What waits in the ring was judged by the policy before.
        if raised != Raised::New
            && let Some(before) =
                before.and_then(|before| prepare(before, running.environment.again().decided()).ok())
        {
            name_rules(&book, &before, generation.wrapping_sub(1));
        }
        let trouble = staged.commit().err().map(not_kept);
        let mut engine =
            Self { wall, store, running, pending: None, book, trouble, lapsed: None, changed: None };
        engine.forget_trial(on_trial);
        Ok((engine, raised))
    }

    // An agent that ended, or died, while a policy was on trial left it enforced.
    fn forget_trial(&mut self, on_trial: Option<Stored>) {
        let Some(Stored { origin, .. }) = on_trial else { return };
        if let Err(error) = self.store.end_trial() {
            tracing::warn!("{error}");
        }
        if origin.digest != self.running.origin.digest {
            self.lapsed = Some(format!(
                "the policy of {} was not confirmed before the agent ended: {} decides again",
                origin.origin,
                pending::described(&self.running)
            ));
        }
    }

    /// Tells of each change of the policy that decides from now on.
    pub fn tell_changes(&mut self, changed: SyncSender<()>) {
        self.changed = Some(changed);
    }

    /// The wall, to take its ring.
    pub fn wall_mut(&mut self) -> &mut Wall {
        &mut self.wall
    }

    /// What the kernel counted of each flow's refusals; nothing when the map cannot be read.
    pub fn counts(&self) -> Option<Counts> {
        let counts = self.wall.maps().refused_flows();
        counts.inspect_err(|error| tracing::error!("read what was refused: {error:#}")).ok()
    }

    /// What an agent before this one had told of these counts, if it ended in order.
    pub fn take_told(&self) -> Counts {
        self.store.take_told().and_then(|bytes| told::decode(&bytes)).unwrap_or_default()
    }

    /// Leaves what was told to the next agent.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn leave_told(&self, counts: &Counts) -> Result<(), StoreError> {
        self.store.leave_told(&told::encode(counts))
    }
}

impl<W: Publish> Engine<W> {
    /// Replaces the policy that decides, for good.
    ///
    /// # Errors
    /// Why not; nothing has changed then. Also while one is on trial: whether that one stays has to be said first.
    pub fn apply(&mut self, text: String, origin: &str) -> Result<Change, EngineError> {
        self.refuse_on_trial()?;
        let stored = Stored::new(text, origin, now());
        self.replace(stored, false)
    }

    /// Brings back the policy before the one that decides; from one that is on trial, the confirmed one.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn rollback(&mut self) -> Result<Change, EngineError> {
        if let Some(change) = self.go_back()? {
            return Ok(change);
        }
        let previous = self.store.previous()?.ok_or(EngineError::NoPrevious)?;
        let stored = Stored::new(previous.text, &previous.origin.origin, now());
        self.replace(stored, true)
    }

    /// What an apply would make of this text, without doing it.
    ///
    /// # Errors
    /// Why an apply would refuse it.
    pub fn rehearse(&self, text: String, origin: &str) -> Result<(Running, Change), EngineError> {
        let running = prepare(Stored::new(text, origin, now()), self.running.environment.again())?;
        let previous = self.running.origin.digest.clone();
        let change = Change { previous, diff: diff(&self.running.policy, &running.policy) };
        Ok((running, change))
    }

    /// What it takes to compile the policy that decides again, when an executable it names is another file by now, or a list was
    /// written anew.
    pub fn outdated(&self) -> Option<Outdated> {
        self.running.environment.has_changed().then(|| self.again(Vec::new()))
    }

    /// What it takes to compile the policy that decides again, whatever has changed; these lists may have changed as they like.
    pub fn again(&self, accepted: Vec<String>) -> Outdated {
        let environment = self.running.environment.again().decided().accepting(accepted);
        Outdated { stored: self.running.stored(), environment, generation: self.running.generation }
    }

    /// Texts of the policies that may decide again, and of the one that does.
    pub fn texts(&self) -> Vec<String> {
        let history = self.store.history().into_iter().map(|stored| stored.text);
        history.chain([self.running.policy.text.clone()]).collect()
    }

    /// Publishes what was compiled again, unless another policy decides by now, or somebody else published it again meanwhile.
    /// Gives the new generation.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn refresh(&mut self, mut running: Running) -> Result<Option<u32>, EngineError> {
        if running.origin != self.running.origin || running.generation != self.running.generation {
            return Ok(None);
        }
        publish(&mut self.wall, &self.book, &mut running)?;
        let generation = running.generation;
        self.decide_by(running);
        Ok(Some(generation))
    }

    /// The policy that decides.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The wall.
    pub fn wall(&self) -> &W {
        &self.wall
    }

    /// The policies before.
    pub fn history(&self) -> Vec<Origin> {
        self.store.history().into_iter().map(|stored| stored.origin).collect()
    }

    /// The wall's cgroup.
    pub fn root(&self) -> RootCgroup {
        self.running.image.root.clone()
    }

    /// What somebody should look at.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn replace(&mut self, stored: Stored, step_back: bool) -> Result<Change, EngineError> {
        let environment = self.running.environment.again();
        // What is gone back to has decided before.
        let environment = if step_back { environment.decided() } else { environment };
        let mut running = prepare(stored, environment)?;
        let change = Change {
            previous: self.running.origin.digest.clone(),
            diff: diff(&self.running.policy, &running.policy),
        };
        // On disk before it decides, and the last good one after: a crash in between restores the one before.
        let staged = self.store.stage(running.stored())?;
        let staged = if step_back { staged.stepping_back() } else { staged };
        // `self.store` stays borrowed by what is staged, so the other parts are named one by one.
        let Self { wall, book, .. } = self;
        publish(wall, book, &mut running)?;
        self.trouble = staged.commit().err().map(not_kept);
        self.decide_by(running);
        self.lapsed = None;
        Ok(change)
    }

    /// Takes note that this one was published, and gives the one before.
    fn decide_by(&mut self, running: Running) -> Running {
        if let Some(changed) = &self.changed {
            // A full queue holds what this would say; nobody listens any more at the end.
            let _ = changed.try_send(());
        }
        std::mem::replace(&mut self.running, running)
    }
}

impl Publish for Wall {
    fn next_generation(&self) -> u32 {
        self.maps().active().generation.checked_add(1).unwrap_or(1)
    }

    fn publish(&mut self, image: &mut MapImage) -> Result<u32, PublishError> {
        Self::publish(self, image)
    }
}

impl Running {
    fn stored(&self) -> Stored {
        Stored { text: self.policy.text.clone(), origin: self.origin.clone() }
    }
}

/// The built-in policy with the host's resolvers.
pub fn built_in(host: &HostRoot) -> String {
    // What systemd-resolved asks is the host's resolver as well as its stub.
    let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let mut resolvers = Vec::new();
    for text in files.iter().filter_map(|path| host.read(Path::new(path), RESOLV_CONF_BYTES_MAX).ok()) {
        let text = String::from_utf8_lossy(&text);
        resolvers.extend(
            resolvers_of(&text).into_iter().filter(|found| !resolvers.contains(found)).collect::<Vec<_>>(),
        );
    }
    default_policy(&resolvers)
}

/// Reads a policy's file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<(String, String), EngineError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| EngineError::Unreadable { path: path.to_owned(), source })?;
    let origin = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Ok((text, origin.display().to_string()))
}

/// The longest resolv.conf that is read, in bytes.
const RESOLV_CONF_BYTES_MAX: u64 = 1024 * 1024;

fn chosen(
    options: &WallOptions,
    host: &HostRoot,
    file: Option<&Path>,
    store: &Store,
) -> Result<Stored, EngineError> {
    let built_in = || Stored::new(built_in(host), BUILTIN_ORIGIN, now());
    if let Some(path) = file {
        let (text, origin) = read(path)?;
        return Ok(Stored::new(text, &origin, now()));
    }
    match store.current()? {
        // The host may have other resolvers by now.
        Some(stored) if stored.origin.origin == BUILTIN_ORIGIN => Ok(built_in()),
        Some(stored) => Ok(stored),
        None if wall_stands(&options.pins) => Err(EngineError::Stranger(options.pins.clone())),
        None => Ok(built_in()),
    }
}

fn prepare(stored: Stored, environment: HostEnvironment) -> Result<Running, EngineError> {
    let Stored { text, origin } = stored;
    let policy = parse(&text, &origin.origin).map_err(EngineError::Invalid)?;
    let (image, warnings) = compile(&policy, &environment).map_err(EngineError::Invalid)?;
    // Before anything is written, on disk or into maps.
    let excesses = image.excesses();
    if !excesses.is_empty() {
        return Err(PublishError::TooLarge(excesses).into());
    }
    Ok(Running { policy, image, origin, generation: 0, warnings, environment })
}

fn publish(
    wall: &mut impl Publish,
    book: &RwLock<RuleBook>,
    running: &mut Running,
) -> Result<(), EngineError> {
    // Named before the first event can carry the number.
    let expected = wall.next_generation();
    name_rules(book, running, expected);
    running.generation = wall.publish(&mut running.image)?;
    if running.generation != expected {
        name_rules(book, running, running.generation);
    }
    Ok(())
}

fn name_rules(book: &RwLock<RuleBook>, running: &Running, generation: u32) {
    let Running { image, policy, .. } = running;
    let names = image.rules.iter().map(|rule| rule.name.clone());
    let lists = image.lists.exact.clone();
    let rules = PolicyRules::new(&image.policy_name, generation, &image.digest, names, lists)
        .with_resolvers(policy.dns.told_resolvers());
    book.write().unwrap_or_else(PoisonError::into_inner).insert(rules);
}

fn now() -> String {
    format!("{:.0}", Timestamp::now())
}

fn not_kept(error: StoreError) -> String {
    format!("this policy decides, but the next start will not know it: {error}")
}

mod restore;
#[cfg(test)]
mod tests;
