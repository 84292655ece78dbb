//! The lines that wait for one client: answers in the order of their requests, and events between them.
//!
//! A request takes its place when it is read, before it takes effect, and its answer is put there later. Events are
//! put at the end. So answers keep the order of their requests, and the event that a request caused cannot overtake
//! its answer, whoever finishes first (protocol.md, 1).
//!
//! What waits is bounded. An event that finds [`Outbox`] full is not kept: the outbox remembers from where on events
//! are missing, and the connection fetches them from the journal at the client's own speed (protocol.md, 6).

mod ending;
mod reply_slot;

pub use reply_slot::ReplySlot;

use crate::limits::{MEMORY_LOOK_MS, SYSTEM_HELD_BYTES};
use crate::memory::Usage;
use crate::model::Seq;
use crate::wire::CloseReason;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes that an entry counts besides its line, so that a flood of tiny lines is bounded too.
const ENTRY_BYTES: usize = 64;

/// The lines that wait for one client.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    /// Wakes the one that writes.
    written: Notify,
    /// Wakes the one that reads: there is room, or every answer is there.
    settled: Notify,
    max_pending_bytes: usize,
    max_requests: usize,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Entry>,
    /// The number of the queue's first entry.
    first: u64,
    /// Bytes in the queue and in the batch being written.
    pending_bytes: usize,
    /// Bytes of the requests whose answers are not there yet.
    under_way_bytes: usize,
    /// Bytes that are kept free for an answer that may be large.
    kept_free_bytes: usize,
    /// Bytes that the connection holds besides: its subscriptions.
    held_bytes: usize,
    /// Bytes that the system holds for a client that takes nothing at the moment.
    system_bytes: usize,
    /// The sum of all these, as far as others are to know of it.
    usage: Usage,
    /// Answers that are not there yet.
    waiting: usize,
    stream: Stream,
    /// No more requests will come: what waits is the rest.
    input_ended: bool,
    /// Why the connection ends when the queue is empty.
    closed: Option<CloseReason>,
    /// The connection is gone: nothing is kept.
    gone: bool,
}

#[derive(Debug)]
enum Entry {
    /// The answer of a request that is under way.
    Waiting,
    Line(Bytes),
}

impl Entry {
    fn line(self) -> Option<Bytes> {
        match self {
            Self::Waiting => None,
            Self::Line(line) => Some(line),
        }
    }
}

/// How the connection receives events.
#[derive(Debug)]
enum Stream {
    /// From the hub, those after this number.
    Live { after: Seq },
    /// From the journal, from `next` on; the hub has offered events up to `offered` meanwhile.
    Behind { next: Seq, offered: Seq },
}

impl Default for Stream {
    fn default() -> Self {
        Self::Live { after: 0 }
    }
}

/// What became of an event that was offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// It was kept.
    pub kept: bool,
    /// The one that writes must be woken, for it may be asleep.
    pub wake: bool,
}

/// What the one that writes is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Batch {
    /// Write these bytes, then call [`Outbox::wrote`].
    Write(Bytes),
    /// Fetch stored events from this number on, then call [`Outbox::caught_up_to`].
    CatchUp(Seq),
    /// Close the connection: all is written, and the server ends it.
    Close,
    /// All is written, and the client ended its requests.
    Drained,
}

