//! Asks for the list of pods, part by part, until it is over. On a thread of its own, which is not waited for at the end.

use std::time::Duration;

use super::cluster::{Cluster, LIMIT};
use super::list::{PODS_MAX, Part, parse};
use super::pods::{ByUid, Pods};
use crate::config::PodSource;
use crate::remote::{Client, NoReply, Reply};

/// Bytes of one part. Of what is asked for only the metadata is needed: some hundred bytes of a pod as a rule, and of one with hostile
/// annotations at most what etcd takes (1.5 MiB), six times that in JSON.
const PART_BYTES_MAX: u64 = 32 << 20;
/// Parts of one list, those included that were too large.
const PARTS_MAX: usize = 64;
/// The metadata alone, from servers that can (Kubernetes 1.15 and later); the kubelet cannot.
const METADATA_ONLY: (&str, &str) =
    ("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json");
/// A server's own words that are shown, in bytes.
const SAID_BYTES_MAX: usize = 200;

/// Keeps `pods` up to date.
pub fn run(pods: &Pods, cluster: &Cluster, refresh: Duration) {
    loop {
        pods.begin();
        pods.put(list(cluster, PART_BYTES_MAX));
        if !pods.wait(refresh) {
            return;
        }
    }
}

/// All of it, in parts of so many bytes at most: of a part that is larger half as many pods are asked for, and so on.
fn list(cluster: &Cluster, part_bytes_max: u64) -> Result<ByUid, String> {
    // With the token as it is now: Kubernetes changes it every hour.
    let client = cluster.server.client()?;
    let mut by_uid = ByUid::new();
    let (mut next, mut limit) = (None, LIMIT);
    for _ in 0..PARTS_MAX {
        let reply = match ask(cluster, &client, &cluster.path(next.as_deref(), limit), part_bytes_max) {
            Err(NoReply::TooLarge(_)) if cluster.source == PodSource::Api && limit > 1 => {
                limit /= 2;
                continue;
            }
            reply => reply.map_err(|error| error.to_string())?,
        };
        let Part { pods, next: after } = part(cluster.source, &reply)?;
        by_uid.extend(pods);
        if by_uid.len() > PODS_MAX {
            return Err(format!("it has more than {PODS_MAX} pods for one node"));
        }
        next = after;
        if next.is_none() {
            return Ok(by_uid);
        }
    }
    Err(format!("its list has more than {PARTS_MAX} parts"))
}

fn ask(cluster: &Cluster, client: &Client, path: &str, bytes_max: u64) -> Result<Reply, NoReply> {
    let headers: &[(&str, &str)] = match cluster.source {
        PodSource::Api => &[METADATA_ONLY],
        PodSource::Kubelet => &[],
    };
    client.get(path, headers, bytes_max)
}

fn part(source: PodSource, reply: &Reply) -> Result<Part, String> {
    match reply.status {
        200 => parse(&reply.body),
        401 => Err("401: it does not believe the token".to_owned()),
        403 => Err(match source {
            PodSource::Api => "403: the service account may not list pods",
            PodSource::Kubelet => "403: the token may not `get` `nodes/proxy`",
        }
        .to_owned()),
        status => {
            let said = crate::event::text::printable(&reply.body, SAID_BYTES_MAX);
            Err(format!("{status}: {}", reply.hidden.out_of(&said)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::host::HostRoot;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    const BYTES_MAX: u64 = 64 << 10;

    /// An API with a pod for each of these sizes of annotations, as Kubernetes' does it: by `limit`, which it does not heed where it is
    /// asked for `resourceVersion=0`, and from `continue` on. It answers so often, and gives what it was asked.
    fn api(sizes: &'static [usize], answers: usize) -> (u16, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for _ in 0..answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let line = head.next().unwrap();
                head.take_while(|line| !line.is_empty()).for_each(drop);
                let query = line.split(['?', ' ']).nth(2).unwrap_or_default().to_owned();
                let body = answer(sizes, &query);
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                // Whoever finds it too long leaves.
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
                asked.push(query);
            }
            asked
        });
        (port, served)
    }

    fn answer(sizes: &[usize], query: &str) -> String {
        let number = |key: &str| {
            let value = query.split('&').find_map(|pair| pair.strip_prefix(key));
            value.map(|value| value.parse::<usize>().unwrap())
        };
        let from = number("continue=").unwrap_or(0);
        let most = number("limit=").filter(|_| !query.contains("resourceVersion=0")).unwrap_or(sizes.len());
        let part = sizes.iter().enumerate().skip(from).take(most);
        let items: Vec<String> = part
            .map(|(pod, bytes)| {
                let text = "x".repeat(*bytes);
                format!(
                    r#"{{"metadata":{{"uid":"u{pod}","labels":{{"n":"{pod}"}},"annotations":{{"a":"{text}"}}}}}}"#
                )
            })
            .collect();
        let end = from + items.len();
        let next = if end < sizes.len() { end.to_string() } else { String::new() };
        format!(
            r#"{{"kind":"PartialObjectMetadataList","metadata":{{"continue":"{next}"}},"items":[{}]}}"#,
            items.join(",")
        )
    }

    fn cluster(port: u16, source: &str) -> Cluster {
        let text =
            format!("[kubernetes]\nurl = \"http://127.0.0.1:{port}\"\nsource = \"{source}\"\nnode = \"a\"\n");
        let config = Config::parse(&text, "agent.toml").unwrap().kubernetes.unwrap();
        Cluster::of(&config, &HostRoot::default(), "a", &|_| None).unwrap()
    }

    #[test]
    fn of_a_part_that_is_too_large_less_is_asked_for() {
        // Three of them fit, in whatever order.
        let sizes = &[20 << 10; 8];
        let halvings = [500, 250, 125, 62, 31, 15, 7, 3];
        let (port, served) = api(sizes, halvings.len() + 2);
        let found = list(&cluster(port, "api"), BYTES_MAX).unwrap();
        assert_eq!(found.len(), sizes.len());
        assert_eq!((found["u0"]["n"].as_str(), found["u7"]["n"].as_str()), ("0", "7"));
        let node = "fieldSelector=spec.nodeName%3Da";
        let expected = halvings.map(|limit| match limit {
            500 => format!("{node}&limit=500&resourceVersion=0"),
            limit => format!("{node}&limit={limit}"),
        });
        let rest = [3, 6].map(|from| format!("{node}&limit=3&continue={from}"));
        assert_eq!(served.join().unwrap(), [&expected[..], &rest[..]].concat());
    }

    #[test]
    fn what_is_too_large_by_itself_is_said() {
        let (port, served) = api(&[1, 70 << 10], 10);
        let why = list(&cluster(port, "api"), BYTES_MAX).unwrap_err();
        assert_eq!(why, "its answer has more than 65536 bytes");
        assert!(served.join().unwrap().last().unwrap().ends_with("&limit=1&continue=1"));
        let (port, served) = api(&[70 << 10], 1);
        assert_eq!(list(&cluster(port, "kubelet"), BYTES_MAX).unwrap_err(), why, "it knows no parts");
        served.join().unwrap();
    }
}
