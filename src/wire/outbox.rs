//! The lines that wait for one client: answers in the order of their requests, and events between them.
//!
//! A request takes its place when it is read, before it takes effect, and its answer is put there later. Events are
//! put at the end. So answers keep the order of their requests, and the event that a request caused cannot overtake
//! its answer, whoever finishes first (protocol.md, 1).
//!
//! What waits is bounded. An event that finds [`Outbox`] full is not kept: the outbox remembers from where on events
//! are missing, and the connection fetches them from the journal at the client's own speed (protocol.md, 6).

use super::encode::reply_line;
use crate::error::{Code, Error};
use crate::model::Seq;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Entry>,
    /// The number of the queue's first entry.
    first: u64,
    /// Bytes in the queue and in the batch being written.
    pending_bytes: usize,
    /// Answers that are not there yet.
    waiting: usize,
    stream: Stream,
    /// No more requests will come: what waits is the rest.
    input_ended: bool,
    /// The connection ends when the queue is empty.
    closing: bool,
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
    /// An empty outbox.
    #[must_use]
    pub fn new(max_pending_bytes: usize, max_requests: usize) -> Self {
        Self {
            state: Mutex::default(),
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

    /// Takes the next place in the order of answers, for the answer to a request with this `tid`.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, tid: Option<Bytes>) -> ReplySlot {
        let mut state = self.lock();
        let place = state.first + state.queue.len() as u64;
        state.queue.push_back(Entry::Waiting);
        state.pending_bytes += ENTRY_BYTES;
        state.waiting += 1;
        ReplySlot {
            outbox: Some(Arc::clone(self)),
            place,
            tid,
        }
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
        let full = state.pending_bytes + line.len() > self.max_pending_bytes;
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
        if from_hub && state.pending_bytes + line.len() <= self.max_pending_bytes {
            let wake = state.push(line.clone());
            drop(state);
            if wake {
                self.wake();
            }
        }
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
        if state.closing {
            return Some(Batch::Close);
        }
        if let Stream::Behind { next, .. } = state.stream {
            return Some(Batch::CatchUp(next));
        }
        state.input_ended.then_some(Batch::Drained)
    }

    /// Says that a batch of this many bytes was taken by the client.
    pub fn wrote(&self, bytes: usize) {
        let mut state = self.lock();
        state.pending_bytes -= bytes;
        drop(state);
        self.settled.notify_one();
    }

    /// Waits until another request may be read; false if none is to be read any more.
    pub async fn room(&self) -> bool {
        self.settled_when(|state, outbox| {
            if state.closing || state.gone {
                Some(false)
            } else {
                let room = state.pending_bytes < outbox.max_pending_bytes
                    && state.waiting < outbox.max_requests;
                room.then_some(true)
            }
        })
        .await
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

    /// Says that no more requests come.
    pub fn end_input(&self) {
        self.lock().input_ended = true;
        self.written.notify_one();
    }

    /// Closes the connection after what waits now and a last line.
    pub fn close_with(&self, line: Bytes) {
        let mut state = self.lock();
        if !state.closing {
            state.push(line);
            state.closing = true;
        }
        drop(state);
        self.written.notify_one();
        self.settled.notify_one();
    }

    /// Closes the connection with a last line, and without the answers that are not there yet: they will never be.
    pub fn close_unanswered(&self, line: Bytes) {
        let mut state = self.lock();
        if !state.closing {
            state.push(line);
            state.closing = true;
        }
        state.waiting = 0;
        for entry in &mut state.queue {
            if matches!(entry, Entry::Waiting) {
                *entry = Entry::Line(Bytes::new());
            }
        }
        drop(state);
        self.written.notify_one();
        self.settled.notify_one();
    }

    /// Drops what waits and keeps nothing from now on: the connection is gone.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.gone = true;
        state.first += state.queue.len() as u64;
        state.queue = VecDeque::new();
        drop(state);
        self.settled.notify_one();
        self.written.notify_one();
    }
}

impl State {
    /// Puts a line at the end; true if the one that writes may be asleep.
    fn push(&mut self, line: Bytes) -> bool {
        if self.gone || self.closing {
            return false;
        }
        let wake = self.queue.is_empty();
        self.pending_bytes += line.len() + ENTRY_BYTES;
        self.queue.push_back(Entry::Line(line));
        wake
    }
}

/// The place of one answer. Dropped without one, it is answered `internal`: whoever waits for it must not wait for ever.
#[derive(Debug)]
pub struct ReplySlot {
    outbox: Option<Arc<Outbox>>,
    place: u64,
    tid: Option<Bytes>,
}

impl ReplySlot {
    /// Puts the answer in its place.
    pub fn fill(mut self, answer: &Result<Bytes, Error>) {
        self.put(answer);
    }

    fn put(&mut self, answer: &Result<Bytes, Error>) {
        let Some(outbox) = self.outbox.take() else {
            return;
        };
        let line = reply_line(answer, self.tid.as_deref());
        let mut state = outbox.lock();
        // Where the connection closes without the answers, none is waited for.
        state.waiting = state.waiting.saturating_sub(1);
        let index = self
            .place
            .checked_sub(state.first)
            .and_then(|index| usize::try_from(index).ok());
        let length = line.len();
        let is_first = index == Some(0);
        if let Some(entry @ Entry::Waiting) = index.and_then(|index| state.queue.get_mut(index)) {
            *entry = Entry::Line(line);
            state.pending_bytes += length;
        }
        let settled = state.waiting == 0 || state.waiting + 1 == outbox.max_requests;
        drop(state);
        if is_first {
            outbox.written.notify_one();
        }
        if settled {
            outbox.settled.notify_one();
        }
    }
}

