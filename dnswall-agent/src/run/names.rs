//! Takes an image and a name, gives what its block lists make of it: for the control socket, and without an agent.

use std::io;

use crate::blocklist::name::DomainName;
use crate::compile::MapImage;
use crate::control::api::{Blocklists, NameChecked};

/// How a name is written.
pub const HINT: &str = "write like api.example.com, without a path or a port";

/// The lists of an image.
pub fn blocklists(image: &MapImage) -> Blocklists {
    let lists = &image.lists;
    Blocklists {
        lists: lists.accounts.clone(),
        entries: lists.entries(),
        kernel_bytes: size_of_val(lists.table.as_slice()),
        exceptions: lists.exceptions.len(),
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
