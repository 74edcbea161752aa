//! Sockets in other hands, and processes that want to look like others.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use dnswall_agent::kernel::executable_identity;
use dnswall_tests::act::{Act, address, disguised, tcp, udp};
use dnswall_tests::case::{allowed, case, denied, not_for_you};
use dnswall_tests::check::{check, check_wall};
use dnswall_tests::mounted::Mounted;
use dnswall_tests::trick::{Disguise, Handed, Handover};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Exe, Who, at};

const GOOD_ONLY: &str = r#"
version = 1
mode = "enforce"
[[allow]]
name = "good"
to = ["10.0.3.0/24", "2001:db8:3::/48"]
from = [{ unit = "good.service" }]
"#;

const TOOL_ONLY: &str = r#"
version = 1
mode = "enforce"
[[allow]]
name = "tool"
to = ["10.0.3.0/24"]
from = [{ exe = "{copies}/tool" }]
"#;

#[test]
fn a_socket_from_another_is_judged_by_who_names_a_destination() -> Result<()> {
    let mut cases = Vec::new();
    for how in [Handover::Passed, Handover::Taken, Handover::Migrated] {
        for what in [Handed::Udp, Handed::UdpConnectedAgain, Handed::Tcp] {
            for to in ["10.0.3.8:9000", "[2001:db8:3::8]:9000"] {
                let from = |maker: &str| handed(to, what, how, maker);
                cases.push(case("from the good to the bad", bad(), from("good.service"), no()));
                cases.push(case(
                    "from the bad to the good",
                    good(),
                    from("bad.service"),
                    allowed("allow.good"),
                ));
            }
        }
    }
    // The tables open servers for plain acts.
    for to in ["10.0.3.8:9000", "[2001:db8:3::8]:9000"] {
        cases.push(case("directly", good(), udp(to), allowed("allow.good")));
        cases.push(case("directly", good(), tcp(to), allowed("allow.good")));
    }
    check(GOOD_ONLY, &cases)
}

/// Whoever may make cgroups below his own calls them what he likes.
#[test]
fn a_container_is_no_directory_of_somebodys_own() -> Result<()> {
    let id = "3f29c1d4e5a6".to_owned() + &"0".repeat(52);
    let policy = "version = 1\nmode = \"enforce\"\n[[allow]]\nname = \"container\"\nto = [\"10.0.3.0/24\"]\n\
        from = [{ container = \"3f29c1d4e5a6\" }]\n";
    let mut cases = Vec::new();
    for cgroup in
        ["docker-ID.scope", "machine.slice/libpod-ID.scope/container", "docker/ID", "kubepods/pod1/ID/x"]
    {
        let container = at(&cgroup.replace("ID", &id));
        cases.push(case(cgroup, container, tcp("10.0.3.8:9000"), allowed("allow.container")));
    }
    for cgroup in [
        "evil.service/docker-ID.scope",
        "evil.service/docker/ID",
        "evil.service/ID",
        "run-1.scope/docker-ID.scope",
        "user.slice/docker-ID.scope",
        "lxc.payload.one/ID",
    ] {
        let impostor = at(&cgroup.replace("ID", &id)).uid(65534);
        cases.push(case(cgroup, impostor, tcp("10.0.3.8:9000"), no()));
    }
    check(policy, &cases)
}

#[test]
fn who_gives_up_being_root_is_no_longer_root() -> Result<()> {
    let policy = "version = 1\nmode = \"enforce\"\n[[allow]]\nname = \"root\"\nto = [\"10.0.3.0/24\", \
        \"2001:db8:3::/48\"]\nfrom = [{ user = \"root\" }]\n";
    let nobody = at("app.service").uid(65534);
    let mut cases = Vec::new();
    for to in ["10.0.3.8:9000", "[2001:db8:3::8]:9000"] {
        for what in [Handed::Udp, Handed::UdpConnectedAgain, Handed::Tcp] {
            let act = handed(to, what, Handover::Migrated, "app.service");
            cases.push(case("by a socket from before", nobody.clone(), act, no()));
        }
        cases.push(case("as root", at("app.service"), udp(to), allowed("allow.root")));
        cases.push(case("as root", at("app.service"), tcp(to), allowed("allow.root")));
    }
    check(policy, &cases)
}

