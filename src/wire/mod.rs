//! The wire: bytes to lines, lines to envelopes, answers and events to lines, and the queue of lines that wait for a
//! client (protocol.md, 1 and 2).
//!
//! Nothing here knows what a command does, or where anything is stored.

mod closing;
mod encode;
mod envelope;
mod line;
mod mend;
mod number;
mod outbox;
mod separators;
mod sound;
mod stored;

pub use closing::{CloseReason, closed_line};
pub use encode::{
    EventBody, data, ephemeral_line, event_line, gap_line, position_line, reply_line,
};
pub use envelope::{Envelope, EnvelopeError, Object, parse_envelope, parse_object, text};
pub use line::{LineDecoder, LineError, looks_like_http, looks_like_proxy};
pub use mend::{Habit, Mended, mend};
pub use number::whole_number;
pub use outbox::{Batch, Offered, Outbox, ReplySlot};
pub use separators::escape_separators;
pub use stored::{StoredText, stored_text, without_text};
