//! This project's own rules: takes the tree, gives every place that breaks one, with file, line and rule.
//!
//! [`source`] splits a Rust file into what a rule looks at; [`code`] has the rules for Rust, [`docs`] those for the
//! documentation, [`made`] for files that are made, [`words`] what must not be in any file.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{host::Host, step};

mod code;
mod docs;
mod made;
mod source;
mod words;

/// Directories that hold nothing of ours.
const NOT_OURS: &[&str] = &["target", ".git", ".tools", "node_modules"];

/// One place that breaks one rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, from the root of the clone.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The rule's name.
    pub rule: &'static str,
    /// What is wrong, and what to do instead.
    pub what: String,
}

/// A file of the tree that is text.
pub struct TextFile {
    /// From the root of the clone, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, rule, what } = self;
        write!(f, "{file}:{line}: {rule}: {what}")
    }
}

/// Checks the whole tree and prints what it found.
pub fn run(host: &Host) -> Result<()> {
    let files = read_tree(&host.root)?;
    let findings = check(&files);
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => step::say(&format!("tidy: {} files, nothing to say", files.len())),
        1 => bail!("1 place breaks a rule"),
        count => bail!("{count} places break a rule"),
    }
    Ok(())
}

/// Every finding in these files, in order.
fn check(files: &[TextFile]) -> Vec<Finding> {
    let test_files = code::test_files(files);
    let mut findings: Vec<_> = files
        .iter()
        .flat_map(|file| {
            let mut found = words::check(file);
            if file.path.ends_with(".rs") {
                found.extend(code::check(file, test_files.contains(&file.path)));
            }
            found
        })
        .chain(docs::check(files, &crate::command_names()))
        .chain(made::check(files))
        .collect();
    findings.sort();
    findings
}

/// All text files below the root.
fn read_tree(root: &Path) -> Result<Vec<TextFile>> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", directory.display()))?;
            let kind = entry.file_type().with_context(|| format!("look at {}", entry.path().display()))?;
            let name = entry.file_name();
            if kind.is_dir() && !NOT_OURS.iter().any(|other| name == *other) {
                directories.push(entry.path());
            } else if kind.is_file() && name != ".git" {
                files.extend(read_text(root, &entry.path())?);
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The file, unless it is not text (captures, corpora). A picture is there without its content: documents lead to it.
fn read_text(root: &Path, path: &PathBuf) -> Result<Option<TextFile>> {
    let relative = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(TextFile { path: relative, text })),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let is_picture = path.extension().is_some_and(|extension| extension == "png");
            Ok(is_picture.then(|| TextFile { path: relative, text: String::new() }))
        }
        Err(error) => Err(error).with_context(|| format!("read {relative}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_read_without_what_is_not_ours() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, bytes: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("create");
            fs::write(path, bytes).expect("write");
        };
        write("a/src/lib.rs", b"//! A.\n");
        write("target/debug/x.rs", b"broken");
        write(".tools/bin/x", b"broken");
        write("corpus/1", &[0xff, 0xfe]);
        write("docs/a.png", &[0x89, b'P', 0xff]);
        write(".ci/run", b"#!/bin/bash\n");
        let files = read_tree(root.path()).expect("read");
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".ci/run", "a/src/lib.rs", "docs/a.png"]);
    }

    #[test]
    fn a_finding_reads_like_a_compilers() {
        let finding = Finding { file: "a.rs".to_owned(), line: 3, rule: "unwrap", what: "no".to_owned() };
        assert_eq!(finding.to_string(), "a.rs:3: unwrap: no");
    }
}
