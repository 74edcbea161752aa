//! The commands: arguments in, text or JSON out, an exit code.
//!
//! [`args`] is what can be typed, the file of each command what it means, `output` how answers are printed and
//! [`exit`] how a command ends.

mod agent;
mod alert;
pub mod args;
mod blocklist;
mod columns;
mod connections;
mod demo;
mod doctor;
mod events;
pub mod exit;
mod explain;
mod output;
mod policy;
mod shown;
mod status;
#[cfg(test)]
mod tests;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::config::Config;
use crate::control::client::Client;
use args::{AlertCommand, Arguments, BlocklistCommand, Command, DemoPartArguments, PolicyCommand};
use exit::{Exit, Failure};

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed terminal is no reason to end in another way.
            let _ = error.print();
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            return exit.into();
        }
    };
    let form = arguments.output;
    let exit = obey(arguments).unwrap_or_else(|failure| output::failure(form, &failure));
    exit.into()
}

fn obey(arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { output: form, socket, command } = arguments;
    let client = || Client::new(&agents_socket(socket.clone()));
    match command {
        Command::Agent(command) => agent::agent(form, socket.clone(), command),
        Command::Policy(PolicyCommand::Check(arguments)) => policy::check(form, &arguments),
        Command::Policy(PolicyCommand::Diff(arguments)) => wait(policy::diff(form, &client(), &arguments)),
        Command::Policy(PolicyCommand::Apply(arguments)) => wait(policy::apply(form, &client(), &arguments)),
        Command::Policy(PolicyCommand::Confirm) => wait(policy::confirm(form, &client())),
        Command::Policy(PolicyCommand::Show) => wait(policy::show(form, &client())),
        Command::Policy(PolicyCommand::Rollback) => wait(policy::rollback(form, &client())),
        Command::Policy(PolicyCommand::Explain(arguments)) => {
            wait(explain::explain(form, &client(), &arguments))
        }
        Command::Blocklist(BlocklistCommand::Status) => wait(blocklist::status(form, &client())),
        Command::Blocklist(BlocklistCommand::Check(arguments)) => {
            wait(blocklist::check(form, &client(), &arguments))
        }
        Command::Blocklist(BlocklistCommand::Update(arguments)) => {
            wait(blocklist::update(form, &client(), &arguments))
        }
        Command::Status => wait(status::status(form, &client())),
        Command::Top(arguments) => wait(top::top(form, &client(), &arguments)),
        Command::Events(arguments) => wait(events::events(form, &client(), &arguments)),
        Command::Alert(AlertCommand::Test(arguments)) => wait(alert::test(form, &client(), &arguments)),
        Command::Doctor(arguments) => doctor::doctor(form, &arguments),
        Command::Demo => demo::demo(form),
        Command::DemoPart(DemoPartArguments { order }) => demo::play_part(&order),
    }
}

// What was typed, else the environment, else the usual place.
fn agents_socket(typed: Option<PathBuf>) -> PathBuf {
    typed
        .or_else(|| std::env::var_os("DNSWALL_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| Config::default().socket)
}

fn wait(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(|error| Failure::new(Exit::HostCannot, format!("start the runtime: {error}")))?
        .block_on(work)
}
