//! Takes what the kernel recorded of a process, gives what /proc adds to it, or nothing more when that process is gone
//! or runs another program by now.

use std::path::PathBuf;
use std::sync::Arc;

use super::exe::{ExeId, ExePaths, PATH_BYTES_MAX};
use super::lru::Lru;
use super::patience;
use super::proc_dir::ProcDir;
use super::text::printable;
use crate::host::HostRoot;

/// Processes remembered after they are gone.
pub const PROCESSES_MAX: usize = 4_096;
/// How long what was read of a process is used again without looking, in nanoseconds: a process that is refused
/// thousands of times a second is read once.
pub const PROCESS_FRESH_NS: u64 = 1_000_000_000;
/// How long one that kept the reader waiting is not looked at again, in nanoseconds.
pub const PROCESS_SHUNNED_NS: u64 = 300_000_000_000;

/// What the kernel recorded of the process behind a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Recorded {
    /// Process id; 0 when unknown.
    pub pid: u32,
    /// When its leader started, nanoseconds since boot; 0 when unknown.
    pub start_ns: u64,
    /// Its executable.
    pub exe: Option<ExeId>,
    /// Name of the thread, zero-padded.
    pub comm: [u8; 16],
}

/// A process, as far as it could be known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: Option<u32>,
    /// When it started, nanoseconds since boot.
    pub start_ns: Option<u64>,
    /// Name of its thread when the socket was made.
    pub comm: Option<String>,
    /// Path of its executable, as its own mount namespace names it.
    pub exe: Option<String>,
    /// Its arguments.
    pub command_line: Option<String>,
    /// Who started it, or inherited it.
    pub parent: Option<Parent>,
}

/// A parent process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Process id.
    pub pid: u32,
    /// Path of its executable.
    pub exe: Option<String>,
}

/// Looks processes up and remembers them.
#[derive(Debug)]
pub struct Processes {
    proc: PathBuf,
    tick_ns: u64,
    known: Lru<Recorded, Known>,
    exes: ExePaths,
}

#[derive(Debug)]
struct Known {
    looked_ns: u64,
    process: Arc<Process>,
}

impl Processes {
    /// With `proc` as the mount of /proc (of the initial pid namespace, or no process is recognised), and the root its
    /// processes began with.
    pub fn new(proc: PathBuf, host: HostRoot) -> Self {
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        Self {
            proc,
            tick_ns: 1_000_000_000 / ticks_per_second,
            known: Lru::new(PROCESSES_MAX),
            exes: ExePaths::new(host),
        }
    }

    /// The executables it knows by path.
    pub fn exes(&mut self) -> &mut ExePaths {
        &mut self.exes
    }

    /// What is known of a process. `now_ns` is the monotonic clock.
    pub fn find(&mut self, recorded: &Recorded, now_ns: u64) -> Arc<Process> {
        if let Some(known) = self.known.get(recorded)
            && now_ns.saturating_sub(known.looked_ns) < PROCESS_FRESH_NS
        {
            return known.process.clone();
        }
        let stuck = patience::stuck();
        let mut process = self.look(recorded, now_ns);
        let looked_ns = if patience::stuck() > stuck { now_ns + PROCESS_SHUNNED_NS } else { now_ns };
        match self.known.get(recorded) {
            // It was seen whole before and is gone, or something else, now.
            Some(known) if process.exe.is_none() && known.process.exe.is_some() => {
                known.looked_ns = looked_ns;
                return known.process.clone();
            }
            _ => {}
        }
        if process.exe.is_none() {
            process.exe = recorded.exe.and_then(|exe| self.exes.find(exe, now_ns));
        }
        let process = Arc::new(process);
        self.known.insert(*recorded, Known { looked_ns, process: process.clone() });
        process
    }

    fn look(&mut self, recorded: &Recorded, now_ns: u64) -> Process {
        let Recorded { pid, start_ns, exe, comm } = *recorded;
        let length = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        let mut process = Process {
            pid: (pid != 0).then_some(pid),
            start_ns: (start_ns != 0).then_some(start_ns),
            comm: (length != 0).then(|| printable(&comm[..length], comm.len())),
            ..Process::default()
        };
        if pid == 0 || start_ns == 0 {
            return process;
        }
        let Some(dir) = ProcDir::open(&self.proc, pid) else { return process };
        let Some(stat) = dir.stat().filter(|stat| stat.start_ticks == start_ns / self.tick_ns) else {
            return process;
        };
        process.parent = self.parent(&dir, stat.parent_pid);
        if let Some(exe) = exe
            && let Some(path) = dir.exe_path()
        {
            let command_line = dir.command_line();
            // Asked after the command line was read: a process that becomes another program meanwhile shows here.
            if dir.runs(exe, &path) {
                self.exes.learn(exe, &path, now_ns);
                process.exe = Some(printable(&path, PATH_BYTES_MAX));
                process.command_line = command_line;
            }
        }
        process
    }

