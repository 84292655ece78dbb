//! A message's row.

use super::owned;
use crate::model::{ConversationId, Id, Message, MessageId, UserId};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct MessageRow<'a> {
    /// The author's id.
    #[n(0)]
    pub user: u64,
    /// How many were created before it in its conversation.
    #[n(1)]
    pub ordinal: u64,
    /// When it was created.
    #[n(2)]
    pub created_time: u64,
    /// When it was last updated.
    #[n(3)]
    pub updated_time: Option<u64>,
    /// The nonce it was created with.
    #[serde(borrow)]
    #[b(4)]
    pub nonce: Option<Cow<'a, str>>,
    /// The text.
    #[serde(borrow)]
    #[b(5)]
    pub text: Cow<'a, str>,
}

impl MessageRow<'_> {
    /// The row, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> MessageRow<'static> {
        MessageRow {
            nonce: self.nonce.map(owned),
            text: owned(self.text),
            ..self
        }
    }

    /// The message as an object.
    #[must_use]
    pub fn object(&self, conversation_id: ConversationId, message_id: MessageId) -> Message<'_> {
        Message {
            message_id,
            conversation_id,
            user_id: UserId(Id(self.user)),
            message: Cow::Borrowed(&self.text),
            created_time: self.created_time,
            updated_time: self.updated_time,
        }
    }
}
