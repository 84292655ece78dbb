//! What can be asked of a store: changes, with what comes of them, and queries, with their answers.

use crate::model::{
    ConversationId, Description, Given, Id, Login, MessageId, MessageText, Name, Nonce,
    PasswordHash, Role, Search, Sight, Surname, Token, TokenHash, TokenId, UserId,
};
use crate::store::search::Page;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// For whom something is done: what its rights are is decided where the objects are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A trusted connection: everything is allowed.
    Trusted,
    /// A user that logged in.
    User(UserId),
    /// A user that logged in with a token: it may not do what whoever finds the token must not do.
    Token(UserId),
    /// Nobody logged in: the only change is to create a user, where the session lets it come this far.
    Nobody,
}

impl Principal {
    /// The user that it acts as, if it does.
    #[must_use]
    pub const fn user(self) -> Option<UserId> {
        match self {
            Self::User(user) | Self::Token(user) => Some(user),
            Self::Trusted | Self::Nobody => None,
        }
    }
}

/// A change, decided and committed as a whole or refused as a whole.
#[derive(Debug)]
pub struct Operation {
    /// For whom.
    pub by: Principal,
    /// What.
    pub change: Change,
}

/// Whether the session that asked for a change has ended: then the change is not made any more.
#[derive(Clone, Debug)]
pub struct Ended(Arc<AtomicU64>);

impl Default for Ended {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(Self::NEVER)))
    }
}

impl Ended {
    /// It ends when it is ended.
    const NEVER: u64 = u64::MAX;
    /// It has ended. No token expires before all time.
    const LONG_AGO: u64 = 0;

    /// Says that it has ended.
    pub fn set(&self) {
        self.0.store(Self::LONG_AGO, Ordering::Release);
    }

    /// Says when it ends by itself, by [`Moment::held_ms`](crate::model::Moment::held_ms). One that has ended stays so.
    pub fn expire_at(&self, expires_time: Option<u64>) {
        let at = expires_time.map_or(Self::NEVER, |time| time.clamp(1, Self::NEVER - 1));
        let change = |before| (before != Self::LONG_AGO).then_some(at);
        let (stored, read) = (Ordering::AcqRel, Ordering::Acquire);
        let _ = self.0.fetch_update(stored, read, change);
    }

    /// Whether it has ended by now; the time is asked for only where that matters.
    #[must_use]
    pub fn is_over(&self, held_ms: impl FnOnce() -> u64) -> bool {
        match self.0.load(Ordering::Acquire) {
            Self::LONG_AGO => true,
            Self::NEVER => false,
            at => at <= held_ms(),
        }
    }
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
        /// The hash that the old password was found to fit.
        old_password: Option<PasswordHash>,
        /// Whether a new password leaves the user its tokens.
        keep_tokens: bool,
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
    CreateToken {
        /// Whose; the asker's own, if left out.
        user: Option<Given<UserId>>,
        name: Name,
        expires_time: Option<u64>,
        token: Token,
    },
    DeleteToken {
        token: Given<TokenId>,
    },
    /// Notes the time in the log.
    NoteTime,
    /// Notes that a token was used just now.
    UseToken {
        token: TokenId,
    },
    /// Keeps another hash of the same password, if it still is the user's.
    RenewHash {
        user: UserId,
        /// The hash before.
        known: PasswordHash,
        hash: PasswordHash,
    },
}

/// Whose sessions a change ends, once it is committed (protocol.md, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Every one of a user's: it was deleted.
    All(UserId),
    /// Every one of a user's but the one that made the change: its password was changed.
    Others(UserId),
    /// Those that logged in with a token.
    Token(TokenId),
}

impl Outcome {
    /// The id of what was created.
    #[must_use]
    pub fn id(&self) -> Option<Id> {
        match self {
            Self::Done {} | Self::Noted { .. } => None,
            Self::User { user_id } => Some(user_id.0),
            Self::Conversation { conversation_id } => Some(conversation_id.0),
            Self::Message { message_id } => Some(message_id.0),
            Self::Token { token_id, .. } => Some(token_id.0),
        }
    }
}

impl Change {
    /// The object that its event is about, where that exists already.
    #[must_use]
    pub fn concerns(&self) -> Option<Id> {
        match self {
            Self::UpdateUser { user, .. } | Self::DeleteUser { user } => {
                user.id().map(|user| user.0)
            }
            Self::UpdateConversation { conversation, .. }
            | Self::DeleteConversation { conversation }
            | Self::AddMembers { conversation, .. }
            | Self::RemoveMembers { conversation, .. }
            | Self::CreateMessage { conversation, .. }
            | Self::UpdateMessage { conversation, .. }
            | Self::DeleteMessage { conversation, .. } => {
                conversation.id().map(|conversation| conversation.0)
            }
            Self::CreateUser { .. }
            | Self::CreateConversation { .. }
            | Self::CreateToken { .. }
            | Self::DeleteToken { .. }
            | Self::NoteTime
            | Self::UseToken { .. }
            | Self::RenewHash { .. } => None,
        }
    }

