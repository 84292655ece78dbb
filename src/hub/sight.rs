//! Who of those that are subscribed may see which conversation (protocol.md, 7).
//!
//! A user's memberships are read from the store once, when its first connection subscribes, and kept in step by the
//! events that change them. Events that come while they are being read are remembered and applied on top: they are
//! newer, and applying one twice changes nothing. There may be very many: they are taken in and forgotten in slices.

use crate::hub::ConnectionId;
use crate::model::{Audience, Event, EventType, Id, Sight, Subclass, UserId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeSet, HashSet};

/// Conversations that are forgotten before others have the hub.
const SLICE_CONVERSATIONS: usize = 256;

/// The users with connections that are subscribed, and what they see.
#[derive(Debug, Default)]
pub struct Sights {
    users: FxHashMap<UserId, Online>,
    /// The stays of those of `users` that are in a conversation. A tree, as it never grows at one stroke.
    present: BTreeSet<(Id, Stay)>,
    /// Whose stay each is.
    stays: FxHashMap<Stay, UserId>,
    newest_stay: Stay,
    /// What is to be forgotten of stays that are over.
    over: Vec<(Stay, BTreeSet<Id>)>,
}

/// The number of one time in which a user has connections. The next one has nothing to do with what is left of it.
type Stay = u64;

/// One user.
#[derive(Debug, Default)]
struct Online {
    stay: Stay,
    connections: HashSet<ConnectionId>,
    loaded: bool,
    everything: bool,
    conversations: BTreeSet<Id>,
    /// What events changed before the rest was loaded: a conversation (or, with `None`, being an admin), gained or lost.
    changes: Vec<(Option<Id>, bool)>,
}

impl Sights {
    /// Begins to follow what a user sees, for one of its connections; true if the rest is still to be loaded.
    pub fn follow(&mut self, user: UserId, connection: ConnectionId) -> bool {
        let online = self.users.entry(user).or_default();
        if online.stay == 0 {
            self.newest_stay += 1;
            online.stay = self.newest_stay;
            self.stays.insert(online.stay, user);
        }
        online.connections.insert(connection);
        !online.loaded
    }

    /// Takes in some of what the store says that a user sees, read after [`Sights::follow`], and takes it off `sight`.
    /// False once all is taken in.
    pub fn load(&mut self, user: UserId, sight: &mut Sight) -> bool {
        let online = self.users.get_mut(&user);
        let Some(online) = online.filter(|online| !online.loaded) else {
            return false;
        };
        let conversations = &mut sight.conversations;
        let rest = conversations.len().saturating_sub(SLICE_CONVERSATIONS);
        for conversation in conversations.drain(rest..) {
            online.conversations.insert(conversation);
            self.present.insert((conversation, online.stay));
        }
        if !conversations.is_empty() {
            return true;
        }
        online.loaded = true;
        online.everything = sight.everything;
        for (conversation, gained) in std::mem::take(&mut online.changes) {
            self.change(user, conversation, gained);
        }
        false
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
            self.stays.remove(&online.stay);
            self.over.push((online.stay, online.conversations));
        }
        self.forget_some();
    }

    /// Forgets some of what is left of stays that are over; false if nothing is left.
    pub fn forget_some(&mut self) -> bool {
        let mut left = SLICE_CONVERSATIONS;
        while let Some((stay, conversations)) = self.over.last_mut() {
            let Some(conversation) = conversations.pop_first() else {
                self.over.pop();
                continue;
            };
            if left == 0 {
                conversations.insert(conversation);
                return true;
            }
            left -= 1;
            self.present.remove(&(conversation, *stay));
        }
        false
    }

    /// Whether a user may see a conversation.
    pub fn sees(&self, user: UserId, conversation: Id) -> bool {
        self.users.get(&user).is_some_and(|online| {
            online.loaded && (online.everything || online.conversations.contains(&conversation))
        })
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
        let is_present =
            move |user: &&Online| user.loaded && self.present.contains(&(conversation, user.stay));
        let removed = audience.removed.iter();
        let removed = removed.filter_map(|user| self.users.get(user));
        self.present_in(conversation)
            .filter_map(|user| self.users.get(&user))
            // What is known before all of it is may have changed since it was read.
            .filter(|user| user.loaded)
            .chain(removed.filter(move |user| !is_present(user)))
            .flat_map(|online| online.connections.iter().copied())
    }

    /// The users in a conversation.
    fn present_in(&self, conversation: Id) -> impl Iterator<Item = UserId> + '_ {
        let all = (conversation, Stay::MIN)..=(conversation, Stay::MAX);
        let stays = self.present.range(all);
        stays.filter_map(|(_, stay)| self.stays.get(stay).copied())
    }

    /// The connections of these users.
    pub fn connections<'a>(
        &'a self,
        users: impl Iterator<Item = UserId> + 'a,
    ) -> impl Iterator<Item = ConnectionId> + 'a {
        users
            .filter_map(|user| self.users.get(&user))
            .flat_map(|online| online.connections.iter().copied())
    }

    /// Those who are in one of these conversations, but for this user.
    pub fn company(&self, user: UserId, conversations: &[Id]) -> FxHashSet<UserId> {
        let mut found = FxHashSet::default();
        for conversation in conversations {
            let present = self.present_in(*conversation);
            // What is known before all of it is may have changed since it was read.
            let is_loaded =
                |user: &UserId| self.users.get(user).is_some_and(|online| online.loaded);
            found.extend(present.filter(|&other| other != user).filter(is_loaded));
            let others = self.users.len() - usize::from(self.users.contains_key(&user));
            if found.len() >= others {
                break;
            }
        }
        found
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
            let present: Vec<UserId> = self.present_in(event.object).collect();
            for user in present {
                self.change(user, Some(event.object), false);
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
                self.present.insert((conversation, online.stay));
            }
            (Some(conversation), false) => {
                online.conversations.remove(&conversation);
                self.present.remove(&(conversation, online.stay));
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
            && self.present.is_empty()
            && self.stays.is_empty()
            && self.over.is_empty()
    }
}
