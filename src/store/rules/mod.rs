//! The rules of the domain: what a change needs, what it does, and which events it causes (protocol.md, 4 and 7).
//!
//! Synchronous code over a [`Txn`]; time and ids come from there. Rights to an object are decided here, in the same
//! step that uses the object.

mod conversation;
mod deletion;
mod message;
mod user;

pub use deletion::{Deletion, continue_deletion, forget_old_nonces, unfinished};

use crate::error::{Code, Error};
use crate::model::{ConversationId, Given, MessageId, UserId};
use crate::store::keys;
use crate::store::operation::{Change, Operation, Outcome, Principal};
use crate::store::rows::{self, ConversationRow, UserRow};
use crate::store::state::State;
use crate::store::txn::Txn;

/// Decides one operation. On an error the caller rolls the transaction back.
pub fn decide(txn: &mut Txn<'_>, operation: Operation, keep_ms: u64) -> Result<Outcome, Error> {
    let by = operation.by;
    match operation.change {
        Change::CreateUser {
            login,
            name,
            surname,
            password,
            role,
        } => user::create(txn, by, &login, name, surname, &password, role),
        Change::UpdateUser {
            user,
            name,
            surname,
            password,
            role,
        } => user::update(
            txn,
            by,
            &user,
            user::Update {
                name,
                surname,
                password,
                role,
            },
        ),
        Change::DeleteUser { user } => user::delete(txn, by, &user),
        Change::CreateConversation {
            name,
            description,
            users,
        } => conversation::create(txn, by, name, description, &users),
        Change::UpdateConversation {
            conversation,
            name,
            description,
        } => conversation::update(txn, by, &conversation, name, description),
        Change::DeleteConversation { conversation } => conversation::delete(txn, by, &conversation),
        Change::AddMembers {
            conversation,
            users,
        } => conversation::add_members(txn, by, &conversation, &users),
        Change::RemoveMembers {
            conversation,
            users,
        } => conversation::remove_members(txn, by, &conversation, &users),
        Change::CreateMessage {
            conversation,
            user,
            text,
            nonce,
        } => message::create(
            txn,
            by,
            (&conversation, &user),
            &text,
            nonce.as_ref(),
            keep_ms,
        ),
        Change::UpdateMessage {
            conversation,
            message,
            text,
        } => message::update(txn, by, (&conversation, &message), text),
        Change::DeleteMessage {
            conversation,
            message,
        } => message::delete(txn, by, (&conversation, &message)),
    }
}

/// Whether everything is allowed to whom something is done for.
pub fn is_powerful(state: &dyn State, by: Principal) -> Result<bool, Error> {
    match by {
        Principal::Trusted => Ok(true),
        Principal::User(user) => match state.get(&keys::user(user))? {
            Some(row) => Ok(rows::decode::<UserRow<'_>>(&row)?.admin),
            None => Ok(false),
        },
    }
}

/// Whether a conversation that exists may be seen.
pub fn may_see(
    state: &dyn State,
    by: Principal,
    conversation: ConversationId,
) -> Result<bool, Error> {
    match by {
        Principal::Trusted => Ok(true),
        Principal::User(user) => {
            Ok(state.contains(&keys::member(conversation, user))? || is_powerful(state, by)?)
        }
    }
}

/// The conversation, if it exists and may be seen.
pub fn visible_conversation(
    state: &dyn State,
    by: Principal,
    given: &Given<ConversationId>,
) -> Result<(ConversationId, ConversationRow<'static>), Error> {
    if let Some(id) = given.id()
        && let Some(bytes) = state.get(&keys::conversation(id))?
        && may_see(state, by, id)?
    {
        return Ok((
            id,
            rows::decode::<ConversationRow<'_>>(&bytes)?.into_owned(),
        ));
    }
    Err(no_conversation(given))
}

/// The user, if it exists.
fn existing_user(txn: &Txn<'_>, given: &Given<UserId>) -> Result<UserId, Error> {
    match given.id() {
        Some(id) if txn.contains(&keys::user(id))? => Ok(id),
        _ => Err(no_user(given)),
    }
}

/// The users of a list, sorted, each once; the first that does not exist is named.
fn existing_users(txn: &Txn<'_>, given: &[Given<UserId>]) -> Result<Vec<UserId>, Error> {
    let mut users = given
        .iter()
        .map(|user| existing_user(txn, user).map_err(|error| error.field("user_ids")))
        .collect::<Result<Vec<_>, _>>()?;
    users.sort_unstable();
    users.dedup();
    Ok(users)
}

/// The refusal of a user that does not exist.
#[must_use]
pub fn no_user(given: &Given<UserId>) -> Error {
    Error::new(Code::UserNotFound, format!("there is no user {given}")).field("user_id")
}

/// The refusal of a conversation that does not exist or may not be seen.
#[must_use]
pub fn no_conversation(given: &Given<ConversationId>) -> Error {
    Error::new(
        Code::ConversationNotFound,
        format!("there is no conversation {given}"),
    )
    .field("conversation_id")
}

/// The refusal of a message that does not exist or may not be seen.
#[must_use]
pub fn no_message(given: &Given<MessageId>) -> Error {
    Error::new(
        Code::MessageNotFound,
        format!("there is no message {given}"),
    )
    .field("message_id")
}

fn forbidden(text: &'static str) -> Error {
    Error::new(Code::Forbidden, text)
}
