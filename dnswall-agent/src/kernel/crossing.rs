//! From a wall of other layouts to one of this build's, with no instant without one.
//!
//! The new wall is raised beside the old one. A packet passes when both let it, and both have the same policy, so a
//! verdict changes nowhere on the way, as long as the new one knows what the old one does. Hence the order:
//!
//! 1. Maps are made, the policy published as the generation after the old wall's last, under the same key of hashes.
//! 2. Who may be answered is copied, for the marks in it.
//! 3. Hooks that record whoever uses a socket: `connect()` and `sendto()`. A refused connection is refused by both. (All
//!    that are required and not named below: a hook that is new belongs here, unless it judges what is recorded.)
//! 4. What is recorded in sockets is copied.
//! 5. The hook that records who sent unasked; after it the one that records new sockets, which would otherwise count as
//!    never spoken to. It refuses only questions to a server here, by the policy alone.
//! 6. Sockets once more, until no new one is found: those made before the last step. Then who may be answered.
//! 7. The rest: what judges. From here on the new wall is whole, and its numbers are the old one's.
//! 8. The old wall is taken down, what judges first.
//!
//! **Layouts that cannot be read** leave nothing to copy. Established TCP connections then count as older than the wall:
//! they live on, and no policy cuts them. Other sockets are recorded for whoever holds them ([`super::adopt`]). Peers are
//! listened to for [`LISTEN`] before anything is judged: whoever sends in that time may be answered, and an answer
//! to somebody who was silent for longer is refused until they send again. Counts begin at zero.
//!
//! **A failure** before step 8 takes the new wall down, and the old one stands as it did. **A death** leaves both: the
//! next start of this build takes a new wall down that is not whole and crosses anew, or finds a whole one and takes down
//! the old. In between both decide, by one policy.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use aya::Ebpf;

use super::adopt::Processes;
use super::cgroup::Cgroup2Mount;
use super::fault;
use super::hook::{HOOKS, Hook};
use super::maps::Maps;
use super::migrate::Source;
use super::open_sockets::{self, Looked, OpenSocket};
use super::pins::Pins;
use super::takeover::{attach, is_loaded};

/// How long peers are listened to when who may be answered is not known: several times what an answer takes.
pub const LISTEN: Duration = Duration::from_secs(2);
/// Looks at all sockets at most: each finds those that were made, or changed hands, during the one before.
const LOOKS_MAX: usize = 5;

/// Judges by what the others record.
const JUDGE: &str = "dw_egress";
/// Records who sent unasked.
const PEERS: &str = "dw_ingress";
/// Records new sockets.
const MAKERS: &str = "dw_sock_create";

/// The wall that is being raised.
pub struct Crossing<'a> {
    /// Its programs, loaded.
    pub ebpf: &'a mut Ebpf,
    /// Its maps, with a policy published.
    pub maps: &'a mut Maps,
    /// Its pins.
    pub pins: &'a Pins,
    /// Where it stands.
    pub cgroup: &'a File,
    /// Walls that stand there, the one first whose word counts.
    pub sources: &'a [Source],
}

impl Crossing<'_> {
    /// Steps 2 to 7: attaches everything, and copies what the walls beside it know.
    ///
    /// # Errors
    /// Why the new wall is not whole; it is the caller's to take it down.
    pub fn attach(&mut self, mount: &Cgroup2Mount, top: &Path) -> Result<()> {
        fault::step("replies")?;
        self.copy_replies()?;
        self.attach_some(|hook| hook.required && ![PEERS, MAKERS, JUDGE].contains(&hook.program))?;
        fault::step("sockets")?;
        let mut done = HashSet::new();
        let mut processes = Processes::below(mount, top);
        let mut looked = self.copy_sockets(&mut done, &mut processes)?.0;
        self.attach_some(|hook| hook.program == PEERS)?;
        self.attach_some(|hook| hook.program == MAKERS)?;
        if !self.sources.iter().all(Source::is_readable) {
            std::thread::sleep(LISTEN);
        }
        for _ in 1..LOOKS_MAX {
            fault::step("sockets again")?;
            processes = Processes::below(mount, top);
            let (again, new) = self.copy_sockets(&mut done, &mut processes)?;
            looked = again;
            if new == 0 {
                break;
            }
        }
        fault::step("replies again")?;
        self.copy_replies()?;
        self.attach_some(|hook| !hook.required || hook.program == JUDGE)?;
        fault::step("counts")?;
        for source in self.sources {
            source.copy_counts(self.maps)?;
        }
        self.say(done.len(), looked);
        Ok(())
    }

    fn attach_some(&mut self, which: impl Fn(&Hook) -> bool) -> Result<()> {
        for hook in &HOOKS {
            if which(hook) && is_loaded(self.ebpf, hook) {
                fault::step(hook.program)?;
                attach(self.ebpf, self.cgroup, hook, self.pins)?;
            }
        }
        Ok(())
    }

    fn copy_replies(&mut self) -> Result<()> {
        self.sources.iter().try_for_each(|source| {
            source.copy_replies(self.maps)?;
            source.copy_learned(self.maps)
        })
    }

    /// Gives what was looked at, and how many sockets were recorded.
    fn copy_sockets(
        &mut self,
        done: &mut HashSet<u64>,
        processes: &mut Processes,
    ) -> Result<(Looked, usize)> {
        let Self { maps, sources, .. } = self;
        let readable = sources.iter().all(Source::is_readable);
        let mut failed = None;
        let mut new = Vec::new();
        let mut copy = |socket: &OpenSocket| {
            let known = sources.iter().find_map(|source| source.socket(socket));
            let state = known.or_else(|| if readable { None } else { processes.adopt(socket) });
            match state.map(|state| maps.record(socket, state)) {
                Some(Ok(_)) => new.push(socket.inode),
                Some(Err(error)) => failed = Some(error),
                None => {}
            }
        };
        let looked = open_sockets::each(|inode| !done.contains(&inode), &mut copy);
        let count = new.len();
        done.extend(new);
        failed.map_or(Ok((looked, count)), Err)
    }

    fn say(&self, sockets: usize, looked: Looked) {
        let from: Vec<String> = self.sources.iter().map(|source| format!("v{}", source.abi)).collect();
        let from = from.join(", ");
        if self.sources.iter().all(Source::is_readable) {
            tracing::info!("what the wall of layouts {from} knew of {sockets} sockets is known to this one");
        } else {
            tracing::warn!(
                "the layouts of the wall before ({from}) are not known: {sockets} sockets are recorded for whoever \
                 holds them, established connections live on whatever the policy says, its counts and what it did \
                 not tell yet are lost"
            );
        }
        if looked.refused > 0 {
            tracing::warn!(
                "{} sockets could not be looked into (CAP_SYS_PTRACE): they count as older than the wall",
                looked.refused
            );
        }
    }
}
