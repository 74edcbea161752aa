//! The built binary's commands that need no agent and no root: what they print and how they end.

#![allow(clippy::unwrap_used, reason = "whatever is missing here fails the test")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const POLICY: &str = r#"version = 1
mode = "enforce"
[dns]
resolvers = ["10.0.0.2"]
[[allow]]
name = "orders database"
to = ["10.0.3.0/24"]
ports = ["tcp/5432"]
from = [{ unit = "orders.service" }]
"#;

struct Here {
    directory: tempfile::TempDir,
}

struct Said {
    code: i32,
    text: String,
    errors: String,
}

impl Here {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("no-agent.sock")
    }

    fn say(&self, arguments: &[&str]) -> Said {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_dnswall"))
            .args(arguments)
            .env("DNSWALL_SOCKET", self.socket())
            .output()
            .unwrap();
        Said {
            code: status.code().unwrap(),
            text: String::from_utf8(stdout).unwrap(),
            errors: String::from_utf8(stderr).unwrap(),
        }
    }

    fn ask(&self, arguments: &[&str]) -> (i32, Value) {
        let said = self.say(&[arguments, &["--output", "json"]].concat());
        assert_eq!(said.errors, "", "JSON is all that is said");
        (said.code, serde_json::from_str(&said.text).unwrap())
    }
}

/// Too many scopes, and too many different workloads.
fn too_large() -> String {
    let scope = |index| format!("[[scope]]\nmode = \"audit\"\nfrom = [{{ user = {index} }}]\n");
    let rule = |index| {
        format!(
            "[[allow]]\nto = [\"10.0.0.0/8\"]\nports = [\"tcp/1{index:03}\"]\nfrom = [{{ user = {index} }}]\n"
        )
    };
    let (scopes, rules): (String, String) = ((1..=17).map(scope).collect(), (1..=300).map(rule).collect());
    format!("version = 1\nmode = \"enforce\"\n{rules}{scopes}")
}

#[test]
fn a_policy_that_does_not_fit_is_refused_with_the_numbers() {
    let here = Here::new();
    let file = here.file("large.toml", &too_large());
    let said = here.say(&["policy", "check", &file]);
    assert_eq!(said.code, 3, "{}", said.errors);
    for number in ["names 301 different workloads", "there are 255", "has 17 scopes", "holds 16"] {
        assert!(said.errors.contains(number), "{number} is missing: {}", said.errors);
    }
}

#[test]
fn a_policy_without_mistakes() {
    let here = Here::new();
    let file = here.file("web.toml", POLICY);
    let said = here.say(&["policy", "check", &file]);
    assert_eq!((said.code, said.errors.as_str()), (0, ""));
    assert!(said.text.starts_with("valid: web: mode enforce, 2 rules, digest "), "{}", said.text);
    assert!(!said.text.contains('\u{1b}'), "no colour where no terminal is");
    let (code, checked) = here.ask(&["policy", "check", &file]);
    assert_eq!((code, &checked["valid"], &checked["rules"]), (0, &Value::Bool(true), &Value::from(2)));
    assert_eq!(checked["digest"].as_str().unwrap().len(), 64);
}

#[test]
fn every_mistake_is_shown_and_the_exit_code_is_3() {
    let here = Here::new();
    let file =
        here.file("bad.toml", "version = 1\nmode = \"off\"\n[[allow]]\nto = [\"10.0.0.1/8\"]\nport = 1\n");
    for command in ["check", "apply"] {
        let said = here.say(&["policy", command, &file]);
        assert_eq!((said.code, said.text.as_str()), (3, ""));
        for place in ["bad.toml:2:8", "bad.toml:4:7", "bad.toml:5:1"] {
            assert!(said.errors.contains(place), "{place}: {}", said.errors);
        }
        let (code, answer) = here.ask(&["policy", command, &file]);
        let lines: Vec<&Value> =
            answer["problems"].as_array().unwrap().iter().map(|problem| &problem["line"]).collect();
        assert_eq!((code, lines), (3, vec![&Value::from(2), &Value::from(4), &Value::from(5)]));
    }
    assert_eq!(here.say(&["policy", "check", "/no/such/policy.toml"]).code, 3);
}

