//! What the audit log tells of a change that only the state before it knows.

use super::{Rights, token};
use crate::error::Error;
use crate::model::{ConversationId, Given, Role, UserId};
use crate::store::keys;
use crate::store::operation::{Change, Note};
use crate::store::state::State;
use crate::store::txn::Txn;

/// The note of a change that is about to be made.
pub fn of(txn: &Txn<'_>, rights: Rights, change: &Change) -> Result<Option<Note>, Error> {
    match change {
        Change::UpdateUser {
            user,
            role: Some(_),
            ..
        } => {
            let row = user.id().map(|id| txn.user(id)).transpose()?.flatten();
            Ok(row.map(|row| Note::RoleBefore(if row.admin { Role::Admin } else { Role::User })))
        }
        Change::DeleteToken { token } => {
            let user = token.id().map(|id| token::user_of(txn, id)).transpose()?;
            Ok(user.flatten().map(Note::TokenOf))
        }
        Change::UpdateConversation { conversation, .. }
        | Change::DeleteConversation { conversation }
        | Change::AddMembers { conversation, .. }
        | Change::RemoveMembers { conversation, .. }
        | Change::UpdateMessage { conversation, .. }
        | Change::DeleteMessage { conversation, .. } => {
            let Some((admin, id)) = admin(rights).zip(Given::id(conversation)) else {
                return Ok(None);
            };
            Ok(is_outside(txn, admin, id)?.then_some(Note::Outside))
        }
        _ => Ok(None),
    }
}

/// The user that may do everything, if it is one that acts.
pub fn admin(rights: Rights) -> Option<UserId> {
    rights.user().filter(|_| rights.everything())
}

/// Whether a conversation is one that this user is not in.
pub fn is_outside(state: &dyn State, user: UserId, id: ConversationId) -> Result<bool, Error> {
    Ok(!state.contains(&keys::member(id, user))? && state.contains(&keys::conversation(id))?)
}
