//! Who is subscribed to what and may see it, and giving each committed event to those it concerns (protocol.md, 6, 7).
//!
//! The hub is told of events in their order and once each. It knows no store and no commands; what a full connection
//! misses here, that connection fetches from the stored events itself, and hands over to be sifted in the same way.

mod routes;
mod sight;
mod subscriptions;

pub use subscriptions::{ANY, Subscription, Subscriptions, subscribed_conversations};

use crate::model::{Audience, Event, Events, Id, Seq, Sight, UserId};
use crate::wire::{Outbox, gap_line, position_line};
use bytes::Bytes;
use routes::{Matter, Routes};
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of a connection in this process.
pub type ConnectionId = u64;

/// Milliseconds between two positions of a subscriber that asked for them.
const POSITION_EVERY_MS: u64 = 60_000;

/// What a connection subscribes to, and how.
#[derive(Debug)]
pub struct Wish {
    /// The subscriptions to add.
    pub added: Vec<Subscription>,
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
    /// To how many connections the events given out last went, by what they are about.
    delivered: FxHashMap<Id, usize>,
}

#[derive(Debug)]
struct Subscriber {
    outbox: Arc<Outbox>,
    subscriptions: Arc<Subscriptions>,
    position: Option<Position>,
    /// The user whose rights it has; it may see everything where there is none.
    viewer: Option<UserId>,
    /// Whether it is subscribed to every object.
    everywhere: bool,
}

#[derive(Debug)]
struct Position {
    /// Up to which event the client knows that it has everything.
    told: Seq,
    at_ms: u64,
}

