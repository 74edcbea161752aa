//! What carries traffic off the host and past every packet hook: sockets of other families, and devices. There is
//! nothing to judge such traffic by but who opens them.

/// Address families (`AF_*`, the same on every architecture) whose traffic is judged or never leaves the host.
const JUDGED: u64 = 1 << family::UNSPEC
    | 1 << family::UNIX
    | 1 << family::INET
    | 1 << family::INET6
    | 1 << family::KEY
    | 1 << family::NETLINK
    | 1 << family::ALG
    | 1 << family::KCM;

/// Address families by number, from the kernel's `include/linux/socket.h`; numbers are never reused there.
pub mod family {
    /// No family: the kernel refuses it.
    pub const UNSPEC: u32 = 0;
    /// On this host.
    pub const UNIX: u32 = 1;
    /// IPv4: judged.
    pub const INET: u32 = 2;
    /// IPv6: judged.
    pub const INET6: u32 = 10;
    /// IPsec's key management, in this kernel.
    pub const KEY: u32 = 15;
    /// Messages to this kernel.
    pub const NETLINK: u32 = 16;
    /// Frames as they are.
    pub const PACKET: u32 = 17;
    /// Encryption by this kernel.
    pub const ALG: u32 = 38;
    /// To and from a hypervisor.
    pub const VSOCK: u32 = 40;
    /// Messages over TCP sockets that exist.
    pub const KCM: u32 = 41;
    /// TCP whose data an adapter may carry past the network stack.
    pub const SMC: u32 = 43;
    /// Frames as they are, past the network stack.
    pub const XDP: u32 = 44;
}

/// `BPF_DEVCG_DEV_CHAR`, the low half of a device program's `access_type`.
pub const DEVICE_CHAR: u32 = 2;
/// `BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE`, in the high half: it is opened, not made.
pub const DEVICE_OPEN: u32 = 6;

/// `/dev/net/tun`: frames written to it come in as if from a network, and are routed on.
pub const TUN: (u32, u32) = (10, 200);
/// `/dev/ppp`: the same for PPP.
pub const PPP: (u32, u32) = (108, 0);
/// Major number of `/dev/infiniband/*`: the adapter sends by itself.
pub const INFINIBAND_MAJOR: u32 = 231;

/// Whether the wall sees what a socket of this family sends, or it stays on this host.
#[inline(always)]
pub const fn is_judged(family: u32) -> bool {
    family < 64 && JUDGED >> family & 1 == 1
}

/// Whether what is written to this character device may leave the host unseen.
#[inline(always)]
pub const fn is_unjudged_device(major: u32, minor: u32) -> bool {
    (major == TUN.0 && minor == TUN.1) || (major == PPP.0 && minor == PPP.1) || major == INFINIBAND_MAJOR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_judged_or_not() {
        let judged: [u32; 8] = [0, 1, 2, 10, 15, 16, 38, 41];
        for family in 0..300 {
            assert_eq!(is_judged(family), judged.contains(&family), "{family}");
        }
        assert!(!is_judged(family::PACKET) && !is_judged(family::XDP) && !is_judged(family::VSOCK));
        assert!(!is_judged(u32::MAX));
    }

    #[test]
    fn devices_are_told_by_both_numbers() {
        assert!(is_unjudged_device(10, 200) && is_unjudged_device(108, 0) && is_unjudged_device(231, 192));
        // /dev/kvm, /dev/null, /dev/random
        assert!(!is_unjudged_device(10, 232) && !is_unjudged_device(1, 3) && !is_unjudged_device(1, 8));
    }
}
