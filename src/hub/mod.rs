//! Who is subscribed to what and may see it, and giving each committed event to those it concerns (protocol.md, 6, 7).
//!
//! The hub is told of events in their order and once each. It knows no store and no commands; what a full connection
//! misses here, that connection fetches from the stored events itself, and hands over to be sifted in the same way.

mod mask;
mod pattern;
mod routes;
mod sight;
mod subscriber;
mod subscriptions;

pub use pattern::{ANY, Object, Pattern, Size, Subscription, Type, subscribed_conversations};

use crate::model::{Audience, Company, Directory, Event, Events, Id, Seq, Sight, UserId};
use crate::wire::{Outbox, gap_line};
use bytes::Bytes;
use mask::Mask;
use routes::{Matter, Route, Routes};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use subscriber::Subscriber;
use subscriptions::Named;

/// The number of a connection in this process.
pub type ConnectionId = u64;

/// Subscriptions that are changed or looked at before others have the hub.
const SLICE_SUBSCRIPTIONS: usize = 256;

/// Deliveries of events after which others have the hub, and those who got them are woken.
const SLICE_DELIVERIES: usize = 4096;

/// What a connection subscribes to, and how.
#[derive(Debug)]
pub struct Wish {
    /// The subscriptions to add.
    pub added: Vec<Pattern>,
    /// Where its stream begins; for its first subscriptions only.
    pub begin: Begin,
    /// Whether it wants to be told its position.
    pub position: bool,
    /// The user whose rights it has; everything may be seen where there is none.
    pub viewer: Option<UserId>,
}

/// How a first subscription begins its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With what happens from now on.
    Now,
    /// With the stored events after this number.
    After(Seq),
}

/// The hub.
#[derive(Debug, Default)]
pub struct Hub {
    state: Mutex<State>,
    rights_changes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    newest: Seq,
    subscribers: FxHashMap<ConnectionId, Subscriber>,
    routes: Routes,
    /// Users are shown the events of their companions alone.
    companions: bool,
    /// To how many connections the events given out last went, by what they are about.
    delivered: FxHashMap<Id, usize>,
}

impl Hub {
    /// A hub whose newest event is `newest`.
    #[must_use]
    pub fn new(newest: Seq, directory: Directory) -> Self {
        Self {
            state: Mutex::new(State {
                newest,
                companions: directory == Directory::Companions,
                ..State::default()
            }),
            rights_changes: AtomicU64::new(0),
        }
    }

