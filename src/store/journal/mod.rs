//! The journal: the truth of the embedded store, and the log of events (append-only segment files).
//!
//! A segment is `NUMBER.journal`, NUMBER being that of its first record; it begins with a header. A record is one
//! committed round: its length and CRC-32C, its number, the number of its first event, its time, the changes of the
//! state that it makes, and its events as they go on the wire. Numbers are dense, so that a missing record is noticed.
//! A later file of another ending may stand for all records before its number without changing this format.
//!
//! A record is appended and fdatasynced before anything of it is applied or answered.
//!
//! | in `journal/` | |
//! |---|---|
//! | `NUMBER.journal` | a segment |
//! | `MANIFEST` | which segments there are (`manifest.rs`) |
//! | `NUMBER.cut-TIME` | what was cut off that segment's end at a start; the newest few |
//! | `NUMBER.aside-TIME` | a segment that is none of the journal any more, by a person's word or by a crash |

mod audit;
mod end;
mod format;
mod kept;
mod manifest;
mod opening;
mod pieces;
mod reader;
mod records;
mod segment;
mod writer;

pub use audit::begin as begin_audit;
pub use end::End;
pub use format::Record;
pub use opening::CheckedJournal;
pub use reader::JournalReader;
pub use writer::{AppendError, JournalWriter};

use std::io;

/// A journal that cannot be trusted, or not be read: what is wrong, and where.
#[derive(Debug)]
pub struct Damage(pub String);

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Self(format!("the journal cannot be read: {error}"))
    }
}

#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "it serves tests alone")]
mod sample;
#[cfg(test)]
mod tests;
