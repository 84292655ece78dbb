//! What is stored under the keys: rows of their own, apart from the objects of the wire, a file for each kind.
//!
//! A row is a byte that says in which [`Format`] it is, and its fields.
//!
//! | format | fields |
//! |---|---|
//! | 1 | in a fixed order, as postcard writes them |
//! | 2 | a CBOR array, each at its number: one behind the end, or null, is not set; one that is unknown is passed over |
//!
//! To add a field: give it the next number, make it an `Option`, and mark it `#[serde(skip)]`, since format 1 has no place
//! for it. A number is never used for anything else, and a field is never removed. A rule that sets such a field refuses
//! it where [`Head::format`] is too old to keep it.
//!
//! What holds one id alone (which conversation a message is in, whose a login is) is that id's eight bytes, and no row.

mod conversation;
mod costs;
mod counters;
mod head;
mod message;
mod nonce;
mod token;
mod user;

pub use conversation::ConversationRow;
pub use costs::CostsRow;
pub use counters::CountersRow;
pub use head::Head;
pub use message::MessageRow;
pub use nonce::NonceRow;
pub use token::TokenRow;
pub use user::UserRow;

use crate::error::Error;
use crate::store::format::Format;
use minicbor::{Decode, Decoder, Encode};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::Display;

/// The version of the key table.
pub const KEYS_VERSION: u8 = 1;

/// Room for a row that is neither small nor large.
const ROW_BYTES: usize = 128;

/// Writes a row in a format.
pub fn encode(row: &(impl Serialize + Encode<()>), format: Format) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(ROW_BYTES);
    bytes.push(format.number());
    let written = if format == Format::POSTCARD {
        postcard::to_extend(row, bytes).map_err(|error| error.to_string())
    } else {
        let written = minicbor::encode(row, &mut bytes).map_err(|error| error.to_string());
        written.map(|()| bytes)
    };
    written.map_err(|error| {
        tracing::error!(error, "a row cannot be encoded");
        Error::internal()
    })
}

/// Reads a row of any format.
pub fn decode<'a, T: Deserialize<'a> + Decode<'a, ()>>(bytes: &'a [u8]) -> Result<T, Error> {
    let (format, fields) = split(bytes).ok_or_else(|| damaged(&"unknown format"))?;
    if format == Format::POSTCARD {
        return postcard::from_bytes(fields).map_err(|error| damaged(&error));
    }
    let mut decoder = Decoder::new(fields);
    let row = decoder.decode().map_err(|error| damaged(&error))?;
    if decoder.position() == fields.len() {
        Ok(row)
    } else {
        Err(damaged(&"something stands behind it"))
    }
}

/// The format of a row, and its fields.
fn split(bytes: &[u8]) -> Option<(Format, &[u8])> {
    let (&format, fields) = bytes.split_first()?;
    Some((Format::known(format)?, fields))
}

fn damaged(error: &dyn Display) -> Error {
    tracing::error!(%error, "a row of the state cannot be read; start chatd with the state directory moved away to rebuild it");
    Error::internal()
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

#[cfg(test)]
mod tests;
