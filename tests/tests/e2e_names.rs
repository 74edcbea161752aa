//! What may be asked: names of block lists, types, and messages that are one question.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dnswall_common::flow::protocol::{TCP, UDP};
use dnswall_tests::act::{Act, MessageBy};
use dnswall_tests::ask::{asked, asked6, message, wire};
use dnswall_tests::case::{Alarm, Case, Expect, allowed, case};
use dnswall_tests::check::{check, check_wall};
use dnswall_tests::feature::copies_from_pipes;
use dnswall_tests::pace::within;
use dnswall_tests::resolver::{Dnsmasq, RESOLVER, RESOLVER_V6};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;

const TOP: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253", "fd00:ec2::253"]
"#;

const fn refused(kind: &'static str, reason: &'static str, rule: &'static str) -> Expect {
    Expect::Refused(Alarm { kind, reason, rule })
}

fn line(name: &'static str, act: Act, expect: Expect) -> Case {
    case(name, at("app.service"), act, expect).unexplained()
}

/// One behind the other in a segment; they are of the same length.
fn two_messages(first: &[u8], second: &[u8]) -> Act {
    asked(&[first, &(second.len() as u16).to_be_bytes(), second].concat(), MessageBy::TwoMessages)
}

/// A policy with one list of these lines.
fn with_list(wall: &Wall, text: &str, more: &str) -> Result<String> {
    let path = wall.scratch("list.txt");
    fs::write(&path, text)?;
    Ok(format!("{TOP}\n[[blocklist]]\nname = \"bad\"\nsource = {path:?}\n{more}"))
}

#[test]
fn listed_names_are_refused_however_they_are_asked() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let list = "# bad names\nevil.example\n||never\n";
    let policy = with_list(&wall, list, "format = \"domains\"\n")?;
    wall.agent.start(Some(&policy))?;
    // Fast open without a cookie (4), so that the first packet carries data, whoever was asked before.
    wall.network.near.run(|| fs::write("/proc/sys/net/ipv4/tcp_fastopen", "5"))?;
    let denied = refused("dns.name", "listed-name", "blocklist.bad");
    let silent = denied.unheard();
    let (evil, below) = (wire("evil.example"), wire("a.b.EVIL.Example"));
    let good = wire("xevil.example");
    let edns = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    let mut with_edns = message(&evil, 28, &edns);
    with_edns[11] = 1;
    let resolvers = allowed("dns.resolvers");
    let deep: String = (0..18).map(|at| format!("l{at}.")).collect::<String>() + "evil.example";
    let long =
        format!("{}.{}.{}.{}.evil.example", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(48));
    let before_another = two_messages(&message(&evil, 1, &[]), &message(&wire("good.example"), 1, &[]));
    check_wall(
        &mut wall,
        &[
            line("the name", asked(&message(&evil, 1, &[]), MessageBy::Datagram), denied),
            line("over IPv6", asked6(&message(&evil, 1, &[]), MessageBy::Datagram), denied),
            line("over TCP", asked(&message(&evil, 1, &[]), MessageBy::Stream), silent),
            line("over TCP and IPv6", asked6(&message(&evil, 1, &[]), MessageBy::Stream), silent),
            line("in the first packet", asked(&message(&evil, 1, &[]), MessageBy::FastOpen), silent),
            line("over UDP-Lite", asked(&message(&evil, 1, &[]), MessageBy::Lite), denied),
            line("before another name in a segment", before_another, silent),
            line("below it, in another case", asked(&message(&below, 16, &[]), MessageBy::Datagram), denied),
            line("with EDNS", asked(&with_edns, MessageBy::Datagram), denied),
            line("far below", asked(&message(&wire(&deep), 1, &[]), MessageBy::Datagram), denied),
            line(
                "as long as a name may be",
                asked(&message(&wire(&long), 1, &[]), MessageBy::Datagram),
                denied,
            ),
            line("look-alike", asked(&message(&good, 1, &[]), MessageBy::Datagram), resolvers),
            line(
                "look-alike in the first packet",
                asked(&message(&good, 1, &[]), MessageBy::FastOpen),
                resolvers,
            ),
            line("look-alike over TCP", asked6(&message(&good, 1, &[]), MessageBy::Stream), resolvers),
            line("the parent", asked(&message(&wire("example"), 1, &[]), MessageBy::Datagram), resolvers),
            line("a sibling", asked(&message(&wire("good.example"), 1, &[]), MessageBy::Datagram), resolvers),
            line(
                "one more",
                asked(&message(&wire("evil.example.org"), 1, &[]), MessageBy::Datagram),
                resolvers,
            ),
            line("the root", asked(&message(&wire(""), 2, &[]), MessageBy::Datagram), resolvers),
        ],
    )?;
    let alerts = wall.agent.alerts()?;
    let named = |name: &str| {
        alerts.iter().find(|alert| alert["dns"]["name"] == name).map(|alert| alert["dns"].clone())
    };
    let said = named("a.b.EVIL.Example").context("an alert with the name as it was asked")?;
    ensure!(
        said["list"] == "bad" && said["entry"] == "evil.example" && said["line"] == 2,
        "the alert does not say which entry: {said}"
    );
    Ok(())
}

