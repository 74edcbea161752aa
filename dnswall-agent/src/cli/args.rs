//! What can be typed. What it means is in the file of each command.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use super::exit::EXIT_CODES;
use crate::alert::filter::FilterText;
use crate::config::Config;
use crate::run::engine::CONFIRM_RANGE;

/// Drops what this host's policy does not allow to leave it, and says who tried.
#[derive(Debug, Parser)]
#[command(name = "dnswall", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    /// What is printed: text for a person, or json for a program
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        default_value = "text",
        hide_possible_values = true,
        help_heading = EVERYWHERE
    )]
    pub output: Form,
    /// The agent's socket [default: $DNSWALL_SOCKET, else /run/dnswall/control.sock]
    #[arg(long, global = true, value_name = "PATH", help_heading = EVERYWHERE)]
    pub socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EVERYWHERE: &str = "Everywhere";

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For a person.
    Text,
    /// For a program.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Raise the wall and watch over it, or take it down
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Check, compare, apply and question policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show block lists and what they make of a name, and update them
    #[command(subcommand)]
    Blocklist(BlocklistCommand),
    /// Show what stands and what it refused
    Status,
    /// Watch live who talks to whom, and what is refused
    #[command(after_help = TOP_HELP)]
    Top(TopArguments),
    /// Show the last alerts, and each that follows
    Events(EventsArguments),
    /// Test whether alerts arrive
    #[command(subcommand)]
    Alert(AlertCommand),
    /// Look at this host: what will and will not be enforced here
    #[command(after_help = "Exits 4 when the wall cannot stand on this host.")]
    Doctor(DoctorArguments),
    /// Play a compromised server in a network of its own, and leave nothing behind
    #[command(after_help = "Needs root. Touches nothing of this host, and takes a few seconds.")]
    Demo,
    /// What the demo starts its own processes as
    #[command(name = crate::demo::PART_COMMAND, hide = true)]
    DemoPart(DemoPartArguments),
}

/// The demo's own processes.
#[derive(Debug, Args)]
pub struct DemoPartArguments {
    /// Which part to play, as JSON
    pub order: String,
}

/// `dnswall alert`
#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    /// Have the kernel refuse something, and follow its alert to every sink
    #[command(after_help = TEST_HELP)]
    Test(AlertTestArguments),
}

const TEST_HELP: &str = "\
The agent itself tries what the policy forbids, at an address that nobody has (192.0.2.0/24 and the like). The alert is of kind \
\"selftest\" and really goes to every sink. Exits 1 when it does not come to one of them.";

/// `dnswall alert test`
#[derive(Debug, Args)]
pub struct AlertTestArguments {
    /// How long the sinks may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = test_time)]
    pub within: Duration,
}

fn test_time(text: &str) -> Result<Duration, String> {
    let time = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    time.filter(|time| (1..=600).contains(&time.as_secs()))
        .ok_or_else(|| "not a time from 1s to 10m".to_owned())
}

/// `dnswall agent`
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Raise the wall, or take over the one that stands, and report what it refuses
    #[command(after_help = RUN_HELP)]
    Run(RunArguments),
    /// Take the wall down: nothing is enforced any more
    #[command(after_help = "Nothing else does this: when the agent ends, its wall keeps standing.")]
    Detach(DetachArguments),
}

const RUN_HELP: &str = "\
Without --policy the last good policy is restored; without one, the built-in policy reports and blocks nothing. \
What is not given here comes from the configuration.

SIGHUP reads the file of --policy again. SIGTERM ends the agent and leaves the wall standing.";

