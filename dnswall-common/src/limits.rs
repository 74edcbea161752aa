//! A limit on everything, each with its unit.

/// `from` entries (distinct) of one policy; bit 0 of a [`crate::who::Who`] is "everyone", so one less is usable.
pub const SELECTORS_MAX: usize = 256;
/// Rules of one policy, the implicit ones (default, resolvers, recursors, stubs, serve) included.
pub const RULES_MAX: usize = 16_384;
/// Scopes of one policy.
pub const SCOPES_MAX: usize = 16;
/// Rules that may answer for one destination, protocol and port before one that binds everyone.
pub const TERMS_PER_CELL_MAX: usize = 64;
/// Nodes of the IPv4 search tree of one image (16 interval starts each).
pub const NODES4_MAX: usize = 16_384;
/// Nodes of the IPv6 search tree of one image (8 interval starts each).
pub const NODES6_MAX: usize = 16_384;
/// Nodes of the port search tree of one image (8 interval starts each).
pub const NODES_PORT_MAX: usize = 16_384;
/// Cells (distinct lists of terms) of one image.
pub const CELLS_MAX: usize = 65_536;
/// Terms of all cells of one image.
pub const TERMS_MAX: usize = 65_536;
/// Entries for users, executables, cgroup paths and names of one image, each.
pub const WHO_ENTRIES_MAX: usize = 4_096;
/// Levels of a search tree: 17^6 and 9^8 are far beyond the node limits above.
pub const LEVELS_MAX: usize = 8;
/// Cgroups whose selectors the kernel remembers; while a policy is published, those of two generations. The sockets of
/// others are evaluated one by one.
pub const CGROUPS_MAX: usize = 32_768;
/// Levels of the cgroup tree the kernel walks. A deeper one matches no rule at all, so nothing there may leave: whoever
/// nests cgroups to lose its unit gains nothing.
pub const CGROUP_DEPTH_MAX: usize = 32;
/// Bytes of a cgroup directory's name the kernel reads, the terminating zero included.
pub const CGROUP_NAME_BYTES: usize = 128;
/// Threads that may be looking at their cgroup's names at the same moment: each is in the middle of a system call, so
/// more than there are processors only where they are preempted.
pub const SCRATCHES_MAX: usize = 1_024;
/// Steps the kernel takes at most through the devices and addresses of a network namespace.
pub const ADDRESS_STEPS_MAX: usize = 512;
/// UDP peers whose requests are remembered so that answers may leave.
pub const REPLIES_MAX: usize = 65_536;
/// How long after a request an answer may leave, in nanoseconds.
pub const REPLY_WINDOW_NS: u64 = 180_000_000_000;
/// Flows whose refusals are limited.
pub const REFUSED_FLOWS_MAX: usize = 65_536;
/// At most one event per refused flow in this many nanoseconds; the others are counted as suppressed.
pub const EVENT_INTERVAL_NS: u64 = 1_000_000_000;
/// How long a flow waits, in nanoseconds, after an event that found no place in the ring.
pub const EVENT_RETRY_NS: u64 = 50_000_000;
/// Bytes of the ring that carries events.
pub const RING_BYTES: usize = 8 * 1024 * 1024;
/// Workloads whose events may take of the second half of that ring, once in [`EVENT_INTERVAL_NS`].
pub const CROWD_MAX: usize = 4_096;
/// Bytes of the ring that carries questions and answers.
pub const QUESTIONS_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of a DNS message that go with its event: any question, and of an answer what was once all there could be (RFC 1035).
pub const EVENT_PAYLOAD_BYTES: usize = 512;
/// Listed names of one image that are not refused all the same.
pub const EXCEPTIONS_MAX: usize = 65_536;
/// Patterns of names that the rules of one image lead to.
pub const PATTERNS_MAX: usize = 4_096;
/// Addresses that names led to, of all workloads together; the one that was not used for longest goes first.
pub const LEARNED_MAX: usize = 65_536;
/// Words of a set of all types of question, one bit each.
pub const TYPE_WORDS: usize = 65_536 / 64;
/// IPv6 extension headers walked before a packet counts as unreadable.
pub const EXTENSION_HEADERS_MAX: usize = 8;

// Tables that a loop walks by a masked index.
const _: () = assert!(SCOPES_MAX.is_power_of_two());
const _: () = assert!(CGROUP_DEPTH_MAX.is_power_of_two() && CGROUP_NAME_BYTES.is_power_of_two());
const _: () = assert!(TYPE_WORDS.is_power_of_two());
