//! Families of block lists.

use std::fmt;

use super::sample::seconds;
use super::sheet::{Labels, Sheet};
use crate::control::api::{Blocklists, FetchStatus, ListStatus};

/// Lists that have series of their own: the first of the policy, which may have no more today.
pub const LISTS_SHOWN_MAX: usize = 256;

pub(super) fn write(sheet: &mut Sheet<'_>, all: &Blocklists) -> fmt::Result {
    let Blocklists { lists, entries, kernel_bytes, exceptions } = all;
    sheet.gauge("dnswall_blocklists", "Block lists that the policy names.", lists.len())?;
    sheet.gauge("dnswall_blocklists_entries", "Entries that count, of all lists.", *entries)?;
    sheet.gauge(
        "dnswall_blocklists_exceptions",
        "Names that are not refused though a list has them or one above them.",
        *exceptions,
    )?;
    sheet.gauge(
        "dnswall_blocklists_kernel_bytes",
        "Size of the table of listed names in the kernel.",
        *kernel_bytes,
    )?;

    let shown = &lists[..lists.len().min(LISTS_SHOWN_MAX)];
    let every = |value: fn(&ListStatus) -> u64| shown.iter().map(move |list| (labels(list), value(list)));
    sheet.gauges(
        "dnswall_blocklist_entries",
        "Entries of a list that count.",
        every(|list| list.account.entries as u64),
    )?;
    sheet.gauges(
        "dnswall_blocklist_protected",
        "Entries of a list about names that are known to be good.",
        every(|list| list.account.protected as u64),
    )?;
    sheet.gauges(
        "dnswall_blocklist_rubbish_lines",
        "Lines of a list of which nothing could be used.",
        every(|list| list.account.rubbish.iter().map(|rubbish| rubbish.lines as u64).sum()),
    )?;
    sheet.gauges(
        "dnswall_blocklist_in_trouble",
        "1 where a list does not count, an older reading of it does, or the last try to fetch it brought nothing.",
        every(|list| u64::from(is_in_trouble(list))),
    )?;

    let fetched = || shown.iter().filter_map(|list| Some((list, list.fetch.as_ref()?)));
    let time = |of: fn(&FetchStatus) -> Option<&String>| {
        fetched().filter_map(move |(list, fetch)| Some((labels(list), seconds(of(fetch)?)?)))
    };
    sheet.gauges(
        "dnswall_blocklist_refresh_interval_seconds",
        "How often a list is fetched.",
        fetched().map(|(list, fetch)| (labels(list), fetch.refresh_secs)),
    )?;
    sheet.gauges(
        "dnswall_blocklist_fetched_timestamp_seconds",
        "When the version of a list that counts came.",
        time(|fetch| fetch.fetched.as_ref()),
    )?;
    sheet.gauges(
        "dnswall_blocklist_confirmed_timestamp_seconds",
        "When the server last sent a list, or said that it is still the one.",
        time(|fetch| fetch.confirmed.as_ref()),
    )?;
    sheet.gauges(
        "dnswall_blocklist_tried_timestamp_seconds",
        "When a list was tried last.",
        time(|fetch| fetch.tried.as_ref()),
    )?;
    sheet.gauges(
        "dnswall_blocklist_failed_tries",
        "Tries to fetch a list since the last that was good.",
        fetched().map(|(list, fetch)| (labels(list), fetch.failures)),
    )?;
    sheet.gauges(
        "dnswall_blocklist_bytes",
        "Size of the version of a list that counts, as it was sent.",
        fetched().map(|(list, fetch)| (labels(list), fetch.bytes)),
    )
}

// Not its source: a URL is long, and nobody needs it on a page.
fn labels(list: &ListStatus) -> Labels<'_> {
    vec![("list", &list.account.name)]
}

fn is_in_trouble(list: &ListStatus) -> bool {
    list.account.trouble.is_some() || list.fetch.as_ref().is_some_and(|fetch| fetch.error.is_some())
}
