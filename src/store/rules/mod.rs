//! The rules of the domain: what a change needs, what it does, and which events it causes (protocol.md, 4 and 7).
//!
//! Synchronous code over a [`Txn`]; time and ids come from there. Rights to an object are decided here, in the same
//! step that uses the object.

mod circle;
mod conversation;
mod costs;
mod deletion;
mod message;
mod note;
mod rights;
mod token;
mod turns;
mod user;

pub use circle::{Circle, company_of, reaches_companions, share};
pub use costs::usual as usual_cost;
pub use deletion::{Deletion, forget_expired, unfinished, was_in_deleted};
pub use note::{admin, is_outside};
pub use rights::{Rights, not_logged_in};
pub use token::{owner as token_owner, tokens_of};
pub use turns::{Deletions, Turn};
pub use user::{
    Wish as UserWish, may_create as may_create_user, may_update as may_update_user, no_old_password,
};

use crate::error::{Code, Error};
use crate::model::{ConversationId, Given, MessageId, TokenId, UserId};
use crate::store::keys;
use crate::store::operation::{Change, Operation, Outcome};
use crate::store::rows::{self, ConversationRow};
use crate::store::state::{Blob, State};
use crate::store::txn::Txn;

/// Decides one operation. On an error the caller rolls the transaction back.
pub fn decide(txn: &mut Txn<'_>, operation: Operation) -> Result<Outcome, Error> {
    let rights = Rights::of(txn, operation.by)?;
    let note = note::of(txn, rights, &operation.change)?;
    let outcome = make(txn, rights, operation.change)?;
    Ok(match (outcome, note) {
        (Outcome::Done {}, Some(note)) => Outcome::Noted { note },
        (outcome, _) => outcome,
    })
}

fn make(txn: &mut Txn<'_>, rights: Rights, change: Change) -> Result<Outcome, Error> {
    match change {
        Change::CreateUser {
            login,
            name,
            surname,
            password,
            role,
        } => user::create(txn, rights, &login, name, surname, &password, role),
        Change::UpdateUser {
            user,
            name,
            surname,
            password,
            old_password,
            keep_tokens,
            role,
        } => user::update(
            txn,
            rights,
            &user,
            user::Update {
                name,
                surname,
                password,
                old_password,
                keep_tokens,
                role,
            },
        ),
        Change::DeleteUser { user } => user::delete(txn, rights, &user),
        Change::CreateConversation {
            name,
            description,
            users,
        } => conversation::create(txn, rights, name, description, &users),
        Change::UpdateConversation {
            conversation,
            name,
            description,
        } => conversation::update(txn, rights, &conversation, name, description),
        Change::DeleteConversation { conversation } => {
            conversation::delete(txn, rights, &conversation)
        }
        Change::AddMembers {
            conversation,
            users,
        } => conversation::add_members(txn, rights, &conversation, &users),
        Change::RemoveMembers {
            conversation,
            users,
        } => conversation::remove_members(txn, rights, &conversation, &users),
        Change::CreateMessage {
            conversation,
            user,
            text,
            nonce,
        } => message::create(txn, rights, (&conversation, &user), &text, nonce.as_ref()),
        Change::UpdateMessage {
            conversation,
            message,
            text,
        } => message::update(txn, rights, (&conversation, &message), text),
        Change::DeleteMessage {
            conversation,
            message,
        } => message::delete(txn, rights, (&conversation, &message)),
        Change::CreateToken {
            user,
            name,
            expires_time,
            token,
        } => token::create(txn, rights, user.as_ref(), name, expires_time, token),
        Change::DeleteToken { token } => token::delete(txn, rights, &token),
        Change::NoteTime => {
            txn.note_clock()?;
            Ok(Outcome::Done {})
        }
        Change::UseToken { token } => token::note_use(txn, token),
        Change::RenewHash { user, known, hash } => user::renew_hash(txn, user, &known, &hash),
    }
}

/// The conversation, if it exists and may be seen.
pub fn visible_conversation(
    state: &dyn State,
    rights: Rights,
    given: &Given<ConversationId>,
) -> Result<(ConversationId, ConversationRow<'static>), Error> {
    // Whether it may be seen comes first: one that may not costs what one that does not exist costs.
    if let Some(id) = given.id()
        && rights.may_see(state, id)?
        && let Some(bytes) = state.get(&keys::conversation(id))?
    {
        return Ok((
            id,
            rows::decode::<ConversationRow<'_>>(&bytes)?.into_owned(),
        ));
    }
    Err(no_conversation(given))
}

/// The user, if it exists.
fn existing_user(state: &dyn State, given: &Given<UserId>) -> Result<UserId, Error> {
    stored_user(state, given).map(|(id, _)| id)
}

/// The user with its row, if it exists.
fn stored_user(state: &dyn State, given: &Given<UserId>) -> Result<(UserId, Blob), Error> {
    let found = match given.id() {
        Some(id) => state.get(&keys::user(id))?.map(|row| (id, row)),
        None => None,
    };
    found.ok_or_else(|| no_user(given))
}

/// The users of a list with their rows, sorted, each once; the first that does not exist is named.
fn existing_users(txn: &Txn<'_>, given: &[Given<UserId>]) -> Result<Vec<(UserId, Blob)>, Error> {
    let mut users = given
        .iter()
        .map(|user| stored_user(txn, user).map_err(|error| error.field("user_ids")))
        .collect::<Result<Vec<_>, _>>()?;
    users.sort_unstable_by_key(|&(id, _)| id);
    users.dedup_by_key(|&mut (id, _)| id);
    Ok(users)
}

/// The refusal of a user that does not exist.
#[must_use]
pub fn no_user(given: &Given<UserId>) -> Error {
    let mut text = format!("there is no user {given}");
    if matches!(given, Given::Other(other) if other.contains('@')) {
        text.push_str(
            "; that looks like a login: user search with filter login finds the user_id of it",
        );
    }
    Error::new(Code::UserNotFound, text).field("user_id")
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

/// The refusal of a token that does not exist or is another user's.
fn no_token(given: &Given<TokenId>) -> Error {
    Error::new(Code::TokenNotFound, format!("there is no token {given}")).field("token_id")
}

fn forbidden(text: &'static str) -> Error {
    Error::new(Code::Forbidden, text)
}
