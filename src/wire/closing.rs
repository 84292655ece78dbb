//! Why the server closes connections, and the last line that says so (protocol.md, 1).

use super::encode::json_line;
use crate::model::Subclass;
use bytes::Bytes;
use serde::Serialize;

/// Declares the reasons: each with its code, whether to try again, whether it lies in what the client did, and its text.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $retry:ident, $fault:ident: $text:literal;)+) => {
        /// Why the server closes a connection of its own accord (protocol.md, 1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CloseReason { $($(#[doc = $doc])+ $name,)+ }

        impl CloseReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its stable code.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// Whether the client is to try again.
            #[must_use]
            pub const fn retry(self) -> bool {
                match self { $(Self::$name => matches!(Retry::$retry, Retry::Again),)+ }
            }

            /// Whether it lies in what the client did, or in how many there are: whoever runs the server is told of it.
            #[must_use]
            pub const fn is_abuse(self) -> bool {
                match self { $(Self::$name => matches!(Fault::$fault, Fault::Client),)+ }
            }

            /// What the client is told.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

enum Retry {
    Again,
    Never,
}

enum Fault {
    Client,
    Nobody,
}

reasons! {
    /// The daemon stops.
    Shutdown = "shutdown", Again, Nobody: "chatd is stopping; connect again in a moment";
    /// The session was ended: its user was deleted, its password changed, its token deleted, or an admin stopped it.
    SessionEnded = "session_ended", Never, Nobody: "this session was ended; log in again if you still may";
    /// Nobody logged in for too long.
    LoginTimeout = "login_timeout", Again, Client: "nobody logged in on this connection in time";
    /// The client took no byte for too long.
    Stalled = "stalled", Again, Client: "nothing was read from this connection for too long";
    /// There are as many connections as there may be.
    TooManyConnections = "too_many_connections", Again, Client: "chatd has as many connections as it takes; try again later";
    /// Requests came faster than they may before a login.
    RateLimited = "rate_limited", Again, Client: "requests came too fast on a connection on which nobody is logged in; log in first";
    /// The line was one of HTTP.
    Http = "http", Never, Client: "this port speaks newline-delimited JSON, not HTTP";
    /// What came is not of this protocol.
    Protocol = "protocol", Never, Client: "this port speaks newline-delimited JSON, and this is something else";
    /// The connection is a proxy's, and does not begin with its header.
    NoProxyHeader = "protocol", Never, Client: "chatd.toml names you under trusted_proxies, and a connection of yours begins with a PROXY header";
    /// This socket is for others.
    Forbidden = "forbidden", Never, Client: "this socket is not for your user";
    /// The stored events that come next cannot be read.
    EventsUnreadable = "unavailable", Again, Nobody: "the stored events that come next cannot be read now; the log of chatd says why";
    /// The store is not open yet.
    Opening = "unavailable", Again, Nobody: "chatd has just started and opens its store; connect again in a moment";
    /// The storage failed, and the daemon ends: what was asked last may have been done or not.
    Unavailable = "unavailable", Again, Nobody: "the storage failed and chatd starts again; what was not answered may have been done or not: connect again in a moment, and repeat messages with the same nonce";
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
        retry: reason.retry(),
    };
    json_line(&Closed {
        class: "chat",
        subclass: Subclass::Session,
        r#type: "closed",
        body,
    })
}
