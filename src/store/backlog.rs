//! What a large change leaves to be written into the state's tree, slice by slice, so that it holds up nobody.
//!
//! The journal has the change already: it is stored, and it is one. Until its rows are in the tree, readers find them
//! here, in front of it, so that nobody sees a part of it. The head goes into the tree with the last slice: a start after
//! a crash goes on from the head, and applies from the journal what the tree lacks. While there is a backlog, the rows of
//! later rounds queue up in it too, so that no older row is written over a newer one.

use crate::error::Error;
use crate::limits::{BACKLOG_MAX_ROWS, BACKLOG_SLICE_ROWS};
use crate::store::keys::{self, Range};
use crate::store::state::{Blob, Scan, State, merged};
use crate::store::txn::Round;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A key, and what it is set to; `None` where it is removed.
pub type Row = (Blob, Option<Blob>);

/// The rows that are committed and not in the tree yet. Only the store's thread changes it.
#[derive(Debug, Default)]
pub struct Backlog {
    rows: RwLock<BTreeMap<Blob, Option<Blob>>>,
    /// Readers look at the rows only where there are any.
    any: AtomicBool,
}

impl Backlog {
    /// Whether everything is in the tree.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Takes a round that is in the journal, if one of its changes is too large to be written at once, or if there is a
    /// backlog. Gives how many rows are to be written now, so that the backlog stays bounded; none where the round is not
    /// taken.
    #[must_use]
    pub fn take(&self, round: &Round) -> Option<usize> {
        let large = round.largest_change > BACKLOG_SLICE_ROWS;
        if self.is_empty() && !large {
            return None;
        }
        let changes = round.changes.iter().cloned();
        let mut rows = self.write();
        if rows.is_empty() {
            *rows = changes.collect();
        } else {
            rows.extend(changes);
        }
        self.any.store(true, Ordering::Release);
        let surplus = rows.len().saturating_sub(BACKLOG_MAX_ROWS);
        let of_round = if large { 0 } else { round.changes.len() };
        Some(surplus.max(of_round))
    }

    /// The next rows for the tree: so many, or all that there are, and then with the head.
    #[must_use]
    pub fn slice(&self, most: usize) -> Vec<Row> {
        let rows = self.read();
        let is_last = rows.len() <= most + 1;
        let slice = rows
            .iter()
            .filter(|(key, _)| is_last || ***key != *keys::HEAD)
            .take(if is_last { rows.len() } else { most });
        slice
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Forgets rows that are in the tree by now.
    pub fn written(&self, slice: &[Row]) {
        let mut rows = self.write();
        for (key, _) in slice {
            rows.remove(key);
        }
        if rows.is_empty() {
            self.any.store(false, Ordering::Release);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Blob, Option<Blob>>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Blob, Option<Blob>>> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tree with a backlog in front of it.
pub struct Fronted<'a, T: State> {
    /// What is committed and not in the tree yet.
    pub backlog: &'a Backlog,
    /// The tree.
    pub tree: &'a T,
}

impl<T: State> State for Fronted<'_, T> {
    fn get(&self, key: &[u8]) -> Result<Option<Blob>, Error> {
        if !self.backlog.is_empty()
            && let Some(value) = self.backlog.read().get(key)
        {
            return Ok(value.clone());
        }
        self.tree.get(key)
    }

    fn scan(&self, range: &Range) -> Scan<'_> {
        if range.low >= range.high || self.backlog.is_empty() {
            return self.tree.scan(range);
        }
        // Before the tree is looked at: what is written into it meanwhile is in both.
        let bounds = Blob::from(range.low.as_slice())..Blob::from(range.high.as_slice());
        let front: Vec<Row> = self
            .backlog
            .read()
            .range(bounds)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        merged(self.tree.scan(range), front)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::Head;

    const ROWS: usize = 3 * BACKLOG_SLICE_ROWS;

    fn key(number: usize) -> Blob {
        Blob::from(format!("k{number:06}").as_bytes())
    }

    fn round(rows: impl IntoIterator<Item = Row>, head: &str, largest_change: usize) -> Round {
        let head: Row = (keys::HEAD.into(), Some(head.into()));
        let changes: BTreeMap<Blob, Option<Blob>> = rows.into_iter().chain([head]).collect();
        Round {
            head: Head::default(),
            changes: changes.into_iter().collect(),
            events: Vec::new(),
            deletes: false,
            largest_change,
        }
    }

    fn apply(tree: &mut BTreeMap<Blob, Blob>, rows: &[Row]) {
        for (key, value) in rows {
            match value {
                Some(value) => tree.insert(key.clone(), value.clone()),
                None => tree.remove(key),
            };
        }
    }

    fn all(state: &dyn State) -> Vec<(Blob, Blob)> {
        let rows = state.scan(&keys::prefix(b"k"));
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn a_large_change_is_seen_as_one_while_it_is_written_in_slices() {
        let backlog = Backlog::default();
        let mut tree: BTreeMap<Blob, Blob> = (0..10)
            .map(|number| (key(number), Blob::from("before")))
            .collect();
        tree.insert(keys::HEAD.into(), "1".into());
        let rows = (0..ROWS).map(|number| {
            let removed = number % 3 == 0;
            (key(number), (!removed).then(|| Blob::from("large")))
        });
        let large = round(rows, "2", ROWS);
        assert_eq!(backlog.take(&large), Some(0));
        let mut expected = tree.clone();
        apply(&mut expected, &large.changes);
        // A small round behind it changes what is written already, and what is not.
        let small = [(key(1), None), (key(ROWS - 1), Some("small".into()))];
        let mut small = Some(round(small, "3", 2));
        let mut slices = 0;
        while !backlog.is_empty() {
            let slice = backlog.slice(BACKLOG_SLICE_ROWS);
            assert!(slice.len() <= BACKLOG_SLICE_ROWS + 1);
            apply(&mut tree, &slice);
            let fronted = Fronted {
                backlog: &backlog,
                tree: &tree,
            };
            assert_eq!(all(&fronted), all(&expected));
            backlog.written(&slice);
            let head = &**tree.get(keys::HEAD).unwrap();
            let is_whole = backlog.is_empty();
            assert_eq!(head == b"1", !is_whole, "the head comes last");
            if let Some(small) = small.take() {
                assert_eq!(backlog.take(&small), Some(small.changes.len()));
                apply(&mut expected, &small.changes);
            }
            let fronted = Fronted {
                backlog: &backlog,
                tree: &tree,
            };
            assert_eq!(all(&fronted), all(&expected));
            for number in [0, 1, 2, ROWS - 1, ROWS] {
                let (seen, expected) = (fronted.get(&key(number)), expected.get(&key(number)));
                assert_eq!(seen.unwrap().as_ref(), expected, "{number}");
            }
            slices += 1;
        }
        assert_eq!(slices, 4, "one of them for the small round");
        assert_eq!(tree, expected);
    }

    #[test]
    fn a_round_of_many_small_changes_does_not_wait() {
        let backlog = Backlog::default();
        let rows = (0..ROWS).map(|number| (key(number), Some("row".into())));
        assert_eq!(backlog.take(&round(rows, "2", 3)), None);
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_backlog_is_bounded() {
        let backlog = Backlog::default();
        let rows = (0..BACKLOG_MAX_ROWS + 10).map(|number| (key(number), None));
        let rows = round(rows, "2", BACKLOG_MAX_ROWS);
        assert_eq!(backlog.take(&rows), Some(11), "the head is one of them");
    }
}
