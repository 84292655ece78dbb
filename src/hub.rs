//! Who is subscribed to what, and giving each committed event to those it concerns (protocol.md, 6).
//!
//! The hub is told of events in their order and once each. It knows no store and no commands; what a full connection
//! misses here, that connection fetches from the stored events itself.

use crate::model::{Event, EventType, Id, Seq};
use crate::wire::{Outbox, position_line};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of a connection in this process.
pub type ConnectionId = u64;

/// What stands for everything in a subscription.
pub const ANY: &str = "*";
/// Milliseconds between two positions of a subscriber that asked for them.
const POSITION_EVERY_MS: u64 = 60_000;

/// One subscription, with `"*"` for what it leaves open. Types are spelled as the wire spells them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Subscription {
    /// The subclass.
    pub subclass: Box<str>,
    /// The event's type.
    pub r#type: Box<str>,
    /// The object.
    pub obj_id: Box<str>,
}

/// The subscriptions of one connection.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    by_object: BTreeMap<Box<str>, BTreeSet<Subscription>>,
    count: usize,
}

impl Subscriptions {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.by_object.values().flatten()
    }

    fn insert(&mut self, subscription: Subscription) {
        let added = self
            .by_object
            .entry(subscription.obj_id.clone())
            .or_default()
            .insert(subscription);
        self.count += usize::from(added);
    }

    fn remove(&mut self, subscription: &Subscription) {
        if let Some(patterns) = self.by_object.get_mut(&subscription.obj_id) {
            self.count -= usize::from(patterns.remove(subscription));
            if patterns.is_empty() {
                self.by_object.remove(&subscription.obj_id);
            }
        }
    }

    /// Whether any of them matches an event.
    #[must_use]
    pub fn match_event(&self, subclass: &str, kind: &str, object: Id) -> bool {
        [object.text().as_str(), ANY].into_iter().any(|object| {
            self.by_object.get(object).is_some_and(|patterns| {
                patterns.iter().any(|pattern| {
                    (&*pattern.subclass == ANY || &*pattern.subclass == subclass)
                        && (&*pattern.r#type == ANY || &*pattern.r#type == kind)
                })
            })
        })
    }
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
}

#[derive(Debug, Default)]
struct State {
    newest: Seq,
    subscribers: HashMap<ConnectionId, Subscriber>,
    by_object: HashMap<Id, HashSet<ConnectionId>>,
    everywhere: HashSet<ConnectionId>,
}

#[derive(Debug)]
struct Subscriber {
    outbox: Arc<Outbox>,
    subscriptions: Arc<Subscriptions>,
    position: Option<Position>,
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
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives events to those who subscribed to them.
    pub fn publish(&self, events: &[Event], now_ms: u64) {
        let mut state = self.lock();
        let state = &mut *state;
        for event in events {
            let (subclass, kind) = (event.subclass.as_str(), event.kind.as_str());
            for id in concerned(&state.by_object, &state.everywhere, event.object) {
                if let Some(subscriber) = state.subscribers.get_mut(id)
                    && subscriber
                        .subscriptions
                        .match_event(subclass, kind, event.object)
                {
                    let sent = subscriber.outbox.offer(event.seq, &event.line);
                    if sent && let Some(position) = &mut subscriber.position {
                        *position = Position {
                            told: event.seq,
                            at_ms: now_ms,
                        };
                    }
                }
            }
            state.newest = event.seq;
        }
    }

    /// Gives an event that is stored nowhere to those who subscribed to it.
    pub fn send(&self, kind: &str, object: Id, line: &Bytes) {
        let state = self.lock();
        for id in concerned(&state.by_object, &state.everywhere, object) {
            if let Some(subscriber) = state.subscribers.get(id)
                && subscriber
                    .subscriptions
                    .match_event("conversation", kind, object)
            {
                subscriber.outbox.offer_ephemeral(line);
            }
        }
    }

