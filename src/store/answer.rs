//! Answering a query over the committed state, with the rights of whoever asks read from that same state.

use crate::error::Error;
use crate::limits::{MEMBER_LISTED_BYTES, MEMBERS_SHOWN_MAX};
use crate::memory::Memory;
use crate::model::{ConversationId, Directory, Given, Id, MessageId, Sight, UserId};
use crate::store::keys;
use crate::store::operation::{
    Answer, Compared, Counts, LoginHolder, Members, Outside, Principal, Query,
};
use crate::store::outside;
use crate::store::remains::Remains;
use crate::store::rows::{self, Head, MessageRow, UserRow};
use crate::store::rules::{self, Circle, Rights};
use crate::store::search::{self, Reader};
use crate::store::state::State;
use crate::wire::data;
use serde::Serialize;
use std::sync::Arc;

/// What an answer depends on besides the state.
pub struct Terms<'a> {
    /// The time by which tokens expire.
    pub held_ms: u64,
    /// Where what it holds meanwhile is counted.
    pub memory: &'a Arc<Memory>,
    /// Which users are shown to a user.
    pub directory: Directory,
}

/// Answers a query. For how long it may read is the state's to know.
pub fn answer(
    state: &dyn State,
    head: &Head,
    by: Principal,
    query: &Query,
    terms: &Terms<'_>,
) -> Result<Answer, Error> {
    let &Terms {
        held_ms,
        memory,
        directory,
    } = terms;
    let rights = Rights::of(state, by)?;
    let circle = Circle::of(rights, directory);
    match query {
        Query::User(given) => user(state, circle, given),
        Query::Conversation(given) => {
            let (id, mut row) = rules::visible_conversation(state, rights, given)?;
            let remains = Remains::of(state)?;
            row.members = remains.member_count(state, id, row.members)?;
            let shown = row.members <= MEMBERS_SHOWN_MAX;
            let user_ids = shown
                .then(|| remains.members(state, id, 0, usize::MAX))
                .transpose()?;
            let read = outside::read(state, rights, Some(&[id.0]))?;
            json(&row.object(id, user_ids)).map(|answer| answer.of(read))
        }
        Query::Message(given) => {
            let found = given
                .id()
                .map(|id| message(state, rights, id))
                .transpose()?
                .flatten();
            found.ok_or_else(|| rules::no_message(given))
        }
        Query::Members {
            conversation,
            from,
            size,
        } => members(state, rights, memory, (conversation, *from, *size)),
        Query::Search(search) => {
            let reader = Reader {
                state,
                head: *head,
                remains: Remains::of(state)?,
                rights,
                memory,
                circle,
            };
            let read = outside::searched(state, rights, search)?;
            json(&search::run(&reader, search)?).map(|answer| answer.of(read))
        }
        Query::Reachable(given) => Ok(Answer::Reachable(
            rules::visible_conversation(state, rights, given)?.0,
        )),
        Query::Counts => {
            let Head {
                users,
                conversations,
                messages,
                ..
            } = *head;
            Ok(Answer::Counts(rights.everything().then_some(Counts {
                users,
                conversations,
                messages,
            })))
        }
        Query::NewUser { login, role } => {
            rules::may_create_user(state, rights, login, *role)?;
            Ok(Answer::LoginHolder(None))
        }
        Query::NewPassword { user, names_role } => {
            let wish = rules::UserWish {
                password: true,
                role: *names_role,
            };
            let user = rules::may_update_user(state, rights, user, wish)?;
            holder(state, user).map(Answer::LoginHolder)
        }
        Query::Power => Ok(Answer::Power(rights.everything())),
        Query::Tokens(user) => json(&rules::tokens_of(state, rights, user.as_ref())?),
        Query::LoginHolder(folded) => Ok(Answer::Login(Compared {
            holder: login_holder(state, folded)?,
            usual_cost: rules::usual_cost(state)?,
        })),
        Query::Holder(given) => {
            let found = given.id().map(|user| holder(state, user));
            found
                .transpose()
                .map(|found| Answer::LoginHolder(found.flatten()))
        }
        Query::TokenOwner(hash) => rules::token_owner(state, hash, held_ms).map(Answer::TokenOwner),
        Query::Outside(named) => {
            outside::read(state, rights, named.as_deref()).map(Answer::Outside)
        }
        Query::Sight(user) => sight(state, *user).map(Answer::Sight),
    }
}

