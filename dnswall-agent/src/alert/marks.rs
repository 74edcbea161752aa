//! Takes up to which of the kernel's totals refusals are counted, flow by flow, keeps the newest of each until an alert tells them.

use std::collections::HashMap;

use dnswall_common::event::RefusedKey;

use super::Mark;

/// Flows of the kernel's in one alert whose totals are saved with it. What is beyond is told again by the agent after one that was
/// killed.
pub const MARKS_MAX: usize = 4_096;

/// The newest total of each flow, of so many flows at most.
#[derive(Clone, Debug, Default)]
pub struct Marks(HashMap<RefusedKey, u64>);

impl Marks {
    /// Puts a total in, in place of the flow's old one; a flow that is one too many is left out.
    pub fn put(&mut self, (key, total): Mark) {
        if self.0.len() < MARKS_MAX || self.0.contains_key(&key) {
            self.0.insert(key, total);
        }
    }

    /// Those that an alert tells, after which there are none.
    pub fn take(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.0).into_iter().collect()
    }
}

impl Extend<Mark> for Marks {
    fn extend<I: IntoIterator<Item = Mark>>(&mut self, marks: I) {
        marks.into_iter().for_each(|mark| self.put(mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample::enriched;

    #[test]
    fn each_flow_has_its_newest_total_and_there_are_so_many_flows() {
        let mark = |pid, total| (RefusedKey { pid, ..enriched().refused }, total);
        let mut marks = Marks::default();
        marks.extend((0..MARKS_MAX as u32 + 1).map(|pid| mark(pid, 1)));
        marks.extend([mark(7, 2), mark(u32::MAX, 2)]);
        let mut told = marks.take();
        told.sort_by_key(|(key, _)| key.pid);
        assert_eq!(
            (told.len(), told[7], told.last()),
            (MARKS_MAX, mark(7, 2), Some(&mark(MARKS_MAX as u32 - 1, 1)))
        );
        assert_eq!(marks.take(), []);
        marks.put(mark(u32::MAX, 3));
        assert_eq!(marks.take(), [mark(u32::MAX, 3)], "there is room again");
    }
}
