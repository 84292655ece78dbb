//! The newest events, in memory: those who are a little behind read them here, without the journal.

use crate::limits::{CATCH_UP_MAX_BYTES, RECENT_EVENTS_MAX_BYTES};
use crate::model::{Event, Events, Seq};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// A ring of the newest events, bounded by [`RECENT_EVENTS_MAX_BYTES`].
#[derive(Debug, Default)]
pub struct Recent(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    runs: VecDeque<Events>,
    runs_bytes: usize,
    /// Those behind the last run, which are too few for a run of their own.
    tail: Vec<Event>,
    tail_bytes: usize,
}

impl Recent {
    /// Takes in committed events, in their order.
    pub fn add(&self, events: &[Event]) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            ring.tail_bytes += event.line.len();
            ring.tail.push(event.clone());
            if ring.tail_bytes >= CATCH_UP_MAX_BYTES {
                ring.close_tail();
            }
        }
    }

    /// Events from `seq` on, as many as stand together; none if it is not in the ring.
    pub fn starting_at(&self, seq: Seq) -> Option<Events> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let in_tail = ring.tail.first().is_some_and(|first| first.seq <= seq);
        if in_tail {
            return Events::new(&ring.tail).starting_at(seq);
        }
        let behind = ring
            .runs
            .partition_point(|run| run.first().is_some_and(|first| first.seq <= seq));
        ring.runs.get(behind.checked_sub(1)?)?.starting_at(seq)
    }
}

impl Ring {
    fn close_tail(&mut self) {
        let run = Events::new(&self.tail);
        self.tail.clear();
        self.tail_bytes = 0;
        self.runs_bytes += run.memory_bytes();
        self.runs.push_back(run);
        while self.runs_bytes > RECENT_EVENTS_MAX_BYTES
            && let Some(oldest) = self.runs.pop_front()
        {
            self.runs_bytes -= oldest.memory_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_newest_events_are_there_and_their_memory_is_bounded() {
        let recent = Recent::default();
        assert!(recent.starting_at(1).is_none());
        let events: Vec<Event> = (1..=20_000)
            .map(|seq| Event::plain(seq, Bytes::from(vec![b'x'; 1000])))
            .collect();
        events.chunks(7).for_each(|round| recent.add(round));
        assert!(recent.starting_at(1).is_none());
        assert!(recent.starting_at(20_001).is_none());
        let ring = recent.0.lock().unwrap();
        let kept = ring.runs_bytes + ring.tail_bytes;
        let oldest = ring.runs[0][0].seq;
        drop(ring);
        assert!(kept <= RECENT_EVENTS_MAX_BYTES + CATCH_UP_MAX_BYTES + 1000);
        assert!(oldest > 1 && oldest < 15_000, "{oldest}");
        assert!(recent.starting_at(oldest - 1).is_none());
        let mut seq = oldest;
        while let Some(found) = recent.starting_at(seq) {
            assert_eq!(found[0].seq, seq);
            seq += found.len() as u64;
        }
        assert_eq!(seq, 20_001);
    }
}
