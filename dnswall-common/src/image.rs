//! The compiled policy as the kernel holds it.
//!
//! A destination address leads through a search tree to a class (the set of rules whose `to` holds it); class,
//! protocol and port lead through a second tree to a cell; a cell is a list of terms in the order of precedence
//! (deny before allow, then the order of the file). The engine knows nothing of DNS: resolvers, recursors and who may
//! ask are rules like any other once compiled.
//!
//! Each map holds two images, one in each half ("slot"); [`Active`] names the slot that counts.

use crate::limits::SCOPES_MAX;
use crate::quota::{LIMITS_MAX, LIMITS_STRICTEST, QuestionLimits};
use crate::verifier::next;
use crate::who::Who;

/// The rule number of "no rule decided".
pub const RULE_DEFAULT: u32 = 0;

/// [`ImageHeader::mode`] and [`Scope::mode`]: report and block.
pub const MODE_ENFORCE: u8 = 1;
/// [`ImageHeader::mode`] and [`Scope::mode`]: only report.
pub const MODE_AUDIT: u8 = 2;

/// [`ImageHeader::existing`]: connections that began under an older policy live on.
pub const EXISTING_KEEP: u8 = 1;
/// [`ImageHeader::existing`]: connections that began under an older policy are judged again.
pub const EXISTING_CUT: u8 = 2;

/// Which image counts. The only element of map `ACTIVE`; written last, as one 8-byte store.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Active {
    /// Generation of the policy in `slot`; 0 until one is published.
    pub generation: u32,
    /// 0 or 1.
    pub slot: u32,
}

/// What made the pinned maps. The only element of map `META`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// [`crate::ABI_VERSION`].
    pub abi: u32,
    /// Zero.
    pub padding: u32,
    /// SHA-256 of the object the attached programs come from.
    pub object: [u8; 32],
}

/// [`Cell::flags`]: a term allows (then a workload that none matches is "not for this workload").
pub const CELL_ALLOWS: u16 = 1;
/// [`Cell::flags`]: a term holds only for addresses that a name led to.
pub const CELL_NAMED: u16 = 2;

/// What a class, protocol and port lead to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Index of the first term.
    pub first: u32,
    /// How many terms.
    pub count: u16,
    /// [`CELL_ALLOWS`], [`CELL_NAMED`].
    pub flags: u16,
}

/// One rule's answer for whom it binds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// The rule binds a socket that has any of these selectors.
    pub who: Who,
    /// Rule number, for the event and the counters.
    pub rule: u32,
    /// An [`crate::reason::Action`] as number.
    pub action: u8,
    /// The list of names of which one has to have led to the address; 0 when none has to ([`crate::named`]).
    pub names: u8,
    /// Zero.
    pub padding: [u8; 2],
}

/// A workload treated apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The scope holds a socket that has any of these selectors.
    pub who: Who,
    /// [`MODE_ENFORCE`] or [`MODE_AUDIT`].
    pub mode: u8,
    /// [`EXISTING_KEEP`] or [`EXISTING_CUT`].
    pub existing: u8,
    /// Which of [`ImageHeader::limits`].
    pub limits: u8,
    /// Zero.
    pub padding: [u8; 5],
}

/// For each kind of `from` key: the selectors that do not use it, which every socket satisfies in that respect.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unconstrained {
    /// Selectors without `unit`.
    pub unit: Who,
    /// Selectors without `cgroup`.
    pub cgroup: Who,
    /// Selectors without `container`.
    pub container: Who,
    /// Selectors without `user`.
    pub user: Who,
    /// Selectors without `exe`.
    pub exe: Who,
}

