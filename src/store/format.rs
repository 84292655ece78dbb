//! The format in which rows are written: a property of the log, which is raised by an explicit step alone.
//!
//! A reader accepts every format that was ever written, and a log may hold rows of several. The newest record's head says
//! in which format rows are written now; so whoever has read the log knows it. A log that is new begins with the newest
//! format. One that is older keeps its format, so that an older chatd can still open it, until somebody asks for more.

use std::fmt;

/// A format of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Format(u8);

/// The format of a log that is new.
impl Default for Format {
    fn default() -> Self {
        Self::NEWEST
    }
}

impl Format {
    /// Fields in a fixed order, as postcard writes them. None can be added.
    pub const POSTCARD: Self = Self(1);
    /// Numbered fields, as CBOR: any may be added.
    pub const NUMBERED: Self = Self(2);
    /// The one that a new log has.
    pub const NEWEST: Self = Self::NUMBERED;

    /// The format of this number, if this chatd knows it.
    #[must_use]
    pub fn known(number: u8) -> Option<Self> {
        (1..=Self::NEWEST.0)
            .contains(&number)
            .then_some(Self(number))
    }

    /// Its number: the first byte of each row.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The first version of chatd that reads it.
    #[must_use]
    pub const fn since(self) -> &'static str {
        match self.0 {
            1 => "0.1.0",
            _ => "0.2.0",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is said of data that a newer chatd wrote. `since` is the version that reads it, where that is known.
#[must_use]
pub fn newer(what: &str, number: u64, since: Option<&str>) -> String {
    let needed = since.map_or_else(
        || "a newer version".to_owned(),
        |since| format!("version {since} or a later one"),
    );
    format!(
        "{what} is of format {number}, which chatd {own} does not know (it knows up to {newest}): start {needed} of chatd; nothing was changed",
        own = env!("CARGO_PKG_VERSION"),
        newest = Format::NEWEST,
    )
}
