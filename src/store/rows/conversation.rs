//! A conversation's row.

use super::owned;
use crate::model::{Conversation, ConversationId, Id, UserId};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A stored conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct ConversationRow<'a> {
    /// The name.
    #[serde(borrow)]
    #[b(0)]
    pub name: Cow<'a, str>,
    /// The description.
    #[serde(borrow)]
    #[b(1)]
    pub description: Option<Cow<'a, str>>,
    /// How many members it has.
    #[n(2)]
    pub members: u64,
    /// The id of the user whose session created it.
    #[n(3)]
    pub created_by: Option<u64>,
    /// When it was created.
    #[n(4)]
    pub created_time: u64,
    /// When it was last updated.
    #[n(5)]
    pub updated_time: Option<u64>,
}

impl ConversationRow<'_> {
    /// The row, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> ConversationRow<'static> {
        ConversationRow {
            name: owned(self.name),
            description: self.description.map(owned),
            ..self
        }
    }

    /// The conversation as an object; its members are in rows of their own.
    #[must_use]
    pub fn object(
        &self,
        conversation_id: ConversationId,
        user_ids: Option<Vec<UserId>>,
    ) -> Conversation<'_> {
        Conversation {
            conversation_id,
            name: Cow::Borrowed(&self.name),
            description: self.description.as_deref().map(Cow::Borrowed),
            member_count: self.members,
            user_ids,
            created_by: self.created_by.map(|id| UserId(Id(id))),
            created_time: self.created_time,
            updated_time: self.updated_time,
        }
    }
}
