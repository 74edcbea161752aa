//! Takes records of questions as they come, gives how often each name was asked for, by workload.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::alert::AlertWorkload;
use crate::asked::{DnsRecord, DnsVerdict};
use crate::control::api::NameSeen;

/// Names and workloads that are counted apart.
pub const COUNTED_MAX: usize = 2_048;

/// What was asked since somebody watches.
#[derive(Debug, Default)]
pub struct Asked {
    names: HashMap<(Option<String>, String), Name>,
    /// Questions for names that there was no room for.
    crowded_out: u64,
    missed: u64,
}

#[derive(Debug)]
struct Name {
    workload: AlertWorkload,
    asked: u64,
    last: Timestamp,
    answer: Option<String>,
}

impl Asked {
    /// Counts the question of a record; refusals are counted elsewhere, with those that have no record.
    pub fn note(&mut self, record: DnsRecord) {
        let DnsRecord { time, verdict, dns, answer, tries, workload, .. } = record;
        if verdict == DnsVerdict::Denied {
            return;
        }
        let key = (workload.cgroup.clone(), dns.name);
        let tries = u64::from(tries);
        if self.names.len() >= COUNTED_MAX && !self.names.contains_key(&key) {
            self.crowded_out = self.crowded_out.saturating_add(tries);
            return;
        }
        let name = self.names.entry(key).or_insert(Name { workload, asked: 0, last: time, answer: None });
        name.asked = name.asked.saturating_add(tries);
        name.last = name.last.max(time);
        name.answer = answer.map(|answer| answer.code).or(name.answer.take());
    }

    /// Counts what came too fast.
    pub fn miss(&mut self, records: u64) {
        self.missed = self.missed.saturating_add(records);
    }

    /// Questions that are in no name's count.
    pub fn missed(&self) -> u64 {
        self.missed.saturating_add(self.crowded_out)
    }

    /// Each name as it was counted.
    pub fn names(&self) -> Vec<NameSeen> {
        self.names
            .iter()
            .map(|((_, name), Name { workload, asked, last, answer })| NameSeen {
                workload: workload.clone(),
                name: name.clone(),
                asked: *asked,
                refused: 0,
                last: *last,
                rule: None,
                answer: answer.clone(),
            })
            .collect()
    }
}
