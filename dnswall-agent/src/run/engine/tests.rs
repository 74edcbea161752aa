//! Policies that take each other's place, with a wall that only counts, and may refuse.

use std::time::{Duration, Instant};

use super::*;
use tempfile::TempDir;

const ONE: &str = "version = 1\nmode = \"audit\"\n[dns]\nresolvers = [\"10.0.0.1\"]\n";
const TWO: &str = "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"10.0.0.2\"]\n";

/// Counts publications, and refuses when it is told to.
#[derive(Default)]
struct Paper {
    generation: u32,
    digest: [u8; 32],
    refuses: bool,
}

impl Publish for Paper {
    fn next_generation(&self) -> u32 {
        self.generation + 1
    }

    fn publish(&mut self, image: &mut MapImage) -> Result<u32, PublishError> {
        if self.refuses {
            return Err(PublishError::TooLarge(Vec::new()));
        }
        self.generation += 1;
        image.header.generation = self.generation;
        self.digest = image.digest;
        Ok(self.generation)
    }
}

fn environment() -> HostEnvironment {
    HostEnvironment::new(HostRoot::default(), RootCgroup::default(), 1)
}

fn engine(text: &str) -> (TempDir, Engine<Paper>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let stored = Stored::new(text.to_owned(), "/etc/dnswall/policy.toml", now());
    let mut running = prepare(stored, environment()).unwrap();
    store.stage(running.stored()).unwrap().commit().unwrap();
    let (mut wall, book) = (Paper::default(), Arc::default());
    publish(&mut wall, &book, &mut running).unwrap();
    (
        directory,
        Engine { wall, store, running, pending: None, book, trouble: None, lapsed: None, changed: None },
    )
}

// The three places that say which policy decides: the engine, the wall, the disk.
fn everywhere(engine: &Engine<Paper>) -> String {
    let stored = engine.store.current().unwrap().unwrap();
    assert_eq!(stored.origin.digest, engine.running.origin.digest);
    assert_eq!(engine.wall.digest, engine.running.policy.digest);
    assert_eq!(engine.wall.generation, engine.running.generation);
    stored.text
}

/// As the ticker does it.
fn refresh<W: Publish>(engine: &mut Engine<W>) -> Option<u32> {
    let running = engine.outdated()?.compile().unwrap();
    engine.refresh(running).unwrap()
}

#[test]
fn a_policy_takes_the_place_of_another_everywhere() {
    let (_directory, mut engine) = engine(ONE);
    let change = engine.apply(TWO.to_owned(), "/tmp/two.toml").unwrap();
    let changed: Vec<&str> = change.diff.changes.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(changed, ["mode", "dns.resolvers"]);
    assert_eq!(everywhere(&engine), TWO);
    assert_eq!(engine.running().generation, 2);
    let book = engine.book.read().unwrap();
    assert_eq!(book.policy(2).unwrap().name(), "two");
    assert_eq!(book.policy(1).unwrap().name(), "policy");
}

#[test]
fn what_has_mistakes_or_does_not_fit_changes_nothing() {
    let (_directory, mut engine) = engine(ONE);
    let error = engine.apply("version = 1\nmode = \"off\"\n".to_owned(), "x").unwrap_err();
    assert!(matches!(error, EngineError::Invalid(problems) if problems.len() == 1));
    let unknown = format!("{TWO}[[deny]]\nto = [\"any\"]\nfrom = [{{ user = \"no-such-user\" }}]\n");
    assert!(matches!(engine.apply(unknown, "x").unwrap_err(), EngineError::Invalid(_)));
    assert_eq!(everywhere(&engine), ONE);

    engine.wall.refuses = true;
    assert!(matches!(engine.apply(TWO.to_owned(), "x").unwrap_err(), EngineError::Publish(_)));
    assert_eq!(everywhere(&engine), ONE);
    assert!(engine.history().is_empty());
    engine.wall.refuses = false;
    engine.apply(TWO.to_owned(), "x").unwrap();
    assert_eq!(everywhere(&engine), TWO);
}

