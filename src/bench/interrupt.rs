//! Whether the user asked for the end: a signal concerns the whole process, and so does this.

use super::Failure;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Hears ctrl-c and SIGTERM from now on, so that a run ends in order and leaves nothing behind.
pub fn listen() -> Result<(), Failure> {
    let refused = |error| Failure::Run(format!("signals cannot be heard: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(refused)?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(refused)?,
            signal(SignalKind::terminate()).map_err(refused)?,
        )
    };
    let hear = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new()
        .spawn(hear)
        .map(drop)
        .map_err(refused)
}

/// An error once the user asked for the end; whoever waits looks here at least ten times a second.
pub fn check() -> Result<(), Failure> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}
