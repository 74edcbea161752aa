//! Alerts as entries of the systemd journal, by its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram of
//! fields, or a sealed file that has them when they are too many for one.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix};

use super::{Failure, Sent, Sink};
use crate::alert::Alert;
use crate::format::journal;
use crate::spool::Entry;

/// Where the journal listens.
pub const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// How long an entry may wait for room in the journal's socket.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Writes to the journal.
#[derive(Debug)]
pub struct JournalSink {
    name: String,
    socket: PathBuf,
    write_within: Duration,
}

impl JournalSink {
    /// To the journal that listens there.
    pub fn new(name: &str, socket: &Path) -> Self {
        Self { name: name.to_owned(), socket: socket.to_owned(), write_within: WRITE_WITHIN }
    }

    fn write(&self, alert: &Alert) -> io::Result<usize> {
        let fields = journal::fields(alert);
        let socket = UnixDatagram::unbound()?;
        // A journal that hangs does not take this thread along.
        socket.set_write_timeout(Some(self.write_within))?;
        hand_over(&socket, &self.socket, &fields)?;
        Ok(fields.len())
    }
}

/// Sends an entry's fields, as a datagram if one has room for them.
///
/// # Errors
/// The kernel's.
pub fn hand_over(socket: &UnixDatagram, to: &Path, fields: &[u8]) -> io::Result<()> {
    match socket.send_to(fields, to) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::ENOBUFS)) => {
            pass(socket, to, fields)
        }
        result => result.map(drop),
    }
}

fn pass(socket: &UnixDatagram, to: &Path, fields: &[u8]) -> io::Result<()> {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("dnswall-alert", flags)?);
    file.write_all(fields)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    let files = [std::os::fd::AsFd::as_fd(&file)];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&files));
    let address = SocketAddrUnix::new(to)?;
    rustix::net::sendmsg_addr(socket, &address, &[], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

impl Sink for JournalSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn send(&mut self, batch: &[Entry]) -> Result<Sent, Failure> {
        let mut sent = Sent::default();
        for (settled, entry) in batch.iter().enumerate() {
            match self.write(&entry.alert) {
                Ok(bytes) => sent.bytes += bytes,
                Err(error) => {
                    let why = format!("write to {}: {error}", self.socket.display());
                    return Err(Failure { settled, sent, ..Failure::of(why) });
                }
            }
        }
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;
    use std::time::Instant;

    /// Far less than [`WRITE_WITHIN`], so that nobody waits for the test.
    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn a_journal_that_never_reads_keeps_nobody_longer_than_it_may() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let sink = JournalSink::new("journal", &path);
        assert_eq!(sink.write_within, WRITE_WITHIN);
        let mut sink = JournalSink { write_within: SHORT, ..sink };
        // Entries that fit a datagram, and such as are handed over in files.
        for bytes in [10, 1 << 20] {
            let mut alert = sample::alert();
            alert.process.command_line = Some("x".repeat(bytes));
            let batch = vec![sample::entry(&alert); 1_000];
            let began = Instant::now();
            let failure = sink.send(&batch).unwrap_err();
            let took = began.elapsed();
            assert!((SHORT..LONG).contains(&took), "{bytes}: {took:?}");
            assert!(failure.settled < batch.len() && !failure.refused, "{bytes}: {failure:?}");
            assert!(failure.why.contains("os error 11"), "{bytes}: {failure:?}");
            // As soon as it reads there is room for what was left.
            let mut datagram = vec![0; 1 << 16];
            for _ in 0..failure.settled.max(1) {
                journal.recv(&mut datagram).unwrap();
            }
            assert!(sink.send(&batch[..1]).is_ok(), "{bytes}");
        }
    }
}
