//! How an outbox ends: with what waits and a last line, or at once.

use super::{Entry, Outbox, State};
use crate::wire::{CloseReason, closed_line};
use bytes::Bytes;
use std::collections::VecDeque;

impl Outbox {
    /// Says that no more requests come.
    pub fn end_input(&self) {
        self.lock().input_ended = true;
        self.written.notify_one();
    }

    /// Closes the connection after what waits now and a last line that says why.
    pub fn close(&self, reason: CloseReason) {
        self.lock().close(reason);
        self.written.notify_one();
        self.settled.notify_one();
    }

    /// Closes the connection with a last line that says why, and without the answers that are not there yet: they will
    /// never be.
    pub fn close_unanswered(&self, reason: CloseReason) {
        let mut state = self.lock();
        state.close(reason);
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

    /// Why the server closes the connection, if it does: the first reason that there was.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.lock().closed
    }

    /// Drops what waits and keeps nothing from now on: the connection is gone.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.gone = true;
        state.first += state.queue.len() as u64;
        state.queue = VecDeque::new();
        state.pending_bytes = 0;
        state.held_bytes = 0;
        state.system_bytes = 0;
        state.kept_free_bytes = 0;
        state.count();
        drop(state);
        self.settled.notify_one();
        self.written.notify_one();
    }
}

impl State {
    fn close(&mut self, reason: CloseReason) {
        if self.closed.is_none() {
            self.push(closed_line(reason));
            self.closed = Some(reason);
        }
    }
}
