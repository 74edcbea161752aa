//! Where everything is: what the command line says, else the configuration, else its defaults.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::RunError;
use crate::config::{AlertsConfig, CONFIG_PATH, Config, SinkConfig};
use crate::kernel::find_cgroup2;

/// What the command line says of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The policy's file.
    pub policy: Option<PathBuf>,
    /// The wall's cgroup.
    pub cgroup: Option<PathBuf>,
    /// Where policies are kept.
    pub state: Option<PathBuf>,
    /// Where the wall is pinned.
    pub pins: Option<PathBuf>,
    /// The control socket.
    pub socket: Option<PathBuf>,
    /// The configuration's file.
    pub config: Option<PathBuf>,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The policy's file, if one was named.
    pub policy: Option<PathBuf>,
    /// The wall's cgroup.
    pub cgroup: PathBuf,
    /// Where policies are kept.
    pub state: PathBuf,
    /// Where the wall is pinned.
    pub pins: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// How alerts are made and shown.
    pub alerts: AlertsConfig,
    /// Where they go.
    pub sinks: Vec<SinkConfig>,
}

impl Options {
    /// Puts the three together. The configuration has to be there when it was named.
    ///
    /// # Errors
    /// When it cannot be read or has mistakes, or there is no cgroup to stand at.
    pub fn resolve(overrides: Overrides) -> Result<Self, RunError> {
        let Overrides { policy, cgroup, state, pins, socket, config } = overrides;
        let found = match &config {
            Some(path) => read(path)?,
            None => match read(Path::new(CONFIG_PATH)) {
                Err(RunError::Config { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    Config::default()
                }
                other => other?,
            },
        };
        let cgroup = match cgroup.or(found.cgroup) {
            Some(path) => path,
            None => find_cgroup2().map_err(RunError::Host)?.path,
        };
        Ok(Self {
            policy,
            cgroup,
            state: state.unwrap_or(found.state),
            pins: pins.unwrap_or(found.pins),
            socket: socket.unwrap_or(found.socket),
            alerts: found.alerts,
            sinks: found.sinks,
        })
    }
}

fn read(path: &Path) -> Result<Config, RunError> {
    let text =
        fs::read_to_string(path).map_err(|source| RunError::Config { path: path.to_owned(), source })?;
    Config::parse(&text, &path.display().to_string()).map_err(RunError::InvalidConfig)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("agent.toml");
        fs::write(&config, "state = \"/a/state\"\npins = \"/a/pins\"\ncgroup = \"/a/cgroup\"\n").unwrap();
        let overrides = Overrides {
            config: Some(config),
            pins: Some(PathBuf::from("/b/pins")),
            cgroup: Some(PathBuf::from("/b/cgroup")),
            ..Overrides::default()
        };
        let options = Options::resolve(overrides).unwrap();
        assert_eq!(options.state, Path::new("/a/state"));
        assert_eq!(options.pins, Path::new("/b/pins"));
        assert_eq!(options.cgroup, Path::new("/b/cgroup"));
        assert_eq!(options.socket, Config::default().socket);
    }

    #[test]
    fn a_configuration_that_was_named_has_to_be_there_and_right() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("agent.toml");
        let resolve = || Options::resolve(Overrides { config: Some(config.clone()), ..Overrides::default() });
        assert!(matches!(resolve(), Err(RunError::Config { .. })));
        fs::write(&config, "pin = \"/x\"\n").unwrap();
        assert!(matches!(resolve(), Err(RunError::InvalidConfig(_))));
    }
}
