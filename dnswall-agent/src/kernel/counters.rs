//! What the kernel counted, over all processors.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use aya::maps::IterableMap as _;
use dnswall_common::counter::{COUNTER_TABLE, ReasonCounter, RuleCounter};
use dnswall_common::event::{Refused, RefusedKey};
use dnswall_common::limits::RULES_MAX;
use dnswall_common::reason::REASON_TABLE;

use super::elements::elements;
use super::maps::Maps;

impl Maps {
    /// By rule number, since the running policy was published.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn rule_counters(&self, rules: usize) -> Result<Vec<RuleCounter>> {
        let first = (self.active().slot & 1) * RULES_MAX as u32;
        (0..rules.min(RULES_MAX) as u32)
            .map(|rule| {
                let values = self.rules.get(&(first + rule), 0).context("read map RULES")?;
                Ok(values.iter().fold(RuleCounter::default(), |sum, value| {
                    let RuleCounter { allowed, denied, would_deny } = *value;
                    RuleCounter {
                        allowed: sum.allowed + allowed,
                        denied: sum.denied + denied,
                        would_deny: sum.would_deny + would_deny,
                    }
                }))
            })
            .collect()
    }

    /// By reason number, since the wall was raised.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn reason_counters(&self) -> Result<Vec<ReasonCounter>> {
        (0..REASON_TABLE as u32)
            .map(|reason| {
                let values = self.reasons.get(&reason, 0).context("read map REASONS")?;
                Ok(values.iter().fold(ReasonCounter::default(), |sum, value| {
                    let ReasonCounter { denied, would_deny } = *value;
                    ReasonCounter { denied: sum.denied + denied, would_deny: sum.would_deny + would_deny }
                }))
            })
            .collect()
    }

    /// By [`dnswall_common::counter::Counter`], since the wall was raised.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Vec<u64>> {
        (0..COUNTER_TABLE as u32)
            .map(|counter| {
                let values = self.counters.get(&counter, 0).context("read map COUNTERS")?;
                Ok(values.iter().sum())
            })
            .collect()
    }

    /// Every refused flow the kernel counts at the moment. Reading takes nothing away.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn refused_flows(&self) -> Result<Vec<(RefusedKey, Refused)>> {
        elements(self.refused.map().fd().as_fd()).context("read map REFUSED")
    }
}