/// A container without a user namespace has a root who can take any user's number.
#[test]
fn a_user_of_the_hosts_is_none_of_a_containers() -> Result<()> {
    let container = "docker-".to_owned() + &"3f29c1d4e5a6".repeat(6)[..64] + ".scope";
    let policy = "version = 1\nmode = \"enforce\"\n\
        [[allow]]\nname = \"users\"\nto = [\"10.0.3.0/24\", \"2001:db8:3::/48\"]\nfrom = [{ user = 65533 }]\n\
        [[allow]]\nname = \"in it\"\nto = [\"10.0.4.0/24\"]\nfrom = [{ user = 65533, container = \"3f29c1d4e5a6\" }]\n\
        [[allow]]\nname = \"all\"\nto = [\"10.0.5.0/24\"]\n\
        [[deny]]\nname = \"users\"\nto = [\"10.0.5.8\"]\nfrom = [{ user = 65533 }]\n";
    let inside = || at(&container).uid(65533);
    let outside = || at("app.service").uid(65533);
    let mut cases = vec![
        case("with its container", inside(), udp("10.0.4.8:9000"), allowed("allow.in it")),
        case("with its container", inside(), tcp("10.0.4.8:9000"), allowed("allow.in it")),
        case("another container's rule", outside(), tcp("10.0.4.8:9000"), no()),
        case("refused inside, too", inside(), tcp("10.0.5.8:9000"), denied("egress.denied", "deny.users")),
        case("refused outside", outside(), tcp("10.0.5.8:9000"), denied("egress.denied", "deny.users")),
        case("others are not refused", at(&container), tcp("10.0.5.8:9000"), allowed("allow.all")),
    ];
    for to in ["10.0.3.8:9000", "[2001:db8:3::8]:9000"] {
        cases.push(case("inside", inside(), udp(to), no()));
        cases.push(case("inside", inside(), tcp(to), no()));
        cases.push(case("outside", outside(), udp(to), allowed("allow.users")));
        cases.push(case("outside", outside(), tcp(to), allowed("allow.users")));
    }
    check(policy, &cases)
}

/// What docs/enforcement.md says is open: neither `send()` nor a ping socket asks a hook who is at it.
#[test]
fn what_a_connected_or_ping_socket_sends_counts_for_its_maker() -> Result<()> {
    let mut cases = vec![
        case("directly", good(), udp("10.0.3.8:9000"), allowed("allow.good")),
        case("directly", good(), tcp("10.0.3.8:9000"), allowed("allow.good")),
    ];
    for how in [Handover::Passed, Handover::Taken, Handover::Migrated] {
        for what in [Handed::UdpConnected, Handed::TcpConnected, Handed::Ping] {
            let act = handed("10.0.3.8:9000", what, how, "good.service");
            cases.push(case("from the good to the bad", bad(), act, allowed("allow.good")).unexplained());
        }
    }
    check(GOOD_ONLY, &cases)
}

#[test]
fn an_inherited_socket_is_judged_by_who_names_a_destination() -> Result<()> {
    let mut wall = Wall::raise(GOOD_ONLY)?;
    let to = address("10.0.3.8:9000");
    wall.echo(&[to].into(), &[to].into())?;
    for what in [Handed::Udp, Handed::UdpConnectedAgain, Handed::Tcp] {
        let from = |maker: &str| handed("10.0.3.8:9000", what, Handover::Inherited, maker);
        let report = wall.run(&bad(), from("good.service"))?;
        ensure!(report.is_refused(), "{what:?} from the good to the bad: {report:?}");
        let report = wall.run(&good(), from("bad.service"))?;
        ensure!(report.ok, "{what:?} from the bad to the good: {report:?}");
    }
    Ok(())
}

#[test]
fn a_name_is_no_identity() -> Result<()> {
    let named = |name: &str, act| disguised(Disguise::Named(name.into()), act);
    let tool = at("app.service").exe(Exe::Copy("tool"));
    let yes = allowed("allow.tool");
    let mut wall = Wall::build()?;
    let path = wall.copy("tool")?;
    fs::hard_link(&path, wall.copies().join("linked"))?;
    std::os::unix::fs::symlink(&path, wall.copies().join("pointed"))?;
    let policy = wall.fill_in(TOOL_ONLY);
    wall.agent.start(Some(&policy))?;
    let other = |name| at("app.service").exe(Exe::Copy(name));
    let to = || tcp("10.0.3.8:9000");
    check_wall(
        &mut wall,
        &[
            case("the tool", tool.clone(), to(), yes),
            case("by another name", tool, named("probe", to()), yes),
            case("another by its name", at("app.service"), named("tool", to()), no()),
            case("another link to its file", other("linked"), to(), yes).unexplained(),
            case("a pointer to its file", other("pointed"), to(), yes).unexplained(),
            case("its bytes in another file", other("copied"), to(), no()),
        ],
    )
}

