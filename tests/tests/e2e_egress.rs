//! New connections: where, which ports, and who.

use anyhow::Result;
use dnswall_tests::act::{TcpBy, UdpBy, ping, raw_ping, tcp, tcp_by, udp, udp_by};
use dnswall_tests::case::{Case, allowed, case, denied, not_for_you, refused};
use dnswall_tests::check::check;
use dnswall_tests::who::{Exe, Who, at};

#[test]
fn destinations_and_ports_end_where_the_rule_says() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[[deny]]
name = "quarantine"
to = ["10.0.9.0/24", "2001:db8:bad::/48"]
[[deny]]
name = "no ssh"
to = ["any"]
ports = ["tcp/22"]
[[allow]]
name = "database"
to = ["10.0.3.0/24", "2001:db8:3::/48"]
ports = ["tcp/5432"]
[[allow]]
name = "range"
to = ["10.0.8.0/23"]
ports = ["tcp/1000-2000", "udp/1500", "icmp/echo"]
[[allow]]
name = "host"
to = ["10.0.4.4"]
[[allow]]
name = "v6"
to = ["2001:db8:bad::7", "2001:db8:6::6"]
ports = ["udp/any"]
[[allow]]
name = "internet"
to = ["internet"]
ports = ["tcp/443"]
"#;
    let app = || at("app.service");
    let none = refused("egress.denied");
    let quarantine = denied("egress.denied", "deny.quarantine");
    let yes = |name, act, rule| case(name, app(), act, allowed(rule));
    let no = |name, act| case(name, app(), act, none);
    check(
        policy,
        &[
            no("just below", tcp("10.0.2.255:5432")),
            yes("first", tcp("10.0.3.0:5432"), "allow.database"),
            yes("last", tcp("10.0.3.255:5432"), "allow.database"),
            no("just above", tcp("10.0.4.0:5432")),
            no("the port below", tcp("10.0.3.7:5431")),
            no("the port above", tcp("10.0.3.7:5433")),
            no("another protocol", udp("10.0.3.7:5432")),
            yes("IPv6", tcp("[2001:db8:3::7]:5432"), "allow.database"),
            yes("IPv6, last", tcp("[2001:db8:3:ffff:ffff:ffff:ffff:ffff]:5432"), "allow.database"),
            no("IPv6, just above", tcp("[2001:db8:4::]:5432")),
            no("IPv6, just below", tcp("[2001:db8:2:ffff:ffff:ffff:ffff:ffff]:5432")),
            yes("v4-mapped", tcp_by("10.0.3.7:5432", TcpBy::SixSocket), "allow.database"),
            no("v4-mapped, elsewhere", tcp_by("10.0.4.0:5432", TcpBy::SixSocket)),
            yes("fast open", tcp_by("10.0.3.7:5432", TcpBy::FastOpen), "allow.database"),
            no("fast open, elsewhere", tcp_by("10.0.2.7:5432", TcpBy::FastOpen)),
            yes("multipath", tcp_by("10.0.3.7:5432", TcpBy::Multipath), "allow.database"),
            yes("connected again", tcp_by("10.0.3.8:5432", TcpBy::Reconnected), "allow.database"),
            no("connected again, elsewhere", tcp_by("10.0.2.9:5432", TcpBy::Reconnected)),
            yes("deferred", tcp_by("10.0.3.7:5432", TcpBy::DeferredConnect), "allow.database"),
            no("deferred, elsewhere", tcp_by("10.0.2.10:5432", TcpBy::DeferredConnect)),
            no("multicast", udp("224.0.0.251:5353")),
            no("NAT64", udp("[64:ff9b::cb00:7101]:9999")),
            yes("io_uring", tcp_by("10.0.3.7:5432", TcpBy::Uring), "allow.database"),
            no("io_uring, elsewhere", tcp_by("10.0.2.8:5432", TcpBy::Uring)),
            yes("io_uring, UDP", udp_by("10.0.8.1:1500", UdpBy::Uring), "allow.range"),
            no("io_uring, UDP elsewhere", udp_by("10.0.2.8:1500", UdpBy::Uring)),
            no("multipath, elsewhere", tcp_by("10.0.2.7:5432", TcpBy::Multipath)),
            no("below the range", tcp("10.0.8.1:999")),
            yes("first of the range", tcp("10.0.8.1:1000"), "allow.range"),
            yes("last of the range", tcp("10.0.8.1:2000"), "allow.range"),
            no("above the range", tcp("10.0.8.1:2001")),
            yes("one UDP port", udp("10.0.8.1:1500"), "allow.range"),
            no("no other UDP port", udp("10.0.8.1:1501")),
            yes("UDP-Lite is UDP", udp_by("10.0.8.1:1500", UdpBy::Lite), "allow.range"),
            yes("echo", ping("10.0.8.1"), "allow.range"),
            case("deny over allow", app(), tcp("10.0.9.1:1500"), quarantine),
            case("deny over allow, UDP", app(), udp("10.0.9.255:1500"), quarantine),
            case("deny over allow, echo", app(), ping("10.0.9.1"), quarantine),
            case("deny over a narrower allow", app(), udp("[2001:db8:bad::7]:7"), quarantine),
            yes("any UDP port", udp("[2001:db8:6::6]:65535"), "allow.v6"),
            no("but no TCP", tcp("[2001:db8:6::6]:7")),
            yes("every port", tcp("10.0.4.4:1"), "allow.host"),
            yes("every UDP port", udp("10.0.4.4:65535"), "allow.host"),
            yes("echo too", ping("10.0.4.4"), "allow.host"),
            yes("echo from a raw socket", raw_ping("10.0.4.4"), "allow.host"),
            case("one port of it denied", app(), tcp("10.0.4.4:22"), denied("egress.denied", "deny.no ssh")),
            case("denied anywhere", app(), tcp("203.0.113.1:22"), denied("egress.denied", "deny.no ssh")),
            yes("internet", tcp("8.8.9.8:443"), "allow.internet"),
            yes("internet, IPv6", tcp("[2a00:77::1]:443"), "allow.internet"),
            no("internet, another port", tcp("8.8.9.8:80")),
            no("not internet", tcp("10.0.7.1:443")),
            no("documentation is not internet", tcp("203.0.113.1:443")),
            no("documentation is not internet, IPv6", tcp("[2001:db8:7::1]:443")),
            no("link-local is not internet", tcp("169.254.169.254:443")),
            no("unconnected UDP", udp_by("203.0.113.1:9999", UdpBy::Sendto)),
            no("connected UDP", udp_by("203.0.113.1:9999", UdpBy::Connected)),
            no("sendmmsg", udp_by("203.0.113.1:9999", UdpBy::Sendmmsg)),
            no("v4-mapped UDP", udp_by("203.0.113.1:9999", UdpBy::SixSocket)),
            no("connected elsewhere", udp_by("203.0.113.1:9999", UdpBy::Retargeted)),
            no("echo", ping("203.0.113.1")),
            // The kernel keeps the error of an IPv6 ping socket to itself (icmpv6_push_pending_frames).
            case("echo, IPv6", app(), ping("2001:db8:7::1"), none.unheard()),
            no("echo from a raw socket", raw_ping("203.0.113.1")),
            no("echo from a raw socket, IPv6", raw_ping("2001:db8:7::1")),
        ],
    )
}

