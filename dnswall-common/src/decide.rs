//! Takes one flow and who it belongs to, gives the verdict. The only place where a rule becomes an answer: hooks,
//! host tests and `dnswall policy explain` all call [`decide`].

use crate::flow::{Address, Flow};
use crate::image::{Cell, ImageHeader, Term};
use crate::limits::TERMS_PER_CELL_MAX;
use crate::reason::{Action, Reason, Verdict};
use crate::search::{Node4, Node6, NodePort, find_port, find4, find6};
use crate::verifier::next;
use crate::who::Who;

/// One image of a policy, wherever it is kept: kernel maps, or vectors on the host.
pub trait Image {
    /// What is said once.
    fn header(&self) -> &ImageHeader;
    /// A node of the IPv4 tree.
    fn node4(&self, index: u32) -> Option<&Node4>;
    /// A node of the IPv6 tree.
    fn node6(&self, index: u32) -> Option<&Node6>;
    /// A node of the port tree.
    fn node_port(&self, index: u32) -> Option<&NodePort>;
    /// A cell.
    fn cell(&self, index: u32) -> Option<&Cell>;
    /// A term.
    fn term(&self, index: u32) -> Option<&Term>;
}

/// The verdict of the policy for one flow. Fails closed: what cannot be read is denied with
/// [`Reason::ImageUnreadable`].
#[inline(always)]
pub fn decide<I: Image>(image: &I, flow: &Flow, who: &Who) -> Verdict {
    match lookup(image, flow, who) {
        Some(verdict) => verdict,
        None => Verdict::without_rule(Action::Deny, Reason::ImageUnreadable),
    }
}

#[inline(always)]
fn lookup<I: Image>(image: &I, flow: &Flow, who: &Who) -> Option<Verdict> {
    let header = image.header();
    let class = match flow.address {
        Address::V4(address) => find4(header.nodes4, address, |index| image.node4(index))?,
        Address::V6(high, low) => find6(header.nodes6, high, low, |index| image.node6(index))?,
    };
    let cell = find_port(header.nodes_port, flow.port_key(class), |index| image.node_port(index))?;
    let cell = image.cell(cell)?;
    let mut at = 0;
    // VERIFIER: at most TERMS_PER_CELL_MAX rounds; the compiler refuses policies that need more.
    while at < TERMS_PER_CELL_MAX as u32 {
        if at >= cell.count as u32 {
            break;
        }
        let term = image.term(cell.first + at)?;
        if term.who.intersects(who) {
            let action = if term.action == Action::Allow as u8 { Action::Allow } else { Action::Deny };
            return Some(Verdict::by_rule(action, term.rule));
        }
        at = next(at as usize) as u32;
    }
    let reason = if cell.allows != 0 { Reason::NotForThisWorkload } else { Reason::NoRule };
    Some(Verdict::without_rule(Action::Deny, reason))
}
