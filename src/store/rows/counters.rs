//! The row of a conversation's message counters.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// The message counters of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct CountersRow {
    /// Messages ever created in it.
    #[n(0)]
    pub created: u64,
    /// Messages in it now.
    #[n(1)]
    pub messages: u64,
}
