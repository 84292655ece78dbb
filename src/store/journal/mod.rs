//! The journal: the truth of the embedded store, and the log of events (append-only segment files).
//!
//! A segment is `NUMBER.journal`, NUMBER being that of its first record; it begins with a header. A record is one
//! committed round: its length and CRC-32C, its number, the number of its first event, its time, the changes of the
//! state that it makes, and its events as they go on the wire. Numbers are dense, so that a missing record is noticed.
//! A later file of another ending may stand for all records before its number without changing this format.
//!
//! A record is appended and fdatasynced before anything of it is applied or answered.

mod format;
mod reader;
mod writer;

pub use format::Record;
pub use reader::{Damage, JournalReader, Place};
pub use writer::{AppendError, JournalWriter};
