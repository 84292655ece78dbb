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
        let (key, _) = entry?;
        let id = keys::last_id(&key);
        found.push(match key.get(1) {
            Some(b'u') => Deletion::User(UserId(id)),
            _ => Deletion::Conversation(ConversationId(id)),
        });
    }
    Ok(found)
}

/// Takes one slice away; true when nothing is left.
pub fn continue_deletion(txn: &mut Txn<'_>, deletion: Deletion) -> Result<bool, Error> {
    match deletion {
        Deletion::Conversation(id) => continue_conversation(txn, id),
        Deletion::User(id) => leave_conversations(txn, None, id),
    }
}

/// Takes a user out of a slice of its conversations; true when it is in none any more.
pub fn leave_conversations(
    txn: &mut Txn<'_>,
    by: Option<UserId>,
    user: UserId,
) -> Result<bool, Error> {
    let range = keys::prefix(&keys::under(b'o', user.0));
    let slice = keys_of(txn, &range, SLICE_MAX_ROWS)?;
    let done = slice.len() < SLICE_MAX_ROWS;
    for key in slice {
        let id = ConversationId(keys::last_id(&key));
        leave(txn, id, user)?;
        if let Some(mut row) = txn.conversation(id)? {
            row.members -= 1;
            txn.put_row(&keys::conversation(id), &row)?;
            emit_removed(txn, by, id, vec![user]);
        }
    }
    let key = keys::user_deletion(user);
    if !done {
        txn.put(&key, &[]);
    } else if txn.contains(&key)? {
        txn.remove(&key);
    }
    Ok(done)
}

fn continue_conversation(txn: &mut Txn<'_>, id: ConversationId) -> Result<bool, Error> {
    let members = keys_of(txn, &keys::prefix(&keys::under(b'p', id.0)), SLICE_MAX_ROWS)?;
    for key in &members {
        leave(txn, id, UserId(keys::last_id(key)))?;
    }
    let mut left = SLICE_MAX_ROWS - members.len();
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
    let done = nonces.len() < left;
    if done {
        txn.remove(&keys::conversation_deletion(id));
    }
    Ok(done)
}

/// Forgets a slice of the nonces whose messages were deleted more than `keep_ms` ago.
pub fn forget_old_nonces(txn: &mut Txn<'_>, keep_ms: u64) -> Result<(), Error> {
    let before = txn.now_ms().saturating_sub(keep_ms);
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
