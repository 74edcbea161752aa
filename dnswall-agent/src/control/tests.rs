//! The socket, the server and the client together, against an agent that only answers.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tokio::sync::broadcast;

use crate::blocklist::Answer;

use super::api::{
    AlertTestRequest, AlertTested, Applied, ApplyRequest, Blocklists, ErrorBody, EventsQuery, ExplainRequest,
    Explained, NameChecked, NameRequest, Picture, PolicyShown, PolicyStatus, RehearseRequest, Rehearsed,
    Status, UpdateRequest, Updated,
};
use super::client::{Client, ClientError};
use super::server::{
    self, Agent, BODY_BYTES_MAX, CONNECTIONS_MAX, FOLLOWERS_MAX, HEAD_BYTES_MAX, Patience, Refusal, Told,
    WAITING_MAX,
};
use super::socket::PrivateSocket;
use crate::alert::filter::Filter;

struct Echo {
    live: broadcast::Sender<Arc<str>>,
}

impl Agent for Echo {
    fn status(&self) -> Result<Status, Refusal> {
        Ok(Status { version: "1.2.3".to_owned(), pid: 7, ..Status::default() })
    }

    fn policy(&self) -> Result<PolicyShown, Refusal> {
        Ok(PolicyShown { text: "version = 1".to_owned(), ..PolicyShown::default() })
    }

    fn apply(&self, request: ApplyRequest) -> Result<Applied, Refusal> {
        let policy = PolicyStatus { origin: request.origin, digest: request.text, ..PolicyStatus::default() };
        Ok(Applied { policy, changed: true, ..Applied::default() })
    }

    fn rehearse(&self, request: RehearseRequest) -> Result<Rehearsed, Refusal> {
        Ok(Rehearsed { name: request.origin, ..Rehearsed::default() })
    }

    fn confirm(&self) -> Result<Applied, Refusal> {
        Ok(Applied::default())
    }

    fn rollback(&self) -> Result<Applied, Refusal> {
        Err(Refusal::new(StatusCode::CONFLICT, "there is no policy before this one", Some("apply one")))
    }

    fn explain(&self, _: ExplainRequest) -> Result<Explained, Refusal> {
        panic!("an agent's mistake")
    }

    fn blocklists(&self) -> Result<Blocklists, Refusal> {
        Ok(Blocklists::default())
    }

    fn test_alerts(&self, request: AlertTestRequest) -> Result<AlertTested, Refusal> {
        Ok(AlertTested { number: request.within_secs, ..AlertTested::default() })
    }

    fn update_blocklists(&self, _: UpdateRequest) -> Result<Updated, Refusal> {
        Ok(Updated::default())
    }

    fn check_name(&self, request: NameRequest) -> Result<NameChecked, Refusal> {
        let answer = Answer { name: request.name, ..Answer::default() };
        Ok(NameChecked { answer, ..NameChecked::default() })
    }

    fn picture(&self) -> Result<Picture, Refusal> {
        Ok(Picture { host: "web-1".to_owned(), ..Picture::default() })
    }

    fn events(&self, query: &EventsQuery) -> Result<Told, Refusal> {
        let last = (0..query.last).map(|n| Arc::from(format!("{{\"n\":{n}}}"))).collect();
        Ok(Told { last, live: self.live.subscribe(), filter: Filter::default() })
    }
}

struct Running {
    _directory: tempfile::TempDir,
    path: PathBuf,
    live: broadcast::Sender<Arc<str>>,
    task: tokio::task::JoinHandle<()>,
    _socket: PrivateSocket,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn start(patience: Patience) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let socket = PrivateSocket::bind(&path).unwrap();
    let listener = tokio::net::UnixListener::from_std(socket.listener.try_clone().unwrap()).unwrap();
    let (live, _) = broadcast::channel(4);
    let agent = Arc::new(Echo { live: live.clone() });
    let task = tokio::spawn(server::serve(listener, agent, patience));
    Running { _directory: directory, path, live, task, _socket: socket }
}

fn impatient() -> Patience {
    let short = Duration::from_millis(300);
    Patience { head: short, body: short, write: short, quiet: short }
}

