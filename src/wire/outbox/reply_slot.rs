//! The places of answers in an outbox.

use super::{Entry, Outbox};
use crate::error::{Code, Error};
use crate::wire::encode::reply_line;
use bytes::Bytes;
use std::sync::Arc;

/// The place of one answer. Dropped without one, it is answered `internal`: whoever waits for it must not wait for ever.
#[derive(Debug)]
pub struct ReplySlot {
    outbox: Option<Arc<Outbox>>,
    place: u64,
    tid: Option<Bytes>,
    request_bytes: usize,
}

impl ReplySlot {
    pub(super) fn new(
        outbox: Arc<Outbox>,
        place: u64,
        tid: Option<Bytes>,
        request_bytes: usize,
    ) -> Self {
        Self {
            outbox: Some(outbox),
            place,
            tid,
            request_bytes,
        }
    }

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
        state.under_way_bytes -= self.request_bytes;
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
        state.count();
        // The one that reads may wait for room in bytes, too.
        let settled = state.waiting == 0
            || state.waiting + 1 == outbox.max_requests
            || state.under_way_bytes + state.pending_bytes + self.request_bytes
                >= outbox.max_pending_bytes;
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
