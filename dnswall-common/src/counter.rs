//! What the kernel counts, per CPU. Numbers are never reused.

/// Value of map `RULES`, by `slot * RULES_MAX + rule`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCounter {
    /// Flows allowed (not packets: an established connection counts once).
    pub allowed: u64,
    /// Packets and attempts refused.
    pub denied: u64,
    /// Packets and attempts that would have been refused.
    pub would_deny: u64,
}

/// Value of map `REASONS`, by reason number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReasonCounter {
    /// Packets and attempts refused.
    pub denied: u64,
    /// Packets and attempts that would have been refused.
    pub would_deny: u64,
}

const _: () = assert!(size_of::<RuleCounter>() == 24 && size_of::<ReasonCounter>() == 16);

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Index of a counter in map `COUNTERS`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Counter { $($(#[$doc])* $name = $number,)* }

        impl Counter {
            /// Every counter.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable name, as `status` and metrics show it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

counters! {
    /// Events put into the ring.
    EventsSent = 0, "events-sent";
    /// Refusals that were only counted, because the same flow had an event a moment ago.
    EventsSuppressed = 1, "events-suppressed";
    /// Refusals whose event found the ring full.
    EventsLost = 2, "events-lost";
    /// Sockets for which no storage could be had: judged by cgroup and user alone.
    StorageFailed = 3, "storage-failed";
    /// Cgroups that did not fit the map: judged from the process at hand, and by default later.
    CgroupsFull = 4, "cgroups-full";
    /// Cgroups too deep to be walked, or whose walk was cut into each time.
    CgroupUnresolved = 5, "cgroup-unresolved";
    /// Packets judged without a recorded owner.
    OwnerUnknown = 6, "owner-unknown";
    /// UDP peers that could not be remembered.
    RepliesFailed = 7, "replies-failed";
    /// Addresses in answers for names that rules lead to.
    Learned = 8, "learned";
    /// Of those, the ones that could not be remembered.
    LearnFailed = 9, "learn-failed";
    /// Questions and answers put into their ring.
    QuestionsTold = 10, "questions-told";
    /// Questions and answers that found their ring full.
    QuestionsLost = 11, "questions-lost";
}

/// Size of map `COUNTERS`; room for more.
pub const COUNTER_TABLE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_fit_their_map() {
        assert!(Counter::ALL.iter().all(|counter| (*counter as usize) < COUNTER_TABLE));
    }
}