#[test]
fn only_whole_single_questions_leave() -> Result<()> {
    let fine = message(&wire("www.example"), 1, &[]);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut message = fine.clone();
        change(&mut message);
        message
    };
    let malformed = refused("dns.malformed", "malformed-question", "default");
    let split = refused("dns.malformed", "split-question", "default");
    let other = refused("dns.malformed", "not-a-question", "default");
    let unstable = refused("dns.malformed", "unstable-question", "default");
    let other_name = message(&wire("xxx.example"), 1, &[]);
    let resolvers = allowed("dns.resolvers");
    let piped = |over_ipv6| -> Result<Expect> {
        Ok(if copies_from_pipes(over_ipv6)? { resolvers } else { unstable })
    };
    let two = with(&|message| {
        message[5] = 2;
        message.extend(wire("evil.example"));
        message.extend([0, 1, 0, 1]);
    });
    let padded = message(&wire("www.example"), 1, &[0; 3000]);
    let long = message(&wire("www.example"), 1, &[0; 1000]);
    let many: String = (0..41).map(|_| "a.").collect();
    let forty: String = (0..40).map(|_| "a.").collect();
    let too_long: String = (0..4).map(|_| "b".repeat(63) + ".").collect();
    let datagram = |message: &[u8]| asked(message, MessageBy::Datagram);
    check(
        TOP,
        &[
            line(
                "an answer over TCP from port 53",
                asked(&with(&|message| message[2] |= 0x80), MessageBy::StreamFromPort53),
                other.unheard(),
            ),
            line("one question", datagram(&fine), resolvers),
            line("IXFR, with what is there", datagram(&with(&|message| message[9] = 1)), resolvers.unheard()),
            line("forty labels", datagram(&message(&wire(&forty), 1, &[])), resolvers),
            line(
                "forty-one",
                datagram(&message(&wire(&many), 1, &[])),
                refused("dns.malformed", "too-many-labels", "default"),
            ),
            line("a name of 257 bytes", datagram(&message(&wire(&too_long), 1, &[])), malformed),
            line("nothing", datagram(&[]), malformed),
            line("half a header", datagram(&fine[..7]), malformed),
            line("a header", datagram(&fine[..12]), malformed),
            line("half a label", datagram(&fine[..15]), malformed),
            line("no end of the name", datagram(&fine[..24]), malformed),
            line("no type", datagram(&fine[..25]), malformed),
            line("half a class", datagram(&fine[..28]), malformed),
            line("two questions", datagram(&two), malformed),
            line("no question", datagram(&with(&|message| message[5] = 0)), malformed),
            line("256 questions", datagram(&with(&|message| message[4] = 1)), malformed),
            line("an answer within", datagram(&with(&|message| message[7] = 1)), malformed),
            line("two authorities", datagram(&with(&|message| message[9] = 2)), malformed),
            line("a pointer", datagram(&message(&[1, b'a', 0xc0, 12], 1, &[])), malformed),
            line("a label of another kind", datagram(&message(&[0x41, b'a', 0], 1, &[])), malformed),
            line("an answer", datagram(&with(&|message| message[2] |= 0x80)), other),
            line("an update", datagram(&with(&|message| message[2] = 5 << 3)), other),
            line("a notification", datagram(&with(&|message| message[2] = 4 << 3)), other),
            line("two in one buffer", asked(&fine, MessageBy::Segments), split),
            line("over TCP", asked(&fine, MessageBy::Stream), resolvers),
            line("longer than a segment", asked(&padded, MessageBy::Stream), split.unheard()),
            line(
                "twice in a segment, as libc does for both families",
                asked(&fine, MessageBy::Twice),
                resolvers,
            ),
            line("two names in a segment", two_messages(&fine, &other_name), split.unheard()),
            line("an urgent byte", asked(&fine, MessageBy::Urgent), split.unheard()),
            // Of a short datagram kernels before 6.0 copy everything.
            line("memory that is not copied", asked(&long, MessageBy::ZeroCopy), unstable),
            line("the same over IPv6", asked6(&long, MessageBy::ZeroCopy), unstable),
            line("the same over TCP", asked(&fine, MessageBy::ZeroCopyStream), unstable.unheard()),
            line("memory from a pipe", asked(&fine, MessageBy::Spliced), piped(false)?),
            line("the same over IPv6", asked6(&fine, MessageBy::Spliced), piped(true)?),
            line("the same over TCP", asked6(&fine, MessageBy::SplicedStream), unstable.unheard()),
            line(
                "an update over TCP",
                asked(&with(&|message| message[2] = 5 << 3), MessageBy::Stream),
                other.unheard(),
            ),
            line("two questions over TCP", asked6(&two, MessageBy::Stream), malformed.unheard()),
        ],
    )
}

