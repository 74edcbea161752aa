//! Names what the wall does not see into: families of sockets, and devices.

use dnswall_common::unjudged::{INFINIBAND_MAJOR, PPP, TUN};

/// An address family as `socket(2)` writes it, for those that a current kernel has.
pub fn family(number: u16) -> String {
    let name = match number {
        3 => "AF_AX25",
        4 => "AF_IPX",
        5 => "AF_APPLETALK",
        9 => "AF_X25",
        17 => "AF_PACKET",
        20 => "AF_ATMSVC",
        21 => "AF_RDS",
        24 => "AF_PPPOX",
        26 => "AF_LLC",
        27 => "AF_IB",
        28 => "AF_MPLS",
        29 => "AF_CAN",
        30 => "AF_TIPC",
        31 => "AF_BLUETOOTH",
        33 => "AF_RXRPC",
        35 => "AF_PHONET",
        36 => "AF_IEEE802154",
        37 => "AF_CAIF",
        39 => "AF_NFC",
        40 => "AF_VSOCK",
        42 => "AF_QIPCRTR",
        43 => "AF_SMC",
        44 => "AF_XDP",
        45 => "AF_MCTP",
        other => return format!("AF_{other}"),
    };
    name.to_owned()
}

/// A device by its usual path.
pub fn device(major: u16, minor: u16) -> String {
    match (u32::from(major), u32::from(minor)) {
        TUN => "/dev/net/tun".to_owned(),
        PPP => "/dev/ppp".to_owned(),
        (INFINIBAND_MAJOR, minor) => format!("/dev/infiniband ({INFINIBAND_MAJOR}:{minor})"),
        (major, minor) => format!("device {major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_has_a_name() {
        assert_eq!(
            (family(17), family(44), family(99)),
            ("AF_PACKET".into(), "AF_XDP".into(), "AF_99".into())
        );
        assert_eq!(device(10, 200), "/dev/net/tun");
        assert_eq!(device(231, 192), "/dev/infiniband (231:192)");
        assert_eq!(device(1, 2), "device 1:2");
    }
}
