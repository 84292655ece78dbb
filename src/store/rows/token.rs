//! A session token's row.

use super::owned;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A session token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct TokenRow<'a> {
    /// Whose it is.
    #[n(0)]
    pub user: u64,
    /// SHA-256 of the token.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// What it is for.
    #[serde(borrow)]
    #[b(2)]
    pub name: Cow<'a, str>,
    /// When it was created.
    #[n(3)]
    pub created_time: u64,
    /// When it expires.
    #[n(4)]
    pub expires_time: Option<u64>,
    /// When its use was last noted.
    #[n(5)]
    pub last_used_time: Option<u64>,
}

impl TokenRow<'_> {
    /// The row, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> TokenRow<'static> {
        TokenRow {
            name: owned(self.name),
            ..self
        }
    }
}
