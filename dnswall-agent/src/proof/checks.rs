//! Takes the facts of a wall, gives what is wrong with it. Pure.

use super::facts::Facts;
use super::finding::{Finding, Remedy, Tamper};
use crate::kernel::{HookNow, LinkNow, MapNow};

/// How a hook stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookState {
    /// Attached, and runs our program.
    Attached,
    /// Attached to nothing.
    Gone,
    /// Runs another program.
    Replaced,
    /// Attached, and not run for the wall's cgroup.
    NotEffective,
    /// This kernel has no such hook.
    NotAvailable,
}

impl HookState {
    /// As `status` writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Gone => "gone",
            Self::Replaced => "replaced",
            Self::NotEffective => "not-effective",
            Self::NotAvailable => "not-available",
        }
    }
}

/// How a hook stands.
pub fn hook_state(hook: &HookNow) -> HookState {
    let (Some(was), is) = (hook.was, hook.is) else { return HookState::NotAvailable };
    let Some(LinkNow { id: _, program, cgroup, attach_type }) = is else { return HookState::Gone };
    if cgroup != was.cgroup || attach_type != was.attach_type {
        return HookState::Gone;
    }
    if program != was.program {
        return HookState::Replaced;
    }
    match &hook.effective {
        Some(effective) if !effective.contains(&program) => HookState::NotEffective,
        _ => HookState::Attached,
    }
}

/// Programs of others at the same hook, in the kernel's order: those that run before this one of ours, and after it.
pub fn others(hook: &HookNow, all: &[HookNow]) -> (Vec<u32>, Vec<u32>) {
    let (Some(effective), Some(is)) = (&hook.effective, hook.is) else { return Default::default() };
    let is_ours = |program: &u32| all.iter().filter_map(|hook| hook.is).any(|is| is.program == *program);
    let own = effective.iter().position(|program| *program == is.program);
    let (before, after) = effective.split_at(own.unwrap_or(effective.len()));
    let others = |programs: &[u32]| programs.iter().filter(|program| !is_ours(program)).copied().collect();
    (others(before), others(after))
}

/// What is wrong; `called` is what /proc called this process's cgroup before.
pub fn judge(facts: &Facts, called: Option<&str>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.hooks.iter().filter_map(hook).collect();
    findings.extend(facts.maps.iter().filter_map(map));
    findings.extend(place(facts));
    findings.extend(facts.tags.iter().map(|group| Finding {
        tamper: Tamper::TagUsed,
        object: group.clone(),
        found: "on this kernel its processes' sockets lose their version 2 cgroup: no rule with `from` binds them"
            .to_owned(),
        remedy: Remedy::Nothing,
    }));
    findings.extend(moved(facts, called));
    findings
}

fn hook(now: &HookNow) -> Option<Finding> {
    let HookNow { program, attach, was, is, pinned, .. } = now;
    let was = (*was)?;
    let (tamper, found) = match hook_state(now) {
        HookState::NotAvailable => return None,
        HookState::Attached if *pinned == Some(was.id) => return None,
        HookState::Attached => {
            let there = pinned.map_or_else(|| "nothing".to_owned(), |id| format!("link {id}"));
            (Tamper::PinLost, format!("{there} is pinned there instead of link {}", was.id))
        }
        HookState::Gone => {
            (Tamper::LinkDetached, format!("link {} at {attach} is attached to nothing", was.id))
        }
        HookState::Replaced => {
            let other = is.map_or(0, |is| is.program);
            (Tamper::ProgramReplaced, format!("link {} at {attach} runs program {other}", was.id))
        }
        HookState::NotEffective => {
            (Tamper::NotEffective, format!("the kernel does not run it at {attach} for the wall's cgroup"))
        }
    };
    let remedy = if tamper == Tamper::NotEffective { Remedy::Nothing } else { Remedy::Hook(program) };
    Some(Finding { tamper, object: (*program).to_owned(), found, remedy })
}

fn map(now: &MapNow) -> Option<Finding> {
    let MapNow { name, id, pinned } = *now;
    let found = match pinned {
        Some(there) if there == id => return None,
        Some(other) => format!("map {other} is pinned there, the programs use map {id}"),
        None => format!("map {id} is not pinned any more"),
    };
    Some(Finding { tamper: Tamper::PinLost, object: name.to_owned(), found, remedy: Remedy::MapPin(name) })
}

fn place(facts: &Facts) -> Option<Finding> {
    let place = &facts.place;
    let object = place.path.display().to_string();
    let (tamper, found) = match place.is {
        Some(is) if is == place.was && place.whole => return None,
        Some(is) if is == place.was => (
            Tamper::HierarchyHidden,
            "no mount shows the whole cgroup hierarchy to the agent any more".to_owned(),
        ),
        Some(is) => (
            Tamper::CgroupReplaced,
            format!(
                "the path leads to {is}, the wall stands at cgroup {}: something is mounted over it",
                place.was
            ),
        ),
        None => (
            Tamper::CgroupReplaced,
            format!("the path leads nowhere, the wall stood at cgroup {}", place.was),
        ),
    };
    Some(Finding { tamper, object, found, remedy: Remedy::Nothing })
}

