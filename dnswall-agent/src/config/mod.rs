//! Takes agent.toml, gives what is the host's and not the policy's: sinks, directories, sockets.
//!
//! Every key may be left out; these are the defaults, and the two kinds of sink:
//!
//! ```toml
#![doc = include_str!("example.toml")]
//! ```

mod kubernetes;
mod mute;
mod remote;
mod section;
mod sink;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use toml::de::DeTable;

use crate::alert::limit::Limits;
use crate::alert::mute::Mute;
use crate::policy::{Problem, Problems};
pub use kubernetes::{KubernetesConfig, PodSource, REFRESH_RANGE};
pub use mute::MUTES_MAX;
pub use remote::{REQUEST_RANGE, RemoteConfig, ServerConfig};
use section::Section;
use sink::Sinks;
pub use sink::{
    ACKNOWLEDGED_RANGE, FILE_BYTES_RANGE, FILE_KEEP_RANGE, KafkaConfig, NAME_BYTES_MAX, SINKS_MAX,
    SinkConfig, SinkTarget,
};

/// Where agent.toml is, unless said otherwise.
pub const CONFIG_PATH: &str = "/etc/dnswall/agent.toml";
/// The longest agent.toml, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// Least and most time between two tests of whether alerts arrive.
pub const HEARTBEAT_RANGE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(86_400));
/// Least and most bytes of the spool.
pub const SPOOL_BYTES_RANGE: (i64, i64) = (4 << 20, 4 << 30);
/// Least and most alerts that a workload may have, at once and a minute.
pub const WORKLOAD_RANGE: (i64, i64) = (1, 1_000_000);
/// Least and most time between two alerts of one flow.
pub const INTERVAL_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// Least and most time between two proofs: the kernel tells of one flow once a second.
pub const PROOF_RANGE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3_600));
/// Least and most time that fetching one list may take.
pub const TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// The port of metrics, where an address has none.
pub const METRICS_PORT: u16 = 12_053;
/// The least port of metrics: the agent gives up the capability that those below it take.
pub const METRICS_PORT_MIN: u16 = 1_024;
/// What is the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directory of the last good policy and its history.
    pub state: PathBuf,
    /// Directory of the pins, on a bpf file system.
    pub pins: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// The wall's cgroup; `None` is the cgroup2 mount, wherever it is.
    pub cgroup: Option<PathBuf>,
    /// The host's root directory; `None` is found.
    pub host_root: Option<PathBuf>,
    /// Whether the agent gives up what it does not need.
    pub sandbox: bool,
    /// How alerts are made and shown.
    pub alerts: AlertsConfig,
    /// Bytes of the file that keeps alerts until every sink has them.
    pub spool_bytes_max: u64,
    /// Which nobody wants.
    pub mutes: Vec<Mute>,
    /// Where they go.
    pub sinks: Vec<SinkConfig>,
    /// How the wall is proven to stand.
    pub proof: ProofConfig,
    /// Between two tests of whether alerts arrive; `None` makes none.
    pub heartbeat: Option<Duration>,
    /// How lists are fetched.
    pub lists: ListsConfig,
    /// Where a scraper finds metrics.
    pub metrics: MetricsConfig,
    /// What is found out about processes.
    pub process: ProcessConfig,
    /// Who is asked for the labels of pods; `None` is nobody.
    pub kubernetes: Option<KubernetesConfig>,
}

/// What is found out about processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessConfig {
    /// Whether the program behind an alert is read for its hash.
    pub hash: bool,
}

/// Where a scraper finds metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// The address that is listened at; `None` is nowhere. Nobody is asked who they are there, so that it is nobody's
    /// default.
    pub address: Option<SocketAddr>,
}

/// How lists are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListsConfig {
    /// A file of authorities that servers are known by, beside the host's.
    pub ca: Option<PathBuf>,
    /// How long one list may take.
    pub timeout: Duration,
}

/// How the wall is proven to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofConfig {
    /// Between two tries of what is forbidden.
    pub interval: Duration,
    /// Between two looks at links, programs and maps.
    pub watch: Duration,
    /// What a first try that is let through is a reason for.
    pub at_start: AtStart,
}

