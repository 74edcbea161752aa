//! The page, and the server against an agent that only shows one sample.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::board::{Board, Bounds, Source};
use super::exposition::{Form, render};
use super::process::Process;
use super::sample::{Endpoint, Reader, Sample};
use super::server::{self, CONNECTIONS_MAX, HEAD_BYTES_MAX, HEADERS_MAX, Patience, Trouble};
use crate::asked::ResolverStatus;
use crate::blocklist::ListAccount;
use crate::blocklist::lists::RubbishAccount;
use crate::control::api::{
    AlertTested, AttemptStatus, Blocklists, FetchStatus, HookStatus, ListStatus, OlderStatus, PendingStatus,
    PolicyStatus, ProofStatus, ReasonStatus, RuleStatus, SandboxStatus, SelftestStatus, Status, StepShown,
    TamperStatus,
};
use crate::kubernetes::KubernetesStatus;
use crate::spool::{SinkStatus, SpoolStatus};

/// An agent with something in every family.
fn sample() -> Sample {
    let time = || "2026-01-02T03:04:05Z".to_owned();
    let hook = |name: &str, state: &str| HookStatus {
        name: name.to_owned(),
        state: state.to_owned(),
        ..HookStatus::default()
    };
    let rule = |name: &str, allowed, denied, would_deny| RuleStatus {
        name: name.to_owned(),
        allowed,
        denied,
        would_deny,
        ..RuleStatus::default()
    };
    let attempt =
        AttemptStatus { protocol: "tcp".to_owned(), latency_us: Some(350), ..AttemptStatus::default() };
    let counters = [
        ("events-sent", 5),
        ("events-lost", 1),
        ("refusals-pending", 2),
        ("events-unreadable-hook", 3),
        ("something-new", 9),
    ];
    let status = Status {
        version: "1.2.3".to_owned(),
        abi: 7,
        mode: "enforce".to_owned(),
        policy: PolicyStatus {
            name: "shop \"west\"\\\nline".to_owned(),
            digest: "00ff".to_owned(),
            generation: 4,
            origin: "/etc/dnswall/policy.toml".to_owned(),
            applied_at: time(),
        },
        pending: Some(PendingStatus { seconds_left: 120, ..PendingStatus::default() }),
        older: Some(OlderStatus { refused: 3, cut: 1, ..OlderStatus::default() }),
        hooks: vec![hook("dw_egress", "attached"), hook("dw_socket_create", "not-available")],
        rules: vec![rule("default", 0, 7, 1), rule("allow.database", 12, 0, 0)],
        reasons: vec![ReasonStatus { name: "no-rule".to_owned(), denied: 7, would_deny: 1 }],
        counters: counters.map(|(name, count)| (name.to_owned(), count)).into(),
        resolvers: vec![ResolverStatus {
            resolver: "192.0.2.53".to_owned(),
            asked: 5,
            denied: 1,
            unanswered: 2,
            answers: [("NOERROR".to_owned(), 2), ("NXDOMAIN".to_owned(), 1)].into(),
            latency: vec![1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
            latency_secs: 3.5,
        }],
        sinks: vec![SinkStatus {
            name: "file /var/log/dnswall/alerts.jsonl".to_owned(),
            written: 10,
            rejected: 1,
            lost: 2,
            failures: 4,
            waiting: 3,
            oldest_waiting_secs: Some(2.5),
            bytes: 4_096,
            last_taken: Some(time()),
            failing: true,
            last_error: None,
        }],
        selftest: SelftestStatus {
            last: Some(AlertTested {
                number: 7,
                time: time(),
                passed: true,
                steps: vec![StepShown {
                    name: "ring".to_owned(),
                    passed: true,
                    micros: Some(1_500),
                    note: None,
                }],
                ..AlertTested::default()
            }),
            arrived: Some(time()),
            interval_secs: Some(300),
        },
        spool: SpoolStatus {
            path: "/var/lib/dnswall/alerts.redb".to_owned(),
            alerts: 20,
            bytes: 65_536,
            bytes_max: 67_108_864,
            room_used: 0.25,
            taken: 30,
            refused: 5,
            refused_refusals: 50,
            evicted: 6,
            unsaved: 7,
            unsaved_lost: 8,
            failures: 9,
            oldest_waiting_secs: Some(2.5),
            trouble: None,
        },
        proof: ProofStatus {
            state: "proven".to_owned(),
            time: time(),
            attempts: vec![attempt],
            runs: 20,
            failures: 1,
            proven: Some(time()),
            ..ProofStatus::default()
        },
        tamper: TamperStatus { count: 2, last: Some(time()), standing: Vec::new(), looked: time() },
        sandbox: SandboxStatus {
            capabilities: vec!["CAP_BPF".to_owned()],
            no_new_privileges: true,
            system_calls_filtered: true,
        },
        kubernetes: Some(KubernetesStatus {
            server: "https://10.96.0.1:443".to_owned(),
            node: Some("node-7".to_owned()),
            pods: 30,
            last: Some(time()),
            lists: 4,
            failures: 2,
            error: Some("403".to_owned()),
        }),
        warnings: vec!["look".to_owned()],
        ..Status::default()
    };
    let account = ListAccount {
        name: "malware".to_owned(),
        path: "https://lists.example.net/…".to_owned(),
        entries: 1_000,
        protected: 2,
        rubbish: vec![RubbishAccount { lines: 4, ..RubbishAccount::default() }],
        ..ListAccount::default()
    };
    let fetch = FetchStatus {
        refresh_secs: 3_600,
        fetched: Some(time()),
        confirmed: Some(time()),
        tried: Some(time()),
        error: Some("no route".to_owned()),
        failures: 3,
        bytes: 9_000,
        ..FetchStatus::default()
    };
    let process = Process {
        cpu_seconds: 1.5,
        resident_bytes: 1_048_576,
        virtual_bytes: 4_194_304,
        open_fds: 40,
        max_fds: Some(1_024),
        start_seconds: 1_767_323_045.0,
    };
    Sample {
        taken: time().parse().unwrap(),
        status,
        lists: Blocklists {
            lists: vec![ListStatus { account, fetch: Some(fetch) }],
            entries: 1_000,
            kernel_bytes: 65_536,
            exceptions: 5,
        },
        reader: Reader { quiet: Duration::from_millis(250), is_alive: true },
        proof_interval: Duration::from_secs(60),
        process: Some(process),
        endpoint: Endpoint { crowded_out: 1 },
    }
}

fn page(form: Form) -> String {
    render(&Arc::new(sample()), form).unwrap()
}

#[test]
fn the_page() {
    insta::assert_snapshot!(page(Form::Text));
}

/// The two forms write the bound of a bucket at different places.
fn with_labels_in_order(line: &str) -> String {
    let Some((name, labelled)) = line.split_once('{') else { return line.to_owned() };
    let (labels, value) = labelled.rsplit_once('}').unwrap();
    let labels: BTreeSet<&str> = labels.split(',').collect();
    format!("{name}{labels:?}{value}")
}

#[test]
fn openmetrics_says_the_same() {
    let (text, open) = (page(Form::Text), page(Form::OpenMetrics));
    let series = |page: &str| -> BTreeSet<String> {
        page.lines().filter(|line| !line.starts_with('#')).map(with_labels_in_order).collect()
    };
    let (text_series, open_series) = (series(&text), series(&open));
    let differing: Vec<&String> = text_series.symmetric_difference(&open_series).collect();
    assert!(differing.is_empty(), "{differing:?}");
    assert!(open.ends_with("# EOF\n") && !text.contains("# EOF"));
    assert!(
        open.contains("# TYPE dnswall_refusals counter\n") && open.contains("# TYPE dnswall_build info\n")
    );
    assert!(text.contains("# TYPE dnswall_refusals_total counter\n"));
}

#[test]
fn an_agent_that_knows_nothing_yet_has_a_page() {
    let page = render(&Arc::new(Sample::default()), Form::Text).unwrap();
    assert!(page.contains("dnswall_wall_stands 0\n") && !page.contains("dnswall_sink_"), "{page}");
}

#[test]
fn the_scraper_says_how_it_is_written() {
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for accept in
        [prometheus, "application/openmetrics-text", "text/plain;q=0.1, APPLICATION/OPENMETRICS-TEXT;q=0.2"]
    {
        assert_eq!(Form::wanted(accept), Form::OpenMetrics, "{accept}");
    }
    for accept in [
        "",
        "*/*",
        "text/html",
        "text/plain",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;q=x",
        ",;q",
    ] {
        assert_eq!(Form::wanted(accept), Form::Text, "{accept}");
    }
}

/// Names of families on a page and in the table of docs/monitoring.md: whoever renames one has to say so.
#[test]
fn the_documentation_has_every_family_and_no_other() {
    let page = page(Form::Text);
    // It is there only when somebody has forgotten a line.
    let families: BTreeSet<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| *name != "dnswall_unlisted")
        .collect();
    let counted = super::counted::families();
    let mut families: BTreeSet<(String, String)> =
        families.into_iter().map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
    families.extend(counted);
    let written = include_str!("../../../docs/monitoring.md");
    let documented: BTreeSet<(String, String)> = written
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter(|line| !line.starts_with('/'))
        .filter_map(|line| {
            let (name, rest) = line.split_once("` | ")?;
            Some((name.to_owned(), rest.split(" | ").next()?.to_owned()))
        })
        .collect();
    let missing: Vec<_> = families.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&families).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not in docs/monitoring.md: {missing:#?}; not on the page: {gone:#?}"
    );
}

