//! The audit log: one line, an object of JSON, for each login, failure and act of administration.
//!
//! It is part of the log, under the target `audit`, so that `RUST_LOG` and `log.level` can pick it out. No secret has a
//! place in it; what a client wrote is escaped as JSON escapes it.

use crate::model::{Id, UserId};
use crate::registry::Session;
use serde::Serialize;

/// What happened.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    /// What was done: `login`, `logout`, or the command, such as `user delete`.
    pub event: &'a str,
    /// `ok`, or the code of the refusal.
    pub result: &'a str,
    /// In which session.
    pub session_id: Option<Id>,
    /// From where.
    pub remote: &'a str,
    /// By which user, if one was logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// The login that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<&'a str>,
    /// What it was done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Id>,
}

impl<'a> Record<'a> {
    /// What was done in a session, and how it ended.
    #[must_use]
    pub fn of(session: Option<&'a Session>, event: &'a str, result: &'a str) -> Self {
        Self {
            event,
            result,
            session_id: session.map(|session| session.session_id),
            remote: session.map_or("", |session| &session.remote),
            by: session
                .and_then(|session| session.account.as_ref())
                .map(|account| account.user_id),
            login: None,
            object: None,
        }
    }

    /// Writes the line.
    pub fn write(&self) {
        match serde_json::to_string(self) {
            Ok(line) => tracing::info!(target: "audit", "{line}"),
            Err(error) => tracing::error!(%error, "an audit line cannot be encoded"),
        }
    }
}
