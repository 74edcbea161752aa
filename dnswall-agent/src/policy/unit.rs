//! Takes the `unit` and `cgroup` of a `from` entry, gives what they name: a place in the tree of cgroups.

use super::problem::{Problem, quoted};
use super::table::nearest;
use dnswall_common::identity::{EXTENSION_BYTES_MAX, PATTERN_BYTES_MAX};
use dnswall_common::limits::CGROUP_DEPTH_MAX;
use std::fmt;
use toml::Spanned;

/// How deep a cgroup may lie, in directories: the kernel's walk also needs one level for the root.
pub const CGROUP_LEVELS_MAX: usize = CGROUP_DEPTH_MAX - 1;

/// What `unit` names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// The unit of this name.
    Named(String),
    /// Units that begin with `prefix`, and are of this type if one is given (with its dot: `.service`).
    Pattern {
        /// What comes before the star.
        prefix: String,
        /// What comes after it.
        extension: Option<String>,
    },
    /// A slice and everything below it.
    Slice {
        /// Its name.
        name: String,
        /// Its cgroup, from the wall's root: `/a.slice/a-b.slice`.
        path: CgroupPath,
    },
    /// Any of these, none of them a slice: what is known without being written takes one bit of the kernel's.
    AnyOf(Vec<Self>),
}

/// A cgroup by its path, as `/proc/PID/cgroup` shows it: absolute, without empty components. Never the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupPath(String);

impl CgroupPath {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directories' names, from the top.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').skip(1)
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// This path below another root; `/` is no change.
    #[must_use]
    pub fn below(&self, root: &str) -> Self {
        Self(format!("{}{}", root.trim_end_matches('/'), self.0))
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) | Self::Slice { name, .. } => f.write_str(name),
            Self::Pattern { prefix, extension } => {
                write!(f, "{prefix}*{}", extension.as_deref().unwrap_or(""))
            }
            Self::AnyOf(units) => {
                let units: Vec<String> = units.iter().map(Self::to_string).collect();
                f.write_str(&units.join(" or "))
            }
        }
    }
}

/// Types of units that have processes.
const UNIT_TYPES: &[&str] = &[".service", ".scope", ".slice", ".socket", ".mount", ".swap"];
/// Types of units that have none.
const UNIT_TYPES_WITHOUT_PROCESSES: &[&str] = &[".automount", ".device", ".path", ".target", ".timer"];

/// Reads the value of `unit`.
pub(super) fn read_unit(written: &Spanned<String>) -> Result<Unit, Problem> {
    let text = written.get_ref().as_str();
    let shown = quoted(text);
    let problem = |message: String| Problem::error(written.span(), message);
    if text.contains('/') {
        return Err(
            problem(format!("{shown} is a path, not a unit")).hint(format!("write cgroup = \"{text}\""))
        );
    }
    short_enough(written, "a unit's name")?;
    let (stem, extension) = match text.rfind('.') {
        Some(dot) => text.split_at(dot),
        None => (text, ""),
    };
    let stars = text.matches('*').count();
    if !text.ends_with('*') {
        if UNIT_TYPES_WITHOUT_PROCESSES.contains(&extension) {
            return Err(problem(format!("{shown} has no processes"))
                .why("only .service, .scope, .slice, .socket, .mount and .swap units have some")
                .hint(format!("name the unit it starts, like {stem}.service")));
        }
        if !UNIT_TYPES.contains(&extension) {
            let meant = match nearest(extension, UNIT_TYPES).filter(|_| !extension.is_empty()) {
                Some(kind) => format!("{stem}{kind}"),
                None => format!("{text}.service"),
            };
            return Err(problem(format!("{shown} has no unit type"))
                .why("a unit's name ends in .service, .scope, .slice, .socket, .mount or .swap")
                .hint(format!("did you mean {meant}?")));
        }
        if stem.is_empty() {
            return Err(
                problem(format!("{shown} lacks the unit's name")).hint(format!("write *{extension} for all"))
            );
        }
    }
    if extension == ".slice" {
        return slice(written, stem);
    }
    if extension.len() > EXTENSION_BYTES_MAX {
        return Err(problem(format!("{extension} is too long for a unit type"))
            .why(format!("the kernel looks at the last {EXTENSION_BYTES_MAX} bytes of a name"))
            .hint(format!("write {stem}*")));
    }
    if stars > 0 {
        let pattern = text.strip_suffix('*').map(|prefix| (prefix, None));
        let pattern =
            pattern.or_else(|| stem.strip_suffix('*').map(|prefix| (prefix, Some(extension.to_owned()))));
        return match pattern {
            Some((prefix, extension)) if stars == 1 => {
                Ok(Unit::Pattern { prefix: prefix.to_owned(), extension })
            }
            _ => Err(problem(format!("the star of {shown} is in the wrong place"))
                .why("there may be one, at the end or right before the type")
                .hint("write like batch-*.service or batch-*")),
        };
    }
    if stem.ends_with('@') {
        return Err(problem(format!("{shown} is a template, and templates have no processes"))
            .hint(format!("write {stem}*{extension} for all its instances")));
    }
    Ok(Unit::Named(text.to_owned()))
}

