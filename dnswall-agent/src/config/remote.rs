//! Takes the keys of a sink that say how a server and this host know each other, gives them checked.

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;
use crate::policy::Problem;
use crate::remote::{Identity, Scheme, Secret, ServerUrl};

/// Least and most time of one request.
pub const REQUEST_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(300));

const REQUEST_DEFAULT: Duration = Duration::from_secs(10);
const VARIABLE_BYTES_MAX: usize = 256;

/// How a server and this host know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    /// A file of authorities that it is known by, beside the host's.
    pub ca: Option<PathBuf>,
    /// Who this host is to it.
    pub identity: Option<Identity>,
    /// How long one request may take.
    pub timeout: Duration,
}

/// A server that is asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where it is.
    pub url: ServerUrl,
    /// What this host is believed by.
    pub authorization: Option<(Scheme, Secret)>,
    /// How it and this host know each other.
    pub remote: RemoteConfig,
}

/// `ca`, `certificate`, `key` and `timeout`.
pub(super) fn read_remote(section: &mut Section<'_, '_>) -> RemoteConfig {
    let ca = section.path("ca");
    let (certificate, key) = (section.path("certificate"), section.path("key"));
    for (there, missing) in [("certificate", "key"), ("key", "certificate")] {
        if !section.lacks(there) && section.lacks(missing) {
            let problem = Problem::error(section.value_span(there), format!("`{there}` needs a `{missing}`"));
            section.note(problem.hint(format!("write {missing} = \"/etc/dnswall/{missing}.pem\"")));
        }
    }
    let identity = certificate.zip(key).map(|(certificate, key)| Identity { certificate, key });
    let timeout = section.duration("timeout", REQUEST_RANGE).unwrap_or(REQUEST_DEFAULT);
    RemoteConfig { ca, identity, timeout }
}

/// `url`, and those of [`read_remote`].
pub(super) fn read_server(section: &mut Section<'_, '_>, hint: &str) -> Option<ServerConfig> {
    let remote = read_remote(section);
    section.require("url", hint);
    Some(ServerConfig { url: read_url(section)?, authorization: None, remote })
}

/// `url`, without a secret in it.
pub(super) fn read_url(section: &mut Section<'_, '_>) -> Option<ServerUrl> {
    let text = section.text("url")?;
    let span = section.value_span("url");
    let url = match ServerUrl::new(&text) {
        Ok(url) => url,
        Err(reason) => {
            section.note(
                Problem::error(span, "nothing can be sent to this `url`")
                    .why(reason.why())
                    .hint(reason.hint()),
            );
            return None;
        }
    };
    if url.has_user() {
        let problem = Problem::error(span, "a secret is not written into agent.toml");
        let hint = "write it into a file that only root may read, and token-file = \"/…\" with authorization = \"basic\"";
        section.note(problem.hint(hint));
        return None;
    }
    Some(url)
}

/// The secret, and `authorization`.
pub(super) fn authorized(
    section: &mut Section<'_, '_>,
    server: Option<ServerConfig>,
    usual: Scheme,
) -> Option<ServerConfig> {
    let schemes = [("bearer", Scheme::Bearer), ("basic", Scheme::Basic), ("api-key", Scheme::ApiKey)];
    let scheme = section.choice("authorization", &schemes).map_or(usual, |(_, scheme)| scheme);
    let secret = read_secret(section);
    if secret.is_none()
        && section.lacks("token-file")
        && section.lacks("token-env")
        && !section.lacks("authorization")
    {
        let problem = Problem::error(section.value_span("authorization"), "there is no secret to go with it");
        section.note(problem.hint("write token-file = \"/…\" or token-env = \"…\""));
    }
    server.map(|server| ServerConfig { authorization: secret.map(|secret| (scheme, secret)), ..server })
}

/// `token-file` or `token-env`.
pub(super) fn read_secret(section: &mut Section<'_, '_>) -> Option<Secret> {
    let file = section.path("token-file").map(Secret::File);
    let variable = section.name("token-env", VARIABLE_BYTES_MAX).map(Secret::Environment);
    if file.is_some() && variable.is_some() {
        let problem = Problem::error(section.value_span("token-env"), "the secret is in two places");
        section.note(problem.hint("take `token-file` or `token-env` out"));
    }
    file.or(variable)
}

/// A server to whose URL a path is added.
pub(super) fn without_query(
    section: &mut Section<'_, '_>,
    server: Option<ServerConfig>,
) -> Option<ServerConfig> {
    server.filter(|server| may_be_added_to(section, &server.url))
}

/// Whether a path may be added to a URL.
pub(super) fn may_be_added_to(section: &mut Section<'_, '_>, url: &ServerUrl) -> bool {
    if url.has_query() {
        let problem = Problem::error(section.value_span("url"), "there is something behind a `?`");
        section.note(
            problem
                .why("a path is added to it")
                .hint("write only the server, and a path before it if it has one"),
        );
    }
    !url.has_query()
}
