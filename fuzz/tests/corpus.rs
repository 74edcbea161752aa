//! Every file of the corpora through its check: what was once found stays found, and nobody needs libFuzzer for it.

use std::fs;
use std::path::{Path, PathBuf};

use dnswall_fuzz::{CHECKS, Check, Dice};

/// Bytes of one file of a corpus: what is larger is made smaller before it is kept.
const FILE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of all corpora together.
const CORPORA_BYTES_MAX: usize = 200 * 1024;
/// Small changes that are tried of each file.
const CHANGES: usize = 8;

fn files(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = entries.map(|entry| entry.expect("a directory's entry").path());
    paths.map(|path| (path.clone(), fs::read(path).expect("a file of the corpus"))).collect()
}

fn replay((name, check): Check) {
    let files = files(name);
    assert!(files.len() >= 4, "{name} has {} files", files.len());
    for (path, bytes) in files {
        assert!(bytes.len() <= FILE_BYTES_MAX, "{} has {} bytes", path.display(), bytes.len());
        // Seen by the test runner when the check panics.
        eprintln!("{}", path.display());
        check(&bytes);
        let mut dice = Dice::of(&bytes);
        for _ in 0..CHANGES {
            let mut changed = bytes.clone();
            let at = dice.below(changed.len() + 1);
            match dice.below(3) {
                0 => changed.truncate(at),
                1 => changed.insert(at, dice.draw() as u8),
                _ if at < changed.len() => changed[at] ^= 1 << dice.below(8),
                _ => {}
            }
            eprintln!("  changed: {changed:?}");
            check(&changed);
        }
    }
}

#[test]
fn configurations() {
    replay(CHECKS[0]);
}

#[test]
fn requests() {
    replay(CHECKS[1]);
}

#[test]
fn ring_records() {
    replay(CHECKS[2]);
}

#[test]
fn lists() {
    replay(CHECKS[3]);
}

#[test]
fn packets() {
    replay(CHECKS[4]);
}

#[test]
fn policies() {
    replay(CHECKS[5]);
}

#[test]
fn questions() {
    replay(CHECKS[6]);
}

#[test]
fn the_corpora_are_small_and_each_has_its_check() {
    let corpora = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).expect("the corpora");
    for corpus in corpora {
        let name = corpus.expect("a directory's entry").file_name();
        assert!(CHECKS.iter().any(|(known, _)| name == *known), "nothing checks {}", name.display());
    }
    let bytes: usize = CHECKS.iter().flat_map(|(name, _)| files(name)).map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes <= CORPORA_BYTES_MAX, "{bytes} bytes of corpora");
}
