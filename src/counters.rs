//! How often something was refused or held up, for those who run the server.

use serde::{Serialize, Serializer};
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Declares counters that rise from the start of the daemon on.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters, as `server info` shows them to admins and trusted connections.
        #[derive(Debug, Default, Serialize)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: Counter,)+ }

        impl Counters {
            /// Every counter with its name.
            #[must_use]
            pub fn each(&self) -> Vec<(&'static str, &Counter)> {
                vec![$((stringify!($name), &self.$name),)+]
            }

            /// What every counter says, with its name.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                let each = self.each().into_iter();
                each.map(|(name, counter)| (name, counter.get())).collect()
            }
        }
    };
}

counters! {
    /// Connections refused since `limits.max_connections` were open.
    refused_max_connections,
    /// Connections of trusted listeners refused since `limits.max_connections_trusted` were open.
    refused_max_connections_trusted,
    /// Connections refused since `limits.max_connections_per_address` were open.
    refused_max_connections_per_address,
    /// Connections refused since `limits.max_connections_not_logged_in` were open.
    refused_max_connections_not_logged_in,
    /// Connections closed to make room for others, since their clients had ended their input, or nobody was logged in.
    displaced_connections,
    /// Connections refused since there was no descriptor left.
    refused_descriptors,
    /// Connections to a Unix socket refused since their users are not allowed there.
    refused_peers,
    /// Connections closed since their PROXY header was missing, wrong, or of a peer that is no trusted proxy.
    bad_proxy_headers,
    /// TLS handshakes that waited for their turn since they came faster than the limits allow.
    slowed_handshakes,
    /// TLS handshakes that failed or took too long.
    failed_handshakes,
    /// Connections closed since they spoke HTTP.
    http,
    /// Connections closed since their first line was none of this protocol.
    other_protocols,
    /// Requests that were made to wait since they came faster than the limits allow.
    slowed_requests,
    /// Connections closed since requests came faster than the limits allow before anybody had logged in.
    limited_connections,
    /// Logins refused since the user had `limits.max_sessions_per_user` sessions.
    refused_max_sessions_per_user,
    /// Subscriptions refused since the connection had `limits.max_subscriptions`, or `limits.max_subscription_bytes`.
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
    /// Connections closed since they took nothing for `limits.stalled_seconds`, or while more was held than may be.
    stalled,
}

/// A number that rises, and what the first was of those counted since it was told.
#[derive(Debug, Default)]
pub struct Counter {
    count: AtomicU64,
    first: Mutex<Option<String>>,
}

impl Counter {
    /// Counts one.
    pub fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one, and notes from where it came, or what else is to be told of it.
    pub fn add_from(&self, from: impl Display) {
        self.add();
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(from.to_string());
        }
    }

    /// How many were counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// What was noted of the first since this was last asked.
    pub fn take_first(&self) -> Option<String> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.take()
    }
}

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.get())
    }
}