/// What a server that is asked from port 53 answers leaves; who writes a message in pieces has it held back until it is whole.
#[test]
fn answers_and_messages_in_pieces() -> Result<()> {
    let wall = Wall::raise(TOP)?;
    let fine = message(&wire("www.example"), 1, &[]);
    let mut answer = fine.clone();
    answer[2] |= 0x80;
    for server in [RESOLVER, RESOLVER_V6] {
        let server = SocketAddr::new(server, 53);
        let act = Act::Message { server, message: answer.clone(), by: MessageBy::FromPort53 };
        let mark = wall.capture.mark()?;
        wall.run(&at("app.service"), act)?;
        wall.capture.mark()?;
        let arrived = wall.capture.to_port(mark, UDP, server);
        ensure!(arrived.len() == 2, "answers to {server} from port 53: {} arrived", arrived.len());
    }
    for by in [MessageBy::LengthApart, MessageBy::Halves] {
        let alerts = wall.agent.alerts()?.len();
        let report = wall.run(&at("app.service"), asked(&fine, by))?;
        ensure!(report.ok, "{by:?}: {report:?}");
        wall.agent.wait_for_alert(alerts, |alert| alert["reason"] == "split-question")?;
    }
    Ok(())
}

/// Over TCP a refused question is dropped, with all its repeats: the kernel ends the connection by itself after some seconds, so
/// that the client does not wait for ever.
#[test]
fn a_connection_ends_by_itself() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let policy = with_list(&wall, "evil.example\n", "")?;
    wall.agent.start(Some(&policy))?;
    wall.agent.kill()?;
    for server in [RESOLVER, RESOLVER_V6] {
        let to = SocketAddr::new(server, 53);
        let act = Act::Message {
            server: to,
            message: message(&wire("evil.example"), 1, &[]),
            by: MessageBy::Patient,
        };
        let report = wall.run(&at("app.service"), act)?;
        ensure!(report.errno == Some(libc::ETIMEDOUT), "not ended: {report:?}");
        let seconds = report.elapsed_us as f64 / 1e6;
        ensure!((2.5..15.0).contains(&seconds), "after {seconds} s");
    }
    Ok(())
}

