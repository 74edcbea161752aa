//! Takes the number of a process's parent and when the process started, gives that parent and whoever is above it, as far as /proc
//! knows them or knew them a while ago.
//!
//! A number is given to another process some day. Whoever had the parent's number **at the moment the child started** is the
//! parent: who forked it, or, when that one is gone, who inherited it, and only who was an ancestor already can inherit. So a process
//! counts that started no later than the child and was seen alive no earlier than that; no other can have had its number then. Start
//! times are in clock ticks (10 ms as a rule): within one tick a number would have to come round for this to be wrong.

use std::path::PathBuf;
use std::sync::Arc;

use super::patience;
use super::proc_dir::ProcDir;
use super::process::{PROCESS_FRESH_NS, PROCESS_SHUNNED_NS};
use super::text::printable;
use crate::host::has_initial_pids;
use crate::lru::Lru;

/// Processes above the parent that are told.
pub const ANCESTORS_MAX: usize = 8;
/// Parents that are remembered.
pub const PARENTS_MAX: usize = 4_096;
/// Bytes of a parent's command line, here and below as JSON has them.
pub const COMMAND_LINE_BYTES_MAX: usize = 256;
/// Bytes of the path of its executable.
const PATH_BYTES_MAX: usize = 1_024;
/// Bytes of its name, which is of 15 characters.
const NAME_BYTES_MAX: usize = 80;

/// A process above another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Process id.
    pub pid: u32,
    /// When it started, nanoseconds since boot, to the clock tick.
    pub start_ns: Option<u64>,
    /// Its name.
    pub comm: Option<String>,
    /// Path of its executable.
    pub exe: Option<String>,
    /// Its arguments, the first bytes of them.
    pub command_line: Option<String>,
}

impl Parent {
    /// One of which only the number is known.
    pub const fn nameless(pid: u32) -> Self {
        Self { pid, start_ns: None, comm: None, exe: None, command_line: None }
    }
}

/// Looks parents up and remembers them.
#[derive(Debug)]
pub struct Ancestors {
    proc: PathBuf,
    tick_ns: u64,
    /// Whether /proc counts processes as the kernel's events do.
    has_initial_pids: bool,
    known: Lru<u32, Known>,
}

#[derive(Debug)]
struct Known {
    parent: Arc<Parent>,
    start_ticks: u64,
    /// Its own parent.
    parent_pid: u32,
    /// When it was last seen alive.
    alive_ticks: u64,
    /// When it was last read in full.
    looked_ns: u64,
}

impl Known {
    fn was_there(&self, ticks: u64) -> bool {
        (self.start_ticks..=self.alive_ticks).contains(&ticks)
    }
}

impl Ancestors {
    /// With `proc` as the mount of /proc, and the length of its clock tick.
    pub fn new(proc: PathBuf, tick_ns: u64) -> Self {
        let has_initial_pids = has_initial_pids(&proc);
        Self { proc, tick_ns, has_initial_pids, known: Lru::new(PARENTS_MAX) }
    }

    /// The parent of a process that started at that tick, and those above, nearest first; nobody when it is not known. `boot_ns` is
    /// the boot clock.
    pub fn above(&mut self, parent_pid: u32, child_ticks: u64, boot_ns: u64) -> Vec<Arc<Parent>> {
        let mut line = Vec::new();
        let (mut pid, mut child_ticks) = (parent_pid, child_ticks);
        let given_up = patience::given_up();
        // Once one of them keeps the reader waiting, the others have to wait for the next time.
        while pid != 0 && line.len() <= ANCESTORS_MAX && patience::given_up() <= given_up {
            let Some(known) = self.find(pid, child_ticks, boot_ns) else { break };
            line.push(Arc::clone(&known.parent));
            (pid, child_ticks) = (known.parent_pid, known.start_ticks);
        }
        line
    }

    fn find(&mut self, pid: u32, child_ticks: u64, boot_ns: u64) -> Option<&Known> {
        if !self.has_initial_pids {
            return None;
        }
        let is_fresh = self.known.get(&pid).is_some_and(|known| {
            known.was_there(child_ticks) && boot_ns.saturating_sub(known.looked_ns) < PROCESS_FRESH_NS
        });
        if !is_fresh {
            self.look(pid, boot_ns);
        }
        self.known.get(&pid).map(|known| &*known).filter(|known| known.was_there(child_ticks))
    }

