//! A run of events that many connections share.

use crate::model::{Event, Seq};
use bytes::Bytes;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Events in order, without a hole. Their lines stand one behind the other in one piece of memory, so that those that go
/// to a connection together need not be copied together.
#[derive(Clone, Debug)]
pub struct Events {
    run: Arc<Run>,
    part: Range<usize>,
}

#[derive(Debug)]
struct Run {
    events: Vec<Event>,
    lines: Bytes,
    /// Where in `lines` the line of each event ends.
    ends: Vec<usize>,
}

/// Events for a run, while they come one by one; what their lines were part of is not held.
#[derive(Debug, Default)]
pub struct Gathered {
    events: Vec<Event>,
    lines: Vec<u8>,
    ends: Vec<usize>,
}

impl Gathered {
    /// Takes in the next event.
    pub fn push(&mut self, event: Event) {
        self.lines.extend_from_slice(&event.line);
        self.ends.push(self.lines.len());
        let line = Bytes::new();
        self.events.push(Event { line, ..event });
    }

    /// The run of them all.
    #[must_use]
    pub fn finish(mut self) -> Events {
        self.lines.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.events.shrink_to_fit();
        let lines = Bytes::from(self.lines);
        let mut begin = 0;
        for (event, &end) in self.events.iter_mut().zip(&self.ends) {
            event.line = lines.slice(std::mem::replace(&mut begin, end)..end);
        }
        Events {
            part: 0..self.events.len(),
            run: Arc::new(Run {
                events: self.events,
                lines,
                ends: self.ends,
            }),
        }
    }
}

impl Events {
    /// A run of these events.
    #[must_use]
    pub fn new(events: &[Event]) -> Self {
        let mut gathered = Gathered::default();
        for event in events {
            gathered.push(event.clone());
        }
        gathered.finish()
    }

    /// Those from `seq` on, if `seq` is one of them.
    #[must_use]
    pub fn starting_at(&self, seq: Seq) -> Option<Self> {
        let skip = usize::try_from(seq.checked_sub(self.first()?.seq)?).ok()?;
        (skip < self.len()).then(|| Self {
            run: Arc::clone(&self.run),
            part: self.part.start + skip..self.part.end,
        })
    }

    /// The first of them, up to about so many bytes, but at least one.
    #[must_use]
    pub fn up_to_bytes(&self, max_bytes: usize) -> Self {
        let until = self.begin_of(self.part.start) + max_bytes;
        let ends = &self.run.ends[self.part.clone()];
        let count = ends.partition_point(|&end| end <= until).max(1);
        Self {
            run: Arc::clone(&self.run),
            part: self.part.start..self.part.end.min(self.part.start + count),
        }
    }

    /// The lines of some of them, one behind the other.
    #[must_use]
    pub fn lines(&self, some: Range<usize>) -> Bytes {
        let (from, to) = (self.part.start + some.start, self.part.start + some.end);
        self.run.lines.slice(self.begin_of(from)..self.begin_of(to))
    }

    /// Bytes of memory that the whole run takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let each = size_of::<Event>() + size_of::<usize>();
        self.run.lines.len() + self.run.events.len() * each
    }

    /// Where the line of the event at `index` begins.
    fn begin_of(&self, index: usize) -> usize {
        index
            .checked_sub(1)
            .and_then(|before| self.run.ends.get(before))
            .map_or(0, |&end| end)
    }
}

impl Deref for Events {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        &self.run.events[self.part.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(count: u64) -> Events {
        let events: Vec<Event> = (1..=count)
            .map(|seq| Event::plain(seq, Bytes::from(format!("{seq};"))))
            .collect();
        Events::new(&events)
    }

    #[test]
    fn parts_of_a_run_have_the_lines_of_their_events() {
        let all = run(12);
        assert_eq!(all.lines(0..12), "1;2;3;4;5;6;7;8;9;10;11;12;");
        let later = all.starting_at(9).unwrap();
        assert_eq!(later.lines(0..later.len()), "9;10;11;12;");
        assert_eq!(later.lines(1..3), "10;11;");
        assert_eq!(later.lines(2..2), "");
        assert_eq!(later[1].line, "10;");
        let short = later.up_to_bytes(5);
        assert_eq!(short.lines(0..short.len()), "9;10;");
        assert_eq!(later.up_to_bytes(0).len(), 1);
        assert!(all.starting_at(13).is_none());
        assert!(all.starting_at(0).is_none());
        assert!(run(0).starting_at(1).is_none());
        assert_eq!(run(0).up_to_bytes(1).len(), 0);
    }
}
