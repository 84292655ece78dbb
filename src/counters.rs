//! How often something was refused, for those who run the server.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Declares counters that rise from the start of the daemon on.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters, as `server info` shows them to admins and trusted connections.
        #[derive(Debug, Default, Serialize)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: Counter,)+ }

        impl Counters {
            /// Every counter with its name.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)+]
            }
        }
    };
}

counters! {
    /// Connections refused since `limits.max_connections` were open.
    refused_max_connections,
    /// Connections refused since `limits.max_connections_per_address` were open.
    refused_max_connections_per_address,
    /// Connections refused since `limits.max_connections_not_logged_in` were open.
    refused_max_connections_not_logged_in,
    /// Connections closed to make room for others, since their clients had ended their input.
    displaced_connections,
    /// Connections refused since there was no descriptor left.
    refused_descriptors,
    /// Connections to a Unix socket refused since their users are not allowed there.
    refused_peers,
    /// TLS handshakes that failed or took too long.
    failed_handshakes,
    /// Requests refused since they came faster than the limits allow.
    limited_requests,
    /// Subscriptions refused since the connection had `limits.max_subscriptions`.
    refused_subscriptions,
    /// Lines skipped since they were longer than `limits.max_line_bytes`.
    long_lines,
    /// Logins.
    logins,
    /// Logins refused since login, password or token was wrong.
    failed_logins,
    /// Logins refused since too many failed before, or too many were being verified.
    limited_logins,
    /// Connections closed since nobody logged in within `security.login_seconds`.
    login_timeouts,
    /// Connections closed since they took nothing for `limits.stalled_seconds`.
    stalled,
}

/// A number that rises.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
