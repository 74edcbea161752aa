//! The kernels: takes a series, gives the newest of it in Debian's archive, with the modules that tests use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use anyhow::{Context as _, Result, bail};

use super::archive::{Archive, remove};
use crate::step;

/// The kernels a run without arguments boots.
pub const SERIES: &str = "5.10,6.1,6.12,newest";
/// Debian's kernels for virtual machines: small, with what a guest needs built in.
const FLAVOUR: &str = "cloud-amd64";
/// Modules that tests and attacks use, as far as a kernel has them as modules; what they need comes with them.
const MODULES: &[&str] = &[
    "8021q",
    "act_bpf",
    "act_mirred",
    "af_key",
    "bareudp",
    "bridge",
    "cls_bpf",
    "cls_matchall",
    "dummy",
    "esp4",
    "esp6",
    "fou",
    "geneve",
    "gre",
    "ifb",
    "inet_diag",
    "ip6_gre",
    "ip6_tunnel",
    "ip6_udp_tunnel",
    "ip_gre",
    "ipip",
    "ipvlan",
    "l2tp_ip",
    "l2tp_ppp",
    "macvlan",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_masq",
    "nft_nat",
    "overlay",
    "raw_diag",
    "sch_ingress",
    "overlay",
    "sctp",
    "sit",
    "tap",
    "tcp_diag",
    "tls",
    "tun",
    "udp_diag",
    "unix_diag",
    "veth",
    "vsock",
    "vxlan",
    "xfrm_user",
];

/// How much of a long command an error shows.
const SHOWN_CHARS_MAX: usize = 100;

/// What was asked for: a series like 6.1, or the newest there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Series {
    /// Major and minor.
    Numbered(u32, u32),
    /// The newest.
    Newest,
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "newest" {
            return Ok(Self::Newest);
        }
        let numbers = text
            .split_once('.')
            .and_then(|(major, minor)| Some(Self::Numbered(major.parse().ok()?, minor.parse().ok()?)));
        numbers.ok_or_else(|| "a series like 6.1, or `newest`".to_owned())
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbered(major, minor) => write!(f, "{major}.{minor}"),
            Self::Newest => f.write_str("newest"),
        }
    }
}

/// A kernel, ready to boot.
pub struct Kernel {
    /// What was asked for.
    pub series: Series,
    /// As `uname -r` says.
    pub release: String,
    /// What QEMU loads.
    pub image: PathBuf,
    /// A directory that holds `lib/modules/RELEASE`.
    pub modules: PathBuf,
}

impl Kernel {
    /// Finds the newest of the series, fetches it, and keeps what is needed of it below `directory`.
    pub fn fetch(archive: &Archive, busybox: &Path, directory: &Path, series: &Series) -> Result<Self> {
        let names = archive.names(&format!("^linux-(image|binary)-[0-9].*-{FLAVOUR}$"))?;
        let release = newest(&names, series)
            .with_context(|| format!("Debian's archive has no kernel {series} for {FLAVOUR}"))?;
        let own = directory.join(&release);
        let kernel = Self {
            series: series.clone(),
            release,
            image: own.join("vmlinuz"),
            modules: own.join("modules"),
        };
        if !kernel.modules.exists() {
            step::say(&format!("kernel {series}: {} is fetched", kernel.release));
            kernel.unpack(archive, busybox, &own)?;
        }
        Ok(kernel)
    }

    /// The image's package is empty where the kernel and its modules have packages of their own.
    fn unpack(&self, archive: &Archive, busybox: &Path, own: &Path) -> Result<()> {
        fs::create_dir_all(own).with_context(|| format!("make directory {}", own.display()))?;
        let packages: Vec<String> = ["image", "binary", "modules"]
            .iter()
            .map(|part| format!("linux-{part}-{}", self.release))
            .filter(|package| archive.has(package))
            .collect();
        let whole = own.join("packages");
        archive.unpack(&packages, &whole)?;
        let found = ["usr/lib/modules", "lib/modules"].map(|below| whole.join(below).join(&self.release));
        let tree = found.iter().find(|tree| tree.join("kernel").exists());
        let tree = tree.with_context(|| format!("{} brought no modules", packages.join(" ")))?;
        let images = [whole.join(format!("boot/vmlinuz-{}", self.release)), tree.join("vmlinuz")]
            .into_iter()
            .chain(found.iter().map(|tree| tree.join("vmlinuz")))
            .find(|path| path.exists());
        let image = images.with_context(|| format!("{} brought no kernel", packages.join(" ")))?;
        fs::copy(&image, &self.image).with_context(|| format!("copy {}", image.display()))?;
        self.keep_modules(busybox, tree)?;
        remove(&whole)
    }

