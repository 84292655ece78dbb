//! A state that is read until a deadline, and no further once the store is to stop.
//!
//! Every read goes through it, whatever it asks for: so there is none that has no end, and none that a rule forgets.

use crate::error::{Code, Error};
use crate::store::keys::Range;
use crate::store::state::{Blob, Scan, State};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Rows between two looks at the clock.
const ROWS_PER_LOOK: u64 = 16;

/// A state and the time there is to read it.
pub struct Bounded<'a> {
    state: &'a dyn State,
    deadline: Instant,
    stopping: &'a AtomicBool,
    rows: Cell<u64>,
}

impl<'a> Bounded<'a> {
    /// `state`, until the deadline, or until `stopping` is set.
    pub fn new(state: &'a dyn State, deadline: Instant, stopping: &'a AtomicBool) -> Self {
        Self {
            state,
            deadline,
            stopping,
            rows: Cell::new(0),
        }
    }

    /// Rows that were read, and rows that were looked for and are not there.
    pub fn rows(&self) -> u64 {
        self.rows.get()
    }

    fn count(&self) -> Result<(), Error> {
        let rows = self.rows.get() + 1;
        self.rows.set(rows);
        if rows.is_multiple_of(ROWS_PER_LOOK) {
            self.look()
        } else {
            Ok(())
        }
    }
}

impl State for Bounded<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Blob>, Error> {
        self.count()?;
        self.state.get(key)
    }

    fn scan(&self, range: &Range) -> Scan<'_> {
        if let Err(error) = self.count() {
            return Box::new(std::iter::once(Err(error)));
        }
        let rows = self.state.scan(range);
        Box::new(rows.map(|row| self.count().and(row)))
    }

    fn look(&self) -> Result<(), Error> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Error::unavailable());
        }
        if Instant::now() > self.deadline {
            return Err(timeout());
        }
        Ok(())
    }
}

fn timeout() -> Error {
    let text = "this took too long to read; ask for less: narrow the filter to a conversation or a range of ids, say total: false, or a smaller size";
    Error::new(Code::Timeout, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keys;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn state(rows: u8) -> BTreeMap<Blob, Blob> {
        let key = |number| Blob::from(&[b'a', number]);
        (0..rows)
            .map(|number| (key(number), Blob::from("row")))
            .collect()
    }

    #[test]
    fn no_read_goes_on_for_long_behind_its_deadline() {
        let state = state(200);
        let never = AtomicBool::new(false);
        let late = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let bounded = Bounded::new(&state, late, &never);
        let all = bounded.scan(&keys::prefix(b"a"));
        let read = all.take_while(Result::is_ok).count() as u64;
        assert!(read < ROWS_PER_LOOK, "{read}");
        let bounded = Bounded::new(&state, late, &never);
        let refused = (0..200).find_map(|_| bounded.get(b"a").err());
        assert_eq!(refused.unwrap().code(), Code::Timeout);
    }

    #[test]
    fn no_read_goes_on_for_long_once_the_store_is_to_stop() {
        let state = state(200);
        let stopping = AtomicBool::new(false);
        let late = Instant::now() + Duration::from_secs(3600);
        let bounded = Bounded::new(&state, late, &stopping);
        let mut all = bounded.scan(&keys::prefix(b"a"));
        assert!(all.by_ref().take(100).all(|row| row.is_ok()));
        stopping.store(true, Ordering::Relaxed);
        let refused = all.find_map(Result::err);
        assert_eq!(refused.unwrap().code(), Code::Unavailable);
        assert!(bounded.rows() < 120, "{}", bounded.rows());
    }
}