    /// Counts the events that may have changed who may see what. What was found out before stays true while it stays
    /// the same: a change is counted before it is acknowledged.
    #[must_use]
    pub fn rights_changes(&self) -> u64 {
        self.rights_changes.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the newest event that was given out.
    #[must_use]
    pub fn newest(&self) -> Seq {
        self.lock().newest
    }

    /// Gives events to those who subscribed to them and may see them; `company` says where the companions of users are.
    pub fn publish(&self, events: &[Event], company: &Company, now_ms: u64) {
        if events.iter().any(|event| !event.kind.is_of_message()) {
            self.rights_changes.fetch_add(1, Ordering::Release);
        }
        self.lock().begin_round();
        let mut rest = events;
        while !rest.is_empty() {
            let mut awake = Vec::new();
            let mut state = self.lock();
            let mut deliveries = 0;
            while deliveries < SLICE_DELIVERIES
                && let Some((event, others)) = rest.split_first()
            {
                deliveries += state.give(event, company, now_ms, &mut awake);
                rest = others;
            }
            drop(state);
            // Only now: so each of them writes all these events at once, and others have the hub meanwhile.
            for outbox in awake {
                outbox.wake();
            }
        }
    }

    /// Gives an event that is stored nowhere to those who subscribed to it and may see it. Gives how many those are.
    pub fn send(&self, kind: &str, object: Id, line: &Bytes) -> usize {
        let mut count = 0;
        let named = Named::new(kind, object);
        let state = self.lock();
        let matter = Matter {
            private: true,
            object,
            audience: &Audience::default(),
            company: None,
        };
        let State {
            subscribers,
            routes,
            ..
        } = &*state;
        for (id, route) in routes.of(&matter) {
            let Some(subscriber) = subscribers.get(&id) else {
                continue;
            };
            let all = &subscriber.subscriptions;
            let wanted = match route {
                Route::Object(mask) => named.are_here(mask, all),
                Route::Everything | Route::Member => {
                    let anywhere = subscriber.everywhere.unwrap_or_default();
                    named.are_anywhere(anywhere, all)
                        || named.are_here(routes.mask(object, id), all)
                }
            };
            if wanted && routes.lead(&matter, id, subscriber, route) {
                subscriber.outbox.offer_ephemeral(line);
                count += 1;
            }
        }
        count
    }

    /// To how many connections the newest event about an object was given, if that was among those given out last.
    #[must_use]
    pub fn delivered(&self, object: Id) -> usize {
        let state = self.lock();
        state.delivered.get(&object).copied().unwrap_or_default()
    }

    /// Begins to follow what a user may see, for one of its connections that is going to subscribe. True if
    /// [`Hub::show`] is to be told what the store says of it.
    #[must_use]
    pub fn follow(&self, user: UserId, connection: ConnectionId) -> bool {
        let mut state = self.lock();
        state.routes.follow(user, connection)
    }

    /// Takes in some of what a user may see, read from the store after [`Hub::follow`], and takes it off `sight`. True
    /// as long as there is more to take in.
    #[must_use]
    pub fn show_some(&self, user: UserId, sight: &mut Sight) -> bool {
        self.lock().routes.load(user, sight)
    }

    /// Whether a user that is followed may see every conversation.
    #[must_use]
    pub fn sees_everything(&self, user: UserId) -> bool {
        self.lock().routes.sees_everything(user)
    }

    /// Adds subscriptions of a connection. Gives the newest event's number, and the size of all that it has now.
    ///
    /// They are added in slices, between which others have the hub. The stream begins behind the last of its first ones;
    /// later ones may match events whose numbers are below the one that is given.
    pub fn subscribe(
        &self,
        connection: ConnectionId,
        outbox: &Arc<Outbox>,
        wish: Wish,
        now_ms: u64,
    ) -> (Seq, Size) {
        let is_new = {
            let mut state = self.lock();
            if let Some(user) = wish.viewer {
                // What was not followed is not known, and so not seen.
                state.routes.view(user, connection);
            }
            !state.subscribers.contains_key(&connection)
        };
        let mut new = is_new.then(|| Subscriber::new(outbox, wish.viewer));
        let mut added = wish.added.into_iter();
        loop {
            let mut state = self.lock();
            let State {
                newest,
                subscribers,
                routes,
                ..
            } = &mut *state;
            let found = new.as_mut().or_else(|| subscribers.get_mut(&connection));
            let Some(subscriber) = found else {
                return (*newest, Size::default());
            };
            let mut left = SLICE_SUBSCRIPTIONS;
            while left > 0
                && let Some(pattern) = added.as_mut_slice().first_mut()
            {
                let slice = pattern.take(left);
                left -= slice.types.len();
                subscriber.add(connection, slice, routes);
                if pattern.types.is_empty() {
                    added.next();
                }
            }
            if added.as_slice().is_empty() {
                if is_new {
                    subscriber.begin(wish.begin, *newest);
                }
                if wish.position {
                    subscriber.begin_positions(*newest, now_ms);
                }
                let size = subscriber.subscriptions.size();
                subscribers.extend(new.map(|new| (connection, new)));
                return (*newest, size);
            }
        }
    }

    /// Removes subscriptions of a connection. Its stream goes on with the others, whose size is given.
    pub fn unsubscribe(&self, connection: ConnectionId, mut removed: Pattern) -> Size {
        loop {
            let mut state = self.lock();
            let state = &mut *state;
            let Some(subscriber) = state.subscribers.get_mut(&connection) else {
                return Size::default();
            };
            let slice = removed.take(SLICE_SUBSCRIPTIONS);
            subscriber.remove(connection, slice, &mut state.routes);
            if removed.types.is_empty() {
                return subscriber.subscriptions.size();
            }
        }
    }

    /// Forgets a connection's subscriptions, and for whom it sees.
    pub fn leave(&self, connection: ConnectionId) {
        let mut state = self.lock();
        state.routes.leave(connection);
        let Some(left) = state.subscribers.remove(&connection) else {
            return;
        };
        left.outbox.end_stream();
        state.routes.remove_everywhere(connection);
        drop(state);
        // The rest leads nowhere any more.
        let mut ids = left.subscriptions.ids().peekable();
        while ids.peek().is_some() {
            let mut state = self.lock();
            for id in ids.by_ref().take(SLICE_SUBSCRIPTIONS) {
                state.routes.set(connection, id, None);
            }
        }
    }

    /// What those of these subscriptions count that a connection does not have.
    #[must_use]
    pub fn new_of(&self, connection: ConnectionId, patterns: &[Pattern]) -> Size {
        let mut new = Size::default();
        for pattern in patterns {
            for types in pattern.types.chunks(SLICE_SUBSCRIPTIONS) {
                let all = types.iter().map(|kind| pattern.subscription(kind.clone()));
                let all: Vec<Subscription> = all.collect();
                let state = self.lock();
                let found = state.subscribers.get(&connection);
                let is_new =
                    |one: &&Subscription| found.is_none_or(|found| !found.subscriptions.has(one));
                new = new + all.iter().filter(is_new).map(Subscription::size).sum();
            }
        }
        new
    }

    /// The user whose rights a connection's subscriptions have; none where it may see everything, or has none.
    #[must_use]
    pub fn viewer(&self, connection: ConnectionId) -> Option<UserId> {
        let state = self.lock();
        state.subscribers.get(&connection)?.viewer
    }

    /// Whether a connection has begun to receive events, even if it has ended all its subscriptions since.
    #[must_use]
    pub fn has_begun(&self, connection: ConnectionId) -> bool {
        self.lock().subscribers.contains_key(&connection)
    }

    /// The size of a connection's subscriptions.
    #[must_use]
    pub fn size(&self, connection: ConnectionId) -> Size {
        let state = self.lock();
        let found = state.subscribers.get(&connection);
        found.map_or_else(Size::default, |found| found.subscriptions.size())
    }

    /// Lists some of a connection's subscriptions, those behind `last`. Gives the last of them, if there may be more.
    #[must_use]
    pub fn list_some(
        &self,
        connection: ConnectionId,
        last: Option<&Subscription>,
        mut each: impl FnMut(&Subscription),
    ) -> Option<Subscription> {
        let state = self.lock();
        let found = state.subscribers.get(&connection)?;
        let mut some = found.subscriptions.behind(last).take(SLICE_SUBSCRIPTIONS);
        let mut count = 0;
        let last = some
            .by_ref()
            .inspect(|one| {
                each(one);
                count += 1;
            })
            .last();
        last.filter(|_| count == SLICE_SUBSCRIPTIONS).cloned()
    }

    /// Gives a connection that is behind, and waits for event `next`, stored events from there on, without a hole.
    /// `oldest` is the oldest one that is stored; `events` begin with the later one of the two. `unnamed` are those that this
    /// user may see although their audience does not name it.
    ///
    /// Events that were not given out here yet are left for the next time: who may see them is not known before.
    pub fn catch_up(
        &self,
        connection: ConnectionId,
        next: Seq,
        oldest: Seq,
        events: Option<&Events>,
        (user, unnamed): (Option<UserId>, &[Seq]),
        now_ms: u64,
    ) {
        let mut state = self.lock();
        let State {
            newest,
            subscribers,
            routes,
            companions,
            ..
        } = &mut *state;
        // What the store found of companions is in `unnamed`.
        let company = FxHashSet::default();
        // The stream may be another one by now: after a logout, or a login.
        let Some(subscriber) = subscribers
            .get_mut(&connection)
            .filter(|subscriber| subscriber.outbox.behind_at() == Some(next))
        else {
            return;
        };
        if oldest > next {
            subscriber.outbox.push(gap_line(next, oldest - 1, now_ms));
        }
        let mut reached = oldest.max(next) - 1;
        if let Some(events) = events {
            // Those that it gets one behind the other are handed over together.
            let mut begin = 0;
            let mut end = 0;
            for event in events.iter().take_while(|event| event.seq <= *newest) {
                reached = event.seq;
                let matter = Matter::of(event, companions.then_some(&company));
                let may_see = routes.show(&matter, subscriber.viewer)
                    || subscriber.viewer == user && unnamed.binary_search(&event.seq).is_ok();
                let mask = Mask::of_event(event.subclass, event.kind);
                let here = || routes.mask(event.object, connection);
                if !may_see || !subscriber.wants(mask, here) {
                    subscriber.push_lines(events, begin..end);
                    begin = end + 1;
                }
                end += 1;
            }
            subscriber.push_lines(events, begin..end);
        }
        if subscriber.outbox.caught_up_to(reached) {
            subscriber.tell_position(reached, now_ms);
        }
    }

    /// Sends positions to those who asked for them and have been sent nothing for a minute, while the log moved on.
    pub fn tell_positions(&self, now_ms: u64) {
        let mut state = self.lock();
        state.routes.forget_some();
        let newest = state.newest;
        for subscriber in state.subscribers.values_mut() {
            if subscriber.is_due_a_position(now_ms) {
                subscriber.tell_position(newest, now_ms);
            }
        }
    }
}

impl State {
    /// Prepares for the events of another round.
    fn begin_round(&mut self) {
        self.delivered.clear();
        self.routes.forget_some();
    }

