//! The image that counts right now, read from the maps.

use crate::learned;
use crate::maps::{ACTIVE, CELLS, HEADERS, NODES_PORT, NODES4, NODES6, TERMS};
use dnswall_common::decide::{Image, cell, in_cell};
use dnswall_common::flow::Flow;
use dnswall_common::image::{Active, CELL_NAMED, Cell, ImageHeader, Term};
use dnswall_common::limits::{CELLS_MAX, NODES_PORT_MAX, NODES4_MAX, NODES6_MAX, TERMS_MAX};
use dnswall_common::named::NameSet;
use dnswall_common::quota::{LIMITS_MAX, QuestionLimits};
use dnswall_common::reason::{Action, Reason, Verdict, pack, unpack};
use dnswall_common::search::{Node4, Node6, NodePort};
use dnswall_common::socket::SocketState;
use dnswall_common::verifier::forget;
use dnswall_common::who::Who;

/// One generation's image: everything a verdict reads comes through here, so that no verdict mixes two.
pub struct KernelImage {
    pub generation: u32,
    pub slot: u32,
    header: &'static ImageHeader,
}

impl KernelImage {
    /// The image to judge by; `None` before the first policy is published.
    #[inline(always)]
    pub fn active() -> Option<Self> {
        let active = ACTIVE.get_ptr(0)?;
        // SAFETY: the only element of an array map, aligned to 8. One load, so that slot and generation belong
        // together: the agent writes them with one store.
        let word = unsafe { active.cast::<u64>().read_volatile() };
        // SAFETY: `Active` is 8 bytes of integers.
        let Active { generation, slot } = unsafe { core::mem::transmute::<u64, Active>(word) };
        if generation == 0 {
            return None;
        }
        Some(Self { generation, slot: slot & 1, header: HEADERS.get(slot & 1)? })
    }

    /// The image in a slot: the one that the same packet was judged by so far, if another one counts by now.
    #[inline(always)]
    pub fn in_slot(slot: u32) -> Option<Self> {
        let slot = slot & 1;
        let header = HEADERS.get(slot)?;
        Some(Self { generation: header.generation, slot, header })
    }

    /// What is said once an image.
    #[inline(always)]
    pub fn header(&self) -> &'static ImageHeader {
        self.header
    }

    /// How much a workload may ask; `None` when it asks for others.
    #[inline(always)]
    pub fn question_limits(&self, who: &Who) -> Option<&'static QuestionLimits> {
        if self.header.unlimited.intersects(who) {
            return None;
        }
        Some(&self.header.limits[self.header.limits_of(who) as usize & (LIMITS_MAX - 1)])
    }
}

impl Image for KernelImage {
    #[inline(always)]
    fn header(&self) -> &ImageHeader {
        self.header
    }

    #[inline(always)]
    fn node4(&self, index: u32) -> Option<&Node4> {
        NODES4.get(self.slot * NODES4_MAX as u32 + index)
    }

    #[inline(always)]
    fn node6(&self, index: u32) -> Option<&Node6> {
        NODES6.get(self.slot * NODES6_MAX as u32 + index)
    }

    #[inline(always)]
    fn node_port(&self, index: u32) -> Option<&NodePort> {
        NODES_PORT.get(self.slot * NODES_PORT_MAX as u32 + index)
    }

    #[inline(always)]
    fn cell(&self, index: u32) -> Option<&Cell> {
        CELLS.get(self.slot * CELLS_MAX as u32 + index)
    }

    #[inline(always)]
    fn term(&self, index: u32) -> Option<&Term> {
        TERMS.get(self.slot * TERMS_MAX as u32 + index)
    }
}

/// The policy's verdict. A function of its own in the kernel too: its frame is shared by all callers. What names led to counts for
/// whom `state` is of; for nobody when it is null.
#[inline(always)]
pub fn decide(image: &KernelImage, flow: &Flow, who: &Who, state: *const SocketState) -> Verdict {
    // SAFETY: the number is a verdict that `decide_packed` packed.
    unsafe { unpack(decide_packed(image, flow, who, state)) }
}

#[inline(never)]
fn decide_packed(image: &KernelImage, flow: &Flow, who: &Who, state: *const SocketState) -> u64 {
    let seed = image.header.seed;
    // Found in as many ways as there are through the trees.
    let cell = forget(find_cell(image, flow), seed);
    if cell > u32::MAX as u64 {
        return pack(Verdict::without_rule(Action::Deny, Reason::ImageUnreadable));
    }
    let cell = cell as u32;
    let known = &mut NameSet::none(seed);
    if image.cell(cell).is_some_and(|cell| cell.flags & CELL_NAMED != 0) {
        learned::recall(image, state, &flow.address.to_words(), known);
    }
    ask_cell(image, cell, who, known)
}

/// The cell that a flow leads to; more than 32 bits when it cannot be read. A function of its own, for its frame.
#[inline(never)]
fn find_cell(image: &KernelImage, flow: &Flow) -> u64 {
    let seed = image.header.seed;
    let flow = Flow {
        address: flow.address,
        protocol: forget(flow.protocol as u64, seed) as u8,
        port: forget(flow.port as u64, seed) as u16,
    };
    cell(image, &flow).map_or(u64::MAX, u64::from)
}

/// What a cell says to somebody, as the bytes of a [`Verdict`]. A function of its own, for its frame.
#[inline(never)]
pub fn ask_cell(image: &KernelImage, cell: u32, who: &Who, known: &NameSet) -> u64 {
    let unreadable = Verdict::without_rule(Action::Deny, Reason::ImageUnreadable);
    pack(in_cell(image, cell, who, known).unwrap_or(unreadable))
}
