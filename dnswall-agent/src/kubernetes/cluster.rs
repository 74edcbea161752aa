//! Takes `[kubernetes]` of agent.toml and what Kubernetes puts into a pod's environment, gives who is asked, and for what.

use std::path::PathBuf;

use crate::config::{KubernetesConfig, PodSource};
use crate::host::HostRoot;
use crate::remote::{Scheme, Secret, Server, ServerUrl, Trust};

/// Where Kubernetes puts what a pod is believed by.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Bytes of a node's name (a DNS subdomain).
const NODE_BYTES_MAX: usize = 253;

/// Reads a variable of the environment.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Who is asked, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The server.
    pub server: Server,
    /// The node whose pods are asked for.
    pub node: String,
    /// Which kind of server it is.
    pub source: PodSource,
}

impl Cluster {
    /// What is written, else what is found in the environment; the node is called as the host, where nobody says otherwise.
    ///
    /// # Errors
    /// What is missing, for people.
    pub fn of(
        config: &KubernetesConfig,
        host: &HostRoot,
        host_name: &str,
        environment: Environment<'_>,
    ) -> Result<Self, String> {
        let KubernetesConfig { url, source, token, remote, node, node_env, refresh: _ } = config;
        let account = |name: &str| PathBuf::from(SERVICE_ACCOUNT).join(name);
        // Only for the cluster's own server: another one is told no secret that nobody wrote down for it.
        let (url, token, ca) = match url {
            Some(url) => (url.clone(), token.clone(), remote.ca.clone()),
            None => (
                of_environment(environment)?,
                Some(token.clone().unwrap_or_else(|| Secret::File(account("token")))),
                Some(remote.ca.clone().unwrap_or_else(|| account("ca.crt"))),
            ),
        };
        let node =
            node.clone().or_else(|| environment(node_env)).unwrap_or_else(|| host_name.to_ascii_lowercase());
        if !is_node_name(&node) {
            return Err(format!("{node:?} is no name of a node: write `node` in [kubernetes]"));
        }
        let server = Server {
            url,
            trust: Trust { ca, host: host.clone() },
            identity: remote.identity.clone(),
            authorization: token.map(|token| (Scheme::Bearer, token)),
            timeout: remote.timeout,
        };
        Ok(Self { server, node, source: *source })
    }

    /// What is asked for: so many pods at most, where a server takes that; `next` is what the part before said.
    pub(super) fn path(&self, next: Option<&str>, limit: u32) -> String {
        if self.source == PodSource::Kubelet {
            return "/pods".to_owned();
        }
        let (selector, few) = (format!("spec.nodeName={}", self.node), limit.to_string());
        let mut query = vec![("fieldSelector", selector.as_str()), ("limit", &few)];
        match next {
            Some(next) => query.push(("continue", next)),
            // From the server's memory: it may be a moment old, and costs etcd nothing. There the server gives the whole list,
            // whatever `limit` says (`shouldDelegateList` in its cacher).
            None if limit == LIMIT => query.push(("resourceVersion", "0")),
            None => {}
        }
        let query = serde_urlencoded::to_string(query).unwrap_or_default();
        format!("/api/v1/pods?{query}")
    }
}

/// Pods in one part of the list, if they have no more bytes than a part may.
pub(super) const LIMIT: u32 = 500;

fn of_environment(environment: Environment<'_>) -> Result<ServerUrl, String> {
    let missing = "[kubernetes] has no `url`, and this is no pod ($KUBERNETES_SERVICE_HOST is not set)";
    let host = environment("KUBERNETES_SERVICE_HOST").ok_or(missing)?;
    let port = environment("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    ServerUrl::new(&format!("https://{host}:{port}"))
        .map_err(|bad| format!("$KUBERNETES_SERVICE_HOST and $KUBERNETES_SERVICE_PORT: {}", bad.why()))
}

fn is_node_name(name: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
    (1..=NODE_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn cluster(text: &str, environment: &[(&str, &str)]) -> Result<Cluster, String> {
        let config = Config::parse(text, "agent.toml").unwrap().kubernetes.unwrap();
        let read = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Cluster::of(&config, &HostRoot::default(), "Web-1", &read)
    }

    #[test]
    fn in_a_pod_nothing_has_to_be_written() {
        let pod = [
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("NODE_NAME", "node-7"),
        ];
        let found = cluster("[kubernetes]\n", &pod).unwrap();
        assert_eq!(
            (found.server.url.to_string(), found.node.as_str()),
            ("https://10.96.0.1:443/".into(), "node-7")
        );
        let token = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/token");
        assert_eq!(found.server.authorization, Some((Scheme::Bearer, Secret::File(token))));
        assert!(found.server.trust.ca.is_some());
        assert_eq!(
            found.path(None, LIMIT),
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-7&limit=500&resourceVersion=0"
        );
        assert_eq!(
            found.path(Some("a/b"), LIMIT),
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-7&limit=500&continue=a%2Fb"
        );
        assert_eq!(
            found.path(None, 250),
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-7&limit=250",
            "not from where there is no limit"
        );
        let six = cluster("[kubernetes]\n", &[("KUBERNETES_SERVICE_HOST", "fd00::1")]).unwrap();
        assert_eq!(
            (six.server.url.to_string(), six.node.as_str()),
            ("https://[fd00::1]:443/".into(), "web-1")
        );
        assert!(cluster("[kubernetes]\n", &[]).unwrap_err().contains("this is no pod"));
    }

    #[test]
    fn another_server_is_told_no_secret_that_is_not_meant_for_it() {
        let text = "[kubernetes]\nurl = \"https://10.0.0.9:10250\"\nsource = \"kubelet\"\nnode = \"a\"\n";
        let found = cluster(text, &[("KUBERNETES_SERVICE_HOST", "10.96.0.1")]).unwrap();
        assert_eq!((found.server.authorization.clone(), found.server.trust.ca.clone()), (None, None));
        assert_eq!(found.path(None, LIMIT), "/pods");
        let odd = "[kubernetes]\nurl = \"https://10.0.0.9\"\nnode = \"a&b=c\"\n";
        assert!(cluster(odd, &[]).unwrap_err().contains("is no name of a node"));
    }
}
