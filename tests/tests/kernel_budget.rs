//! The verifier's budget holds on this kernel.

use std::process::Command;

#[test]
fn every_program_loads_within_its_budget() {
    let output = Command::new(env!("CARGO_BIN_EXE_verify")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().count(), 8, "a line for each program and one above:\n{text}");
}
