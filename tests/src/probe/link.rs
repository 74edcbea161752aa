//! Frames that no socket of the IP stack sends, and what else the kernel sends for a process.

use std::fs::File;
use std::io::{self, Error, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use dnswall_agent::demo::netlink::Netlink;
use socket2::{Domain, Protocol, Socket, Type};

use super::attempt::{Attempt, Step, greeting, socket};
use super::option::{CABLE, set_number};
use crate::act::Report;
use crate::lab::packet::{checksum, ipv4};
use crate::trick::LinkBy;

/// Sends a UDP datagram as a frame (IPv4 only); nothing is awaited.
pub fn send(to: SocketAddr, by: LinkBy) -> Report {
    Attempt::run(|_| {
        let SocketAddr::V4(to4) = to else {
            return Err(("family", Error::other("frames are of IPv4 here")));
        };
        let packet = datagram(*to4.ip(), to4.port(), greeting().as_bytes());
        match by {
            LinkBy::Packet | LinkBy::PacketBypass => {
                let protocol = Protocol::from(i32::from((libc::ETH_P_IP as u16).to_be()));
                let made = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).step("socket")?;
                if by == LinkBy::PacketBypass {
                    set_number(&made, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1).step("bypass")?;
                }
                send_frame(&made, &packet).step("send")?;
            }
            LinkBy::Tun => forward_from_tun(&packet).step("write")?,
            LinkBy::Vxlan => through_tunnel(to).step("send")?,
            LinkBy::Overlay => make_overlay().step("tunnel")?,
            LinkBy::Unwrapped => {
                let wrapped =
                    [&[8, 0, 0, 0, 0, 0, 7, 0][..], &OVERLAY_LINK, &[2, 0, 0, 0, 0, 9, 8, 0], &packet];
                let wrapped = wrapped.concat();
                let four = socket(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP), 1).step("socket")?;
                four.set_broadcast(true).step("send to all")?;
                let six = socket(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP), 1).step("socket")?;
                let cable =
                    rustix::net::netdevice::name_to_index(&six, CABLE).map_err(Error::from).step("device")?;
                let mut sent: Vec<_> = HEARD_HERE
                    .map(|receiver| {
                        four.send_to(&wrapped, &SocketAddr::from((receiver, OVERLAY_PORT)).into())
                    })
                    .into();
                sent.extend(HEARD_HERE6.map(|receiver| {
                    let to = SocketAddrV6::new(receiver, OVERLAY_PORT, 0, cable);
                    six.send_to(&wrapped, &SocketAddr::V6(to).into())
                }));
                if sent.iter().any(Result::is_ok) && sent.iter().any(Result::is_err) {
                    return Err(Error::other(format!("{sent:?}"))).step("send");
                }
                sent.into_iter().collect::<io::Result<Vec<_>>>().step("send")?;
            }
        }
        Ok(None)
    })
}

/// Joins a multicast group: the kernel tells the link.
pub fn join(group: IpAddr) -> Report {
    Attempt::run(|_| {
        let made = socket(Domain::for_address((group, 0).into()), Type::DGRAM, None, 1).step("socket")?;
        let index = rustix::net::netdevice::name_to_index(&made, CABLE).map_err(Error::from).step("join")?;
        match group {
            IpAddr::V4(group) => {
                made.join_multicast_v4_n(&group, &socket2::InterfaceIndexOrAddress::Index(index))
                    .step("join")?;
            }
            IpAddr::V6(group) => made.join_multicast_v6(&group, index).step("join")?,
        }
        // The report leaves a little later.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        Ok(None)
    })
}

