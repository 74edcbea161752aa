//! The compiled policy: what goes into the kernel's maps, and what is said about it.

use super::environment::{FileId, RootCgroup};
use super::rules::RuleInfo;
use super::who::NameEntry;
use crate::blocklist::Lists;
use crate::policy::{Existing, Mode};
use dnswall_common::decide::Image;
use dnswall_common::image::{Cell, ImageHeader, Term};
use dnswall_common::named::Pattern;
use dnswall_common::search::{Node4, Node6, NodePort};
use dnswall_common::who::Who;
use std::sync::Arc;

/// A compiled policy.
#[derive(Clone, Debug)]
pub struct MapImage {
    /// What is said once; the generation is 0 until the image is published.
    pub header: ImageHeader,
    /// The IPv4 tree.
    pub nodes4: Vec<Node4>,
    /// The IPv6 tree.
    pub nodes6: Vec<Node6>,
    /// The port tree.
    pub nodes_port: Vec<NodePort>,
    /// What the port tree leads to. The first has no terms.
    pub cells: Vec<Cell>,
    /// The terms of all cells.
    pub terms: Vec<Term>,
    /// Users, by number.
    pub users: Vec<(u32, Who)>,
    /// Executables, by file.
    pub exes: Vec<(FileId, Who)>,
    /// Cgroups, by the hash of their path.
    pub paths: Vec<(u64, Who)>,
    /// Units and containers.
    pub names: Vec<NameEntry>,
    /// Names that rules lead to: their patterns, by number.
    pub named: Vec<(u64, Pattern)>,
    /// Names that are refused or told of.
    pub lists: Arc<Lists>,
    /// A bit for each type of question that is refused.
    pub types: Vec<u64>,
    /// What each rule number means.
    pub rules: Vec<RuleInfo>,
    /// What each selector's bit means.
    pub selectors: Vec<String>,
    /// What the scopes of the header are called.
    pub scopes: Vec<ScopeInfo>,
    /// The policy's text.
    pub text: String,
    /// SHA-256 of the text.
    pub digest: [u8; 32],
    /// The policy's name.
    pub policy_name: String,
    /// Where no scope says otherwise.
    pub mode: Mode,
    /// Where no scope says otherwise.
    pub existing: Existing,
    /// Where the wall is attached.
    pub root: RootCgroup,
}

/// What is said about a scope.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ScopeInfo {
    /// Like `scope.batch, first week` or `scope.0`.
    pub name: String,
    /// Line of the policy, from 1.
    pub line: usize,
    /// Whether the policy blocks there.
    pub mode: Mode,
    /// What happens to live connections there.
    pub existing: Existing,
}

impl MapImage {
    /// What is said about a rule number; numbers the image does not have are the default's.
    pub fn rule(&self, number: u32) -> &RuleInfo {
        // The default is always there.
        self.rules.get(number as usize).unwrap_or(&self.rules[0])
    }

    /// The digest in hexadecimal, as alerts and `status` show it.
    pub fn digest_text(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Image for MapImage {
    fn header(&self) -> &ImageHeader {
        &self.header
    }

    fn node4(&self, index: u32) -> Option<&Node4> {
        self.nodes4.get(index as usize)
    }

    fn node6(&self, index: u32) -> Option<&Node6> {
        self.nodes6.get(index as usize)
    }

    fn node_port(&self, index: u32) -> Option<&NodePort> {
        self.nodes_port.get(index as usize)
    }

    fn cell(&self, index: u32) -> Option<&Cell> {
        self.cells.get(index as usize)
    }

    fn term(&self, index: u32) -> Option<&Term> {
        self.terms.get(index as usize)
    }
}
