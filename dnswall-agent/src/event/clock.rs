//! What the clocks say at one moment, to turn the kernel's nanoseconds into times of day. Read at the edge, passed on
//! as an argument.

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// The three clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The time of day.
    pub now: Timestamp,
    /// `CLOCK_MONOTONIC`: what `bpf_ktime_get_ns` counts.
    pub monotonic_ns: u64,
    /// `CLOCK_BOOTTIME`: what a process's start is counted in.
    pub boot_ns: u64,
}

impl Clocks {
    /// Asks the kernel (no system call: all three are in the vDSO).
    pub fn read() -> Self {
        let ns = |id| {
            let time = clock_gettime(id);
            u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000)
                + u64::try_from(time.tv_nsec).unwrap_or(0)
        };
        Self { now: Timestamp::now(), monotonic_ns: ns(ClockId::Monotonic), boot_ns: ns(ClockId::Boottime) }
    }

    /// The time of day at which the monotonic clock stood at `ns`.
    pub fn at_monotonic(&self, ns: u64) -> Timestamp {
        self.shifted(ns, self.monotonic_ns)
    }

    /// The time of day at which the boot clock stood at `ns`.
    pub fn at_boot(&self, ns: u64) -> Timestamp {
        self.shifted(ns, self.boot_ns)
    }

    /// A clock value far off any uptime cannot be a time: then it is now, which is at least not in the future.
    fn shifted(&self, then_ns: u64, now_ns: u64) -> Timestamp {
        let difference = i128::from(then_ns) - i128::from(now_ns);
        i64::try_from(difference)
            .ok()
            .and_then(|ns| self.now.checked_add(SignedDuration::from_nanos(ns)).ok())
            .unwrap_or(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_times_become_times_of_day() {
        let clocks = Clocks {
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
            monotonic_ns: 50_000_000_000,
            boot_ns: 80_000_000_000,
        };
        assert_eq!(clocks.at_monotonic(48_500_000_000).to_string(), "2026-03-01T11:59:58.5Z");
        assert_eq!(clocks.at_boot(80_000_000_000), clocks.now);
        assert_eq!(clocks.at_boot(0).to_string(), "2026-03-01T11:58:40Z");
        assert_eq!(clocks.at_monotonic(u64::MAX), clocks.now);
    }

    #[test]
    fn the_boot_clock_is_never_behind_the_monotonic_one() {
        let clocks = Clocks::read();
        assert!(clocks.monotonic_ns > 0 && clocks.boot_ns >= clocks.monotonic_ns);
    }
}
