//! Words that must not be in any file: traces of the machine something was written on, and unfinished business.

use super::{Finding, TextFile};

/// Two halves, so that this file does not find itself, and what is wrong with the whole.
const WORDS: &[(&str, &str, &str)] = &[
    ("clau", "de", "it says nothing about this project"),
    ("/wo", "rk/", "a path of one machine means nothing on another"),
    ("/ro", "ot/.", "a path of one machine means nothing on another"),
    ("index.crat", "es.io", "which registry or mirror is used is each machine's own configuration"),
    ("static.crat", "es.io", "which registry or mirror is used is each machine's own configuration"),
    ("pyp", "i.org/simple", "which registry or mirror is used is each machine's own configuration"),
    ("registry.np", "mjs", "which registry or mirror is used is each machine's own configuration"),
    ("FIX", "ME", "finish it, or write it into an issue"),
    ("XX", "X:", "finish it, or write it into an issue"),
    ("<<<<", "<<<", "an unresolved merge"),
];

/// Paths under which real data may hold any word.
const DATA: &[&str] = &["tests/data/", "Cargo.lock"];

/// Every finding in one file.
pub fn check(file: &TextFile) -> Vec<Finding> {
    if DATA.iter().any(|data| file.path.starts_with(data)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let lower = line.to_lowercase();
        for (first, second, why) in WORDS {
            let word = format!("{first}{second}");
            if lower.contains(&word.to_lowercase()) {
                let what = format!("`{word}`: {why}");
                findings.push(Finding { file: file.path.clone(), line: index + 1, rule: "words", what });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_in_any_case_with_its_line() {
        let text = format!("fine\na path {}{}x\n", "/WO", "RK/");
        let findings = check(&TextFile { path: "docs/a.md".to_owned(), text });
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].line, findings[0].rule), (2, "words"));
    }

    #[test]
    fn this_file_does_not_find_itself() {
        let text = include_str!("words.rs").to_owned();
        assert_eq!(check(&TextFile { path: "xtask/src/tidy/words.rs".to_owned(), text }), []);
    }
}
