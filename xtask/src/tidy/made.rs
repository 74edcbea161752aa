//! The rule for files that are made by a command: each is what the command would make of it now.

use super::{Finding, TextFile};
use crate::dashboard;

/// Every finding in them. A tree without one says so by the links that lead to it.
pub fn check(files: &[TextFile]) -> Vec<Finding> {
    let made = dashboard::text();
    let dashboards = files.iter().filter(|file| file.path == dashboard::PATH && file.text != made);
    dashboards
        .map(|file| {
            let differs = file.text.lines().zip(made.lines()).take_while(|(is, should)| is == should).count();
            Finding {
                file: file.path.clone(),
                line: differs + 1,
                rule: "made-file",
                what:
                    "it is not what `cargo xtask dashboard` writes: change xtask/src/dashboard and run that"
                        .to_owned(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_changed_by_hand_is_found() {
        let file = |text: String| TextFile { path: dashboard::PATH.to_owned(), text };
        assert_eq!(check(&[file(dashboard::text())]), []);
        let changed = check(&[file(dashboard::text().replacen("\"dnswall\"", "\"mine\"", 1))]);
        assert_eq!((changed.len(), changed[0].rule), (1, "made-file"));
        assert!(changed[0].line > 1, "{changed:?}");
    }
}
