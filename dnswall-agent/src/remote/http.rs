//! Requests that carry something to a server: takes where it is and what is sent, gives what it answers. Bounded in time
//! and in bytes; no redirect is followed, for what is sent is for this server alone.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, header};
use jiff::Timestamp;

use super::hidden::Hidden;
use super::secret::Secret;
use super::trust::{Identity, Trust};
use super::url::ServerUrl;
use super::words::http_words;

/// Bytes of an answer.
const REPLY_BYTES_MAX: u64 = 1 << 20;

/// A server, and how it and this host know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub url: ServerUrl,
    /// Whom it is known by.
    pub trust: Trust,
    /// Who this host is to it.
    pub identity: Option<Identity>,
    /// What this host is believed by, and the word before that in `Authorization`.
    pub authorization: Option<(Scheme, Secret)>,
    /// How long one request may take.
    pub timeout: Duration,
}

/// The word before the secret in `Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 6750.
    Bearer,
    /// RFC 7617; the secret is user and password with a colon between them.
    Basic,
    /// Elasticsearch.
    ApiKey,
    /// Splunk's HTTP event collector.
    Splunk,
}

/// Asks a server, over one connection as long as it lasts.
pub struct Client {
    agent: ureq::Agent,
    url: ServerUrl,
    authorization: Option<String>,
    hidden: Hidden,
    timeout: Duration,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status, 100 to 999.
    pub status: u16,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Vec<u8>,
    /// What the server was told and must not be shown, should it be in the body.
    pub hidden: Hidden,
}

/// Why there is no answer; nothing secret is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// It is of more bytes than this.
    TooLarge(u64),
    /// For people.
    Failed(String),
}

impl fmt::Display for NoReply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes_max) => write!(formatter, "its answer has more than {bytes_max} bytes"),
            Self::Failed(why) => formatter.write_str(why),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Server {
    /// Somebody who asks it, with the certificates and the secret as they are now.
    ///
    /// # Errors
    /// What cannot be read, for people.
    pub fn client(&self) -> Result<Client, String> {
        let Self { url, trust, identity, authorization, timeout } = self;
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .https_only(url.is_encrypted())
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("dnswall/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(*timeout))
            .max_idle_connections(1);
        if url.is_here() {
            config = config.proxy(None);
        }
        if url.is_encrypted() {
            config = config.tls_config(trust.for_http(identity.as_ref())?);
        }
        let mut told = vec![url.query().to_owned()];
        let authorization = match authorization {
            Some((scheme, secret)) => {
                let secret = secret.read()?;
                let header = scheme.header(&secret);
                told.extend(header.split_once(' ').map(|(_, value)| value.to_owned()));
                told.push(secret);
                Some(header)
            }
            None => None,
        };
        let hidden = Hidden::new(told.iter().map(String::as_str));
        let agent = config.build().new_agent();
        Ok(Client { agent, url: url.clone(), authorization, hidden, timeout: *timeout })
    }
}

impl Scheme {
    fn header(self, secret: &str) -> String {
        use base64::Engine as _;
        match self {
            Self::Bearer => format!("Bearer {secret}"),
            Self::Basic => format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(secret)),
            Self::ApiKey => format!("ApiKey {secret}"),
            Self::Splunk => format!("Splunk {secret}"),
        }
    }
}

impl Client {
    /// Sends `body` to the URL with `path` behind it.
    ///
    /// # Errors
    /// Why there is no answer, for people; nothing secret is in it.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, String> {
        let request = self.with_headers(self.agent.post(&self.whole(path)), headers);
        let response = request.send(body).map_err(|error| http_words(&error, self.timeout))?;
        self.reply(response, REPLY_BYTES_MAX).map_err(|error| error.to_string())
    }

    /// Asks for what is at the URL with `path` behind it, of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn get(&self, path: &str, headers: &[(&str, &str)], bytes_max: u64) -> Result<Reply, NoReply> {
        let request = self.with_headers(self.agent.get(&self.whole(path)), headers);
        let response = request.call().map_err(|error| NoReply::Failed(http_words(&error, self.timeout)))?;
        self.reply(response, bytes_max)
    }

    fn whole(&self, path: &str) -> String {
        let place = self.url.secret();
        if path.is_empty() { place.to_owned() } else { format!("{}{path}", place.trim_end_matches('/')) }
    }

    fn with_headers<B>(
        &self,
        mut request: ureq::RequestBuilder<B>,
        headers: &[(&str, &str)],
    ) -> ureq::RequestBuilder<B> {
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match &self.authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        }
    }

    fn reply(&self, mut response: http::Response<ureq::Body>, bytes_max: u64) -> Result<Reply, NoReply> {
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers(), Timestamp::now());
        let read = response.body_mut().with_config().limit(bytes_max).read_to_vec();
        let body = read.map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => NoReply::TooLarge(bytes_max),
            error => NoReply::Failed(http_words(&error, self.timeout)),
        })?;
        Ok(Reply { status, retry_after, body, hidden: self.hidden.clone() })
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(date.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_ask_to_be_left_alone() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now).map(|time| time.as_secs())
        };
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked("Sun, 01 Mar 2026 12:01:30 GMT"), Some(90));
        assert_eq!(asked("Sun, 01 Mar 2026 11:00:00 GMT"), None, "over");
        assert_eq!(asked("soon"), None);
    }

    #[test]
    fn schemes_have_their_words() {
        let header = |scheme: Scheme| scheme.header("user:pass word");
        assert_eq!(header(Scheme::Basic), "Basic dXNlcjpwYXNzIHdvcmQ=");
        assert_eq!(header(Scheme::Bearer), "Bearer user:pass word");
        assert_eq!(header(Scheme::ApiKey), "ApiKey user:pass word");
        assert_eq!(header(Scheme::Splunk), "Splunk user:pass word");
    }
}
