//! What is stored under the keys: rows of their own, apart from the objects of the wire.
//!
//! A row is a version byte and its fields as postcard writes them. Fields are never reordered or removed; a change of
//! layout is a new version.

use crate::error::Error;
use crate::model::{Conversation, ConversationId, Id, Message, MessageId, Role, User, UserId};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The version of the rows' layout, and of the key table.
pub const FORMAT_VERSION: u8 = 1;

/// Writes a row.
pub fn encode(row: &impl Serialize) -> Result<Vec<u8>, Error> {
    postcard::to_extend(row, vec![FORMAT_VERSION]).map_err(|error| {
        tracing::error!(%error, "a row cannot be encoded");
        Error::internal()
    })
}

/// Reads a row.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    match bytes.split_first() {
        Some((&FORMAT_VERSION, fields)) => {
            postcard::from_bytes(fields).map_err(|error| damaged(&error))
        }
        _ => Err(damaged(&"unknown version")),
    }
}

fn damaged(error: &dyn std::fmt::Display) -> Error {
    tracing::error!(%error, "a row of the state cannot be read; start chatd with the state directory moved away to rebuild it");
    Error::internal()
}

/// The state as a whole: the newest numbers, and how much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The number of the journal record that made this state.
    pub record: u64,
    /// The newest event's number.
    pub seq: u64,
    /// The newest id.
    pub last_id: u64,
    /// The time of the newest round, in milliseconds: [`crate::model::Moment::log_ms`], which never runs backwards.
    pub time: u64,
    /// Users.
    pub users: u64,
    /// Conversations, those being deleted not counted.
    pub conversations: u64,
    /// Messages, those of conversations being deleted not counted.
    pub messages: u64,
}

/// A stored user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow<'a> {
    /// The login as given.
    #[serde(borrow)]
    pub login: Cow<'a, str>,
    /// The name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The surname.
    #[serde(borrow)]
    pub surname: Option<Cow<'a, str>>,
    /// Whether the role is admin.
    pub admin: bool,
    /// The bcrypt hash.
    #[serde(borrow)]
    pub password_hash: Cow<'a, str>,
    /// When it was created.
    pub created_time: u64,
    /// When it was last updated.
    pub updated_time: Option<u64>,
    /// The conversations it is a member of, those being deleted counted until they are gone.
    pub conversations: u64,
}

/// A stored conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationRow<'a> {
    /// The name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The description.
    #[serde(borrow)]
    pub description: Option<Cow<'a, str>>,
    /// How many members it has.
    pub members: u64,
    /// The id of the user whose session created it.
    pub created_by: Option<u64>,
    /// When it was created.
    pub created_time: u64,
    /// When it was last updated.
    pub updated_time: Option<u64>,
}

/// The message counters of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersRow {
    /// Messages ever created in it.
    pub created: u64,
    /// Messages in it now.
    pub messages: u64,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRow<'a> {
    /// The author's id.
    pub user: u64,
    /// How many were created before it in its conversation.
    pub ordinal: u64,
    /// When it was created.
    pub created_time: u64,
    /// When it was last updated.
    pub updated_time: Option<u64>,
    /// The nonce it was created with.
    #[serde(borrow)]
    pub nonce: Option<Cow<'a, str>>,
    /// The text.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
}

/// What a nonce was used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonceRow {
    /// The message's id.
    pub message: u64,
    /// SHA-256 of the first text: an update changes the message, not what the nonce was used for.
    pub text_hash: [u8; 32],
    /// When the message was deleted, by the time that never runs backwards.
    pub deleted_time: Option<u64>,
}

/// A session token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow<'a> {
    /// Whose it is.
    pub user: u64,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// What it is for.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// When it was created.
    pub created_time: u64,
    /// When it expires.
    pub expires_time: Option<u64>,
    /// When its use was last noted.
    pub last_used_time: Option<u64>,
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

impl UserRow<'_> {
    /// The row, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> UserRow<'static> {
        UserRow {
            login: owned(self.login),
            name: owned(self.name),
            surname: self.surname.map(owned),
            password_hash: owned(self.password_hash),
            ..self
        }
    }

    /// The user as an object.
    #[must_use]
    pub fn object(&self, user_id: UserId) -> User<'_> {
        User {
            user_id,
            login: Cow::Borrowed(&self.login),
            name: Cow::Borrowed(&self.name),
            surname: self.surname.as_deref().map(Cow::Borrowed),
            role: if self.admin { Role::Admin } else { Role::User },
            created_time: self.created_time,
            updated_time: self.updated_time,
        }
    }
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
