//! Which users whoever asks may see (protocol.md, 7: `security.directory`).
//!
//! Like rights, it is read from the state in the step that uses it: who has just left the last conversation that two
//! shared sees the other no more.

use super::Rights;
use crate::error::Error;
use crate::limits::COMPANY_MAX_CONVERSATIONS;
use crate::model::{Company, ConversationId, Directory, Event, EventType, Id, Subclass, UserId};
use crate::store::keys;
use crate::store::remains::Remains;
use crate::store::rows::{self, UserRow};
use crate::store::state::State;

/// Which users whoever asks may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circle {
    /// Everybody, with their logins.
    Everyone,
    /// This user, and those with whom it shares a conversation; of logins, its own.
    Companions(UserId),
}

impl Circle {
    /// What somebody with these rights may see.
    #[must_use]
    pub fn of(rights: Rights, directory: Directory) -> Self {
        match directory {
            _ if rights.everything() => Self::Everyone,
            Directory::Everyone => Self::Everyone,
            // Whoever is not logged in is nobody's companion.
            Directory::Companions => Self::Companions(rights.user().unwrap_or(UserId(Id(0)))),
        }
    }

    /// Whether a user may be seen, if it exists. The asker's conversations alone are walked, all of them where the
    /// answer is no: what that costs tells nothing of the user, nor whether it exists.
    pub fn may_see(
        self,
        state: &dyn State,
        remains: &Remains,
        user: UserId,
    ) -> Result<bool, Error> {
        match self {
            Self::Everyone => Ok(true),
            Self::Companions(own) if own == user => Ok(true),
            Self::Companions(own) => meet(state, remains, own, user),
        }
    }

    /// Whether a user's login may be seen.
    #[must_use]
    pub fn shows_login(self, user: UserId) -> bool {
        match self {
            Self::Everyone => true,
            Self::Companions(own) => own == user,
        }
    }
}

/// Whether two users that exist share a conversation: the shorter list of conversations is walked.
pub fn share(
    state: &dyn State,
    remains: &Remains,
    one: UserId,
    other: UserId,
) -> Result<bool, Error> {
    let count = |user| -> Result<Option<u64>, Error> {
        let row = state.get(&keys::user(user))?;
        row.map(|row| Ok(rows::decode::<UserRow<'_>>(&row)?.conversations))
            .transpose()
    };
    match (count(one)?, count(other)?) {
        (Some(of_one), Some(of_other)) if of_one <= of_other => meet(state, remains, one, other),
        (Some(_), Some(_)) => meet(state, remains, other, one),
        _ => Ok(false),
    }
}

/// Whether `other` is in one of the conversations of `walked`.
fn meet(
    state: &dyn State,
    remains: &Remains,
    walked: UserId,
    other: UserId,
) -> Result<bool, Error> {
    for entry in state.scan(&keys::prefix(&keys::under(b'o', walked.0))) {
        let conversation = ConversationId(keys::last_id(&entry?.0));
        let there = state.contains(&keys::member(conversation, other))?;
        // The memberships of a deleted conversation go in slices, after it is gone.
        if there && !remains.has_conversation(conversation) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the companions of a user are shown this event of it. That it was deleted they are told by their conversations,
/// which it has left by then: none of them is a companion any more.
#[must_use]
pub fn reaches_companions(event: &Event) -> bool {
    event.subclass == Subclass::User
        && matches!(event.kind, EventType::Created | EventType::Updated)
}

/// Where the companions are of the users whose events these are. Of a user in very many conversations those in the newest
/// ones count.
pub fn company_of(state: &dyn State, events: &[Event]) -> Result<Company, Error> {
    let mut company = Company::default();
    for event in events.iter().filter(|event| reaches_companions(event)) {
        if company.contains_key(&event.object) {
            continue;
        }
        let conversations = state
            .scan(&keys::prefix(&keys::under(b'o', event.object)))
            .rev()
            .take(COMPANY_MAX_CONVERSATIONS)
            .map(|entry| Ok(keys::last_id(&entry?.0)))
            .collect::<Result<_, Error>>()?;
        company.insert(event.object, conversations);
    }
    Ok(company)
}
