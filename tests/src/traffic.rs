//! What real traffic costs in each hook: a wall of the built binary, a process that sends, and the kernel's own account
//! of the time its programs take, beside a program that returns 1 on the same packets.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use dnswall_agent::demo::netlink::Netlink;
use serde::Serialize;

use crate::act::{Act, address};
use crate::lab::ReturnOne;
use crate::wall::Wall;
use crate::who::at;

/// Average cost of one class of traffic.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// What is sent.
    pub class: &'static str,
    /// Packets it is the average of.
    pub packets: u64,
    /// Nanoseconds in `dw_egress`, the clock's own time included.
    pub egress_ns: f64,
    /// Nanoseconds in the hooks before it, for each packet.
    pub before_ns: f64,
    /// Nanoseconds in the program that returns 1, the clock's own time included.
    pub return_one_ns: f64,
}

/// Measures each class for `time`.
///
/// # Errors
/// When the wall does not stand, or the kernel keeps no account of time (`BPF_ENABLE_STATS`, from 5.8).
pub fn measure(policy: &str, time: Duration) -> Result<Vec<Cost>> {
    let mut wall = Wall::raise(policy)?;
    let (known, known6) = (address("10.1.0.1:443"), address("[2001:db8:1::1]:443"));
    let ten: Vec<SocketAddr> = (0..10).map(|at| address(&format!("10.1.{at}.0:443"))).collect();
    let refused = address("198.51.100.1:443");
    let (here, here6) = (address("127.0.0.1:7443"), address("[::1]:7443"));
    // The networks of the policy are beyond those the far side plays.
    wall.network.far.run(|| Netlink::open()?.add_own_network(Ipv4Addr::new(10, 0, 0, 0).into(), 8))?;
    wall.echo(&BTreeSet::from([known, known6]), &BTreeSet::new())?;
    let serve = |at: SocketAddr, tcp| wall.start(&crate::who::at("bench.service"), Act::Serve { at, tcp });
    let _here = [serve(here, false)?, serve(here6, false)?, serve(here, true)?];
    let return_one = ReturnOne::load()?;
    let _link = return_one.attach(wall.tree.directory())?;
    let flood = |to: Vec<SocketAddr>| Act::Flood { to, one_socket: true };
    let fresh = |to: Vec<SocketAddr>| Act::Flood { to, one_socket: false };
    let classes = [
        ("udp, a known destination", flood(vec![known])),
        ("udp, ten known in turn", flood(ten)),
        ("udp over IPv6, known", flood(vec![known6])),
        ("udp, refused", flood(vec![refused])),
        ("udp, a socket each", fresh(vec![known])),
        ("tcp, established", Act::Hold { to: known, tcp: true }),
        ("tcp over IPv6, established", Act::Hold { to: known6, tcp: true }),
        ("udp over loopback, both ways", flood(vec![here])),
        ("udp over loopback, IPv6, both ways", flood(vec![here6])),
        ("tcp over loopback, both ways", Act::Hold { to: here, tcp: true }),
    ];
    let programs = Programs::of(&wall, &return_one)?;
    classes.into_iter().map(|(class, act)| one(&wall, &programs, class, act, time)).collect()
}

fn one(wall: &Wall, programs: &Programs, class: &'static str, act: Act, time: Duration) -> Result<Cost> {
    let hold = matches!(act, Act::Hold { .. });
    let mut process = wall.start(&at("bench.service"), act)?;
    let stats = enable_stats(Stats::RunTime).context("ask the kernel to keep account of time")?;
    let before = Account::read(programs)?;
    if hold {
        let until = Instant::now() + time;
        while Instant::now() < until {
            ensure!(process.exchange()?.ok, "{class}: the connection is gone");
        }
    } else {
        thread::sleep(time);
    }
    let after = Account::read(programs)?;
    drop((stats, process));
    let packets = after.egress.1 - before.egress.1;
    ensure!(packets > 0, "{class}: nothing was sent");
    let each = |after: (u64, u64), before: (u64, u64)| (after.0 - before.0) as f64 / packets as f64;
    Ok(Cost {
        class,
        packets,
        egress_ns: each(after.egress, before.egress),
        before_ns: each(after.before, before.before),
        return_one_ns: each(after.return_one, before.return_one),
    })
}

/// The kernel's numbers of the programs: others of the same name may run for other walls.
struct Programs {
    egress: u32,
    before: Vec<u32>,
    return_one: u32,
}

impl Programs {
    fn of(wall: &Wall, return_one: &ReturnOne) -> Result<Self> {
        let status = wall.agent.status()?;
        let hooks = status["hooks"].as_array().context("the status has no hooks")?;
        let id = |name: &str| -> Result<u32> {
            let hook = hooks.iter().find(|hook| hook["name"] == name);
            let id = hook.and_then(|hook| hook["program_id"].as_u64());
            u32::try_from(id.with_context(|| format!("{name} is not attached"))?).context("read its number")
        };
        Ok(Self {
            egress: id("dw_egress")?,
            before: BEFORE.iter().map(|name| id(name)).collect::<Result<_>>()?,
            return_one: return_one.id()?,
        })
    }
}

/// Nanoseconds and runs.
struct Account {
    egress: (u64, u64),
    before: (u64, u64),
    return_one: (u64, u64),
}

impl Account {
    fn read(programs: &Programs) -> Result<Self> {
        let mut account = Self { egress: (0, 0), before: (0, 0), return_one: (0, 0) };
        for program in loaded_programs() {
            let program = program.context("list the loaded programs")?;
            let spent = (program.run_time().as_nanos() as u64, program.run_count());
            match program.id() {
                id if id == programs.egress => account.egress = spent,
                id if id == programs.return_one => account.return_one = spent,
                id if programs.before.contains(&id) => {
                    account.before = (account.before.0 + spent.0, account.before.1 + spent.1);
                }
                _ => {}
            }
        }
        Ok(account)
    }
}

/// Hooks a packet's sender may pass before the packet exists.
const BEFORE: [&str; 5] = ["dw_sock_create", "dw_connect4", "dw_connect6", "dw_sendmsg4", "dw_sendmsg6"];