#[test]
fn types_that_the_policy_names_are_refused() -> Result<()> {
    let policy = TOP.to_owned() + "deny-types = [\"NULL\", \"any\", \"TYPE65399\"]\n";
    let denied = refused("dns.type", "question-type", "dns.deny-types");
    let of = |kind: u16| message(&wire("www.example"), kind, &[]);
    let resolvers = allowed("dns.resolvers");
    check(
        &policy,
        &[
            line("NULL", asked(&of(10), MessageBy::Datagram), denied),
            line("ANY over IPv6", asked6(&of(255), MessageBy::Datagram), denied),
            line("ANY over TCP", asked(&of(255), MessageBy::Stream), denied.unheard()),
            line("one without a name", asked(&of(65399), MessageBy::Datagram), denied),
            line("A", asked(&of(1), MessageBy::Datagram), resolvers),
            line("its neighbours", asked(&of(11), MessageBy::Datagram), resolvers),
            line("TYPE65400", asked(&of(65400), MessageBy::Datagram), resolvers),
        ],
    )
}

#[test]
fn meanings_exceptions_and_modes() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let write = |name: &str, text: &str| -> Result<String> {
        let path = wall.scratch(name);
        fs::write(&path, text)?;
        Ok(format!("{path:?}"))
    };
    let abp = write(
        "abp.txt",
        "||tree.example^\n@@||good.tree.example^\n||bad.good.tree.example^\n|alone.example^\n\
         ||*.under.example^\n||twice.example^\n@@||fine.twice.example^\n",
    )?;
    let hosts = write("hosts", "0.0.0.0 host.example\n")?;
    let more = write("more.txt", "worse.good.tree.example\nboth.example\n")?;
    let told = write(
        "told.txt",
        "||told.example^\n@@||good.told.example^\n||*.under.told^\n|alone.told^\n\
         ||both.example^\n@@||fine.both.example^\n||twice.example^\n",
    )?;
    let also = write("also.txt", "worse.good.told.example\n")?;
    let top = write("top.txt", "known.tree.example\n")?;
    let policy = format!(
        r#"{TOP}
deny-types = ["NULL"]
[[blocklist]]
name = "abp"
source = {abp}
[[blocklist]]
name = "hosts"
source = {hosts}
[[blocklist]]
name = "more"
source = {more}
[[blocklist]]
name = "watched"
source = {told}
action = "alert"
[[blocklist]]
name = "also"
source = {also}
action = "alert"
[known-good]
names = ["*.fine.tree.example", "fine.told.example"]
lists = [{top}]
[[scope]]
name = "trial"
from = [{{ unit = "trial.service" }}]
mode = "audit"
"#
    );
    wall.agent.start(Some(&policy))?;
    let ask = |name: &str| asked(&message(&wire(name), 1, &[]), MessageBy::Datagram);
    let (first, second) = (message(&wire("told.example"), 1, &[]), message(&wire("tree.example"), 1, &[]));
    let behind = two_messages(&first, &second);
    let resolvers = allowed("dns.resolvers");
    let by_abp = refused("dns.name", "listed-name", "blocklist.abp");
    let by_hosts = refused("dns.name", "listed-name", "blocklist.hosts");
    let by_more = refused("dns.name", "listed-name", "blocklist.more");
    let by_type = refused("dns.type", "question-type", "dns.deny-types");
    let ask_null = |name: &str| asked(&message(&wire(name), 10, &[]), MessageBy::Datagram);
    let null_behind = two_messages(&first, &message(&wire("told.example"), 10, &[]));
    let told_by = |rule| Expect::WouldDeny(Alarm { kind: "dns.name", reason: "listed-name", rule });
    let (told, by_also) = (told_by("blocklist.watched"), told_by("blocklist.also"));
    let audited = told_by("blocklist.abp");
    check_wall(
        &mut wall,
        &[
            line("a tree", ask("tree.example"), by_abp),
            line("in a tree", ask("a.b.tree.example"), by_abp),
            line("an exception", ask("good.tree.example"), resolvers),
            line("below an exception", ask("x.good.tree.example"), resolvers),
            line("an entry below an exception of its own list", ask("bad.good.tree.example"), resolvers),
            line("one of another list", ask("worse.good.tree.example"), by_more),
            line("a name alone", ask("alone.example"), by_abp),
            line("below a name alone", ask("a.alone.example"), resolvers),
            line("what is below a name", ask("a.under.example"), by_abp),
            line("not the name itself", ask("under.example"), resolvers),
            line("a host", ask("host.example"), by_hosts),
            line("below a host", ask("www.host.example"), resolvers),
            line("known to be good", ask("known.tree.example"), resolvers),
            line("below what is known to be good", ask("a.known.tree.example"), by_abp),
            line("below a good tree", ask("a.fine.tree.example"), resolvers),
            line("the good tree itself", ask("fine.tree.example"), by_abp),
            line("of a refused type, too", ask_null("tree.example"), by_abp),
            line("only told of", ask("told.example"), told),
            line("below what is told of", ask("a.told.example"), told),
            line("an exception from what is told of", ask("good.told.example"), resolvers),
            line("one of another list that tells", ask("worse.good.told.example"), by_also),
            line("told of, and known to be good", ask("fine.told.example"), resolvers),
            line("a name alone that is told of", ask("alone.told"), told),
            line("below it", ask("a.alone.told"), resolvers),
            line("told of what is below a name", ask("a.under.told"), told),
            line("not of the name itself", ask("under.told"), resolvers),
            line("refused and told of", ask("both.example"), by_more),
            line(
                "refused and told of, where only the telling has an exception",
                ask("fine.both.example"),
                by_more,
            ),
            line("where only the refusal has one", ask("fine.twice.example"), told),
            line("told of, and of a refused type", ask_null("told.example"), by_type),
            line("the same behind one that is told of", null_behind, by_type.unheard()),
            line(
                "one that is refused behind it",
                behind,
                refused("dns.malformed", "split-question", "default").unheard(),
            ),
            case("audited", at("trial.service"), ask("tree.example"), audited).unexplained(),
        ],
    )?;
    let (code, lists) = wall.agent.ask(&["blocklist", "status"])?;
    ensure!(
        code == 0 && lists["lists"][0]["exceptions"] == 2 && lists["lists"][0]["repeated"] == 1,
        "{lists}"
    );
    let (code, said) = wall.agent.ask(&["blocklist", "check", "X.Tree.Example"])?;
    ensure!(code == 1 && said["rule"] == "blocklist.abp" && said["by"]["line"] == 1, "{code} {said}");
    let (code, said) = wall.agent.ask(&["blocklist", "check", "x.good.tree.example"])?;
    ensure!(code == 0 && said["exception"]["entry"] == "good.tree.example", "{code} {said}");
    Ok(())
}

