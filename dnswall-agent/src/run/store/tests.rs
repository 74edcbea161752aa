//! What a crash, a full disk and ten rollbacks leave in the directory.

use super::*;

fn policy(text: &str) -> Stored {
    Stored::new(text.to_owned(), &format!("/etc/{text}.toml"), format!("2026-01-01T00:00:0{text}Z"))
}

fn apply(store: &Store, text: &str) {
    store.stage(policy(text)).unwrap().commit().unwrap();
}

fn current(store: &Store) -> String {
    store.current().unwrap().unwrap().text
}

#[test]
fn what_was_applied_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let store = Store::open(&path).unwrap();
    assert_eq!(store.current().unwrap(), None);
    apply(&store, "1");
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.current().unwrap(), Some(policy("1")));
    for name in ["", CURRENT, HISTORY] {
        let mode = fs::metadata(path.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} is nobody else's business: {mode:o}");
    }
}

#[test]
fn a_second_agent_does_not_get_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _store = Store::open(directory.path()).unwrap();
    assert!(matches!(Store::open(directory.path()), Err(StoreError::Lock(LockError::Held { .. }))));
}

#[test]
fn rollbacks_go_back_one_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for text in ["1", "2", "3"] {
        apply(&store, text);
    }
    for expected in ["2", "1"] {
        let previous = store.previous().unwrap().unwrap();
        assert_eq!(previous.text, expected);
        store.stage(previous).unwrap().stepping_back().commit().unwrap();
        assert_eq!(current(&store), expected);
    }
    assert_eq!(store.previous().unwrap(), None);
    apply(&store, "4");
    assert_eq!(store.previous().unwrap().unwrap().text, "1");
}

#[test]
fn the_same_text_again_is_no_history() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    apply(&store, "1");
    apply(&store, "1");
    assert_eq!(store.previous().unwrap(), None);
    assert!(store.history().is_empty());
}

#[test]
fn the_history_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for number in 0..25 {
        apply(&store, &number.to_string());
    }
    let texts: Vec<String> = store.history().into_iter().map(|stored| stored.text).collect();
    let expected: Vec<String> = (14..24).rev().map(|number: u32| number.to_string()).collect();
    assert_eq!(texts, expected);
    assert_eq!(fs::read_dir(directory.path().join(HISTORY)).unwrap().count(), 2 * HISTORY_MAX);
}

#[test]
fn a_staged_policy_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    apply(&store, "1");
    let _ = store.stage(policy("2")).unwrap();
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(current(&store), "1");
    assert!(store.history().is_empty());
}

#[test]
fn a_policy_on_trial_is_remembered_beside_the_last_good_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.trial(), None);
    store.end_trial().unwrap();
    apply(&store, "1");
    store.begin_trial(&policy("2")).unwrap();
    store.begin_trial(&policy("3")).unwrap();
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.trial(), Some(policy("3")));
    assert_eq!(current(&store), "1");
    assert!(store.history().is_empty());
    store.end_trial().unwrap();
    assert_eq!(store.trial(), None);
    assert_eq!(current(&store), "1");
}

#[test]
fn what_was_told_is_taken_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.take_told(), None);
    store.leave_told(b"[]").unwrap();
    assert_eq!(store.take_told().as_deref(), Some(&b"[]"[..]));
    assert_eq!(store.take_told(), None);
}

// Whatever a crash leaves between two steps is one policy or the other, with an origin that is its own.
#[test]
fn an_origin_of_another_text_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    apply(&store, "1");
    write_origin(&directory.path().join(CURRENT), &policy("2").origin).unwrap();
    let found = store.current().unwrap().unwrap();
    assert_eq!(found.text, "1");
    assert_eq!(found.origin.digest, sha256("1"));
    assert!(found.origin.origin.ends_with(CURRENT));
    store.remember(&policy("1")).unwrap();
    assert_eq!(store.previous().unwrap(), None, "the history may hold the current one after a crash");
}

#[test]
fn a_disk_that_refuses_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    apply(&store, "1");
    // A directory in the way stands for every reason why a file cannot be written.
    fs::create_dir(directory.path().join(STAGED)).unwrap();
    assert!(store.stage(policy("2")).is_err());
    assert_eq!(current(&store), "1");
}