/// A user that exists and may be seen. As much is looked for where there is none: what it costs tells nothing
/// (protocol.md, 7).
fn user(state: &dyn State, circle: Circle, given: &Given<UserId>) -> Result<Answer, Error> {
    if let Some(id) = given.id() {
        let remains = match circle {
            Circle::Everyone => Remains::default(),
            Circle::Companions(_) => Remains::of(state)?,
        };
        let seen = circle.may_see(state, &remains, id)?;
        if let Some(row) = state.get(&keys::user(id))?
            && seen
        {
            return json(&rows::decode::<UserRow<'_>>(&row)?.shown(id, circle));
        }
    }
    Err(rules::no_user(given))
}

fn members(
    state: &dyn State,
    rights: Rights,
    memory: &Arc<Memory>,
    (conversation, from, size): (&Given<ConversationId>, usize, Option<usize>),
) -> Result<Answer, Error> {
    let (id, row) = rules::visible_conversation(state, rights, conversation)?;
    let remains = Remains::of(state)?;
    let read = outside::read(state, rights, Some(&[id.0]))?;
    let listed = size.map_or(row.members, |size| row.members.min(size as u64));
    let listed = usize::try_from(listed).unwrap_or(usize::MAX);
    let mut usage = memory.connection(None);
    usage.hold_read(listed.saturating_mul(MEMBER_LISTED_BYTES))?;
    let members = json(&Members {
        user_ids: remains.members(state, id, from, size.unwrap_or(usize::MAX))?,
        total: remains.member_count(state, id, row.members)?,
    });
    members.map(|answer| answer.of(read))
}

fn message(state: &dyn State, rights: Rights, id: MessageId) -> Result<Option<Answer>, Error> {
    let Some(conversation) = rights.place_of(state, id)? else {
        return Ok(None);
    };
    if !state.contains(&keys::conversation(conversation))? {
        return Ok(None);
    }
    let Some(row) = state.get(&keys::message(conversation, id))? else {
        return Ok(None);
    };
    let read = outside::read(state, rights, Some(&[conversation.0]))?;
    let found = json(&rows::decode::<MessageRow<'_>>(&row)?.object(conversation, id))?;
    Ok(Some(found.of(read)))
}

impl Answer {
    /// The same answer, which an admin has read outside of its own conversations.
    fn of(self, read: Option<Outside>) -> Self {
        match (self, read) {
            (Self::Json(json), Some(read)) => Self::OutsideJson(json, read),
            (answer, _) => answer,
        }
    }
}

/// Whom a folded login names, and what its password is compared with.
fn login_holder(state: &dyn State, folded: &str) -> Result<Option<LoginHolder>, Error> {
    let found = state.get(&keys::login(folded))?;
    // A login that nobody has is looked up as far as one that somebody has.
    let user = UserId(found.as_ref().map_or(Id(0), |value| keys::last_id(value)));
    holder(state, user)
}

fn holder(state: &dyn State, user: UserId) -> Result<Option<LoginHolder>, Error> {
    let Some(row) = state.get(&keys::user(user))? else {
        return Ok(None);
    };
    let row = rows::decode::<UserRow<'_>>(&row)?;
    Ok(Some(LoginHolder {
        user,
        password_hash: row.hash(),
        login: row.login.into_owned(),
    }))
}

/// What a user may see of conversations.
fn sight(state: &dyn State, user: UserId) -> Result<Sight, Error> {
    let everything = Rights::of(state, Principal::User(user))?.everything();
    let mut conversations = Vec::new();
    for entry in state.scan(&keys::prefix(&keys::under(b'o', user.0))) {
        let id = keys::last_id(&entry?.0);
        // The memberships of a deleted conversation go in slices, after it is gone.
        if state.contains(&keys::conversation(ConversationId(id)))? {
            conversations.push(id);
        }
    }
    Ok(Sight {
        everything,
        conversations,
    })
}

fn json(value: &impl Serialize) -> Result<Answer, Error> {
    data(value).map(Answer::Json)
}

#[cfg(test)]
mod tests;