/// An IPv4 packet with a UDP datagram, from [`FOREIGN_SOURCE`], with its checksum.
fn datagram(to: Ipv4Addr, port: u16, text: &[u8]) -> Vec<u8> {
    let length = (8 + text.len()) as u16;
    let mut datagram: Vec<u8> = [4000, port, length, 0].into_iter().flat_map(u16::to_be_bytes).collect();
    datagram.extend(text);
    let mut packet = ipv4(FOREIGN_SOURCE, to, 17, &[], 0, &datagram);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn send_frame(socket: &Socket, packet: &[u8]) -> io::Result<()> {
    let index = rustix::net::netdevice::name_to_index(socket, CABLE)?;
    // SAFETY: sockaddr_ll is plain data for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    address.sll_ifindex = index as i32;
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&[0xff; 6]);
    let length = size_of::<libc::sockaddr_ll>() as u32;
    let (bytes, count) = (packet.as_ptr().cast(), packet.len());
    // SAFETY: a live slice and a live address with their lengths.
    let sent =
        unsafe { libc::sendto(socket.as_raw_fd(), bytes, count, 0, (&raw const address).cast(), length) };
    if sent < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Writes the packet into a TUN device of its own; the kernel takes it for a packet that came in, and forwards it.
fn forward_from_tun(packet: &[u8]) -> io::Result<()> {
    let mut tun = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(TUN_NAME.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: the kernel reads and writes one ifreq, which is live.
    if unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &raw mut request) } < 0 {
        return Err(Error::last_os_error());
    }
    let mut netlink = Netlink::open()?;
    netlink.add_address(TUN_NAME, TUN_ADDRESS.into(), 24)?;
    netlink.set_up(TUN_NAME)?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    tun.write_all(packet)
}

/// Leads a harmless address through a tunnel to `to`, and writes to it.
fn through_tunnel(to: SocketAddr) -> io::Result<()> {
    let (address, port) = (to.ip().to_string(), to.port().to_string());
    let tunnel = ["id", "5", "remote", &address, "dstport", &port];
    ip(&[&["link", "add", "dwtunnel", "type", "vxlan"][..], &tunnel].concat())?;
    ip(&["link", "set", "dwtunnel", "up"])?;
    ip(&["route", "add", &format!("{INNER}/32"), "dev", "dwtunnel"])?;
    ip(&["neigh", "add", &INNER.to_string(), "lladdr", "02:00:00:00:00:01", "dev", "dwtunnel"])?;
    let made = socket(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP), 1)?;
    made.send_to(greeting().as_bytes(), &SocketAddr::new(INNER.into(), INNER_PORT).into()).map(drop)
}

/// As on a node of a cluster: a tunnel's device, and packets that come out of it are forwarded.
fn make_overlay() -> io::Result<()> {
    let port = OVERLAY_PORT.to_string();
    let link = OVERLAY_LINK.map(|byte| format!("{byte:02x}")).join(":");
    let kind = ["type", "vxlan", "id", "7", "dstport", &port, "nolearning"];
    for (name, address, remote) in
        [("dwoverlay", "10.66.0.2/24", "10.77.0.98"), ("dwoverlay6", "10.67.0.2/24", "fd00:77::98")]
    {
        let tunnel = [&["link", "add", name, "address", &link][..], &kind, &["remote", remote]].concat();
        ip(&tunnel)?;
        ip(&["address", "add", address, "dev", name])?;
        ip(&["link", "set", name, "up"])?;
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "0")?;
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let program = ["/usr/sbin/ip", "/sbin/ip"].into_iter().find(|path| Path::new(path).exists());
    let output = Command::new(program.unwrap_or("ip")).args(arguments).output()?;
    if output.status.success() { Ok(()) } else { Err(Error::other(String::from_utf8_lossy(&output.stderr))) }
}

/// Names a TUN device.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
/// On the TUN device's network.
const FOREIGN_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 9);
const TUN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const TUN_NAME: &str = "dwtun";
/// The tunnel's device, and where it listens.
const OVERLAY_LINK: [u8; 6] = [2, 0, 0, 0, 0, 7];
const OVERLAY_PORT: u16 = 8472;
/// Addresses under which the near side hears what it sends itself: its own, and some that stand for all.
const HEARD_HERE: [Ipv4Addr; 5] = [
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::new(10, 77, 0, 2),
    Ipv4Addr::new(10, 77, 0, 255),
    Ipv4Addr::BROADCAST,
    Ipv4Addr::new(224, 0, 0, 1),
];
/// The same over IPv6.
const HEARD_HERE6: [Ipv6Addr; 3] = [
    Ipv6Addr::LOCALHOST,
    Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
];
/// Where the inner packet goes: policies allow it.
const INNER: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 77);
const INNER_PORT: u16 = 9000;
