//! Takes two readings of lists, gives how many entries one of them gained and lost.

use std::cmp::Ordering;
use std::io;

use super::index::Record;
use super::lists::Lists;

/// Entries of a list that are new, and those that are gone.
///
/// # Errors
/// When an index cannot be read.
pub fn difference(before: &Lists, after: &Lists, list: &str) -> io::Result<(usize, usize)> {
    let (before, after) = (records(before, list)?, records(after, list)?);
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    let (mut added, mut removed) = (0, 0);
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Ok((added, removed)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => (old.hash, old.meaning).cmp(&(new.hash, new.meaning)),
        };
        if order.is_le() {
            old.next();
        }
        if order.is_ge() {
            new.next();
        }
        removed += usize::from(order.is_lt());
        added += usize::from(order.is_gt());
    }
}

/// Of one list, in the order of their hashes.
fn records(lists: &Lists, name: &str) -> io::Result<Vec<Record>> {
    let exact = &lists.exact;
    let at = exact.lists.iter().position(|list| list.name == name);
    match (at, &exact.index) {
        (Some(at), Some(index)) => index.of_list(at as u16),
        _ => Ok(Vec::new()),
    }
}