/// What the agent does when the wall it has just raised lets through what it must refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// Ends, and says so.
    Refuse,
    /// Says so, and goes on.
    Report,
}

/// How alerts are made and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertsConfig {
    /// The least time between two alerts of one flow.
    pub interval: Duration,
    /// What the agent itself prints on standard output.
    pub terminal: Terminal,
    /// How many alerts of one kind and severity a workload may have.
    pub limits: Limits,
}

/// What the agent prints on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Terminal {
    /// Lines for a person.
    Text,
    /// JSON lines.
    Json,
    /// No alerts.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/var/lib/dnswall"),
            pins: PathBuf::from("/sys/fs/bpf/dnswall"),
            socket: PathBuf::from("/run/dnswall/control.sock"),
            cgroup: None,
            host_root: None,
            sandbox: true,
            alerts: AlertsConfig {
                interval: Duration::from_secs(10),
                terminal: Terminal::Text,
                limits: Limits::default(),
            },
            spool_bytes_max: 64 << 20,
            mutes: Vec::new(),
            sinks: Vec::new(),
            proof: ProofConfig::default(),
            heartbeat: Some(Duration::from_secs(300)),
            lists: ListsConfig { ca: None, timeout: Duration::from_secs(300) },
            metrics: MetricsConfig::default(),
            process: ProcessConfig { hash: true },
            kubernetes: None,
        }
    }
}

impl Default for ProofConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60), watch: Duration::from_secs(5), at_start: AtStart::Refuse }
    }
}

impl Config {
    /// Reads the text of agent.toml; `origin` is what messages call it.
    ///
    /// # Errors
    /// Every mistake in it, with its place.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let config = read(text, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(Problems::new(origin, text, problems)) }
    }
}

fn read(text: &str, problems: &mut Vec<Problem>) -> Config {
    let defaults = Config::default();
    if text.len() > CONFIG_BYTES_MAX {
        problems.push(Problem::error(0..0, format!("longer than {CONFIG_BYTES_MAX} bytes")));
        return defaults;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What follows a broken line may be read wrongly: its mistakes are told when the line is mended.
        problems
            .extend(errors.iter().map(|error| Problem::error(error.span().unwrap_or(0..0), error.message())));
        return defaults;
    }
    let known = [
        "state",
        "pins",
        "socket",
        "cgroup",
        "host-root",
        "sandbox",
        "alerts",
        "spool",
        "heartbeat",
        "proof",
        "lists",
        "metrics",
        "process",
        "kubernetes",
        "mute",
        "sink",
    ];
    let mut top = Section::new(document.get_ref(), document.span(), "", &known, problems);
    let state = top.path("state").unwrap_or(defaults.state);
    let pins = top.path("pins").unwrap_or(defaults.pins);
    let socket = top.path("socket").unwrap_or(defaults.socket);
    let cgroup = top.path("cgroup");
    let host_root = top.path("host-root");
    let sandbox = top.boolean("sandbox").unwrap_or(defaults.sandbox);
    let mut alerts = defaults.alerts;
    let mut terminal_span = None;
    if let Some((span, table)) = top.table("alerts") {
        let keys = ["interval", "terminal", "workload-burst", "workload-per-minute"];
        let mut section = Section::new(table, span, "[alerts]", &keys, top.problems());
        alerts.interval = section.duration("interval", INTERVAL_RANGE).unwrap_or(alerts.interval);
        let mut number = |key, usual| {
            section
                .integer(key, WORKLOAD_RANGE)
                .and_then(|number| u32::try_from(number).ok())
                .unwrap_or(usual)
        };
        alerts.limits = Limits {
            burst: number("workload-burst", alerts.limits.burst),
            per_minute: number("workload-per-minute", alerts.limits.per_minute),
        };
        let choices = [("text", Terminal::Text), ("json", Terminal::Json), ("off", Terminal::Off)];
        if let Some((span, terminal)) = section.choice("terminal", &choices) {
            alerts.terminal = terminal;
            terminal_span = Some(span);
        }
    }
    let spool_bytes_max = read_spool(&mut top).unwrap_or(defaults.spool_bytes_max);
    let heartbeat = read_heartbeat(&mut top, defaults.heartbeat);
    let proof = read_proof(&mut top);
    let lists = read_lists(&mut top, defaults.lists);
    let metrics = read_metrics(&mut top);
    let process = read_process(&mut top, defaults.process);
    let kubernetes = top.table("kubernetes").map(|(span, table)| {
        let section = Section::new(table, span, "[kubernetes]", kubernetes::KEYS, top.problems());
        kubernetes::read_kubernetes(section)
    });
    let mutes = top.tables("mute", MUTES_MAX);
    let mutes = mutes
        .into_iter()
        .filter_map(|(span, table)| {
            mute::read_mute(Section::new(table, span, "[[mute]]", mute::KEYS, top.problems()))
        })
        .collect();
    let tables = top.tables("sink", SINKS_MAX);
    let mut sinks = Sinks::default();
    for (span, table) in tables {
        sinks.read(Section::new(table, span, "[[sink]]", &sink::keys(), top.problems()));
    }
    if sinks.has_stdout {
        match terminal_span {
            // It says where alerts on standard output go, so nothing else prints them there.
            None => alerts.terminal = Terminal::Off,
            Some(span) if alerts.terminal != Terminal::Off => top.note(
                Problem::error(span, "alerts would be printed twice")
                    .why("a [[sink]] of type \"stdout\" prints them too")
                    .hint("write terminal = \"off\", or take the sink out"),
            ),
            Some(_) => {}
        }
    }
    Config {
        state,
        pins,
        socket,
        cgroup,
        host_root,
        sandbox,
        alerts,
        spool_bytes_max,
        mutes,
        sinks: sinks.list,
        heartbeat,
        proof,
        lists,
        metrics,
        process,
        kubernetes,
    }
}

