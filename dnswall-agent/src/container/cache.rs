//! Takes a workload, gives its container, from memory if it was found before.
//!
//! Whoever asks is the thread that reads events, which must go on. So it waits for a container that it meets for the first time
//! no longer than [`PATIENCE`], and [`PATIENCE_EACH_SECOND`] for all of them in a second; one takes a millisecond, unless its disk
//! is slow. What comes later is there for the flow's next alert. It does wait, because the first alert is often the only one: a
//! container that is started, refused and removed is gone, files and all, a moment later.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clerk::{Clerk, Find};
use super::find::{Asked, Seeker, find};
use super::{Container, nspawn};
use crate::event::Workload;
use crate::lru::Lru;

/// Containers remembered.
pub const CONTAINERS_MAX: usize = 8_192;
/// How long one container is waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// The same for all that are new within a second.
const PATIENCE_EACH_SECOND: Duration = Duration::from_millis(300);
/// When a container that was not found is looked for again, and again after that: its runtime may still be writing.
const RETRY_NS: [u64; 3] = [1_000_000_000, 10_000_000_000, 60_000_000_000];
/// An answer that has not come by then was lost with its thread.
const LOST_NS: u64 = 30_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Finds containers and remembers them.
pub struct Containers {
    clerk: Clerk,
    known: Lru<Key, Known>,
    counters: ContainerCounters,
    /// How long one is waited for, and all of them in a second.
    patience: [Duration; 2],
    second_ns: u64,
    waited: Duration,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerCounters {
    /// Containers that a runtime knows.
    pub named: u64,
    /// Times that none knew one.
    pub unnamed: u64,
    /// Times that nobody could look, or that an answer came too late for its event.
    pub late: u64,
    /// Threads that wait for a file system right now.
    pub stuck: u64,
}

/// An id, and where it is claimed.
type Key = (Box<str>, Option<Box<str>>);

enum Known {
    Found(Arc<Container>),
    /// Not found so many times, the last at this time.
    Missing {
        times: usize,
        at_ns: u64,
    },
    /// Asked for at this time, after so many times in vain.
    Asked {
        times: usize,
        at_ns: u64,
    },
}

impl Containers {
    /// Those of a host.
    pub fn new(seeker: Seeker) -> Self {
        Self::with(Arc::new(move |asked: &Asked| find(&seeker, asked)))
    }

    /// Containers from elsewhere.
    pub fn with(find: Find) -> Self {
        Self {
            clerk: Clerk::new(find),
            known: Lru::new(CONTAINERS_MAX),
            counters: ContainerCounters::default(),
            patience: [PATIENCE, PATIENCE_EACH_SECOND],
            second_ns: 0,
            waited: Duration::ZERO,
        }
    }

    /// The workload's container. `now_ns` is the monotonic clock.
    pub fn find(&mut self, workload: &Workload, now_ns: u64) -> Option<Arc<Container>> {
        let Some(asked) = asked(workload) else {
            // Its unit says it all.
            return workload
                .unit
                .as_deref()
                .and_then(|unit| nspawn::machine(unit, workload.slice.as_deref()))
                .map(Arc::new);
        };
        let key = key(&asked);
        // Whoever it was for: the thread that gave it is not stuck.
        self.take_answers(None, Duration::ZERO, now_ns);
        let times = match self.known.get(&key) {
            Some(Known::Found(container)) => return Some(Arc::clone(container)),
            Some(Known::Missing { times, at_ns }) => {
                let retry_ns = RETRY_NS[(*times).clamp(1, RETRY_NS.len()) - 1];
                if now_ns.saturating_sub(*at_ns) < retry_ns {
                    return None;
                }
                *times
            }
            Some(Known::Asked { times, at_ns }) if now_ns.saturating_sub(*at_ns) >= LOST_NS => *times,
            Some(Known::Asked { .. }) => return None,
            None => 0,
        };
        // Who names cgroups as he likes makes no real container wait.
        if (asked.is_claimed && self.clerk.owed() > 0) || !self.clerk.ask(asked) {
            self.counters.late += 1;
            return None;
        }
        self.known.insert(key.clone(), Known::Asked { times, at_ns: now_ns });
        let patience = self.patience(now_ns);
        let begun = Instant::now();
        self.take_answers(Some(&key), patience, now_ns);
        self.waited += begun.elapsed();
        if matches!(self.known.get(&key), Some(Known::Asked { .. })) {
            self.counters.late += 1;
        }
        self.found(&key)
    }

    /// What was counted so far.
    pub fn counters(&self) -> ContainerCounters {
        ContainerCounters { stuck: self.clerk.left_behind() as u64, ..self.counters }
    }

    fn found(&mut self, key: &Key) -> Option<Arc<Container>> {
        match self.known.get(key)? {
            Known::Found(container) => Some(Arc::clone(container)),
            Known::Missing { .. } | Known::Asked { .. } => None,
        }
    }

    /// Takes what there is, and waits until `wanted` is among it.
    fn take_answers(&mut self, wanted: Option<&Key>, patience: Duration, now_ns: u64) {
        let until = Instant::now() + patience;
        while let Some((asked, found)) = self.clerk.answer(until.saturating_duration_since(Instant::now())) {
            let key = key(&asked);
            let is_wanted = Some(&key) == wanted;
            self.remember(key, found, now_ns);
            if is_wanted {
                return;
            }
        }
    }

    fn remember(&mut self, key: Key, found: Option<Container>, now_ns: u64) {
        let known = match (found, self.known.get(&key)) {
            (Some(container), _) => {
                self.counters.named += 1;
                Known::Found(Arc::new(container))
            }
            (None, before) => {
                self.counters.unnamed += 1;
                let times = match before {
                    Some(Known::Asked { times, .. } | Known::Missing { times, .. }) => *times + 1,
                    Some(Known::Found(_)) | None => 1,
                };
                Known::Missing { times, at_ns: now_ns }
            }
        };
        self.known.insert(key, known);
    }

