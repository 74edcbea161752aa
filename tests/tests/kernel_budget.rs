//! The verifier's budget holds on this kernel, and the stack's on older ones.

use std::process::Command;

use dnswall_agent::kernel::object::object;
use dnswall_tests::lab::stack::{STACK_BYTES_MAX, deepest};

#[test]
fn every_program_loads_within_its_budget() {
    let output = Command::new(env!("CARGO_BIN_EXE_verify")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    // Two of the eleven are not for every kernel.
    assert!((12..=14).contains(&text.lines().count()), "a line for each program and one above:\n{text}");
}

#[test]
fn no_program_takes_more_stack_than_older_kernels_give() {
    let programs = deepest(object()).unwrap();
    assert_eq!(programs.len(), 13, "{programs:?}");
    let lines: Vec<String> = programs.values().map(|(bytes, chain)| format!("{bytes}: {chain}")).collect();
    println!("{}", lines.join("\n"));
    // Every program calls something but those for bind(), or the chains were not followed.
    let calls = |name: &str, chain: &str| chain.contains('>') || name.starts_with("dw_bind");
    assert!(programs.iter().all(|(name, (_, chain))| calls(name, chain)), "{lines:#?}");
    assert!(programs.values().all(|(bytes, _)| *bytes <= STACK_BYTES_MAX), "{lines:#?}");
}
