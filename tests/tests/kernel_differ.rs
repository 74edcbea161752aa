//! Random packets: the kernel's programs and the host's build of the same code say the same.

use anyhow::Result;
use dnswall_tests::differ::Differ;

/// Packets tried; `cargo xtask fuzz kernel` goes on for as long as one likes.
const PACKETS: usize = 20_000;

#[test]
fn kernel_and_host_read_packets_alike() -> Result<()> {
    let mut differ = Differ::new(1)?;
    differ.replay()?;
    let passed = differ.rounds(PACKETS)?;
    assert!(
        (PACKETS / 50..PACKETS * 49 / 50).contains(&passed),
        "{passed} of {PACKETS} passed: too few kinds"
    );
    Ok(())
}