#[test]
fn a_disk_that_refuses_keeps_the_old_policy_deciding() {
    let (directory, mut engine) = engine(ONE);
    std::fs::create_dir(directory.path().join("policy.toml.staged")).unwrap();
    assert!(matches!(engine.apply(TWO.to_owned(), "x").unwrap_err(), EngineError::Store(_)));
    assert_eq!(everywhere(&engine), ONE);
    assert_eq!(engine.running().generation, 1);
}

#[test]
fn rollbacks_bring_back_what_decided_before() {
    let (_directory, mut engine) = engine(ONE);
    assert!(matches!(engine.rollback().unwrap_err(), EngineError::NoPrevious));
    engine.apply(TWO.to_owned(), "/tmp/two.toml").unwrap();
    let change = engine.rollback().unwrap();
    assert_eq!(change.previous, crate::digest::sha256(TWO));
    assert_eq!(everywhere(&engine), ONE);
    assert_eq!(engine.running().origin.origin, "/etc/dnswall/policy.toml");
    assert_eq!(engine.running().generation, 3, "going back is a publication, too");
    assert!(matches!(engine.rollback().unwrap_err(), EngineError::NoPrevious));
}

const THREE: &str = "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"10.0.0.3\"]\n";

/// What decides, and what the next start would restore: its text, and which trial it would report.
fn split(engine: &Engine<Paper>) -> (String, String, Option<String>) {
    assert_eq!(engine.wall.digest, engine.running.policy.digest);
    assert_eq!(engine.wall.generation, engine.running.generation);
    let text = |stored: Option<Stored>| stored.map(|stored| stored.text);
    let restored = text(engine.store.current().unwrap()).unwrap();
    (engine.running.policy.text.clone(), restored, text(engine.store.trial()))
}

fn on_trial(engine: &Engine<Paper>, deciding: &str, restored: &str) {
    assert_eq!(split(engine), (deciding.to_owned(), restored.to_owned(), Some(deciding.to_owned())));
    assert_eq!(engine.pending().unwrap().before().policy.text, restored);
}

fn at_rest(engine: &Engine<Paper>, deciding: &str) {
    assert_eq!(split(engine), (deciding.to_owned(), deciding.to_owned(), None));
    assert!(engine.pending().is_none());
}

/// A moment, and those so many seconds after it: nothing here waits.
fn moments<const N: usize>(seconds: [u64; N]) -> [Instant; N] {
    let start = Instant::now();
    seconds.map(|seconds| start + Duration::from_secs(seconds))
}

#[test]
fn a_policy_on_trial_is_kept_when_it_is_confirmed() {
    let (_directory, mut engine) = engine(ONE);
    let [now, soon, deadline] = moments([0, 59, 60]);
    assert!(matches!(engine.confirm(now).unwrap_err(), EngineError::NothingToConfirm));
    let change = engine.try_out(TWO.to_owned(), "/tmp/two.toml", deadline).unwrap();
    assert_eq!(change.diff.changes.len(), 2);
    on_trial(&engine, TWO, ONE);
    assert_eq!(engine.pending().unwrap().seconds_left(soon), 1);
    assert!(!engine.lapse(soon).unwrap());
    on_trial(&engine, TWO, ONE);
    let change = engine.confirm(soon).unwrap();
    assert_eq!((change.previous, change.diff.changes.len()), (crate::digest::sha256(ONE), 2));
    at_rest(&engine, TWO);
    assert_eq!(engine.running().generation, 2, "a confirmation publishes nothing");
    assert!(!engine.lapse(deadline).unwrap());
    engine.rollback().unwrap();
    at_rest(&engine, ONE);
}

