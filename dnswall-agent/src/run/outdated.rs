//! Programs whose file was replaced while they ran: takes the files a path named before, gives those that a process still
//! runs. Until they end they are what they were: an upgrade installs the file at once and restarts the service later, or
//! at the next boot.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::compile::FileId;
use crate::event::ExeId;
use crate::event::proc_dir::{ProcDir, pids};

/// Processes kept in sight for each file, the oldest first. When all of them have ended, the others are looked for anew.
const WATCHED_MAX: usize = 8;

/// A file that no path leads to any more, and processes that run it.
#[derive(Debug)]
pub struct Outdated {
    /// The file, as the kernel knows it.
    pub file: FileId,
    /// Open, so that the file system gives its number to no other file before the wall has forgotten it.
    _pinned: OwnedFd,
    processes: Vec<ProcDir>,
}

impl Outdated {
    /// Whether one of the processes still runs it.
    pub fn runs(&self) -> bool {
        self.processes.iter().any(|process| is(process, self.file))
    }
}

/// Those of the files that run now, of all processes below `proc`.
pub fn outdated(proc: &Path, files: &[FileId]) -> Vec<Outdated> {
    if files.is_empty() {
        return Vec::new();
    }
    let mut running: Vec<(u64, FileId, ProcDir)> = pids(proc)
        .into_iter()
        .flatten()
        .filter_map(|pid| {
            let process = ProcDir::open(proc, pid)?;
            let ExeId { number, device } = process.exe()?;
            let file = *files.iter().find(|file| **file == (number, device))?;
            Some((process.stat()?.start_ticks, file, process))
        })
        .collect();
    running.sort_by_key(|(started, ..)| *started);
    let mut found: Vec<Outdated> = Vec::new();
    for (_, file, process) in running {
        if let Some(known) = found.iter_mut().find(|known| known.file == file) {
            if known.processes.len() < WATCHED_MAX {
                known.processes.push(process);
            }
            continue;
        }
        // One that ran something else in between has opened that.
        if let Some(pinned) = process.open_exe()
            && is(&process, file)
        {
            found.push(Outdated { file, _pinned: pinned, processes: vec![process] });
        }
    }
    found
}

fn is(process: &ProcDir, file: FileId) -> bool {
    process.exe().is_some_and(|exe| (exe.number, exe.device) == file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::executable_identity;
    use std::fs::{self, File};
    use std::process::{Child, Command, Stdio};

    fn sleeper(program: &Path) -> Child {
        // `cat` reads until its input ends: it lives exactly as long as the test wants.
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn a_replaced_file_is_known_while_a_process_runs_it() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("tool");
        fs::copy("/bin/cat", &program).unwrap();
        let before = executable_identity(&File::open(&program).unwrap()).unwrap();
        let mut running = [sleeper(&program), sleeper(&program)];
        fs::remove_file(&program).unwrap();
        let proc = Path::new("/proc");
        assert!(outdated(proc, &[]).is_empty());
        assert!(outdated(proc, &[(before.0, before.1 + 1)]).is_empty());
        let found = outdated(proc, &[before]);
        assert_eq!(
            found.iter().map(|found| (found.file, found.processes.len())).collect::<Vec<_>>(),
            [(before, 2)]
        );
        let mut end = |child: usize| {
            drop(running[child].stdin.take());
            running[child].wait().unwrap();
        };
        end(0);
        assert!(found[0].runs());
        end(1);
        assert!(!found[0].runs());
        assert!(outdated(proc, &[before]).is_empty());
    }
}
