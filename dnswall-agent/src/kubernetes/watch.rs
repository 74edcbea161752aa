//! Asks for the list of pods, part by part, until it is over. On a thread of its own, which is not waited for at the end.

use std::time::Duration;

use super::cluster::Cluster;
use super::list::{PODS_MAX, Part, parse};
use super::pods::{ByUid, Pods};
use crate::config::PodSource;
use crate::remote::Client;

/// Bytes of one part: some hundred pods, whole; of what is asked for only the metadata is needed.
const PART_BYTES_MAX: u64 = 32 << 20;
/// Parts of one list.
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
        pods.put(list(cluster));
        if !pods.wait(refresh) {
            return;
        }
    }
}

fn list(cluster: &Cluster) -> Result<ByUid, String> {
    // With the token as it is now: Kubernetes changes it every hour.
    let client = cluster.server.client()?;
    let mut by_uid = ByUid::new();
    let mut next = None;
    for _ in 0..PARTS_MAX {
        let Part { pods, next: after } = part(cluster, &client, next.as_deref())?;
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

fn part(cluster: &Cluster, client: &Client, next: Option<&str>) -> Result<Part, String> {
    let headers: &[(&str, &str)] = match cluster.source {
        PodSource::Api => &[METADATA_ONLY],
        PodSource::Kubelet => &[],
    };
    let reply = client.get(&cluster.path(next), headers, PART_BYTES_MAX)?;
    match reply.status {
        200 => parse(&reply.body),
        401 => Err("401: it does not believe the token".to_owned()),
        403 => Err(match cluster.source {
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