#[test]
fn rules_bind_whom_they_name() -> Result<()> {
    let policy = format!(
        r#"
version = 1
mode = "enforce"
[[deny]]
name = "batch"
to = ["10.0.1.0/24"]
ports = ["tcp/2"]
from = [{{ unit = "batch-*.service" }}]
[[allow]]
name = "unit"
to = ["10.0.1.1"]
from = [{{ unit = "orders.service" }}]
[[allow]]
name = "glob"
to = ["10.0.1.2"]
from = [{{ unit = "batch-*.service" }}]
[[allow]]
name = "prefix"
to = ["10.0.1.3"]
from = [{{ unit = "ci-*" }}]
[[allow]]
name = "slice"
to = ["10.0.1.4"]
from = [{{ unit = "app-web.slice" }}]
[[allow]]
name = "cgroup"
to = ["10.0.1.5"]
from = [{{ cgroup = "{{root}}/app.slice/cache.service/main" }}]
[[allow]]
name = "container"
to = ["10.0.1.6"]
from = [{{ container = "{}" }}]
[[allow]]
name = "user"
to = ["10.0.1.7"]
from = [{{ user = "nobody" }}]
[[allow]]
name = "exe"
to = ["10.0.1.8"]
from = [{{ exe = "{{copies}}/worker" }}]
[[allow]]
name = "all keys"
to = ["10.0.1.9"]
from = [{{ unit = "orders.service", user = "65534", exe = "{{copies}}/worker" }}]
[[allow]]
name = "any entry"
to = ["10.0.1.10"]
from = [{{ unit = "a.service", user = "root" }}, {{ unit = "b.service" }}, {{ user = "daemon" }}]
[[allow]]
name = "exe glob"
to = ["10.0.1.11"]
from = [{{ exe = "{{copies}}/tool-*" }}]
[[allow]]
name = "everyone"
to = ["10.0.1.12"]
[[allow]]
name = "first"
to = ["10.0.1.12", "10.0.1.1"]
ports = ["tcp/1"]
"#,
        &CONTAINER[..12]
    );
    let container = |path: &str| at(&path.replace("ID", CONTAINER));
    let yes = |name: &'static str, who: Who, host: &str, rule| {
        case(name, who, tcp(&format!("{host}:1")), allowed(rule))
    };
    let no = |name: &'static str, who: Who, host: &str| {
        case(name, who, tcp(&format!("{host}:3")), not_for_you("egress.denied"))
    };
    let orders = || at("system.slice/orders.service");
    let worker = Exe::Copy("worker");
    let cases: Vec<Case> = vec![
        yes("unit", orders(), "10.0.1.1", "allow.unit"),
        yes("unit, deeper", at("orders.service/sub/tree"), "10.0.1.1", "allow.unit"),
        no("another unit", at("order.service"), "10.0.1.1"),
        no("a longer unit", at("orders.service.d"), "10.0.1.1"),
        no("a shorter unit", at("orders.servic"), "10.0.1.1"),
        no("a forged unit", at("web.service/orders.service"), "10.0.1.1"),
        no("no unit", at("system.slice"), "10.0.1.1"),
        yes("glob", at("batch-7.service"), "10.0.1.2", "allow.glob"),
        yes("glob, empty", at("batch-.service"), "10.0.1.2", "allow.glob"),
        yes("glob, deeper", at("system.slice/batch-a.b.service/x"), "10.0.1.2", "allow.glob"),
        no("glob, another type", at("batch-7.scope"), "10.0.1.2"),
        no("glob, another name", at("batc-7.service"), "10.0.1.2"),
        case(
            "deny binds the glob",
            at("batch-7.service"),
            tcp("10.0.1.2:2"),
            denied("egress.denied", "deny.batch"),
        ),
        yes("prefix", at("ci-runner.scope"), "10.0.1.3", "allow.prefix"),
        no("not the prefix", at("c-runner.scope"), "10.0.1.3"),
        yes("slice", at("app.slice/app-web.slice/nginx.service"), "10.0.1.4", "allow.slice"),
        no("another slice", at("app.slice/app-db.slice/pg.service"), "10.0.1.4"),
        no("a slice elsewhere", at("user.slice/app-web.slice/x.service"), "10.0.1.4"),
        yes("cgroup", at("app.slice/cache.service/main"), "10.0.1.5", "allow.cgroup"),
        yes("below the cgroup", at("app.slice/cache.service/main/worker"), "10.0.1.5", "allow.cgroup"),
        no("above the cgroup", at("app.slice/cache.service"), "10.0.1.5"),
        no("beside the cgroup", at("app.slice/cache.service/main2"), "10.0.1.5"),
        yes("docker", container("system.slice/docker-ID.scope"), "10.0.1.6", "allow.container"),
        yes(
            "kubernetes",
            container("kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope"),
            "10.0.1.6",
            "allow.container",
        ),
        yes("podman", container("machine.slice/libpod-ID.scope/container"), "10.0.1.6", "allow.container"),
        no("another container", at(&format!("docker-{}.scope", CONTAINER.replace('0', "1"))), "10.0.1.6"),
        no("no container", at(&format!("docker-{}.scope", &CONTAINER[..40])), "10.0.1.6"),
        no("a user's forged container", container("user.slice/user-1.slice/docker-ID.scope"), "10.0.1.6"),
        yes("user", at("app.service").uid(65534), "10.0.1.7", "allow.user"),
        no("another user", at("app.service").uid(1), "10.0.1.7"),
        no("root is another user", at("app.service"), "10.0.1.7"),
        yes("executable", at("app.service").exe(worker.clone()), "10.0.1.8", "allow.exe"),
        no("another executable", at("app.service").exe(Exe::Copy("worker2")), "10.0.1.8"),
        yes("all keys", orders().uid(65534).exe(worker.clone()), "10.0.1.9", "allow.all keys"),
        no("all keys but the user", orders().exe(worker.clone()), "10.0.1.9"),
        no("all keys but the executable", orders().uid(65534), "10.0.1.9"),
        no("all keys but the unit", at("x.service").uid(65534).exe(worker), "10.0.1.9"),
        yes("the first entry", at("a.service"), "10.0.1.10", "allow.any entry"),
        yes("the second entry", at("b.service").uid(65534), "10.0.1.10", "allow.any entry"),
        yes("the third entry", at("c.service").uid(1), "10.0.1.10", "allow.any entry"),
        no("half of the first entry", at("a.service").uid(65534), "10.0.1.10"),
        yes("executable by glob", at("app.service").exe(Exe::Copy("tool-1")), "10.0.1.11", "allow.exe glob"),
        yes(
            "executable by glob, another",
            at("app.service").exe(Exe::Copy("tool-2")),
            "10.0.1.11",
            "allow.exe glob",
        ),
        no("executable, not the glob", at("app.service").exe(Exe::Copy("tools")), "10.0.1.11"),
        yes("everyone", at("whoever.scope").uid(4711), "10.0.1.12", "allow.everyone"),
        yes("the first rule that binds", orders(), "10.0.1.1", "allow.unit"),
        yes("the second rule that binds", at("x.service"), "10.0.1.1", "allow.first"),
    ];
    check(&policy, &cases)
}

const CONTAINER: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
