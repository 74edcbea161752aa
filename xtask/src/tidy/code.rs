//! The rules for Rust: who may import whom, what is only for tests, how long a file is and how it begins.

use std::collections::BTreeSet;

use super::{
    Finding, TextFile,
    source::{Line, has_word, lines},
};

/// Lines of a Rust file, its tests not counted.
const FILE_LINES_MAX: usize = 500;

/// Some words belong to some rooms.
struct Room {
    rule: &'static str,
    /// Where the rule holds.
    inside: &'static [&'static str],
    /// Where it does not.
    except: &'static [&'static str],
    words: &'static [&'static str],
    why: &'static str,
}

const ROOMS: &[Room] = &[
    Room {
        rule: "unsafe-room",
        inside: &["dnswall-agent/src/", "xtask/"],
        except: &["dnswall-agent/src/kernel/"],
        words: &["unsafe"],
        why: "only dnswall-agent/src/kernel talks to the kernel in ways the compiler cannot check",
    },
    Room {
        rule: "aya-room",
        inside: &["dnswall-agent/src/", "xtask/", "dnswall-common/"],
        // The layouts themselves have to say that they may be copied to and from maps.
        except: &["dnswall-agent/src/kernel/", "dnswall-common/src/aya_pod.rs"],
        words: &["aya", "aya_obj", "aya_ebpf"],
        why: "only dnswall-agent/src/kernel loads programs and touches maps",
    },
    Room {
        rule: "users-room",
        inside: &["dnswall-agent/src/"],
        except: &["dnswall-agent/src/host/"],
        words: &["uzers"],
        why: "in a container this process's users are not the host's; dnswall-agent/src/host knows them",
    },
    Room {
        rule: "clap-room",
        inside: &["dnswall-agent/src/"],
        except: &["dnswall-agent/src/cli/"],
        words: &["clap"],
        why: "what was typed is the cli room's; other rooms get checked types",
    },
    Room {
        rule: "screen-room",
        inside: &["dnswall-agent/src/"],
        except: &["dnswall-agent/src/cli/top/"],
        words: &["ratatui", "crossterm"],
        why: "only dnswall-agent/src/cli/top takes a terminal for itself, and gives it back",
    },
    Room {
        rule: "fetch-room",
        inside: &["dnswall-agent/src/"],
        except: &["dnswall-agent/src/blocklist/fetch/", "dnswall-agent/src/remote/"],
        words: &["ureq", "rustls", "rustls_native_certs"],
        why: "only dnswall-agent/src/remote and blocklist/fetch ask servers elsewhere, and see what is secret in a URL",
    },
    Room {
        rule: "runtime-room",
        inside: &[
            "dnswall-agent/src/policy/",
            "dnswall-agent/src/compile/",
            "dnswall-agent/src/event/",
            "dnswall-agent/src/alert/",
            "dnswall-agent/src/format/",
            "dnswall-agent/src/picture/",
        ],
        except: &[],
        words: &["tokio", "axum", "hyper"],
        why: "policy, image, event, alert and format are plain data; the run and control rooms wire them",
    },
    Room {
        rule: "pure-room",
        inside: &[
            "dnswall-agent/src/policy/",
            "dnswall-agent/src/compile/",
            "dnswall-agent/src/format/",
            "dnswall-agent/src/picture/",
            "dnswall-common/src/",
        ],
        except: &[],
        words: &[
            "std::fs",
            "std::net::TcpStream",
            "std::process",
            "File::open",
            "Instant::now",
            "SystemTime::now",
            "Timestamp::now",
        ],
        why: "no I/O and no clock here: what is read, and the time, are arguments",
    },
];

/// File names that say nothing.
const EMPTY_NAMES: &[&str] = &["utils", "util", "misc", "common_utils", "helpers"];

