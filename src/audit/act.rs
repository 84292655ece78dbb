//! What a change is about, as far as the audit log tells it.

use crate::limits::AUDITED_IDS_MAX;
use crate::model::{Given, Id, Login, Role, UserId};
use crate::store::{Change, Operation};

/// What is kept of a change until it is known what came of it.
#[derive(Debug, Default)]
pub struct Act {
    /// What it is done to, if that exists already.
    pub object: Option<Id>,
    /// In which conversation.
    pub conversation: Option<Id>,
    /// Whose token is made.
    pub user: Option<UserId>,
    /// The login that a new user is to have.
    pub login: Option<Login>,
    /// The role that is named.
    pub role: Option<Role>,
    /// Who is to be a member, or no longer: the first of them.
    pub members: Vec<UserId>,
}

impl Act {
    /// What an operation is about.
    #[must_use]
    pub fn of(operation: &Operation) -> Self {
        let act = Self::default();
        match &operation.change {
            Change::CreateUser { login, role, .. } => Self {
                login: Some(login.clone()),
                role: *role,
                ..act
            },
            Change::UpdateUser { user, role, .. } => Self {
                object: user.id().map(|id| id.0),
                role: *role,
                ..act
            },
            Change::DeleteUser { user } => Self {
                object: user.id().map(|id| id.0),
                ..act
            },
            Change::UpdateConversation { conversation, .. }
            | Change::DeleteConversation { conversation } => Self {
                object: conversation.id().map(|id| id.0),
                ..act
            },
            Change::AddMembers {
                conversation,
                users,
            }
            | Change::RemoveMembers {
                conversation,
                users,
            } => Self {
                object: conversation.id().map(|id| id.0),
                members: users
                    .iter()
                    .filter_map(Given::id)
                    .take(AUDITED_IDS_MAX)
                    .collect(),
                ..act
            },
            Change::UpdateMessage {
                conversation,
                message,
                ..
            }
            | Change::DeleteMessage {
                conversation,
                message,
            } => Self {
                object: message.id().map(|id| id.0),
                conversation: conversation.id().map(|id| id.0),
                ..act
            },
            Change::CreateToken { user, .. } => Self {
                user: match user {
                    Some(user) => user.id(),
                    None => operation.by.user(),
                },
                ..act
            },
            Change::DeleteToken { token } => Self {
                object: token.id().map(|id| id.0),
                ..act
            },
            _ => act,
        }
    }

    /// Whether it may be one in a conversation that whoever asks for it is not in.
    #[must_use]
    pub fn may_be_outside(operation: &Operation) -> bool {
        let outside = matches!(
            operation.change,
            Change::UpdateConversation { .. }
                | Change::DeleteConversation { .. }
                | Change::AddMembers { .. }
                | Change::RemoveMembers { .. }
                | Change::UpdateMessage { .. }
                | Change::DeleteMessage { .. }
        );
        outside && operation.by.user().is_some()
    }
}
