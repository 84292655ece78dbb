//! What can be asked of a store: changes, with what comes of them, and queries, with their answers.

use crate::model::{
    ConversationId, Description, Given, Id, Login, MessageId, MessageText, Name, Nonce,
    PasswordHash, Role, Search, Surname, UserId,
};
use crate::store::search::Page;
use bytes::Bytes;
use serde::{Serialize, Serializer};

/// For whom something is done: what its rights are is decided where the objects are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A trusted connection: everything is allowed.
    Trusted,
    /// A user that logged in.
    User(UserId),
}

/// A change, decided and committed as a whole or refused as a whole.
#[derive(Debug)]
pub struct Operation {
    /// For whom.
    pub by: Principal,
    /// What.
    pub change: Change,
}

/// What an update does to an optional field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patch<T> {
    /// The field was not named.
    Keep,
    /// The field was `null`.
    Clear,
    /// The field has a new value.
    Set(T),
}

/// The changes (protocol.md, 4 and 8).
#[derive(Debug)]
#[expect(
    missing_docs,
    reason = "the fields are those of the commands, documented there"
)]
pub enum Change {
    CreateUser {
        login: Login,
        name: Name,
        surname: Option<Surname>,
        password: PasswordHash,
        role: Option<Role>,
    },
    UpdateUser {
        user: Given<UserId>,
        name: Option<Name>,
        surname: Patch<Surname>,
        password: Option<PasswordHash>,
        role: Option<Role>,
    },
    DeleteUser {
        user: Given<UserId>,
    },
    CreateConversation {
        name: Name,
        description: Option<Description>,
        users: Vec<Given<UserId>>,
    },
    UpdateConversation {
        conversation: Given<ConversationId>,
        name: Option<Name>,
        description: Patch<Description>,
    },
    DeleteConversation {
        conversation: Given<ConversationId>,
    },
    AddMembers {
        conversation: Given<ConversationId>,
        users: Vec<Given<UserId>>,
    },
    RemoveMembers {
        conversation: Given<ConversationId>,
        users: Vec<Given<UserId>>,
    },
    CreateMessage {
        conversation: Given<ConversationId>,
        user: Given<UserId>,
        text: MessageText,
        nonce: Option<Nonce>,
    },
    UpdateMessage {
        conversation: Given<ConversationId>,
        message: Given<MessageId>,
        text: MessageText,
    },
    DeleteMessage {
        conversation: Given<ConversationId>,
        message: Given<MessageId>,
    },
}

/// What came of a change: the `data` of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// Done; nothing to say.
    Done {},
    /// A user was created.
    User {
        /// Its id.
        user_id: UserId,
    },
    /// A conversation was created.
    Conversation {
        /// Its id.
        conversation_id: ConversationId,
    },
    /// A message was created, or had been with the same nonce.
    Message {
        /// Its id.
        message_id: MessageId,
    },
}

/// A question about the committed state.
#[derive(Debug)]
pub enum Query {
    /// One user.
    User(Given<UserId>),
    /// One conversation.
    Conversation(Given<ConversationId>),
    /// One message.
    Message(Given<MessageId>),
    /// The members of a conversation.
    Members {
        /// The conversation.
        conversation: Given<ConversationId>,
        /// Members to skip.
        from: usize,
        /// The most to list; all if left out.
        size: Option<usize>,
    },
    /// A search.
    Search(Search),
    /// Whether a conversation may receive an ephemeral event.
    Reachable(Given<ConversationId>),
    /// How much there is.
    Counts,
}

/// The answer to a [`Query`], already JSON where it is an object or a page.
#[derive(Debug)]
pub enum Answer {
    /// The `data` of the answer, as JSON.
    Json(Bytes),
    /// How much there is.
    Counts(Counts),
    /// A conversation that exists and may be seen.
    Reachable(Id),
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Users.
    pub users: u64,
    /// Conversations.
    pub conversations: u64,
    /// Messages.
    pub messages: u64,
}

/// A page of members.
#[derive(Debug, Serialize)]
pub struct Members {
    /// Their ids, sorted.
    pub user_ids: Vec<UserId>,
    /// How many there are.
    pub total: u64,
}

impl Serialize for Page {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            total: Option<u64>,
            data: &'a [Box<serde_json::value::RawValue>],
        }
        Shown {
            total: self.total,
            data: &self.rows,
        }
        .serialize(serializer)
    }
}
