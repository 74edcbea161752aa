//! How much of what was written to a TCP socket the other end's kernel has not acknowledged.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// In bytes: what waits to be sent and what was sent without an answer (`SIOCOUTQ`, tcp(7), every kernel; linux/sockios.h
/// gives it the number of `TIOCOUTQ`).
///
/// # Errors
/// When it is no TCP socket, or is not connected.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed for as long as the call takes, and the kernel writes one `int`.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_the_other_end_has_no_room_for_is_not_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(unacknowledged(&socket).unwrap(), 0);
        socket.set_nonblocking(true).unwrap();
        while socket.write(&[0; 65_536]).is_ok() {}
        assert!(unacknowledged(&socket).unwrap() > 0);
        assert!(unacknowledged(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
