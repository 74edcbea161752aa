//! Takes requests from the socket, gives the agent's answers. A slow, silent or greedy client costs one of
//! [`CONNECTIONS_MAX`] places of its own user for a bounded time, and nothing else.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::api::{
    AlertTestRequest, AlertTested, Applied, ApplyRequest, Blocklists, ErrorBody, EventsQuery, ExplainRequest,
    Explained, NameChecked, NameRequest, Picture, PolicyShown, RehearseRequest, Rehearsed, Status,
    UpdateRequest, Updated, path,
};
use super::stream::ImpatientStream;
use crate::alert::filter::{Filter, FilterText};

/// Connections of one user served at one time: root's, and the agent's own user's.
pub const CONNECTIONS_MAX: usize = 32;
/// Connections of one user that wait for one of these places. Further ones are told so and closed.
pub const WAITING_MAX: usize = 64;
/// Of the connections served, those that follow events: the others stay free for commands.
pub const FOLLOWERS_MAX: usize = 24;
/// Connections of everybody else that are told at one time that they may not speak. Further ones are closed.
pub const STRANGERS_MAX: usize = 4;
/// Headers of a request.
const HEADERS_MAX: usize = 32;
/// Bytes of a request's head, and of what is read of its body at once.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To send its request's head.
    pub head: Duration,
    /// To send its request's body.
    pub body: Duration,
    /// To read anything of the answer.
    pub write: Duration,
    /// How long a follower hears nothing at most. When there is nothing to say it gets an empty line, which is how the
    /// server learns that nobody is there any more: what a client sends behind its request hides its end.
    pub quiet: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { head: seconds(5), body: seconds(10), write: seconds(10), quiet: seconds(15) }
    }
}

/// What the agent answers. Calls may block; each runs on a thread of its own.
pub trait Agent: Send + Sync + 'static {
    /// What stands, and what it counted.
    fn status(&self) -> Result<Status, Refusal>;
    /// The policy that decides.
    fn policy(&self) -> Result<PolicyShown, Refusal>;
    /// Replaces the policy, or refuses and leaves everything as it is.
    fn apply(&self, request: ApplyRequest) -> Result<Applied, Refusal>;
    /// What an apply would change, and which connections it would meet.
    fn rehearse(&self, request: RehearseRequest) -> Result<Rehearsed, Refusal>;
    /// Confirms the policy that waits for it.
    fn confirm(&self) -> Result<Applied, Refusal>;
    /// Brings the policy before this one back.
    fn rollback(&self) -> Result<Applied, Refusal>;
    /// What the running policy says to one flow.
    fn explain(&self, request: ExplainRequest) -> Result<Explained, Refusal>;
    /// The block lists of the policy that decides.
    fn blocklists(&self) -> Result<Blocklists, Refusal>;
    /// Fetches them, or reads them again, at once.
    fn update_blocklists(&self, request: UpdateRequest) -> Result<Updated, Refusal>;
    /// What they make of a name.
    fn check_name(&self, request: NameRequest) -> Result<NameChecked, Refusal>;
    /// Tests whether alerts arrive.
    fn test_alerts(&self, request: AlertTestRequest) -> Result<AlertTested, Refusal>;
    /// Who talks to whom, and what is refused.
    fn picture(&self) -> Result<Picture, Refusal>;
    /// The last alerts, or records of questions, one JSON object each, oldest first, and each that follows them.
    fn events(&self, query: &EventsQuery) -> Result<Told, Refusal>;
}

/// What somebody asks to be told.
#[derive(Debug)]
pub struct Told {
    /// The last lines, oldest first.
    pub last: Vec<Arc<str>>,
    /// Each that follows them.
    pub live: broadcast::Receiver<Arc<str>>,
    /// Which of those are wanted.
    pub filter: Filter,
}

/// Why the agent does not do what it was asked.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The kind, as HTTP has it.
    pub status: StatusCode,
    /// What is said about it.
    pub body: Box<ErrorBody>,
}

impl Refusal {
    /// A refusal without a policy's mistakes.
    pub fn new(status: StatusCode, error: impl Into<String>, hint: Option<&str>) -> Self {
        let body = ErrorBody { error: error.into(), hint: hint.map(str::to_owned), ..ErrorBody::default() };
        Self { status, body: Box::new(body) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.status, &*self.body)
    }
}