    /// Adds subscriptions of a connection; `begin` counts for its first ones only. Gives the newest event's number.
    pub fn subscribe(
        &self,
        connection: ConnectionId,
        outbox: &Arc<Outbox>,
        added: Vec<Subscription>,
        begin: Begin,
        position: bool,
        now_ms: u64,
    ) -> Seq {
        let mut state = self.lock();
        let newest = state.newest;
        let subscriber = state.subscribers.entry(connection).or_insert_with(|| {
            let after = match begin {
                Begin::Now => newest,
                // The log may be ahead of what was given out here; never behind.
                Begin::After(after) => after,
            };
            outbox.stream_from(after, newest.max(after));
            Subscriber {
                outbox: Arc::clone(outbox),
                subscriptions: Arc::default(),
                position: None,
            }
        });
        if position && subscriber.position.is_none() {
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
        let mut everywhere = false;
        let mut objects = Vec::new();
        for subscription in added {
            if &*subscription.obj_id == ANY {
                everywhere = true;
            } else {
                objects.extend(Id::parse(&subscription.obj_id));
            }
            subscriptions.insert(subscription);
        }
        if everywhere {
            state.everywhere.insert(connection);
        }
        for object in objects {
            state
                .by_object
                .entry(object)
                .or_default()
                .insert(connection);
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
            subscriptions.remove(subscription);
            if !subscriptions.by_object.contains_key(&subscription.obj_id) {
                forget(
                    &mut state.by_object,
                    &mut state.everywhere,
                    &subscription.obj_id,
                    connection,
                );
            }
        }
    }

    /// Forgets a connection.
    pub fn leave(&self, connection: ConnectionId) {
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(subscriber) = state.subscribers.remove(&connection) {
            for object in subscriber.subscriptions.by_object.keys() {
                forget(
                    &mut state.by_object,
                    &mut state.everywhere,
                    object,
                    connection,
                );
            }
        }
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

    /// Says that a connection was given all stored events up to `seq`; sends its first position once it is live.
    pub fn caught_up(&self, connection: ConnectionId, seq: Seq, now_ms: u64) {
        let mut state = self.lock();
        if let Some(subscriber) = state.subscribers.get_mut(&connection)
            && subscriber.outbox.caught_up_to(seq)
            && let Some(position) = &mut subscriber.position
            && position.told < seq
        {
            subscriber.outbox.push(position_line(seq, now_ms));
            *position = Position {
                told: seq,
                at_ms: now_ms,
            };
        }
    }

    /// Sends positions to those who asked for them and have been sent nothing for a minute, while the log moved on.
    pub fn tell_positions(&self, now_ms: u64) {
        let mut state = self.lock();
        let newest = state.newest;
        for subscriber in state.subscribers.values_mut() {
            if let Some(position) = &mut subscriber.position
                && position.told < newest
                && now_ms.saturating_sub(position.at_ms) >= POSITION_EVERY_MS
                && subscriber.outbox.is_live()
            {
                subscriber.outbox.push(position_line(newest, now_ms));
                *position = Position {
                    told: newest,
                    at_ms: now_ms,
                };
            }
        }
    }
}

/// The connections that may want an event about an object, each once.
fn concerned<'a>(
    by_object: &'a HashMap<Id, HashSet<ConnectionId>>,
    everywhere: &'a HashSet<ConnectionId>,
    object: Id,
) -> impl Iterator<Item = &'a ConnectionId> {
    let here = by_object.get(&object).into_iter().flatten();
    here.filter(|id| !everywhere.contains(id)).chain(everywhere)
}

fn forget(
    by_object: &mut HashMap<Id, HashSet<ConnectionId>>,
    everywhere: &mut HashSet<ConnectionId>,
    object: &str,
    connection: ConnectionId,
) {
    if object == ANY {
        everywhere.remove(&connection);
    } else if let Some(object) = Id::parse(object)
        && let Some(connections) = by_object.get_mut(&object)
    {
        connections.remove(&connection);
        if connections.is_empty() {
            by_object.remove(&object);
        }
    }
}

/// Whether an event matches, for those who read stored events.
#[must_use]
pub fn matches(subscriptions: &Subscriptions, event: &Event) -> bool {
    let kind: EventType = event.kind;
    subscriptions.match_event(event.subclass.as_str(), kind.as_str(), event.object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Audience, Subclass};
    use crate::wire::Batch;

    fn subscription(subclass: &str, kind: &str, object: &str) -> Subscription {
        Subscription {
            subclass: subclass.into(),
            r#type: kind.into(),
            obj_id: object.into(),
        }
    }

    fn event(seq: Seq, object: u64) -> Event {
        Event {
            seq,
            subclass: Subclass::Conversation,
            kind: EventType::Created,
            object: Id(object),
            audience: Audience::default(),
            line: Bytes::from(format!("{seq} ")),
        }
    }

    async fn written(outbox: &Outbox) -> String {
        match outbox.next_batch(10_000).await {
            Batch::Write(bytes) => {
                outbox.wrote(bytes.len());
                String::from_utf8_lossy(&bytes).into_owned()
            }
            other => format!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_event_comes_once_however_many_subscriptions_match() {
        let hub = Hub::new(0);
        let outbox = Arc::new(Outbox::new(1000, 8));
        let object = Id(9).to_string();
        let all = vec![
            subscription(ANY, ANY, ANY),
            subscription("conversation", ANY, &object),
            subscription(ANY, "created", &object),
        ];
        hub.subscribe(1, &outbox, all.clone(), Begin::Now, false, 0);
        hub.publish(&[event(1, 9), event(2, 8)], 0);
        assert_eq!(written(&outbox).await, "1 2 ");
        hub.unsubscribe(1, &all[..1]);
        hub.publish(&[event(3, 9), event(4, 8)], 0);
        assert_eq!(written(&outbox).await, "3 ");
        hub.unsubscribe(1, &all[1..]);
        assert!(hub.subscriptions(1).is_empty());
        hub.leave(1);
        assert!(hub.lock().by_object.is_empty() && hub.lock().everywhere.is_empty());
    }

    #[tokio::test]
    async fn a_position_is_told_once_a_minute_while_the_log_moves_on() {
        let hub = Hub::new(7);
        let outbox = Arc::new(Outbox::new(1000, 8));
        hub.subscribe(
            1,
            &outbox,
            vec![subscription("user", ANY, ANY)],
            Begin::Now,
            true,
            1000,
        );
        assert!(
            written(&outbox)
                .await
                .contains(r#""type":"position","seq":7"#)
        );
        hub.publish(&[event(8, 9)], 2000);
        hub.tell_positions(60_999);
        hub.tell_positions(61_000);
        hub.tell_positions(61_000);
        let line = written(&outbox).await;
        assert!(
            line.contains(r#""seq":8"#) && line.matches("position").count() == 1,
            "{line}"
        );
    }
}
