//! A socket that one process made and another uses.

use std::io::{self, Error, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{Domain, Protocol, Socket, Type};

use super::attempt::{Attempt, Step, greeting, socket};
use super::disguise::become_program;
use super::icmp::echo_request;
use super::udp::receive;
use crate::act::{Act, Order, Report};
use crate::trick::{Handed, Handover};

/// A socket from another process, which ends with this one.
pub struct Gift {
    socket: Socket,
    _maker: Option<Child>,
}

/// Gets the socket, before this process takes its place.
///
/// # Errors
/// The kernel's.
pub fn receive_gift(order: &Order, to: SocketAddr, what: Handed, how: Handover) -> io::Result<Gift> {
    let other = Order {
        cgroup: order.maker.clone(),
        netns: order.netns.clone(),
        uid: 0,
        maker: None,
        wait_ms: order.wait_ms,
        act: Act::Make { to, what },
    };
    if let Handover::Inherited | Handover::Migrated = how {
        super::take_place(&other)?;
        let socket = make(to, what, order.wait_ms)?;
        if how == Handover::Inherited {
            leave_it_to_a_child()?;
        }
        return Ok(Gift { socket, _maker: None });
    }
    let (mut here, there) = UnixStream::pair()?;
    let text = serde_json::to_string(&other)?;
    let maker = Command::new(std::env::current_exe()?).arg(text).stdin(OwnedFd::from(there)).spawn()?;
    let passed = receive_descriptor(&here)?;
    let descriptor = if how == Handover::Passed {
        passed
    } else {
        drop(passed);
        let mut number = String::new();
        here.read_to_string(&mut number)?;
        let number: i32 = number.trim().parse().map_err(Error::other)?;
        let pid = Pid::from_child(&maker);
        pidfd_getfd(pidfd_open(pid, PidfdFlags::empty())?, number, PidfdGetfdFlags::empty())?
    };
    // A descriptor that is read from here on is the receiver's; the maker stays.
    Ok(Gift { socket: Socket::from(descriptor), _maker: Some(maker) })
}

/// Makes a socket and becomes another program that has it; comes back only with an error.
pub fn outlive(to: SocketAddr, what: Handed, program: &Path, wait_ms: u64) -> Error {
    let made = match make(to, what, wait_ms) {
        Ok(made) => made,
        Err(error) => return error,
    };
    if let Err(error) = made.set_cloexec(false) {
        return error;
    }
    become_program(Command::new(program), &Act::Inherit { to, what, number: made.as_raw_fd() }, wait_ms)
}

/// Uses what the program before this one left.
pub fn inherit(to: SocketAddr, what: Handed, number: i32, wait_ms: u64) -> Report {
    // SAFETY: a socket that the program before opened, and nothing else here uses.
    let socket = unsafe { Socket::from_raw_fd(number) };
    use_gift(&Gift { socket, _maker: None }, to, what, wait_ms)
}

/// Forks; the parent stays until the child has ended.
fn leave_it_to_a_child() -> io::Result<()> {
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => Ok(()),
        child if child > 0 => {
            let mut status = 0;
            // SAFETY: a child of this process, and a live int.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            std::process::exit(0)
        }
        _ => Err(Error::last_os_error()),
    }
}

/// Makes a socket and gives it away over the standard input; says its number; stays until it is killed.
///
/// # Errors
/// The kernel's.
pub fn give(to: SocketAddr, what: Handed, wait_ms: u64) -> io::Result<()> {
    let made = make(to, what, wait_ms)?;
    // SAFETY: the standard input is a socket that nothing else here uses.
    let mut stream = unsafe { UnixStream::from_raw_fd(0) };
    send_descriptor(&stream, &made)?;
    write!(stream, "{}", made.as_raw_fd())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn make(to: SocketAddr, what: Handed, wait_ms: u64) -> io::Result<Socket> {
    let domain = Domain::for_address(to);
    let made = match what {
        Handed::Ping => {
            let protocol = if to.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
            socket(domain, Type::DGRAM, Some(protocol), wait_ms)?
        }
        Handed::Tcp | Handed::TcpConnected => socket(domain, Type::STREAM, Some(Protocol::TCP), wait_ms)?,
        _ => socket(domain, Type::DGRAM, Some(Protocol::UDP), wait_ms)?,
    };
    if let Handed::TcpConnected | Handed::UdpConnected | Handed::UdpConnectedAgain = what {
        made.connect_timeout(&to.into(), Duration::from_millis(wait_ms.max(1)))?;
    }
    if what == Handed::UdpConnected {
        made.send(greeting().as_bytes())?;
        receive(&made)?;
    }
    Ok(made)
}

/// Uses it.
pub fn use_gift(gift: &Gift, to: SocketAddr, what: Handed, wait_ms: u64) -> Report {
    Attempt::run(|_| {
        let socket = &gift.socket;
        let text = greeting();
        match what {
            Handed::Udp => socket.send_to(text.as_bytes(), &to.into()).step("send")?,
            Handed::Ping => {
                let kind = if to.is_ipv4() { 8 } else { 128 };
                socket.send_to(&echo_request(kind), &to.into()).step("send")?
            }
            Handed::UdpConnected | Handed::TcpConnected => socket.send(text.as_bytes()).step("send")?,
            Handed::UdpConnectedAgain | Handed::Tcp => {
                let wait = Duration::from_millis(wait_ms.max(1));
                socket.connect_timeout(&to.into(), wait).step("connect")?;
                socket.send(text.as_bytes()).step("send")?
            }
        };
        receive(socket).step("receive").map(Some)
    })
}

fn send_descriptor(stream: &UnixStream, socket: &Socket) -> io::Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [socket.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(stream, &[IoSlice::new(b"!")], &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive_descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(descriptor) = descriptors.next()
        {
            return Ok(descriptor);
        }
    }
    Err(Error::other("the other process gave nothing"))
}