/// The files that only tests see: those a `#[cfg(test)] mod name;` stands for, and whole directories of tests.
pub fn test_files(files: &[TextFile]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        if is_test_path(&file.path) {
            found.insert(file.path.clone());
        }
        let (directory, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let below = match name {
            "mod.rs" | "lib.rs" | "main.rs" => directory.to_owned(),
            name => format!("{directory}/{}", name.trim_end_matches(".rs")),
        };
        for line in lines(&file.text).iter().filter(|line| line.test) {
            let declared = line.code.split_once("mod ").and_then(|(_, rest)| rest.split_once(';'));
            if let Some((module, _)) = declared {
                found.insert(format!("{below}/{module}.rs"));
                found.insert(format!("{below}/{module}/mod.rs"));
            }
        }
    }
    found
}

/// Every finding in one Rust file. In one that only tests see, less is asked.
pub fn check(file: &TextFile, only_tests: bool) -> Vec<Finding> {
    let lines = lines(&file.text);
    let mut findings = Vec::new();
    let mut report = |line: usize, rule: &'static str, what: String| {
        findings.push(Finding { file: file.path.clone(), line, rule, what });
    };

    if !begins_with_documentation(&file.text) {
        let what = "begin with `//!`: what this file takes and what it gives".to_owned();
        report(1, "module-doc", what);
    }
    let own_lines = lines.iter().filter(|line| !line.test).count();
    if own_lines > FILE_LINES_MAX {
        let what =
            format!("{own_lines} lines without its tests; {FILE_LINES_MAX} is the most. One noun, one file");
        report(FILE_LINES_MAX, "file-length", what);
    }
    let stem = file.path.rsplit('/').find(|part| *part != "mod.rs").unwrap_or("").trim_end_matches(".rs");
    if EMPTY_NAMES.contains(&stem) {
        report(1, "names", format!("`{stem}` says nothing; name the noun"));
    }

    for line in lines.iter().filter(|line| !line.test && !only_tests) {
        for room in ROOMS.iter().filter(|room| room.holds_in(&file.path)) {
            if let Some(word) = room.words.iter().find(|word| has_word(&line.code, word)) {
                report(line.number, room.rule, format!("`{word}` does not belong here: {}", room.why));
            }
        }
        if let Some(what) = unwrap_or_name(line) {
            report(line.number, what.0, what.1);
        }
    }
    findings
}

impl Room {
    fn holds_in(&self, path: &str) -> bool {
        let any = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
        any(self.inside) && !any(self.except)
    }
}

fn unwrap_or_name(line: &Line) -> Option<(&'static str, String)> {
    if line.code.contains(".unwrap()") {
        return Some(("unwrap", "handle it, or `expect` the invariant that makes it impossible".to_owned()));
    }
    let name = line.code.split("fn get_").nth(1)?;
    let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    Some(("names", format!("`get_{name}` is `{name}`")))
}

/// Inner attributes may stand before the documentation.
fn begins_with_documentation(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("#!["))
        .is_none_or(|line| line.starts_with("//!"))
}

