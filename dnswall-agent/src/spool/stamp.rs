//! When something was put into the spool, told so that a clock that is set meanwhile does not matter.

use std::time::Duration;

use crate::event::Clocks;

/// A moment by two clocks: one that nobody sets but which begins again with each boot, and the time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which boot.
    pub boot: u128,
    /// `CLOCK_BOOTTIME`, which counts on while the host sleeps.
    pub boot_ns: u64,
    /// Unix time in milliseconds.
    pub wall_ms: i64,
}

impl Stamp {
    /// Now, within this boot.
    pub fn of(boot: u128, clocks: &Clocks) -> Self {
        Self { boot, boot_ns: clocks.boot_ns, wall_ms: clocks.now.as_millisecond() }
    }

    /// How long before `now` this was. Of an earlier boot only the time of day is known, and that may be wrong: then it
    /// is at least this boot's length.
    pub fn age(&self, now: &Self) -> Duration {
        if self.boot == now.boot {
            return Duration::from_nanos(now.boot_ns.saturating_sub(self.boot_ns));
        }
        let by_wall = u64::try_from(now.wall_ms.saturating_sub(self.wall_ms)).unwrap_or(0);
        Duration::from_millis(by_wall).max(Duration::from_nanos(now.boot_ns))
    }
}

/// The number of this boot; 0 when the kernel does not say.
pub fn boot() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().parse::<uuid::Uuid>().map_or(0, |id| id.as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn at(boot: u128, seconds: u64, wall_ms: i64) -> Stamp {
        Stamp { boot, boot_ns: seconds * SECOND_NS, wall_ms }
    }

    #[test]
    fn a_clock_that_was_set_does_not_matter() {
        let then = at(1, 100, 1_000_000);
        assert_eq!(then.age(&at(1, 160, 0)), Duration::from_secs(60), "set back");
        assert_eq!(then.age(&at(1, 160, i64::MAX)), Duration::from_secs(60), "set forward");
    }

    #[test]
    fn of_another_boot_the_time_of_day_counts_and_is_never_less_than_this_boot() {
        let then = at(1, 5_000, 1_000_000);
        assert_eq!(then.age(&at(2, 10, 1_090_000)), Duration::from_secs(90));
        assert_eq!(then.age(&at(2, 10, 5)), Duration::from_secs(10), "set back meanwhile");
        assert_ne!(boot(), 0);
    }
}
