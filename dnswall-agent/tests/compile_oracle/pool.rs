//! The names, places and ports that random policies and processes are made of: few, so that they meet.

pub const ID1: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub const ID2: &str = "0123456789abffff0123456789abcdef0123456789abcdef0123456789abcdef";

pub const UNITS: &[&str] = &[
    "orders.service",
    "orders-a.service",
    "orders@1.service",
    "run-1.scope",
    "*",
    "o*",
    "ord*",
    "orders*",
    "orders*.service",
    "orders-*.service",
    "o*.scope",
    "*.scope",
    "*.service",
    "system.slice",
    "a.slice",
    "a-b.slice",
    "user-1000.slice",
];
pub const CGROUPS: &[&str] = &[
    "/system.slice",
    "/system.slice/orders.service",
    "/system.slice/orders.service/inner.service",
    "/a.slice/a-b.slice",
    "/a.slice/a-b.slice/x.service",
    "/custom",
    "/kubepods",
];
pub const USERS: &[(&str, u32)] = &[("0", 0), ("1000", 1000), ("\"alice\"", 1000), ("\"bob\"", 1001)];
pub const EXES: &[(&str, &[(u64, u32)])] = &[
    ("/usr/bin/a", &[(11, 8)]),
    ("/opt/*/x", &[(11, 9), (12, 8)]),
    ("/usr/bin/b", &[(13, 8)]),
    ("/missing", &[]),
];
pub const ROOTS: &[&str] = &["/", "/wall.slice/wall"];
/// Where processes are, below the wall's root.
pub const PLACES: &[&str] = &[
    "",
    "/system.slice",
    "/system.slice/orders.service",
    "/system.slice/orders.service/inner.service",
    "/system.slice/orders-a.service",
    "/system.slice/orders@1.service",
    "/orders.service",
    "/system.slice/orders.serviced.scope",
    "/a.slice/x.service",
    "/a.slice/a-b.slice",
    "/a.slice/a-b.slice/x.service/orders.service",
    "/user.slice/user-1000.slice/run-1.scope",
    "/user.slice/user-1000.slice/user@1000.service/app.slice/docker-ID1.scope",
    "/system.slice/docker-ID1.scope",
    "/system.slice/ordersd.scope/ID2/docker-ID1.scope",
    "/kubepods/burst/cri-containerd-ID2.scope",
    "/kubepods/ID1",
    "/a.slice/x.service/docker-ID1.scope",
    "/myservice/ID2",
    "/lxc.payload.c/ID2",
    "/custom",
    "/customs",
    "/custom/deep",
    "/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/orders.service",
];
pub const PORTS: &[u16] =
    &[1, 52, 53, 54, 443, 852, 853, 854, 2047, 2048, 2176, 32767, 32768, 33023, 33024, 65535];

/// Names that rules lead to.
pub const PATTERNS: &[&str] = &[
    "one.test",
    "*.one.test",
    "a.one.test",
    "*.a.one.test",
    "*.test",
    "two.test",
    "*.two.test",
    "*.google",
    RESOLVER_NAME,
];
/// Addresses of a resolver that is known to be asked over HTTPS: among these the packets choose.
pub const RESOLVER_ADDRESSES: &[&str] = &["8.8.8.8", "64:ff9b::808:808", "2001:4860:4860::8888"];
/// Its name.
pub const RESOLVER_NAME: &str = "dns.google";
/// Names that were asked for.
pub const NAMES: &[&str] = &[
    "one.test",
    "a.one.test",
    "b.a.one.test",
    "c.b.a.one.test",
    "aone.test",
    "two.test",
    "x.two.test",
    "test",
    "x.other",
    RESOLVER_NAME,
    "xdns.google",
];