#[test]
fn a_policy_that_nobody_confirms_is_taken_back() {
    let (_directory, mut engine) = engine(ONE);
    let [deadline] = moments([60]);
    engine.try_out(TWO.to_owned(), "/tmp/two.toml", deadline).unwrap();
    assert!(engine.lapse(deadline).unwrap());
    at_rest(&engine, ONE);
    assert_eq!(engine.running().generation, 3, "going back is a publication, too");
    assert_eq!(
        engine.lapsed(),
        Some(
            "policy two (/tmp/two.toml) was not confirmed in time: policy (/etc/dnswall/policy.toml) decides again"
        )
    );
    assert!(engine.history().is_empty(), "it never was a last good one");
    assert!(matches!(engine.confirm(deadline).unwrap_err(), EngineError::NothingToConfirm));
    engine.apply(TWO.to_owned(), "x").unwrap();
    assert_eq!(engine.lapsed(), None);
}

#[test]
fn a_confirmation_that_comes_too_late_takes_it_back() {
    let (_directory, mut engine) = engine(ONE);
    let [deadline] = moments([60]);
    engine.try_out(TWO.to_owned(), "x", deadline).unwrap();
    assert!(matches!(engine.confirm(deadline).unwrap_err(), EngineError::TooLate));
    at_rest(&engine, ONE);
}

#[test]
fn another_trial_takes_its_place_and_goes_back_to_the_same() {
    let (_directory, mut engine) = engine(ONE);
    let [now, first, second] = moments([0, 60, 90]);
    engine.try_out(TWO.to_owned(), "x", first).unwrap();
    assert!(engine.try_out("version = 2\n".to_owned(), "x", second).is_err());
    on_trial(&engine, TWO, ONE);
    engine.try_out(THREE.to_owned(), "x", second).unwrap();
    on_trial(&engine, THREE, ONE);
    assert!(!engine.lapse(first).unwrap(), "the second one has a time of its own");
    // Whether it stays has to be said first.
    let error = engine.apply(TWO.to_owned(), "x").unwrap_err();
    assert!(matches!(error, EngineError::OnTrial { .. }), "{error}");
    on_trial(&engine, THREE, ONE);
    let change = engine.rollback().unwrap();
    assert_eq!(change.previous, crate::digest::sha256(THREE));
    at_rest(&engine, ONE);
    assert_eq!(engine.lapsed(), None, "somebody asked for it");
    assert!(matches!(engine.confirm(now).unwrap_err(), EngineError::NothingToConfirm));
}

#[test]
fn what_cannot_be_tried_out_changes_nothing() {
    let (directory, mut engine) = engine(ONE);
    let [deadline] = moments([60]);
    engine.wall.refuses = true;
    assert!(matches!(engine.try_out(TWO.to_owned(), "x", deadline).unwrap_err(), EngineError::Publish(_)));
    at_rest(&engine, ONE);
    engine.wall.refuses = false;
    engine.try_out(TWO.to_owned(), "x", deadline).unwrap();
    engine.wall.refuses = true;
    assert!(engine.try_out(THREE.to_owned(), "x", deadline).is_err());
    on_trial(&engine, TWO, ONE);
    engine.rollback().unwrap_err();
    engine.lapse(deadline).unwrap_err();
    on_trial(&engine, TWO, ONE);
    engine.wall.refuses = false;
    assert!(engine.lapse(deadline).unwrap(), "it is tried again");
    at_rest(&engine, ONE);

    std::fs::create_dir(directory.path().join("trial.toml")).unwrap();
    assert!(matches!(engine.try_out(TWO.to_owned(), "x", deadline).unwrap_err(), EngineError::Store(_)));
    assert_eq!(engine.running().policy.text, ONE);
    assert!(engine.pending().is_none());
}

