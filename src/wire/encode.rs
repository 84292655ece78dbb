//! Answers, events and the server's own notices as lines, their end included, and with no other line end in them.

use crate::error::Error;
use crate::model::{EventType, Id, Seq, Subclass, UserId};
use crate::wire::separators::escape_separators;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

/// The answer to a request: `result`, `data`, `tid`, in this order (protocol.md, 2).
///
/// `data` is JSON already; `tid` is echoed as it was written, but for what would cut the line.
#[must_use]
pub fn reply_line(answer: &Result<Bytes, Error>, tid: Option<&[u8]>) -> Bytes {
    let refusal;
    let (start, data): (&[u8], &[u8]) = match answer {
        Ok(data) => (br#"{"result":"ok","data":"#, data),
        Err(error) => {
            refusal = json(error);
            (br#"{"result":"error","data":"#, &refusal)
        }
    };
    let (before_tid, tid): (&[u8], &[u8]) = match tid {
        Some(tid) => (br#","tid":"#, tid),
        None => (b"", b""),
    };
    // A vector without room to spare becomes shared bytes as it is.
    escape_separators([start, data, before_tid, tid, b"}\n"].concat().into())
}

/// The `data` of an answer, as JSON; a failure inside is logged.
pub fn data(value: &impl Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| {
        tracing::error!(%error, "an answer cannot be encoded");
        Error::internal()
    })
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Every type that is sent serialises: strings for keys, and no failing Serialize of our own.
    serde_json::to_vec(value).unwrap_or_else(|_| b"{}".to_vec())
}

pub(super) fn json_line(value: &impl Serialize) -> Bytes {
    let mut line = json(value);
    line.push(b'\n');
    escape_separators(line.into())
}

/// The body of a stored event.
#[derive(Serialize)]
#[serde(untagged)]
pub enum EventBody<'a> {
    /// The users added or removed.
    Members {
        /// Their ids.
        user_ids: &'a [UserId],
    },
    /// A message, whole.
    Message(&'a crate::model::Message<'a>),
    /// A message that is no more.
    MessageId {
        /// Its id.
        message_id: crate::model::MessageId,
    },
}

#[derive(Serialize)]
struct EventLine<'a, Body> {
    class: &'static str,
    subclass: Subclass,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    obj_id: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
    time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<UserId>,
}

impl<Body: Serialize> EventLine<'_, Body> {
    fn encode(&self) -> Bytes {
        json_line(self)
    }
}

/// A stored event (protocol.md, 6).
#[must_use]
pub fn event_line(
    subclass: Subclass,
    kind: EventType,
    object: Id,
    body: Option<&EventBody<'_>>,
    seq: Seq,
    time: u64,
    by: Option<UserId>,
) -> Bytes {
    EventLine {
        class: "chat",
        subclass,
        r#type: kind.as_str(),
        obj_id: Some(object),
        body,
        seq: Some(seq),
        time,
        by,
    }
    .encode()
}

/// An event of `event send`, which has no number and is stored nowhere.
#[must_use]
pub fn ephemeral_line(
    kind: &str,
    object: Id,
    body: Option<&RawValue>,
    time: u64,
    by: Option<UserId>,
) -> Bytes {
    let subclass = Subclass::Conversation;
    EventLine {
        class: "chat",
        subclass,
        r#type: kind,
        obj_id: Some(object),
        body,
        seq: None,
        time,
        by,
    }
    .encode()
}

/// Says up to which event a subscriber has received everything (protocol.md, 6).
#[must_use]
pub fn position_line(seq: Seq, time: u64) -> Bytes {
    EventLine::<()> {
        class: "chat",
        subclass: Subclass::Event,
        r#type: "position",
        obj_id: None,
        body: None,
        seq: Some(seq),
        time,
        by: None,
    }
    .encode()
}

/// Says which events a subscriber missed for good (protocol.md, 6); both ends are included.
#[must_use]
pub fn gap_line(from: Seq, to: Seq, time: u64) -> Bytes {
    #[derive(Serialize)]
    struct Gap {
        from: Seq,
        to: Seq,
    }
    EventLine {
        class: "chat",
        subclass: Subclass::Event,
        r#type: "gap",
        obj_id: None,
        body: Some(Gap { from, to }),
        seq: None,
        time,
        by: None,
    }
    .encode()
}
