//! Hashes of programs on overlays: of one that is the host's own, and of one that somebody has mounted for himself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::UnshareFlags;
use sha2::{Digest as _, Sha256};

use super::hasher::Hasher;
use crate::digest::hexadecimal;
use crate::event::hash::{Fingerprint, Program};
use crate::event::{HashCell, Hashes};

const BYTES: &[u8] = b"a program";

/// An overlay in the mount namespace of whoever makes it, above a file system in memory.
struct Overlay {
    directory: tempfile::TempDir,
}

impl Overlay {
    /// Mounting needs root, as most tests do.
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), Some(c"size=1m"))
            .expect("mount a tmpfs");
        let overlay = Self { directory };
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(overlay.at(name)).unwrap();
        }
        fs::write(overlay.at("lower/program"), BYTES).unwrap();
        let at = |name: &str| overlay.at(name).display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}\0", at("lower"), at("upper"), at("work"));
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap();
        mount("overlay", overlay.at("merged"), "overlay", MountFlags::empty(), Some(options))
            .expect("mount an overlay");
        overlay
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = unmount(self.at("merged"), UnmountFlags::DETACH);
        let _ = unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}

/// What `work` gives in a mount namespace of its own, which is gone then but for what it has opened.
fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            #[expect(
                deprecated,
                reason = "its unsafe successor guards against CLONE_FILES, which is not used"
            )]
            rustix::thread::unshare(UnshareFlags::NEWNS).expect("unshare the mount namespace");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn program(path: &Path) -> Program {
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    Program { fingerprint: Fingerprint::of(&file).unwrap(), file }
}

#[test]
fn on_an_overlay_only_the_hosts_own_programs_have_a_hash() {
    let (hashes, programs) = Hashes::new().unwrap();
    let hashes = Arc::new(hashes);
    let hasher = Hasher::start(Arc::clone(&hashes), programs).unwrap();
    let hash = |program: Program| {
        let cell = HashCell::default();
        assert!(cell.ask());
        hashes.ask(program, &cell, None);
        let until = Instant::now() + Duration::from_secs(10);
        while cell.is_pending() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(!cell.is_pending(), "there is no answer");
        cell.get().cloned()
    };
    let expected = hexadecimal(&Sha256::digest(BYTES));
    let of_host = Overlay::mount();
    assert_eq!(hash(program(&of_host.at("merged/program"))).as_deref(), Some(&*expected));
    let [below, merged] = elsewhere(|| {
        let overlay = Overlay::mount();
        let paths = ["lower/program", "merged/program"].map(|name| overlay.at(name));
        // Whoever is let in reads it like any other.
        assert_eq!(fs::read(&paths[1]).unwrap(), BYTES);
        paths.map(|path| program(&path))
    });
    assert!(File::open(of_host.at("merged/program")).is_ok());
    // Not because it is elsewhere, nor because nobody can read it.
    assert_eq!(hash(below).as_deref(), Some(&*expected));
    assert_eq!(hash(merged), None);
    assert_eq!((hashes.counters().read, hashes.counters().failed, hasher.stuck()), (2, 1, 0));
}
