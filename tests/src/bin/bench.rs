//! Nanoseconds per packet, by class of packet and number of CIDRs, beside a program that returns 1 measured in the same
//! minute: first through `BPF_PROG_TEST_RUN`, where sockets are dummies without storage and every packet takes the long
//! way; then real traffic through a wall, by the kernel's own account of time.
//!
//! Rounds are interleaved and the median is shown, with least and greatest: this is a shared machine's clock.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use dnswall_tests::bench::{follow, names, peers, refusals, spool};
use dnswall_tests::flood::{Flood, Outcome};
use dnswall_tests::lab::packet::protocol::{TCP, UDP};
use dnswall_tests::lab::packet::{ACK, SYN, ip, question, tcp, udp};
use dnswall_tests::lab::{Direction, Lab, ReturnOne};
use dnswall_tests::traffic::{self, Cost};
use serde::Serialize;
use serde_json::json;

/// Cost of the kernel programs by class of packet.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Measure>,
    /// Runs of each packet in a round.
    #[arg(long, default_value_t = 200_000)]
    repeat: u32,
    /// Rounds; the median is shown.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Numbers of CIDRs.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 10_000])]
    cidrs: Vec<usize>,
    /// Milliseconds of real traffic of each class; 0 for none.
    #[arg(long, default_value_t = 1_000)]
    traffic: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Measure {
    /// Cost of questions by number of listed names, and beside DNS servers that refuse the same list
    Names(NamesArguments),
    /// Cost of a refused packet by what becomes of the word of it
    Refusals {
        /// Rounds; the median is shown.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Refusals a second that a wall accounts for, and how long another workload's alert takes meanwhile
    Flood {
        /// How long each flood takes, in seconds.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Threads that send.
        #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
        threads: Vec<u8>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Alerts a second that are flushed to disk, and how soon one is with a sink
    Spool {
        /// Where; on the disk that is meant.
        #[arg(long, default_value = "/var/tmp")]
        directory: PathBuf,
        /// How many at once.
        #[arg(long, default_value_t = 100_000)]
        alerts: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct NamesArguments {
    /// Numbers of names.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100_000, 1_000_000, 10_000_000])]
    names: Vec<usize>,
    /// Runs of each question in a round.
    #[arg(long, default_value_t = 100_000)]
    repeat: u32,
    /// Rounds; the median is shown.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Names in the list that the DNS servers get; 0 for no servers.
    #[arg(long, default_value_t = 1_000_000)]
    peers: usize,
    /// Leave out what it costs to ask for a name and go where it leads.
    #[arg(long)]
    no_follow: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One class of packet under one policy.
#[derive(Serialize)]
struct Row {
    cidrs: usize,
    class: &'static str,
    median_ns: u64,
    min_ns: u64,
    max_ns: u64,
    /// Median beyond the program that returns 1.
    added_ns: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Some(Measure::Names(arguments)) => return run_names(arguments),
        Some(Measure::Refusals { rounds, json }) => return run_refusals(*rounds, *json),
        Some(Measure::Flood { seconds, threads, json }) => return run_flood(*seconds, threads, *json),
        Some(Measure::Spool { directory, alerts, json }) => return run_spool(directory, *alerts, *json),
        None => {}
    }
    let rows = measure(arguments)?;
    let mut costs = Vec::new();
    if arguments.traffic > 0 {
        for cidrs in &arguments.cidrs {
            let time = Duration::from_millis(arguments.traffic);
            costs.extend(traffic::measure(&policy(*cidrs), time)?.into_iter().map(|cost| (*cidrs, cost)));
        }
    }
    if arguments.json {
        let costs: Vec<_> =
            costs.iter().map(|(cidrs, cost)| json!({ "cidrs": cidrs, "cost": cost })).collect();
        println!("{:#}", json!({ "test_run": rows, "traffic": costs }));
        return Ok(());
    }
    println!("{:>7}  {:26} {:>9} {:>14} {:>9}", "cidrs", "packet (test run)", "ns", "least-most", "added");
    for row in rows {
        let range = format!("{}-{}", row.min_ns, row.max_ns);
        println!("{:>7}  {:26} {:>9} {range:>14} {:>+9}", row.cidrs, row.class, row.median_ns, row.added_ns);
    }
    println!(
        "\n{:>7}  {:26} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "cidrs", "real traffic", "packets", "egress", "return 1", "added", "before"
    );
    for (cidrs, cost) in costs {
        let Cost { class, packets, egress_ns, before_ns, return_one_ns } = cost;
        let added = egress_ns - return_one_ns;
        println!(
            "{cidrs:>7}  {class:26} {packets:>9} {egress_ns:>9.1} {return_one_ns:>9.1} {added:>+9.1} {before_ns:>9.1}"
        );
    }
    Ok(())
}

fn run_refusals(rounds: usize, json: bool) -> Result<()> {
    let costs = refusals::measure(rounds)?;
    if json {
        println!("{:#}", json!(costs));
        return Ok(());
    }
    println!("{:26} {:>9} {:>14} {:>9}", "a refused packet", "ns", "least-most", "added");
    let base = costs.first().map_or(0, |cost| cost.ns);
    for refusals::Cost { class, ns, min_ns, max_ns } in costs {
        let range = format!("{min_ns}-{max_ns}");
        println!("{class:26} {ns:>9} {range:>14} {:>+9}", ns as i64 - base as i64);
    }
    Ok(())
}

fn run_flood(seconds: u64, threads: &[u8], json: bool) -> Result<()> {
    let takes = Duration::from_secs(seconds);
    let mut outcomes = Vec::new();
    for threads in threads {
        for (class, flood) in [
            ("one destination a thread", Flood::at_one(*threads, takes)),
            ("ever new destinations", Flood::at_ever_new(*threads, takes)),
        ] {
            let outcome = flood.run()?;
            if !json {
                let Outcome { refused, rate, rare, account } = &outcome;
                println!("{threads} threads, {class}: {rate:.0} refusals a second, {refused} in all");
                println!("  another workload's alert after {rare:.1?}; {account:?}");
            }
            outcomes.push(json!({ "threads": threads, "class": class, "outcome": outcome }));
        }
    }
    if json {
        println!("{:#}", json!(outcomes));
    }
    Ok(())
}

fn run_spool(directory: &Path, alerts: u64, json: bool) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("dnswall-bench-").tempdir_in(directory)?;
    let cost = spool::measure(directory.path(), alerts)?;
    if json {
        println!("{:#}", json!(cost));
        return Ok(());
    }
    let spool::Cost { alert_bytes, alerts, each_second, written_bytes, alone, alone_slow } = cost;
    println!("{alerts} alerts of {alert_bytes} bytes: {each_second:.0} a second on disk and with a sink");
    println!(
        "  {written_bytes} bytes written for each; one alone is with a sink after {alone:.1?}, 99 of 100 after {alone_slow:.1?}"
    );
    Ok(())
}

fn run_names(arguments: &NamesArguments) -> Result<()> {
    let NamesArguments { names, repeat, rounds, peers, no_follow, json } = arguments;
    let effort = names::Effort { repeat: *repeat, rounds: *rounds };
    let directory = tempfile::tempdir()?;
    let mut costs = Vec::new();
    {
        let mut lab = Lab::new("version = 1\nmode = \"enforce\"\n")?;
        for names in names {
            costs.push(names::measure(&mut lab, directory.path(), *names, effort)?);
        }
    }
    // On a thread of its own: the lab's has a network of its own.
    let (beside, missing) = match peers {
        0 => (Vec::new(), Vec::new()),
        names => std::thread::scope(|scope| {
            scope.spawn(|| peers::measure(*names, *rounds)).join().expect("a measurement does not panic")
        })?,
    };
    let followed = match no_follow {
        true => Vec::new(),
        false => std::thread::scope(|scope| {
            scope.spawn(|| follow::measure(*rounds)).join().expect("a measurement does not panic")
        })?,
    };
    if *json {
        let all = json!({ "questions": costs, "beside": beside, "missing": missing, "followed": followed });
        println!("{all:#}");
        return Ok(());
    }
    for names::Cost { names, kernel_bytes, build_ms, publish_ms, questions, cold_added_ns } in costs {
        let (kib, each) = (kernel_bytes / 1024, kernel_bytes as f64 / names.max(1) as f64);
        println!("{names} names: {kib} KiB in the kernel ({each:.2} bytes each)");
        println!("  read and built in {build_ms} ms, published in {publish_ms} ms");
        for names::Question { name, ns, min_ns, max_ns } in questions {
            println!("  {ns:>5} ns ({min_ns}-{max_ns})  {name}");
        }
        println!("  {cold_added_ns:>+5} ns for a name never asked before");
    }
    if !beside.is_empty() {
        println!(
            "\n{:22} {:>9} {:>11} {:>19} {:>19}",
            "beside", "load ms", "memory KiB", "known µs p50/p99", "new µs p50/p99"
        );
    }
    let micros = |(median, slow): (u64, u64)| format!("{:.1}/{:.1}", median as f64 / 1e3, slow as f64 / 1e3);
    let shown = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    for peers::Peer { name, load_ms, memory_kib, known_ns, fresh_ns } in beside {
        let (load, memory) =
            (shown(load_ms.map(|it| it.to_string())), shown(memory_kib.map(|it| it.to_string())));
        println!("{name:22} {load:>9} {memory:>11} {:>19} {:>19}", micros(known_ns), micros(fresh_ns));
    }
    for name in missing {
        println!("{name:22} is not installed");
    }
    if !followed.is_empty() {
        println!("\n{:22} {:>19}", "ask, then connect", "µs p50/p99");
    }
    for follow::Cost { name, ns } in followed {
        println!("{name:22} {:>19}", micros(ns));
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    let baseline = ReturnOne::load()?;
    let mut rows = Vec::new();
    for cidrs in &arguments.cidrs {
        let mut lab = Lab::new(&policy(*cidrs))?;
        let packets = packets();
        for (class, packet, passes) in &packets {
            let (value, _) = lab.repeat(Direction::Egress, packet, 1)?;
            ensure!((value == 1) == *passes, "{class} met {value} with {cidrs} CIDRs");
        }
        let mut samples = vec![Vec::new(); packets.len() + 1];
        for _ in 0..arguments.rounds {
            samples[0].push(baseline.measure(&packets[0].1, arguments.repeat)?);
            for (at, (_, packet, _)) in packets.iter().enumerate() {
                samples[at + 1].push(lab.repeat(Direction::Egress, packet, arguments.repeat)?.1);
            }
        }
        samples.iter_mut().for_each(|sample| sample.sort_unstable());
        let middle = |sample: &[u64]| sample[sample.len() / 2];
        let base = middle(&samples[0]);
        let classes = std::iter::once("return 1").chain(packets.iter().map(|(class, ..)| *class));
        for (class, sample) in classes.zip(&samples) {
            rows.push(Row {
                cidrs: *cidrs,
                class,
                median_ns: middle(sample),
                min_ns: sample[0],
                max_ns: sample[sample.len() - 1],
                added_ns: middle(sample).saturating_sub(base),
            });
        }
    }
    Ok(rows)
}

/// Class, packet, and whether it passes.
fn packets() -> Vec<(&'static str, Vec<u8>, bool)> {
    let dns = udp(40_000, 53, &question("www.example.com"));
    vec![
        ("old connection", ip("10.1.0.1", TCP, &tcp(443, ACK, b"")), true),
        ("new udp allowed", ip("10.1.0.1", UDP, &udp(40_000, 443, b"payload")), true),
        ("new tcp allowed", ip("10.1.0.1", TCP, &tcp(443, SYN, b"")), true),
        ("new v6 allowed", ip("2001:db8:1::1", UDP, &udp(40_000, 443, b"payload")), true),
        ("new udp refused", ip("198.51.100.1", UDP, &udp(40_000, 443, b"payload")), false),
        ("dns to the resolver", ip("192.0.2.53", UDP, &dns), true),
        ("dns refused", ip("198.51.100.53", UDP, &dns), false),
    ]
}

/// So many disjoint networks of each family, from /24 to /32.
fn policy(cidrs: usize) -> String {
    let mut to = String::new();
    for at in 0..cidrs {
        let (high, low) = (at / 256 % 256, at % 256);
        let length = 24 + at % 9;
        let network = format!("10.{}.{}.0/{length}", 1 + high, low);
        // Writing to a string does not fail.
        let _ = write!(to, "\"{network}\", \"2001:db8:{:x}::/48\", ", 1 + at);
    }
    format!(
        "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"192.0.2.53\"]\n\
         [[allow]]\nname = \"bench\"\nto = [{to}]\nports = [\"tcp/443\", \"udp/443\"]\n"
    )
}
