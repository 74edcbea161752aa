//! What the demo's own processes do: the binary starts itself as an actor, as the wall's agent and as the janitor.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketType, ipproto};
use rustix::process::{Gid, Uid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use super::dns;
use super::janitor::{self, Remains};

/// What a process of the demo is told to be.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Part {
    /// Someone on the small server.
    Actor(Actor),
    /// The wall's agent: enters the cgroup and becomes `dnswall ARGUMENTS`.
    Agent { cgroup: PathBuf, arguments: Vec<String> },
    /// Who cleans up when the demo has ended, however it ended.
    Janitor(Remains),
}

/// Where, as whom, and what.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Actor {
    pub(super) cgroup: PathBuf,
    pub(super) netns: PathBuf,
    pub(super) uid: u32,
    pub(super) act: Act,
}

/// One thing somebody tries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Act {
    /// Asks a DNS server.
    Ask { server: SocketAddr, name: String, tcp: bool },
    /// Connects and exchanges a line.
    Connect { to: SocketAddr },
    /// Makes a raw socket.
    RawSocket,
    /// Serves one visitor after the other.
    Serve { at: SocketAddr },
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What came back.
    pub answer: Option<String>,
    /// The error's number.
    pub errno: Option<i32>,
    /// How long it took, in microseconds.
    pub elapsed_us: u64,
}

/// Plays the part described by `order` (JSON); the hidden subcommand's whole work.
///
/// # Errors
/// When the order is none, or cannot be carried out.
pub fn part(order: &str) -> Result<()> {
    match serde_json::from_str(order).context("read the part to play")? {
        Part::Actor(actor) => act(&actor),
        Part::Agent { cgroup, arguments } => {
            enter_cgroup(&cgroup)?;
            let error = Command::new("/proc/self/exe").args(arguments).exec();
            Err(error).context("become the agent")
        }
        Part::Janitor(remains) => janitor::wait_and_clean(&remains),
    }
}

fn act(actor: &Actor) -> Result<()> {
    enter_cgroup(&actor.cgroup)?;
    let netns = File::open(&actor.netns).context("open the network namespace")?;
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .context("enter the network")?;
    become_user(actor.uid).context("become the user")?;
    let start = Instant::now();
    let answer = match &actor.act {
        Act::Ask { server, name, tcp } => ask(*server, name, *tcp),
        Act::Connect { to } => connect(*to),
        Act::RawSocket => rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::UDP))
            .map(|_| "a raw socket".to_owned())
            .map_err(io::Error::from),
        Act::Serve { at } => return serve(*at).context("serve"),
    };
    let elapsed_us = start.elapsed().as_micros() as u64;
    let outcome = match answer {
        Ok(answer) => Outcome { answer: Some(answer), errno: None, elapsed_us },
        Err(error) => Outcome { answer: None, errno: Some(error.raw_os_error().unwrap_or(0)), elapsed_us },
    };
    println!("{}", serde_json::to_string(&outcome)?);
    stay();
    Ok(())
}

fn enter_cgroup(cgroup: &std::path::Path) -> Result<()> {
    std::fs::write(cgroup.join("cgroup.procs"), "0")
        .with_context(|| format!("enter cgroup {}", cgroup.display()))
}

fn become_user(uid: u32) -> io::Result<()> {
    if uid != 0 {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    Ok(())
}

fn ask(server: SocketAddr, name: &str, tcp: bool) -> io::Result<String> {
    let question = dns::question(name);
    let mut answer = vec![0; dns::MESSAGE_BYTES_MAX];
    if tcp {
        let mut stream = TcpStream::connect_timeout(&server, WAIT)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.write_all(&[&(question.len() as u16).to_be_bytes()[..], &question].concat())?;
        stream.read_exact(&mut answer[..2])?;
        answer.truncate(usize::from(u16::from_be_bytes([answer[0], answer[1]])));
        stream.read_exact(&mut answer)?;
    } else {
        let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(WAIT))?;
        socket.send_to(&question, server)?;
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
    }
    dns::address_of(&answer).map(|address| address.to_string()).ok_or(io::ErrorKind::InvalidData.into())
}

fn connect(to: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(b"hello\n")?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).trim_end().to_owned())
}

fn serve(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("listen at {at}"))?;
    println!("{}", serde_json::to_string(&Outcome::default())?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 64];
            // The visitor sees whether it was answered.
            let _ = stream.read(&mut request).and_then(|_| stream.write_all(b"welcome\n"));
        }
    });
    stay();
    Ok(())
}

/// Stays until the demo lets go, so that the agent can look at the process.
fn stay() {
    // An error ends the stay as well.
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

/// Only silence takes this long.
const WAIT: Duration = Duration::from_secs(2);
