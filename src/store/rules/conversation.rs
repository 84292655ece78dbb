//! Creating, updating and deleting conversations, and who is in them.

use super::{Rights, existing_users, forbidden, visible_conversation};
use crate::error::Error;
use crate::limits::AUDIENCE_MAX_USERS;
use crate::model::{
    Audience, ConversationId, Description, EventType, Given, Id, Name, Subclass, UserId,
};
use crate::store::keys;
use crate::store::operation::{Outcome, Patch};
use crate::store::rows::{self, ConversationRow, CountersRow, UserRow};
use crate::store::state::{Blob, State};
use crate::store::txn::Txn;
use crate::wire::EventBody;

pub fn create(
    txn: &mut Txn<'_>,
    rights: Rights,
    name: Name,
    description: Option<Description>,
    users: &[Given<UserId>],
) -> Result<Outcome, Error> {
    let mut users = existing_users(txn, users)?;
    let created_by = rights.user();
    if let Some(creator) = created_by
        && let Err(place) = users.binary_search_by_key(&creator, |&(id, _)| id)
        && let Some(row) = txn.get(&keys::user(creator))?
    {
        users.insert(place, (creator, row));
    }
    let id = ConversationId(txn.new_id());
    let row = ConversationRow {
        name: name.into_string().into(),
        description: description.map(|text| text.into_string().into()),
        members: users.len() as u64,
        created_by: created_by.map(|user| user.0.0),
        created_time: txn.now_ms(),
        updated_time: None,
    };
    txn.put_row(&keys::conversation(id), &row)?;
    txn.put_row(&keys::counters(id), &CountersRow::default())?;
    for (user, row) in &users {
        join(txn, id, *user, row)?;
    }
    txn.head.conversations += 1;
    let audience = Audience {
        added: users.into_iter().map(|(user, _)| user).collect(),
        removed: Vec::new(),
    };
    txn.emit(
        rights.user(),
        (Subclass::Conversation, EventType::Created, id.0),
        audience,
        None,
    );
    Ok(Outcome::Conversation {
        conversation_id: id,
    })
}

pub fn update(
    txn: &mut Txn<'_>,
    rights: Rights,
    given: &Given<ConversationId>,
    name: Option<Name>,
    description: Patch<Description>,
) -> Result<Outcome, Error> {
    let (id, mut row) = governed_conversation(txn, rights, given)?;
    if name.is_none() && description == Patch::Keep {
        return Ok(Outcome::Done {});
    }
    if let Some(name) = name {
        row.name = name.into_string().into();
    }
    match description {
        Patch::Keep => {}
        Patch::Clear => row.description = None,
        Patch::Set(text) => row.description = Some(text.into_string().into()),
    }
    row.updated_time = Some(txn.now_ms());
    txn.put_row(&keys::conversation(id), &row)?;
    txn.emit(
        rights.user(),
        (Subclass::Conversation, EventType::Updated, id.0),
        Audience::default(),
        None,
    );
    Ok(Outcome::Done {})
}

/// Deletes a conversation as far as anyone can see; its rows go later, in slices (`deletion.rs`).
pub fn delete(
    txn: &mut Txn<'_>,
    rights: Rights,
    given: &Given<ConversationId>,
) -> Result<Outcome, Error> {
    let (id, _) = governed_conversation(txn, rights, given)?;
    let mut removed = txn
        .scan(&keys::prefix(&keys::under(b'p', id.0)))
        .take(AUDIENCE_MAX_USERS + 1)
        .map(|entry| Ok(UserId(keys::last_id(&entry?.0))))
        .collect::<Result<Vec<_>, Error>>()?;
    let all_named = removed.len() <= AUDIENCE_MAX_USERS;
    removed.truncate(AUDIENCE_MAX_USERS);
    let deletion = keys::conversation_deletion(id);
    match removed.last() {
        Some(last) if !all_named => {
            txn.put(&deletion, &last.0.key());
            txn.put(&keys::last_members_expiry(txn.log_ms(), id), &[]);
        }
        _ => txn.put(&deletion, &[]),
    }
    let messages = txn.counters(id)?.messages;
    txn.remove(&keys::conversation(id));
    txn.remove(&keys::counters(id));
    txn.head.conversations -= 1;
    txn.head.messages -= messages;
    let audience = Audience {
        added: Vec::new(),
        removed,
    };
    txn.emit(
        rights.user(),
        (Subclass::Conversation, EventType::Deleted, id.0),
        audience,
        None,
    );
    Ok(Outcome::Done {})
}

