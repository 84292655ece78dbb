//! What large deletions leave behind, taken away in slices between other requests, and finished after a restart.

use super::conversation::{emit_removed, leave};
use crate::error::Error;
use crate::limits::SLICE_MAX_ROWS;
use crate::model::{ConversationId, Id, MessageId, UserId};
use crate::store::keys;
use crate::store::rows::{self, MessageRow, NonceRow};
use crate::store::state::State;
use crate::store::txn::Txn;

/// A deletion that is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deletion {
    /// Messages, memberships and nonces of a conversation that is gone.
    Conversation(ConversationId),
    /// Memberships of a user that is gone.
    User(UserId),
}

/// The deletions that a state has not finished.
pub fn unfinished(state: &dyn State) -> Result<Vec<Deletion>, Error> {
    let mut found = Vec::new();
    for entry in state.scan(&keys::prefix(b"d")) {
        found.extend(Deletion::of_key(&entry?.0));
    }
    Ok(found)
}

impl Deletion {
    /// The one that this key notes, if it is such a key.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        match key {
            [b'd', b'u', ..] => Some(Self::User(keys::last_id(key).into())),
            [b'd', ..] => Some(Self::Conversation(keys::last_id(key).into())),
            _ => None,
        }
    }
}

/// Takes one slice of at most so many rows away, and says how many they were.
pub fn continue_deletion(
    txn: &mut Txn<'_>,
    deletion: Deletion,
    most: usize,
) -> Result<usize, Error> {
    match deletion {
        Deletion::Conversation(id) => continue_conversation(txn, id, most),
        Deletion::User(id) => leave_conversations(txn, None, id, most),
    }
}

/// Takes a user out of a slice of its conversations, and says how many they were. What is left is noted as unfinished.
pub fn leave_conversations(
    txn: &mut Txn<'_>,
    by: Option<UserId>,
    user: UserId,
    most: usize,
) -> Result<usize, Error> {
    let range = keys::prefix(&keys::under(b'o', user.0));
    let slice = keys_of(txn, &range, most)?;
    let taken = slice.len();
    for key in slice {
        let id = ConversationId(keys::last_id(&key));
        let row = txn.get(&keys::user(user))?;
        leave(txn, id, user, row.as_ref())?;
        if let Some(mut row) = txn.conversation(id)? {
            row.members -= 1;
            txn.put_row(&keys::conversation(id), &row)?;
            emit_removed(txn, by, id, vec![user]);
        }
    }
    let key = keys::user_deletion(user);
    match (taken < most, txn.contains(&key)?) {
        (false, false) => txn.put(&key, &[]),
        (true, true) => txn.remove(&key),
        _ => {}
    }
    Ok(taken)
}

fn continue_conversation(
    txn: &mut Txn<'_>,
    id: ConversationId,
    most: usize,
) -> Result<usize, Error> {
    let members = keys_of(txn, &keys::prefix(&keys::under(b'p', id.0)), most)?;
    // Those behind this one are not named by the event, and find out by a row that they were in it.
    let last_named = txn
        .get(&keys::conversation_deletion(id))?
        .filter(|value| !value.is_empty())
        .map(|value| UserId(keys::last_id(&value)));
    for key in &members {
        let user = UserId(keys::last_id(key));
        let row = txn.get(&keys::user(user))?;
        leave(txn, id, user, row.as_ref())?;
        if last_named.is_some_and(|last| user > last) {
            txn.put(&keys::last_member(id, user), &[]);
        }
    }
    let mut left = most - members.len();
    let messages = txn
        .scan(&keys::prefix(&keys::under(b'm', id.0)))
        .take(left)
        .map(|entry| {
            let (key, row) = entry?;
            Ok((
                MessageId(keys::last_id(&key)),
                UserId(Id(rows::decode::<MessageRow<'_>>(&row)?.user)),
            ))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    left -= messages.len();
    for (message, user) in messages {
        txn.remove(&keys::message(id, message));
        txn.remove(&keys::place(message));
        txn.remove(&keys::author(user, id));
    }
    let nonces = txn
        .scan(&keys::prefix(&keys::under(b'n', id.0)))
        .take(left)
        .collect::<Result<Vec<_>, Error>>()?;
    for (key, row) in &nonces {
        if let Some(deleted) = rows::decode::<NonceRow>(row)?.deleted_time {
            txn.remove(&keys::nonce_expiry(deleted, key));
        }
        txn.remove(key);
    }
    if nonces.len() < left {
        txn.remove(&keys::conversation_deletion(id));
    }
    Ok(most - left + nonces.len())
}

/// Whether a user was in a conversation when that was deleted, as far as its event does not say so.
pub fn was_in_deleted(
    state: &dyn State,
    conversation: ConversationId,
    user: UserId,
) -> Result<bool, Error> {
    // In this order: the first row is replaced by the second.
    Ok(state.contains(&keys::member(conversation, user))?
        || state.contains(&keys::last_member(conversation, user))?)
}

/// Forgets a slice of what is kept no longer than events are.
pub fn forget_expired(txn: &mut Txn<'_>) -> Result<(), Error> {
    forget_old_nonces(txn)?;
    forget_last_members(txn)
}

/// Forgets a slice of the members of conversations that were deleted longer ago than events are kept.
fn forget_last_members(txn: &mut Txn<'_>) -> Result<(), Error> {
    let before = txn.kept_since_ms();
    let range = keys::Range {
        low: b"z".to_vec(),
        high: keys::under(b'z', Id(before)).to_vec(),
    };
    let Some(expiry) = keys_of(txn, &range, 1)?.pop() else {
        return Ok(());
    };
    let id = ConversationId(keys::last_id(&expiry));
    let members = keys_of(txn, &keys::prefix(&keys::under(b'g', id.0)), SLICE_MAX_ROWS)?;
    // While its deletion goes on there may come more.
    if members.len() < SLICE_MAX_ROWS && !txn.contains(&keys::conversation_deletion(id))? {
        txn.remove(&expiry);
    }
    for key in members {
        txn.remove(&key);
    }
    Ok(())
}

/// Forgets a slice of the nonces whose messages were deleted longer ago than events are kept.
fn forget_old_nonces(txn: &mut Txn<'_>) -> Result<(), Error> {
    let before = txn.kept_since_ms();
    let range = keys::Range {
        low: b"x".to_vec(),
        high: keys::nonce_expiry(before, b""),
    };
    for key in keys_of(txn, &range, SLICE_MAX_ROWS)? {
        txn.remove(&keys::nonce_of_expiry(&key));
        txn.remove(&key);
    }
    Ok(())
}

fn keys_of(txn: &Txn<'_>, range: &keys::Range, most: usize) -> Result<Vec<Vec<u8>>, Error> {
    txn.scan(range)
        .take(most)
        .map(|entry| Ok(entry?.0.to_vec()))
        .collect()
}