fn slice(written: &Spanned<String>, stem: &str) -> Result<Unit, Problem> {
    let text = written.get_ref().as_str();
    let problem = |message: String| Problem::error(written.span(), message);
    if text.contains('*') {
        return Err(problem(format!("{} has a star", quoted(text)))
            .why("a slice is named exactly; it holds everything below it")
            .hint("name the slice above, or each slice in an entry of its own"));
    }
    if stem == "-" {
        return Err(problem("`-.slice` holds everything".to_owned()).hint("leave the list out for everyone"));
    }
    let parts: Vec<&str> = stem.split('-').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(problem(format!("{} is not the name of a slice", quoted(text)))
            .why("dashes stand between the names of the slices above, as in a-b.slice below a.slice"));
    }
    if parts.len() > CGROUP_LEVELS_MAX {
        return Err(too_deep(written, parts.len()));
    }
    let path = (1..=parts.len()).map(|depth| format!("/{}.slice", parts[..depth].join("-"))).collect();
    Ok(Unit::Slice { name: text.to_owned(), path: CgroupPath(path) })
}

/// Reads the value of `cgroup`.
pub(super) fn read_cgroup(written: &Spanned<String>) -> Result<CgroupPath, Problem> {
    let text = written.get_ref().as_str();
    let shown = quoted(text);
    let problem = |message: String| Problem::error(written.span(), message);
    if text.contains('*') {
        let above = text.split('*').next().unwrap_or_default().trim_end_matches('/');
        return Err(problem(format!("{shown} has a star"))
            .why("`cgroup` names the cgroup and all below it")
            .hint(if above.is_empty() {
                "leave the list out for everyone".into()
            } else {
                format!("write {above}")
            }));
    }
    if let Some(path) = text.strip_prefix("/sys/fs/cgroup") {
        return Err(problem(format!("{shown} is a path of the file system"))
            .why("a cgroup is written as /proc/PID/cgroup shows it")
            .hint(format!("write {}", if path.is_empty() { "nothing for everyone" } else { path })));
    }
    let Some(path) = text.strip_prefix('/') else {
        return Err(problem(format!("{shown} is not absolute"))
            .why("a cgroup is written as /proc/PID/cgroup shows it")
            .hint(format!("write /{}", text.trim_start_matches("0::").trim_start_matches('/'))));
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Err(problem("`/` holds every process".to_owned())
            .hint("leave `cgroup` out, or the whole list for everyone"));
    }
    let components: Vec<&str> = path.split('/').collect();
    if components.iter().any(|component| matches!(*component, "" | "." | "..")) {
        return Err(problem(format!("{shown} is not a plain path"))
            .hint("write it without empty parts, `.` and `..`"));
    }
    if components.len() > CGROUP_LEVELS_MAX {
        return Err(too_deep(written, components.len()));
    }
    if let Some(long) = components.iter().find(|component| component.len() > PATTERN_BYTES_MAX) {
        return Err(too_long(written, "a cgroup directory's name", long.len()));
    }
    Ok(CgroupPath(format!("/{path}")))
}

fn short_enough(written: &Spanned<String>, what: &str) -> Result<(), Problem> {
    match written.get_ref().len() {
        0 => Err(Problem::error(written.span(), format!("{what} cannot be empty"))),
        length if length > PATTERN_BYTES_MAX => Err(too_long(written, what, length)),
        _ => Ok(()),
    }
}