    /// Whether it only takes away what is stored.
    #[must_use]
    pub fn deletes(&self) -> bool {
        matches!(
            self,
            Self::DeleteUser { .. }
                | Self::DeleteConversation { .. }
                | Self::DeleteMessage { .. }
                | Self::DeleteToken { .. }
        )
    }

    /// How many users its list names.
    #[must_use]
    pub fn listed(&self) -> usize {
        match self {
            Self::CreateConversation { users, .. }
            | Self::AddMembers { users, .. }
            | Self::RemoveMembers { users, .. } => users.len(),
            _ => 0,
        }
    }

    /// Whose sessions the change ends.
    #[must_use]
    pub fn ends(&self) -> Option<Ends> {
        match self {
            Self::DeleteUser { user } => user.id().map(Ends::All),
            Self::UpdateUser {
                user,
                password: Some(_),
                ..
            } => user.id().map(Ends::Others),
            Self::DeleteToken { token } => token.id().map(Ends::Token),
            _ => None,
        }
    }
}

/// What came of a change: the `data` of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// Done; nothing to say.
    Done {},
    /// Done; nothing to say to whoever asked.
    Noted {
        /// For the audit log.
        #[serde(skip)]
        note: Note,
    },
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
    /// A token was created; this answer alone shows it.
    Token {
        /// Its id.
        token_id: TokenId,
        /// The token.
        token: Token,
    },
}

/// What the audit log tells of a change besides what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A role was named for a user who had this one.
    RoleBefore(Role),
    /// The token that was deleted was this user's.
    TokenOf(UserId),
    /// An admin did it in a conversation that it was not in.
    Outside,
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
    /// Whether whoever asks may do everything.
    Power,
    /// Whether whoever asks may create this user; no login holder, or the refusal.
    NewUser {
        /// Its login.
        login: Login,
        /// Its role, if one is named.
        role: Option<Role>,
    },
    /// Whether whoever asks may change this user's password; its login holder, or the refusal.
    NewPassword {
        /// The user.
        user: Given<UserId>,
        /// Whether its role is to change with it.
        names_role: bool,
    },
    /// The tokens of a user; the asker's own, if left out.
    Tokens(Option<Given<UserId>>),
    /// The user of a folded login, what a login must present, and what it is like where there is no such user.
    LoginHolder(String),
    /// The same of a user that is named by its id.
    Holder(Given<UserId>),
    /// Whose token this is, if it has not expired.
    TokenOwner(TokenHash),
    /// What a user may see of conversations.
    Sight(UserId),
    /// What is read of these conversations, or of all, that are not the asker's own.
    Outside(Option<Vec<Id>>),
}

/// The answer to a [`Query`], already JSON where it is an object or a page.
#[derive(Debug)]
pub enum Answer {
    /// The `data` of the answer, as JSON.
    Json(Bytes),
    /// The same, of conversations that are not the asker's own: an admin asked.
    OutsideJson(Bytes, Outside),
    /// What of conversations that are not the asker's own events will be of.
    Outside(Option<Outside>),
    /// How much there is; nothing is said of it to those who may not know.
    Counts(Option<Counts>),
    /// A conversation that exists and may be seen.
    Reachable(ConversationId),
    /// Whether everything is allowed.
    Power(bool),
    /// What a login is compared with.
    Login(Compared),
    /// Whose login it is; none if no user has it.
    LoginHolder(Option<LoginHolder>),
    /// A token in use; none if there is no such token, or it has expired.
    TokenOwner(Option<TokenOwner>),
    /// What a user may see.
    Sight(Sight),
}

/// What an admin reads of conversations that it is not in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Of all, or of more than are worth naming.
    All,
    /// Of these.
    Of(Vec<ConversationId>),
}

/// What a login is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Whose login it is; none if no user has it.
    pub holder: Option<LoginHolder>,
    /// The bcrypt cost that most users' passwords are hashed with; none if there are none.
    pub usual_cost: Option<u32>,
}

/// A user that can log in with a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginHolder {
    /// The user.
    pub user: UserId,
    /// Its login as kept.
    pub login: String,
    /// The hash of its password.
    pub password_hash: PasswordHash,
}

/// A token that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOwner {
    /// Its id.
    pub token: TokenId,
    /// Whose it is.
    pub user: UserId,
    /// Whose login, as kept.
    pub login: String,
    /// When it expires, in milliseconds; never, if left out.
    pub expires_time: Option<u64>,
    /// When its use was last noted, in milliseconds.
    pub last_used_time: Option<u64>,
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
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            cut: bool,
        }
        Shown {
            total: self.total,
            data: &self.rows,
            cut: self.cut,
        }
        .serialize(serializer)
    }
}
