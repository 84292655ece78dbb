//! The state: ordered keys and values that a round of changes is applied to, read through one small trait.

use crate::error::Error;
use crate::store::keys::Range;
use sled::IVec;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

/// A key or value.
pub type Blob = IVec;
/// A row of a scan.
pub type Entry = Result<(Blob, Blob), Error>;
/// A scan, from either end.
pub type Scan<'a> = Box<dyn DoubleEndedIterator<Item = Entry> + 'a>;

/// A state that can be read. What it holds is committed.
pub trait State {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Blob>, Error>;

    /// The rows of a range, in the order of their keys.
    fn scan(&self, range: &Range) -> Scan<'_>;

    /// Whether a key exists.
    fn contains(&self, key: &[u8]) -> Result<bool, Error> {
        Ok(self.get(key)?.is_some())
    }

    /// Whether there is time to go on; to be asked where much is done between two rows.
    fn look(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl State for BTreeMap<Blob, Blob> {
    fn get(&self, key: &[u8]) -> Result<Option<Blob>, Error> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(&self, range: &Range) -> Scan<'_> {
        if range.low >= range.high {
            return Box::new(std::iter::empty());
        }
        let rows = self.range(Blob::from(range.low.as_slice())..Blob::from(range.high.as_slice()));
        Box::new(rows.map(|(key, value)| Ok((key.clone(), value.clone()))))
    }
}

impl State for sled::Tree {
    fn get(&self, key: &[u8]) -> Result<Option<Blob>, Error> {
        sled::Tree::get(self, key).map_err(|error| failed(&error))
    }

    fn scan(&self, range: &Range) -> Scan<'_> {
        if range.low >= range.high {
            return Box::new(std::iter::empty());
        }
        let rows = self.range(range.low.as_slice()..range.high.as_slice());
        Box::new(rows.map(|row| row.map_err(|error| failed(&error))))
    }
}

/// A state that notes whether a read of it failed.
pub struct Noted<'a> {
    tree: &'a sled::Tree,
    failed: Cell<bool>,
}

impl<'a> Noted<'a> {
    /// Reads this tree.
    pub fn new(tree: &'a sled::Tree) -> Self {
        Self {
            tree,
            failed: Cell::new(false),
        }
    }

    /// Whether a read failed.
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    fn note<T>(&self, read: Result<T, Error>) -> Result<T, Error> {
        if read.is_err() {
            self.failed.set(true);
        }
        read
    }
}

impl State for Noted<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Blob>, Error> {
        self.note(State::get(self.tree, key))
    }

    fn scan(&self, range: &Range) -> Scan<'_> {
        Box::new(State::scan(self.tree, range).map(|row| self.note(row)))
    }
}

/// The rows of a scan, except those that are changed, merged with the changed ones. Both are in the order of their keys,
/// and of one range.
pub fn merged(base: Scan<'_>, changed: Vec<(Blob, Option<Blob>)>) -> Scan<'_> {
    if changed.is_empty() {
        return base;
    }
    Box::new(Merged {
        base,
        changed: changed.into(),
        front: None,
        back: None,
    })
}

/// Two ordered sequences as one, from either end; the overlay's row hides the base's.
struct Merged<'a> {
    base: Scan<'a>,
    changed: VecDeque<(Blob, Option<Blob>)>,
    front: Option<(Blob, Blob)>,
    back: Option<(Blob, Blob)>,
}

impl Iterator for Merged<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if self.front.is_none() {
                match self.base.next() {
                    Some(Ok(row)) => self.front = Some(row),
                    Some(Err(error)) => return Some(Err(error)),
                    None => self.front = self.back.take(),
                }
            }
            let order = match (&self.front, self.changed.front()) {
                (Some((base, _)), Some((changed, _))) => changed.cmp(base),
                (Some(_), None) => std::cmp::Ordering::Greater,
                (None, Some(_)) => std::cmp::Ordering::Less,
                (None, None) => return None,
            };
            if order.is_gt() {
                return self.front.take().map(Ok);
            }
            if order.is_eq() {
                self.front = None;
            }
            if let Some((key, Some(value))) = self.changed.pop_front() {
                return Some(Ok((key, value)));
            }
        }
    }
}

impl DoubleEndedIterator for Merged<'_> {
    fn next_back(&mut self) -> Option<Entry> {
        loop {
            if self.back.is_none() {
                match self.base.next_back() {
                    Some(Ok(row)) => self.back = Some(row),
                    Some(Err(error)) => return Some(Err(error)),
                    None => self.back = self.front.take(),
                }
            }
            let order = match (&self.back, self.changed.back()) {
                (Some((base, _)), Some((changed, _))) => changed.cmp(base),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return None,
            };
            if order.is_lt() {
                return self.back.take().map(Ok);
            }
            if order.is_eq() {
                self.back = None;
            }
            if let Some((key, Some(value))) = self.changed.pop_back() {
                return Some(Ok((key, value)));
            }
        }
    }
}

fn failed(error: &sled::Error) -> Error {
    tracing::error!(%error, "the state cannot be read");
    Error::unavailable()
}
