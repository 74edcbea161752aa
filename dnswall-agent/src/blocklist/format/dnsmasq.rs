//! dnsmasq's options that answer for a name themselves.

use std::net::IpAddr;

use super::{Entry, Meaning, Rubbish, is_nowhere, name};

/// Reads a line: `address=/name/name/`, with no address, `#` or one that leads nowhere; `local=/name/`; `server=/name/`;
/// `server=/name/#` makes an exception.
pub fn read(line: &str, emit: &mut dyn FnMut(Entry<'_>)) -> Result<(), Rubbish> {
    let line = without_comment(line).trim();
    if line.is_empty() {
        return Ok(());
    }
    let (key, value) = line.split_once('=').ok_or(Rubbish::Unsupported)?;
    let value = value.trim().strip_prefix('/').ok_or(Rubbish::Unsupported)?;
    let (names, to) = value.rsplit_once('/').ok_or(Rubbish::Unsupported)?;
    let to = to.split_ascii_whitespace().next().unwrap_or_default();
    let leads_nowhere = to.is_empty() || to.parse().is_ok_and(|address: IpAddr| is_nowhere(address));
    let is_exception = match (key.trim(), to) {
        ("server" | "local", "#") => true,
        ("address", "#") => false,
        ("address", _) if leads_nowhere => false,
        ("server" | "local", "") => false,
        _ => return Err(Rubbish::Unsupported),
    };
    let mut rubbish = None;
    for text in names.split('/') {
        let (meaning, text) = match text.strip_prefix("*.") {
            Some(rest) => (Meaning::Below, rest),
            None => (Meaning::Subtree, text.strip_prefix('.').unwrap_or(text)),
        };
        match name(text) {
            _ if text.contains(['*', '#']) => rubbish = Some(Rubbish::Unsupported),
            Ok(name) => emit(Entry { name, meaning, is_exception }),
            Err(reason) => rubbish = Some(reason),
        }
    }
    rubbish.map_or(Ok(()), Err)
}

/// Without what follows a `#` at the beginning or behind a blank: elsewhere it means something.
fn without_comment(line: &str) -> &str {
    let begins = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    let comment = line.match_indices('#').map(|(at, _)| at).find(|at| begins(*at));
    comment.map_or(line, |at| &line[..at])
}