fn read_process(top: &mut Section<'_, '_>, mut process: ProcessConfig) -> ProcessConfig {
    if let Some((span, table)) = top.table("process") {
        let mut section = Section::new(table, span, "[process]", &["hash"], top.problems());
        process.hash = section.boolean("hash").unwrap_or(process.hash);
    }
    process
}

fn read_heartbeat(top: &mut Section<'_, '_>, usual: Option<Duration>) -> Option<Duration> {
    let Some((span, table)) = top.table("heartbeat") else { return usual };
    let mut section = Section::new(table, span, "[heartbeat]", &["enabled", "interval"], top.problems());
    let interval = section.duration("interval", HEARTBEAT_RANGE).or(usual);
    interval.filter(|_| section.boolean("enabled").unwrap_or(true))
}

fn read_spool(top: &mut Section<'_, '_>) -> Option<u64> {
    let (span, table) = top.table("spool")?;
    let mut section = Section::new(table, span, "[spool]", &["max-bytes"], top.problems());
    section.integer("max-bytes", SPOOL_BYTES_RANGE).and_then(|bytes| u64::try_from(bytes).ok())
}

fn read_lists(top: &mut Section<'_, '_>, mut lists: ListsConfig) -> ListsConfig {
    if let Some((span, table)) = top.table("lists") {
        let mut section = Section::new(table, span, "[lists]", &["ca", "timeout"], top.problems());
        lists.ca = section.path("ca");
        lists.timeout = section.duration("timeout", TIMEOUT_RANGE).unwrap_or(lists.timeout);
    }
    lists
}

fn read_metrics(top: &mut Section<'_, '_>) -> MetricsConfig {
    let Some((span, table)) = top.table("metrics") else { return MetricsConfig::default() };
    let mut section = Section::new(table, span, "[metrics]", &["address"], top.problems());
    section.require("address", "write address = \"127.0.0.1\", or take the table out");
    MetricsConfig { address: section.listener("address", METRICS_PORT, METRICS_PORT_MIN) }
}

fn read_proof(top: &mut Section<'_, '_>) -> ProofConfig {
    let mut proof = ProofConfig::default();
    if let Some((span, table)) = top.table("proof") {
        let known = ["interval", "watch", "at-start"];
        let mut section = Section::new(table, span, "[proof]", &known, top.problems());
        proof.interval = section.duration("interval", PROOF_RANGE).unwrap_or(proof.interval);
        proof.watch = section.duration("watch", INTERVAL_RANGE).unwrap_or(proof.watch);
        let choices = [("refuse", AtStart::Refuse), ("report", AtStart::Report)];
        proof.at_start = section.choice("at-start", &choices).map_or(proof.at_start, |(_, choice)| choice);
    }
    proof
}