#[test]
fn who_asks_a_resolver_on_loopback_is_who_is_refused() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let path = wall.scratch("list.txt");
    fs::write(&path, "evil.example\n")?;
    let policy = format!(
        "{TOP}\n[[dns.stub]]\naddress = \"127.0.0.53\"\n[[blocklist]]\nname = \"bad\"\nsource = {path:?}\n"
    );
    wall.agent.start(Some(&policy))?;
    let stub = "127.0.0.53".parse()?;
    let cgroup = wall.tree.child("stub.service")?;
    let _stub = Dnsmasq::forward(wall.probe(), &wall.network.near, Some(cgroup), &[stub], RESOLVER)?;
    let ask = |name: &str, by| Act::Message {
        server: SocketAddr::new(stub, 53),
        message: message(&wire(name), 1, &[]),
        by,
    };
    let denied = refused("dns.name", "listed-name", "blocklist.bad");
    check_wall(
        &mut wall,
        &[
            line("a name", ask("www.example", MessageBy::Datagram), allowed("dns.stub.0")),
            line("a name over TCP", ask("www.example", MessageBy::Stream), allowed("dns.stub.0")),
            line("a listed one", ask("evil.example", MessageBy::Datagram), denied),
            line("a listed one over TCP", ask("evil.example", MessageBy::Stream), denied.unheard()),
            line("an update", ask_update(stub), refused("dns.malformed", "not-a-question", "default")),
        ],
    )
}

