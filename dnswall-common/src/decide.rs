//! Takes one flow and who it belongs to, gives the verdict. The only place where a rule becomes an answer: hooks,
//! host tests and `dnswall policy explain` all call [`decide`].

use crate::flow::{Address, Flow};
use crate::image::{CELL_ALLOWS, Cell, ImageHeader, Term};
use crate::limits::TERMS_PER_CELL_MAX;
use crate::named::NameSet;
use crate::reason::{Action, Reason, Verdict};
use crate::search::{Node4, Node6, NodePort, find_port, find4, find6};
use crate::verifier::{forget, next};
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

/// The verdict of the policy for one flow, to an address where names of the lists in `known` led. Fails closed: what cannot be read is
/// denied with [`Reason::ImageUnreadable`].
#[inline(always)]
pub fn decide<I: Image>(image: &I, flow: &Flow, who: &Who, known: &NameSet) -> Verdict {
    match cell(image, flow).and_then(|cell| in_cell(image, cell, who, known)) {
        Some(verdict) => verdict,
        None => Verdict::without_rule(Action::Deny, Reason::ImageUnreadable),
    }
}

/// The cell that a flow leads to; `None` when it cannot be read.
#[inline(always)]
pub fn cell<I: Image>(image: &I, flow: &Flow) -> Option<u32> {
    let header = image.header();
    let class = match flow.address {
        Address::V4(address) => find4(header.nodes4, address, |index| image.node4(index))?,
        Address::V6(high, low) => find6(header.nodes6, high, low, |index| image.node6(index))?,
    };
    find_port(header.nodes_port, flow.port_key(class), |index| image.node_port(index))
}

/// What a cell says to somebody; `None` when it cannot be read.
#[inline(always)]
pub fn in_cell<I: Image>(image: &I, cell: u32, who: &Who, known: &NameSet) -> Option<Verdict> {
    let cell = image.cell(cell)?;
    let mut unknown_name = 0;
    let mut at = 0;
    // VERIFIER: at most TERMS_PER_CELL_MAX rounds; the compiler refuses policies that need more.
    while at < TERMS_PER_CELL_MAX as u32 {
        if at >= cell.count as u32 {
            break;
        }
        let term = image.term(cell.first + at)?;
        if term.who.intersects(who) {
            if known.holds(term.names) != 0 {
                let action = if term.action == Action::Allow as u8 { Action::Allow } else { Action::Deny };
                return Some(Verdict::by_rule(action, term.rule));
            }
            unknown_name |= (term.action == Action::Allow as u8) as u64;
        }
        // From both branches on alike.
        unknown_name = forget(unknown_name, known.words[1]);
        at = next(at as usize) as u32;
    }
    let reason = if unknown_name != 0 {
        Reason::NameUnknown
    } else if cell.flags & CELL_ALLOWS != 0 {
        Reason::NotForThisWorkload
    } else {
        Reason::NoRule
    };
    Some(Verdict::without_rule(Action::Deny, reason))
}