fn raw(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered() {
    let running = start(Patience::default());
    let client = Client::new(&running.path);
    assert_eq!(client.status().await.unwrap().pid, 7);
    assert_eq!(client.policy().await.unwrap().text, "version = 1");
    let request = ApplyRequest { text: "ü".repeat(1000), origin: "a file".to_owned(), confirm_secs: None };
    let applied = client.apply(&request).await.unwrap();
    assert_eq!((applied.policy.digest, applied.policy.origin), (request.text, request.origin));
    match client.rollback().await.unwrap_err() {
        ClientError::Refused { status, body } => {
            assert_eq!(status, StatusCode::CONFLICT);
            assert_eq!(body.error, "there is no policy before this one");
            assert_eq!(body.hint.as_deref(), Some("apply one"));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_inside_the_agent_is_one_failed_request() {
    let running = start(Patience::default());
    let client = Client::new(&running.path);
    let error = client.explain(&ExplainRequest::default()).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Refused { status: StatusCode::INTERNAL_SERVER_ERROR, .. }),
        "{error}"
    );
    assert!(client.status().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_order_and_follow() {
    let running = start(Patience::default());
    let client = Client::new(&running.path);
    let mut events = client
        .events(&EventsQuery { last: 2, follow: false, dns: false, ..EventsQuery::default() })
        .await
        .unwrap();
    assert_eq!(events.next().await.unwrap().as_deref(), Some("{\"n\":0}"));
    assert_eq!(events.next().await.unwrap().as_deref(), Some("{\"n\":1}"));
    assert_eq!(events.next().await.unwrap(), None);

    let mut events = client
        .events(&EventsQuery { last: 1, follow: true, dns: false, ..EventsQuery::default() })
        .await
        .unwrap();
    assert_eq!(events.next().await.unwrap().as_deref(), Some("{\"n\":0}"));
    running.live.send(Arc::from("{\"live\":true}")).unwrap();
    assert_eq!(events.next().await.unwrap().as_deref(), Some("{\"live\":true}"));
    // More than the broadcast holds, faster than anybody reads: what is missed is said.
    let line: Arc<str> = Arc::from(format!("{{\"x\":\"{}\"}}", "y".repeat(200_000)));
    for _ in 0..50 {
        running.live.send(Arc::clone(&line)).unwrap();
    }
    let mut missed = 0;
    let mut seen = 0;
    while seen + missed < 50 {
        let line = events.next().await.unwrap().unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        match value["missed"].as_u64() {
            Some(count) => missed += count,
            None => seen += 1,
        }
    }
    assert!(missed > 0 && seen > 0, "{missed} {seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_body_is_refused() {
    let running = start(Patience::default());
    let text = "x".repeat(BODY_BYTES_MAX);
    let request = ApplyRequest { text, ..ApplyRequest::default() };
    let error = Client::new(&running.path).apply(&request).await.unwrap_err();
    // The answer may be lost with the connection while the client still writes; what counts is that it is no success.
    if let ClientError::Refused { status, .. } = &error {
        assert_eq!(*status, StatusCode::PAYLOAD_TOO_LARGE);
    }
    let path = running.path.clone();
    let answer = tokio::task::spawn_blocking(move || {
        raw(&path, b"POST /v1/policy/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
    });
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 413"));
    assert!(Client::new(&running.path).status().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_said() {
    let running = start(Patience::default());
    let path = running.path.clone();
    let answers = tokio::task::spawn_blocking(move || {
        [
            raw(&path, b"GET /v2/status HTTP/1.1\r\nHost: x\r\n\r\n"),
            raw(&path, b"POST /v1/policy/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{\"tex\":1}"),
            raw(&path, b"DELETE /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"),
            raw(&path, b"\x16\x03\x01 not http\r\n\r\n"),
        ]
    });
    let [unknown, unread, method, garbage] = answers.await.unwrap();
    assert!(
        unknown.starts_with("HTTP/1.1 404") && unknown.contains("there is no GET /v2/status"),
        "{unknown}"
    );
    assert!(unread.starts_with("HTTP/1.1 400") && unread.contains("unknown field `tex`"), "{unread}");
    assert!(method.starts_with("HTTP/1.1 405"), "{method}");
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
}

// Each kind of slow client, as many as there are places; then a command must still be answered soon.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_do_not_wedge_the_agent() {
    for head in [
        &b""[..],
        b"GET /v1/sta",
        b"POST /v1/policy/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ] {
        let running = start(impatient());
        let slow: Vec<UnixStream> = (0..CONNECTIONS_MAX)
            .map(|_| {
                let mut stream = UnixStream::connect(&running.path).unwrap();
                stream.write_all(head).unwrap();
                stream
            })
            .collect();
        let began = Instant::now();
        let status = Client::new(&running.path).with_patience(Duration::from_secs(5)).status().await;
        assert!(status.is_ok(), "{:?}: {status:?}", String::from_utf8_lossy(head));
        assert!(began.elapsed() < Duration::from_secs(3));
        drop(slow);
    }
}

// More connections than the server and its backlog have room for: those beyond are told so, and the server is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_is_turned_away() {
    let running = start(Patience { head: Duration::from_secs(2), ..impatient() });
    let path = running.path.clone();
    let (flood, told) = tokio::task::spawn_blocking(move || {
        let open = || UnixStream::connect(&path).unwrap();
        let flood: Vec<UnixStream> = (0..CONNECTIONS_MAX + WAITING_MAX).map(|_| open()).collect();
        (flood, raw(&path, b""))
    })
    .await
    .unwrap();
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("too many connections"), "{told}");
    let (_, body) = told.split_once("\r\n\r\n").unwrap();
    assert!(
        serde_json::from_str::<ErrorBody>(body).is_ok()
            && told.contains(&format!("length: {}\r", body.len()))
    );
    drop(flood);
    let client = Client::new(&running.path).with_patience(Duration::from_secs(10));
    let until = Instant::now() + Duration::from_secs(20);
    // It takes a moment until the server has seen that they are gone.
    while let Err(error) = client.status().await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// Strangers wait for nobody and nobody for them: as many as can connect, silent, and root is answered at once.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_take_no_places() {
    let running = start(Patience::default());
    for (path, mode) in [(running.path.parent().unwrap(), 0o755), (&running.path, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let path = running.path.clone();
    let as_nobody = move || {
        become_nobody();
        (0..4 * CONNECTIONS_MAX).map(|_| UnixStream::connect(&path).unwrap()).collect::<Vec<_>>()
    };
    let joined = tokio::task::spawn_blocking(move || thread::spawn(as_nobody).join().unwrap());
    let strangers = joined.await.unwrap();
    let client = Client::new(&running.path).with_patience(Duration::from_secs(4));
    assert!(client.status().await.is_ok(), "sooner than a silent stranger's time is over");
    drop(strangers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_head_is_refused() {
    let running = start(Patience::default());
    let path = running.path.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let long = format!("GET /v1/status HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(2 * HEAD_BYTES_MAX));
        raw(&path, long.as_bytes())
    });
    let answer = answer.await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(Client::new(&running.path).status().await.is_ok());
}

/// A follower whose answer has begun.
fn follow(running: &Running, request: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(&running.path).unwrap();
    stream.write_all(request).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_leave_room_and_end_when_they_stop_reading() {
    let running = start(impatient());
    let request = b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut followers: Vec<UnixStream> = Vec::new();
    for _ in 0..FOLLOWERS_MAX {
        followers.push(follow(&running, request));
    }
    let client = Client::new(&running.path).with_patience(Duration::from_secs(5));
    assert!(client.status().await.is_ok());
    let query = EventsQuery { last: 0, follow: true, dns: false, ..EventsQuery::default() };
    assert!(matches!(
        client.events(&query).await.unwrap_err(),
        ClientError::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. }
    ));
    let line: Arc<str> = Arc::from("z".repeat(300_000));
    for _ in 0..10 {
        let _ = running.live.send(Arc::clone(&line));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(client.events(&query).await.is_ok(), "followers that do not read lose their places");
    drop(followers);
}

// What stands behind a request keeps the server from seeing the end of the connection.
#[tokio::test(flavor = "multi_thread")]
async fn followers_that_are_gone_lose_their_places() {
    let running = start(impatient());
    let request = b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\nbehind";
    for _ in 0..FOLLOWERS_MAX {
        drop(follow(&running, request));
    }
    let client = Client::new(&running.path).with_patience(Duration::from_secs(5));
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) =
        client.events(&EventsQuery { last: 0, follow: true, dns: false, ..EventsQuery::default() }).await
    {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let error = Client::new(&path).status().await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("the agent cannot be reached at {}: ", path.display())), "{error}");
    assert!(error.contains("Is it running?"), "{error}");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = Client::new(&path).status().await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_not_waited_for_long() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let client = Client::new(&path).with_patience(Duration::from_millis(200));
    let error = client.status().await.unwrap_err().to_string();
    assert!(error.contains("no answer within"), "{error}");
}

// With the socket's own permissions out of the way, the peer's user still decides.
#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_refused_by_the_kernels_word() {
    let running = start(Patience::default());
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let run = |path: PathBuf| async move {
        tokio::task::spawn_blocking(move || thread::spawn(move || ask_as_nobody(&path)).join().unwrap())
            .await
            .unwrap()
    };
    open(running.path.parent().unwrap(), 0o755);
    let answer = run(running.path.clone()).await;
    assert!(answer.contains("connect: Permission denied"), "{answer}");
    open(&running.path, 0o666);
    let answer = run(running.path.clone()).await;
    assert!(answer.contains("HTTP/1.1 403 Forbidden"), "{answer}");
    assert!(answer.contains("only root and the agent's own user may speak to it"), "{answer}");
}

/// Asks from a thread that becomes another user for good: the kernel keeps users by thread.
fn ask_as_nobody(path: &Path) -> String {
    become_nobody();
    match UnixStream::connect(path) {
        Ok(_) => raw(path, b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"),
        Err(error) => format!("connect: {error}"),
    }
}

fn become_nobody() {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[]).expect("this test needs root");
    set_thread_res_gid(group, group, group).unwrap();
    set_thread_res_uid(user, user, user).unwrap();
}

const NOBODY: u32 = 65_534;
