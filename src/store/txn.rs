//! One round of changes: an overlay over the committed state, decided in memory and written as a whole.
//!
//! Operations of a round see what the earlier ones changed. One that is refused is rolled back to where it began, so
//! that a refusal changes nothing.

use crate::error::Error;
use crate::limits::BACKLOG_SLICE_ROWS;
use crate::model::{
    Audience, ClockNote, ConversationId, Event, EventType, Id, IdMaker, MessageId, Moment,
    Subclass, UserId,
};
use crate::store::keys::{self, Range};
use crate::store::rows::{self, ConversationRow, CountersRow, Head, MessageRow, UserRow};
use crate::store::state::{Blob, Scan, State, merged};
use crate::wire::{EventBody, event_line};
use minicbor::{Decode, Encode};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the overlay held for a key before an operation changed it.
enum Before {
    Nothing,
    Change(Option<Blob>),
}

/// The changes of a round, and the events that they cause.
pub struct Txn<'a> {
    base: &'a dyn State,
    now: Moment,
    clock: ClockNote,
    overlay: BTreeMap<Blob, Option<Blob>>,
    undo: Vec<(Blob, Before)>,
    /// The numbers and counters as the round has made them.
    pub head: Head,
    events: Vec<Event>,
    bytes: usize,
    largest_change: usize,
    mark: Mark,
}

#[derive(Default)]
struct Mark {
    head: Head,
    events: usize,
    bytes: usize,
}

/// A decided round, ready to be written.
#[derive(Debug)]
pub struct Round {
    /// The numbers and counters after it.
    pub head: Head,
    /// The keys that it sets or, with `None`, removes, sorted.
    pub changes: Vec<(Blob, Option<Blob>)>,
    /// The events that it causes, in order.
    pub events: Vec<Event>,
    /// Whether it only deletes, for those who may do everything: there is room for it on a full disk.
    pub deletes: bool,
    /// How many rows the largest of its operations changes.
    pub largest_change: usize,
}

impl<'a> Txn<'a> {
    /// A round over `base`, whose head is `head`, at the moment `now`.
    #[must_use]
    pub fn new(base: &'a dyn State, head: Head, (now, clock): (Moment, ClockNote)) -> Self {
        let head = Head {
            record: head.record + 1,
            time: head.time.max(now.log_ms),
            ..head
        };
        Self {
            base,
            now,
            clock,
            overlay: BTreeMap::new(),
            undo: Vec::new(),
            head,
            events: Vec::new(),
            bytes: 0,
            largest_change: 0,
            mark: Mark {
                head,
                ..Mark::default()
            },
        }
    }

    /// The time of the round by the clock: what objects and events show.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now.wall_ms
    }

    /// The time of the round that never runs backwards: by it is counted how long something is kept.
    #[must_use]
    pub fn log_ms(&self) -> u64 {
        self.head.time
    }

    /// The time of the round by which tokens expire.
    #[must_use]
    pub fn held_ms(&self) -> u64 {
        self.now.held_ms
    }

    /// What was made before this, by [`Txn::log_ms`], has been kept for long enough.
    #[must_use]
    pub fn kept_since_ms(&self) -> u64 {
        self.now.kept_since_ms
    }

    /// Notes what the next start must know of the clock.
    pub fn note_clock(&mut self) -> Result<(), Error> {
        let clock = rows::encode(&self.clock, self.head.format)?;
        self.put(keys::CLOCK, clock);
        Ok(())
    }

    /// What is noted of the clock.
    pub fn noted_clock(state: &dyn State) -> Result<ClockNote, Error> {
        let note = state.get(keys::CLOCK)?;
        note.map_or(Ok(ClockNote::default()), |row| rows::decode(&row))
    }

    /// Bytes of changes and events so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the changes and events of the operation that is neither kept nor rolled back.
    #[must_use]
    pub fn added_bytes(&self) -> usize {
        self.bytes - self.mark.bytes
    }

    /// Whether an operation changed so many rows that those behind it wait for the next round.
    #[must_use]
    pub fn has_large_change(&self) -> bool {
        self.largest_change > BACKLOG_SLICE_ROWS
    }

    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.overlay.is_empty() && self.events.is_empty()
    }

    /// Keeps what the operation changed.
    pub fn keep(&mut self) {
        self.largest_change = self.largest_change.max(self.undo.len());
        self.undo.clear();
        self.mark = Mark {
            head: self.head,
            events: self.events.len(),
            bytes: self.bytes,
        };
    }

    /// Takes back what the operation changed.
    pub fn roll_back(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Before::Change(value) => self.overlay.insert(key, value),
                Before::Nothing => self.overlay.remove(&key),
            };
        }
        self.head = self.mark.head;
        self.events.truncate(self.mark.events);
        self.bytes = self.mark.bytes;
    }

    /// The round as it is to be written.
    pub fn finish(mut self) -> Result<Round, Error> {
        if !Self::noted_clock(self.base)?.agrees(&self.clock) {
            self.note_clock()?;
        }
        let head = self.head.to_row()?;
        self.overlay.insert(keys::HEAD.into(), Some(head.into()));
        Ok(Round {
            head: self.head,
            changes: self.overlay.into_iter().collect(),
            events: self.events,
            deletes: false,
            largest_change: self.largest_change,
        })
    }

    /// A new id.
    pub fn new_id(&mut self) -> Id {
        let mut maker = IdMaker::after(self.head.last_id);
        let id = maker.next(self.now.held_ms);
        self.head.last_id = maker.last();
        id
    }

    /// Sets a key.
    pub fn put(&mut self, key: &[u8], value: impl Into<Blob>) {
        let value = value.into();
        self.bytes += key.len() + value.len();
        self.change(key, Some(value));
    }

    /// Sets a key to a row.
    pub fn put_row(
        &mut self,
        key: &[u8],
        row: &(impl Serialize + Encode<()>),
    ) -> Result<(), Error> {
        let row = rows::encode(row, self.head.format)?;
        self.put(key, row);
        Ok(())
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &[u8]) {
        self.bytes += key.len();
        self.change(key, None);
    }

    fn change(&mut self, key: &[u8], value: Option<Blob>) {
        let key = Blob::from(key);
        let before = self.overlay.insert(key.clone(), value);
        let before = before.map_or(Before::Nothing, Before::Change);
        self.undo.push((key, before));
    }

    /// Adds an event, which gets the next number.
    pub fn emit(
        &mut self,
        by: Option<UserId>,
        (subclass, kind, object): (Subclass, EventType, Id),
        audience: Audience,
        body: Option<&EventBody<'_>>,
    ) {
        self.head.seq += 1;
        let line = event_line(
            subclass,
            kind,
            object,
            body,
            self.head.seq,
            self.now.wall_ms,
            by,
        );
        self.bytes += line.len();
        self.events.push(Event {
            seq: self.head.seq,
            subclass,
            kind,
            object,
            audience,
            line,
        });
    }

    /// A user's row.
    pub fn user(&self, id: UserId) -> Result<Option<UserRow<'static>>, Error> {
        self.get(&keys::user(id))?
            .map(|row| rows::decode(&row).map(UserRow::into_owned))
            .transpose()
    }

    /// A conversation's row.
    pub fn conversation(
        &self,
        id: ConversationId,
    ) -> Result<Option<ConversationRow<'static>>, Error> {
        self.get(&keys::conversation(id))?
            .map(|row| rows::decode(&row).map(ConversationRow::into_owned))
            .transpose()
    }

    /// A conversation's message counters.
    pub fn counters(&self, id: ConversationId) -> Result<CountersRow, Error> {
        Ok(self.row(&keys::counters(id))?.unwrap_or_default())
    }

    /// A message's row.
    pub fn message(
        &self,
        conversation: ConversationId,
        id: MessageId,
    ) -> Result<Option<MessageRow<'static>>, Error> {
        let row = self.get(&keys::message(conversation, id))?;
        row.map(|row| rows::decode(&row).map(MessageRow::into_owned))
            .transpose()
    }

    /// A row of which the caller keeps nothing borrowed.
    pub fn row<T>(&self, key: &[u8]) -> Result<Option<T>, Error>
    where
        T: serde::de::DeserializeOwned + for<'b> Decode<'b, ()>,
    {
        self.get(key)?
            .map(|bytes| rows::decode::<T>(&bytes))
            .transpose()
    }
}

