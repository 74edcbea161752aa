//! Keeps the lists of the policy that decides up to date, on a thread of its own; before a policy is applied for the first time,
//! and when somebody asks for it, on the thread of whoever asks.
//!
//! What is fetched does not decide by itself: the policy is compiled again with it, and published as a whole.

use std::collections::HashSet;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::engine::{Engine, EngineError};
use super::environment::HostEnvironment;
use crate::alert::blocklist::{ListState, ListTeller};
use crate::alert::{Alert, AlertPolicy};
use crate::blocklist::difference::difference;
use crate::blocklist::fetch::{Depot, Fetched, Job, Outcome};
use crate::blocklist::{List, ListAccount, Lists, Wanted};
use crate::compile::wanted;
use crate::control::api::{UpdateRequest, UpdateStatus, Updated};
use crate::event::Clocks;
use crate::kernel::memory;
use crate::policy::{Policy, parse};
use crate::remote::ServerUrl;

/// Between two looks whether a list is due.
const LOOK: Duration = Duration::from_secs(2);
/// How long an apply waits for lists that were never fetched, or are due.
const APPLY_WAIT: Duration = Duration::from_secs(60);
/// The same for an agent that starts: its service manager waits for it.
const START_WAIT: Duration = Duration::from_secs(30);
/// How long one list may take when nobody waits for it, or somebody who asked for it: it has a limit of its own, and so has the
/// fetch of the same list that it may have to wait for.
const EACH_WAIT: Duration = Duration::from_secs(2 * 3_600);
/// How often lists are compiled again that somebody else published meanwhile.
const PUBLISH_TRIES: u32 = 5;

/// Fetches what a policy needs that is about to be applied. What cannot be had is for the compiler to say.
pub fn before_apply(engine: &Mutex<Engine>, text: &str) {
    let Ok(policy) = parse(text, "") else { return };
    if urls(&policy).next().is_none() {
        return;
    }
    let (running, environment, _) = scene(engine);
    let round = Round::new(&environment, &policy, Some(Instant::now() + APPLY_WAIT));
    // What the policy that decides has is measured by what that one says, and kept up to date as it says.
    let decides = |url: &ServerUrl| urls(&running).any(|(other, _)| other == url);
    round.fetch_where(|depot, url, refresh| !depot.has(url) || (depot.is_due(url, refresh) && !decides(url)));
}

/// The same for a policy that an agent starts with, and that never decided. An older version will do: there may be no wall yet.
pub fn before_start(environment: &HostEnvironment, text: &str) {
    let Ok(policy) = parse(text, "") else { return };
    let round = Round::new(environment, &policy, Some(Instant::now() + START_WAIT));
    round.fetch_where(|depot, url, _| !depot.has(url));
}

/// Removes lists that none of these policies has.
pub fn clean(depot: &Depot, texts: &[String]) {
    let policies = texts.iter().filter_map(|text| parse(text, "").ok());
    let keys = policies.flat_map(|policy| urls(&policy).map(|(url, _)| url.key()).collect::<Vec<_>>());
    depot.keep_only(&keys.collect::<HashSet<String>>());
}

