//! Repeats: what is told when, and that every refusal is told or counted.

use proptest::prelude::*;

use super::*;
use crate::alert::sample::{after_ns, book, enriched};
use crate::event::Outcome;

const SECOND_NS: u64 = 1_000_000_000;

fn grouper() -> Grouper {
    let mut next = 0;
    let make_id = move |_| {
        next += 1;
        Uuid::from_u128(next)
    };
    Grouper::with_ids(Duration::from_secs(10), "web-1", Box::new(make_id))
}

/// An event after which the kernel had counted so many.
fn event_at(ns: u64, refusals: u64) -> EnrichedEvent {
    let Clocks { now: time, monotonic_ns: time_ns, boot_ns: _ } = after_ns(ns);
    EnrichedEvent { time, time_ns, refusals, ..enriched() }
}

fn entry(refusals: u64, last_event_ns: u64) -> Refused {
    Refused { last_event_ns: after_ns(last_event_ns).monotonic_ns, refusals }
}

/// Another destination, by number.
fn event_to(number: u64, ns: u64) -> EnrichedEvent {
    let mut event = event_at(ns, 1);
    event.refused.destination[1] = 0xffff_0000_0000 | number;
    event
}

fn counts(alerts: &[Alert]) -> Vec<u64> {
    alerts.iter().map(|alert| alert.count).collect()
}

/// The alerts of what an agent before left untold.
fn adopt_all(grouper: &mut Grouper, book: &RuleBook, clocks: &Clocks) -> Vec<Alert> {
    let left = grouper.take_left().into_iter();
    let adopted = left.filter_map(|Left { key, entry, refusals }| {
        let event = EnrichedEvent { refused: key, refusals: entry.refusals, ..event_to(0, 0) };
        grouper.adopt(event, refusals, book, clocks)
    });
    adopted.collect()
}

/// Nothing is lost, whatever happened.
fn check_sum(grouper: &Grouper) {
    let GroupCounters { observed, alerts: _, told, overflowed, orphaned, own: _ } = grouper.counters();
    assert_eq!(observed, told + overflowed + orphaned + grouper.pending());
}

#[test]
fn the_first_is_told_at_once_and_repeats_once_an_interval() {
    let (mut grouper, book) = (grouper(), book());
    let mut observe =
        |ns, refusals| grouper.observe(event_at(ns, refusals), &book, &after_ns(ns)).map(|a| a.count);
    assert_eq!(observe(0, 1), Some(1));
    assert_eq!(observe(SECOND_NS, 101), None);
    assert_eq!(observe(9 * SECOND_NS, 106), None);
    assert_eq!(observe(10 * SECOND_NS, 107), Some(106));
    assert_eq!(observe(11 * SECOND_NS, 108), None);
    assert!(grouper.due(&after_ns(19 * SECOND_NS)).is_empty());
    let due = grouper.due(&after_ns(20 * SECOND_NS));
    assert_eq!(counts(&due), [1]);
    assert_eq!(due[0].first, after_ns(0).now);
    assert_eq!((due[0].last, due[0].time), (after_ns(11 * SECOND_NS).now, after_ns(11 * SECOND_NS).now));
    assert_ne!(due[0].id, Uuid::from_u128(1));
    assert!(grouper.due(&after_ns(40 * SECOND_NS)).is_empty(), "nothing happened since");
    check_sum(&grouper);
}

#[test]
fn a_host_that_just_booted_is_told_at_once_too() {
    let clocks = Clocks { monotonic_ns: 5, ..after_ns(0) };
    assert!(grouper().observe(EnrichedEvent { time_ns: 5, ..event_at(0, 1) }, &book(), &clocks).is_some());
}

#[test]
fn what_the_kernel_counted_is_told_with_its_flow() {
    let (mut grouper, book) = (grouper(), book());
    let event = event_at(0, 1);
    let refused = event.refused;
    grouper.observe(event, &book, &after_ns(0));
    grouper.counted([(refused, entry(42, 0))], &after_ns(SECOND_NS));
    grouper.counted([(refused, entry(42, 0))], &after_ns(2 * SECOND_NS));
    assert_eq!(counts(&grouper.due(&after_ns(10 * SECOND_NS))), [41]);
    check_sum(&grouper);
}