    /// Copies the modules of the list and those they need, uncompressed, and the tables by which they are found.
    fn keep_modules(&self, busybox: &Path, tree: &Path) -> Result<()> {
        let unfinished = self.modules.with_extension("unfinished");
        remove(&unfinished)?;
        let all = unfinished.join("all");
        let mut files = BTreeMap::new();
        find_modules(&tree.join("kernel"), &mut files)?;
        let to = all.join("lib/modules").join(&self.release);
        fs::create_dir_all(&to).with_context(|| format!("make directory {}", to.display()))?;
        let mut compressed = Vec::new();
        for path in files.values() {
            let copy = to.join(path.file_name().context("name a module")?);
            fs::copy(path, &copy).with_context(|| format!("copy {}", path.display()))?;
            match copy.extension().and_then(|extension| extension.to_str()) {
                Some("ko") => {}
                Some("xz") => compressed.push(copy),
                _ => bail!("{} is compressed in a way that is not known here", copy.display()),
            }
        }
        step::say(&format!(
            "kernel {}: its modules are unpacked and those that tests use are kept",
            self.series
        ));
        if !compressed.is_empty() {
            quietly(Command::new(busybox).args(["unxz", "-f"]).args(&compressed))?;
        }
        let depmod =
            |root: &Path| quietly(Command::new(busybox).args(["depmod", "-b"]).arg(root).arg(&self.release));
        depmod(&all)?;
        let table = to.join("modules.dep");
        let table = fs::read_to_string(&table).with_context(|| format!("read {}", table.display()))?;
        let kept = unfinished.join("lib/modules").join(&self.release);
        fs::create_dir_all(&kept).with_context(|| format!("make directory {}", kept.display()))?;
        for file in with_needed(&table, MODULES) {
            fs::rename(to.join(&file), kept.join(&file)).with_context(|| format!("keep module {file}"))?;
        }
        remove(&all)?;
        depmod(&unfinished)?;
        fs::rename(&unfinished, &self.modules).context("move the modules to their place")
    }
}

/// Runs a command that is too long to be announced.
fn quietly(command: &mut Command) -> Result<()> {
    let program = step::shown(command).chars().take(SHOWN_CHARS_MAX).collect::<String>();
    let status = command.status().with_context(|| format!("run `{program}…`"))?;
    if !status.success() {
        bail!("`{program}…` failed ({status})");
    }
    Ok(())
}

/// Every module below a directory, by name.
fn find_modules(directory: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry.with_context(|| format!("list {}", directory.display()))?.path();
        if path.is_dir() {
            find_modules(&path, found)?;
        } else if let Some((name, _)) = path.file_name().and_then(|name| name.to_str()?.split_once(".ko")) {
            found.insert(name.to_owned(), path.clone());
        }
    }
    Ok(())
}

/// The files of these modules and of all that they need, by a table as `depmod` writes it.
fn with_needed(table: &str, names: &[&str]) -> BTreeSet<String> {
    let name = |file: &str| file.rsplit('/').next().unwrap_or(file).to_owned();
    let needs: BTreeMap<String, Vec<String>> = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needed)| (name(file), needed.split_whitespace().map(name).collect()))
        .collect();
    let mut wanted: Vec<String> = names.iter().map(|name| format!("{name}.ko")).collect();
    let mut kept = BTreeSet::new();
    while let Some(file) = wanted.pop() {
        if let Some(needed) = needs.get(&file)
            && kept.insert(file)
        {
            wanted.extend(needed.iter().cloned());
        }
    }
    kept
}

/// The newest release of a series among package names.
fn newest(names: &[String], series: &Series) -> Option<String> {
    let releases = names.iter().filter_map(|name| {
        let release = name.strip_prefix("linux-image-").or_else(|| name.strip_prefix("linux-binary-"))?;
        let version = release.strip_suffix(FLAVOUR)?.strip_suffix('-')?;
        // Meta-packages have two numbers or none.
        (version.split('.').count() >= 3).then_some((release, numbers(version)))
    });
    let of_series = releases.filter(|(_, numbers)| match series {
        Series::Numbered(major, minor) => numbers.starts_with(&[*major, *minor]),
        Series::Newest => true,
    });
    of_series.max_by(|(_, one), (_, other)| one.cmp(other)).map(|(release, _)| release.to_owned())
}

fn numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        [
            "linux-image-cloud-amd64",
            "linux-image-6.1-cloud-amd64",
            "linux-image-5.10.0-9-cloud-amd64",
            "linux-image-5.10.0-46-cloud-amd64",
            "linux-image-6.1.0-0.deb11.52-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-binary-7.2.13+deb14-cloud-amd64",
            "linux-image-7.2.13+deb14-rt-amd64",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn the_newest_of_a_series_is_taken_by_its_numbers() {
        for (series, release) in [
            ("5.10", "5.10.0-46-cloud-amd64"),
            ("6.1", "6.1.0-56-cloud-amd64"),
            ("6.12", "6.12.117+deb13-cloud-amd64"),
            ("newest", "7.2.13+deb14-cloud-amd64"),
        ] {
            let series: Series = series.parse().expect("a series");
            assert_eq!(newest(&names(), &series).as_deref(), Some(release), "{series}");
        }
        assert_eq!(newest(&names(), &Series::Numbered(4, 19)), None);
    }

    #[test]
    fn a_series_is_two_numbers_or_newest() {
        assert_eq!("6.1".parse(), Ok(Series::Numbered(6, 1)));
        assert_eq!("newest".parse(), Ok(Series::Newest));
        assert!("6".parse::<Series>().is_err() && "latest".parse::<Series>().is_err());
    }

    #[test]
    fn modules_come_with_what_they_need() {
        let table = "a/vxlan.ko: b/udp_tunnel.ko c/ip6_udp_tunnel.ko\nb/udp_tunnel.ko:\nc/ip6_udp_tunnel.ko: b/udp_tunnel.ko\nd/else.ko:\n";
        let kept = with_needed(table, &["vxlan", "built_in"]);
        assert_eq!(Vec::from_iter(kept), ["ip6_udp_tunnel.ko", "udp_tunnel.ko", "vxlan.ko"]);
    }
}
