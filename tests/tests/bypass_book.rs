//! The bypass book keeps its word: a row for every way around, and tests that exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Those other tools fell to.
const OTHERS: u32 = 60;

#[test]
fn every_way_around_has_its_row() -> Result<()> {
    let book = book()?;
    let mut rows = BTreeMap::new();
    for line in detailed(&book)? {
        if let Some(number) = number(line) {
            ensure!(rows.insert(number, line).is_none(), "B{number:02} has two rows");
            ensure!(
                line.trim_end_matches('|').split(" | ").count() == 5,
                "B{number:02} has not five columns: {line}"
            );
        }
    }
    for number in 1..=rows.keys().last().copied().unwrap_or_default().max(OTHERS) {
        ensure!(rows.contains_key(&number), "B{number:02} has no row");
    }
    Ok(())
}

#[test]
fn the_tests_it_names_exist() -> Result<()> {
    let book = book()?;
    let mut named = 0;
    for line in detailed(&book)? {
        // `::name` means a test of the file named last.
        let mut file = String::new();
        for code in line.split('`').skip(1).step_by(2) {
            let (path, name) = match code.split_once("::") {
                Some((path, name)) => (path, Some(name)),
                None => (code, None),
            };
            if !path.is_empty() {
                file = path.to_owned();
            }
            if !["e2e_", "kernel_"].iter().any(|start| file.starts_with(start)) {
                continue;
            }
            named += 1;
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{file}.rs"));
            let source =
                fs::read_to_string(&path).with_context(|| format!("{line}: {file} does not exist"))?;
            if let Some(name) = name {
                ensure!(source.contains(&format!("fn {name}()")), "{file} has no {name}: {line}");
            }
        }
    }
    ensure!(named > OTHERS as usize, "only {named} tests are named");
    Ok(())
}

fn book() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bypasses.md");
    fs::read_to_string(path).context("read the book")
}

/// The rows that say how, without the summary before them.
fn detailed(book: &str) -> Result<impl Iterator<Item = &str>> {
    let (_, details) = book.split_once("## Names and port 53").context("find the first table")?;
    Ok(details.lines().filter(|line| line.starts_with("| B")))
}

/// The number a row begins with.
fn number(line: &str) -> Option<u32> {
    line.strip_prefix("| B")?.split_once(' ')?.0.parse().ok()
}