    fn parent(&self, child: &ProcDir, pid: u32) -> Option<Parent> {
        if pid == 0 {
            return None;
        }
        let path = ProcDir::open(&self.proc, pid).and_then(|dir| dir.exe_path());
        // While it is still the child's parent its number cannot belong to another process.
        let exe = path.filter(|_| child.stat().is_some_and(|stat| stat.parent_pid == pid));
        Some(Parent { pid, exe: exe.map(|path| printable(&path, PATH_BYTES_MAX)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::{Child, Command};

    fn processes() -> Processes {
        Processes::new(PathBuf::from("/proc"), HostRoot::default())
    }

    fn sleeper() -> Child {
        started(Command::new("/bin/sleep").arg("1000"))
    }

    /// `spawn` returns a moment before the new program has its arguments.
    fn started(command: &mut Command) -> Child {
        let child = command.spawn().unwrap();
        while std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap().is_empty() {
            std::thread::yield_now();
        }
        child
    }

    /// What the kernel would have recorded of a living process.
    fn recorded(pid: u32) -> Recorded {
        let dir = ProcDir::open(Path::new("/proc"), pid).unwrap();
        let tick_ns = processes().tick_ns;
        // Somewhere inside the tick.
        let start_ns = dir.stat().unwrap().start_ticks * tick_ns + tick_ns / 2;
        let exe = crate::event::proc_dir::executable(CWD, format!("/proc/{pid}/exe"));
        let mut comm = [0; 16];
        comm[..5].copy_from_slice(b"sleep");
        Recorded { pid, start_ns, exe, comm }
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_living_process_is_named_with_its_parent() {
        let child = sleeper();
        let seen = processes().find(&recorded(child.id()), 0);
        end(child);
        let parent = seen.parent.clone().unwrap();
        assert_eq!(parent.pid, std::process::id());
        assert_eq!(parent.exe.unwrap(), std::env::current_exe().unwrap().display().to_string());
        assert!(seen.exe.as_ref().unwrap().ends_with("/sleep"), "{seen:?}");
        assert_eq!(seen.command_line.as_deref(), Some("/bin/sleep 1000"));
        assert_eq!(seen.comm.as_deref(), Some("sleep"));
    }

    #[test]
    fn a_process_that_was_gone_before_keeps_what_the_kernel_knew() {
        let child = sleeper();
        let recorded = recorded(child.id());
        end(child);
        let mut processes = processes();
        let seen = processes.find(&recorded, 0);
        let expected = Process {
            pid: Some(recorded.pid),
            start_ns: Some(recorded.start_ns),
            comm: Some("sleep".to_owned()),
            ..Process::default()
        };
        assert_eq!(*seen, expected);
        // Its binary is known: then so is its path, but not the arguments of a process nobody saw.
        processes.exes().learn_directory(Path::new("/bin")).unwrap();
        let seen = processes.find(&recorded, PROCESS_FRESH_NS);
        assert!(seen.exe.as_ref().unwrap().ends_with("/sleep"));
        assert_eq!((&seen.command_line, &seen.parent), (&None, &None));
    }

    #[test]
    fn a_process_that_was_seen_stays_named_when_it_is_gone() {
        let child = sleeper();
        let recorded = recorded(child.id());
        let mut processes = processes();
        let before = processes.find(&recorded, 0);
        end(child);
        assert_eq!(processes.find(&recorded, 10 * PROCESS_FRESH_NS), before);
        assert!(before.command_line.is_some());
    }

    #[test]
    fn a_zombie_has_no_executable_but_its_parent() {
        let mut child = sleeper();
        let recorded = recorded(child.id());
        child.kill().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::yield_now();
        }
        let seen = processes().find(&recorded, 0);
        child.wait().unwrap();
        assert_eq!((&seen.exe, &seen.command_line), (&None, &None));
        assert_eq!(seen.parent.as_ref().unwrap().pid, std::process::id());
    }

    #[test]
    fn a_reused_number_is_another_process() {
        let child = sleeper();
        let mut processes = processes();
        let mut recorded = recorded(child.id());
        recorded.start_ns -= processes.tick_ns;
        let seen = processes.find(&recorded, 0);
        end(child);
        assert_eq!((&seen.exe, &seen.command_line, &seen.parent), (&None, &None, &None));
        assert_eq!(seen.pid, Some(recorded.pid));
    }

    #[test]
    fn a_process_that_became_another_program_lends_it_no_name() {
        let child = sleeper();
        let mut recorded = recorded(child.id());
        recorded.exe.as_mut().unwrap().number += 1;
        let seen = processes().find(&recorded, 0);
        end(child);
        assert_eq!((&seen.exe, &seen.command_line), (&None, &None));
        assert!(seen.parent.is_some());
    }

    #[test]
    fn arguments_cannot_control_a_terminal() {
        let child = started(Command::new("/bin/sleep").arg0("\x1b]0;x\x07sleep").arg("1000"));
        let seen = processes().find(&recorded(child.id()), 0);
        end(child);
        assert_eq!(seen.command_line.as_deref(), Some("\\x1b]0;x\\x07sleep 1000"));
    }

    #[test]
    fn nothing_recorded_is_nothing_known() {
        let recorded = Recorded { pid: 0, start_ns: 0, exe: None, comm: [0; 16] };
        assert_eq!(*processes().find(&recorded, 0), Process::default());
    }

    #[test]
    fn what_is_fresh_is_not_read_again() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("5");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("stat"), "5 (x) S 0 5 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 300 0").unwrap();
        std::fs::write(dir.join("cmdline"), "first").unwrap();
        std::os::unix::fs::symlink("/bin/sleep", dir.join("exe")).unwrap();
        let exe = crate::event::proc_dir::executable(CWD, dir.join("exe"));
        let mut processes = Processes::new(root.path().to_owned(), HostRoot::default());
        let recorded = Recorded { pid: 5, start_ns: 300 * processes.tick_ns, exe, comm: [0; 16] };
        let line = |processes: &mut Processes, now_ns| processes.find(&recorded, now_ns).command_line.clone();
        assert_eq!(line(&mut processes, 5).as_deref(), Some("first"));
        std::fs::write(dir.join("cmdline"), "second").unwrap();
        assert_eq!(line(&mut processes, PROCESS_FRESH_NS).as_deref(), Some("first"));
        assert_eq!(line(&mut processes, PROCESS_FRESH_NS + 5).as_deref(), Some("second"));
    }
}
