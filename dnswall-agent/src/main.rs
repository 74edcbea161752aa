//! The `dnswall` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    dnswall_agent::cli::main()
}
