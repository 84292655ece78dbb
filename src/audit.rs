//! The audit log: one line, an object of JSON, for each login, failure and act of administration.
//!
//! It is part of the log, under the target `audit`, so that `RUST_LOG` and `log.level` can pick it out. No secret has a
//! place in it; what a client wrote is escaped, and with it what would end the line or show it other than it is.

use crate::model::{Id, UserId, acts_on_text, is_default_ignorable};
use crate::registry::Session;
use serde::Serialize;
use std::fmt::Write;

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
            Ok(line) => tracing::info!(target: "audit", "{}", escaped(line)),
            Err(error) => tracing::error!(%error, "an audit line cannot be encoded"),
        }
    }
}

/// The same JSON in characters that stay where they are in a log.
fn escaped(json: String) -> String {
    let must_not_be_shown = |c: char| acts_on_text(c) || is_default_ignorable(c);
    if !json.contains(must_not_be_shown) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 32);
    for c in json.chars() {
        if must_not_be_shown(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_line_is_one_line_whatever_login_was_tried() {
        for c in ('\0'..=char::MAX).filter(|c| acts_on_text(*c) || is_default_ignorable(*c)) {
            let login = format!("ann{c}\"ben");
            let record = Record {
                login: Some(&login),
                ..Record::of(None, "login", "login_failed")
            };
            let line = escaped(serde_json::to_string(&record).unwrap());
            assert!(
                !line.contains(c) && !line.contains(acts_on_text),
                "{line:?}"
            );
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(read["login"], login, "{line}");
        }
        let plain = "{\"login\":\"élise 🙂\"}".to_owned();
        assert_eq!(escaped(plain.clone()), plain);
    }
}
