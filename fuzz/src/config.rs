//! agent.toml: whatever the text is, it ends with a configuration or with problems that have a place.

use dnswall_agent::config::Config;

use crate::policy::check_problems;

/// Reads it.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, "agent.toml") {
        Ok(config) => {
            let again = Config::parse(text, "agent.toml").expect("it was read a moment ago");
            assert_eq!(config, again);
            let paths =
                [Some(&config.state), Some(&config.pins), Some(&config.socket), config.cgroup.as_ref()];
            assert!(paths.into_iter().flatten().all(|path| path.is_absolute()), "{config:?}");
        }
        Err(problems) => check_problems(text, &problems),
    }
}