#[test]
fn two_policies_are_compared() {
    let here = Here::new();
    let (one, other) =
        (here.file("one.toml", POLICY), here.file("two.toml", &POLICY.replace("5432", "5433")));
    let commented = here.file("three.toml", &format!("# the same\n{POLICY}"));
    assert_eq!(here.say(&["policy", "diff", &one, &commented]).code, 0);
    let said = here.say(&["policy", "diff", &one, &other]);
    assert!(said.code == 1 && said.text.contains("tcp/5433"), "{}", said.text);
    let (code, answer) = here.ask(&["policy", "diff", &one, &other]);
    assert_eq!((code, &answer["same"]), (1, &Value::Bool(false)));
    assert_eq!(answer["changes"][0]["what"], "allow.orders database");
}

#[test]
fn a_policy_is_questioned_without_an_agent() {
    let here = Here::new();
    let file = here.file("web.toml", POLICY);
    let ask = |from: &str, port: &str| {
        here.ask(&[
            "policy", "explain", "--policy", &file, "--from", from, "--to", "10.0.3.7", "--port", port,
        ])
    };
    let (code, said) = ask("unit:orders.service", "tcp/5432");
    assert_eq!(
        (code, &said["verdict"], &said["rule"]),
        (0, &"allow".into(), &"allow.orders database".into())
    );
    assert_eq!(said["line"], 5);
    let (code, said) = ask("unit:web.service", "tcp/5432");
    assert_eq!((code, &said["verdict"]), (1, &"deny".into()));
    assert_eq!(said["reason"], "not-for-this-workload");
    let (code, said) = ask("unit:web.service", "5432");
    assert_eq!((code, &said["error"]), (2, &"`5432` is not a protocol and port".into()));
}

#[test]
fn without_an_agent_commands_say_so_and_end_with_5() {
    let here = Here::new();
    let file = here.file("web.toml", POLICY);
    for command in [
        &["status"][..],
        &["events"],
        &["policy", "show"],
        &["policy", "rollback"],
        &["policy", "apply", &file],
        &["policy", "diff", &file],
        &["policy", "explain", "--to", "10.0.0.1", "--port", "tcp/1"],
    ] {
        let said = here.say(command);
        let expected = format!("error: the agent cannot be reached at {}: ", here.socket().display());
        assert_eq!(said.code, 5, "{command:?}");
        assert!(said.errors.starts_with(&expected), "{command:?}: {}", said.errors);
        let (code, answer) = here.ask(command);
        assert!(code == 5 && answer["error"].is_string(), "{command:?}: {answer}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2_and_help_with_0() {
    let here = Here::new();
    for wrong in [&["bogus"][..], &[], &["policy", "check"], &["status", "--output", "xml"]] {
        assert_eq!(here.say(wrong).code, 2, "{wrong:?}");
    }
    for help in [&["--help"][..], &["policy", "explain", "--help"], &["--version"]] {
        let said = here.say(help);
        assert!(said.code == 0 && said.errors.is_empty() && !said.text.is_empty(), "{help:?}");
    }
}

#[test]
fn nothing_to_take_down_is_no_mistake() {
    let here = Here::new();
    let pins = here.directory.path().join("pins");
    let (code, answer) = here.ask(&["agent", "detach", "--pins", pins.to_str().unwrap()]);
    assert_eq!((code, &answer["hooks"]), (0, &Value::from(0)));
    assert!(!pins.exists());
}

#[test]
fn an_agent_with_a_broken_configuration_does_not_start() {
    let here = Here::new();
    let config = here.file("agent.toml", "pin = \"/x\"\n");
    let said = here.say(&["agent", "run", "--config", &config]);
    assert!(said.code == 3 && said.errors.contains("agent.toml:1:1"), "{}: {}", said.code, said.errors);
}

#[test]
fn doctor_looks_at_this_host() {
    let here = Here::new();
    let (code, report) = here.ask(&["doctor"]);
    let level = report["level"].as_str().unwrap();
    assert_eq!(code == 4, level == "fail", "{report}");
    assert!(report["checks"].as_array().unwrap().iter().any(|check| check["name"] == "cgroup2"));
    assert!(!report["not_enforced"].as_array().unwrap().is_empty());
    assert_eq!(here.say(&["doctor"]).code, code);
}
