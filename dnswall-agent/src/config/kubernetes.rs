//! Takes `[kubernetes]` of agent.toml, gives who is asked for the labels of pods.

use std::time::Duration;

use super::remote::{RemoteConfig, may_be_added_to, read_remote, read_secret, read_url};
use super::section::Section;
use crate::policy::Problem;
use crate::remote::{Secret, ServerUrl};

/// Least and most time between two lists.
pub const REFRESH_RANGE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3_600));

const REFRESH_DEFAULT: Duration = Duration::from_secs(180);
/// What the manifest calls it (`fieldRef: spec.nodeName`).
const NODE_VARIABLE: &str = "NODE_NAME";
const NODE_BYTES_MAX: usize = 253;
const VARIABLE_BYTES_MAX: usize = 256;

pub(super) const KEYS: &[&str] = &[
    "url",
    "source",
    "token-file",
    "token-env",
    "ca",
    "certificate",
    "key",
    "timeout",
    "node",
    "node-env",
    "refresh",
];

/// Who is asked for the labels of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// Where; `None` is the server of the cluster that the agent is a pod of.
    pub url: Option<ServerUrl>,
    /// Which kind of server that is.
    pub source: PodSource,
    /// What the agent is believed by.
    pub token: Option<Secret>,
    /// How it and the server know each other.
    pub remote: RemoteConfig,
    /// What this node is called.
    pub node: Option<String>,
    /// The variable that says so.
    pub node_env: String,
    /// Between two lists.
    pub refresh: Duration,
}

/// A kind of server that knows pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodSource {
    /// The cluster's API server.
    Api,
    /// This node's kubelet.
    Kubelet,
}

/// Reads it.
pub(super) fn read_kubernetes(mut section: Section<'_, '_>) -> KubernetesConfig {
    let sources = [("api", PodSource::Api), ("kubelet", PodSource::Kubelet)];
    let source = section.choice("source", &sources).map_or(PodSource::Api, |(_, source)| source);
    if source == PodSource::Kubelet {
        section.require("url", "write url = \"https://NODE:10250\": only the cluster's own server is found");
    }
    let url = read_url(&mut section).filter(|url| may_be_added_to(&mut section, url));
    let remote = read_remote(&mut section);
    let token = read_secret(&mut section);
    let node = section.name("node", NODE_BYTES_MAX);
    let node_env = section.name("node-env", VARIABLE_BYTES_MAX);
    if node.is_some() && node_env.is_some() {
        let problem = Problem::error(section.value_span("node-env"), "the node is named in two places");
        section.note(problem.hint("take `node` or `node-env` out"));
    }
    let refresh = section.duration("refresh", REFRESH_RANGE).unwrap_or(REFRESH_DEFAULT);
    let node_env = node_env.unwrap_or_else(|| NODE_VARIABLE.to_owned());
    KubernetesConfig { url, source, token, remote, node, node_env, refresh }
}
