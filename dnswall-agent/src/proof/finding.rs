//! What was found wrong with the wall.

/// What was done to the wall, or what it does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tamper {
    /// A hook's link is attached to nothing.
    LinkDetached,
    /// A hook's link runs another program.
    ProgramReplaced,
    /// A hook is attached, and the kernel does not run it for the wall's cgroup.
    NotEffective,
    /// A pin is gone, or something else is pinned there.
    PinLost,
    /// A map holds something else than what was published.
    MapEdited,
    /// The wall's path leads to another cgroup, or nowhere.
    CgroupReplaced,
    /// No mount shows the whole hierarchy any more.
    HierarchyHidden,
    /// A version 1 tag takes sockets out of their cgroup (before 5.15).
    TagUsed,
    /// The agent was moved to another cgroup.
    AgentMoved,
    /// The canary was let through where the policy forbids it.
    NotRefused,
    /// The canary was refused, and nobody was told.
    NotReported,
}

impl Tamper {
    /// The stable name, the `reason` of the alert.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LinkDetached => "link-detached",
            Self::ProgramReplaced => "program-replaced",
            Self::NotEffective => "not-effective",
            Self::PinLost => "pin-lost",
            Self::MapEdited => "map-edited",
            Self::CgroupReplaced => "cgroup-replaced",
            Self::HierarchyHidden => "hierarchy-hidden",
            Self::TagUsed => "cgroup-v1-tag",
            Self::AgentMoved => "agent-moved",
            Self::NotRefused => "not-refused",
            Self::NotReported => "not-reported",
        }
    }
}

/// What can be done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Put this hook back as it was.
    Hook(&'static str),
    /// Pin this map again.
    MapPin(&'static str),
    /// Publish the image again.
    Publish,
    /// Take the new place as it is.
    Accept,
    /// Nothing, from here.
    Nothing,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub tamper: Tamper,
    /// With which part of the wall.
    pub object: String,
    /// What was found, in words.
    pub found: String,
    /// What can be done.
    pub remedy: Remedy,
}

/// A finding and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Treated {
    /// What was wrong.
    pub finding: Finding,
    /// What was done, in words.
    pub done: String,
    /// Whether that mended it.
    pub mended: bool,
}