#[test]
fn a_program_is_what_the_kernel_runs() -> Result<()> {
    let mut wall = Wall::build()?;
    let tool = wall.copy("tool")?;
    let policy = wall.fill_in(TOOL_ONLY);
    wall.agent.start(Some(&policy))?;
    let to = address("10.0.3.8:9000");
    wall.echo(&[to].into(), &[to].into())?;
    let app = at("app.service");
    let user = at("app.service").uid(65534);
    // Whoever runs the tool is the tool.
    let report = wall.run(&app, disguised(Disguise::Exec(tool.clone()), udp("10.0.3.8:9000")))?;
    ensure!(report.ok, "the tool itself: {report:?}");
    for (who, disguise) in [
        (&app, Disguise::Memfd(tool.clone())),
        (&app, Disguise::Loader(tool.clone())),
        (&app, Disguise::MountedOver(tool.clone())),
    ] {
        for act in [udp("10.0.3.8:9000"), tcp("10.0.3.8:9000")] {
            let mark = wall.capture.mark()?;
            let report = wall.run(who, disguised(disguise.clone(), act))?;
            ensure!(
                report.is_refused() && report.step.as_deref() != Some("disguise"),
                "{disguise:?}: {report:?}"
            );
            wall.capture.mark()?;
            ensure!(wall.capture.since(mark, to.ip()).is_empty(), "{disguise:?}: it arrived");
        }
    }
    // The kernel lets nobody claim a file while it runs another, and a user not at all. Root wants CAP_SYS_RESOURCE.
    for (who, errors) in [(&app, &[libc::EBUSY, libc::EPERM][..]), (&user, &[libc::EPERM])] {
        let report = wall.run(who, disguised(Disguise::ExeFile(tool.clone()), udp("10.0.3.8:9000")))?;
        let refused = report.errno.is_some_and(|error| errors.contains(&error));
        ensure!(report.step.as_deref() == Some("disguise") && refused, "{report:?}");
    }
    Ok(())
}

#[test]
fn namespaces_of_ones_own_change_nobody() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[[allow]]
name = "root"
to = ["10.0.3.0/24"]
from = [{ user = "root" }]
[[allow]]
name = "nobody"
to = ["10.0.5.0/24"]
from = [{ user = "nobody", unit = "app.service" }]
[[allow]]
name = "good"
to = ["10.0.6.0/24"]
from = [{ unit = "good.service" }]
"#;
    let user = || at("app.service").uid(65534);
    let hidden = || at("app.service/good.service").uid(65534);
    let as_root = |to: &str| disguised(Disguise::UserNamespace, tcp(to));
    let apart = |to: &str| disguised(Disguise::CgroupNamespace, tcp(to));
    check(
        policy,
        &[
            case("root of a user namespace", user(), as_root("10.0.3.8:9000"), no()),
            case("is still nobody", user(), as_root("10.0.5.8:9000"), allowed("allow.nobody")),
            case("root of a cgroup namespace", user(), apart("10.0.3.8:9000"), no()),
            case("is still there", user(), apart("10.0.5.8:9000"), allowed("allow.nobody")),
            case("at its own root", hidden(), apart("10.0.6.8:9000"), no()),
            case("directly", user(), tcp("10.0.5.8:9000"), allowed("allow.nobody")),
        ],
    )
}

#[test]
fn a_network_namespace_of_ones_own_leads_nowhere() -> Result<()> {
    let mut wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let to = address("10.0.3.8:9000");
    wall.echo(&[to].into(), &[to].into())?;
    let user = at("app.service").uid(65534);
    // A connection is refused before it finds no route.
    for (act, errno) in [(udp("10.0.3.8:9000"), libc::ENETUNREACH), (tcp("10.0.3.8:9000"), libc::EPERM)] {
        let mark = wall.capture.mark()?;
        let report = wall.run(&user, disguised(Disguise::NetNamespace, act))?;
        ensure!(!report.ok && report.errno == Some(errno), "{report:?}");
        wall.capture.mark()?;
        ensure!(wall.capture.since(mark, to.ip()).is_empty(), "it arrived");
    }
    Ok(())
}

fn handed(to: &str, what: Handed, how: Handover, maker: &str) -> Act {
    Act::Handed { to: address(to), what, how, maker: maker.into() }
}

