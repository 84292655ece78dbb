//! Which users are shown to a user (protocol.md, 7).

use serde::Deserialize;

/// Whom `user get`, `user search` and the events of users show to a user. Admins and trusted connections see everybody.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Directory {
    /// Everybody.
    Everyone,
    /// Itself, and those with whom it shares a conversation, without their logins.
    Companions,
}