impl Outbox {
    /// An empty outbox of a connection whose use of memory is counted there.
    #[must_use]
    pub fn new(max_pending_bytes: usize, max_requests: usize, usage: Usage) -> Self {
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                first: 0,
                pending_bytes: 0,
                under_way_bytes: 0,
                kept_free_bytes: 0,
                held_bytes: 0,
                system_bytes: 0,
                usage,
                waiting: 0,
                stream: Stream::default(),
                input_ended: false,
                closed: None,
                gone: false,
            }),
            written: Notify::new(),
            settled: Notify::new(),
            max_pending_bytes,
            max_requests,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below leaves the state whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next place in the order of answers, for the answer to a request of so many bytes with this `tid`.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, tid: Option<Bytes>, request_bytes: usize) -> ReplySlot {
        let mut state = self.lock();
        let place = state.first + state.queue.len() as u64;
        state.queue.push_back(Entry::Waiting);
        state.pending_bytes += ENTRY_BYTES;
        state.under_way_bytes += request_bytes;
        state.waiting += 1;
        state.count();
        ReplySlot::new(Arc::clone(self), place, tid, request_bytes)
    }

    /// Keeps memory free for an answer that may be so large, once there is so much; false if the connection is to end
    /// before. [`Outbox::keep_no_room`] gives it back.
    pub async fn keep_room(&self, answer_bytes: usize) -> bool {
        loop {
            let notified = self.settled.notified();
            {
                let mut state = self.lock();
                if state.closed.is_some() || state.gone {
                    return false;
                }
                if state.usage.fits(answer_bytes) {
                    state.kept_free_bytes = answer_bytes;
                    state.count();
                    return true;
                }
            }
            look_again(notified).await;
        }
    }

    /// Keeps no memory free any more: the answer is there.
    pub fn keep_no_room(&self) {
        let mut state = self.lock();
        state.kept_free_bytes = 0;
        state.count();
    }

    /// Says how many bytes the connection holds besides what waits for its client.
    pub fn hold(&self, bytes: usize) {
        let mut state = self.lock();
        state.held_bytes = bytes;
        state.count();
    }

    /// Whether the connection may hold so many bytes more for good.
    #[must_use]
    pub fn fits_for_good(&self, more: usize) -> bool {
        self.lock().usage.fits_for_good(more)
    }

    /// Puts a line at the end, full or not: answers and notices, whose number the reader bounds.
    pub fn push(&self, line: Bytes) {
        let wake = self.lock().push(line);
        if wake {
            self.wake();
        }
    }

    /// Offers a committed event: kept if there is room, else remembered as missing. The one that writes is not woken
    /// yet, so that it finds all the events of a round at once.
    pub fn offer(&self, seq: Seq, line: &Bytes) -> Offered {
        let mut state = self.lock();
        let full = self.is_full_for(&state, line);
        match &mut state.stream {
            Stream::Behind { offered, .. } => *offered = seq,
            Stream::Live { after } if seq <= *after => {}
            Stream::Live { .. } if full => {
                state.stream = Stream::Behind {
                    next: seq,
                    offered: seq,
                };
                // With nothing else to write, the one that writes is asleep.
                return Offered {
                    kept: false,
                    wake: true,
                };
            }
            Stream::Live { .. } => {
                let wake = state.push(line.clone());
                return Offered { kept: true, wake };
            }
        }
        Offered::default()
    }

    /// Wakes the one that writes.
    pub fn wake(&self) {
        self.written.notify_one();
    }

    /// Offers an event that is stored nowhere. Dropped if there is no room (protocol.md, 6).
    pub fn offer_ephemeral(&self, line: &Bytes) {
        let mut state = self.lock();
        let from_hub = matches!(state.stream, Stream::Live { .. });
        if from_hub && !self.is_full_for(&state, line) {
            let wake = state.push(line.clone());
            drop(state);
            if wake {
                self.wake();
            }
        }
    }

    /// Whether an event has no room.
    fn is_full_for(&self, state: &State, line: &Bytes) -> bool {
        let bytes = state.pending_bytes + line.len();
        bytes > self.max_pending_bytes || state.usage.is_greedy(bytes)
    }

    /// Begins the stream of events after `after`; `newest` is the newest committed one.
    pub fn stream_from(&self, after: Seq, newest: Seq) {
        let mut state = self.lock();
        state.stream = if after == newest {
            Stream::Live { after }
        } else {
            Stream::Behind {
                next: after + 1,
                offered: newest,
            }
        };
        drop(state);
        self.written.notify_one();
    }

    /// Ends the stream: neither the hub nor the journal has anything more for it.
    pub fn end_stream(&self) {
        self.lock().stream = Stream::default();
    }

    /// The event that a stream that is behind goes on with.
    #[must_use]
    pub fn behind_at(&self) -> Option<Seq> {
        match self.lock().stream {
            Stream::Behind { next, .. } => Some(next),
            Stream::Live { .. } => None,
        }
    }

    /// Whether events come from the hub, and not from the journal.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.lock().stream, Stream::Live { .. })
    }

    /// Says that all stored events up to `seq` were pushed. True when the stream is live from here on.
    pub fn caught_up_to(&self, seq: Seq) -> bool {
        let mut state = self.lock();
        if let Stream::Behind { next, offered } = &mut state.stream {
            if *offered <= seq {
                state.stream = Stream::Live { after: seq };
            } else {
                *next = seq + 1;
                drop(state);
                self.written.notify_one();
                return false;
            }
        }
        true
    }

    /// Waits for what is to be written or done next.
    pub async fn next_batch(&self, max_bytes: usize) -> Batch {
        loop {
            let notified = self.written.notified();
            if let Some(batch) = self.try_next(max_bytes) {
                return batch;
            }
            notified.await;
        }
    }

    fn try_next(&self, max_bytes: usize) -> Option<Batch> {
        let mut state = self.lock();
        let mut size = 0;
        let mut count = 0;
        for entry in &state.queue {
            let Entry::Line(line) = entry else { break };
            if count > 0 && size + line.len() > max_bytes {
                break;
            }
            size += line.len();
            count += 1;
        }
        if count > 0 {
            state.first += count as u64;
            state.pending_bytes -= count * ENTRY_BYTES;
            let mut lines = state.queue.drain(..count).filter_map(Entry::line);
            let bytes = match (count, lines.next()) {
                // One line is written as it stands, by however many connections share it.
                (1, Some(line)) => line,
                (_, first) => {
                    let mut bytes = BytesMut::with_capacity(size);
                    for line in first.into_iter().chain(lines) {
                        bytes.extend_from_slice(&line);
                    }
                    bytes.freeze()
                }
            };
            return Some(Batch::Write(bytes));
        }
        if !state.queue.is_empty() {
            return None;
        }
        if state.queue.capacity() > 64 {
            // A burst is over; an idle connection holds no memory for it.
            state.queue = VecDeque::new();
        }
        if state.closed.is_some() {
            return Some(Batch::Close);
        }
        if let Stream::Behind { next, .. } = state.stream {
            return Some(Batch::CatchUp(next));
        }
        state.input_ended.then_some(Batch::Drained)
    }

    /// Says that the client takes nothing at the moment, although some waits: then the system holds what it can, too.
    pub fn stands_still(&self) {
        let mut state = self.lock();
        state.system_bytes = SYSTEM_HELD_BYTES;
        state.count();
    }

    /// How much the connection holds, if its client takes nothing at the moment.
    #[must_use]
    pub fn standing_bytes(&self) -> Option<usize> {
        let state = self.lock();
        (state.system_bytes > 0 && state.closed.is_none()).then(|| state.bytes())
    }

    /// Says that a batch of this many bytes was taken by the client.
    pub fn wrote(&self, bytes: usize) {
        let mut state = self.lock();
        state.pending_bytes -= bytes;
        state.system_bytes = 0;
        state.count();
        drop(state);
        self.settled.notify_one();
    }

    /// Waits until another request may be read; false if none is to be read any more.
    pub async fn room(&self) -> bool {
        loop {
            let is_greedy = self
                .settled_when(|state, outbox| {
                    if state.closed.is_some() || state.gone {
                        return Some(None);
                    }
                    let bytes = state.pending_bytes + state.under_way_bytes;
                    let room =
                        bytes < outbox.max_pending_bytes && state.waiting < outbox.max_requests;
                    room.then(|| Some(state.usage.is_greedy(bytes)))
                })
                .await;
            match is_greedy {
                None => return false,
                Some(false) => return true,
                Some(true) => look_again(self.settled.notified()).await,
            }
        }
    }

    /// Waits until every request that has a place is answered.
    pub async fn all_answered(&self) {
        self.settled_when(|state, _| (state.gone || state.waiting == 0).then_some(()))
            .await;
    }

    async fn settled_when<T>(&self, condition: impl Fn(&State, &Self) -> Option<T>) -> T {
        loop {
            let notified = self.settled.notified();
            let settled = condition(&self.lock(), self);
            if let Some(settled) = settled {
                return settled;
            }
            notified.await;
        }
    }
}

/// Waits for a change here, or a while: what others give back is told to nobody, so that it costs nothing.
async fn look_again(changed: impl Future<Output = ()>) {
    let _ = tokio::time::timeout(Duration::from_millis(MEMORY_LOOK_MS), changed).await;
}

impl State {
    /// Puts a line at the end; true if the one that writes may be asleep.
    fn push(&mut self, line: Bytes) -> bool {
        if self.gone || self.closed.is_some() {
            return false;
        }
        let wake = self.queue.is_empty();
        self.pending_bytes += line.len() + ENTRY_BYTES;
        self.queue.push_back(Entry::Line(line));
        self.count();
        wake
    }

    /// Tells what the connection holds.
    fn count(&mut self) {
        let bytes = self.bytes();
        self.usage.set(bytes);
    }

    fn bytes(&self) -> usize {
        let held = self.held_bytes + self.kept_free_bytes + self.system_bytes;
        self.pending_bytes + self.under_way_bytes + held
    }
}

#[cfg(test)]
mod tests;
