//! Texts with limits: logins, names, messages, passwords, nonces (protocol.md, 3).

use crate::error::excerpt;
use crate::limits::{
    DESCRIPTION_MAX_BYTES, EVENT_TYPE_MAX_BYTES, LOGIN_MAX_BYTES, NAME_MAX_BYTES, NONCE_MAX_BYTES,
    PASSWORD_MAX_BYTES,
};
use crate::model::text::{is_control, is_invisible, is_visible};
use crate::model::{EventType, Id};
use std::fmt;
use std::marker::PhantomData;

/// A text of `MIN` to `MAX` bytes without NUL, that keeps to a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<const MIN: usize, const MAX: usize, Kept = Any>(String, PhantomData<Kept>);

/// A login: kept as given, unique without regard to case, and with nothing invisible in it.
pub type Login = Text<1, LOGIN_MAX_BYTES, Visible>;
/// A login that is tried: it may be one that was given when more was allowed.
pub type TriedLogin = Text<1, LOGIN_MAX_BYTES>;
/// The name of a user, a conversation or a token.
pub type Name = Text<1, NAME_MAX_BYTES, Shown>;
/// A user's surname.
pub type Surname = Text<0, NAME_MAX_BYTES, Shown>;
/// A conversation's description.
pub type Description = Text<0, DESCRIPTION_MAX_BYTES>;
/// What makes a send safe to repeat (protocol.md, 4).
pub type Nonce = Text<1, NONCE_MAX_BYTES>;

/// What a text may hold.
pub trait Rule {
    /// What is said of it behind the limits, where there is more to say.
    const DESCRIPTION: &'static str = "";

    /// What is wrong with a text that is within its limits.
    fn check(text: &str) -> Result<(), String>;
}

/// Any text will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Any;

/// Every character can be seen: so nobody can take a login that looks like another one's for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visible;

/// Something can be seen, and nothing changes what is around the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown;

impl Rule for Any {
    fn check(_: &str) -> Result<(), String> {
        Ok(())
    }
}

impl Rule for Visible {
    const DESCRIPTION: &'static str = ", without white space and what is invisible";

    fn check(text: &str) -> Result<(), String> {
        without(text, is_invisible, "white space, or cannot be seen")
    }
}

impl Rule for Shown {
    const DESCRIPTION: &'static str = ", with something visible and no control characters";

    fn check(text: &str) -> Result<(), String> {
        without(
            text,
            is_control,
            "a control character, ends a line or turns text around",
        )?;
        if text.is_empty() || text.chars().any(is_visible) {
            Ok(())
        } else {
            Err("holds nothing that can be seen".to_owned())
        }
    }
}

/// That no character of a text is such a one; else which is, and where.
fn without(text: &str, is_such: fn(char) -> bool, what: &str) -> Result<(), String> {
    match (1..).zip(text.chars()).find(|(_, c)| is_such(*c)) {
        Some((number, c)) => Err(format!(
            "holds U+{:04X} as character {number}, which is {what}; leave it out",
            u32::from(c)
        )),
        None => Ok(()),
    }
}

impl<const MIN: usize, const MAX: usize, Kept: Rule> Text<MIN, MAX, Kept> {
    /// The text, if it is within its limits; else what is wrong with it.
    pub fn new(text: String) -> Result<Self, String> {
        check(&text, MIN, MAX)?;
        Kept::check(&text)?;
        Ok(Self(text, PhantomData))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

fn check(text: &str, min: usize, max: usize) -> Result<(), String> {
    if text.len() < min {
        Err("must not be empty".to_owned())
    } else if text.len() > max {
        Err(format!(
            "is {} bytes long, and at most {max} are allowed",
            text.len()
        ))
    } else if text.contains('\0') {
        Err("must not contain a NUL character".to_owned())
    } else {
        Ok(())
    }
}

/// The text of a message, 1 to `limits.max_message_bytes` bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageText(String);

impl MessageText {
    /// The text, if it is within `max_bytes`; else what is wrong with it.
    pub fn new(text: String, max_bytes: usize) -> Result<Self, String> {
        check(&text, 1, max_bytes)?;
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Debug for MessageText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageText({} bytes)", self.0.len())
    }
}

/// A password as a client gave it, 1 to 72 bytes. It shows itself nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password, if bcrypt can read all of it; else what is wrong with it.
    pub fn new(text: String) -> Result<Self, String> {
        check(&text, 1, PASSWORD_MAX_BYTES)?;
        Ok(Self(text))
    }

    /// How long it is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The password itself, for hashing.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A bcrypt hash. It shows itself nowhere but in the store.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// A hash that bcrypt made.
    #[must_use]
    pub fn new(hash: String) -> Self {
        Self(hash)
    }

    /// The cost that it was made with: 4 to 31; none if it is no such hash.
    #[must_use]
    pub fn cost(&self) -> Option<u32> {
        let cost = self.0.strip_prefix("$2b$")?.split_once('$')?.0;
        cost.parse().ok().filter(|cost| (4..=31).contains(cost))
    }

    /// The hash itself, for the store and for verifying.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// The type of an ephemeral event: 1 to 64 of `a-z 0-9 _ . -`, and none of the server's own (protocol.md, 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomType(String);

impl CustomType {
    /// The type, if an application may use it; else what is wrong with it.
    pub fn new(text: String) -> Result<Self, String> {
        check(&text, 1, EVENT_TYPE_MAX_BYTES)?;
        if !text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'))
        {
            return Err("may only contain a-z, 0-9, _, . and -".to_owned());
        }
        if EventType::is_reserved(&text) {
            return Err("is one of the server's own types".to_owned());
        }
        Ok(Self(text))
    }

    /// The type.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An id that a client named: opaque to it, so that any text may stand where an id is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given<T> {
    /// It can be an id.
    Id(T),
    /// It cannot be one; the text is kept for the answer that says so.
    Other(Box<str>),
}

impl<T: From<Id> + Copy + fmt::Display> Given<T> {
    /// What a text stands for.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Id::parse(text).map_or_else(|| Self::Other(text.into()), |id| Self::Id(T::from(id)))
    }

    /// The id, if it can be one.
    #[must_use]
    pub fn id(&self) -> Option<T> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Other(_) => None,
        }
    }
}

impl<T: fmt::Display> fmt::Display for Given<T> {
    /// The text as given, fit for an error's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Other(text) => f.write_str(&excerpt(text)),
        }
    }
}