pub fn add_members(
    txn: &mut Txn<'_>,
    rights: Rights,
    given: &Given<ConversationId>,
    users: &[Given<UserId>],
) -> Result<Outcome, Error> {
    let (id, mut row) = visible_conversation(txn, rights, given)?;
    let mut added = Vec::new();
    for (user, row) in existing_users(txn, users)? {
        if !txn.contains(&keys::member(id, user))? {
            join(txn, id, user, &row)?;
            added.push(user);
        }
    }
    if added.is_empty() {
        return Ok(Outcome::Done {});
    }
    row.members += added.len() as u64;
    txn.put_row(&keys::conversation(id), &row)?;
    let audience = Audience {
        added: added.clone(),
        removed: Vec::new(),
    };
    let body = EventBody::Members { user_ids: &added };
    txn.emit(
        rights.user(),
        (Subclass::Conversation, EventType::AddedMembers, id.0),
        audience,
        Some(&body),
    );
    Ok(Outcome::Done {})
}

pub fn remove_members(
    txn: &mut Txn<'_>,
    rights: Rights,
    given: &Given<ConversationId>,
    users: &[Given<UserId>],
) -> Result<Outcome, Error> {
    let (id, mut row) = visible_conversation(txn, rights, given)?;
    let users = existing_users(txn, users)?;
    let others = users.iter().any(|&(user, _)| !rights.may_act_for(user));
    if others && !governs(rights, &row) {
        return Err(forbidden(
            "only the conversation's creator may remove others",
        ));
    }
    let mut removed = Vec::new();
    for (user, row) in users {
        if txn.contains(&keys::member(id, user))? {
            leave(txn, id, user, Some(&row))?;
            removed.push(user);
        }
    }
    if removed.is_empty() {
        return Ok(Outcome::Done {});
    }
    row.members -= removed.len() as u64;
    txn.put_row(&keys::conversation(id), &row)?;
    emit_removed(txn, rights.user(), id, removed);
    Ok(Outcome::Done {})
}

/// Sends the event that says who is a member no more.
pub fn emit_removed(
    txn: &mut Txn<'_>,
    by: Option<UserId>,
    id: ConversationId,
    removed: Vec<UserId>,
) {
    let user_ids = removed.clone();
    let audience = Audience {
        added: Vec::new(),
        removed,
    };
    let body = EventBody::Members {
        user_ids: &user_ids,
    };
    txn.emit(
        by,
        (Subclass::Conversation, EventType::RemovedMembers, id.0),
        audience,
        Some(&body),
    );
}

/// The conversation, if it may be seen, and governed: by its creator as long as it is a member.
fn governed_conversation(
    txn: &Txn<'_>,
    rights: Rights,
    given: &Given<ConversationId>,
) -> Result<(ConversationId, ConversationRow<'static>), Error> {
    let (id, row) = visible_conversation(txn, rights, given)?;
    if governs(rights, &row) {
        Ok((id, row))
    } else {
        Err(forbidden("only the conversation's creator may do this"))
    }
}

/// Whether whoever asks, and sees the conversation, is its creator or may do everything.
pub fn governs(rights: Rights, row: &ConversationRow<'_>) -> bool {
    rights.everything() || row.created_by.is_some_and(|id| rights.is(UserId(Id(id))))
}

/// Takes a user, whose row this is, into a conversation; the conversation's own count is the caller's.
fn join(
    txn: &mut Txn<'_>,
    conversation: ConversationId,
    user: UserId,
    row: &Blob,
) -> Result<(), Error> {
    txn.put(&keys::member(conversation, user), &[]);
    txn.put(&keys::membership(user, conversation), &[]);
    count_membership(txn, user, row, 1)
}

/// Takes a user out of a conversation; the conversation's own count is the caller's. A user that is gone has no row.
pub fn leave(
    txn: &mut Txn<'_>,
    conversation: ConversationId,
    user: UserId,
    row: Option<&Blob>,
) -> Result<(), Error> {
    txn.remove(&keys::member(conversation, user));
    txn.remove(&keys::membership(user, conversation));
    row.map_or(Ok(()), |row| count_membership(txn, user, row, -1))
}

fn count_membership(txn: &mut Txn<'_>, user: UserId, row: &Blob, change: i64) -> Result<(), Error> {
    let mut row = rows::decode::<UserRow<'_>>(row)?;
    row.conversations = row.conversations.saturating_add_signed(change);
    txn.put_row(&keys::user(user), &row)
}