impl Drop for ReplySlot {
    fn drop(&mut self) {
        if self.outbox.is_some() {
            let text = "something went wrong inside chatd, and its log says what; a change may have been made or not";
            self.put(&Err(Error::new(Code::Internal, text)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Arc<Outbox> {
        Arc::new(Outbox::new(1000, 8))
    }

    fn text(outbox: &Outbox) -> Option<String> {
        match outbox.try_next(10_000)? {
            Batch::Write(bytes) => {
                outbox.wrote(bytes.len());
                Some(String::from_utf8(bytes.to_vec()).unwrap())
            }
            other => Some(format!("{other:?}")),
        }
    }

    fn line(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn answer(slot: ReplySlot, data: &'static str) {
        slot.fill(&Ok(line(data)));
    }

    fn sent(text: &str) -> String {
        format!("{{\"result\":\"ok\",\"data\":{text}}}\n")
    }

    #[test]
    fn answers_keep_their_order_and_events_stay_behind_them() {
        let outbox = outbox();
        let first = outbox.reserve(None);
        let second = outbox.reserve(None);
        outbox.offer(1, &line("event "));
        answer(second, "two");
        assert_eq!(text(&outbox), None);
        answer(first, "one");
        let expected = sent("one") + &sent("two") + "event ";
        assert_eq!(text(&outbox), Some(expected));
        assert_eq!(outbox.lock().pending_bytes, 0);
    }

    #[test]
    fn a_full_outbox_goes_on_from_the_journal_without_loss_or_doubling() {
        let outbox = outbox();
        let long = Bytes::from(vec![b'x'; 600]);
        outbox.offer(1, &long);
        outbox.offer(2, &long);
        outbox.offer(3, &long);
        assert!(text(&outbox).is_some());
        assert_eq!(text(&outbox).as_deref(), Some("CatchUp(2)"));
        outbox.offer(4, &long);
        assert!(!outbox.caught_up_to(3));
        assert_eq!(text(&outbox).as_deref(), Some("CatchUp(4)"));
        assert!(
            outbox.caught_up_to(5),
            "the journal may be ahead of the hub"
        );
        outbox.offer(5, &long);
        assert_eq!(text(&outbox), None, "5 was pushed from the journal");
        outbox.offer(6, &line("six"));
        assert_eq!(text(&outbox).as_deref(), Some("six"));
    }

    #[tokio::test]
    async fn an_event_that_is_larger_than_the_buffer_wakes_the_writer() {
        let outbox = outbox();
        let waiting = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move { outbox.next_batch(10_000).await }
        });
        tokio::task::yield_now().await;
        let offered = outbox.offer(1, &Bytes::from(vec![b'x'; 2000]));
        assert_eq!((offered.kept, offered.wake), (false, true));
        outbox.wake();
        assert_eq!(waiting.await.unwrap(), Batch::CatchUp(1));
    }

    #[test]
    fn what_is_not_stored_is_dropped_when_there_is_no_room() {
        let outbox = outbox();
        outbox.offer(1, &Bytes::from(vec![b'x'; 900]));
        outbox.offer_ephemeral(&Bytes::from(vec![b'y'; 200]));
        assert_eq!(text(&outbox).map(|text| text.len()), Some(900));
        outbox.offer_ephemeral(&line("z"));
        assert_eq!(text(&outbox).as_deref(), Some("z"));
    }

    #[test]
    fn the_end_of_input_lets_answers_out_first() {
        let outbox = outbox();
        let slot = outbox.reserve(None);
        outbox.end_input();
        assert_eq!(text(&outbox), None);
        answer(slot, "one");
        assert_eq!(text(&outbox), Some(sent("one")));
        assert_eq!(text(&outbox).as_deref(), Some("Drained"));
    }

    #[test]
    fn a_lost_answer_is_internal_with_its_tid_and_does_not_hold_up_the_next() {
        let outbox = outbox();
        drop(outbox.reserve(Some(line("7"))));
        answer(outbox.reserve(None), "two");
        outbox.close_with(line("bye"));
        outbox.push(line("late"));
        let all = text(&outbox).unwrap();
        let (lost, rest) = all.split_once('\n').unwrap();
        assert!(lost.starts_with(r#"{"result":"error","data":{"code":"internal","#));
        assert!(lost.ends_with(r#","tid":7}"#), "{lost}");
        assert_eq!(rest, sent("two") + "bye");
        assert_eq!(text(&outbox).as_deref(), Some("Close"));
    }

    #[tokio::test]
    async fn a_connection_that_closes_unanswered_waits_for_no_answer_and_takes_none() {
        let outbox = outbox();
        answer(outbox.reserve(None), "one");
        let in_doubt = outbox.reserve(None);
        outbox.close_unanswered(line("bye"));
        outbox.all_answered().await;
        assert_eq!(text(&outbox), Some(sent("one") + "bye"));
        drop(in_doubt);
        assert_eq!(text(&outbox).as_deref(), Some("Close"));
        assert_eq!(outbox.lock().pending_bytes, 0);
    }
}
