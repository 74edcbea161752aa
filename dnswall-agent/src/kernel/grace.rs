//! Waits until no program can still be using what it read before.

use std::time::Duration;

/// `MEMBARRIER_CMD_GLOBAL`: runs `synchronize_rcu()` (4.3).
const GLOBAL: libc::c_int = 1;
/// Where membarrier is missing or does nothing (nohz_full), no program runs this long.
const FALLBACK: Duration = Duration::from_millis(100);

/// Returns when every program that ran when this was called has ended: cgroup programs run inside an RCU read-side
/// section, and the command is one grace period.
pub fn wait() {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    // On a single processor the command returns at once without a grace period; so does an error.
    let one_processor = std::thread::available_parallelism().is_ok_and(|count| count.get() == 1);
    if result != 0 || one_processor {
        std::thread::sleep(FALLBACK);
    }
}