/// What is said once an image.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Keys the hash of cgroup paths.
    pub seed: u64,
    /// [`crate::socket::flow_key`] of this generation.
    pub flow_key: u64,
    /// The wall's cgroup: units are counted from here down.
    pub root_cgroup: u64,
    /// Same as [`Active::generation`] while this image counts.
    pub generation: u32,
    /// Nodes of the IPv4 tree.
    pub nodes4: u32,
    /// Nodes of the IPv6 tree.
    pub nodes6: u32,
    /// Nodes of the port tree.
    pub nodes_port: u32,
    /// Buckets of the table of listed names; 0 when no list has any.
    pub listed_buckets: u32,
    /// Names that are not refused though a list has them or one above them.
    pub exceptions: u32,
    /// Number of the rule that stands for all lists.
    pub listed_rule: u32,
    /// Number of the rule that refuses types of question; 0 when none are.
    pub types_rule: u32,
    /// Patterns of names that rules lead to; 0 when none do.
    pub named: u32,
    /// The cell of what rules say of questions for their names; 0 when they say nothing.
    pub question_cell: u32,
    /// Number of the rule that says whom anything may ask: only their answers teach; 0 without resolvers.
    pub resolvers_rule: u32,
    /// Inode number of the agent's network namespace: only there a stub's answers teach.
    pub netns_inode: u32,
    /// One question in so many is told of, where [`crate::event::TELLS_ALL`] are; 1 is each.
    pub told_of: u32,
    /// What is done with a question that nothing refuses: [`crate::quota::LIMITS_QUESTIONS`] and the like; 0 when nothing more is.
    pub limited: u32,
    /// [`MODE_ENFORCE`] or [`MODE_AUDIT`], where no scope says otherwise.
    pub mode: u8,
    /// [`EXISTING_KEEP`] or [`EXISTING_CUT`], where no scope says otherwise.
    pub existing: u8,
    /// How many of `scopes` count; the first that holds a socket decides.
    pub scope_count: u8,
    /// 1 when answers lead somewhere: names are not only refused.
    pub learns: u8,
    /// Which questions are told of: [`crate::event::TELLS_NONE`] and the like.
    pub tells: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// Who may open raw sockets.
    pub raw: Who,
    /// Who may open what the wall does not see into: see [`crate::unjudged`].
    pub unjudged: Who,
    /// Whose questions are not limited: they ask for others.
    pub unlimited: Who,
    /// How much may be asked: sets of limits, of which that of number 0 is everyone's.
    pub limits: [QuestionLimits; LIMITS_MAX],
    /// See [`Unconstrained`].
    pub unconstrained: Unconstrained,
    /// Workloads treated apart.
    pub scopes: [Scope; SCOPES_MAX],
    /// SHA-256 of the policy's text, so that a new agent knows what runs.
    pub digest: [u8; 32],
}

const _: () = assert!(size_of::<Active>() == 8 && size_of::<Meta>() == 40);
const _: () = assert!(size_of::<Cell>() == 8);
const _: () = assert!(size_of::<Term>() == 40);
const _: () = assert!(size_of::<Scope>() == 40);
const _: () = assert!(
    size_of::<ImageHeader>()
        == 24
            + 16
            + 16
            + 16
            + 8
            + 8
            + 64
            + 32
            + size_of::<QuestionLimits>() * LIMITS_MAX
            + 160
            + 40 * SCOPES_MAX
            + 32
);

impl Scope {
    /// No scope: holds nobody.
    pub const EMPTY: Self =
        Self { who: Who::NONE, mode: MODE_ENFORCE, existing: EXISTING_KEEP, limits: 0, padding: [0; 5] };
}

impl ImageHeader {
    /// Mode and treatment of existing connections for this workload.
    #[inline(always)]
    pub fn treatment(&self, who: &Who) -> (u8, u8) {
        // Known to be nobody's: the strictest there is, or hiding would lead out of an enforcing scope.
        let unknown = !who.intersects(&Who::ALL);
        let mut at = 0;
        // VERIFIER: at most SCOPES_MAX rounds with a known index each.
        while at < SCOPES_MAX {
            if at >= self.scope_count as usize {
                break;
            }
            let scope = &self.scopes[at & (SCOPES_MAX - 1)];
            if scope.who.intersects(who) || (unknown && scope.mode == MODE_ENFORCE) {
                return (scope.mode, scope.existing);
            }
            at = next(at);
        }
        (self.mode, self.existing)
    }

    /// Which of [`Self::limits`] are this workload's: those of the scope that [`Self::treatment`] takes.
    #[inline(always)]
    pub fn limits_of(&self, who: &Who) -> u8 {
        // Known to be nobody's: the strictest there are, or hiding would lead to a scope that has none.
        if !who.intersects(&Who::ALL) {
            return LIMITS_STRICTEST;
        }
        let mut at = 0;
        // VERIFIER: at most SCOPES_MAX rounds with a known index each.
        while at < SCOPES_MAX {
            if at >= self.scope_count as usize {
                break;
            }
            let scope = &self.scopes[at & (SCOPES_MAX - 1)];
            if scope.who.intersects(who) {
                return scope.limits;
            }
            at = next(at);
        }
        0
    }
}