fn moved(facts: &Facts, called: Option<&str>) -> Option<Finding> {
    let (is, was) = (facts.called.as_deref()?, called?);
    (is != was).then(|| Finding {
        tamper: Tamper::AgentMoved,
        object: "agent".to_owned(),
        found: format!("it was moved from cgroup {was} to {is}"),
        remedy: Remedy::Accept,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::PlaceNow;

    const LINK: LinkNow = LinkNow { id: 7, program: 70, cgroup: 1, attach_type: 1 };

    fn hook() -> HookNow {
        HookNow {
            program: "dw_egress",
            attach: "cgroup_skb/egress",
            was: Some(LINK),
            is: Some(LINK),
            pinned: Some(7),
            effective: Some(vec![5, 70, 9]),
            verified_instructions: None,
        }
    }

    fn facts() -> Facts {
        Facts {
            hooks: vec![hook()],
            maps: vec![MapNow { name: "ACTIVE", id: 3, pinned: Some(3) }],
            place: PlaceNow { path: "/sys/fs/cgroup".into(), was: 1, is: Some(1), whole: true },
            called: Some("/system.slice/dnswall.service".to_owned()),
            tags: Vec::new(),
        }
    }

    fn found(change: impl Fn(&mut Facts)) -> Vec<(Tamper, Remedy)> {
        let mut facts = facts();
        change(&mut facts);
        let findings = judge(&facts, Some("/system.slice/dnswall.service"));
        findings.iter().map(|finding| (finding.tamper, finding.remedy)).collect()
    }

    #[test]
    fn each_thing_done_to_the_wall_is_told_apart() {
        let hook = Remedy::Hook("dw_egress");
        let at = |facts: &mut Facts, is: LinkNow| facts.hooks[0].is = Some(is);
        assert_eq!(found(|_| {}), []);
        assert_eq!(found(|f| at(f, LinkNow { cgroup: 0, ..LINK })), [(Tamper::LinkDetached, hook)]);
        assert_eq!(found(|f| at(f, LinkNow { cgroup: 2, ..LINK })), [(Tamper::LinkDetached, hook)]);
        assert_eq!(found(|f| f.hooks[0].is = None), [(Tamper::LinkDetached, hook)]);
        assert_eq!(found(|f| at(f, LinkNow { program: 71, ..LINK })), [(Tamper::ProgramReplaced, hook)]);
        assert_eq!(found(|f| f.hooks[0].pinned = None), [(Tamper::PinLost, hook)]);
        assert_eq!(found(|f| f.hooks[0].pinned = Some(8)), [(Tamper::PinLost, hook)]);
        assert_eq!(
            found(|f| f.hooks[0].effective = Some(vec![5])),
            [(Tamper::NotEffective, Remedy::Nothing)]
        );
        assert_eq!(found(|f| f.hooks[0].effective = None), [], "not every agent may ask");
        assert_eq!(found(|f| f.hooks[0].was = None), [], "a hook that this kernel does not have");
        assert_eq!(found(|f| f.maps[0].pinned = None), [(Tamper::PinLost, Remedy::MapPin("ACTIVE"))]);
        assert_eq!(found(|f| f.maps[0].pinned = Some(4)), [(Tamper::PinLost, Remedy::MapPin("ACTIVE"))]);
        assert_eq!(found(|f| f.place.is = Some(2)), [(Tamper::CgroupReplaced, Remedy::Nothing)]);
        assert_eq!(found(|f| f.place.is = None), [(Tamper::CgroupReplaced, Remedy::Nothing)]);
        assert_eq!(found(|f| f.place.whole = false), [(Tamper::HierarchyHidden, Remedy::Nothing)]);
        assert_eq!(found(|f| f.tags = vec!["/x".to_owned()]), [(Tamper::TagUsed, Remedy::Nothing)]);
        assert_eq!(found(|f| f.called = Some("/x".to_owned())), [(Tamper::AgentMoved, Remedy::Accept)]);
        assert_eq!(found(|f| f.called = None), []);
    }

    #[test]
    fn others_at_the_hook_are_no_finding() {
        assert_eq!(others(&hook(), &[hook()]), (vec![5], vec![9]));
        let ours = HookNow { is: Some(LinkNow { program: 9, ..LINK }), ..hook() };
        assert_eq!(others(&hook(), &[hook(), ours]), (vec![5], vec![]));
        assert_eq!(others(&HookNow { effective: Some(vec![70]), ..hook() }, &[hook()]), (vec![], vec![]));
        assert_eq!(others(&HookNow { effective: None, ..hook() }, &[hook()]), (vec![], vec![]));
    }
}
