//! The row of a nonce.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// What a nonce was used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct NonceRow {
    /// The message's id.
    #[n(0)]
    pub message: u64,
    /// SHA-256 of the first text: an update changes the message, not what the nonce was used for.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub text_hash: [u8; 32],
    /// When the message was deleted, by the time that never runs backwards.
    #[n(2)]
    pub deleted_time: Option<u64>,
}