/// Serves the socket until the task is dropped.
///
/// Connections are taken as they come and sorted by the user at their other end, so that a flood of one user's fills
/// neither the socket's backlog nor another user's places.
pub async fn serve(listener: UnixListener, agent: Arc<dyn Agent>, patience: Patience) {
    let queue = || Queue::new(Server::new(Arc::clone(&agent), patience), CONNECTIONS_MAX, WAITING_MAX);
    let (root, own) = (queue(), queue());
    let strangers = Queue::new(Server::forbidding(patience), STRANGERS_MAX, 0);
    let own_uid = rustix::process::geteuid().as_raw();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept a control connection");
                // Out of descriptors or memory: trying again at once would only burn the processor.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // The kernel's word, not the client's.
        match stream.peer_cred().map(|peer| peer.uid()) {
            Ok(0) => root.admit(stream),
            Ok(uid) if uid == own_uid => own.admit(stream),
            _ => strangers.admit(stream),
        }
    }
}

/// How long the server waits after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One user's connections: those served, and those that wait for that.
struct Queue {
    server: Server,
    line: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Queue {
    fn new(server: Server, places: usize, waiting: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { server, line: semaphore(places + waiting), places: semaphore(places) }
    }

    fn admit(&self, stream: UnixStream) {
        let Ok(in_line) = Arc::clone(&self.line).try_acquire_owned() else {
            // Best effort: a full buffer means that nobody reads it.
            let _ = stream.try_write(BUSY);
            return;
        };
        let (server, places) = (self.server.clone(), Arc::clone(&self.places));
        tokio::spawn(async move {
            let place = places.acquire_owned().await;
            server.converse(stream).await;
            drop::<(_, OwnedSemaphorePermit)>((place, in_line));
        });
    }
}

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    connection: close\r\ncontent-length: 49\r\n\r\n{\"error\":\"the agent serves too many connections\"}";

/// The agent's side of one connection.
#[derive(Clone)]
pub struct Server {
    router: Router,
    patience: Patience,
}

impl Server {
    /// Answers for this agent.
    pub fn new(agent: Arc<dyn Agent>, patience: Patience) -> Self {
        Self { router: router(agent, patience), patience }
    }

    /// Answers nothing.
    fn forbidding(patience: Patience) -> Self {
        Self { router: Router::new().fallback(forbidden), patience }
    }

    /// Answers the one request of a connection.
    pub async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let stream = TokioIo::new(ImpatientStream::new(stream, self.patience.write));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience.head)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            // One request a connection: an idle one would hold its place.
            .keep_alive(false)
            .serve_connection(stream, TowerToHyperService::new(self.router.clone()))
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a control connection ended early");
        }
    }
}

#[derive(Clone)]
struct Shared {
    agent: Arc<dyn Agent>,
    followers: Arc<Semaphore>,
    patience: Patience,
}

fn router(agent: Arc<dyn Agent>, patience: Patience) -> Router {
    Router::new()
        .route(path::STATUS, get(status))
        .route(path::POLICY, get(policy))
        .route(path::APPLY, post(apply))
        .route(path::DRY_RUN, post(rehearse))
        .route(path::CONFIRM, post(confirm))
        .route(path::ROLLBACK, post(rollback))
        .route(path::EXPLAIN, post(explain))
        .route(path::BLOCKLISTS, get(blocklists))
        .route(path::BLOCKLISTS_CHECK, post(check_name))
        .route(path::BLOCKLISTS_UPDATE, post(update_blocklists))
        .route(path::ALERT_TEST, post(test_alerts))
        .route(path::PICTURE, get(picture))
        .route(path::EVENTS, get(events))
        .fallback(unknown)
        .with_state(Shared { agent, followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)), patience })
}

async fn status(State(shared): State<Shared>) -> Response {
    answer(move || shared.agent.status()).await
}

async fn policy(State(shared): State<Shared>) -> Response {
    answer(move || shared.agent.policy()).await
}

