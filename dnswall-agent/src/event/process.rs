//! Takes what the kernel recorded of a process, gives what /proc adds to it, or nothing more when that process is gone
//! or runs another program by now.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::ancestors::{Ancestors, Parent};
use super::exe::{ExeId, ExePaths, PATH_BYTES_MAX};
use super::hash::{HashCell, Hashes, Program};
use super::patience;
use super::proc_dir::{COMMAND_LINE_BYTES_MAX, ProcDir};
use super::text::{GROWTH_MAX, printable};
use crate::host::HostRoot;
use crate::lru::Lru;

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
    /// Its parent; 0 when unknown.
    pub parent: u32,
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
    pub parent: Option<Arc<Parent>>,
    /// Who is above the parent, nearest first.
    pub parents: Vec<Arc<Parent>>,
    /// The hash of its executable, once it was asked for.
    pub hash: HashCell,
}

/// Looks processes up and remembers them.
#[derive(Debug)]
pub struct Processes {
    proc: PathBuf,
    tick_ns: u64,
    known: Lru<Recorded, Known>,
    exes: ExePaths,
    ancestors: Ancestors,
    /// None when nobody wants them.
    hashes: Option<Arc<Hashes>>,
}

#[derive(Debug)]
struct Known {
    looked_ns: u64,
    process: Arc<Process>,
}

impl Processes {
    /// With `proc` as the mount of /proc (of the initial pid namespace, or no process is recognised), the root its
    /// processes began with, and where hashes are to be had, if they are wanted.
    pub fn new(proc: PathBuf, host: HostRoot, hashes: Option<Arc<Hashes>>) -> Self {
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        Self {
            ancestors: Ancestors::new(proc.clone(), tick_ns),
            proc,
            tick_ns,
            known: Lru::new(PROCESSES_MAX),
            exes: ExePaths::new(host),
            hashes,
        }
    }

    /// The executables it knows by path.
    pub fn exes(&mut self) -> &mut ExePaths {
        &mut self.exes
    }

    /// What is known of a process. `now_ns` is the boot clock.
    pub fn find(&mut self, recorded: &Recorded, now_ns: u64) -> Arc<Process> {
        if let Some(known) = self.known.get(recorded)
            && now_ns.saturating_sub(known.looked_ns) < PROCESS_FRESH_NS
        {
            return known.process.clone();
        }
        let given_up = patience::given_up();
        let (mut process, living_parent) = self.look(recorded, now_ns);
        let looked_ns = if patience::given_up() > given_up { now_ns + PROCESS_SHUNNED_NS } else { now_ns };
        if let Some(known) = self.known.get(recorded) {
            // It was seen whole before and is gone, or something else, now.
            if process.exe.is_none() && known.process.exe.is_some() {
                known.looked_ns = looked_ns;
                return known.process.clone();
            }
            // Others may keep the one who reads it busy.
            if process.command_line.is_none() && process.exe == known.process.exe {
                process.command_line.clone_from(&known.process.command_line);
            }
            if known.process.hash.is_good() {
                process.hash = known.process.hash.clone();
            }
        }
        self.name_parents(&mut process, recorded, living_parent, now_ns);
        if process.exe.is_none() {
            process.exe = recorded.exe.and_then(|exe| self.exes.find(exe, now_ns));
        }
        let process = Arc::new(process);
        self.known.insert(*recorded, Known { looked_ns, process: process.clone() });
        process
    }

    /// What /proc says, and which parent.
    fn look(&mut self, recorded: &Recorded, now_ns: u64) -> (Process, u32) {
        let Recorded { pid, start_ns, parent: _, exe, comm } = *recorded;
        let length = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        let mut process = Process {
            pid: (pid != 0).then_some(pid),
            start_ns: (start_ns != 0).then_some(start_ns),
            comm: (length != 0).then(|| printable(&comm[..length], comm.len() * GROWTH_MAX)),
            ..Process::default()
        };
        let Some((dir, parent_pid)) = self.living(pid, start_ns) else { return (process, 0) };
        if let Some(exe) = exe
            && let Some(path) = dir.exe_path()
        {
            let command_line = dir.command_line(COMMAND_LINE_BYTES_MAX);
            // Asked after the command line was read: a process that becomes another program meanwhile shows here.
            if dir.runs(exe, &path) {
                self.exes.learn(exe, &path, now_ns);
                process.exe = Some(printable(&path, PATH_BYTES_MAX));
                process.command_line = command_line;
            }
        }
        (process, parent_pid)
    }

    /// The process itself and the number of its parent, while it is there.
    fn living(&self, pid: u32, start_ns: u64) -> Option<(ProcDir, u32)> {
        if pid == 0 || start_ns == 0 {
            return None;
        }
        let dir = ProcDir::open(&self.proc, pid)?;
        let stat = dir.stat().filter(|stat| stat.start_ticks == start_ns / self.tick_ns)?;
        Some((dir, stat.parent_pid))
    }

    /// The parent that the kernel recorded, or when nothing is known of that one whose child the process is now.
    fn name_parents(&mut self, process: &mut Process, recorded: &Recorded, living: u32, now_ns: u64) {
        let child_ticks = recorded.start_ns / self.tick_ns;
        let line = [recorded.parent, living]
            .into_iter()
            .filter(|pid| *pid != 0 && child_ticks != 0)
            .map(|pid| self.ancestors.above(pid, child_ticks, now_ns))
            .find(|line| !line.is_empty());
        let nameless = [recorded.parent, living].into_iter().find(|pid| *pid != 0).map(Parent::nameless);
        match line {
            Some(line) => {
                let mut line = line.into_iter();
                (process.parent, process.parents) = (line.next(), line.collect());
            }
            None => match self.known.get(recorded) {
                // It was known before, and is gone now.
                Some(known) if known.process.parent.is_some() => {
                    process.parent.clone_from(&known.process.parent);
                    process.parents.clone_from(&known.process.parents);
                }
                _ => process.parent = nameless.map(Arc::new),
            },
        }
    }