#[test]
fn a_confirmation_that_cannot_be_kept_leaves_it_on_trial() {
    let (directory, mut engine) = engine(ONE);
    let [now, deadline] = moments([0, 60]);
    engine.try_out(TWO.to_owned(), "x", deadline).unwrap();
    std::fs::create_dir(directory.path().join("policy.toml.staged")).unwrap();
    assert!(matches!(engine.confirm(now).unwrap_err(), EngineError::Store(_)));
    on_trial(&engine, TWO, ONE);
    std::fs::remove_dir(directory.path().join("policy.toml.staged")).unwrap();
    engine.confirm(now).unwrap();
    at_rest(&engine, TWO);
}

// The policy from before is kept compiled: the host may have lost the user that it names.
#[test]
fn going_back_does_not_ask_the_host_again() {
    let directory = tempfile::tempdir().unwrap();
    let tool = directory.path().join("tool");
    std::fs::write(&tool, "#!").unwrap();
    let rule = format!("[[allow]]\nto = [\"10.0.0.0/8\"]\nfrom = [{{ exe = \"{}\" }}]\n", tool.display());
    let (_state, mut engine) = engine(&format!("{ONE}{rule}"));
    let [deadline] = moments([60]);
    engine.try_out(TWO.to_owned(), "x", deadline).unwrap();
    std::fs::remove_file(&tool).unwrap();
    assert!(engine.lapse(deadline).unwrap());
    assert_eq!(engine.running().image.exes.len(), 1);
    // Then it notices.
    assert_eq!(refresh(&mut engine), Some(4));
    assert_eq!(engine.running().image.exes.len(), 0);
}

#[test]
fn an_executable_that_is_replaced_is_published_again() {
    let directory = tempfile::tempdir().unwrap();
    let tool = directory.path().join("tool");
    let rule = format!("[[allow]]\nto = [\"10.0.0.0/8\"]\nfrom = [{{ exe = \"{}\" }}]\n", tool.display());
    let (_state, mut engine) = engine(&format!("{ONE}{rule}"));
    assert_eq!(engine.running().warnings.len(), 1, "it is not there yet");
    assert_eq!(refresh(&mut engine), None);
    std::fs::write(&tool, "#!").unwrap();
    assert_eq!(refresh(&mut engine), Some(2));
    assert_eq!(refresh(&mut engine), None);
    assert_eq!((engine.running().image.exes.len(), engine.running().warnings.len()), (1, 0));
    everywhere(&engine);
    assert!(engine.history().is_empty(), "it is still the same policy");
}

#[test]
fn the_built_in_policy_holds_on_this_host() {
    let policy = parse(&built_in(&HostRoot::default()), BUILTIN_ORIGIN).unwrap();
    assert_eq!(policy.mode.name(), "audit");
    compile(&policy, &environment()).unwrap();
}

#[test]
fn the_built_in_policy_knows_another_roots_resolvers() {
    let root = tempfile::tempdir().unwrap();
    let resolved = root.path().join("run/systemd/resolve");
    std::fs::create_dir_all(&resolved).unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(resolved.join("stub.conf"), "nameserver 127.0.0.53\n").unwrap();
    std::fs::write(resolved.join("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
    // As systemd-resolved makes it.
    std::os::unix::fs::symlink("/run/systemd/resolve/stub.conf", root.path().join("etc/resolv.conf"))
        .unwrap();
    let text = built_in(&HostRoot::find(Some(root.path())).unwrap());
    assert!(text.contains(r#"resolvers = ["127.0.0.53", "192.0.2.53"]"#), "{text}");
}

/// What was compiled from a reading that somebody else replaced meanwhile would take that one's back.
#[test]
fn what_was_compiled_too_early_is_not_published() {
    let (_directory, mut engine) = engine(ONE);
    let (early, later) = (engine.again(Vec::new()), engine.again(Vec::new()));
    assert!(engine.refresh(later.compile().unwrap()).unwrap().is_some());
    assert_eq!(engine.refresh(early.compile().unwrap()).unwrap(), None);
    assert_eq!(everywhere(&engine), ONE);
    assert_eq!(engine.running().generation, 2);
}
