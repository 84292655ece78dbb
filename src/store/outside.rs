//! What an admin reads of conversations that it is not in, for the audit log.

use crate::error::Error;
use crate::limits::AUDITED_IDS_MAX;
use crate::model::{ConversationId, Field, Id, Kind, Search, Test, UserId};
use crate::store::operation::Outside;
use crate::store::rules::{Rights, admin, is_outside};
use crate::store::state::State;

/// What is read of these conversations, or of all, if none are named. Nothing is looked up for those who are no admins.
pub fn read(
    state: &dyn State,
    rights: Rights,
    named: Option<&[Id]>,
) -> Result<Option<Outside>, Error> {
    let Some(user) = admin(rights) else {
        return Ok(None);
    };
    let Some(named) = named else {
        return Ok(Some(Outside::All));
    };
    let mut outside = Vec::new();
    for id in named.iter().copied().map(ConversationId) {
        if !outside.contains(&id) && is_outside(state, user, id)? {
            if outside.len() == AUDITED_IDS_MAX {
                return Ok(Some(Outside::All));
            }
            outside.push(id);
        }
    }
    Ok((!outside.is_empty()).then_some(Outside::Of(outside)))
}

/// What a search reads.
pub fn searched(
    state: &dyn State,
    rights: Rights,
    search: &Search,
) -> Result<Option<Outside>, Error> {
    let own = |user: UserId| {
        let mut tests = search.tests_of(Field::UserIds);
        tests.any(|test| matches!(test, Test::AnyId(ids) if ids[..] == [user.0]))
    };
    match search.kind {
        Kind::User => Ok(None),
        Kind::Conversation if rights.user().is_some_and(own) => Ok(None),
        Kind::Conversation | Kind::Message => {
            read(state, rights, search.ids_of(Field::ConversationId))
        }
    }
}