impl State for Txn<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Blob>, Error> {
        match self.overlay.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(key),
        }
    }

    /// The rows of the base, except those that the overlay changes, merged with the overlay's own.
    fn scan(&self, range: &Range) -> Scan<'_> {
        if range.low >= range.high {
            return Box::new(std::iter::empty());
        }
        let (low, high) = (
            Blob::from(range.low.as_slice()),
            Blob::from(range.high.as_slice()),
        );
        let changed: Vec<(Blob, Option<Blob>)> = self
            .overlay
            .range(low..high)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        merged(self.base.scan(range), changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_of(scan: Scan<'_>) -> Vec<String> {
        scan.map(|row| String::from_utf8_lossy(&row.unwrap().0).into_owned())
            .collect()
    }

    #[test]
    fn a_scan_sees_the_round_from_both_ends() {
        let base: BTreeMap<Blob, Blob> = ["a1", "a3", "a5"]
            .map(|key| (Blob::from(key), Blob::from("base")))
            .into();
        let mut txn = Txn::new(
            &base,
            Head::default(),
            (Moment::at(1, 0), ClockNote::default()),
        );
        txn.put(b"a2", "new");
        txn.remove(b"a3");
        txn.put(b"a5", "changed");
        txn.put(b"a6", "new");
        txn.put(b"b", "outside");
        let range = keys::prefix(b"a");
        assert_eq!(keys_of(txn.scan(&range)), ["a1", "a2", "a5", "a6"]);
        assert_eq!(
            keys_of(Box::new(txn.scan(&range).rev())),
            ["a6", "a5", "a2", "a1"]
        );
        let mut both = txn.scan(&range);
        let mut ends = Vec::new();
        while let Some(row) = if ends.len() % 2 == 0 {
            both.next()
        } else {
            both.next_back()
        } {
            ends.push(row.unwrap().0);
        }
        assert_eq!(
            ends,
            [
                Blob::from("a1"),
                Blob::from("a6"),
                Blob::from("a2"),
                Blob::from("a5")
            ]
        );
    }

    #[test]
    fn a_refused_operation_leaves_nothing() {
        let base: BTreeMap<Blob, Blob> = BTreeMap::new();
        let mut txn = Txn::new(
            &base,
            Head::default(),
            (Moment::at(7, 0), ClockNote::default()),
        );
        txn.put(b"a", "kept");
        txn.keep();
        txn.put(b"a", "lost");
        txn.remove(b"a");
        txn.put(b"b", "lost");
        let id = txn.new_id();
        txn.emit(
            None,
            (Subclass::User, EventType::Created, id),
            Audience::default(),
            None,
        );
        txn.roll_back();
        let round = txn.finish().unwrap();
        assert_eq!(round.events, []);
        assert_eq!((round.head.seq, round.head.last_id), (0, 0));
        let kept: Vec<_> = round
            .changes
            .iter()
            .map(|(key, value)| (key.as_ref(), value.as_deref()))
            .collect();
        assert_eq!(kept[1], (&b"a"[..], Some(&b"kept"[..])));
        assert_eq!(kept.len(), 2);
    }
}