#[cfg(test)]
mod tests {
    use super::sink::{FILE_BYTES_DEFAULT, FILE_KEEP_DEFAULT};
    use super::*;
    use crate::format::Format;
    use crate::sink::FileOptions;

    fn mistakes(text: &str) -> String {
        Config::parse(text, "agent.toml").unwrap_err().render(false)
    }

    #[test]
    fn nothing_written_is_the_default() {
        assert_eq!(Config::parse("", "agent.toml").unwrap(), Config::default());
        assert_eq!(Config::parse("[alerts]\n", "agent.toml").unwrap(), Config::default());
    }

    #[test]
    fn the_example_shows_the_defaults_and_both_sinks() {
        let config = Config::parse(include_str!("example.toml"), "example.toml").unwrap();
        let file = FileOptions {
            path: PathBuf::from("/var/log/dnswall/alerts.jsonl"),
            format: Format::Json,
            max_bytes: FILE_BYTES_DEFAULT as u64,
            keep: FILE_KEEP_DEFAULT as u32,
        };
        let named = |name: &str, target| SinkConfig { name: name.to_owned(), target };
        let sinks = vec![
            named("file /var/log/dnswall/alerts.jsonl", SinkTarget::File(file)),
            named("stdout", SinkTarget::Stdout(Format::Json)),
        ];
        let defaults = Config::default();
        let cgroup = Some(PathBuf::from("/sys/fs/cgroup"));
        let host_root = Some(PathBuf::from("/"));
        let alerts = AlertsConfig { terminal: Terminal::Off, ..defaults.alerts };
        let ca = Some(PathBuf::from("/etc/ssl/certs/ca-certificates.crt"));
        let lists = ListsConfig { ca, ..defaults.lists };
        let metrics = MetricsConfig { address: Some(([127, 0, 0, 1], METRICS_PORT).into()) };
        let mutes = config.mutes.clone();
        assert_eq!(mutes[0].reason, "the printer is replaced in January");
        let kubernetes = config.kubernetes.clone();
        assert_eq!(
            kubernetes,
            Config::parse("[kubernetes]", "agent.toml").unwrap().kubernetes,
            "as in a pod"
        );
        let others = Config { cgroup, host_root, alerts, sinks, lists, metrics, mutes, ..defaults };
        assert_eq!(config, Config { kubernetes, ..others });
    }

    #[test]
    fn the_sandbox_is_on_unless_it_is_said() {
        let sandbox = |text: &str| Config::parse(text, "agent.toml").map(|config| config.sandbox);
        assert!(sandbox("").unwrap() && sandbox("sandbox = true").unwrap());
        assert!(!sandbox("sandbox = false").unwrap());
        for wrong in ["sandbox = \"off\"", "sandbox = 0"] {
            let problems = sandbox(wrong).unwrap_err();
            assert_eq!(problems.list()[0].message, "`sandbox` must be true or false", "{wrong}");
        }
    }

    #[test]
    fn programs_are_hashed_unless_it_is_said() {
        let hash = |text: &str| Config::parse(text, "agent.toml").map(|config| config.process.hash);
        assert!(hash("").unwrap() && hash("[process]\nhash = true").unwrap());
        assert!(!hash("[process]\nhash = false").unwrap());
        assert!(hash("[process]\nhash = \"sha1\"").is_err() && hash("[process]\nhashes = true").is_err());
    }

    #[test]
    fn a_file_sink_needs_only_its_path() {
        let config = Config::parse("sink = [{ type = \"file\", path = \"/a\" }]", "agent.toml").unwrap();
        let file =
            FileOptions { path: PathBuf::from("/a"), format: Format::Json, max_bytes: 64 << 20, keep: 4 };
        assert_eq!(config.sinks, [SinkConfig { name: "file /a".to_owned(), target: SinkTarget::File(file) }]);
        assert_eq!(config.alerts.terminal, Terminal::Text);
    }

