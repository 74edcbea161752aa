//! Makes the socket only its owner can reach: 0600 from the moment it exists, in a directory that nobody else can write
//! or put another one in place of. What is done there is done through the opened directory, not by its name.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// A listening socket that goes when it is dropped.
#[derive(Debug)]
pub struct PrivateSocket {
    /// The socket.
    pub listener: UnixListener,
    // Through the descriptor of its directory.
    path: PathBuf,
    inode: u64,
    _directory: File,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent answers there.
    #[error("another agent answers at {0}: stop it, or choose another socket with --socket")]
    Taken(PathBuf),
    /// Others could put their own socket there.
    #[error(
        "the directory {directory} can be written by others (mode {mode:o}): put the socket into a directory of its own"
    )]
    Exposed {
        /// Where the socket was to be, or a directory above.
        directory: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another user could put their own socket there.
    #[error(
        "the directory {directory} belongs to user {owner}, who could put another socket there: put the socket into a directory of root's or the agent's own"
    )]
    Strange {
        /// Where the socket was to be, or a directory above.
        directory: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// There is no name to bind.
    #[error("{0} names no file: choose another socket with --socket")]
    Nameless(PathBuf),
    /// Something else has that name.
    #[error("{0} exists and is not a socket: remove it, or choose another socket with --socket")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl PrivateSocket {
    /// Binds `path`; a socket nobody answers on any more is replaced.
    ///
    /// # Errors
    /// When somebody answers there, when the directory is open to others, or when the system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed =
            |action| move |source: io::Error| SocketError::Io { action, path: path.to_owned(), source };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let name = path.file_name().ok_or_else(|| SocketError::Nameless(path.to_owned()))?;
        let opened = private_directory(directory)?;
        // Held while the old socket is looked at and the new one made, so that two agents cannot both find it stale.
        rustix::fs::flock(&opened, FlockOperation::LockExclusive)
            .map_err(|source| failed("lock the directory of")(source.into()))?;
        // sun_path has 108 bytes; this way they do not bound the directory's path either.
        let here = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd())).join(name);
        match fs::symlink_metadata(&here) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) if answers(&here) => return Err(SocketError::Taken(path.to_owned())),
            Ok(_) => fs::remove_file(&here).map_err(failed("remove the stale socket"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at")(error)),
        }
        let listener = listen(&here).map_err(|source| failed("listen on")(source.into()))?;
        listener.set_nonblocking(true).map_err(failed("make non-blocking"))?;
        let inode = fs::symlink_metadata(&here).map_err(failed("look at"))?.ino();
        // The directory stays open, and an open file keeps its lock.
        rustix::fs::flock(&opened, FlockOperation::Unlock)
            .map_err(|source| failed("unlock the directory of")(source.into()))?;
        Ok(Self { listener, path: here, inode, _directory: opened })
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        // Not if somebody else has put theirs there meanwhile.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

const BACKLOG: i32 = 64;

fn private_directory(directory: &Path) -> Result<File, SocketError> {
    let failed =
        |action| move |source: io::Error| SocketError::Io { action, path: directory.to_owned(), source };
    if !directory.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed("make the directory"))?;
    }
    let opened = File::open(directory).map_err(failed("open the directory"))?;
    check(directory, &opened.metadata().map_err(failed("look at the directory"))?, false)?;
    // Whoever may rename a directory above may put another one in its place.
    let real = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))
        .map_err(failed("find the directory"))?;
    for above in real.ancestors().skip(1) {
        check(above, &fs::metadata(above).map_err(failed("look at a directory above"))?, true)?;
    }
    Ok(opened)
}

/// Nobody but root and this process's user may change what is in a directory; above, a sticky one will do: there
/// everybody moves only their own.
fn check(directory: &Path, metadata: &Metadata, above: bool) -> Result<(), SocketError> {
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let is_sticky = above && mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !is_sticky {
        return Err(SocketError::Exposed { directory: directory.to_owned(), mode });
    }
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(SocketError::Strange { directory: directory.to_owned(), owner });
    }
    Ok(())
}

/// Whether somebody listens there. A full backlog is somebody: only a refusal says that nobody does.
fn answers(path: &Path) -> bool {
    let connect = || {
        let kind = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, kind, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
    };
    !matches!(connect(), Err(Errno::CONNREFUSED | Errno::NOENT))
}

// Linux gives a bound socket's file the mode of the socket itself, cut by the umask (unix_bind_bsd() in
// net/unix/af_unix.c): set before bind(), there is no moment at which others could connect.
fn listen(path: &Path) -> Result<UnixListener, Errno> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_socket_is_private_and_goes_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control.sock");
        let socket = PrivateSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a socket stays when its owner dies");
        let socket = PrivateSocket::bind(&path).unwrap();
        let error = PrivateSocket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::Taken(_)), "{error}");
        assert!(path.exists());
        drop(socket);
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(PrivateSocket::bind(&path).unwrap_err(), SocketError::NotASocket(_)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = PrivateSocket::bind(&directory.path().join("control.sock")).unwrap_err();
        assert!(matches!(error, SocketError::Exposed { mode: 0o777, .. }), "{error}");
    }

    #[test]
    fn a_directory_that_another_user_owns_or_can_replace_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = directory.path().join("theirs");
        let ours = theirs.join("ours");
        fs::create_dir_all(&ours).unwrap();
        std::os::unix::fs::chown(&theirs, Some(65_534), Some(65_534)).expect("this test needs root");
        for path in [theirs.join("control.sock"), ours.join("control.sock")] {
            let error = PrivateSocket::bind(&path).unwrap_err();
            assert!(matches!(error, SocketError::Strange { owner: 65_534, .. }), "{error}");
        }
        std::os::unix::fs::chown(&theirs, Some(0), Some(0)).unwrap();
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o777)).unwrap();
        let error = PrivateSocket::bind(&ours.join("control.sock")).unwrap_err();
        assert!(matches!(error, SocketError::Exposed { mode: 0o777, .. }), "{error}");
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(PrivateSocket::bind(&ours.join("control.sock")).is_ok(), "as in /tmp");
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, precious) = (directory.path().join("control.sock"), directory.path().join("precious"));
        fs::write(&precious, "precious").unwrap();
        for target in [&precious, &directory.path().join("nowhere")] {
            std::os::unix::fs::symlink(target, &path).unwrap();
            let error = PrivateSocket::bind(&path).unwrap_err();
            assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    }

    #[test]
    fn a_busy_agents_socket_is_not_taken_for_a_stale_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let socket = PrivateSocket::bind(&path).unwrap();
        let kind = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let mut waiting = Vec::new();
        // Until the backlog is full: nobody accepts.
        for _ in 0..=2 * BACKLOG {
            let client =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, kind, None).unwrap();
            if rustix::net::connect(&client, &SocketAddrUnix::new(&path).unwrap()) == Err(Errno::AGAIN) {
                break;
            }
            waiting.push(client);
        }
        assert!(waiting.len() <= 2 * BACKLOG as usize, "the backlog is never full");
        assert!(matches!(PrivateSocket::bind(&path).unwrap_err(), SocketError::Taken(_)));
        drop(socket);
    }

    #[test]
    fn another_owners_new_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let socket = PrivateSocket::bind(&path).unwrap();
        let aside = directory.path().join("aside.sock");
        fs::rename(&path, &aside).unwrap();
        let newer = PrivateSocket::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(newer);
        assert!(!path.exists() && aside.exists());
    }
}