fn good() -> Who {
    at("good.service")
}

fn bad() -> Who {
    at("bad.service").uid(65534)
}

fn no() -> dnswall_tests::case::Expect {
    not_for_you("egress.denied")
}

/// Layers of an overlay (as subvolumes of btrfs) have numbers of their own under one device: a user makes files until one has
/// the number of the program that a rule names.
#[test]
fn a_files_number_is_not_enough() -> Result<()> {
    let mut wall = Wall::build()?;
    let (lower, upper) = (wall.scratch("lower"), wall.scratch("upper"));
    let layers = [Mounted::tmpfs(&lower)?, Mounted::tmpfs(&upper)?];
    for number in 0..32 {
        fs::write(lower.join(format!("filler{number}")), "")?;
    }
    fs::copy(wall.probe(), lower.join("tool"))?;
    let (own, work) = (upper.join("own"), upper.join("work"));
    fs::create_dir(&own)?;
    fs::create_dir(&work)?;
    let overlay = Mounted::overlay(&lower, &own, &work, &wall.copies())?;
    let wanted = fs::metadata(lower.join("tool"))?.ino();
    let forged = (0..256).find(|number| {
        let name = format!("forged{number}");
        fs::copy(wall.probe(), wall.copies().join(&name)).is_ok()
            && fs::metadata(own.join(&name)).is_ok_and(|made| made.ino() == wanted)
    });
    let forged = forged.with_context(|| format!("no file got the number {wanted}"))?;
    fs::rename(wall.copies().join(format!("forged{forged}")), wall.copies().join("forged"))?;
    chown(wall.copies().join("forged"), Some(65534), None)?;
    let policy = wall.fill_in(TOOL_ONLY);
    wall.agent.start(Some(&policy))?;
    let (_, device) = executable_identity(&File::open(wall.copies().join("tool"))?)?;
    let layers_device = fs::metadata(lower.join("tool"))?.dev();
    let of_layer = rustix::fs::major(layers_device) << 20 | rustix::fs::minor(layers_device);
    if device == of_layer {
        // Nobody can tell then what the kernel will know it by: no rule binds it.
        println!("not run: this kernel shows an overlay's layer");
        return Ok(());
    }
    let as_copy = |name| at("app.service").uid(65534).exe(Exe::Copy(name));
    check_wall(
        &mut wall,
        &[
            case("the program", as_copy("tool"), tcp("10.0.3.8:9000"), allowed("allow.tool")),
            case("a user's file of its number", as_copy("forged"), tcp("10.0.3.9:9000"), no()),
        ],
    )?;
    drop((overlay, layers));
    Ok(())
}

/// Two files with one number and one owner, on two devices: which of them runs is what counts, and at the moment it connects.
#[test]
fn who_becomes_another_program_is_judged_as_that_one() -> Result<()> {
    let mut wall = Wall::build()?;
    let of = |name: &str| wall.copies().join(name).join("tool");
    let mut numbers = Vec::new();
    let mut mounted = Vec::new();
    for name in ["one", "two"] {
        mounted.push(Mounted::tmpfs(&wall.copies().join(name))?);
        fs::copy(wall.probe(), of(name))?;
        numbers.push(fs::metadata(of(name))?.ino());
    }
    ensure!(numbers[0] == numbers[1], "two files with two numbers: {numbers:?}");
    let (one, two) = (of("one"), of("two"));
    let policy = wall.fill_in(&TOOL_ONLY.replace("{copies}/tool", "{copies}/one/tool"));
    wall.agent.start(Some(&policy))?;
    let to = address("10.0.3.8:9000");
    wall.echo(&[to].into(), &[to].into())?;
    let as_copy = |name| at("app.service").exe(Exe::Copy(name));
    for what in [Handed::Tcp, Handed::UdpConnectedAgain] {
        let turned = |program: &Path| Act::Outlive { to, what, program: program.to_owned() };
        let report = wall.run(&as_copy("two/tool"), turned(&one))?;
        ensure!(report.ok, "{what:?}: the other that became the tool: {report:?}");
        let mark = wall.capture.mark()?;
        let report = wall.run(&as_copy("one/tool"), turned(&two))?;
        ensure!(report.is_refused(), "{what:?}: the tool that became the other: {report:?}");
        wall.capture.mark()?;
        ensure!(wall.capture.since(mark, to.ip()).is_empty(), "{what:?}: it arrived");
    }
    Ok(())
}
