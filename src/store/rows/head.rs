//! The head of the state.

use super::{damaged, decode, encode, split};
use crate::error::Error;
use crate::store::format::Format;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// The state as a whole: the newest numbers, and how much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct Head {
    /// The number of the journal record that made this state.
    #[n(0)]
    pub record: u64,
    /// The newest event's number.
    #[n(1)]
    pub seq: u64,
    /// The newest id.
    #[n(2)]
    pub last_id: u64,
    /// The time of the newest round, in milliseconds: [`crate::model::Moment::log_ms`], which never runs backwards.
    #[n(3)]
    pub time: u64,
    /// Users.
    #[n(4)]
    pub users: u64,
    /// Conversations, those being deleted not counted.
    #[n(5)]
    pub conversations: u64,
    /// Messages, those of conversations being deleted not counted.
    #[n(6)]
    pub messages: u64,
    /// In which format rows are written: the one of this row.
    #[serde(skip)]
    #[cbor(skip)]
    pub format: Format,
}

impl Head {
    /// The head's row.
    pub fn to_row(self) -> Result<Vec<u8>, Error> {
        encode(&self, self.format)
    }

    /// Reads the head's row.
    pub fn from_row(row: &[u8]) -> Result<Self, Error> {
        let (format, _) = split(row).ok_or_else(|| damaged(&"unknown format"))?;
        let head = decode(row)?;
        Ok(Self { format, ..head })
    }
}
