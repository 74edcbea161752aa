//! Takes `[process]` of agent.toml, gives what is found out about processes.

use super::section::Section;

/// What is found out about processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessConfig {
    /// Whether the program behind an alert is read for its hash.
    pub hash: bool,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self { hash: true }
    }
}

/// Reads it.
pub(super) fn read_process(top: &mut Section<'_, '_>) -> ProcessConfig {
    let mut process = ProcessConfig::default();
    if let Some(mut section) = top.section("process", "[process]", &["hash"]) {
        process.hash = section.boolean("hash").unwrap_or(process.hash);
    }
    process
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn programs_are_hashed_unless_it_is_said() {
        let hash = |text: &str| Config::parse(text, "agent.toml").map(|config| config.process.hash);
        assert!(hash("").unwrap() && hash("[process]\nhash = true").unwrap());
        assert!(!hash("[process]\nhash = false").unwrap());
        assert!(hash("[process]\nhash = \"sha1\"").is_err() && hash("[process]\nhashes = true").is_err());
    }
}
