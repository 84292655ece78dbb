//! File descriptors: as many as may be had, some of them kept back from connections.

use crate::limits::{KEPT_DESCRIPTORS, Limits};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;

/// Raises the limit of descriptors to what this process may have, and lowers the limits of connections to what that allows.
pub fn fit(limits: &mut Limits) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    if let Some(descriptors) = current {
        let wanted = (limits.max_connections, limits.max_connections_trusted);
        share(limits, usize::try_from(descriptors).unwrap_or(usize::MAX));
        let allowed = (limits.max_connections, limits.max_connections_trusted);
        if allowed != wanted {
            tracing::warn!(
                max_connections = wanted.0,
                allowed = allowed.0,
                max_connections_trusted = wanted.1,
                allowed_trusted = allowed.1,
                descriptors,
                "fewer connections are taken than configured: the process may have no more descriptors (ulimit -n, LimitNOFILE)"
            );
        }
    }
}

/// Shares so many descriptors out. Those of trusted listeners come first, but have no more than a quarter where there are
/// not enough.
fn share(limits: &mut Limits, descriptors: usize) {
    let most = descriptors.saturating_sub(KEPT_DESCRIPTORS).max(2);
    let (login, trusted) = (limits.max_connections, limits.max_connections_trusted);
    if login.saturating_add(trusted) > most {
        limits.max_connections_trusted = trusted
            .min((most / 4).max(1))
            .max(most.saturating_sub(login).min(trusted));
        limits.max_connections = login.min(most - limits.max_connections_trusted);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_connections_have_descriptors_of_their_own() {
        for (descriptors, login, trusted, expected) in [
            (20_000, 10_000, 1000, (10_000, 1000)),
            (1032, 10_000, 1000, (750, 250)),
            (1032, 10_000, 100, (900, 100)),
            (1032, 300, 1000, (300, 700)),
            (64, 10_000, 1000, (24, 8)),
            (10, 10_000, 1000, (1, 1)),
        ] {
            let mut limits = Limits {
                max_connections: login,
                max_connections_trusted: trusted,
                ..Limits::default()
            };
            share(&mut limits, descriptors);
            let found = (limits.max_connections, limits.max_connections_trusted);
            assert_eq!(found, expected, "{descriptors} {login} {trusted}");
        }
    }
}
