//! Ctrl-C in the middle of the play: clean up, then go.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::janitor::Janitor;

/// From now on SIGINT, SIGTERM and SIGHUP end the process only after the janitor has cleaned up.
pub(super) fn clean_on_signal(janitor: Arc<Mutex<Janitor>>) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().context("listen for signals")?;
    let listen = |kind| {
        let _entered = runtime.enter();
        signal(kind).context("listen for signals")
    };
    let (interrupt, terminate, hangup) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    thread::spawn(move || {
        let code = runtime.block_on(first(interrupt, terminate, hangup));
        let cleaned = janitor.lock().unwrap_or_else(PoisonError::into_inner).clean();
        match cleaned {
            Ok(()) => anstream::eprintln!("\ninterrupted; nothing was left behind"),
            Err(error) => anstream::eprintln!("\ninterrupted: {error:#}"),
        }
        std::process::exit(code);
    });
    Ok(())
}

/// The exit code that a shell gives for whichever comes first.
async fn first(mut interrupt: Signal, mut terminate: Signal, mut hangup: Signal) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => 128 + libc::SIGINT,
        _ = terminate.recv() => 128 + libc::SIGTERM,
        _ = hangup.recv() => 128 + libc::SIGHUP,
    }
}
