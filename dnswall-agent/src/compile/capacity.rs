//! What an image needs of the kernel's maps, and what they hold.

use std::fmt;

use dnswall_common::limits::{
    CELLS_MAX, NODES_PORT_MAX, NODES4_MAX, NODES6_MAX, PATTERNS_MAX, RULES_MAX, TERMS_MAX, WHO_ENTRIES_MAX,
};

use super::image::MapImage;

/// Something of which an image needs more than the kernel's map of it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// What there is too much of.
    pub what: &'static str,
    /// How much the image has.
    pub wanted: usize,
    /// How much fits.
    pub capacity: usize,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, wanted, capacity } = self;
        write!(f, "{wanted} {what} (the kernel holds {capacity})")
    }
}

impl MapImage {
    /// Everything of which there is too much, at once. The compiler refuses such a policy with its lines; this is what
    /// stands between any image and the maps.
    pub fn excesses(&self) -> Vec<Excess> {
        let needs = [
            ("IPv4 search nodes", self.nodes4.len(), NODES4_MAX),
            ("IPv6 search nodes", self.nodes6.len(), NODES6_MAX),
            ("port search nodes", self.nodes_port.len(), NODES_PORT_MAX),
            ("cells", self.cells.len(), CELLS_MAX),
            ("terms", self.terms.len(), TERMS_MAX),
            ("rules", self.rules.len(), RULES_MAX),
            ("users", self.users.len(), WHO_ENTRIES_MAX),
            ("executables", self.exes.len(), WHO_ENTRIES_MAX),
            ("cgroup paths", self.paths.len(), WHO_ENTRIES_MAX),
            ("unit and container names", self.names.len(), WHO_ENTRIES_MAX),
            ("names that rules lead to", self.named.len(), PATTERNS_MAX),
        ];
        let all = needs.into_iter().map(|(what, wanted, capacity)| Excess { what, wanted, capacity });
        all.filter(|need| need.wanted > need.capacity).collect()
    }
}
