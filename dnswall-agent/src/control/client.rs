//! Takes a question, asks the agent at its socket, gives the answer or says in full why there is none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::api::{
    AlertTestRequest, AlertTested, Applied, ApplyRequest, Blocklists, ErrorBody, EventsQuery, ExplainRequest,
    Explained, NameChecked, NameRequest, Picture, PolicyShown, RehearseRequest, Rehearsed, Status,
    UpdateRequest, Updated, path,
};

/// One agent, by its socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error(
        "the agent cannot be reached at {socket}: {why}. Is it running? \
         (systemctl status dnswall; --socket or DNSWALL_SOCKET choose another)"
    )]
    Unreachable {
        /// Where it was tried.
        socket: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// The agent answers that it does not do this.
    #[error("{}", body.error)]
    Refused {
        /// The kind, as HTTP has it.
        status: StatusCode,
        /// What it said.
        body: Box<ErrorBody>,
    },
}

impl Client {
    /// The agent at this socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), patience: PATIENCE }
    }

    /// The same with another limit for each answer.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// What stands, and what it counted.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, path::STATUS, Bytes::new()).await
    }

    /// The policy that decides.
    pub async fn policy(&self) -> Result<PolicyShown, ClientError> {
        self.ask(Method::GET, path::POLICY, Bytes::new()).await
    }

    /// Replaces the policy.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<Applied, ClientError> {
        let patient = self.clone().with_patience(APPLY_PATIENCE);
        patient.ask(Method::POST, path::APPLY, self.encode(request)?).await
    }

    /// What an apply would change, and which connections it would meet.
    pub async fn rehearse(&self, request: &RehearseRequest) -> Result<Rehearsed, ClientError> {
        let patient = self.clone().with_patience(APPLY_PATIENCE);
        patient.ask(Method::POST, path::DRY_RUN, self.encode(request)?).await
    }

    /// Confirms the policy that waits for it.
    pub async fn confirm(&self) -> Result<Applied, ClientError> {
        self.ask(Method::POST, path::CONFIRM, Bytes::new()).await
    }

    /// Brings the policy before this one back.
    pub async fn rollback(&self) -> Result<Applied, ClientError> {
        self.ask(Method::POST, path::ROLLBACK, Bytes::new()).await
    }

    /// What the running policy says to one flow.
    pub async fn explain(&self, request: &ExplainRequest) -> Result<Explained, ClientError> {
        self.ask(Method::POST, path::EXPLAIN, self.encode(request)?).await
    }

    /// The block lists of the policy that decides.
    pub async fn blocklists(&self) -> Result<Blocklists, ClientError> {
        self.ask(Method::GET, path::BLOCKLISTS, Bytes::new()).await
    }

    /// Fetches them, or reads them again.
    pub async fn update_blocklists(&self, request: &UpdateRequest) -> Result<Updated, ClientError> {
        let patient = self.clone().with_patience(UPDATE_PATIENCE);
        patient.ask(Method::POST, path::BLOCKLISTS_UPDATE, self.encode(request)?).await
    }

    /// Tests whether alerts arrive.
    pub async fn test_alerts(&self, request: &AlertTestRequest) -> Result<AlertTested, ClientError> {
        let patience = Duration::from_secs(request.within_secs) + TEST_PATIENCE;
        let patient = self.clone().with_patience(patience);
        patient.ask(Method::POST, path::ALERT_TEST, self.encode(request)?).await
    }

    /// What they make of a name.
    pub async fn check_name(&self, request: &NameRequest) -> Result<NameChecked, ClientError> {
        self.ask(Method::POST, path::BLOCKLISTS_CHECK, self.encode(request)?).await
    }

    /// Who talks to whom, and what is refused.
    pub async fn picture(&self) -> Result<Picture, ClientError> {
        self.ask(Method::GET, path::PICTURE, Bytes::new()).await
    }

    /// The alerts in memory and, when asked for, each that follows them.
    pub async fn events(&self, query: &EventsQuery) -> Result<Events, ClientError> {
        let text = query.encode().map_err(|error| self.unreachable(error.to_string()))?;
        let path = format!("{}?{text}", path::EVENTS);
        let response = self.send(Method::GET, &path, Bytes::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(response).await);
        }
        Ok(Events { socket: self.socket.clone(), body: response.into_body(), pending: Vec::new() })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let response = self.send(method, path, body).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(response).await);
        }
        let bytes = self.collect(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            self.unreachable(format!("its answer cannot be read ({error}); it may be of another version"))
        })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let exchange = async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|error| error.to_string())?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            // Ends by itself when the answer's body is read or dropped.
            tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(hyper::header::HOST, "dnswall")
                .header(hyper::header::CONTENT_TYPE, "application/json")
                .body(Full::new(body))
                .map_err(|error| error.to_string())?;
            sender.send_request(request).await.map_err(|error| error.to_string())
        };
        match timeout(self.patience, exchange).await {
            Ok(answer) => answer.map_err(|why| self.unreachable(why)),
            Err(_) => Err(self.unreachable(self.no_answer())),
        }
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        match timeout(self.patience, response.into_body().collect()).await {
            Ok(Ok(whole)) => Ok(whole.to_bytes()),
            Ok(Err(error)) => Err(self.unreachable(format!("its answer broke off ({error})"))),
            Err(_) => Err(self.unreachable(self.no_answer())),
        }
    }

    async fn refused(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        match self.collect(response).await {
            Ok(bytes) => {
                let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| ErrorBody {
                    error: format!("the agent answers {status}: {}", String::from_utf8_lossy(&bytes)),
                    ..ErrorBody::default()
                });
                ClientError::Refused { status, body: Box::new(body) }
            }
            Err(error) => error,
        }
    }

    fn encode(&self, request: &impl Serialize) -> Result<Bytes, ClientError> {
        serde_json::to_vec(request).map(Bytes::from).map_err(|error| self.unreachable(error.to_string()))
    }

    fn no_answer(&self) -> String {
        format!("no answer within {} s", self.patience.as_secs())
    }

    fn unreachable(&self, why: impl Into<String>) -> ClientError {
        ClientError::Unreachable { socket: self.socket.clone(), why: why.into() }
    }
}

/// Alerts as they come, one JSON object each.
#[derive(Debug)]
pub struct Events {
    socket: PathBuf,
    body: Incoming,
    pending: Vec<u8>,
}

impl Events {
    /// The next alert's JSON; `None` when the agent ends the stream.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                // Nothing happened, and the agent is still there.
                if end == 0 {
                    continue;
                }
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.pending.extend_from_slice(&bytes);
                    }
                }
                Some(Err(error)) => {
                    let why = format!("the stream of events broke off ({error})");
                    return Err(ClientError::Unreachable { socket: self.socket.clone(), why });
                }
            }
        }
    }
}

// Publishing the largest policy takes about a second; a busy host may need some more.
const PATIENCE: Duration = Duration::from_secs(30);
/// For a policy: lists that were never fetched are fetched first.
const APPLY_PATIENCE: Duration = Duration::from_secs(120);
/// For all of a test but the sinks.
const TEST_PATIENCE: Duration = Duration::from_secs(120);
/// For lists, which may be long, and their servers slow.
const UPDATE_PATIENCE: Duration = Duration::from_secs(4 * 3_600);
