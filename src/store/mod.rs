//! The store: what is committed, and the one way to change it.
//!
//! [`Store`] is a set of semantic operations. Nothing outside this folder knows which store it talks to, and only this
//! folder knows sled. The rules of the domain (`rules/`) stand above every store once.
//!
//! **Invariant:** an operation is answered `Ok` only when it is on stable storage, and its events are handed on before
//! it is answered.

mod actor;
mod answer;
mod backlog;
mod backoff;
mod bounded;
mod data_dir;
mod embedded;
mod failure;
mod fair;
mod format;
mod journal;
mod keys;
mod lock;
mod memory;
mod modes;
mod moment;
mod operation;
mod outside;
mod present;
mod quota;
mod recent;
mod remains;
mod room;
mod rows;
mod rules;
mod search;
mod state;
mod state_dir;
#[cfg(test)]
mod steps;
mod told;
mod txn;
mod watch;

pub use actor::{Settings, Store};
pub use embedded::open as open_embedded;
pub use failure::Failure;
pub use fair::Asker;
#[cfg(fuzzing)]
pub use journal::fuzzing;
pub use memory::open as open_memory;
pub use operation::{
    Answer, Change, Compared, Counts, Ended, Ends, LoginHolder, Note, Operation, Outcome, Outside,
    Patch, Principal, Query, TokenOwner,
};
pub use quota::Amount;
pub use rules::{no_old_password, no_user, not_logged_in};

use crate::error::Error;
use crate::model::{Company, Event, Events, Id, Seq};
use std::fmt;

/// Why a store does not open.
#[derive(Debug)]
pub struct OpenError(pub String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// What is called with an operation's result, once.
pub type Done = Box<dyn FnOnce(Result<Outcome, Error>) + Send>;

/// What is called with each round's committed events, before its operations are answered, and with where the companions
/// of their users are; that is empty where everybody sees every user.
pub type OnCommit = Box<dyn FnMut(&[Event], &Company) + Send>;

/// The newest committed event, and which log it counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// The newest event's number.
    pub seq: Seq,
    /// The oldest event that is kept; one above `seq` if none is.
    pub oldest: Seq,
    /// The log.
    pub epoch: Id,
}

/// A piece of the event log.
#[derive(Debug)]
pub struct EventPage {
    /// The oldest event that is kept: older ones are gone.
    pub oldest: Seq,
    /// Events, in order, without a hole, and without the texts that were taken back since; none if there are none yet.
    pub events: Option<Events>,
    /// Those of them that whoever asks may see although their audience does not name it.
    pub unnamed: Vec<Seq>,
}
