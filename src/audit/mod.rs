//! The audit log: one line, an object of JSON, for each login, failure and act of administration.
//!
//! It is part of the log, under the target `audit`, and is written whatever `RUST_LOG` and `log.level` say. No secret has a
//! place in it; what a client wrote is escaped, and with it what would end the line or show it other than it is. Failures
//! are bounded: whoever makes one after the other does not fill the log with them.

mod act;
mod failures;

use crate::model::{Id, Login, Role, TokenId, UserId, acts_on_text, is_default_ignorable};
use crate::registry::{Remote, Session};
use crate::store::{Note, Outcome};
pub use act::Act;
use failures::{Failures, Sum};
use serde::Serialize;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

/// What failed in the second that runs.
static FAILURES: LazyLock<Mutex<Failures>> = LazyLock::new(Mutex::default);

/// The result of what was done as it was asked for.
const OK: &str = "ok";

/// The target of its lines.
pub const TARGET: &str = "audit";

/// What happened.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    /// What was done: `login`, `logout`, or the command, such as `user delete`.
    pub event: &'a str,
    /// `ok`, or the code of the refusal.
    pub result: &'a str,
    /// In which session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Id>,
    /// From where.
    pub remote: &'a str,
    /// By which user, if one was logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// By which token, if it logged in with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// The login that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<&'a str>,
    /// What it was done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Id>,
    /// In which conversation, where the object is a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Id>,
    /// Whose token it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// The role that a user was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// The role that it had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_before: Option<&'static str>,
    /// Who was to become a member, or no longer be one: the first of them.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub members: &'a [UserId],
    /// Whether it was done by an admin in conversations that it was not in.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub outside: bool,
    /// How many of these there were, where they are summed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl<'a> Record<'a> {
    /// What was done in a session, and how it ended.
    #[must_use]
    pub fn of(session: Option<&'a Session>, event: &'a str, result: &'a str) -> Self {
        let account = session.and_then(|session| session.account.as_ref());
        Self {
            event,
            result,
            session_id: session.map(|session| session.session_id),
            remote: session.map_or("", |session| &session.remote),
            by: account.map(|account| account.user_id),
            token: account.and_then(|account| account.token),
            login: None,
            object: None,
            conversation: None,
            user: None,
            role: None,
            role_before: None,
            members: &[],
            outside: false,
            count: None,
        }
    }

    /// The same of a change, and of what came of it.
    #[must_use]
    pub fn with(self, act: &'a Act, outcome: Option<&Outcome>) -> Self {
        let note = match outcome {
            Some(Outcome::Noted { note }) => Some(*note),
            _ => None,
        };
        let (mut user, mut role_before) = (act.user, None);
        match note {
            Some(Note::RoleBefore(role)) => role_before = Some(role.as_str()),
            Some(Note::TokenOf(owner)) => user = Some(owner),
            Some(Note::Outside) | None => {}
        }
        Self {
            login: act.login.as_ref().map(Login::as_str),
            object: act.object.or_else(|| outcome.and_then(Outcome::id)),
            conversation: act.conversation,
            user,
            role: act.role.map(Role::as_str),
            role_before,
            members: &act.members,
            outside: note == Some(Note::Outside),
            ..self
        }
    }

    /// Writes the line; that of a failure only if there were few from where it comes.
    pub fn write(&self) {
        if self.result == OK {
            return self.put();
        }
        let now = Instant::now();
        let source = self.remote.parse().ok();
        let source = source.map(|address| Remote::Tcp(address).source());
        let (sums, own) = with_failures(|failures| {
            let sums = failures.sums(now);
            let what = (self.event, self.result);
            (sums, failures.count(source, what, self.remote, now))
        });
        put_sums(sums);
        if own {
            self.put();
        }
    }

    fn put(&self) {
        match serde_json::to_string(self) {
            Ok(line) => tracing::info!(target: TARGET, "{}", escaped(line)),
            Err(error) => tracing::error!(%error, "an audit line cannot be encoded"),
        }
    }
}

/// Writes down what was left out in a second that is over; to be called now and then.
pub fn sum_up() {
    put_sums(with_failures(|failures| failures.sums(Instant::now())));
}

/// Writes down what was left out so far; to be called at the end.
pub fn sum_all_up() {
    put_sums(with_failures(Failures::all_sums));
}

fn with_failures<T>(act: impl FnOnce(&mut Failures) -> T) -> T {
    act(&mut FAILURES.lock().unwrap_or_else(PoisonError::into_inner))
}

fn put_sums(sums: Vec<Sum>) {
    for sum in sums {
        let record = Record {
            remote: &sum.remote,
            count: Some(sum.count),
            ..Record::of(None, &sum.event, &sum.result)
        };
        record.put();
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
