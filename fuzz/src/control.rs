//! The control socket: whatever somebody sends, the server neither fails nor waits for ever, and the next one is served.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use dnswall_agent::alert::filter::Filter;
use dnswall_agent::blocklist::Answer;
use dnswall_agent::control::api::{
    AlertTestRequest, AlertTested, Applied, ApplyRequest, Blocklists, EventsQuery, ExplainRequest, Explained,
    NameChecked, NameRequest, Picture, PolicyShown, PolicyStatus, RehearseRequest, Rehearsed, Status,
    UpdateRequest, Updated,
};
use dnswall_agent::control::server::{Agent, Patience, Refusal, Server, Told};
use dnswall_agent::event::Clocks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, broadcast};

/// Longer than this no request takes whose sender has ended it; the server's own limits are far longer.
const WEDGED: Duration = Duration::from_secs(3);
/// How long a sender waits for its answer before it ends what it sends: long enough for every request that is whole.
const LISTENS: Duration = Duration::from_millis(2);
/// Bytes on their way in each direction; few, so that answers meet a full pipe.
const PIPE_BYTES: usize = 512;

thread_local! {
    static SERVER: OnceCell<(Runtime, Server)> = const { OnceCell::new() };
}

/// Sends it, then a request that has to be answered.
pub fn check(data: &[u8]) {
    SERVER.with(|cell| {
        let (runtime, server) = cell.get_or_init(start);
        let answer = runtime.block_on(exchange(server, data, LISTENS));
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1."),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        let good = runtime.block_on(exchange(server, GOOD, WEDGED));
        assert!(good.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&good));
    });
}

const GOOD: &[u8] = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n";

async fn exchange(server: &Server, data: &[u8], listens: Duration) -> Vec<u8> {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let work = async { tokio::join!(server.converse(far), talk(near, data, listens)).1 };
    tokio::time::timeout(WEDGED, work).await.expect("the server is wedged")
}

async fn talk(stream: DuplexStream, data: &[u8], listens: Duration) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let ended = Notify::new();
    let write = async {
        // The server may close before it has read everything, or read no more while somebody follows events.
        let _ = tokio::time::timeout(listens, to.write_all(data)).await;
        let _ = tokio::time::timeout(listens, ended.notified()).await;
        let _ = to.shutdown().await;
        // Whoever still gets something then follows events, and leaves.
        tokio::time::sleep(listens).await;
    };
    let read = async {
        let _ = from.read_to_end(&mut answer).await;
        ended.notify_one();
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
    answer
}

fn start() -> (Runtime, Server) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (live, _) = broadcast::channel(1);
    let server = Server::new(Arc::new(Echo { live }), Patience { quiet: LISTENS, ..Patience::default() });
    (runtime, server)
}

/// An agent that answers with what it was asked.
struct Echo {
    live: broadcast::Sender<Arc<str>>,
}

impl Agent for Echo {
    fn status(&self) -> Result<Status, Refusal> {
        Ok(Status::default())
    }

    fn policy(&self) -> Result<PolicyShown, Refusal> {
        Ok(PolicyShown::default())
    }

    fn apply(&self, request: ApplyRequest) -> Result<Applied, Refusal> {
        let policy = PolicyStatus { origin: request.origin, digest: request.text, ..PolicyStatus::default() };
        Ok(Applied { policy, ..Applied::default() })
    }

    fn rollback(&self) -> Result<Applied, Refusal> {
        Ok(Applied::default())
    }

    fn rehearse(&self, _: RehearseRequest) -> Result<Rehearsed, Refusal> {
        Ok(Rehearsed::default())
    }

    fn confirm(&self) -> Result<Applied, Refusal> {
        Ok(Applied::default())
    }

    fn explain(&self, _: ExplainRequest) -> Result<Explained, Refusal> {
        Ok(Explained::default())
    }

    fn blocklists(&self) -> Result<Blocklists, Refusal> {
        Ok(Blocklists::default())
    }

    fn update_blocklists(&self, _: UpdateRequest) -> Result<Updated, Refusal> {
        Ok(Updated::default())
    }

    fn check_name(&self, request: NameRequest) -> Result<NameChecked, Refusal> {
        let answer = Answer { name: request.name, ..Answer::default() };
        Ok(NameChecked { answer, ..NameChecked::default() })
    }

    fn test_alerts(&self, _: AlertTestRequest) -> Result<AlertTested, Refusal> {
        Ok(AlertTested::default())
    }

    fn picture(&self) -> Result<Picture, Refusal> {
        Ok(Picture { host: "web-1".to_owned(), ..Picture::default() })
    }

    fn events(&self, query: &EventsQuery) -> Result<Told, Refusal> {
        let filter = Filter::parse(&query.filter, Clocks::read().now).unwrap_or_default();
        let last = (0..query.last.min(8)).map(|n| Arc::from(format!("{{\"n\":{n}}}"))).collect();
        Ok(Told { last, live: self.live.subscribe(), filter })
    }
}