/// `dnswall agent run`
#[derive(Clone, Debug, Default, Args)]
pub struct RunArguments {
    /// The policy to enforce
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// The cgroup to enforce it on, with all below it [default: the cgroup2 mount]
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// Where policies are kept [default: /var/lib/dnswall]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Where the wall is pinned [default: /sys/fs/bpf/dnswall]
    #[arg(long, value_name = "DIR")]
    pub pins: Option<PathBuf>,
    /// What is the host's and not the policy's [default: /etc/dnswall/agent.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `dnswall agent detach`
#[derive(Debug, Args)]
pub struct DetachArguments {
    /// Where the wall is pinned
    #[arg(long, value_name = "DIR", default_value_os_t = Config::default().pins)]
    pub pins: PathBuf,
}

/// `dnswall policy`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Find every mistake in a policy, without agent and without root
    Check(CheckArguments),
    /// Say what differs between two policies (exits 1 when something does)
    Diff(DiffArguments),
    /// Enforce another policy
    #[command(after_help = APPLY_HELP)]
    Apply(ApplyArguments),
    /// Keep the policy that was applied with --confirm
    Confirm,
    /// Show the policy that decides
    Show,
    /// Say what the policy answers to somebody who wants to go somewhere, and why
    #[command(after_help = EXPLAIN_HELP)]
    Explain(ExplainArguments),
    /// Bring the policy before this one back; at once when it waits for its confirmation
    Rollback,
}

/// `dnswall policy check`
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The policy; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `dnswall policy diff`
#[derive(Debug, Args)]
pub struct DiffArguments {
    /// The policy to compare with the one that decides; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Compare FILE with this one instead
    #[arg(value_name = "NEWER")]
    pub newer: Option<PathBuf>,
}

/// `dnswall blocklist`
#[derive(Debug, Subcommand)]
pub enum BlocklistCommand {
    /// Show each list: how many names it has, and what of it could not be used
    Status,
    /// Say which list and entry decide about a name, and why (exits 1 when it is refused)
    Check(CheckNameArguments),
    /// Fetch lists now, or read their files again, and say what has changed
    #[command(after_help = UPDATE_HELP)]
    Update(UpdateArguments),
}

const UPDATE_HELP: &str = "\
A version that is worse (too few entries or too many, much smaller or larger than the one before, cut off, a web page) never \
replaces one that was good.

Exits 0 when every list is as its source has it, 1 when one could not be had or does not count.";

/// `dnswall blocklist update`
#[derive(Debug, Args)]
pub struct UpdateArguments {
    /// Only these lists
    #[arg(value_name = "NAME")]
    pub lists: Vec<String>,
    /// Take a version that shrank or grew beyond `max-shrink` or `max-growth`, this once
    #[arg(long)]
    pub accept: bool,
}

