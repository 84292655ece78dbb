//! The state: ordered keys and values that a round of changes is applied to, read through one small trait.

use crate::error::Error;
use crate::store::keys::Range;
use sled::IVec;
use std::collections::BTreeMap;

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

fn failed(error: &sled::Error) -> Error {
    tracing::error!(%error, "the state cannot be read");
    Error::unavailable()
}