fn too_long(written: &Spanned<String>, what: &str, length: usize) -> Problem {
    Problem::error(written.span(), format!("{what} has {length} bytes here"))
        .why(format!("the kernel compares at most {PATTERN_BYTES_MAX}"))
}

fn too_deep(written: &Spanned<String>, depth: usize) -> Problem {
    Problem::error(written.span(), format!("this is {depth} levels deep"))
        .why(format!("the kernel walks at most {CGROUP_LEVELS_MAX} levels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: fmt::Debug>(
        read: impl Fn(&Spanned<String>) -> Result<T, Problem>,
        text: &str,
    ) -> Result<T, String> {
        let problem =
            |problem: Problem| format!("{} | {}", problem.message, problem.hint.unwrap_or_default());
        read(&Spanned::new(0..text.len(), text.to_owned())).map_err(problem)
    }

    #[test]
    fn units_are_names_patterns_and_slices() {
        assert_eq!(check(read_unit, "orders.service"), Ok(Unit::Named("orders.service".into())));
        let pattern = |prefix: &str, extension: Option<&str>| {
            Ok(Unit::Pattern { prefix: prefix.into(), extension: extension.map(Into::into) })
        };
        assert_eq!(check(read_unit, "batch-*.service"), pattern("batch-", Some(".service")));
        assert_eq!(check(read_unit, "*.scope"), pattern("", Some(".scope")));
        assert_eq!(check(read_unit, "batch-*"), pattern("batch-", None));
        assert_eq!(check(read_unit, "a.b*"), pattern("a.b", None));
        assert_eq!(check(read_unit, "*"), pattern("", None));
        let Ok(Unit::Slice { path, .. }) = check(read_unit, "a-b.slice") else { panic!("not a slice") };
        assert_eq!(path.as_str(), "/a.slice/a-b.slice");
        assert_eq!(path.below("/root").as_str(), "/root/a.slice/a-b.slice");
        assert_eq!(path.below("/").as_str(), "/a.slice/a-b.slice");
    }

    #[test]
    fn units_that_are_none_say_what_to_write() {
        for (text, expected) in [
            ("orders", "did you mean orders.service?"),
            ("orders.v2", "did you mean orders.v2.service?"),
            ("orders-*.servce", "did you mean orders-*.service?"),
            ("backup.timer", "like backup.service"),
            ("getty@.service", "write getty@*.service"),
            ("a*b.service", "wrong place"),
            ("a*b*", "wrong place"),
            ("a*b", "no unit type"),
            ("a-*.slice", "has a star"),
            ("-.slice", "everyone"),
            ("a--b.slice", "not the name of a slice"),
            ("/system.slice/a.service", "write cgroup = \"/system.slice/a.service\""),
            (".service", "write *.service"),
            ("", "empty"),
        ] {
            let problem = check(read_unit, text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        assert!(check(read_unit, &format!("{}.service", "x".repeat(112))).is_ok());
        assert!(check(read_unit, &format!("{}.service", "x".repeat(113))).unwrap_err().contains("121 bytes"));
    }

    #[test]
    fn cgroups_say_what_to_write() {
        assert_eq!(check(read_cgroup, "/a/b/").unwrap().as_str(), "/a/b");
        assert!(check(read_cgroup, "/a/*").unwrap_err().ends_with("write /a"));
        assert!(check(read_cgroup, "a/b").unwrap_err().ends_with("write /a/b"));
        assert!(check(read_cgroup, "0::/a/b").unwrap_err().ends_with("write /a/b"));
        assert!(check(read_cgroup, "/sys/fs/cgroup/a").unwrap_err().ends_with("write /a"));
        for text in ["/a//b", "/", "/a/../b", "", "/a/.", &format!("/{}", "x".repeat(121))] {
            assert!(check(read_cgroup, text).is_err(), "{text}");
        }
        assert!(check(read_cgroup, &"/a".repeat(CGROUP_LEVELS_MAX)).is_ok());
        assert!(check(read_cgroup, &"/a".repeat(CGROUP_LEVELS_MAX + 1)).is_err());
    }

    #[test]
    fn paths_hold_what_lies_below() {
        let path = |text: &str| CgroupPath(text.to_owned());
        assert!(path("/a/b").is_within(&path("/a")) && path("/a").is_within(&path("/a")));
        assert!(!path("/ab").is_within(&path("/a")) && !path("/a").is_within(&path("/a/b")));
    }
}
