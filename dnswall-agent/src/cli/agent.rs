//! `dnswall agent`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use serde_json::json;
use tracing_subscriber::EnvFilter;

use super::args::{AgentCommand, Form, RunArguments};
use super::exit::{Exit, Failure};
use super::output;
use crate::config::Terminal;
use crate::kernel::PublishError;
use crate::run::engine::EngineError;
use crate::run::lock::Lock;
use crate::run::{self, Options, Overrides, RunError};

pub fn agent(form: Form, socket: Option<PathBuf>, command: AgentCommand) -> Result<Exit, Failure> {
    match command {
        AgentCommand::Run(arguments) => run(form, socket, arguments),
        AgentCommand::Detach(arguments) => detach(form, &arguments.pins),
    }
}

fn run(form: Form, socket: Option<PathBuf>, arguments: RunArguments) -> Result<Exit, Failure> {
    log();
    let RunArguments { policy, cgroup, state, pins, config } = arguments;
    let overrides = Overrides { policy, cgroup, state, pins, socket, config };
    let mut options = Options::resolve(overrides)?;
    if form == Form::Json && options.alerts.terminal == Terminal::Text {
        options.alerts.terminal = Terminal::Json;
    }
    run::run(options)?;
    Ok(Exit::Done)
}

fn detach(form: Form, pins: &Path) -> Result<Exit, Failure> {
    let hooks = if pins.exists() {
        let _lock = Lock::take(pins).map_err(|error| {
            Failure::new(Exit::No, error.to_string())
                .hint("end the agent first: while it runs, it believes that the wall stands")
        })?;
        let detached = crate::kernel::detach(pins);
        detached.map_err(|error| Failure::new(Exit::HostCannot, format!("{error:#}")))?.hooks
    } else {
        0
    };
    output::answer(form, &json!({ "pins": pins, "hooks": hooks }), |_| match hooks {
        0 => format!("no wall stands at {}", pins.display()),
        hooks => {
            format!("the wall at {} is down ({hooks} hooks): nothing is enforced any more", pins.display())
        }
    });
    Ok(Exit::Done)
}

// To standard error; the journal adds times itself.
fn log() {
    let filter = EnvFilter::try_from_env("DNSWALL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let color =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(color);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().init();
    } else {
        builder.init();
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let shown = error.to_string();
        match error {
            RunError::Unsuitable(_) => {
                Self::new(Exit::HostCannot, shown).hint("`dnswall doctor` says more about this host")
            }
            RunError::Host(_) | RunError::Unproven(_) => Self::new(Exit::HostCannot, shown),
            RunError::Config { .. } => Self::new(Exit::Invalid, shown),
            RunError::InvalidConfig(problems) => Self { error: shown, ..Self::from(problems) },
            RunError::Engine(error) => Self::from(error),
            RunError::Lock(_) | RunError::Store(_) | RunError::Socket(_) | RunError::Other(_) => {
                Self::new(Exit::No, shown)
            }
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let shown = error.to_string();
        match error {
            EngineError::Invalid(problems) => problems.into(),
            EngineError::Unreadable { .. } | EngineError::Publish(PublishError::TooLarge(_)) => {
                Self::new(Exit::Invalid, shown)
            }
            EngineError::Wall(error) => {
                Self::new(Exit::HostCannot, format!("{:#}", anyhow::Error::from(error)))
                    .hint("`dnswall doctor` says more about this host")
            }
            EngineError::Publish(error) => {
                Self::new(Exit::HostCannot, format!("{:#}", anyhow::Error::from(error)))
            }
            EngineError::Store(_)
            | EngineError::NoPrevious
            | EngineError::OnTrial { .. }
            | EngineError::NothingToConfirm
            | EngineError::TooLate
            | EngineError::Stranger(_) => Self::new(Exit::No, shown),
        }
    }
}
