//! What large deletions have left behind so far: rows that are still there, and that nobody is shown any more.

use crate::error::Error;
use crate::model::{ConversationId, UserId};
use crate::store::keys;
use crate::store::rules::{self, Deletion};
use crate::store::state::State;
use std::collections::{BTreeSet, HashSet};

/// The objects of unfinished deletions. Most of the time there are none.
#[derive(Debug, Default)]
pub struct Remains {
    conversations: HashSet<ConversationId>,
    /// Users that are gone, although they are still in lists of members, and counted there.
    users: BTreeSet<UserId>,
}

impl Remains {
    /// What a state holds of it.
    pub fn of(state: &dyn State) -> Result<Self, Error> {
        let mut remains = Self::default();
        for deletion in rules::unfinished(state)? {
            match deletion {
                Deletion::Conversation(id) => drop(remains.conversations.insert(id)),
                Deletion::User(id) => drop(remains.users.insert(id)),
            }
        }
        Ok(remains)
    }

    /// The conversations of which some rows are left.
    #[must_use]
    pub const fn conversations(&self) -> &HashSet<ConversationId> {
        &self.conversations
    }

    /// Whether some rows of this conversation are left.
    #[must_use]
    pub fn has_conversation(&self, id: ConversationId) -> bool {
        self.conversations.contains(&id)
    }

    /// Whether a user that exists is a member.
    pub fn is_member(
        &self,
        state: &dyn State,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<bool, Error> {
        Ok(!self.users.contains(&user) && state.contains(&keys::member(conversation, user))?)
    }

    /// The members of a conversation that exist, in the order of their ids.
    pub fn members(
        &self,
        state: &dyn State,
        conversation: ConversationId,
        from: usize,
        size: usize,
    ) -> Result<Vec<UserId>, Error> {
        state
            .scan(&keys::prefix(&keys::under(b'p', conversation.0)))
            .map(|entry| Ok(UserId(keys::last_id(&entry?.0))))
            .filter(|member| {
                member
                    .as_ref()
                    .map_or(true, |user| !self.users.contains(user))
            })
            .skip(from)
            .take(size)
            .collect()
    }

    /// How many members of a conversation exist, where its row counts `counted`.
    pub fn member_count(
        &self,
        state: &dyn State,
        conversation: ConversationId,
        counted: u64,
    ) -> Result<u64, Error> {
        if self.users.is_empty() {
            return Ok(counted);
        }
        if (self.users.len() as u64) > counted {
            let members = self.members(state, conversation, 0, usize::MAX)?;
            return Ok(members.len() as u64);
        }
        let mut count = counted;
        for &user in &self.users {
            if state.contains(&keys::member(conversation, user))? {
                count = count.saturating_sub(1);
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
