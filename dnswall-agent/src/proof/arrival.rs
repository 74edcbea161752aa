//! Takes events from the reader and picks out the canary's, for the canary waits for them: an attempt is only proven when
//! its refusal came all the way through the ring.
//!
//! They are known by the socket's cookie, which the kernel gives and nobody else can have, and by where they went. A
//! process that names itself like the agent, or goes where the canary goes, has another cookie.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dnswall_common::event::{Event, hook};
use dnswall_common::flow::Address;
use dnswall_common::image::MODE_ENFORCE;

use super::attempt::Attempt;
use crate::alert::Telling;

/// Attempts that are remembered: an event that comes after nobody waits any more is the canary's all the same.
const AWAITED_MAX: usize = 64;

/// What is between the canary and the reader.
#[derive(Debug, Default)]
pub struct Arrival {
    inner: Mutex<Inner>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    awaited: VecDeque<Awaited>,
    telling: Option<Telling>,
    heard: Option<u64>,
    stopped: bool,
}

#[derive(Debug)]
struct Awaited {
    cookie: u64,
    attempt: Attempt,
    arrived: Option<Arrived>,
}

/// Whose an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Somebody's who was refused.
    Others,
    /// The canary's, and only it wants to know.
    Canarys,
    /// The canary's, and everybody is to know.
    ToBeTold {
        /// What the alert says of itself.
        telling: Box<Telling>,
        /// How long the event was on its way, in nanoseconds.
        latency_ns: u64,
    },
}

/// The event of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Refused, rather than only reported.
    pub denied: bool,
    /// At `connect()`, rather than as a packet.
    pub at_connect: bool,
    /// Generation of the policy that judged.
    pub generation: u32,
    /// When the reader had it.
    pub at: Instant,
}

impl Arrival {
    /// Announces an attempt; to be done before it is made.
    pub fn expect(&self, cookie: u64, attempt: Attempt) {
        let mut inner = self.inner();
        inner.awaited.push_back(Awaited { cookie, attempt, arrived: None });
        if inner.awaited.len() > AWAITED_MAX {
            inner.awaited.pop_front();
        }
    }

    /// Has the next event of the canary's become an alert.
    pub fn tell(&self, telling: Telling) {
        let mut inner = self.inner();
        (inner.telling, inner.heard) = (Some(telling), None);
    }

    /// No event is to become an alert any more; how long the one that did had been on its way, in nanoseconds.
    pub fn told(&self) -> Option<u64> {
        let mut inner = self.inner();
        inner.telling = None;
        inner.heard.take()
    }

    /// Whether the event is the canary's. Cheap for all others: they go elsewhere. `monotonic_ns` is now.
    pub fn claim(&self, event: &Event, monotonic_ns: u64) -> Claim {
        if event.cookie == 0 || !is_documentation(event.destination) {
            return Claim::Others;
        }
        let mut inner = self.inner();
        let Some(awaited) = inner.awaited.iter_mut().find(|awaited| awaited.is_of(event)) else {
            return Claim::Others;
        };
        awaited.arrived.get_or_insert(Arrived {
            denied: event.mode == MODE_ENFORCE,
            at_connect: event.hook == hook::CONNECT,
            generation: event.generation,
            at: Instant::now(),
        });
        self.came.notify_all();
        let Some(telling) = inner.telling.take() else { return Claim::Canarys };
        let latency_ns = monotonic_ns.saturating_sub(event.time_ns);
        inner.heard = Some(latency_ns);
        Claim::ToBeTold { telling: Box::new(telling), latency_ns }
    }

