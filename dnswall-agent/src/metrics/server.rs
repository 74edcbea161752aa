//! Takes requests from anybody who reaches the address, gives metrics and health. It has a thread and a runtime of its own, so
//! that whoever asks much takes nothing from the commands' socket; nothing is read but a request's head, and who is slow
//! loses its place to whoever comes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Body as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::board::{Board, Bounds, Silence, Source};
use super::exposition::Form;
use crate::control::stream::ImpatientStream;

/// Connections served at one time. One more closes the oldest: to keep a scraper out one has to be faster than the
/// milliseconds a page takes, again and again, where idle connections alone would do if younger ones were refused.
pub const CONNECTIONS_MAX: usize = 32;
/// Headers of a request.
pub const HEADERS_MAX: usize = 32;
/// Bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Between two tries to listen where somebody else does.
const BIND_AGAIN: Duration = Duration::from_secs(10);
/// How long the server waits after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To send its request's head.
    pub head: Duration,
    /// To read anything of the answer.
    pub write: Duration,
    /// For everything.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { head: seconds(5), write: seconds(5), whole: seconds(20) }
    }
}

/// Why nobody is answered, for `dnswall status`.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// What is wrong now.
    pub fn now(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, trouble: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// Serves an address until the process ends; to be run on a thread of its own.
///
/// An address that cannot be had is tried again and again and is no reason for an agent to end: whoever takes the port
/// first could keep the agent from starting.
pub fn run(address: SocketAddr, source: Arc<dyn Source>, trouble: &Trouble) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        // One waits for the agent's lock; there is no second.
        .max_blocking_threads(1)
        .thread_name("metrics-look")
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            let listener = listen(address, trouble).await;
            tracing::info!("metrics are served at http://{address}/metrics");
            serve(listener, Board::new(source, Bounds::default()), Patience::default()).await;
        }),
        Err(error) => {
            tracing::error!(%error, "metrics are not served: start their runtime");
            trouble.set(Some(format!("metrics are not served at {address}: {error}")));
        }
    }
}

async fn listen(address: SocketAddr, trouble: &Trouble) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                trouble.set(None);
                return listener;
            }
            Err(error) => {
                let said = format!(
                    "metrics are not served at {address}: {error}; what answers there is not this agent. It is tried again"
                );
                if !is_told {
                    tracing::warn!("{said}");
                }
                is_told = true;
                trouble.set(Some(said));
            }
        }
        sleep(BIND_AGAIN).await;
    }
}

/// Serves a listener until the task is dropped.
pub async fn serve(listener: TcpListener, board: Arc<Board>, patience: Patience) {
    let router = router(Arc::clone(&board));
    let mut running: VecDeque<JoinHandle<()>> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept a connection for metrics");
                // Out of descriptors or memory: trying again at once would only burn the processor.
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        running.retain(|connection| !connection.is_finished());
        if running.len() >= CONNECTIONS_MAX
            && let Some(oldest) = running.pop_front()
        {
            oldest.abort();
            board.crowded_out();
        }
        let conversation = converse(stream, router.clone(), patience);
        running.push_back(tokio::spawn(async move {
            // Who is slow in each of its steps is slow altogether.
            let _ = timeout(patience.whole, conversation).await;
        }));
    }
}

async fn converse(stream: TcpStream, router: Router, patience: Patience) {
    let stream = TokioIo::new(ImpatientStream::new(stream, patience.write));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        // One request a connection: an idle one would hold its place.
        .keep_alive(false)
        .serve_connection(stream, TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection for metrics ended early");
    }
}

fn router(board: Arc<Board>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(|| async { said(StatusCode::NOT_FOUND, "here are /metrics, /healthz and /readyz\n") })
        .layer(middleware::from_fn(bodiless))
        .with_state(board)
}

// Nothing here takes a body, so none is waited for.
async fn bodiless(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        next.run(request).await
    } else {
        said(StatusCode::PAYLOAD_TOO_LARGE, "no request has a body here\n")
    }
}

async fn metrics(State(board): State<Arc<Board>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let form = Form::wanted(accept);
    match board.seen().await.map(|seen| seen.page(form)) {
        Ok(Some(page)) => ([(header::CONTENT_TYPE, form.content_type())], page).into_response(),
        Ok(None) => said(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be written\n"),
        Err(silence) => unavailable(&silence),
    }
}

// Asks for no lock: an apply may take its time, and is no reason to end the agent.
async fn healthz(State(board): State<Arc<Board>>) -> Response {
    let reader = board.reader();
    if reader.is_alive {
        said(StatusCode::OK, "ok\n")
    } else {
        let quiet = reader.quiet.as_secs();
        said(StatusCode::SERVICE_UNAVAILABLE, format!("reader: it has not been round for {quiet} s\n"))
    }
}

async fn readyz(State(board): State<Arc<Board>>) -> Response {
    match board.seen().await {
        Ok(seen) => {
            let readiness = seen.readiness(board.reader());
            let code = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            said(code, readiness.to_string())
        }
        Err(silence) => unavailable(&silence),
    }
}

fn unavailable(silence: &Silence) -> Response {
    said(StatusCode::SERVICE_UNAVAILABLE, format!("{silence}\n"))
}

fn said(code: StatusCode, text: impl Into<String>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (code, headers, text.into()).into_response()
}
