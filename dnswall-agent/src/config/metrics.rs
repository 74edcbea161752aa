//! Takes `[metrics]` of agent.toml, gives where a scraper finds them.

use std::net::SocketAddr;

use super::section::Section;

/// The port of metrics, where an address has none.
pub const METRICS_PORT: u16 = 12_053;
/// The least port of metrics: the agent gives up the capability that those below it take.
pub const METRICS_PORT_MIN: u16 = 1_024;

/// Where a scraper finds metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// The address that is listened at; `None` is nowhere. Nobody is asked who they are there, so that it is nobody's
    /// default.
    pub address: Option<SocketAddr>,
}

/// Reads it.
pub(super) fn read_metrics(top: &mut Section<'_, '_>) -> MetricsConfig {
    let Some(mut section) = top.section("metrics", "[metrics]", &["address"]) else {
        return MetricsConfig::default();
    };
    section.require("address", "write address = \"127.0.0.1\", or take the table out");
    MetricsConfig { address: section.listener("address", METRICS_PORT, METRICS_PORT_MIN) }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn metrics_are_nowhere_unless_an_address_says_where() {
        let address = |text: &str| {
            Config::parse(&format!("[metrics]\naddress = {text}"), "agent.toml")
                .map(|config| config.metrics.address.map(|address| address.to_string()))
                .map_err(|problems| problems.list()[0].message.clone())
        };
        assert_eq!(Config::default().metrics.address, None);
        let is = |address: &str| Ok(Some(address.to_owned()));
        assert_eq!(address("\"127.0.0.1\""), is("127.0.0.1:12053"));
        assert_eq!(address("\"[::]:9999\""), is("[::]:9999"));
        assert_eq!(address("\"::1\""), is("[::1]:12053"));
        for wrong in
            ["\"localhost:9999\"", "\"\"", "9999", "\"127.0.0.1:80\"", "\"127.0.0.1:0\"", "\":9999\""]
        {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        assert!(Config::parse("[metrics]\n", "agent.toml").is_err());
        assert!(Config::parse("[metrics]\naddress = \"::1\"\npath = \"/m\"\n", "agent.toml").is_err());
    }
}