/// Goes on until the other end of `until` is dropped, and has `tell` look at the lists each time; to be run on a thread of its
/// own, which is not waited for.
pub fn run(engine: &Mutex<Engine>, until: &Receiver<()>, mut tell: impl FnMut(&Mutex<Engine>)) {
    loop {
        if due(engine) {
            let (policy, environment, lists) = scene(engine);
            let round = Round::new(&environment, &policy, None);
            let mut has_changed = false;
            for (list, url, refresh) in round.fetched() {
                if round.depot().is_some_and(|depot| depot.is_due(url, refresh)) {
                    let fetched = round.fetch(list, others(&lists, &list.name), false);
                    has_changed |= fetched.is_some_and(|fetched| fetched.outcome == Outcome::Changed);
                }
                if until.try_recv() == Err(TryRecvError::Disconnected) {
                    return;
                }
            }
            if has_changed && let Err(error) = publish(engine, Vec::new()) {
                // The ticker sees the file, and tries again.
                tracing::error!("publish a list that was fetched: {:#}", anyhow::Error::from(error));
            }
        }
        tell(engine);
        match until.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The alerts about lists, as they are now, that `teller` has not told yet.
pub fn alerts(engine: &Mutex<Engine>, teller: &mut ListTeller) -> Vec<Alert> {
    let (states, policy) = {
        let engine = lock(engine);
        let running = engine.running();
        let policy = AlertPolicy {
            name: Some(running.policy.name.clone()),
            generation: running.generation,
            digest: Some(running.origin.digest.clone()),
        };
        let depot = running.environment.library().depot.clone();
        let lists = running.policy.blocklists.iter().map(|it| &it.list);
        let accounts = &running.image.lists.accounts;
        let account = |list: &List| accounts.iter().find(|account| account.name == list.name);
        (lists.map(|list| state(list, account(list), depot.as_deref())).collect::<Vec<_>>(), policy)
    };
    teller.round(&states, &policy, &Clocks::read())
}

fn state(list: &List, account: Option<&ListAccount>, depot: Option<&Depot>) -> ListState {
    let trouble = account.and_then(|account| account.trouble.clone());
    let entries = account.map_or(0, |account| account.entries as u64);
    let fetched = list.source.url().zip(depot);
    let record = fetched.map(|((url, _), depot)| depot.record(url));
    ListState {
        name: list.name.clone(),
        source: list.source.to_string(),
        rejected: record.as_ref().and_then(|record| record.refused.clone()).or(trouble),
        fetched: record.as_ref().and_then(|record| record.fetched),
        confirmed: record.as_ref().and_then(|record| record.confirmed.or(record.fetched)),
        refresh: list.source.url().map_or(Duration::ZERO, |(_, refresh)| refresh),
        entries,
    }
}

fn due(engine: &Mutex<Engine>) -> bool {
    let engine = lock(engine);
    let Some(depot) = &engine.running().environment.library().depot else { return false };
    urls(&engine.running().policy).any(|(url, refresh)| depot.is_due(url, refresh))
}

/// Reads lists anew, or fetches them, at once.
///
/// # Errors
/// A name that no list has, or why the policy could not be compiled or published with what came.
pub fn update(engine: &Mutex<Engine>, request: &UpdateRequest) -> Result<Updated, UpdateError> {
    let UpdateRequest { lists: names, accept } = request;
    let (policy, environment, before) = scene(engine);
    let all: Vec<&List> = policy.blocklists.iter().map(|it| &it.list).collect();
    if let Some(name) = names.iter().find(|name| all.iter().all(|list| list.name != **name)) {
        let known: Vec<&str> = all.iter().map(|list| list.name.as_str()).collect();
        return Err(UpdateError::Unknown { name: name.clone(), known: known.join(", ") });
    }
    let chosen = || all.iter().copied().filter(|list| names.is_empty() || names.contains(&list.name));
    let round = Round::new(&environment, &policy, None);
    let fetched: Vec<Option<Fetched>> =
        chosen().map(|list| round.fetch(list, others(&before, &list.name), *accept)).collect();
    let has_changed = fetched.iter().flatten().any(|fetched| fetched.outcome == Outcome::Changed);
    let files = chosen().filter(|list| list.source.url().is_none()).map(|list| list.name.clone());
    let accepted: Vec<String> = files.filter(|_| *accept).collect();
    if has_changed || !accepted.is_empty() || lock(engine).running().environment.lists_differ() {
        publish(engine, accepted)?;
    }
    let after = Arc::clone(&lock(engine).running().image.lists);
    let statuses = chosen().zip(fetched).map(|(list, fetched)| told(list, fetched, &before, &after));
    let updated = Updated { lists: statuses.collect() };
    drop((before, after));
    memory::give_back();
    Ok(updated)
}

/// Why nothing was updated.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// No list is called so.
    #[error("no list is called {name:?}")]
    Unknown {
        /// The name.
        name: String,
        /// What lists are called.
        known: String,
    },
    /// The policy that decides could not be published anew.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What is said of one list after an update.
fn told(list: &List, fetched: Option<Fetched>, before: &Lists, after: &Lists) -> UpdateStatus {
    let account = |lists: &Lists| lists.accounts.iter().find(|account| account.name == list.name).cloned();
    let ListAccount { entries, trouble, .. } = account(after).unwrap_or_default();
    // What cannot be compared is said to be all new.
    let (added, removed) = difference(before, after, &list.name)
        .unwrap_or((entries, account(before).map_or(0, |before| before.entries)));
    let (outcome, why) = match (fetched.map(|fetched| fetched.outcome), trouble) {
        (Some(Outcome::Failed(why)), _) => ("failed", Some(why)),
        (Some(Outcome::Refused(why)), _) | (_, Some(why)) => ("refused", Some(why)),
        (Some(Outcome::Changed), None) => ("changed", None),
        (_, None) if added + removed > 0 => ("changed", None),
        (_, None) => ("unchanged", None),
    };
    UpdateStatus {
        name: list.name.clone(),
        source: list.source.to_string(),
        outcome: outcome.to_owned(),
        entries,
        added,
        removed,
        why,
    }
}

/// What is wrong with lists that are fetched, as far as a version of them goes on: the compiler says the rest.
pub fn warnings(policy: &Policy, environment: &HostEnvironment) -> Vec<String> {
    let Some(depot) = &environment.library().depot else { return Vec::new() };
    let fetched = policy.blocklists.iter().filter_map(|it| Some((&it.list, it.list.source.url()?.0)));
    let troubled = fetched.filter(|(_, url)| depot.has(url)).filter_map(|(list, url)| {
        let record = depot.record(url);
        let since = record.fetched.map_or("before".to_owned(), |time| format!("{time:.0}"));
        Some(format!("list {} ({url}): {}; the version of {since} goes on", list.name, record.error?))
    });
    troubled.collect()
}

/// Fetching some lists of a policy.
struct Round<'r> {
    environment: &'r HostEnvironment,
    policy: &'r Policy,
    wanted: Wanted,
    /// When all of it has to be done.
    until: Option<Instant>,
}

impl<'r> Round<'r> {
    fn new(environment: &'r HostEnvironment, policy: &'r Policy, until: Option<Instant>) -> Self {
        let wanted = wanted(policy, crate::compile::Environment::seed(environment));
        Self { environment, policy, wanted, until }
    }

    fn depot(&self) -> Option<&Depot> {
        self.environment.library().depot.as_deref()
    }

    /// The lists that are fetched, from where and how often.
    fn fetched(&self) -> impl Iterator<Item = (&'r List, &'r ServerUrl, Duration)> {
        let lists = self.policy.blocklists.iter().map(|it| &it.list);
        lists.filter_map(|list| list.source.url().map(|(url, refresh)| (list, url, refresh)))
    }

    /// Fetches those that are wanted, before they count for anything.
    fn fetch_where(&self, is_wanted: impl Fn(&Depot, &ServerUrl, Duration) -> bool) {
        for (list, url, refresh) in self.fetched() {
            if self.depot().is_some_and(|depot| is_wanted(depot, url, refresh)) {
                // How many entries all have together is for the compiler to say.
                self.fetch(list, 0, false);
            }
        }
    }

    /// Fetches one, if it is one that is fetched.
    fn fetch(&self, list: &List, others: usize, accept: bool) -> Option<Fetched> {
        let (url, refresh) = list.source.url()?;
        let survey = |path: &Path| self.environment.library().survey(&self.wanted, list, path);
        let until = self.until.unwrap_or_else(|| Instant::now() + EACH_WAIT);
        let job = Job { list, url, refresh, survey: &survey, others, accept, until };
        let fetched = self.depot()?.fetch(&job);
        memory::give_back();
        let name = &list.name;
        match &fetched.outcome {
            Outcome::Changed => {
                let entries = self.depot()?.record(url).entries;
                tracing::info!("list {name} ({url}): another version was fetched, with {entries} entries");
            }
            Outcome::Refused(why) if fetched.is_news => {
                tracing::warn!("list {name} ({url}): what was fetched does not count: {why}");
            }
            Outcome::Failed(why) if fetched.is_news => {
                tracing::warn!("list {name} ({url}): it cannot be fetched: {why}");
            }
            Outcome::Unchanged if fetched.is_news => {
                tracing::info!("list {name} ({url}): the server has it again, unchanged");
            }
            Outcome::Unchanged | Outcome::Refused(_) | Outcome::Failed(_) => {}
        }
        Some(fetched)
    }
}

/// The policy that decides, where its lists are read from, and what was made of them.
fn scene(engine: &Mutex<Engine>) -> (Policy, HostEnvironment, Arc<Lists>) {
    let engine = lock(engine);
    let running = engine.running();
    (running.policy.clone(), running.environment.again(), Arc::clone(&running.image.lists))
}

/// Compiles the policy that decides with its lists as they are now. Not with the engine's lock while they are read.
fn publish(engine: &Mutex<Engine>, accepted: Vec<String>) -> Result<(), EngineError> {
    for _ in 0..PUBLISH_TRIES {
        let outdated = lock(engine).again(accepted.clone());
        let running = outdated.compile()?;
        let warnings: Vec<String> = running.warnings.iter().map(ToString::to_string).collect();
        if let Some(generation) = lock(engine).refresh(running)? {
            tracing::info!(generation, "the policy's lists were read anew");
            warnings.iter().for_each(|warning| tracing::warn!("policy: {warning}"));
            break;
        }
    }
    memory::give_back();
    Ok(())
}

/// Where a policy's lists are fetched, and how often.
fn urls(policy: &Policy) -> impl Iterator<Item = (&ServerUrl, Duration)> {
    policy.blocklists.iter().filter_map(|it| it.list.source.url())
}

/// Entries of all lists but this one.
fn others(lists: &Lists, name: &str) -> usize {
    lists.accounts.iter().filter(|account| account.name != name).map(|account| account.entries).sum()
}

fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}