    /// Gives an event to those who are to have it, and adds those that must be woken. Gives how many have it.
    fn give(
        &mut self,
        event: &Event,
        company: &Company,
        now_ms: u64,
        awake: &mut Vec<Arc<Outbox>>,
    ) -> usize {
        let Self {
            newest,
            subscribers,
            routes,
            companions,
            delivered,
        } = self;
        let mut count = 0;
        routes.promote(event);
        let company = routes.company(event, company);
        let matter = Matter::of(event, companions.then_some(&company));
        let mask = Mask::of_event(event.subclass, event.kind);
        for (id, route) in routes.of(&matter) {
            let Some(subscriber) = subscribers.get_mut(&id) else {
                continue;
            };
            let wanted = match route {
                Route::Object(wanted) => wanted.meets(mask),
                Route::Everything | Route::Member => {
                    subscriber.wants(mask, || routes.mask(event.object, id))
                }
            };
            if wanted && routes.lead(&matter, id, subscriber, route) {
                count += 1;
                let offered = subscriber.outbox.offer(event.seq, &event.line);
                if offered.kept {
                    subscriber.told(event.seq, now_ms);
                }
                if offered.wake {
                    awake.push(Arc::clone(&subscriber.outbox));
                }
            }
        }
        routes.demote(event);
        *newest = event.seq;
        delivered.insert(event.object, count);
        count
    }
}

#[cfg(test)]
mod tests;
