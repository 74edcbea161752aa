//! Two network namespaces joined by a cable: a server and everything it could reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use super::netlink::Netlink;
use super::netns::Namespace;

/// A server's namespace and the rest of the world's.
#[derive(Debug)]
pub struct Network {
    /// Where the workloads run.
    pub near: Namespace,
    /// Where every address of [`FAR_NETWORKS`] answers.
    pub far: Namespace,
}

/// The near side's addresses.
pub const NEAR_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// See [`NEAR_V4`].
pub const NEAR_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2);
/// The far side's addresses on the cable.
pub const FAR_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// See [`FAR_V4`].
pub const FAR_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);

/// Networks of which every address is the far side's: documentation ranges, a private one, and cloud resolvers.
pub const FAR_NETWORKS: [(IpAddr, u8); 7] = [
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)), 24),
    (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), 24),
    (IpAddr::V4(Ipv4Addr::new(203, 0, 113, 0)), 24),
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 169, 252)), 30),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)), 32),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0)), 64),
];

impl Network {
    /// Builds it; nothing outside the two namespaces changes.
    ///
    /// # Errors
    /// The kernel's, mostly "not permitted".
    pub fn create() -> io::Result<Self> {
        let network = Self { near: Namespace::create()?, far: Namespace::create()? };
        network.near.run(trust_addresses)?;
        network.far.run(trust_addresses)?;
        network.near.run(|| {
            let mut netlink = Netlink::open()?;
            netlink.set_up("lo")?;
            netlink.add_veth(CABLE, CABLE, &network.far)?;
            netlink.add_address(CABLE, NEAR_V4.into(), 24)?;
            netlink.add_address(CABLE, NEAR_V6.into(), 64)?;
            netlink.set_up(CABLE)
        })?;
        network.far.run(|| {
            let mut netlink = Netlink::open()?;
            netlink.set_up("lo")?;
            netlink.add_address(CABLE, FAR_V4.into(), 24)?;
            netlink.add_address(CABLE, FAR_V6.into(), 64)?;
            netlink.set_up(CABLE)?;
            // Unlike IPv4, IPv6 lets nobody bind an address that is its own by a route only.
            fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1")?;
            FAR_NETWORKS.iter().try_for_each(|(network, bits)| netlink.add_own_network(*network, *bits))
        })?;
        network.near.run(|| {
            let mut netlink = Netlink::open()?;
            netlink.add_default_route(FAR_V4.into())?;
            netlink.add_default_route(FAR_V6.into())
        })?;
        network.near.run(wait_for_carrier)?;
        network.far.run(wait_for_carrier)?;
        Ok(network)
    }
}

/// Without this the link-local address is not used for a second or two, and nobody is asked for a neighbour's address
/// on behalf of the networks that are a side's own by a route only.
fn trust_addresses() -> io::Result<()> {
    ["all", "default"]
        .iter()
        .try_for_each(|name| fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0"))
}

/// The kernel notices a carrier in a worker; what is sent before that is lost.
fn wait_for_carrier() -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let until = Instant::now() + CARRIER_WITHIN;
    while !netlink.is_running(CABLE)? {
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the cable between the namespaces is down"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

const CARRIER_WITHIN: Duration = Duration::from_secs(5);
/// The interface's name on either side.
const CABLE: &str = "eth0";
