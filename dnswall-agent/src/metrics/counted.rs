//! Families of what the kernel and the agent count about themselves: events, answers, and what was lost of them.

use std::collections::BTreeMap;
use std::fmt;

use super::sample::Reader;
use super::sheet::Sheet;

/// One counter of `dnswall status`, and the family it is.
struct Known {
    counter: &'static str,
    family: &'static str,
    kind: Kind,
    help: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

const fn counter(counter: &'static str, family: &'static str, help: &'static str) -> Known {
    Known { counter, family, kind: Kind::Counter, help }
}

const fn gauge(counter: &'static str, family: &'static str, help: &'static str) -> Known {
    Known { counter, family, kind: Kind::Gauge, help }
}

/// Every counter of the kernel's and the reader's, by what `dnswall status` calls it.
#[rustfmt::skip]
const KNOWN: &[Known] = &[
    counter("events-sent", "dnswall_events_sent", "Refusals that the kernel told the agent of."),
    counter("events-suppressed", "dnswall_events_suppressed", "Refusals only counted, because their flow had an event within the last second."),
    counter("events-lost", "dnswall_events_lost", "Refusals whose event found the ring full; they are counted by rule and reason."),
    counter("storage-failed", "dnswall_sockets_without_storage", "Sockets that had no room for who they belong to: judged by cgroup and user alone."),
    counter("cgroups-full", "dnswall_cgroups_not_fitting", "Cgroups that did not fit the kernel's map: later judged by default."),
    counter("cgroup-unresolved", "dnswall_cgroups_unresolved", "Cgroups that could not be walked to their top."),
    counter("owner-unknown", "dnswall_packets_owner_unknown", "Packets judged without a recorded owner."),
    counter("replies-failed", "dnswall_reply_peers_lost", "Peers of UDP sockets that could not be remembered: their answers may be refused."),
    counter("learned", "dnswall_addresses_learned", "Addresses in answers for names that rules lead to."),
    counter("learn-failed", "dnswall_addresses_not_learned", "Of those, the ones that could not be remembered."),
    counter("questions-told", "dnswall_dns_messages_told", "DNS questions and answers that the kernel told the agent of."),
    counter("questions-lost", "dnswall_dns_messages_lost", "DNS questions and answers that found their ring full."),
    counter("alerts", "dnswall_alerts", "Alerts made."),
    counter("alerts-folded", "dnswall_alerts_folded", "Of those, the ones that their workload had too many of: others stand for them."),
    counter("alerts-summed", "dnswall_alerts_summed", "Alerts that stand for those."),
    counter("refusals-observed", "dnswall_refusals_observed", "Refusals the agent learned of, repeats counted."),
    counter("refusals-told", "dnswall_refusals_told", "Of those, the ones that alerts have told."),
    gauge("refusals-pending", "dnswall_refusals_pending", "Of those, the ones that wait for the next alert of their flow."),
    counter("refusals-overflowed", "dnswall_refusals_overflowed", "Refusals told together, because too many flows were refused at once."),
    counter("refusals-orphaned", "dnswall_refusals_orphaned", "Refusals counted for a flow whose event never came."),
    counter("refusals-of-the-proof", "dnswall_refusals_of_the_proof", "Refusals of what the agent itself tried, to prove that the wall stands."),
    counter("cgroups-unnamed", "dnswall_cgroups_unnamed", "Events whose cgroup was gone before anybody saw it, or not to be found."),
    counter("cgroups-unwatched", "dnswall_cgroups_unwatched", "Times that a cgroup was not watched from when it was made, because there are too many."),
    gauge("process-reads-stuck", "dnswall_process_reads_stuck", "Looks at /proc that do not come back."),
    counter("process-reads-untried", "dnswall_process_reads_untried", "Looks at /proc that nobody tried, because others took too long."),
    counter("programs-hashed", "dnswall_programs_hashed", "Program files that were read for their hash."),
    counter("programs-unhashed", "dnswall_programs_unhashed", "Program files that could not be read for it, or are not to be."),
    counter("program-hashes-crowded-out", "dnswall_program_hashes_crowded_out", "Processes without a hash, because too many files waited to be read."),
    gauge("program-reads-stuck", "dnswall_program_reads_stuck", "Reads of program files that do not come back."),
    counter("alerts-without-their-hash", "dnswall_alerts_without_hash", "Alerts whose program's hash did not come in time."),
    counter("containers-named", "dnswall_containers_named", "Containers of events that a runtime has written down."),
    counter("containers-unnamed", "dnswall_containers_unnamed", "Times that no runtime knew a container; it is looked for again."),
    counter("container-reads-late", "dnswall_container_reads_late", "Containers that could not be looked up before their alert was made."),
    gauge("container-reads-stuck", "dnswall_container_reads_stuck", "Looks at a runtime's files that do not come back."),
    counter("dns-records", "dnswall_dns_records", "Records made of DNS questions, with their answers."),
    counter("dns-questions-unanswered", "dnswall_dns_questions_unanswered", "Questions that nobody answered in time."),
    counter("dns-questions-crowded-out", "dnswall_dns_questions_crowded_out", "Questions told without their answer, because too many waited."),
    counter("dns-answers-unasked", "dnswall_dns_answers_unasked", "Answers whose question is not known."),
];

/// How the counters of events that cannot be read begin; the field at fault follows.
const UNREADABLE: &str = "events-unreadable-";

pub(super) fn write(sheet: &mut Sheet<'_>, counters: &BTreeMap<String, u64>, reader: Reader) -> fmt::Result {
    for Known { counter, family, kind, help } in KNOWN {
        let Some(count) = counters.get(*counter).copied() else { continue };
        match kind {
            Kind::Counter => sheet.counter(family, help, count)?,
            Kind::Gauge => sheet.gauge(family, help, count)?,
        }
    }
    // The fields of an event are the agent's own words: there are some thirty.
    sheet.counters(
        "dnswall_events_unreadable",
        "Events that could not be read, by the field at fault.",
        counters
            .iter()
            .filter_map(|(name, count)| Some((vec![("field", name.strip_prefix(UNREADABLE)?)], *count))),
    )?;
    // What nobody has written a line for above is shown all the same.
    sheet.gauges(
        "dnswall_unlisted",
        "Counts of `dnswall status` that have no metric of their own.",
        counters
            .iter()
            .filter(|(name, _)| is_unlisted(name))
            .map(|(name, count)| (vec![("counter", name.as_str())], *count)),
    )?;
    let Reader { quiet, is_alive } = reader;
    sheet.gauge(
        "dnswall_reader_alive",
        "Whether the thread that reads events goes round.",
        u64::from(is_alive),
    )?;
    sheet.gauge(
        "dnswall_reader_quiet_seconds",
        "For how long the thread that reads events has not been round.",
        quiet.as_secs_f64(),
    )
}

fn is_unlisted(name: &str) -> bool {
    !name.starts_with(UNREADABLE) && KNOWN.iter().all(|known| known.counter != name)
}

/// Every family and its type, whether or not a sample has it.
#[cfg(test)]
pub(super) fn families() -> Vec<(String, String)> {
    let of = |known: &Known| match known.kind {
        Kind::Counter => (format!("{}_total", known.family), "counter".to_owned()),
        Kind::Gauge => (known.family.to_owned(), "gauge".to_owned()),
    };
    KNOWN.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnswall_common::counter::Counter;

    #[test]
    fn every_counter_of_the_kernel_has_a_family() {
        let unlisted: Vec<&str> =
            Counter::ALL.iter().map(|counter| counter.name()).filter(|name| is_unlisted(name)).collect();
        assert!(unlisted.is_empty(), "{unlisted:?}");
    }

    #[test]
    fn no_family_is_there_twice() {
        for known in KNOWN {
            assert_eq!(
                KNOWN.iter().filter(|other| other.family == known.family).count(),
                1,
                "{}",
                known.family
            );
        }
    }
}
