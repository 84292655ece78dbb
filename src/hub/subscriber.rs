//! One connection of those that are subscribed: what it wants, and where its stream is.

use super::mask::Mask;
use super::pattern::Pattern;
use super::routes::Routes;
use super::subscriptions::Subscriptions;
use super::{Begin, ConnectionId};
use crate::model::{Events, Seq, UserId};
use crate::wire::{Outbox, position_line};
use std::ops::Range;
use std::sync::Arc;

/// Milliseconds between two positions of a subscriber that asked for them.
const POSITION_EVERY_MS: u64 = 60_000;

/// A connection that is subscribed, or was.
#[derive(Debug)]
pub struct Subscriber {
    /// What waits for its client.
    pub outbox: Arc<Outbox>,
    /// What it is subscribed to.
    pub subscriptions: Subscriptions,
    position: Option<Position>,
    /// The user whose rights it has; it may see everything where there is none.
    pub viewer: Option<UserId>,
    /// What its subscriptions to every object match, if it has any.
    pub everywhere: Option<Mask>,
}

#[derive(Debug)]
struct Position {
    /// Up to which event the client knows that it has everything.
    told: Seq,
    at_ms: u64,
}

impl Subscriber {
    /// One that is subscribed to nothing yet.
    pub fn new(outbox: &Arc<Outbox>, viewer: Option<UserId>) -> Self {
        Self {
            outbox: Arc::clone(outbox),
            subscriptions: Subscriptions::default(),
            position: None,
            viewer,
            everywhere: None,
        }
    }

    /// Begins its stream.
    pub fn begin(&self, begin: Begin, newest: Seq) {
        let after = match begin {
            Begin::Now => newest,
            // The log may be ahead of what was given out here; never behind.
            Begin::After(after) => after,
        };
        self.outbox.stream_from(after, newest.max(after));
    }

    /// Begins to tell its positions, if that has not begun.
    pub fn begin_positions(&mut self, newest: Seq, now_ms: u64) {
        if self.position.is_some() {
            return;
        }
        let told = if self.outbox.is_live() { newest } else { 0 };
        if told == newest {
            self.outbox.push(position_line(newest, now_ms));
        }
        self.position = Some(Position {
            told,
            at_ms: now_ms,
        });
    }

    /// Adds subscriptions, and the way of events to them.
    pub fn add(&mut self, connection: ConnectionId, mut added: Pattern, routes: &mut Routes) {
        let mut mask = Mask::default();
        for kind in &added.types {
            mask |= Mask::of_subscription(added.subclass, kind);
        }
        if let Some(id) = added.object.id() {
            routes.add(connection, id, mask);
        } else if added.object.is_any() {
            *self.everywhere.get_or_insert_default() |= mask;
            routes.add_everywhere(connection);
        }
        added.object = self.subscriptions.shared(added.object);
        self.subscriptions.insert(added);
    }

    /// Removes subscriptions, and the way of events to them.
    pub fn remove(&mut self, connection: ConnectionId, mut removed: Pattern, routes: &mut Routes) {
        removed.object = self.subscriptions.shared(removed.object);
        let object = removed.object.clone();
        self.subscriptions.remove(removed);
        let left = self.subscriptions.mask(&object);
        if let Some(id) = object.id() {
            routes.set(connection, id, left);
        } else if object.is_any() {
            self.everywhere = left;
            if left.is_none() {
                routes.remove_everywhere(connection);
            }
        }
    }

    /// Whether it wants a stored event; `here` is what its subscriptions to the event's object match.
    pub fn wants(&self, event: Mask, here: impl FnOnce() -> Mask) -> bool {
        let anywhere = self.everywhere.unwrap_or_default();
        anywhere.meets(event) || here().meets(event)
    }

    /// Puts the lines of some events at the end of what waits.
    pub fn push_lines(&self, events: &Events, some: Range<usize>) {
        if !some.is_empty() {
            self.outbox.push(events.lines(some));
        }
    }

    /// Whether it asked for positions, and has been sent nothing for a while.
    pub fn is_due_a_position(&self, now_ms: u64) -> bool {
        self.position
            .as_ref()
            .is_some_and(|position| now_ms.abs_diff(position.at_ms) >= POSITION_EVERY_MS)
            && self.outbox.is_live()
    }

    /// Sends its position, if it asked for positions and does not know this one.
    pub fn tell_position(&mut self, seq: Seq, now_ms: u64) {
        if self
            .position
            .as_ref()
            .is_some_and(|position| position.told < seq)
        {
            self.outbox.push(position_line(seq, now_ms));
            self.told(seq, now_ms);
        }
    }

    /// Notes that it knows its position, if it asked for positions.
    pub fn told(&mut self, seq: Seq, now_ms: u64) {
        if let Some(position) = &mut self.position {
            *position = Position {
                told: seq,
                at_ms: now_ms,
            };
        }
    }
}