#[test]
fn refusals_whose_event_was_lost_are_counted_as_nobodys() {
    let (mut grouper, book) = (grouper(), book());
    let event = event_at(3 * SECOND_NS, 6);
    grouper.counted([], &after_ns(0));
    grouper.counted([(event.refused, entry(5, 0))], &after_ns(SECOND_NS));
    assert_eq!(grouper.counters().observed, 0, "its event may still come");
    grouper.counted([(event.refused, entry(5, 0))], &after_ns(2 * SECOND_NS));
    assert_eq!((grouper.counters().observed, grouper.counters().orphaned), (5, 5));
    assert_eq!(grouper.observe(event, &book, &after_ns(3 * SECOND_NS)).unwrap().count, 1);
    check_sum(&grouper);
}

#[test]
fn what_was_told_before_is_not_told_again() {
    let (mut grouper, book) = (grouper(), book());
    let event = event_at(SECOND_NS, 1_003);
    grouper.already_told([(event.refused, entry(1_000, 0))], &after_ns(0));
    assert_eq!(grouper.observe(event, &book, &after_ns(SECOND_NS)).unwrap().count, 3);
    check_sum(&grouper);
}

#[test]
fn processes_of_one_program_are_one_flow() {
    let (mut grouper, book) = (grouper(), book());
    grouper.observe(event_at(0, 1), &book, &after_ns(0));
    let mut other = event_at(1, 1);
    other.refused.pid += 1;
    // It was gone before it could be looked at: its path is not known, its executable is.
    other.process = Arc::default();
    let refused = other.refused;
    assert!(grouper.observe(other, &book, &after_ns(1)).is_none());
    grouper.counted([(refused, entry(8, 1))], &after_ns(2));
    assert_eq!(counts(&grouper.flush(&after_ns(2))), [8]);
    check_sum(&grouper);
}

#[test]
fn what_differs_is_another_flow() {
    let (mut grouper, book) = (grouper(), book());
    let changes: [fn(&mut EnrichedEvent); 9] = [
        |_| {},
        |event| event.outcome = Outcome::WouldDeny,
        |event| event.rule = 1,
        |event| event.uid = Some(0),
        |event| event.refused.cgroup += 1,
        |event| event.refused.destination_port += 1,
        |event| event.refused.destination[1] += 1,
        |event| event.flow.protocol = 6,
        |event| event.exe = None,
    ];
    for (refusals, change) in (1..).step_by(2).zip(changes) {
        let mut event = event_at(0, refusals);
        change(&mut event);
        assert!(grouper.observe(event.clone(), &book, &after_ns(0)).is_some());
        event.refusals += 1;
        assert!(grouper.observe(event, &book, &after_ns(0)).is_none());
        assert_eq!(grouper.pending(), refusals.div_ceil(2));
    }
}

#[test]
fn a_new_policy_with_the_same_rule_goes_on_with_the_flow() {
    let (mut grouper, mut book) = (grouper(), book());
    grouper.observe(event_at(0, 1), &book, &after_ns(0));
    book.insert(PolicyRules::new("next", 4, &[1; 32], ["default".to_owned()], Arc::default()));
    let mut event = event_at(1, 2);
    event.generation = 4;
    assert!(grouper.observe(event, &book, &after_ns(1)).is_none());
    let told = grouper.flush(&after_ns(2));
    assert_eq!((told[0].policy.generation, told[0].policy.name.as_deref()), (4, Some("next")));
}

#[test]
fn a_scan_is_summed_up_and_hides_nobody_else() {
    let (mut grouper, book) = (grouper(), book());
    let scan = FLOWS_PER_OWNER_MAX as u64 + 1_000;
    let told = (0..scan).filter_map(|number| grouper.observe(event_to(number, 0), &book, &after_ns(0)));
    let told: Vec<Alert> = told.collect();
    assert_eq!(told.len(), FLOWS_PER_OWNER_MAX + 1);
    let sum = told.last().unwrap();
    assert_eq!((sum.flow.as_ref().unwrap().destination, &sum.dns, sum.count), (None, &None, 1));
    assert_eq!(sum.process.exe.as_deref(), Some("/usr/bin/dig"));
    let mut other = event_to(scan, 0);
    other.uid = Some(0);
    assert!(grouper.observe(other, &book, &after_ns(0)).unwrap().flow.unwrap().destination.is_some());
    assert_eq!(counts(&grouper.due(&after_ns(10 * SECOND_NS))), [999]);
    // Quiet for an interval: now there is room again.
    let late = event_to(scan, 20 * SECOND_NS);
    let alert = grouper.observe(late, &book, &after_ns(20 * SECOND_NS)).unwrap();
    assert!(alert.flow.as_ref().unwrap().destination.is_some());
    check_sum(&grouper);
}