/// Places where everything is test code.
fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules that `text` at `path` breaks, with lines.
    fn broken(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let file = TextFile { path: path.to_owned(), text: text.to_owned() };
        let only_tests = is_test_path(path);
        check(&file, only_tests).into_iter().map(|finding| (finding.line, finding.rule)).collect()
    }

    #[test]
    fn the_kernel_room_alone_is_unsafe_and_knows_aya() {
        let text = "//! X.\nuse aya::Ebpf;\nfn f() { unsafe { g() } }\n";
        assert_eq!(broken("dnswall-agent/src/run/mod.rs", text), [(2, "aya-room"), (3, "unsafe-room")]);
        assert_eq!(broken("dnswall-agent/src/kernel/wall.rs", text), []);
        assert_eq!(broken("tests/src/run.rs", text), []);
    }

    #[test]
    fn words_in_comments_strings_and_tests_do_not_count() {
        let text = "//! unsafe aya clap\nconst A: &str = \"clap\"; // unsafe\n#[cfg(test)]\nmod tests { use clap::X; }\n";
        assert_eq!(broken("dnswall-agent/src/run/mod.rs", text), []);
    }

    #[test]
    fn users_are_asked_for_in_one_place() {
        let text = "//! X.\nlet user = uzers::get_user_by_uid(0);\n";
        assert_eq!(broken("dnswall-agent/src/event/user.rs", text), [(2, "users-room")]);
        assert_eq!(broken("dnswall-agent/src/host/users.rs", text), []);
    }

    #[test]
    fn clap_stays_in_cli_and_tokio_out_of_plain_data() {
        assert_eq!(
            broken("dnswall-agent/src/config/mod.rs", "//! X.\nuse clap::Args;\n"),
            [(2, "clap-room")]
        );
        assert_eq!(broken("dnswall-agent/src/cli/mod.rs", "//! X.\nuse clap::Args;\n"), []);
        let text = "//! X.\nuse ratatui::Frame;\n";
        assert_eq!(broken("dnswall-agent/src/cli/events.rs", text), [(2, "screen-room")]);
        assert_eq!(broken("dnswall-agent/src/cli/top/draw.rs", text), []);
        assert_eq!(
            broken("dnswall-agent/src/alert/a.rs", "//! X.\nuse tokio::sync;\n"),
            [(2, "runtime-room")]
        );
        assert_eq!(broken("dnswall-agent/src/sink/a.rs", "//! X.\nuse tokio::sync;\n"), []);
    }

    #[test]
    fn policy_reads_no_clock_and_no_file() {
        let text = "//! X.\nlet now = Instant::now();\nlet t = std::fs::read(p);\n";
        assert_eq!(broken("dnswall-agent/src/policy/a.rs", text), [(2, "pure-room"), (3, "pure-room")]);
    }

    #[test]
    fn unwrap_is_for_tests() {
        assert_eq!(broken("xtask/src/a.rs", "//! X.\nlet a = b().unwrap();\n"), [(2, "unwrap")]);
        assert_eq!(broken("xtask/src/a.rs", "//! X.\n#[cfg(test)]\nmod tests {\n b().unwrap();\n}\n"), []);
        assert_eq!(broken("dnswall-agent/tests/a.rs", "//! X.\nb().unwrap();\n"), []);
    }

    #[test]
    fn modules_that_only_tests_see_are_test_files() {
        let file = |path: &str, text: &str| TextFile { path: path.to_owned(), text: text.to_owned() };
        let files = [
            file("a/src/event/mod.rs", "mod decode;\n#[cfg(test)]\nmod sample;\nmod text;\n"),
            file("a/src/alert.rs", "#[cfg(test)]\npub(crate) mod example;\n"),
            file("tests/src/lib.rs", ""),
        ];
        let found = test_files(&files);
        let found: Vec<_> =
            found.iter().map(String::as_str).filter(|path| !path.ends_with("mod.rs")).collect();
        assert_eq!(found, ["a/src/alert/example.rs", "a/src/event/sample.rs", "tests/src/lib.rs"]);
    }

    #[test]
    fn a_file_begins_with_what_it_is_for() {
        assert_eq!(broken("a/src/lib.rs", "use x;\n"), [(1, "module-doc")]);
        assert_eq!(broken("a/src/lib.rs", "#![no_std]\n//! X.\n"), []);
    }

    #[test]
    fn a_file_is_short_without_its_tests() {
        let long = format!("//! X.\n{}", "fn f() {}\n".repeat(FILE_LINES_MAX));
        assert_eq!(broken("a/src/lib.rs", &long), [(FILE_LINES_MAX, "file-length")]);
        let tested =
            format!("//! X.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(FILE_LINES_MAX));
        assert_eq!(broken("a/src/lib.rs", &tested), []);
    }

    #[test]
    fn names_say_something() {
        assert_eq!(broken("a/src/utils.rs", "//! X.\n"), [(1, "names")]);
        assert_eq!(broken("a/src/utils/mod.rs", "//! X.\n"), [(1, "names")]);
        assert_eq!(broken("a/src/b.rs", "//! X.\nfn get_size() {}\n"), [(2, "names")]);
    }
}
