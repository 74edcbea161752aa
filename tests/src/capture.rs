//! The ground truth: every packet that comes out of the far end of the cable.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dnswall_agent::demo::network::{FAR_V4, Network};
use socket2::{Domain, Protocol, Socket, Type};

use dnswall_common::flow::protocol::TCP;

use crate::pace::within;

/// One packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IANA protocol (the IPv6 next header).
    pub protocol: u8,
    /// What follows the IP header.
    pub payload: Vec<u8>,
}

impl Packet {
    /// Destination port, for protocols that have one there.
    pub fn port(&self) -> Option<u16> {
        Some(u16::from_be_bytes(self.payload.get(2..4)?.try_into().ok()?))
    }

    /// Whether anything follows the transport header of UDP or TCP.
    pub fn carries_data(&self) -> bool {
        let header = match self.protocol {
            TCP => self.payload.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4),
            _ => 8,
        };
        self.payload.len() > header
    }
}

/// A recorder of packets, from when it was made.
pub struct Capture {
    packets: Arc<Mutex<Vec<Packet>>>,
    socket: Socket,
    marker: UdpSocket,
    marks: AtomicU64,
}

impl Capture {
    /// Starts recording what reaches the far side; sockets are closed with the process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(network: &Network) -> Result<Self> {
        let socket = network.far.run(|| {
            let everything = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(everything))?;
            socket.set_recv_buffer_size(RECEIVE_BYTES)?;
            socket.set_read_timeout(Some(POLL))?;
            Ok(socket)
        })?;
        let marker = network.near.run(|| UdpSocket::bind("0.0.0.0:0"))?;
        let packets = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::downgrade(&packets);
        let reader = socket.try_clone()?;
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Some(packets) = kept.upgrade() {
                if let Ok(length) = (&reader).read(&mut buffer)
                    && let Some(packet) = parse(&buffer[..length])
                {
                    packets.lock().unwrap_or_else(PoisonError::into_inner).push(packet);
                }
            }
        });
        Ok(Self { packets, socket, marker, marks: AtomicU64::new(0) })
    }

    /// Waits until everything that was sent before this call has been recorded, and gives the count so far.
    ///
    /// # Errors
    /// When the recorder has stopped.
    pub fn mark(&self) -> Result<usize> {
        let number = self.marks.fetch_add(1, Ordering::Relaxed);
        let text = format!("{MARK} {number}");
        self.marker.send_to(text.as_bytes(), (FAR_V4, MARK_PORT)).context("send a mark")?;
        let until = Instant::now() + within(MARK_WITHIN);
        while Instant::now() < until {
            let packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
            if packets.iter().rev().take(1000).any(|packet| packet.payload.ends_with(text.as_bytes())) {
                return Ok(packets.len());
            }
            drop(packets);
            thread::sleep(Duration::from_millis(1));
        }
        bail!("the mark did not arrive at the far side")
    }

    /// Takes out everything recorded so far: for those who count for longer than memory lasts.
    pub fn take(&self) -> Vec<Packet> {
        std::mem::take(&mut *self.packets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many packets the recorder was too slow for since this was asked last.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lost(&self) -> Result<u32> {
        let mut statistics = [0u32; 2];
        let mut length = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: `struct tpacket_stats` is two 32-bit numbers, and the length is theirs.
        let result = unsafe {
            let place = statistics.as_mut_ptr().cast();
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                place,
                &raw mut length,
            )
        };
        if result < 0 {
            return Err(std::io::Error::last_os_error()).context("ask the recorder what it lost");
        }
        Ok(statistics[1])
    }

    /// What arrived for an address since a mark.
    pub fn since(&self, mark: usize, to: IpAddr) -> Vec<Packet> {
        let packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        packets[mark..].iter().filter(|packet| packet.destination == to).cloned().collect()
    }

    /// What arrived for an address, protocol and port since a mark.
    pub fn to_port(&self, mark: usize, protocol: u8, to: SocketAddr) -> Vec<Packet> {
        let mut packets = self.since(mark, to.ip());
        packets.retain(|packet| packet.protocol == protocol && packet.port() == Some(to.port()));
        packets
    }
}

fn parse(bytes: &[u8]) -> Option<Packet> {
    let version = bytes.first()? >> 4;
    if version == 4 {
        let header = usize::from(bytes[0] & 15) * 4;
        let address = |at: usize| -> Option<IpAddr> {
            Some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?))
        };
        let end = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        Some(Packet {
            source: address(12)?,
            destination: address(16)?,
            protocol: *bytes.get(9)?,
            payload: bytes.get(header..end.max(header).min(bytes.len()))?.to_vec(),
        })
    } else if version == 6 {
        let address = |at: usize| -> Option<IpAddr> {
            Some(IpAddr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?))
        };
        // A first fragment is shown as what it carries.
        let next = *bytes.get(6)?;
        let is_first = next == FRAGMENT && bytes.get(42..44)? == [0, 1];
        // So is what follows options.
        let (protocol, start) = match next {
            HOP_BY_HOP | DESTINATION_OPTIONS => (*bytes.get(40)?, 48 + usize::from(*bytes.get(41)?) * 8),
            _ if is_first => (*bytes.get(40)?, 48),
            _ => (next, 40),
        };
        let payload = bytes.get(start..)?.to_vec();
        Some(Packet { source: address(8)?, destination: address(24)?, protocol, payload })
    } else {
        None
    }
}

/// IPv6 options for every router.
const HOP_BY_HOP: u8 = 0;
/// IPv6 options for the destination.
const DESTINATION_OPTIONS: u8 = 60;
/// IPv6 fragment header.
const FRAGMENT: u8 = 44;
const MARK_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);
const RECEIVE_BYTES: usize = 16 * 1024 * 1024;
const MARK: &str = "dnswall mark";
/// Discard; no case uses it on the cable's own address.
const MARK_PORT: u16 = 9;