/// `dnswall blocklist check`
#[derive(Debug, Args)]
pub struct CheckNameArguments {
    /// The name, in any case and script
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Ask the lists of this policy instead of the one that decides
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

const APPLY_HELP: &str = "\
A policy with a mistake, or one that is more than the kernel's maps hold, exits 3 and changes nothing.

With --confirm the policy before decides again when the time is over, unless `dnswall policy confirm` comes: \
whoever locks himself out has only to wait.

Running connections that the policy refuses are said before it is applied. It is applied all the same.";

/// `dnswall policy apply`
#[derive(Debug, Args)]
pub struct ApplyArguments {
    /// The policy; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Take it back after this time (5s to 1h) unless it is confirmed
    #[arg(long, value_name = "TIME", value_parser = confirm_time)]
    pub confirm: Option<Duration>,
    /// Change nothing: say what would, and list the running connections that the policy refuses (exits 1 when there are
    /// any)
    #[arg(long, conflicts_with = "confirm")]
    pub dry_run: bool,
}

fn confirm_time(text: &str) -> Result<Duration, String> {
    let (least, most) = CONFIRM_RANGE;
    let parsed = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    parsed.filter(|time| (least..=most).contains(time)).ok_or_else(|| {
        format!("not a time from {} to {} seconds; write 60s or 5m", least.as_secs(), most.as_secs())
    })
}

const EXPLAIN_HELP: &str = "\
WHO is unit:orders.service, cgroup:/system.slice/x, container:ID, user:NAME, exe:/usr/bin/curl, or pid:1234 of a \
process that runs now. Give it again to say more of the same one. Without it: somebody no `from` names.

PORT may also be sctp/5000, icmp/8, ip/47 for another protocol, or serve: may ADDRESS ask a DNS server here?

Exits 0 when the answer is allow, 1 when it is deny.

Example: dnswall policy explain --from unit:orders.service --to 10.0.3.7 --port tcp/5432";

/// `dnswall policy explain`
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// Who wants to go there
    #[arg(long, value_name = "WHO")]
    pub from: Vec<String>,
    /// The address, or a name
    #[arg(long, value_name = "ADDRESS|NAME")]
    pub to: String,
    /// Protocol and port: tcp/443, udp/53, icmp/echo
    #[arg(long, value_name = "PORT")]
    pub port: String,
    /// Ask this policy instead of the one that decides
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// `dnswall events`
#[derive(Clone, Debug, Args)]
pub struct EventsArguments {
    /// Questions of DNS and their answers instead of alerts, as far as the policy tells of them (`events` in [dns])
    #[arg(long)]
    pub dns: bool,
    /// Go on with each new one until interrupted
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the last to show, 10000 at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    pub last: usize,
    /// Which of them.
    #[command(flatten)]
    pub filter: FilterArguments,
}

/// Which alerts are wanted.
#[derive(Clone, Debug, Default, Args)]
pub struct FilterArguments {
    /// Only of these kinds: dns.name, dns.*
    #[arg(long, value_name = "KIND", conflicts_with = "dns")]
    pub kind: Option<String>,
    /// Only of this severity or worse: info, low, medium, high, critical
    #[arg(long, value_name = "SEVERITY", conflicts_with = "dns")]
    pub severity: Option<String>,
    /// Only of this unit, slice, cgroup, container or pod: orders.service, shop-api, kube-system/*
    #[arg(long, value_name = "WORKLOAD", conflicts_with = "dns")]
    pub workload: Option<String>,
    /// Only by this rule: default, deny.*
    #[arg(long, value_name = "RULE", conflicts_with = "dns")]
    pub rule: Option<String>,
    /// Only about this name and those below it, or about this address
    #[arg(long, value_name = "NAME", conflicts_with = "dns")]
    pub name: Option<String>,
    /// Not before: 2026-03-01T12:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME", conflicts_with = "dns")]
    pub since: Option<String>,
    /// Not after
    #[arg(long, value_name = "TIME", conflicts_with = "dns")]
    pub until: Option<String>,
}

impl From<FilterArguments> for FilterText {
    fn from(arguments: FilterArguments) -> Self {
        let FilterArguments { kind, severity, workload, rule, name, since, until } = arguments;
        Self { kind, severity, workload, rule, name, since, until }
    }
}

const TOP_HELP: &str = "\
Keys: Tab, arrows or 1-4 choose a view, s sorts, r reverses, / filters, Enter shows a row whole, p pauses, ? helps, q quits.

Without a terminal, and with --once or --iterations, tables are printed; with --output json one object a line.";

/// `dnswall top`
#[derive(Clone, Debug, Args)]
pub struct TopArguments {
    /// Between two pictures (500ms to 1h)
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = top_interval)]
    pub interval: Duration,
    /// Print one picture and end
    #[arg(long, conflicts_with = "iterations")]
    pub once: bool,
    /// Print so many pictures and end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub iterations: Option<u64>,
}

fn top_interval(text: &str) -> Result<Duration, String> {
    let time = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    time.filter(|time| (500..=3_600_000).contains(&time.as_millis()))
        .ok_or_else(|| "not a time from 500ms to 1h".to_owned())
}

/// `dnswall doctor`
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Where walls are pinned
    #[arg(long, value_name = "DIR", default_value_os_t = Config::default().pins)]
    pub pins: PathBuf,
}
