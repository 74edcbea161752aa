//! Debian's archive: takes the mirrors of this host's own apt, gives packages of any suite without touching the host.
//!
//! Lists and packages are kept below `target/vm`; apt checks them against the archive's keys as it always does.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    host::Host,
    packages::apt_is_here,
    step,
    toolchain::{stdout_of, succeeds},
};

/// The suites that have the kernels, and whether they are security updates, which have a mirror of their own.
const SUITES: &[(&str, bool)] = &[
    ("bullseye-security", true),
    ("bookworm", false),
    ("bookworm-security", true),
    ("trixie", false),
    ("trixie-security", true),
    ("sid", false),
];
/// The keys of every suite.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Lists this young are not fetched again.
const LISTS_FRESH: Duration = Duration::from_secs(12 * 3600);

/// Suites of the archive, with lists of their own.
pub struct Archive {
    directory: PathBuf,
}

impl Archive {
    /// Prepares lists of every suite; fails when one of them cannot be had.
    pub fn open(host: &Host, directory: &Path) -> Result<Self> {
        if !apt_is_here() {
            bail!(
                "the kernels come from Debian's archive through apt-get, which is not here: use a Debian host"
            );
        }
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: apt-get install debian-archive-keyring");
        }
        let archive = Self { directory: directory.to_owned() };
        for below in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(directory.join(below)).with_context(|| format!("make directory {below}"))?;
        }
        let sources = sources(&Mirrors::of(host)?);
        let path = directory.join("sources.list");
        let same = fs::read_to_string(&path).is_ok_and(|text| text == sources);
        fs::write(&path, sources).with_context(|| format!("write {}", path.display()))?;
        let path = directory.join("apt.conf");
        fs::write(&path, configuration(directory)).with_context(|| format!("write {}", path.display()))?;
        let stamp = directory.join("lists/fresh");
        if !(same && age(&stamp).is_some_and(|age| age < LISTS_FRESH)) {
            // What is there may be of other mirrors, or half of it.
            if stamp.exists() {
                fs::remove_file(&stamp).context("forget when the lists were fetched")?;
            }
            let mut update = archive.apt("apt-get");
            update.args(["--quiet=2", "update"]);
            step::run(&mut update).context(
                "fetch the package lists of Debian's suites (is its archive reachable from here?)",
            )?;
            fs::write(&stamp, "").context("note when the lists were fetched")?;
        }
        Ok(archive)
    }

    /// Names of all packages that match a regular expression.
    pub fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let mut search = self.apt("apt-cache");
        let text = stdout_of(search.args(["search", "--names-only", pattern]));
        let text = text.with_context(|| format!("run `{}`", step::shown(&search)))?;
        Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// Whether there is such a package.
    pub fn has(&self, package: &str) -> bool {
        succeeds(self.apt("apt-cache").args(["show", package]))
    }

    /// Fetches packages and unpacks them below `into`, which appears when it is complete.
    pub fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        if into.exists() {
            return Ok(());
        }
        let own = self.directory.join("packages").join(packages[0].as_str());
        fs::create_dir_all(&own).with_context(|| format!("make directory {}", own.display()))?;
        let mut download = self.apt("apt-get");
        step::run(download.args(["--quiet=2", "download"]).args(packages).current_dir(&own))?;
        let unfinished = into.with_extension("unfinished");
        remove(&unfinished)?;
        let entries = fs::read_dir(&own).with_context(|| format!("list {}", own.display()))?;
        for entry in entries {
            let file = entry.with_context(|| format!("list {}", own.display()))?.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                step::run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(&unfinished))?;
            }
        }
        remove(&own)?;
        fs::rename(&unfinished, into).with_context(|| format!("move what was unpacked to {}", into.display()))
    }

    /// An apt program that sees our suites alone; proxies and the like stay as this host has them.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config-file").arg(self.directory.join("apt.conf")).env("LC_ALL", "C");
        command
    }
}