    /// What came of these attempts, as soon as all have come, or `patience` is over.
    pub fn wait(&self, cookies: &[u64], patience: Duration) -> Vec<Option<Arrived>> {
        let until = Instant::now() + patience;
        let mut inner = self.inner();
        loop {
            let arrived: Vec<Option<Arrived>> = cookies.iter().map(|cookie| inner.arrived(*cookie)).collect();
            let left = until.saturating_duration_since(Instant::now());
            if inner.stopped || left.is_zero() || arrived.iter().all(Option::is_some) {
                return arrived;
            }
            inner = self.came.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nobody waits any more: the agent ends.
    pub fn stop(&self) {
        self.inner().stopped = true;
        self.came.notify_all();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change in it is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn arrived(&self, cookie: u64) -> Option<Arrived> {
        self.awaited.iter().find(|awaited| awaited.cookie == cookie)?.arrived
    }
}

impl Awaited {
    fn is_of(&self, event: &Event) -> bool {
        let Attempt { to, tcp: _ } = self.attempt;
        self.cookie == event.cookie
            && self.attempt.address().to_words() == event.destination
            && to.port() == event.destination_port
            && self.attempt.protocol() == event.protocol
    }
}

/// RFC 5737 and RFC 3849: nobody's, for ever.
pub fn is_documentation(destination: [u64; 2]) -> bool {
    let [high, low] = destination;
    if high == 0 && low >> 32 == 0xffff {
        return [0xc000_0200, 0xc633_6400, 0xcb00_7100].contains(&(low as u32 & 0xffff_ff00));
    }
    high >> 32 == 0x2001_0db8
}

/// The same of an address.
pub fn is_documentation_address(address: Address) -> bool {
    is_documentation(address.to_words())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Asked;
    use crate::event::sample;
    use uuid::Uuid;

    fn attempt() -> Attempt {
        Attempt { to: "198.51.100.53:53".parse().unwrap(), tcp: false }
    }

    #[test]
    fn only_the_very_socket_going_there_is_the_canarys() {
        let arrival = Arrival::default();
        let mut event = sample::event();
        event.cookie = 7;
        assert_eq!(arrival.claim(&event, 0), Claim::Others, "nobody tries anything");
        arrival.expect(7, attempt());
        for forged in [
            Event { cookie: 8, ..event },
            Event { cookie: 0, ..event },
            Event { destination_port: 54, ..event },
            Event { protocol: 6, ..event },
            Event { destination: sample::words("198.51.100.54"), ..event },
            Event { destination: sample::words("8.8.8.8"), ..event },
        ] {
            assert_eq!(arrival.claim(&forged, 0), Claim::Others, "{forged:?}");
        }
        assert_eq!(arrival.wait(&[7], Duration::ZERO), [None]);
        assert_eq!(arrival.claim(&event, 0), Claim::Canarys);
        assert!(
            arrival.wait(&[7, 7], Duration::from_secs(60)).iter().all(|it| it.is_some_and(|it| it.denied))
        );
        assert_eq!(arrival.claim(&event, 0), Claim::Canarys, "late ones are the canary's too");
    }

    #[test]
    fn one_event_of_a_test_is_told() {
        let arrival = Arrival::default();
        let event = Event { cookie: 7, time_ns: 1_000, ..sample::event() };
        arrival.expect(7, attempt());
        let telling = Telling { id: Uuid::from_u128(1), number: 3, asked: Asked::Command, previous: None };
        arrival.tell(telling.clone());
        assert_eq!(arrival.claim(&Event { cookie: 8, ..event }, 5_000), Claim::Others);
        let claim = arrival.claim(&event, 5_000);
        assert_eq!(claim, Claim::ToBeTold { telling: Box::new(telling.clone()), latency_ns: 4_000 });
        assert_eq!(arrival.claim(&event, 6_000), Claim::Canarys);
        assert_eq!((arrival.told(), arrival.told()), (Some(4_000), None));
        arrival.tell(telling);
        assert_eq!(arrival.told(), None);
        assert_eq!(arrival.claim(&event, 6_000), Claim::Canarys, "it is too late");
    }

    #[test]
    fn the_documentation_networks_and_no_others() {
        let is = |text: &str| is_documentation(sample::words(text));
        for there in
            ["192.0.2.0", "192.0.2.255", "198.51.100.1", "203.0.113.9", "2001:db8::1", "2001:db8:ffff::"]
        {
            assert!(is(there), "{there}");
        }
        for elsewhere in ["192.0.3.1", "198.51.101.1", "203.0.112.1", "2001:db9::", "2001:db7::1", "10.0.0.1"]
        {
            assert!(!is(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn waiting_ends_when_the_agent_does() {
        let arrival = Arrival::default();
        arrival.expect(7, attempt());
        arrival.stop();
        assert_eq!(arrival.wait(&[7, 9], Duration::from_secs(3_600)), [None, None]);
    }
}
