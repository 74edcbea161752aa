//! What the kernel says of this process, under the names that every Prometheus client gives it.

use std::fmt;
use std::fs;
use std::io;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::sheet::Sheet;

/// This process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Processor time, in user space and in the kernel.
    pub cpu_seconds: f64,
    /// Memory in use.
    pub resident_bytes: u64,
    /// Address space in use.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// Descriptors it may have.
    pub max_fds: Option<u64>,
    /// When it started, in seconds since 1970.
    pub start_seconds: f64,
}

impl Process {
    /// Reads it.
    ///
    /// # Errors
    /// When /proc is not there, or not as it is known.
    pub fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let boot = fs::read_to_string("/proc/stat")?;
        let strange = || io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat is not as it is known");
        let Some((ticks, virtual_bytes, pages)) = parse(&stat) else { return Err(strange()) };
        let boot_seconds: f64 = boot
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|seconds| seconds.parse().ok())
            .ok_or_else(strange)?;
        let per_second = clock_ticks_per_second() as f64;
        Ok(Self {
            cpu_seconds: ticks.running as f64 / per_second,
            resident_bytes: pages * page_size() as u64,
            virtual_bytes,
            // One of them is this look.
            open_fds: (fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1),
            max_fds: getrlimit(Resource::Nofile).current,
            start_seconds: boot_seconds + ticks.started as f64 / per_second,
        })
    }
}

/// Ticks of the clock.
#[derive(Debug, PartialEq, Eq)]
struct Ticks {
    running: u64,
    started: u64,
}

/// Ticks, bytes of address space and pages in memory, of proc(5)'s `stat`.
fn parse(stat: &str) -> Option<(Ticks, u64, u64)> {
    // The name in parentheses may hold spaces, and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The third field of the file is the first here.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = Ticks { running: field(14)? + field(15)?, started: field(22)? };
    Some((ticks, field(23)?, field(24)?))
}

pub(super) fn write(sheet: &mut Sheet<'_>, process: &Process) -> fmt::Result {
    let Process { cpu_seconds, resident_bytes, virtual_bytes, open_fds, max_fds, start_seconds } = *process;
    sheet.counter(
        "process_cpu_seconds",
        "Processor time that the agent has taken, in user space and in the kernel.",
        cpu_seconds,
    )?;
    sheet.gauge("process_resident_memory_bytes", "Memory that the agent has in use.", resident_bytes)?;
    sheet.gauge("process_virtual_memory_bytes", "Address space that the agent has in use.", virtual_bytes)?;
    sheet.gauge("process_open_fds", "Descriptors that the agent has open.", open_fds)?;
    sheet.maybe(
        "process_max_fds",
        "Descriptors that the agent may have open.",
        max_fds.map(|max_fds| max_fds as f64),
    )?;
    sheet.gauge("process_start_time_seconds", "When the agent started, in seconds since 1970.", start_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 5 0 4242 1048576 300 99 1";
        assert_eq!(parse(stat), Some((Ticks { running: 200, started: 4242 }, 1_048_576, 300)));
        assert_eq!((parse(""), parse("7 (a) S 1")), (None, None));
    }

    #[test]
    fn this_process_is_read() {
        let process = Process::read().unwrap();
        assert!(process.resident_bytes > 100_000 && process.open_fds >= 3, "{process:?}");
        let now = jiff::Timestamp::now().as_second() as f64;
        assert!((now - 3_600.0..=now + 1.0).contains(&process.start_seconds), "{process:?}");
    }
}