/// Shows what it is told to.
struct Shown {
    sample: Mutex<Result<Sample, String>>,
    reader: Mutex<Reader>,
}

impl Source for Shown {
    fn sample(&self) -> Result<Sample, String> {
        self.sample.lock().unwrap().clone()
    }

    fn reader(&self) -> Reader {
        *self.reader.lock().unwrap()
    }
}

struct Served {
    address: SocketAddr,
    shown: Arc<Shown>,
    _runtime: tokio::runtime::Runtime,
}

fn serve(patience: Patience) -> Served {
    let sample = sample();
    let shown = Arc::new(Shown { reader: Mutex::new(sample.reader), sample: Mutex::new(Ok(sample)) });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let bounds = Bounds { fresh: Duration::ZERO, ..Bounds::default() };
    let board = Board::new(Arc::<Shown>::clone(&shown), bounds);
    runtime.spawn(server::serve(listener, board, patience));
    Served { address, shown, _runtime: runtime }
}

impl Served {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// The whole answer to these bytes.
    fn said(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // One that was refused half read ends with a reset.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn get(&self, path: &str) -> (u16, String) {
        let answer = self.said(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        (code(&answer), answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default()
}

#[test]
fn what_is_served() {
    let served = serve(Patience::default());
    let (code_of, page) = served.get("/metrics");
    assert!(code_of == 200 && page.contains("dnswall_wall_stands 1\n"), "{page}");
    let open =
        served.said("GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text\r\n\r\n");
    assert!(
        open.contains("content-type: application/openmetrics-text; version=1.0.0")
            && open.ends_with("# EOF\n")
    );
    assert_eq!(served.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(served.get("/readyz"), (200, "wall: ok\npolicy: ok\nreader: ok\n".to_owned()));
    assert_eq!(served.get("/").0, 404);
    let head = served.said("HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(code(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(code(&served.said("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")), 405);
}

#[test]
fn what_is_wrong_is_not_ready() {
    let served = serve(Patience::default());
    served.shown.sample.lock().unwrap().as_mut().unwrap().status.hooks[0].state = "gone".to_owned();
    assert_eq!(
        served.get("/readyz"),
        (503, "wall: hook dw_egress is gone\npolicy: ok\nreader: ok\n".to_owned())
    );
    assert_eq!(served.get("/healthz").0, 200, "the process is well");
    assert_eq!(served.get("/metrics").0, 200, "and says what is wrong");
    *served.shown.reader.lock().unwrap() = Reader { quiet: Duration::from_secs(30), is_alive: false };
    assert_eq!(served.get("/healthz"), (503, "reader: it has not been round for 30 s\n".to_owned()));
    *served.shown.sample.lock().unwrap() = Err("a map cannot be read".to_owned());
    let engine = "engine: it cannot be looked at: a map cannot be read\n";
    assert_eq!(served.get("/readyz"), (503, engine.to_owned()));
    assert_eq!(served.get("/metrics"), (503, engine.to_owned()));
}

#[test]
fn nothing_but_a_short_head_is_read() {
    let served = serve(Patience::default());
    let with_body =
        |headers: &str| code(&served.said(&format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n")));
    assert_eq!(with_body("content-length: 1000000"), 413);
    assert_eq!(with_body("transfer-encoding: chunked"), 413);
    let many = "a: b\r\n".repeat(HEADERS_MAX + 1);
    assert_eq!(with_body(many.trim_end()), 431);
    let long = "a".repeat(HEAD_BYTES_MAX + 1);
    assert!(matches!(with_body(&format!("b: {long}")), 431 | 0));
    assert_eq!(served.get("/healthz").0, 200);
}

#[test]
fn the_slow_are_let_go() {
    let millis = Duration::from_millis;
    let served = serve(Patience { head: millis(200), write: millis(200), whole: millis(600) });
    let began = Instant::now();
    let mut silent = served.connect();
    assert!(silent.read(&mut [0; 8]).unwrap_or_default() == 0 && began.elapsed() < Duration::from_secs(10));
    // A byte now and then does not help.
    let mut slow = served.connect();
    let mut sent = 0;
    while slow.write_all(b"G").is_ok() && sent < 200 {
        sent += 1;
        std::thread::sleep(millis(50));
    }
    assert!(sent < 200, "it was let go");
}

#[test]
fn idle_connections_keep_nobody_out() {
    let served = serve(Patience::default());
    let mut idle: Vec<TcpStream> = (0..CONNECTIONS_MAX * 2).map(|_| served.connect()).collect();
    let began = Instant::now();
    assert_eq!(served.get("/metrics").0, 200);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let page = served.get("/metrics").1;
    let line =
        page.lines().find(|line| line.starts_with("dnswall_metrics_connections_crowded_out_total ")).unwrap();
    assert!(line.rsplit(' ').next().unwrap().parse::<usize>().unwrap() >= CONNECTIONS_MAX, "{line}");
    assert_eq!(idle[0].read(&mut [0; 8]).unwrap_or_default(), 0, "the oldest is closed");
}

#[test]
fn a_port_that_is_taken_is_waited_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let trouble = Trouble::default();
    let shown = Arc::new(Shown { reader: Mutex::default(), sample: Mutex::new(Ok(sample())) });
    let told = trouble.clone();
    // It ends with the test.
    std::thread::spawn(move || server::run(address, shown, &told));
    let until = Instant::now() + Duration::from_secs(10);
    while trouble.now().is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    let said = trouble.now().unwrap();
    assert!(said.starts_with(&format!("metrics are not served at {address}: ")), "{said}");
}
