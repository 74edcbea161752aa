//! The Kafka broker: kafka-python produces, in plain text and over TLS.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use dnswall_tests::authority::Authority;
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::kafka::Kafka;
use tempfile::TempDir;

use crate::client::Said;

const ID: &str = "0195519e-9200-7000-8000-000000000001";
/// One record to partition 1, acknowledged by all, without another try, once it is told to after it has found the broker.
const PRODUCER: &str = r#"
import sys
from kafka import KafkaProducer
at, authority, value, *names = sys.argv[1:]
more = {} if authority == "-" else {"security_protocol": "SSL", "ssl_cafile": authority}
if names:
    more["security_protocol"] = "SASL_" + more.get("security_protocol", "PLAINTEXT")
    more |= zip(("sasl_mechanism", "sasl_plain_username", "sasl_plain_password"), names)
producer = KafkaProducer(
    bootstrap_servers=at, acks="all", retries=0, request_timeout_ms=2000, max_block_ms=5000, api_version=(2, 5), **more
)
producer.partitions_for("alerts")
print("ready", flush=True)
input()
headers = [("format", b"json")]
sent = producer.send("alerts", value.encode(), key=b"web-1", headers=headers, partition=1, timestamp_ms=1500)
print(sent.get(5).offset)
"#;

struct Scene {
    kafka: Kafka,
    authority: Authority,
    guard: Guard,
    /// What the producer calls itself: mechanism, user, password.
    names: Vec<&'static str>,
    _directory: TempDir,
}

impl Scene {
    fn set(guard: Guard) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let authority = Authority::make(directory.path())?;
        let kafka = Kafka::start(directory.path().join("kafka"), &authority, guard, "alerts", 2)?;
        Ok(Self { kafka, authority, guard, names: Vec::new(), _directory: directory })
    }

    /// A broker that asks who it is.
    fn set_with_names(guard: Guard, names: [&'static str; 3]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let authority = Authority::make(directory.path())?;
        let place = directory.path().join("kafka");
        let kafka = Kafka::start_with_names(place, &authority, guard, names, "alerts", 2)?;
        Ok(Self { kafka, authority, guard, names: names.to_vec(), _directory: directory })
    }

    /// What the producer said, with the offset at which its record is.
    fn produce(&self, value: &str) -> Result<Said> {
        self.produce_once(value, || Ok(()))
    }

    /// With something that happens between finding the broker and sending.
    fn produce_once(&self, value: &str, between: impl FnOnce() -> Result<()>) -> Result<Said> {
        let authority = match self.guard {
            Guard::Plain => "-".to_owned(),
            Guard::Tls | Guard::Mutual => self.authority.pem().display().to_string(),
        };
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", PRODUCER, &self.kafka.at().to_string(), &authority, value]).args(&self.names);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start the producer")?;
        let mut lines = BufReader::new(child.stdout.take().context("take its output")?);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        between()?;
        // It ends with an error of its own when it found no broker.
        let _ = child.stdin.take().context("take its input")?.write_all(b"\n");
        let mut text = Vec::new();
        lines.read_to_end(&mut text)?;
        let output = child.wait_with_output()?;
        let code = output.status.code().unwrap_or(-1);
        Ok(Said { code, text, errors: String::from_utf8_lossy(&output.stderr).into_owned() })
    }

    fn values(&self) -> Result<Vec<String>> {
        Ok(self.kafka.records()?.into_iter().filter_map(|record| record.value).collect())
    }
}

#[test]
fn a_record_is_kept_in_its_partition() -> Result<()> {
    let scene = Scene::set(Guard::Plain)?;
    assert_eq!(scene.kafka.records()?.len(), 0);
    for offset in ["0\n", "1\n"] {
        let said = scene.produce(&format!("{{\"id\":\"{ID}\"}}"))?;
        assert_eq!(String::from_utf8(said.text)?, offset, "{}", said.errors);
    }
    let records = scene.kafka.records()?;
    assert_eq!(records.len(), 2);
    let last = &records[1];
    assert_eq!((last.partition, last.offset, last.timestamp_ms), (1, 1, 1_500));
    assert_eq!((last.key.as_deref(), last.ids()), (Some("web-1"), vec![ID.to_owned()]));
    assert_eq!(last.headers["format"].as_deref(), Some("json"));
    Ok(())
}

#[test]
fn one_out_of_reach_refuses_and_keeps_what_it_has() -> Result<()> {
    let mut scene = Scene::set(Guard::Tls)?;
    let said = scene.produce("before")?;
    ensure!(said.code == 0, "{}", said.errors);
    scene.kafka.stop();
    ensure!(scene.produce("meanwhile")?.code != 0, "nobody is there");
    assert_eq!(scene.values()?, ["before"]);
    scene.kafka.resume()?;
    assert_eq!(scene.produce("after")?.code, 0);
    assert_eq!(scene.values()?, ["before", "after"]);
    Ok(())
}

#[test]
fn an_answer_may_be_lost_although_the_record_is_kept() -> Result<()> {
    let scene = Scene::set(Guard::Plain)?;
    let said = scene.produce_once("not told", || scene.kafka.lose_answers(true))?;
    ensure!(said.code != 0 && said.errors.contains("timed out"), "{}", said.errors);
    scene.kafka.lose_answers(false)?;
    assert_eq!(scene.produce("told")?.text, b"1\n");
    assert_eq!(scene.values()?, ["not told", "told"]);
    Ok(())
}

#[test]
fn who_does_not_know_the_password_is_not_let_in() -> Result<()> {
    let ways = [
        (Guard::Tls, ["PLAIN", "shop", "open:sesame"]),
        (Guard::Plain, ["SCRAM-SHA-256", "shop", "sesame"]),
        (Guard::Tls, ["SCRAM-SHA-512", "shop", "sesame"]),
    ];
    // A producer takes five seconds to give up.
    std::thread::scope(|scope| {
        let all = ways.map(|(guard, names)| scope.spawn(move || lets_in(guard, names)));
        all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

/// That a broker lets in whom it knows by these names, and nobody else.
fn lets_in(guard: Guard, names: [&'static str; 3]) -> Result<()> {
    let mut scene = Scene::set_with_names(guard, names)?;
    let said = scene.produce("right")?;
    ensure!(said.code == 0, "{names:?}: {}", said.errors);
    let [mechanism, user, password] = names;
    for wrong in [vec![mechanism, user, "guess"], vec![mechanism, "root", password], vec![]] {
        scene.names = wrong;
        let said = scene.produce("wrong")?;
        ensure!(said.code != 0, "{names:?}: {:?} was let in", scene.names);
    }
    ensure!(scene.values()? == ["right"], "{names:?}");
    Ok(())
}
