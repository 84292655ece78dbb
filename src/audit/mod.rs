//! The audit log: one line, an object of JSON, for each login, failure and act of administration, for what an admin does
//! and reads in conversations that it is not in, and for each connection that was closed for what its client did.
//!
//! It is part of the log, under the target `audit`, and is written whatever `RUST_LOG` and `log.level` say. No secret has a
//! place in it; what a client wrote is escaped, and with it what would end the line or show it other than it is. Failures
//! and readings are bounded: whoever makes one after the other does not fill the log with them.

mod act;
mod frequent;

use crate::model::{
    ConversationId, Id, Login, Role, TokenId, UserId, acts_on_text, is_default_ignorable,
};
use crate::registry::{Remote, Session};
use crate::store::{Note, Outcome};
pub use act::Act;
use frequent::{Frequent, Kind, Sum};
use serde::Serialize;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

/// What came in the second that runs.
static FREQUENT: LazyLock<Mutex<Frequent>> = LazyLock::new(Mutex::default);

/// The result of what was done as it was asked for.
const OK: &str = "ok";

/// The event of a connection that the server closed.
const CLOSED: &str = "closed";

/// The target of its lines.
pub const TARGET: &str = "audit";

/// What happened.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    /// What was done: `login`, `logout`, `closed`, or the command, such as `user delete`.
    pub event: &'a str,
    /// `ok`, or the code of the refusal, or why a connection was closed.
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
    /// In which conversation, where the object is a message; which one was read.
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
    /// The limit that was reached, where a connection was closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<&'static str>,
    /// Whether it was done by an admin in conversations that it was not in.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub outside: bool,
    /// How many of these there were, where they are summed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Whether something was read, and nothing done.
    #[serde(skip)]
    pub reading: bool,
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
            limit: None,
            outside: false,
            count: None,
            reading: false,
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

    /// What an admin read of a conversation that it is not in, or of all.
    #[must_use]
    pub fn of_reading(
        session: Option<&'a Session>,
        event: &'a str,
        conversation: Option<ConversationId>,
    ) -> Self {
        Self {
            conversation: conversation.map(|id| id.0),
            outside: true,
            reading: true,
            ..Self::of(session, event, OK)
        }
    }

    /// Why a connection was closed, in a session or before there was one.
    #[must_use]
    pub fn of_closing(session: Option<&'a Session>, remote: &'a str, code: &'a str) -> Self {
        Self {
            remote,
            ..Self::of(session, CLOSED, code)
        }
    }

    /// Writes the line; that of a failure or of a reading only if there were few from where it comes.
    pub fn write(&self) {
        if self.result == OK && !self.reading {
            return self.put();
        }
        let reading = (self.by, self.conversation.map(ConversationId));
        let kind = Kind {
            event: self.event.to_owned(),
            result: self.result.to_owned(),
            limit: self.limit,
            reading: self.reading.then_some(reading),
        };
        let now = Instant::now();
        let source = self.remote.parse().ok();
        let source = source.map(|address| Remote::Tcp(address).source());
        let (sums, own) = with_frequent(|frequent| {
            let sums = frequent.sums(now);
            (sums, frequent.count(source, kind, self.remote, now))
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
    put_sums(with_frequent(|frequent| frequent.sums(Instant::now())));
}

/// Writes down what was left out so far; to be called at the end.
pub fn sum_all_up() {
    put_sums(with_frequent(Frequent::all_sums));
}

fn with_frequent<T>(act: impl FnOnce(&mut Frequent) -> T) -> T {
    act(&mut FREQUENT.lock().unwrap_or_else(PoisonError::into_inner))
}

fn put_sums(sums: Vec<Sum>) {
    for sum in sums {
        let (by, conversation) = sum.kind.reading.unwrap_or_default();
        let record = Record {
            remote: &sum.remote,
            by,
            conversation: conversation.map(|id| id.0),
            outside: sum.kind.reading.is_some(),
            limit: sum.kind.limit,
            count: Some(sum.count),
            ..Record::of(None, &sum.kind.event, &sum.kind.result)
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
        let acting = |c: &char| acts_on_text(*c) || is_default_ignorable(*c);
        for c in
            "\n\r\u{1b}\u{7f}\u{85}\u{9b}\u{2028}\u{2029}\u{200e}\u{202e}\u{2066}\u{feff}\u{e0001}"
                .chars()
        {
            assert!(acting(&c), "{c:?}");
        }
        for c in ('\0'..=char::MAX).filter(acting) {
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
