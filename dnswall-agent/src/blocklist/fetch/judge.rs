//! Whether a version that came may count: takes how it was read, and how the one before was.

use super::super::build::NAMES_MAX;
use super::super::format::{Format, Rubbish};
use super::super::lists::{List, ListAccount};
use super::super::name::NotAName;

/// Kinds of lines that say nothing to a resolver, and something to others: in some formats they may be the most.
const OF_OTHERS: [Rubbish; 2] = [Rubbish::Unsupported, Rubbish::Name(NotAName::Address)];

/// What a version is compared with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standard {
    /// Entries of the version that counts, read as the new one was.
    pub before: Option<usize>,
    /// Entries of all other lists.
    pub others: usize,
    /// `max-shrink` and `max-growth` do not hold this once.
    pub accept: bool,
}

/// Judges it.
///
/// # Errors
/// Why it does not count.
pub fn judge(list: &List, account: &ListAccount, standard: Standard) -> Result<(), String> {
    if let Some(trouble) = &account.trouble {
        return Err(trouble.clone());
    }
    let is_mixed = ![Format::Domains, Format::Hosts].iter().any(|format| format.name() == account.format);
    let may_be_many = |why: &str| is_mixed && OF_OTHERS.iter().any(|rubbish| rubbish.name() == why);
    let lines = account.rubbish.iter().filter(|rubbish| !may_be_many(&rubbish.why));
    let lines: usize = lines.map(|rubbish| rubbish.lines).sum();
    if lines > account.entries {
        return Err(format!(
            "{lines} of its lines have no name, read as {}, and {} make an entry: it is no list, or of another format",
            account.format, account.entries
        ));
    }
    if account.entries.saturating_add(standard.others) > NAMES_MAX {
        let others = standard.others;
        return Err(format!(
            "with its {} entries all lists have more than {NAMES_MAX} (the others {others})",
            account.entries
        ));
    }
    match standard.before {
        Some(before) if !standard.accept => list.change.check(before, account.entries),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocklist::bounds::Change;
    use crate::blocklist::lists::RubbishAccount;
    use crate::blocklist::{ListAction, ListSource};

    fn judged(
        format: &str,
        entries: usize,
        rubbish: &[(&str, usize)],
        standard: Standard,
    ) -> Result<(), String> {
        let list = List {
            name: "bad".to_owned(),
            source: ListSource::File("/x".into()),
            format: None,
            action: ListAction::Deny,
            entries: 0..=NAMES_MAX,
            change: Change::default(),
        };
        let rubbish = rubbish.iter();
        let rubbish = rubbish
            .map(|(why, lines)| RubbishAccount { why: (*why).to_owned(), lines: *lines, first_line: 1 })
            .collect();
        let account = ListAccount { format: format.to_owned(), entries, rubbish, ..ListAccount::default() };
        judge(&list, &account, standard)
    }

    #[test]
    fn prose_is_no_list_and_rules_for_browsers_may_be_many() {
        let nothing = Standard::default();
        assert!(judged("domains", 10, &[("not-a-name", 10)], nothing).is_ok());
        assert!(judged("domains", 10, &[("not-a-name", 6), ("unsupported", 5)], nothing).is_err());
        assert!(judged("abp", 10, &[("unsupported", 1_000), ("address", 1_000)], nothing).is_ok());
        assert!(judged("abp", 10, &[("not-a-name", 11)], nothing).is_err());
    }

    #[test]
    fn it_is_compared_unless_it_is_accepted() {
        let before = Standard { before: Some(10), ..Standard::default() };
        assert!(judged("domains", 10, &[], before).is_ok());
        assert!(judged("domains", 6, &[], before).is_err());
        assert!(judged("domains", 6, &[], Standard { accept: true, ..before }).is_ok());
        let full = Standard { others: NAMES_MAX - 9, accept: true, ..before };
        assert!(judged("domains", 9, &[], full).is_ok());
        assert!(judged("domains", 10, &[], full).is_err());
        assert!(judged("domains", 6, &[("unreadable", 7)], Standard { accept: true, ..before }).is_err());
    }
}