    /// Reads it, if it is there; what is known of one that is gone stays.
    fn look(&mut self, pid: u32, boot_ns: u64) -> Option<()> {
        let dir = ProcDir::open(&self.proc, pid)?;
        let stat = dir.stat()?;
        let alive_ticks = boot_ns / self.tick_ns;
        let known = self.known.get(&pid).filter(|known| known.start_ticks == stat.start_ticks);
        if let Some(known) = known {
            (known.alive_ticks, known.parent_pid) = (alive_ticks, stat.parent_pid);
            if boot_ns.saturating_sub(known.looked_ns) < PROCESS_FRESH_NS {
                return Some(());
            }
        }
        let given_up = patience::given_up();
        let parent = Arc::new(Parent {
            pid,
            start_ns: Some(stat.start_ticks.saturating_mul(self.tick_ns)),
            comm: dir.name(NAME_BYTES_MAX),
            exe: dir.exe_path().map(|path| printable(&path, PATH_BYTES_MAX)),
            command_line: dir.command_line(COMMAND_LINE_BYTES_MAX),
        });
        // What is as it was is kept once, however many children point to it.
        let before =
            self.known.get(&pid).map(|known| Arc::clone(&known.parent)).filter(|before| *before == parent);
        let parent = before.unwrap_or(parent);
        let looked_ns = if patience::given_up() > given_up { boot_ns + PROCESS_SHUNNED_NS } else { boot_ns };
        let known = Known {
            parent,
            start_ticks: stat.start_ticks,
            parent_pid: stat.parent_pid,
            alive_ticks,
            looked_ns,
        };
        self.known.insert(pid, known);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Alert, sample};
    use crate::event::exe::PATH_BYTES_MAX as PROGRAM_BYTES_MAX;
    use crate::event::proc_dir::COMMAND_LINE_BYTES_MAX as ARGUMENTS_BYTES_MAX;
    use crate::format::Format;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    const TICK_NS: u64 = 10_000_000;
    /// The boot clock at a tick.
    fn at(ticks: u64) -> u64 {
        ticks * TICK_NS
    }

    fn put(proc: &Path, pid: u32, parent: u32, start_ticks: u64, line: &str) {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let stat = format!("{pid} (x) S {parent} 5 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start_ticks} 0");
        fs::write(dir.join("stat"), stat).unwrap();
        fs::write(dir.join("comm"), format!("n{pid}\n")).unwrap();
        fs::write(dir.join("cmdline"), line).unwrap();
        let _ = fs::remove_file(dir.join("exe"));
        std::os::unix::fs::symlink(format!("/bin/p{pid}"), dir.join("exe")).unwrap();
    }

    /// 1 ← 10 ← 20 ← 30
    fn family() -> (tempfile::TempDir, Ancestors) {
        let root = tempfile::tempdir().unwrap();
        for (pid, parent, start) in [(1, 0, 0), (10, 1, 100), (20, 10, 200), (30, 20, 300)] {
            put(root.path(), pid, parent, start, &format!("p{pid}\0-x"));
        }
        let mut ancestors = Ancestors::new(root.path().to_owned(), TICK_NS);
        assert!(!ancestors.has_initial_pids);
        ancestors.has_initial_pids = true;
        (root, ancestors)
    }

    fn pids(line: &[Arc<Parent>]) -> Vec<u32> {
        line.iter().map(|parent| parent.pid).collect()
    }

    #[test]
    fn everybody_above_is_named_up_to_the_first() {
        let (_root, mut ancestors) = family();
        let line = ancestors.above(30, 400, at(500));
        assert_eq!(pids(&line), [30, 20, 10, 1]);
        let expected = Parent {
            pid: 30,
            start_ns: Some(at(300)),
            comm: Some("n30".to_owned()),
            exe: Some("/bin/p30".to_owned()),
            command_line: Some("p30 -x".to_owned()),
        };
        assert_eq!(*line[0], expected);
        assert_eq!(ancestors.above(0, 400, at(500)), []);
    }

    #[test]
    fn a_long_line_ends() {
        let (root, mut ancestors) = family();
        for pid in 100..150 {
            put(root.path(), pid, pid - 1, u64::from(pid), "x");
        }
        let line = ancestors.above(149, 400, at(500));
        assert_eq!(pids(&line), (0..=ANCESTORS_MAX as u32).map(|up| 149 - up).collect::<Vec<_>>());
        // Nor does a circle, which no kernel has, go on for ever.
        put(root.path(), 20, 30, 200, "x");
        put(root.path(), 30, 20, 200, "x");
        assert_eq!(ancestors.above(30, 400, at(500)).len(), ANCESTORS_MAX + 1);
    }

