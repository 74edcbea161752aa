//! Takes agent.toml, gives what is the host's and not the policy's: sinks, directories, sockets.
//!
//! Every key may be left out; these are the defaults, and the two kinds of sink:
//!
//! ```toml
#![doc = include_str!("example.toml")]
//! ```

mod alerts;
mod kubernetes;
mod lists;
mod metrics;
mod mute;
mod process;
mod proof;
mod remote;
mod section;
mod sink;

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use crate::alert::mute::Mute;
use crate::policy::{Problem, Problems};
use alerts::SPOOL_BYTES_DEFAULT;
pub use alerts::{AlertsConfig, INTERVAL_RANGE, SPOOL_BYTES_RANGE, Terminal, WORKLOAD_RANGE};
pub use kubernetes::{KubernetesConfig, PodSource, REFRESH_RANGE};
pub use lists::{ListsConfig, TIMEOUT_RANGE};
pub use metrics::{METRICS_PORT, METRICS_PORT_MIN, MetricsConfig};
pub use mute::MUTES_MAX;
pub use process::ProcessConfig;
use proof::HEARTBEAT_DEFAULT;
pub use proof::{AtStart, HEARTBEAT_RANGE, PROOF_RANGE, ProofConfig, WATCH_RANGE};
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

impl Default for Config {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/var/lib/dnswall"),
            pins: PathBuf::from("/sys/fs/bpf/dnswall"),
            socket: PathBuf::from("/run/dnswall/control.sock"),
            cgroup: None,
            host_root: None,
            sandbox: true,
            alerts: AlertsConfig::default(),
            spool_bytes_max: SPOOL_BYTES_DEFAULT,
            mutes: Vec::new(),
            sinks: Vec::new(),
            proof: ProofConfig::default(),
            heartbeat: Some(HEARTBEAT_DEFAULT),
            lists: ListsConfig::default(),
            metrics: MetricsConfig::default(),
            process: ProcessConfig::default(),
            kubernetes: None,
        }
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
    let (mut alerts, terminal_span) = alerts::read_alerts(&mut top);
    let spool_bytes_max = alerts::read_spool(&mut top);
    let heartbeat = proof::read_heartbeat(&mut top);
    let proof = proof::read_proof(&mut top);
    let lists = lists::read_lists(&mut top);
    let metrics = metrics::read_metrics(&mut top);
    let process = process::read_process(&mut top);
    let kubernetes =
        top.section("kubernetes", "[kubernetes]", kubernetes::KEYS).map(kubernetes::read_kubernetes);
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
    fn a_file_sink_needs_only_its_path() {
        let config = Config::parse("sink = [{ type = \"file\", path = \"/a\" }]", "agent.toml").unwrap();
        let file =
            FileOptions { path: PathBuf::from("/a"), format: Format::Json, max_bytes: 64 << 20, keep: 4 };
        assert_eq!(config.sinks, [SinkConfig { name: "file /a".to_owned(), target: SinkTarget::File(file) }]);
        assert_eq!(config.alerts.terminal, Terminal::Text);
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
