//! The row of the costs that passwords are hashed with.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// With which cost how many passwords are hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct CostsRow {
    /// The users whose hash has the cost of the index.
    #[n(0)]
    pub users: [u64; 32],
}