    /// How long may be waited now: not at all for a thread that already makes others wait.
    fn patience(&mut self, now_ns: u64) -> Duration {
        if now_ns.saturating_sub(self.second_ns) >= SECOND_NS {
            (self.second_ns, self.waited) = (now_ns, Duration::ZERO);
        }
        let [one, each_second] = self.patience;
        let left = each_second.saturating_sub(self.waited);
        if self.clerk.owed() > 1 { Duration::ZERO } else { left.min(one) }
    }
}

impl fmt::Debug for Containers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Containers").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// The container that a workload is, or says it is.
fn asked(workload: &Workload) -> Option<Asked> {
    let id = workload.container.as_ref().or(workload.claimed.as_ref())?;
    Some(Asked { id: id.clone(), cgroup: workload.cgroup.clone()?, is_claimed: workload.container.is_none() })
}

/// A container may have cgroups of its own below the one that it was given.
fn key(asked: &Asked) -> Key {
    (asked.id.as_str().into(), asked.is_claimed.then(|| asked.cgroup.as_str().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Runtime;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    fn container(name: &str) -> Container {
        Container { name: Some(name.to_owned()), image: None, runtime: Runtime::Docker, pod: None }
    }

    fn workload(digit: &str) -> Workload {
        let path = format!("/docker/{}", digit.repeat(64));
        Workload::from_path(path.as_bytes(), b"/")
    }

    #[test]
    fn what_was_found_is_not_looked_for_again() {
        let looks = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&looks);
        let mut containers = Containers::with(Arc::new(move |asked| {
            counted.fetch_add(1, Ordering::Relaxed);
            asked.id.starts_with('a').then(|| container("shop"))
        }));
        // However late the thread gets its turn.
        containers.patience = [Duration::from_secs(60); 2];
        for _ in 0..3 {
            assert_eq!(containers.find(&workload("a"), 5).unwrap().name.as_deref(), Some("shop"));
        }
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        // What is missing is, after a second, ten, a minute.
        let mut now_ns = 5;
        for (after_ns, expected) in
            [(0, 2), (RETRY_NS[0] - 1, 2), (1, 3), (RETRY_NS[1], 4), (RETRY_NS[2], 5), (RETRY_NS[2], 6)]
        {
            now_ns += after_ns;
            assert_eq!(containers.find(&workload("b"), now_ns), None);
            assert_eq!(looks.load(Ordering::Relaxed), expected, "{after_ns}");
        }
        let ContainerCounters { named, unnamed, late, stuck } = containers.counters();
        assert_eq!((named, unnamed, late, stuck), (1, 5, 0, 0));
        assert_eq!(containers.find(&Workload::from_path(b"/system.slice/a.service", b"/"), 5), None);
    }

    #[test]
    fn one_that_is_slow_holds_nobody_up_and_is_there_later() {
        let mut containers = Containers::with(Arc::new(|asked| {
            if asked.id.starts_with('a') {
                thread::sleep(Duration::from_millis(400));
            }
            Some(container(&asked.id[..1]))
        }));
        let begun = Instant::now();
        assert_eq!(containers.find(&workload("a"), 0), None);
        // Behind it, and nobody waits for them.
        for _ in 0..1_000 {
            assert_eq!(containers.find(&workload("b"), 0), None);
            assert_eq!(containers.find(&workload("a"), 0), None);
        }
        assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
        assert_eq!(containers.counters().late, 2);
        let until = Instant::now() + Duration::from_secs(5);
        while containers.find(&workload("b"), 0).is_none() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(containers.find(&workload("b"), 0).unwrap().name.as_deref(), Some("b"));
        assert_eq!(containers.find(&workload("a"), 0).unwrap().name.as_deref(), Some("a"));
    }

    #[test]
    fn answers_that_nobody_came_for_are_no_reason_to_give_a_thread_up() {
        let mut containers = Containers::with(Arc::new(|asked| {
            thread::sleep(Duration::from_millis(150));
            Some(container(&asked.id[..1]))
        }));
        // It is answered a moment after its event, and the next container comes long after that.
        assert_eq!(containers.find(&workload("a"), 0), None);
        thread::sleep(Duration::from_millis(5_200));
        assert_eq!(containers.find(&workload("b"), 0), None);
        assert_eq!(containers.counters().stuck, 0);
        assert_eq!(containers.find(&workload("a"), 0).unwrap().name.as_deref(), Some("a"));
    }

    #[test]
    fn who_claims_an_id_makes_no_container_wait() {
        let mut containers = Containers::with(Arc::new(|_| {
            thread::sleep(Duration::from_millis(300));
            None
        }));
        let claim = |digit: &str| {
            let path = format!("/user.slice/user@1000.service/docker-{}.scope", digit.repeat(64));
            Workload::from_path(path.as_bytes(), b"/")
        };
        assert!(claim("a").claimed.is_some());
        for digit in ["a", "b", "c", "d"] {
            assert_eq!(containers.find(&claim(digit), 0), None);
        }
        assert_eq!(containers.clerk.owed(), 1);
    }

    #[test]
    fn many_that_are_slow_cost_no_more_than_their_share_of_a_second() {
        let mut containers = Containers::with(Arc::new(|_| {
            thread::sleep(Duration::from_millis(90));
            None
        }));
        let begun = Instant::now();
        for number in 0..200_u64 {
            let path = format!("/docker/{number:064x}");
            containers.find(&Workload::from_path(path.as_bytes(), b"/"), 0);
        }
        assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
        // No more wait than there is room for.
        assert!(containers.counters().late > 100);
    }
}
