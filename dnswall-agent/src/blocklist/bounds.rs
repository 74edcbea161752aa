//! What of a new version of a list may count: takes the number of its entries and that of the version that counted last.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How much a list may change from one version to the next, in percent of the version that counted last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// By how much it may shrink; 100 is to nothing.
    pub shrink_percent: u32,
    /// By how much it may grow; 100 is to twice as many.
    pub growth_percent: u32,
}

/// The most that a policy may write of each: 100 and 1,000,000.
pub const CHANGE_MAX: Change = Change { shrink_percent: 100, growth_percent: 1_000_000 };

/// Least, usual and most time between two fetches of a list.
pub const REFRESH_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);
/// What it is unless a policy says so.
pub const REFRESH_DEFAULT: Duration = Duration::from_secs(86_400);

impl Default for Change {
    fn default() -> Self {
        Self { shrink_percent: 30, growth_percent: 100 }
    }
}

impl Change {
    /// Compares a version with the one that counted last.
    ///
    /// # Errors
    /// Why the new one does not count. There is nothing to compare with while the last one has no entries.
    pub fn check(self, before: usize, now: usize) -> Result<(), String> {
        let (before_wide, now_wide) = (before as u128 * 100, now as u128 * 100);
        let part = |percent: u32| before as u128 * u128::from(percent);
        if before == 0 {
            return Ok(());
        }
        if now_wide + part(self.shrink_percent) < before_wide {
            let is = percent(before - now, before);
            let max = self.shrink_percent;
            return Err(format!(
                "it has {now} entries, {is} fewer than the {before} that count, and may shrink by {max}% (`max-shrink`)"
            ));
        }
        if now_wide > before_wide + part(self.growth_percent) {
            let is = percent(now - before, before);
            let max = self.growth_percent;
            return Err(format!(
                "it has {now} entries, {is} more than the {before} that count, and may grow by {max}% (`max-growth`)"
            ));
        }
        Ok(())
    }
}

fn percent(part: usize, whole: usize) -> String {
    // A tenth more than is allowed is not shown as what is allowed.
    let tenths = part as u128 * 1_000 / whole.max(1) as u128;
    format!("{}.{}%", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_change_so_much() {
        let usual = Change::default();
        for (before, now) in [(0, 0), (0, 1_000), (1_000, 700), (1_000, 1_000), (1_000, 2_000), (1, 2)] {
            assert_eq!(usual.check(before, now), Ok(()), "{before} to {now}");
        }
        for (before, now) in [(1_000, 699), (1_000, 0), (1_000, 2_001), (1, 3), (2, 1)] {
            assert!(usual.check(before, now).is_err(), "{before} to {now}");
        }
        let all = Change { shrink_percent: 100, growth_percent: 1_000_000 };
        assert_eq!((all.check(1_000, 0), all.check(1, 10_001)), (Ok(()), Ok(())));
        assert!(all.check(1, 10_002).is_err());
        let none = Change { shrink_percent: 0, growth_percent: 0 };
        assert_eq!(none.check(7, 7), Ok(()));
        assert!(none.check(7, 6).is_err() && none.check(7, 8).is_err());
    }

    #[test]
    fn it_says_how_much() {
        let said = Change::default().check(1_000, 695).unwrap_err();
        assert!(said.contains("695 entries, 30.5% fewer than the 1000 that count"), "{said}");
        let said = Change::default().check(1_000, 11_000_000).unwrap_err();
        assert!(said.contains("1099900.0% more"), "{said}");
    }
}
