//! Who of those that are subscribed may see which conversation (protocol.md, 7).
//!
//! A user's memberships are read from the store once, when its first connection subscribes, and kept in step by the
//! events that change them. Events that come while they are being read are remembered and applied on top: they are
//! newer, and applying one twice changes nothing.

use crate::hub::ConnectionId;
use crate::model::{Audience, Event, EventType, Id, Sight, Subclass, UserId};
use std::collections::{HashMap, HashSet};

/// The users with connections that are subscribed, and what they see.
#[derive(Debug, Default)]
pub struct Sights {
    users: HashMap<UserId, Online>,
    /// The users of `users` that are in a conversation.
    present: HashMap<Id, HashSet<UserId>>,
}

/// One user.
#[derive(Debug, Default)]
struct Online {
    connections: HashSet<ConnectionId>,
    loaded: bool,
    everything: bool,
    conversations: HashSet<Id>,
    /// What events changed before the rest was loaded: a conversation (or, with `None`, being an admin), gained or lost.
    changes: Vec<(Option<Id>, bool)>,
}

impl Sights {
    /// Begins to follow what a user sees, for one of its connections; true if the rest is still to be loaded.
    pub fn follow(&mut self, user: UserId, connection: ConnectionId) -> bool {
        let online = self.users.entry(user).or_default();
        online.connections.insert(connection);
        !online.loaded
    }

    /// Adds what the store says that a user sees, read after [`Sights::follow`].
    pub fn load(&mut self, user: UserId, sight: Sight) {
        let Some(online) = self.users.get_mut(&user).filter(|online| !online.loaded) else {
            return;
        };
        online.loaded = true;
        online.everything = sight.everything;
        online.conversations = sight.conversations.into_iter().collect();
        for &conversation in &online.conversations {
            self.present.entry(conversation).or_default().insert(user);
        }
        for (conversation, gained) in std::mem::take(&mut online.changes) {
            self.change(user, conversation, gained);
        }
    }

    /// Forgets a connection, and its user with the last one.
    pub fn leave(&mut self, user: UserId, connection: ConnectionId) {
        let Some(online) = self.users.get_mut(&user) else {
            return;
        };
        online.connections.remove(&connection);
        if online.connections.is_empty()
            && let Some(online) = self.users.remove(&user)
        {
            for conversation in online.conversations {
                self.absent(conversation, user);
            }
        }
    }

    /// Whether a user may see a conversation.
    pub fn sees(&self, user: UserId, conversation: Id) -> bool {
        self.users
            .get(&user)
            .is_some_and(|online| online.everything || online.conversations.contains(&conversation))
    }

    /// Whether a user may see every conversation.
    pub fn sees_everything(&self, user: UserId) -> bool {
        self.users
            .get(&user)
            .is_some_and(|online| online.everything)
    }

    /// The connections of those in a conversation, and of those whom its event removed.
    pub fn concerned<'a>(
        &'a self,
        conversation: Id,
        audience: &'a Audience,
    ) -> impl Iterator<Item = ConnectionId> + 'a {
        let present = self.present.get(&conversation);
        let removed = audience
            .removed
            .iter()
            .filter(move |user| present.is_none_or(|present| !present.contains(user)));
        present
            .into_iter()
            .flatten()
            .chain(removed)
            .filter_map(|user| self.users.get(user))
            .flat_map(|online| online.connections.iter().copied())
    }

    /// Takes in what an event adds, before it is given out. Gives the connections of those who are admins from now on.
    pub fn gain(&mut self, event: &Event) -> Vec<ConnectionId> {
        self.change_all(event, &event.audience.added, true)
    }

    /// Takes in what an event takes away, after it was given out. Gives the connections of those who are no admins any more.
    pub fn lose(&mut self, event: &Event) -> Vec<ConnectionId> {
        let connections = self.change_all(event, &event.audience.removed, false);
        if event.subclass == Subclass::Conversation && event.kind == EventType::Deleted {
            // The event names a bounded number of members; here all who are present are known.
            for user in self.present.remove(&event.object).unwrap_or_default() {
                if let Some(online) = self.users.get_mut(&user) {
                    online.conversations.remove(&event.object);
                }
            }
        }
        connections
    }

    fn change_all(&mut self, event: &Event, users: &[UserId], gained: bool) -> Vec<ConnectionId> {
        let conversation = match event.subclass {
            Subclass::Conversation => Some(event.object),
            _ => None,
        };
        let mut connections = Vec::new();
        for &user in users {
            let Some(online) = self.users.get_mut(&user) else {
                continue;
            };
            if conversation.is_none() {
                connections.extend(online.connections.iter().copied());
            }
            if online.loaded {
                self.change(user, conversation, gained);
            } else {
                online.changes.push((conversation, gained));
            }
        }
        connections
    }

    fn change(&mut self, user: UserId, conversation: Option<Id>, gained: bool) {
        let Some(online) = self.users.get_mut(&user) else {
            return;
        };
        match (conversation, gained) {
            (None, everything) => online.everything = everything,
            (Some(conversation), true) => {
                online.conversations.insert(conversation);
                self.present.entry(conversation).or_default().insert(user);
            }
            (Some(conversation), false) => {
                online.conversations.remove(&conversation);
                self.absent(conversation, user);
            }
        }
    }

    fn absent(&mut self, conversation: Id, user: UserId) {
        if let Some(present) = self.present.get_mut(&conversation) {
            present.remove(&user);
            if present.is_empty() {
                self.present.remove(&conversation);
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.present.is_empty()
    }
}
