//! Takes an image and a name, gives what its block lists make of it: for the control socket, and without an agent.

use std::io;
use std::time::Duration;

use jiff::Timestamp;

use super::engine::Running;
use crate::blocklist::fetch::{Depot, Record};
use crate::blocklist::name::DomainName;
use crate::compile::MapImage;
use crate::control::api::{Blocklists, FetchStatus, ListStatus, NameChecked};
use crate::remote::ServerUrl;

/// How a name is written.
pub const HINT: &str = "write like api.example.com, without a path or a port";

/// The lists of the policy that decides.
pub fn blocklists(running: &Running) -> Blocklists {
    let lists = &running.image.lists;
    let depot = running.environment.library().depot.as_deref();
    let of_policy = running.policy.blocklists.iter().map(|it| &it.list);
    let fetches = of_policy.map(|list| {
        let (url, refresh) = list.source.url()?;
        Some(fetch(depot?, url, refresh))
    });
    let accounts = lists.accounts.iter().cloned();
    Blocklists {
        lists: accounts.zip(fetches).map(|(account, fetch)| ListStatus { account, fetch }).collect(),
        entries: lists.entries(),
        kernel_bytes: size_of_val(lists.table.as_slice()),
        exceptions: lists.exceptions.len(),
    }
}

fn fetch(depot: &Depot, url: &ServerUrl, refresh: Duration) -> FetchStatus {
    let Record {
        fetched,
        confirmed,
        refused: _,
        tried,
        error,
        failures,
        next,
        etag,
        last_modified,
        sha256,
        bytes,
        entries,
    } = depot.record(url);
    let shown = |time: Option<Timestamp>| time.map(|time| format!("{time:.0}"));
    FetchStatus {
        refresh_secs: refresh.as_secs(),
        fetched: shown(fetched),
        confirmed: shown(confirmed),
        tried: shown(tried),
        error,
        failures,
        next: shown(next),
        has_etag: etag.is_some(),
        last_modified,
        sha256,
        bytes,
        entries,
    }
}

/// Reads a name.
///
/// # Errors
/// Why it is none.
pub fn read(text: &str) -> Result<DomainName<'_>, String> {
    DomainName::new(text).map_err(|why| format!("{text:?} is not a domain name: {}", why.why()))
}

/// What becomes of a question for a name.
///
/// # Errors
/// When the index of listed names cannot be read.
pub fn check(image: &MapImage, name: &DomainName<'_>) -> io::Result<NameChecked> {
    let answer = image.lists.check(name)?;
    let rule = match answer.outcome.as_str() {
        "passes" => None,
        _ => Some(answer.by.as_ref().map_or("blocklist".to_owned(), |by| format!("blocklist.{}", by.list))),
    };
    Ok(NameChecked { answer, rule, mode: image.mode.name().to_owned() })
}
