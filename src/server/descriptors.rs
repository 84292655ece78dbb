//! File descriptors: as many as may be had, some of them kept back from connections.

use crate::limits::KEPT_DESCRIPTORS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;

/// Raises the limit of descriptors to what this process may have, and gives how many connections that allows: at most
/// `wanted`.
pub fn connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let Some(descriptors) = current else {
        return wanted;
    };
    let most = usize::try_from(descriptors)
        .unwrap_or(usize::MAX)
        .saturating_sub(KEPT_DESCRIPTORS)
        .max(1);
    if most < wanted {
        tracing::warn!(
            max_connections = wanted,
            allowed = most,
            descriptors,
            "fewer connections are taken than configured: the process may have no more descriptors (ulimit -n, LimitNOFILE)"
        );
    }
    wanted.min(most)
}

/// A descriptor to let go of when there is no other, so that a connection can be taken off the queue and refused.
#[derive(Debug)]
pub struct Spare(Option<File>);

impl Spare {
    /// Takes one, if there is one.
    pub fn take() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Lets go of it; false if it was not there.
    pub fn release(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// Takes it back, if there is one again.
    pub fn renew(&mut self) {
        if self.0.is_none() {
            *self = Self::take();
        }
    }
}
