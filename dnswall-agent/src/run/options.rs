//! Where everything is: what the command line says, else the configuration, else its defaults.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::RunError;
use crate::alert::mute::Mute;
use crate::config::{
    AlertsConfig, CONFIG_PATH, Config, KubernetesConfig, ListsConfig, MetricsConfig, ProcessConfig,
    ProofConfig, SinkConfig,
};
use crate::host::HostRoot;
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
    /// Where users and program files are looked up.
    pub host: HostRoot,
    /// Whether the agent gives up what it does not need.
    pub sandbox: bool,
    /// How alerts are made and shown.
    pub alerts: AlertsConfig,
    /// Bytes of the file that keeps alerts until every sink has them.
    pub spool_bytes_max: u64,
    /// Which nobody wants.
    pub mutes: Vec<Mute>,
    /// Where they go.
    pub sinks: Vec<SinkConfig>,
    /// How the wall is proven to stand.
    pub proof: ProofConfig,
    /// Between two tests of whether alerts arrive.
    pub heartbeat: Option<Duration>,
    /// How lists are fetched.
    pub lists: ListsConfig,
    /// Where a scraper finds metrics.
    pub metrics: MetricsConfig,
    /// What is found out about processes.
    pub process: ProcessConfig,
    /// Who is asked for the labels of pods.
    pub kubernetes: Option<KubernetesConfig>,
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
            None => usual(&[io::ErrorKind::NotFound])?,
        };
        let host = found_host(&found)?;
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
            host,
            sandbox: found.sandbox,
            alerts: found.alerts,
            spool_bytes_max: found.spool_bytes_max,
            mutes: found.mutes,
            sinks: found.sinks,
            proof: found.proof,
            heartbeat: found.heartbeat,
            lists: found.lists,
            metrics: found.metrics,
            process: found.process,
            kubernetes: found.kubernetes,
        })
    }
}

/// Where a command without an agent looks up users and program files: where an agent would that is started as usual.
///
/// # Errors
/// When the usual configuration has mistakes, or the root it names cannot be entered.
pub fn host_root() -> Result<HostRoot, RunError> {
    // Whoever may not read it is not stopped from checking a policy.
    found_host(&usual(&[io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied])?)
}

fn found_host(config: &Config) -> Result<HostRoot, RunError> {
    HostRoot::find(config.host_root.as_deref()).map_err(|error| {
        let path = config.host_root.as_deref().unwrap_or(Path::new("/")).display();
        RunError::Host(anyhow::anyhow!("enter host-root {path}: {error}"))
    })
}

/// The configuration in its usual place, or the default when it cannot be read for one of these reasons.
fn usual(excuses: &[io::ErrorKind]) -> Result<Config, RunError> {
    match read(Path::new(CONFIG_PATH)) {
        Err(RunError::Config { source, .. }) if excuses.contains(&source.kind()) => Ok(Config::default()),
        other => other,
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
        fs::write(
            &config,
            "state = \"/a/state\"\npins = \"/a/pins\"\ncgroup = \"/a/cgroup\"\nhost-root = \"/usr\"\n",
        )
        .unwrap();
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
        assert_eq!(options.host.path(), Path::new("/usr"));
    }

    #[test]
    fn a_configuration_that_was_named_has_to_be_there_and_right() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("agent.toml");
        let resolve = || Options::resolve(Overrides { config: Some(config.clone()), ..Overrides::default() });
        assert!(matches!(resolve(), Err(RunError::Config { .. })));
        fs::write(&config, "pin = \"/x\"\n").unwrap();
        assert!(matches!(resolve(), Err(RunError::InvalidConfig(_))));
        fs::write(&config, "host-root = \"/no/such/root\"\n").unwrap();
        let error = resolve().unwrap_err().to_string();
        assert!(error.starts_with("enter host-root /no/such/root: "), "{error}");
    }
}
