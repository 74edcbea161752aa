//! Other kernels: takes the names of series, boots the newest of each in QEMU, runs the checks there, gives a table.
//!
//! [`archive`] is Debian's, [`kernels`] what comes from it, [`programs`] what is built and which jobs it makes,
//! [`initrd`] what a guest finds, [`guest`] one run of one, [`table`] what came of all.

use std::{fs, num::NonZeroUsize, path::Path};

use anyhow::{Context as _, Result, bail};
use archive::Archive;
use guest::Machine;
use initrd::Tree;
use kernels::Kernel;
use programs::Programs;
use table::Row;

use crate::{
    each::each,
    host::Host,
    setup::{self, Need},
    step,
};

mod archive;
mod guest;
mod initrd;
mod kernels;
mod programs;
mod table;

pub use kernels::{SERIES, Series};
pub use programs::Check;

/// What to run, and where.
pub struct Run {
    /// The kernels.
    pub kernels: Vec<Series>,
    /// The checks.
    pub checks: Vec<Check>,
    /// Parts of names of tests; all when there is none.
    pub filters: Vec<String>,
    /// Whether to use this machine's hardware virtualisation.
    pub kvm: bool,
    /// How many guests run at a time.
    pub guests: NonZeroUsize,
}

impl Run {
    /// What every change passes.
    pub fn in_ci() -> Self {
        Self {
            kernels: SERIES.split(',').filter_map(|name| name.parse().ok()).collect(),
            checks: vec![Check::Load, Check::Budget, Check::Packets],
            filters: Vec::new(),
            kvm: false,
            guests: NonZeroUsize::MIN.saturating_add(1),
        }
    }
}

/// Sets up, builds, boots each kernel in turn, prints the table; an error when any check failed on any of them.
pub fn run(host: &Host, run: &Run) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the guests are x86-64 and run programs of this host, which is {}", std::env::consts::ARCH);
    }
    setup::ensure(host, &[Need::Build, Need::Test, Need::Guests])?;
    let directory = host.target.join("vm");
    fs::create_dir_all(directory.join("logs"))
        .with_context(|| format!("make directory {}", directory.display()))?;

    // First, so that a host that cannot reach the archive hears it before anything is built.
    let archive = Archive::open(host, &directory.join("archive"))?;
    // From the archive and not from this host: its package would drive out another that an installed system may need.
    archive.unpack(&["busybox-static".to_owned()], &directory.join("busybox"))?;
    let busybox = ["usr/bin", "bin"].map(|place| directory.join("busybox").join(place).join("busybox"));
    let busybox = busybox.iter().find(|path| path.exists()).context("busybox-static brought no busybox")?;
    let fetch = |series| Kernel::fetch(&archive, busybox, &directory.join("kernels"), series);
    let kernels: Vec<Kernel> = run.kernels.iter().map(fetch).collect::<Result<_>>()?;

    let programs = Programs::build(host, &run.checks)?;
    let jobs = programs.jobs(&run.checks, &run.filters)?;
    let budget = host.root.join("tests/verifier-budget.toml");
    let tree = Tree::build(&directory, busybox, &programs.agent, &programs.files(&run.checks), &[&budget])?;

    tree.set_jobs(&jobs)?;
    let processors = if run.checks.contains(&Check::Behaviour) { 2 } else { 1 };
    let machine = Machine { kvm: run.kvm, processors };
    let look = |kernel: &Kernel| -> Result<Row> {
        let initrd = directory.join(format!("{}.cpio", kernel.series));
        tree.pack(kernel, &initrd)?;
        let log = guest::log_path(&directory, kernel);
        let account = machine.run(kernel, &initrd, &jobs, &log)?;
        Ok(Row { series: kernel.series.to_string(), account })
    };
    let rows = each(&kernels, run.guests, look)?;
    report(&rows, &run.checks, &directory)
}

fn report(rows: &[Row], checks: &[Check], directory: &Path) -> Result<()> {
    let text = table::text(rows, checks);
    let path = directory.join("table.txt");
    fs::write(&path, &text).with_context(|| format!("write {}", path.display()))?;
    println!("\n{text}");
    let logs = directory.join("logs");
    if !table::all_passed(rows, checks) {
        bail!("not everything passed on every kernel; the consoles are in {}", logs.display());
    }
    step::say(&format!("everything passed on every kernel; the consoles are in {}", logs.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ci_looks_at_every_kernel() {
        assert_eq!(Run::in_ci().kernels.len(), SERIES.split(',').count());
    }
}
