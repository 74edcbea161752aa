//! Whatever the text is, reading it ends with a policy or with problems that have a place.

use dnswall_agent::compile::{FixedEnvironment, compile};
use dnswall_agent::policy::{POLICY_BYTES_MAX, parse};
use proptest::prelude::*;

/// What policies are made of, whole and in pieces.
const PIECES: &[&str] = &[
    "version = 1\n",
    "mode = \"audit\"\n",
    "mode = ",
    "[dns]\n",
    "[[allow]]\n",
    "[[deny]\n",
    "[allow]\n",
    "[dns.serve]\n",
    "[[dns.stub]]\n",
    "[[dns.recursor]]\n",
    "[[scope]]\n",
    "[raw]\n",
    "resolvers = [",
    "\"10.0.0.2\"",
    "10.0.0.2",
    "]\n",
    "to = [\"any\"]\n",
    "to = [\"10.0.0.1/24\", ",
    "ports = [\"tcp/443\", \"udp/5-1\"]\n",
    "from = [{ unit = \"a.service\" }]\n",
    "from = [{",
    "user = ",
    "}",
    "\"",
    "'''",
    "\"\"\"",
    "\\",
    "\n",
    "\r\n",
    "#",
    "ü",
    "\u{1f980}",
    "\u{0}",
    "\u{feff}",
    "=",
    ".",
    ",",
    "name = \"x\"\n",
    "address = \"::1\"\n",
    "exe = \"/*\"",
    "1979-05-27",
    "0x10",
    "inf",
    "-",
    "a.b.c = 1\n",
    "encrypted = true\n",
    "clients = [[]]\n",
    "[[dns]]\n",
    "dns = 1\n",
    "scope = {}\n",
    "allow = [1, {}, \"x\"]\n",
    "to.x = 1\n",
];

fn text() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof![9 => proptest::sample::select(PIECES.to_vec()).prop_map(str::to_owned), 1 => ".{0,8}"];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn read(text: &str) -> Result<(), TestCaseError> {
    match parse(text, "hostile.toml") {
        Ok(policy) => {
            // What is a policy either compiles or says why not.
            let _ = compile(&policy, &FixedEnvironment::default());
        }
        Err(problems) => {
            prop_assert!(problems.has_errors());
            let lines = text.split('\n').count();
            for problem in problems.list() {
                prop_assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{:?}", problem);
                prop_assert!(text.get(problem.span.clone()).is_some(), "{:?}", problem);
            }
            let shown = problems.render(false);
            let steers = shown.contains(['\u{0}', '\u{1b}']);
            prop_assert!(!steers, "control characters reach the terminal");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_in_any_order(text in text()) {
        read(&text)?;
    }

    #[test]
    fn a_policy_with_a_hole(at in 0usize..2000, length in 0usize..30, insert in "[\\[\\]{}\"'=,.\n a#\u{0}\u{1b}é]{0,4}") {
        const POLICY: &str = "version = 1\nmode = \"audit\"\n\n[dns]\nresolvers = [\"10.0.0.2\", \"127.0.0.53\"]\n\n\
            [[dns.recursor]]\nfrom = [{ unit = \"unbound.service\", exe = \"/usr/sbin/unbound\" }]\nto = [\"any\"]\n\n\
            [[allow]]\nname = \"orders database\"\nto = [\"10.0.3.0/24\"]\nports = [\"tcp/5432\"]\n\
            from = [{ unit = \"orders.service\" }]\n\n[[scope]]\nfrom = [{ user = 1000 }]\nmode = \"enforce\"\n";
        let at = at % POLICY.len();
        let mut text = POLICY.to_owned();
        text.replace_range(at..(at + length).min(POLICY.len()), &insert);
        read(&text)?;
    }
}

#[test]
fn a_policy_may_not_be_endless() {
    let problems = parse(&"#".repeat(POLICY_BYTES_MAX + 1), "endless.toml").expect_err("too long");
    assert_eq!(problems.len(), 1);
    assert!(problems.render(false).contains("4194305 bytes"), "{problems}");
    assert!(parse(&"[".repeat(100_000), "deep.toml").is_err());
    assert!(parse(&format!("a = {}", "[".repeat(100_000)), "deep.toml").is_err());
    assert!(parse(&format!("a = {}", "{a=".repeat(100_000)), "deep.toml").is_err());
    assert!(parse(&"a.".repeat(100_000), "deep.toml").is_err());
    assert!(parse(&format!("{} = 1", "a.".repeat(100_000)), "deep.toml").is_err());
}
