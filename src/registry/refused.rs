//! Why a connection is not admitted, and why a session does not begin.

use super::Access;

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `limits.max_connections` of login listeners are open.
    Total,
    /// `limits.max_connections_trusted` are open.
    Trusted,
    /// `limits.max_connections_per_address` of this address are open.
    PerAddress,
    /// On `limits.max_connections_not_logged_in` nobody has logged in.
    NotLoggedIn,
}

impl Refused {
    pub(super) const fn of_all(access: Access) -> Self {
        match access {
            Access::Login => Self::Total,
            Access::Trusted => Self::Trusted,
        }
    }

    /// The name of the limit.
    #[must_use]
    pub const fn limit(self) -> &'static str {
        match self {
            Self::Total => "max_connections",
            Self::Trusted => "max_connections_trusted",
            Self::PerAddress => "max_connections_per_address",
            Self::NotLoggedIn => "max_connections_not_logged_in",
        }
    }
}

/// Why a session does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotBegun {
    /// Sessions were ended meanwhile: [`Registry::ends`](super::Registry::ends) no longer says what it did. To be looked at again.
    OthersEnded,
    /// The one before it on this connection was ended, and the connection is being closed.
    Ended,
    /// The address for which it would act has as many connections as it may.
    PerAddress,
    /// The user has `limits.max_sessions_per_user` sessions.
    PerUser,
}