/// What apt reads after this host's own configuration.
fn configuration(directory: &Path) -> String {
    let path = |below: &str| directory.join(below).display().to_string();
    let lines = [
        ("Dir::Etc::SourceList", path("sources.list")),
        ("Dir::Etc::SourceParts", "-".to_owned()),
        ("Dir::State::Lists", path("lists")),
        ("Dir::Cache", path("cache")),
        ("Acquire::Languages", "none".to_owned()),
        ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
        ("Acquire::Retries", "3".to_owned()),
        // Our directories are not for the user that apt becomes to download.
        ("APT::Sandbox::User", "root".to_owned()),
        // Else apt-get calls a suite that it could not reach a warning.
        ("APT::Update::Error-Mode", "any".to_owned()),
    ];
    lines.iter().map(|(name, value)| format!("{name} \"{value}\";\n")).collect()
}

/// Where this host gets Debian from.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    fn of(host: &Host) -> Result<Self> {
        let ask = || {
            let mut targets = Command::new("apt-get");
            stdout_of(targets.args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"]))
                .unwrap_or_default()
        };
        if let Some(mirrors) = Self::among(&ask()) {
            return Ok(mirrors);
        }
        // Whose a mirror is stands in its lists, which a minimal image does not have.
        let mut update = host.as_root("apt-get", "refreshing apt's package lists")?;
        step::run(update.args(["--quiet=2", "update"]))?;
        Self::among(&ask()).context("this host's apt has no mirror of Debian, from which the kernels come")
    }

    /// From lines of origin, label and address.
    fn among(targets: &str) -> Option<Self> {
        let of = |label: &str| {
            let found = targets.lines().find_map(|line| line.strip_prefix(&format!("Debian|{label}|")));
            found.map(|address| address.trim_end_matches('/').to_owned())
        };
        let main = of("Debian")?;
        // By their names they stand beside each other.
        let beside = || main.strip_suffix("/debian").map(|root| format!("{root}/debian-security"));
        let security = of("Debian-Security").or_else(beside)?;
        Some(Self { main, security })
    }
}

fn sources(mirrors: &Mirrors) -> String {
    let lines: BTreeSet<String> = SUITES
        .iter()
        .map(|(suite, is_security)| {
            let mirror = if *is_security { &mirrors.security } else { &mirrors.main };
            format!("deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n")
        })
        .collect();
    lines.into_iter().collect()
}

fn age(path: &Path) -> Option<Duration> {
    let changed = fs::metadata(path).and_then(|file| file.modified()).ok()?;
    SystemTime::now().duration_since(changed).ok()
}

/// Removes a directory, if it is there.
pub fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_those_of_debian_and_not_of_others() {
        let targets = "Docker|Docker CE|https://download.example/linux/debian/\n\
                       Debian|Debian|http://mirror.example/debian/\nDebian|Debian|http://second.example/debian/\n";
        let mirrors = Mirrors::among(targets).expect("a mirror");
        assert_eq!(mirrors.main, "http://mirror.example/debian");
        assert_eq!(mirrors.security, "http://mirror.example/debian-security");
        let own = format!("{targets}Debian|Debian-Security|http://s.example/x/\n");
        assert_eq!(Mirrors::among(&own).expect("a mirror").security, "http://s.example/x");
        assert_eq!(Mirrors::among("Docker|Docker CE|https://download.example/linux/debian/\n"), None);
    }

    #[test]
    fn every_suite_has_a_line_and_a_key() {
        let text = sources(&Mirrors { main: "http://m".to_owned(), security: "http://s".to_owned() });
        assert_eq!(text.lines().count(), SUITES.len());
        assert!(text.lines().all(|line| line.contains("signed-by=")), "{text}");
        assert!(
            text.contains("http://s bullseye-security main") && text.contains("http://m sid main"),
            "{text}"
        );
    }
}
