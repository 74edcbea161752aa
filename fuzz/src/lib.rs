//! What strangers may send, and what must hold of it: each check takes bytes and panics when something does not.
//!
//! `fuzz_targets` hand the checks to libFuzzer (`cargo xtask fuzz`); `tests/corpus.rs` replays `corpus/NAME`, seeds and
//! whatever once broke a check, with every test run. Packets through the kernel's programs are compared with
//! [`packet::read`] in the tests package.

pub mod config;
pub mod control;
pub mod event;
pub mod list;
pub mod packet;
pub mod policy;
pub mod question;

/// A check, by the name of its target and its corpus.
pub type Check = (&'static str, fn(&[u8]));

/// All of them.
pub const CHECKS: [Check; 7] = [
    ("config", config::check),
    ("control", control::check),
    ("event", event::check),
    ("list", list::check),
    ("packet", packet::check),
    ("policy", policy::check),
    ("question", question::check),
];

/// Random numbers that follow from the input alone, so that what broke a check breaks it again.
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From these bytes (FNV-1a).
    pub fn of(bytes: &[u8]) -> Self {
        let start = 0xcbf2_9ce4_8422_2325;
        Self(bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)))
    }

    /// The next number (SplitMix64).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// One below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.draw() % limit as u64) as usize
    }
}