    #[test]
    fn intervals_have_a_unit_and_limits() {
        let interval = |text: &str| {
            Config::parse(&format!("[alerts]\ninterval = \"{text}\""), "agent.toml")
                .map(|config| config.alerts.interval.as_millis())
                .map_err(|problems| problems.list()[0].message.clone())
        };
        assert_eq!(interval("1s"), Ok(1_000));
        assert_eq!(interval("1m 30s"), Ok(90_000));
        assert_eq!(interval("1500ms"), Ok(1_500));
        assert_eq!(interval("1h"), Ok(3_600_000));
        for wrong in ["", "10", "0s", "999ms", "2h", "-5s", "1 month", "forever"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn metrics_are_nowhere_unless_an_address_says_where() {
        let address = |text: &str| {
            Config::parse(&format!("[metrics]\naddress = {text}"), "agent.toml")
                .map(|config| config.metrics.address.map(|address| address.to_string()))
                .map_err(|problems| problems.list()[0].message.clone())
        };
        assert_eq!(Config::default().metrics.address, None);
        let is = |address: &str| Ok(Some(address.to_owned()));
        assert_eq!(address("\"127.0.0.1\""), is("127.0.0.1:12053"));
        assert_eq!(address("\"[::]:9999\""), is("[::]:9999"));
        assert_eq!(address("\"::1\""), is("[::1]:12053"));
        for wrong in
            ["\"localhost:9999\"", "\"\"", "9999", "\"127.0.0.1:80\"", "\"127.0.0.1:0\"", "\":9999\""]
        {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        assert!(Config::parse("[metrics]\n", "agent.toml").is_err());
        assert!(Config::parse("[metrics]\naddress = \"::1\"\npath = \"/m\"\n", "agent.toml").is_err());
    }

    #[test]
    fn the_proof_has_limits() {
        let parse = |text: &str| Config::parse(&format!("[proof]\n{text}"), "agent.toml");
        let said = parse("interval = \"2s\"\nwatch = \"1h\"\nat-start = \"report\"").unwrap().proof;
        let (interval, watch) = (Duration::from_secs(2), Duration::from_secs(3_600));
        assert_eq!(said, ProofConfig { interval, watch, at_start: AtStart::Report });
        for wrong in ["interval = \"1s\"", "watch = \"2h\"", "at-start = \"maybe\"", "often = true"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_mistake_at_once() {
        insta::assert_snapshot!(mistakes(
            r#"state = "var/lib/dnswall"
pins = 7
sockets = "/run/x"
cgroup = "/sys/fs/cgroup/../x"

[alerts]
interval = "soon"
terminal = "loud"
metrics = "127.0.0.1:9100"

[[sink]]
type = "file"
max-bytes = 10
format = "json"

[[sink]]
type = "pigeon"

[[sink]]
path = "/var/log/a"

[[sink]]
type = "file"
path = "/var/log/b"
max-bytes = "64MB"
keep = 0

[[sink]]
type = "file"
path = "/var/log/b"
"#
        ));
    }

    #[test]
    fn standard_output_is_used_once() {
        insta::assert_snapshot!(mistakes(
            "[alerts]\nterminal = \"text\"\n[[sink]]\ntype = \"stdout\"\nkeep = 3\n[[sink]]\ntype = \"stdout\"\n"
        ));
        let off = "[alerts]\nterminal = \"off\"\n[[sink]]\ntype = \"stdout\"\nformat = \"text\"\n";
        let config = Config::parse(off, "agent.toml").unwrap();
        assert_eq!(config.sinks[0].target, SinkTarget::Stdout(Format::Text { colour: false }));
    }

    #[test]
    fn what_is_no_toml_and_what_is_no_table() {
        insta::assert_snapshot!(mistakes("state = \"/a\npins = /b\n"));
        insta::assert_snapshot!(mistakes("alerts = 3\nsink = \"stdout\"\n"));
        let many = "[[sink]]\ntype = \"file\"\n".repeat(SINKS_MAX + 1);
        assert!(mistakes(&many).contains("at most 16"));
        assert!(mistakes(&"#".repeat(CONFIG_BYTES_MAX + 1)).contains("longer than"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(\\PC|\n){0,200}") {
            if let Err(problems) = Config::parse(&text, "agent.toml") {
                proptest::prop_assert!(!problems.render(false).is_empty());
            }
        }
    }
}