    /// Asks for the hash of its executable, once, for the user who runs it. To be done at once: the process may be gone a moment later.
    pub fn ask_hash(
        &mut self,
        process: &Process,
        exe: Option<ExeId>,
        started: Option<Timestamp>,
        uid: Option<u32>,
    ) {
        let (Some(hashes), Some(exe)) = (self.hashes.clone(), exe) else { return };
        if !process.hash.ask() {
            return;
        }
        match self.program(process, exe, started) {
            Some(program) => hashes.ask(program, &process.hash, uid),
            None => process.hash.answer(None),
        }
    }

    /// The very file that it runs; of one that is gone, the file it ran if nobody has changed that since.
    fn program(&mut self, process: &Process, exe: ExeId, started: Option<Timestamp>) -> Option<Program> {
        let (pid, start_ns) = (process.pid?, process.start_ns?);
        if let Some((dir, _)) = self.living(pid, start_ns)
            && let Some(file) = dir.open_program(exe)
        {
            return Program::new(file);
        }
        let program = Program::new(self.exes.open(exe)?)?;
        started.filter(|started| program.fingerprint.is_older_than(*started)).map(|_| program)
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
        Processes::new(PathBuf::from("/proc"), HostRoot::default(), None)
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
        Recorded { pid, start_ns, parent: 0, exe, comm }
    }

    /// Now, on the boot clock.
    fn now() -> u64 {
        crate::event::Clocks::read().boot_ns
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_living_process_is_named_with_its_parent() {
        let child = sleeper();
        let seen = processes().find(&recorded(child.id()), now());
        end(child);
        let parent = seen.parent.clone().unwrap();
        assert_eq!(parent.pid, std::process::id());
        assert_eq!(parent.exe, Some(std::env::current_exe().unwrap().display().to_string()));
        assert_eq!(seen.parents[0].pid, std::os::unix::process::parent_id());
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
    fn a_process_that_was_gone_before_has_the_parent_the_kernel_knew() {
        let child = sleeper();
        let mut recorded = recorded(child.id());
        end(child);
        recorded.parent = std::process::id();
        let mut processes = processes();
        let seen = processes.find(&recorded, now());
        let parent = seen.parent.as_ref().unwrap();
        assert_eq!(parent.exe, Some(std::env::current_exe().unwrap().display().to_string()));
        assert!(
            parent.comm.is_some()
                && parent.command_line.is_some()
                && parent.start_ns < Some(recorded.start_ns)
        );
        // One that cannot have started it: it is younger.
        recorded.start_ns = parent.start_ns.unwrap() - processes.tick_ns;
        let seen = processes.find(&recorded, now());
        assert_eq!(seen.parent.as_deref(), Some(&Parent::nameless(std::process::id())));
        assert!(seen.parents.is_empty());
    }

    #[test]
    fn a_program_is_the_file_that_runs_or_ran() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("sleep");
        let inode = |path: &Path| crate::event::proc_dir::inode(path).unwrap();
        let start = || {
            std::fs::copy("/bin/sleep", &path).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(50));
            let child = started(Command::new(&path).arg("1000"));
            (recorded(child.id()), Some(Timestamp::now()), inode(&path), child)
        };
        let mut processes = processes();
        let mut program = |recorded: &Recorded, started| {
            let seen = processes.find(recorded, now());
            let program = processes.program(&seen, recorded.exe.unwrap(), started)?;
            Some(rustix::fs::fstat(&program.file).unwrap().st_ino)
        };
        let (recorded, started, its, child) = start();
        assert_eq!(program(&recorded, started), Some(its));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(program(&recorded, started), Some(its), "it has no name any more, and runs");
        end(child);
        assert_eq!(program(&recorded, started), None, "gone like its file");

        let (recorded, started, its, child) = start();
        assert_eq!(program(&recorded, started), Some(its));
        end(child);
        assert_eq!(program(&recorded, started), Some(its), "gone, and its file is as it was");
        assert_eq!(program(&recorded, None), None, "nobody knows since when it is as it is");
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"x"))
            .unwrap();
        assert_eq!(program(&recorded, started), None, "somebody wrote to it");
        std::fs::remove_file(&path).unwrap();
        std::fs::copy("/bin/sleep", &path).unwrap();
        assert_eq!(program(&recorded, started), None, "another file");
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
        let seen = processes().find(&recorded, now());
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
        let seen = processes().find(&recorded, now());
        end(child);
        assert_eq!((&seen.exe, &seen.command_line), (&None, &None));
        assert!(seen.parent.as_ref().is_some_and(|parent| parent.exe.is_some()));
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
        let recorded = Recorded { pid: 0, start_ns: 0, parent: 0, exe: None, comm: [0; 16] };
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
        let mut processes = Processes::new(root.path().to_owned(), HostRoot::default(), None);
        let recorded = Recorded { pid: 5, start_ns: 300 * processes.tick_ns, parent: 0, exe, comm: [0; 16] };
        let line = |processes: &mut Processes, now_ns| processes.find(&recorded, now_ns).command_line.clone();
        assert_eq!(line(&mut processes, 5).as_deref(), Some("first"));
        std::fs::write(dir.join("cmdline"), "second").unwrap();
        assert_eq!(line(&mut processes, PROCESS_FRESH_NS).as_deref(), Some("first"));
        assert_eq!(line(&mut processes, PROCESS_FRESH_NS + 5).as_deref(), Some("second"));
    }
}
