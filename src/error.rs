//! The closed table of error codes, and the one error type that reaches a client (protocol.md, 2).
//!
//! A code is stable and for programs; the text is for people and says what to do. Causes (paths, system errors) go to
//! the log and never into an [`Error`].

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+) => {
        /// A stable error code (protocol.md, 2). One may be added; none is ever renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            /// Every code, in the order of the reference.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code as it stands on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// What the code means, for the reference.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

codes! {
    /// The line is not UTF-8 or not JSON.
    BadJson = "bad_json",
    /// The line is longer than `limits.max_line_bytes`.
    LineTooLong = "line_too_long",
    /// The JSON is not an object, a field stands twice in it, or the request does not fit what came before.
    BadRequest = "bad_request",
    /// `class` is not `"chat"`.
    UnknownClass = "unknown_class",
    /// There is no such subclass.
    UnknownSubclass = "unknown_subclass",
    /// The subclass has no such command.
    UnknownCommand = "unknown_command",
    /// A mandatory field is missing.
    MissingField = "missing_field",
    /// There is no such field, or no such search operator.
    UnknownField = "unknown_field",
    /// A field has the wrong type, is empty, or is over its limit.
    InvalidField = "invalid_field",
    /// No such user.
    UserNotFound = "user_not_found",
    /// No such conversation, or none that may be seen.
    ConversationNotFound = "conversation_not_found",
    /// No such message, or none that may be seen.
    MessageNotFound = "message_not_found",
    /// No such session.
    SessionNotFound = "session_not_found",
    /// No such token, or another user's.
    TokenNotFound = "token_not_found",
    /// The login is another user's, whatever its case.
    LoginTaken = "login_taken",
    /// The nonce was used with another text.
    NonceReused = "nonce_reused",
    /// The command needs a login first.
    NotLoggedIn = "not_logged_in",
    /// The login or the password is wrong.
    LoginFailed = "login_failed",
    /// The command is not allowed to this user.
    Forbidden = "forbidden",
    /// Too many requests; `retry_after_ms` says when to try again.
    RateLimited = "rate_limited",
    /// The connection has as many subscriptions as it may have.
    TooManySubscriptions = "too_many_subscriptions",
    /// No further connection is accepted now.
    TooManyConnections = "too_many_connections",
    /// The events asked for are no longer stored, or were never written; `oldest`, `seq` and `epoch` say what is there.
    EventsExpired = "events_expired",
    /// The search, or another read, took longer than `limits.search_seconds`.
    Timeout = "timeout",
    /// The user has stored as much as a user may in a day; `retry_after_ms` says when the next one begins.
    QuotaExceeded = "quota_exceeded",
    /// The disk is full; nothing was changed.
    StorageFull = "storage_full",
    /// The storage cannot be written, or read, at the moment; nothing was changed.
    Unavailable = "unavailable",
    /// Something that should not happen did; the log says what.
    Internal = "internal",
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A refusal, as it is sent: a code, a text that says what to do, the field at fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Inner {
    code: Code,
    error: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<Example>,
    #[serde(flatten)]
    details: Map<String, Value>,
}

/// A request that works, as it is written.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
struct Example(Box<RawValue>);

impl PartialEq for Example {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Error {
    /// An error with its text.
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            code,
            error: text.into(),
            field: None,
            example: None,
            details: Map::new(),
        }))
    }

    /// The same error, naming the field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// The same error, naming the field at fault in its text too.
    #[must_use]
    pub fn named(mut self, field: &'static str) -> Self {
        self.0.error = format!("{field} {}", self.0.error).into();
        self.field(field)
    }

    /// The same error, showing a request that works: an object, to be copied as it stands.
    #[must_use]
    pub fn example(mut self, request: &str) -> Self {
        self.0.example = RawValue::from_string(request.to_owned()).ok().map(Example);
        self
    }

    /// The same error, with more said behind its text.
    #[must_use]
    pub fn and(mut self, text: &str) -> Self {
        self.0.error.to_mut().push_str(text);
        self
    }

    /// The same error with one more entry in its data, such as `retry_after_ms`.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.details.insert(name.to_owned(), value.into());
        self
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The field at fault, where one is.
    #[must_use]
    pub fn field_name(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// A field of the right name with a wrong value.
    pub fn invalid(
        field: impl Into<Cow<'static, str>>,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(Code::InvalidField, text).field(field)
    }

    /// What a client is told of a failure inside; the cause goes to the log.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            Code::Internal,
            "something went wrong inside chatd; its log says what",
        )
    }

    /// What a client is told while changes cannot be stored, or what is stored cannot be read.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(
            Code::Unavailable,
            "the storage cannot do this at the moment; nothing was changed; try again in a moment; the operator finds the cause in chatd's log",
        )
    }

    /// What a client is told whose answer takes more memory than there is for all.
    #[must_use]
    pub fn memory_short() -> Self {
        Self::new(
            Code::Unavailable,
            "there is not enough memory for so much at once; ask for a smaller size, or try again in a moment",
        )
    }

    /// What a client is told while the disk is full.
    #[must_use]
    pub fn storage_full() -> Self {
        Self::new(
            Code::StorageFull,
            "the disk is full; nothing was changed; try again when there is room",
        )
    }
}

impl Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.as_str(), self.0.error)
    }
}

impl std::error::Error for Error {}

/// Text of a client inside an error text: quoted, escaped, and cut to a readable length.
#[must_use]
pub fn excerpt(text: &str) -> String {
    const SHOWN_CHARS: usize = 64;
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
