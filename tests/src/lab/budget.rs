//! What the verifier may walk: takes `tests/verifier-budget.toml`, gives the table for one kernel, and writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

/// What every kernel from 5.2 on walks at most before it gives up.
pub const KERNEL_LIMIT: u32 = 1_000_000;
/// A budget leaves this much room above what was seen, in percent: compilers and kernels differ a little.
const ROOM_PERCENT: u32 = 15;
/// The first series that tells what its verifier walked.
pub const TELLS_FROM: Series = (5, 16);

/// Major and minor.
pub type Series = (u32, u32);

/// Tables by the first series they hold for.
#[derive(Debug, PartialEq, Eq)]
pub struct Budget(BTreeMap<Series, BTreeMap<String, u32>>);

impl Budget {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is something else than tables of numbers named after series.
    pub fn read(text: &str) -> Result<Self> {
        let tables: BTreeMap<String, BTreeMap<String, u32>> =
            toml::from_str(text).context("read the verifier's budget")?;
        let named = tables.into_iter().map(|(name, table)| Ok((series(&name)?, table)));
        named.collect::<Result<_>>().map(Self)
    }

    /// The table of a kernel, with the series it begins with.
    pub fn of(&self, kernel: Series) -> Option<(Series, &BTreeMap<String, u32>)> {
        self.0.range(..=kernel).next_back().map(|(series, table)| (*series, table))
    }

    /// Puts what was seen into the table of a kernel, with some room. What that kernel does not load keeps its budget.
    pub fn record(&mut self, kernel: Series, seen: &BTreeMap<String, u32>) {
        let series = self.of(kernel).map_or(kernel, |(series, _)| series);
        let with_room = |count: u32| (count + count / 100 * ROOM_PERCENT).min(KERNEL_LIMIT);
        let table = seen.iter().map(|(program, count)| (program.clone(), with_room(*count)));
        self.0.entry(series).or_default().extend(table);
    }

    /// The file.
    pub fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for ((major, minor), table) in &self.0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "\n[\"{major}.{minor}\"]");
            for (program, allowed) in table {
                let _ = writeln!(text, "{program} = {allowed}");
            }
        }
        text
    }
}

/// The series of a release as `uname` gives it.
///
/// # Errors
/// When it does not begin with two numbers.
pub fn series(release: &str) -> Result<Series> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => anyhow::bail!("{release:?} does not begin with a kernel's series"),
    }
}

const HEAD: &str = "\
# Instructions the verifier may walk, by program. A table holds from its series on, up to the next table's.
# `cargo xtask verify --write` writes the one of the kernel it runs on; docs/kernels.md says more.
";

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[\"5.16\"]\na = 200\n[\"6.12\"]\na = 100\n";

    #[test]
    fn a_kernel_is_held_to_the_newest_table_that_is_not_newer() {
        let budget = Budget::read(TEXT).unwrap();
        for (kernel, table) in [((5, 16), 200), ((6, 1), 200), ((6, 12), 100), ((7, 2), 100)] {
            assert_eq!(budget.of(kernel).unwrap().1["a"], table, "{kernel:?}");
        }
        assert_eq!(budget.of((5, 10)), None);
    }

    #[test]
    fn what_was_seen_replaces_one_table_and_leaves_the_others() {
        let mut budget = Budget::read(TEXT).unwrap();
        budget.record((7, 2), &[("a".to_owned(), 1000), ("b".to_owned(), 999_999)].into());
        let again = Budget::read(&budget.text()).unwrap();
        assert_eq!(again, budget);
        assert_eq!(
            again.of((6, 12)).unwrap().1,
            &[("a".to_owned(), 1150), ("b".to_owned(), KERNEL_LIMIT)].into()
        );
        assert_eq!(again.of((6, 1)).unwrap().1["a"], 200);
    }

    #[test]
    fn a_series_is_how_a_release_begins() {
        assert_eq!(series("6.12.117+deb13-cloud-amd64").unwrap(), (6, 12));
        assert_eq!(series("7.2").unwrap(), (7, 2));
        assert!(series("Linux").is_err());
    }
}
