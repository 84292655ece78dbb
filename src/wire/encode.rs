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

fn json_line(value: &impl Serialize) -> Bytes {
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

/// Why the server closes a connection of its own accord (protocol.md, 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The daemon stops.
    Shutdown,
    /// The session was ended: its user was deleted, its password changed, its token deleted, or an admin stopped it.
    SessionEnded,
    /// Nobody logged in for too long.
    LoginTimeout,
    /// The client took no byte for too long.
    Stalled,
    /// The stored events that come next cannot be read.
    EventsUnreadable,
    /// There are as many connections as there may be.
    TooManyConnections,
    /// Requests came faster than they may before a login.
    RateLimited,
    /// The line was one of HTTP.
    Http,
    /// What came is not of this protocol.
    Protocol,
    /// The connection is a proxy's, and does not begin with its header.
    NoProxyHeader,
    /// This socket is for others.
    Forbidden,
    /// The store is not open yet.
    Opening,
    /// The storage failed, and the daemon ends: what was asked last may have been done or not.
    Unavailable,
}

impl CloseReason {
    /// Its stable code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::SessionEnded => "session_ended",
            Self::LoginTimeout => "login_timeout",
            Self::Stalled => "stalled",
            Self::TooManyConnections => "too_many_connections",
            Self::RateLimited => "rate_limited",
            Self::Http => "http",
            Self::Protocol | Self::NoProxyHeader => "protocol",
            Self::Forbidden => "forbidden",
            Self::EventsUnreadable | Self::Opening | Self::Unavailable => "unavailable",
        }
    }

    /// Whether it lies in what the client did, or in how many there are: whoever runs the server is told of it.
    #[must_use]
    pub const fn is_abuse(self) -> bool {
        match self {
            Self::LoginTimeout
            | Self::Stalled
            | Self::TooManyConnections
            | Self::RateLimited
            | Self::Http
            | Self::Protocol
            | Self::NoProxyHeader
            | Self::Forbidden => true,
            Self::Shutdown
            | Self::SessionEnded
            | Self::EventsUnreadable
            | Self::Opening
            | Self::Unavailable => false,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Shutdown => "chatd is stopping; connect again in a moment",
            Self::SessionEnded => "this session was ended; log in again if you still may",
            Self::LoginTimeout => "nobody logged in on this connection in time",
            Self::Stalled => "nothing was read from this connection for too long",
            Self::EventsUnreadable => {
                "the stored events that come next cannot be read now; the log of chatd says why"
            }
            Self::TooManyConnections => {
                "chatd has as many connections as it takes; try again later"
            }
            Self::RateLimited => {
                "requests came too fast on a connection on which nobody is logged in; log in first"
            }
            Self::Http => "this port speaks newline-delimited JSON, not HTTP",
            Self::Protocol => "this port speaks newline-delimited JSON, and this is something else",
            Self::NoProxyHeader => {
                "chatd.toml names you under trusted_proxies, and a connection of yours begins with a PROXY header"
            }
            Self::Forbidden => "this socket is not for your user",
            Self::Opening => {
                "chatd has just started and opens its store; connect again in a moment"
            }
            Self::Unavailable => {
                "the storage failed and chatd starts again; what was not answered may have been done or not: connect again in a moment, and repeat messages with the same nonce"
            }
        }
    }
}

/// The last line before the server closes a connection of its own accord.
#[must_use]
pub fn closed_line(reason: CloseReason) -> Bytes {
    #[derive(Serialize)]
    struct Closed {
        class: &'static str,
        subclass: Subclass,
        r#type: &'static str,
        body: Body,
    }
    #[derive(Serialize)]
    struct Body {
        code: &'static str,
        error: &'static str,
        retry: bool,
    }
    let body = Body {
        code: reason.as_str(),
        error: reason.text(),
        retry: !matches!(
            reason,
            CloseReason::Http
                | CloseReason::SessionEnded
                | CloseReason::Protocol
                | CloseReason::NoProxyHeader
                | CloseReason::Forbidden
        ),
    };
    json_line(&Closed {
        class: "chat",
        subclass: Subclass::Session,
        r#type: "closed",
        body,
    })
}