async fn apply(State(shared): State<Shared>, request: Request) -> Response {
    match body(request, shared.patience).await {
        Ok(request) => answer(move || shared.agent.apply(request)).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn rehearse(State(shared): State<Shared>, request: Request) -> Response {
    match body(request, shared.patience).await {
        Ok(request) => answer(move || shared.agent.rehearse(request)).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn confirm(State(shared): State<Shared>) -> Response {
    answer(move || shared.agent.confirm()).await
}

async fn rollback(State(shared): State<Shared>) -> Response {
    answer(move || shared.agent.rollback()).await
}

async fn explain(State(shared): State<Shared>, request: Request) -> Response {
    match body(request, shared.patience).await {
        Ok(request) => answer(move || shared.agent.explain(request)).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn blocklists(State(shared): State<Shared>) -> Response {
    answer(move || shared.agent.blocklists()).await
}

async fn check_name(State(shared): State<Shared>, request: Request) -> Response {
    match body(request, shared.patience).await {
        Ok(request) => answer(move || shared.agent.check_name(request)).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn update_blocklists(State(shared): State<Shared>, request: Request) -> Response {
    match body(request, shared.patience).await {
        Ok(request) => answer(move || shared.agent.update_blocklists(request)).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn test_alerts(State(shared): State<Shared>, request: Request) -> Response {
    match body(request, shared.patience).await {
        Ok(request) => answer(move || shared.agent.test_alerts(request)).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn picture(State(shared): State<Shared>) -> Response {
    answer(move || shared.agent.picture()).await
}

async fn events(
    State(shared): State<Shared>,
    Query(query): Query<EventsQuery>,
    Query(filter): Query<FilterText>,
) -> Response {
    let query = EventsQuery { filter, ..query };
    let agent = Arc::clone(&shared.agent);
    let (asked, follow) = (query.clone(), query.follow);
    // It may have to read a long time back.
    let told = tokio::task::spawn_blocking(move || agent.events(&asked)).await;
    let Told { last, mut live, filter } = match told {
        Ok(Ok(told)) => told,
        Ok(Err(refusal)) => return refusal.into_response(),
        Err(error) => {
            return Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), None).into_response();
        }
    };
    let place = match (follow, Arc::clone(&shared.followers).try_acquire_owned()) {
        (false, _) => None,
        (true, Ok(place)) => Some(place),
        (true, Err(_)) => {
            let error = format!("{FOLLOWERS_MAX} commands follow the events already");
            return Refusal::new(StatusCode::TOO_MANY_REQUESTS, error, Some("end one of them"))
                .into_response();
        }
    };
    // The channel holds one line: what a follower has not read yet waits in the broadcast, where it is bounded too.
    let (lines, body) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    tokio::spawn(async move {
        for line in last {
            if lines.send(Ok(framed(&line))).await.is_err() {
                return;
            }
        }
        while place.is_some() {
            let line = tokio::select! {
                line = live.recv() => line,
                () = tokio::time::sleep(shared.patience.quiet) => Ok(Arc::from("")),
                () = lines.closed() => return,
            };
            let line = match line {
                Ok(line) if !line.is_empty() && !filter.wants_json(&line) => continue,
                Ok(line) => framed(&line),
                // Said in the stream, so that nobody takes what follows for everything.
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    framed(&format!("{{\"missed\":{missed}}}"))
                }
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if lines.send(Ok(line)).await.is_err() {
                return;
            }
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (headers, Body::from_stream(ReceiverStream::new(body))).into_response()
}

async fn unknown(request: Request) -> Response {
    let error = format!("there is no {} {}", request.method(), request.uri().path());
    Refusal::new(StatusCode::NOT_FOUND, error, Some("command and agent may be of different versions"))
        .into_response()
}

async fn forbidden() -> Response {
    Refusal::new(StatusCode::FORBIDDEN, "only root and the agent's own user may speak to it", None)
        .into_response()
}

fn framed(line: &str) -> Bytes {
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    bytes.into()
}

async fn body<T: DeserializeOwned>(request: Request, patience: Patience) -> Result<T, Refusal> {
    let body = request.into_body();
    // What is announced as too long is not waited for.
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_long());
    }
    let bytes = match timeout(patience.body, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(whole)) => whole.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_long()),
        Ok(Err(_)) => return Err(Refusal::new(StatusCode::BAD_REQUEST, "the request ended early", None)),
        Err(_) => {
            let error = format!("the request took longer than {} s", patience.body.as_secs_f32());
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, error, None));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let hint = Some("command and agent may be of different versions");
        Refusal::new(StatusCode::BAD_REQUEST, format!("the request cannot be read: {error}"), hint)
    })
}

fn too_long() -> Refusal {
    let error = format!("the request is longer than {BODY_BYTES_MAX} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error, None)
}

async fn answer<T, F>(question: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce() -> Result<T, Refusal> + Send + 'static,
{
    match tokio::task::spawn_blocking(question).await {
        Ok(Ok(answer)) => json(StatusCode::OK, &answer),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(error) => {
            tracing::error!(%error, "a request failed inside the agent");
            Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the agent failed at this; its log says more",
                None,
            )
            .into_response()
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, io::Error::from(error).to_string()).into_response(),
    }
}
