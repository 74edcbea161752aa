//! The table kernel × check: takes what the guests said, gives what a person reads, and whether all of it is well.

use std::fmt::Write as _;

use super::{guest::Account, programs::Check};

/// One row.
pub struct Row {
    /// The series that was asked for.
    pub series: String,
    /// What its guest said.
    pub account: Account,
}

/// Whether every check passed on every kernel, and at least one job ran for each.
pub fn all_passed(rows: &[Row], checks: &[Check]) -> bool {
    rows.iter().all(|row| {
        let ran =
            |check| row.account.of(check).count() > 0 && row.account.of(check).all(|(_, passed)| passed);
        row.account.finished && checks.iter().all(|check| ran(*check))
    })
}

/// The table, then what failed, then what was not run and why.
pub fn text(rows: &[Row], checks: &[Check]) -> String {
    let mut lines = vec![
        [
            &["kernel".to_owned(), "release".to_owned(), "boot".to_owned()][..],
            &checks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ]
        .concat(),
    ];
    for row in rows {
        let account = &row.account;
        let boot =
            if account.release.is_empty() { "FAIL".to_owned() } else { format!("{} s", account.boot_secs) };
        let mut line = vec![row.series.clone(), account.release.clone(), boot];
        line.extend(checks.iter().map(|check| cell(account, *check)));
        lines.push(line);
    }
    let mut text = aligned(&lines);
    for row in rows {
        let failed = |check: &Check| {
            row.account.of(*check).filter(|(_, passed)| !passed).map(|(ended, _)| ended).collect::<Vec<_>>()
        };
        for (check, ended) in
            checks.iter().flat_map(|check| failed(check).into_iter().map(move |ended| (check, ended)))
        {
            let how = match ended.code {
                None => "did not end".to_owned(),
                // What the guest's `timeout` gives: 128 and the signal.
                Some(137) => "took too long".to_owned(),
                Some(code) => format!("exit code {code}"),
            };
            let _ = writeln!(text, "{} {check}: {} {how}", row.series, ended.job.name);
        }
    }
    for row in rows {
        for ended in &row.account.ended {
            for case in &ended.lacking {
                let _ = writeln!(text, "{} not run: {}: {case}", row.series, ended.job.name);
            }
        }
    }
    text
}

/// Pass or fail, how many of how many, how long, and how many cases were not run.
fn cell(account: &Account, check: Check) -> String {
    let (mut passed, mut all, mut secs, mut lacking) = (0, 0, 0, 0);
    for (ended, well) in account.of(check) {
        all += 1;
        passed += usize::from(well);
        secs += ended.secs;
        lacking += ended.lacking.len();
    }
    let mut cell = if all == 0 {
        "none ran".to_owned()
    } else if passed == all {
        "pass".to_owned()
    } else {
        "FAIL".to_owned()
    };
    if all > 1 {
        let _ = write!(cell, " {passed}/{all}");
    }
    // The budget is read off what was loaded.
    if check != Check::Budget {
        let _ = write!(cell, " {secs} s");
    }
    if lacking > 0 {
        let _ = write!(cell, " ({lacking} cases not run)");
    }
    cell
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> =
        (0..columns).map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{guest::Ended, programs::Job};

    fn ended(check: Check, name: &str, code: Option<i32>, lacking: &[&str]) -> Ended {
        let job = Job { check, name: name.to_owned(), command: Vec::new() };
        Ended { job, code, secs: 9, lacking: lacking.iter().map(|case| (*case).to_owned()).collect() }
    }

    fn row(ended: Vec<Ended>, finished: bool) -> Row {
        let account =
            Account { release: "6.1.0-56".to_owned(), boot_secs: 4, ended, finished, ..Account::default() };
        Row { series: "6.1".to_owned(), account }
    }

    #[test]
    fn a_table_says_what_passed_and_what_was_not_run() {
        let rows = [row(
            vec![
                ended(Check::Load, "verify", Some(0), &[]),
                ended(Check::Packets, "p::one", Some(0), &["MPTCP: a case"]),
                ended(Check::Packets, "p::two", Some(101), &[]),
            ],
            true,
        )];
        let text = text(&rows, &[Check::Load, Check::Budget, Check::Packets]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "kernel  release   boot  load      budget  packets");
        assert_eq!(lines[1], "6.1     6.1.0-56  4 s   pass 9 s  pass    FAIL 1/2 18 s (1 cases not run)");
        assert_eq!(lines[2], "6.1 packets: p::two exit code 101");
        assert_eq!(lines[3], "6.1 not run: p::one: MPTCP: a case");
        assert!(!all_passed(&rows, &[Check::Packets]) && all_passed(&rows, &[Check::Load, Check::Budget]));
    }

    #[test]
    fn nothing_that_did_not_run_has_passed() {
        let loaded = || vec![ended(Check::Load, "verify", Some(0), &[])];
        assert!(!all_passed(&[row(loaded(), true)], &[Check::Behaviour]));
        assert!(!all_passed(&[row(loaded(), false)], &[Check::Load]), "the guest did not come to its end");
        assert!(all_passed(&[row(loaded(), true)], &[Check::Load]));
    }
}