#[test]
fn what_fits_nowhere_is_counted() {
    let (mut grouper, book) = (grouper(), book());
    let scan = (FLOWS_MAX + SUMS_MAX) as u64;
    for number in 0..scan + 10 {
        let mut event = event_to(number, 0);
        event.uid = Some(number as u32);
        event.refusals = 2;
        grouper.observe(event, &book, &after_ns(0));
    }
    assert_eq!(grouper.counters().overflowed, 20);
    assert_eq!(grouper.flows.len(), FLOWS_MAX + SUMS_MAX);
    check_sum(&grouper);
}

#[test]
fn quiet_flows_are_forgotten_but_not_before_they_are_told() {
    let (mut grouper, book) = (grouper(), book());
    grouper.observe(event_at(0, 1), &book, &after_ns(0));
    grouper.observe(event_at(1, 2), &book, &after_ns(1));
    assert_eq!(counts(&grouper.due(&after_ns(2 * FORGOTTEN_NS))), [1]);
    assert!(grouper.flows.is_empty());
    let again = grouper.observe(event_at(FORGOTTEN_NS, 3), &book, &after_ns(2 * FORGOTTEN_NS + 1)).unwrap();
    assert_eq!(again.first, after_ns(FORGOTTEN_NS).now);
}

#[test]
fn ids_are_of_version_7_and_carry_the_time() {
    let mut grouper = Grouper::new(Duration::from_secs(10), "web-1");
    let alert = grouper.observe(event_at(0, 1), &book(), &after_ns(0)).unwrap();
    assert_eq!(alert.id.get_version_num(), 7);
    let (seconds, _) = alert.id.get_timestamp().unwrap().to_unix();
    assert_eq!(seconds, after_ns(0).now.as_second() as u64);
    assert_eq!(alert.host, "web-1");
}

proptest! {
    /// A kernel that counts six flows, sends an event a second, loses some and forgets others; a reader that looks at
    /// the ring, at the map and at the clock in any order. Every refusal is told or counted, none twice.
    #[test]
    fn counts_add_up(steps in proptest::collection::vec(
        (0u8..10, 0u64..6, 1u64..100, 0u64..4 * SECOND_NS), 0..200,
    )) {
        let (mut grouper, book) = (grouper(), book());
        let mut kernel: HashMap<u64, Refused> = HashMap::new();
        let (mut now_ns, mut refused, mut told) = (0, 0, 0);
        let key = |number| event_to(number, 0).refused;
        for (step, number, count, wait_ns) in steps {
            now_ns += wait_ns;
            let clocks = after_ns(now_ns);
            match step {
                0..5 => {
                    refused += count;
                    let time_ns = clocks.monotonic_ns;
                    let flow = kernel.entry(number).or_insert(Refused { last_event_ns: 0, refusals: 0 });
                    flow.refusals += count;
                    if time_ns - flow.last_event_ns >= SECOND_NS {
                        flow.last_event_ns = time_ns;
                        let mut event = event_to(number, now_ns);
                        event.refusals = flow.refusals;
                        // One in five is lost on the way.
                        if step > 0 {
                            told += grouper.observe(event, &book, &clocks).map_or(0, |alert| alert.count);
                        }
                    }
                }
                5..8 => {
                    grouper.counted(kernel.iter().map(|(number, flow)| (key(*number), *flow)), &clocks);
                    told += counts(&adopt_all(&mut grouper, &book, &clocks)).iter().sum::<u64>();
                }
                _ => told += counts(&grouper.due(&clocks)).iter().sum::<u64>(),
            }
            check_sum(&grouper);
        }
        let clocks = after_ns(now_ns + 10 * SECOND_NS);
        grouper.counted(kernel.iter().map(|(number, flow)| (key(*number), *flow)), &clocks);
        told += counts(&adopt_all(&mut grouper, &book, &clocks)).iter().sum::<u64>();
        told += counts(&grouper.flush(&clocks)).iter().sum::<u64>();
        let GroupCounters { orphaned, overflowed, .. } = grouper.counters();
        prop_assert_eq!(grouper.pending(), 0);
        prop_assert_eq!(told + orphaned + overflowed, refused);
    }
}