    #[test]
    fn a_number_that_another_one_has_now_is_not_the_parents() {
        let (root, mut ancestors) = family();
        put(root.path(), 30, 1, 401, "thief");
        assert_eq!(ancestors.above(30, 400, at(500)), [], "it started after the child");
        assert_eq!(pids(&ancestors.above(30, 401, at(500))), [30, 1], "in the same tick, so it may be");
        assert_eq!(pids(&ancestors.above(30, 450, at(500))), [30, 1], "of a younger child it is");
    }

    #[test]
    fn one_that_is_gone_is_remembered_for_those_it_can_have_started() {
        let (root, mut ancestors) = family();
        ancestors.above(30, 400, at(500));
        fs::remove_dir_all(root.path().join("30")).unwrap();
        let later = at(100_000);
        assert_eq!(pids(&ancestors.above(30, 500, later)), [30, 20, 10, 1]);
        assert_eq!(ancestors.above(30, 501, later), [], "when that one started, it may have been gone");
        // Somebody else's number by now.
        put(root.path(), 30, 1, 600, "thief");
        assert_eq!(pids(&ancestors.above(30, 700, later)), [30, 1]);
    }

    #[test]
    fn who_was_just_read_is_not_read_again_but_seen_alive() {
        let (root, mut ancestors) = family();
        let line = |ancestors: &mut Ancestors, child, now| {
            ancestors.above(30, child, now).first().and_then(|parent| parent.command_line.clone())
        };
        assert_eq!(line(&mut ancestors, 400, at(500)).as_deref(), Some("p30 -x"));
        put(root.path(), 30, 20, 300, "exec");
        let soon = at(500) + PROCESS_FRESH_NS / 2;
        // A younger child: its parent has to be seen alive again.
        assert_eq!(line(&mut ancestors, 520, soon).as_deref(), Some("p30 -x"));
        assert_eq!(line(&mut ancestors, 520, at(500) + PROCESS_FRESH_NS).as_deref(), Some("exec"));
    }

    #[test]
    fn numbers_of_another_namespace_name_nobody() {
        let (_root, mut ancestors) = family();
        ancestors.has_initial_pids = false;
        assert_eq!(ancestors.above(30, 400, at(500)), []);
    }

    /// A child of nine, all of whose texts are of this byte, as long as a kernel lets them be.
    fn child_of_strangers(byte: u8) -> Alert {
        let (root, mut ancestors) = family();
        let text = |bytes| vec![byte; bytes];
        for pid in 100..=110 {
            put(root.path(), pid, pid - 1, u64::from(pid), "");
            let dir = root.path().join(pid.to_string());
            fs::write(dir.join("comm"), text(15)).unwrap();
            fs::write(dir.join("cmdline"), text(1 << 16)).unwrap();
            fs::remove_file(dir.join("exe")).unwrap();
            std::os::unix::fs::symlink(OsStr::from_bytes(&text(4_095)), dir.join("exe")).unwrap();
        }
        let mut event = sample::enriched();
        let process = Arc::make_mut(&mut event.process);
        let dir = ProcDir::open(root.path(), 110).unwrap();
        process.exe = Some(printable(&dir.exe_path().unwrap(), PROGRAM_BYTES_MAX));
        process.command_line = dir.command_line(ARGUMENTS_BYTES_MAX);
        let mut line = ancestors.above(109, 110, at(500)).into_iter();
        (process.parent, process.parents) = (line.next(), line.collect());
        let workload = Arc::make_mut(&mut event.workload);
        workload.cgroup = Some(printable(&text(4_095), PROGRAM_BYTES_MAX));
        Alert::new(&event, None, "web-1", sample::tally())
    }

    #[test]
    fn whatever_strangers_above_are_called_a_line_about_it_has_a_bound() {
        for byte in [b'a', b'"', b'\\', b'\n', 0x1b, 0x80, 0xff] {
            let alert = child_of_strangers(byte);
            assert_eq!(alert.process.parents.len(), ANCESTORS_MAX);
            for format in Format::ALL {
                let bytes = format.encode(&alert).len();
                assert!(bytes < 64 * 1_024, "{byte:#x}, {format:?}: {bytes} bytes");
            }
            for parent in alert.process.parent.iter().chain(&alert.process.parents) {
                let bytes = serde_json::to_string(parent).unwrap().len();
                let texts = PATH_BYTES_MAX + COMMAND_LINE_BYTES_MAX + NAME_BYTES_MAX;
                assert!(bytes <= texts + 256, "{byte:#x}: {bytes} bytes of a parent");
                assert!(parent.comm.as_ref().is_some_and(|name| !name.ends_with('…')), "its name is whole");
            }
        }
    }
}
