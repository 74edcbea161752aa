//! Alerts as records of a Kafka topic. They count as taken when all replicas that are in step have them.
//!
//! All of a host's alerts are in one partition, so that they stay in order; the key is the host, and the header `id` is what
//! one that comes twice is known by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rskafka::BackoffConfig;
use rskafka::chrono::DateTime;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{ClientBuilder, Credentials, SaslConfig};
use rskafka::record::Record;
use tokio::runtime::Runtime;

use super::halves::{self, Answer};
use super::{Failure, Sent, Sink, line};
use crate::digest::sha256;
use crate::format::Format;
use crate::remote::{Identity, Secret, Trust};
use crate::spool::{Entry, Limits};

/// What this producer calls itself.
const CLIENT_ID: &str = "dnswall";
/// Bytes of a broker's answer: it has the topics and brokers of a whole cluster.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// How brokers let this host in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sasl {
    /// User and password as they are.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaOptions {
    /// Some of the brokers, `host:port`.
    pub brokers: Vec<String>,
    /// Whom they are known by, and who this host is to them; `None` speaks plain text.
    pub tls: Option<(Trust, Option<Identity>)>,
    /// How they let this host in; the secret is user and password with a colon between them.
    pub sasl: Option<(Sasl, Secret)>,
    /// The topic.
    pub topic: String,
    /// What a record says.
    pub format: Format,
    /// How long one attempt may take.
    pub timeout: Duration,
}

/// Produces records.
pub struct KafkaSink {
    name: String,
    options: KafkaOptions,
    partition: Option<(Runtime, PartitionClient)>,
}

impl KafkaSink {
    /// To this topic.
    pub fn new(name: &str, options: KafkaOptions) -> Self {
        Self { name: name.to_owned(), options, partition: None }
    }

    fn produce(&mut self, batch: &[Entry]) -> Result<Answer, String> {
        let host = batch.first().map(|entry| entry.alert.host.clone()).unwrap_or_default();
        let (runtime, partition) = match self.partition.take() {
            Some(connected) => connected,
            None => self.connect(&host)?,
        };
        let records: Vec<Record> = batch.iter().map(|entry| self.record(entry)).collect();
        let bytes = records.iter().filter_map(|record| record.value.as_ref()).map(Vec::len).sum();
        let timeout = self.options.timeout;
        let produced = runtime.block_on(async {
            tokio::time::timeout(timeout, partition.produce(records, Compression::NoCompression)).await
        });
        match produced {
            Err(_) => Err(format!("the brokers have not taken it within {} s", timeout.as_secs_f32().ceil())),
            Ok(Err(error)) if is_too_large(&error) => {
                self.partition = Some((runtime, partition));
                Ok(Answer::Refused(error.to_string()))
            }
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(_)) => {
                self.partition = Some((runtime, partition));
                Ok(Answer::Sent(Sent { bytes, rejected: Vec::new() }))
            }
        }
    }

    fn connect(&self, host: &str) -> Result<(Runtime, PartitionClient), String> {
        let KafkaOptions { brokers, tls, sasl, topic, format: _, timeout } = &self.options;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        // Its own patience has no end: what fails is tried again by who gives it the alerts.
        let backoff = BackoffConfig { deadline: Some(*timeout), ..BackoffConfig::default() };
        let mut builder = ClientBuilder::new(brokers.clone())
            .client_id(CLIENT_ID)
            .max_message_size(ANSWER_BYTES_MAX)
            .backoff_config(backoff);
        if let Some((trust, identity)) = tls {
            builder = builder.tls_config(Arc::new(trust.for_tls(identity.as_ref())?));
        }
        if let Some((sasl, secret)) = sasl {
            let secret = secret.read()?;
            let (user, password) = secret.split_once(':').ok_or("the secret is not user:password")?;
            let credentials = Credentials::new(user.to_owned(), password.to_owned());
            builder = builder.sasl_config(match sasl {
                Sasl::Plain => SaslConfig::Plain(credentials),
                Sasl::ScramSha256 => SaslConfig::ScramSha256(credentials),
                Sasl::ScramSha512 => SaslConfig::ScramSha512(credentials),
            });
        }
        let connect = async {
            let client = builder.build().await.map_err(|error| error.to_string())?;
            let topics = client.list_topics().await.map_err(|error| error.to_string())?;
            let found = topics.into_iter().find(|found| found.name == *topic);
            let partitions: Vec<i32> = found.into_iter().flat_map(|found| found.partitions).collect();
            let partition = *partitions
                .get(place(host, partitions.len()))
                .ok_or_else(|| format!("the brokers have no topic {topic}"))?;
            let partition =
                client.partition_client(topic.as_str(), partition, UnknownTopicHandling::Error).await;
            partition.map_err(|error| error.to_string())
        };
        let late = || format!("no broker answers within {} s", timeout.as_secs_f32().ceil());
        let connected = runtime.block_on(async { tokio::time::timeout(*timeout, connect).await });
        let partition = connected.map_err(|_| late())??;
        Ok((runtime, partition))
    }

    fn record(&self, entry: &Entry) -> Record {
        let alert = &entry.alert;
        let headers = [
            ("id", alert.id.to_string()),
            ("kind", alert.kind.name().to_owned()),
            ("severity", alert.severity.name().to_owned()),
        ];
        Record {
            key: Some(alert.host.clone().into_bytes()),
            value: Some(line(entry, self.options.format).into_bytes()),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into_bytes()))
                .collect::<BTreeMap<_, _>>(),
            timestamp: DateTime::from_timestamp_millis(alert.time.as_millisecond()).unwrap_or_default(),
        }
    }
}

/// The broker has a bound for what comes at once.
fn is_too_large(error: &Error) -> bool {
    let Error::ServerError { protocol_error, .. } = error else { return false };
    matches!(protocol_error, ProtocolError::MessageTooLarge | ProtocolError::RecordListTooLarge)
}

/// The same for the same host, whatever version this is.
fn place(host: &str, partitions: usize) -> usize {
    let digits = sha256(host);
    let number = usize::from_str_radix(digits.get(..8).unwrap_or_default(), 16).unwrap_or(0);
    number.checked_rem(partitions).unwrap_or(0)
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KafkaSink").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Sink for KafkaSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        // Of the alerts' own JSON; with keys and headers below what brokers take by default, a mebibyte.
        Limits { alerts: 256, bytes: 512 << 10 }
    }

    fn send(&mut self, batch: &[Entry]) -> Result<Sent, Failure> {
        halves::send(batch, &mut |part| self.produce(part).map_err(Failure::of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_partition_and_hosts_have_all_of_them() {
        assert_eq!((place("web-1", 0), place("web-1", 1)), (0, 0));
        let places: std::collections::BTreeSet<usize> =
            (0..100).map(|host| place(&format!("web-{host}"), 12)).collect();
        assert_eq!(places.len(), 12);
        assert_eq!(place("web-1", 12), place("web-1", 12));
    }
}
