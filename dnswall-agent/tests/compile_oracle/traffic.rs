//! Packets near every boundary a policy draws, and processes of every kind it can name.

use crate::pool::{ID1, ID2, NAMES, PLACES, PORTS};
use crate::reader::{Packet, Process};
use crate::world::{To, World};
use dnswall_common::flow::{Address, Flow};
use std::net::IpAddr;

/// A small generator: which flows are asked follows from one number, so that a failure can be run again.
pub struct Dice(pub u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// Addresses at and just outside every boundary the policy or the registries draw.
pub fn addresses(world: &World) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = [
        "0.0.0.0",
        "9.255.255.255",
        "10.0.0.0",
        "8.8.8.8",
        "100.63.255.255",
        "100.64.0.0",
        "127.0.0.53",
        "172.31.255.255",
        "172.32.0.0",
        "192.0.0.255",
        "192.0.1.0",
        "223.255.255.255",
        "224.0.0.0",
        "255.255.255.255",
        "::",
        "::1",
        "1fff:ffff::",
        "2000::",
        "2001:1ff:ffff::",
        "2001:200::",
        "2001:db8::",
        "2001:db9::",
        "2002::1",
        "2003::",
        "3fff:fff::",
        "3fff:1000::",
        "4000::",
        "64:ff9b::a00:1",
        "64:ff9b::808:808",
        "::fffe:ffff:ffff",
        "::ffff:0:0",
        "::ffff:8.8.8.8",
        "::ffff:ffff:ffff",
        "::1:0:0:0",
        "fd00::2",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ]
    .iter()
    .map(|address| address.parse().expect("an address"))
    .collect();
    addresses.extend(&world.resolvers);
    addresses.extend(&world.stubs);
    let rules = world.deny.iter().chain(&world.allow).flat_map(|rule| [&rule.to, &rule.answers]);
    let lists = rules.chain(world.recursors.iter().map(|recursor| &recursor.0)).chain(&world.serve);
    for to in lists.flatten() {
        match to {
            To::Net(IpAddr::V4(net), prefix) => {
                let (first, size) = (u64::from(u32::from(*net)), 1u64 << (32 - prefix));
                let near = [first.wrapping_sub(1), first, first + size - 1, first + size];
                addresses
                    .extend(near.iter().filter_map(|a| u32::try_from(*a).ok()).map(|a| IpAddr::V4(a.into())));
            }
            To::Net(IpAddr::V6(net), prefix) => {
                let first = u128::from(*net);
                let last = if *prefix == 0 { u128::MAX } else { first | ((1 << (128 - prefix)) - 1) };
                let near = [Some(first), Some(last), first.checked_sub(1), last.checked_add(1)];
                addresses.extend(near.into_iter().flatten().map(|a| IpAddr::V6(a.into())));
            }
            To::Any | To::Internet | To::EncryptedDns | To::Name(_) => {}
        }
    }
    addresses
}

pub fn packet(dice: &mut Dice, addresses: &[IpAddr]) -> Packet {
    let protocol = dice.pick(&[6, 6, 6, 17, 17, 17, 136, 132, 1, 58, 0, 47, 254, 255]);
    let near: Vec<u16> = PORTS.iter().flat_map(|port| [port - 1, *port, port.saturating_add(1)]).collect();
    let port = if protocol == 255 { 53 } else { dice.pick(&near) };
    let by = [None].into_iter().chain(NAMES.iter().copied().map(Some)).collect::<Vec<_>>();
    Packet { address: dice.pick(addresses), by: dice.pick(&by), protocol, port }
}

pub fn process(dice: &mut Dice) -> Process {
    let place = dice.pick(PLACES).replace("ID1", ID1).replace("ID2", ID2);
    Process {
        place,
        uid: dice.pick(&[0, 1000, 1001, 5]),
        exe: dice.pick(&[(11, 8), (11, 9), (12, 8), (13, 8), (0, 0)]),
    }
}

pub fn flow(packet: &Packet) -> Flow {
    let address = match packet.address {
        IpAddr::V4(address) => Address::V4(address.into()),
        IpAddr::V6(address) => Address::V6((u128::from(address) >> 64) as u64, u128::from(address) as u64),
    };
    Flow { address, protocol: packet.protocol, port: packet.port }
}
