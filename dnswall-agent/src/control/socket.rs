//! Makes the socket only its owner can reach: 0600 from the moment it exists, in a directory others cannot write.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// A listening socket that goes when it is dropped.
#[derive(Debug)]
pub struct PrivateSocket {
    /// The socket.
    pub listener: UnixListener,
    path: PathBuf,
    inode: u64,
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
        /// Where the socket was to be.
        directory: PathBuf,
        /// Its permissions.
        mode: u32,
    },
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
        // Held while the old socket is looked at and the new one made, so that two agents cannot both find it stale.
        let lock = private_directory(directory)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|source| failed("lock the directory of")(source.into()))?;
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => return Err(SocketError::Taken(path.to_owned())),
            Ok(_) => fs::remove_file(path).map_err(failed("remove the stale socket"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at")(error)),
        }
        let listener = listen(path).map_err(|source| failed("listen on")(source.into()))?;
        listener.set_nonblocking(true).map_err(failed("make non-blocking"))?;
        let inode = fs::symlink_metadata(path).map_err(failed("look at"))?.ino();
        Ok(Self { listener, path: path.to_owned(), inode })
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
    let mode = opened.metadata().map_err(failed("look at the directory"))?.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(SocketError::Exposed { directory: directory.to_owned(), mode });
    }
    Ok(opened)
}

// Linux gives a bound socket's file the mode of the socket itself, cut by the umask (unix_bind_bsd() in
// net/unix/af_unix.c): set before bind(), there is no moment at which others could connect.
fn listen(path: &Path) -> Result<UnixListener, rustix::io::Errno> {
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