#[test]
fn the_agents_own_refusals_are_counted_apart() {
    let mut grouper = grouper();
    let own = enriched();
    grouper.own(own.refused, 1, own.time_ns);
    let entry = Refused { last_event_ns: own.time_ns, refusals: 4 };
    grouper.counted([(own.refused, entry)], &after_ns(10 * SECOND_NS));
    grouper.counted([(own.refused, entry)], &after_ns(11 * SECOND_NS));
    let counters = grouper.counters();
    assert_eq!((counters.own, counters.observed, counters.orphaned), (4, 0, 0));
    assert!(grouper.due(&after_ns(20 * SECOND_NS)).is_empty());
}

#[test]
fn what_an_agent_that_was_killed_did_not_tell_is_told_once() {
    let (mut grouper, book) = (grouper(), book());
    let [told, new] = [event_to(1, 0), event_to(2, 0)];
    let at = |seconds: u64, refusals| entry(refusals, seconds * SECOND_NS);
    grouper.already_told([(told.refused, at(0, 5))], &after_ns(10 * SECOND_NS));
    let kernel = [(told.refused, at(9, 8)), (new.refused, at(5, 3))];
    grouper.counted(kernel, &after_ns(10 * SECOND_NS));
    assert_eq!(grouper.pending(), 6);
    let alerts = adopt_all(&mut grouper, &book, &after_ns(10 * SECOND_NS));
    assert_eq!(counts(&alerts), [3, 3]);
    assert!(alerts.iter().all(|alert| alert.verdict.is_none()));
    assert_eq!([&alerts[0].marks[..], &alerts[1].marks[..]], [[(told.refused, 8)], [(new.refused, 3)]]);
    grouper.counted(kernel, &after_ns(11 * SECOND_NS));
    assert!(grouper.take_left().is_empty());
    assert_eq!(grouper.counters().orphaned, 0);
    check_sum(&grouper);
}

#[test]
fn an_alert_says_up_to_which_total_it_tells() {
    let (mut grouper, book) = (grouper(), book());
    let event = event_at(0, 7);
    let key = event.refused;
    assert_eq!(grouper.observe(event, &book, &after_ns(0)).unwrap().marks, [(key, 7)]);
    grouper.counted([(key, entry(9, 0))], &after_ns(SECOND_NS));
    assert_eq!(grouper.due(&after_ns(10 * SECOND_NS))[0].marks, [(key, 9)]);
    grouper.own(RefusedKey { pid: 1, ..key }, 2, SECOND_NS);
    assert_eq!(grouper.take_own_marks(), [(RefusedKey { pid: 1, ..key }, 2)]);
}

#[test]
fn what_another_ones_alerts_did_not_tell_yet_is_not_told_by_this_ones() {
    let (mut grouper, book) = (grouper(), book());
    let event = event_at(0, 1);
    let key = event.refused;
    assert_eq!(grouper.observe(event, &book, &after_ns(0)).unwrap().marks, [(key, 1)]);
    grouper.counted([(key, entry(5, 0))], &after_ns(SECOND_NS));
    assert_eq!(grouper.pending(), 4);
    // The same process, to the same place, as another user by now.
    let mut other = event_at(2 * SECOND_NS, 7);
    other.uid = Some(0);
    let alert = grouper.observe(other.clone(), &book, &after_ns(2 * SECOND_NS)).unwrap();
    // Of seven three are told: an agent that is killed now leaves four, for the next one to tell.
    assert_eq!((alert.count, &alert.marks[..]), (2, &[(key, 3)][..]));
    assert_eq!(counts(&grouper.due(&after_ns(10 * SECOND_NS))), [4]);
    // Nothing is pending of the one before any more.
    (other.time_ns, other.refusals) = (after_ns(12 * SECOND_NS).monotonic_ns, 9);
    let alert = grouper.observe(other, &book, &after_ns(12 * SECOND_NS)).unwrap();
    assert_eq!((alert.count, &alert.marks[..]), (2, &[(key, 9)][..]));
    check_sum(&grouper);
}