/// What a connection carries that is older than the wall is looked at like any other's, once it goes to port 53.
#[test]
fn an_old_connection_asks_like_a_new_one() -> Result<()> {
    let mut wall = Wall::build()?;
    let mut held = Vec::new();
    for server in [RESOLVER, RESOLVER_V6] {
        let act = Act::Hold { to: SocketAddr::new(server, 53), tcp: true };
        held.push((server, wall.start(&at("app.service"), act)?));
    }
    wall.agent.start(Some(TOP))?;
    for (server, held) in &mut held {
        // Its greeting, which is no message.
        let mark = wall.capture.mark()?;
        let report = held.exchange()?;
        wall.capture.mark()?;
        let arrived = wall.capture.to_port(mark, TCP, SocketAddr::new(*server, 53));
        let data = arrived.iter().filter(|packet| packet.carries_data()).count();
        ensure!(!report.ok && data == 0, "{server}: {data} packets arrived, {report:?}");
        wall.agent.wait_for_alert(0, |alert| {
            alert["reason"] == "split-question" && alert["flow"]["destination"] == server.to_string()
        })?;
    }
    Ok(())
}

fn ask_update(server: std::net::IpAddr) -> Act {
    let mut message = message(&wire("www.example"), 1, &[]);
    message[2] = 5 << 3;
    Act::Message { server: SocketAddr::new(server, 53), message, by: MessageBy::Datagram }
}

#[test]
fn a_list_that_changes_is_read_again_and_a_bad_one_is_not() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let path = wall.scratch("list.txt");
    let policy = with_list(&wall, "one.example\n", "min-entries = 1\n")?;
    wall.agent.start(Some(&policy))?;
    let refused = |wall: &Wall, name: &str| -> Result<bool> {
        let act = asked(&message(&wire(name), 1, &[]), MessageBy::Datagram);
        Ok(wall.run(&at("app.service"), act)?.is_refused())
    };
    ensure!(refused(&wall, "one.example")? && !refused(&wall, "two.example")?, "as the list says");
    fs::write(&path, "one.example\ntwo.example\n")?;
    wait_until("the list is read again", || refused(&wall, "two.example"))?;
    // Emptied: what was read before goes on.
    fs::write(&path, "\n")?;
    wait_until("the emptied list is told of", || {
        let warnings = wall.agent.status()?["warnings"].to_string();
        Ok(warnings.contains("it has 0 entries"))
    })?;
    ensure!(refused(&wall, "one.example")? && refused(&wall, "two.example")?, "what was read before goes on");
    // Whoever starts without it says so, and the wall stands.
    let said = wall.agent.apply(&policy.replace("[[blocklist]]", "# again\n[[blocklist]]"))?;
    ensure!(said.code == 3 && said.errors.contains("it has 0 entries"), "{said:?}");
    wall.agent.kill()?;
    ensure!(refused(&wall, "two.example")?, "without an agent");
    Ok(())
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = std::time::Instant::now() + within(Duration::from_secs(20));
    while std::time::Instant::now() < until {
        if is_so()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("{what}: not within 20 s")
}