impl Hub {
    /// A hub whose newest event is `newest`.
    #[must_use]
    pub fn new(newest: Seq) -> Self {
        Self {
            state: Mutex::new(State {
                newest,
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

    /// Gives events to those who subscribed to them and may see them.
    pub fn publish(&self, events: &[Event], now_ms: u64) {
        if events.iter().any(|event| !event.kind.is_of_message()) {
            self.rights_changes.fetch_add(1, Ordering::Release);
        }
        let mut awake = Vec::new();
        let mut state = self.lock();
        let State {
            newest,
            subscribers,
            routes,
            delivered,
        } = &mut *state;
        delivered.clear();
        for event in events {
            let mut count = 0;
            routes.promote(event);
            let matter = Matter::of(event);
            for (id, route) in routes.of(&matter) {
                let Some(subscriber) = subscribers.get_mut(&id) else {
                    continue;
                };
                if routes.lead(&matter, id, subscriber, route) && subscriber.wants(event) {
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
        }
        drop(state);
        // Only now: so each of them writes the events of the whole round at once.
        for outbox in awake {
            outbox.wake();
        }
    }

    /// Gives an event that is stored nowhere to those who subscribed to it and may see it. Gives how many those are.
    pub fn send(&self, kind: &str, object: Id, line: &Bytes) -> usize {
        let mut count = 0;
        let state = self.lock();
        let matter = Matter {
            private: true,
            object,
            audience: &Audience::default(),
        };
        let text = object.text();
        for (id, route) in state.routes.of(&matter) {
            if let Some(subscriber) = state.subscribers.get(&id)
                && state.routes.lead(&matter, id, subscriber, route)
                && subscriber
                    .subscriptions
                    .match_ephemeral(kind, text.as_str())
            {
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

    /// Says what a user may see, read from the store after [`Hub::follow`].
    pub fn show(&self, user: UserId, sight: Sight) {
        self.lock().routes.load(user, sight);
    }

    /// Whether a user that is followed may see every conversation.
    #[must_use]
    pub fn sees_everything(&self, user: UserId) -> bool {
        self.lock().routes.sees_everything(user)
    }

    /// Adds subscriptions of a connection. Gives the newest event's number.
    pub fn subscribe(
        &self,
        connection: ConnectionId,
        outbox: &Arc<Outbox>,
        wish: Wish,
        now_ms: u64,
    ) -> Seq {
        let mut state = self.lock();
        let state = &mut *state;
        let newest = state.newest;
        if let Some(user) = wish.viewer {
            // What was not followed is not known, and so not seen.
            state.routes.view(user, connection);
        }
        let subscriber = state.subscribers.entry(connection).or_insert_with(|| {
            let after = match wish.begin {
                Begin::Now => newest,
                // The log may be ahead of what was given out here; never behind.
                Begin::After(after) => after,
            };
            outbox.stream_from(after, newest.max(after));
            Subscriber {
                outbox: Arc::clone(outbox),
                subscriptions: Arc::default(),
                position: None,
                viewer: wish.viewer,
                everywhere: false,
            }
        });
        if wish.position && subscriber.position.is_none() {
            let told = if subscriber.outbox.is_live() {
                newest
            } else {
                0
            };
            if told == newest {
                subscriber.outbox.push(position_line(newest, now_ms));
            }
            subscriber.position = Some(Position {
                told,
                at_ms: now_ms,
            });
        }
        let subscriptions = Arc::make_mut(&mut subscriber.subscriptions);
        for subscription in wish.added {
            subscriber.everywhere |= &*subscription.obj_id == ANY;
            state.routes.add(connection, &subscription.obj_id);
            subscriptions.insert(subscription);
        }
        newest
    }

    /// Removes subscriptions of a connection. Its stream goes on with the others.
    pub fn unsubscribe(&self, connection: ConnectionId, removed: &[Subscription]) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(subscriber) = state.subscribers.get_mut(&connection) else {
            return;
        };
        let subscriptions = Arc::make_mut(&mut subscriber.subscriptions);
        for subscription in removed {
            if !subscriptions.remove(subscription) {
                subscriber.everywhere &= &*subscription.obj_id != ANY;
                state.routes.remove(connection, &subscription.obj_id);
            }
        }
    }

    /// Forgets a connection's subscriptions, and for whom it sees.
    pub fn leave(&self, connection: ConnectionId) {
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(subscriber) = state.subscribers.remove(&connection) {
            subscriber.outbox.end_stream();
            for object in subscriber.subscriptions.objects() {
                state.routes.remove(connection, object);
            }
        }
        state.routes.leave(connection);
    }

    /// The user whose rights a connection's subscriptions have; none where it may see everything, or has none.
    #[must_use]
    pub fn viewer(&self, connection: ConnectionId) -> Option<UserId> {
        let state = self.lock();
        state.subscribers.get(&connection)?.viewer
    }

    /// The subscriptions of a connection.
    #[must_use]
    pub fn subscriptions(&self, connection: ConnectionId) -> Arc<Subscriptions> {
        self.lock()
            .subscribers
            .get(&connection)
            .map(|found| Arc::clone(&found.subscriptions))
            .unwrap_or_default()
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
            ..
        } = &mut *state;
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
                let matter = Matter::of(event);
                let may_see = routes.show(&matter, subscriber.viewer)
                    || subscriber.viewer == user && unnamed.contains(&event.seq);
                if !may_see || !subscriber.wants(event) {
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
        let newest = state.newest;
        for subscriber in state.subscribers.values_mut() {
            if let Some(position) = &subscriber.position
                && now_ms.abs_diff(position.at_ms) >= POSITION_EVERY_MS
                && subscriber.outbox.is_live()
            {
                subscriber.tell_position(newest, now_ms);
            }
        }
    }
}

impl Subscriber {
    fn wants(&self, event: &Event) -> bool {
        self.subscriptions
            .match_event(event.subclass, event.kind, event.object)
    }

    fn push_lines(&self, events: &Events, some: Range<usize>) {
        if !some.is_empty() {
            self.outbox.push(events.lines(some));
        }
    }

    /// Sends its position, if it asked for positions and does not know this one.
    fn tell_position(&mut self, seq: Seq, now_ms: u64) {
        if self
            .position
            .as_ref()
            .is_some_and(|position| position.told < seq)
        {
            self.outbox.push(position_line(seq, now_ms));
            self.told(seq, now_ms);
        }
    }

    fn told(&mut self, seq: Seq, now_ms: u64) {
        if let Some(position) = &mut self.position {
            *position = Position {
                told: seq,
                at_ms: now_ms,
            };
        }
    }
}

#[cfg(test)]
mod tests;
