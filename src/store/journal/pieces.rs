//! What was read of the journal lately, decoded: many who resume at the same place read and decode it once.

use super::Damage;
use super::format::Next;
use crate::limits::READ_EVENTS_MAX_BYTES;
use crate::model::Events;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// A piece of a segment: about as much as lies between two entries of its index.
#[derive(Debug)]
pub struct Piece {
    /// Its events.
    pub events: Events,
    /// Where in the file it ends.
    pub end: u64,
    /// What comes behind it.
    pub behind: Next,
    /// It is as long as a piece gets.
    pub full: bool,
    /// What is wrong with the record behind it, if it ends there for that.
    pub damage: Option<String>,
}

/// A segment, by its first record, and where in it a piece begins.
type Key = (u64, u64);
/// Who reads a piece holds its lock meanwhile, so that others wait for it instead of reading it too.
type Slot = Arc<Mutex<Option<Arc<Piece>>>>;

/// The pieces, the one that was used last at the end; bounded by [`READ_EVENTS_MAX_BYTES`].
#[derive(Debug, Default)]
pub struct Pieces(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    key: Key,
    slot: Slot,
    bytes: usize,
}

impl Pieces {
    /// A piece that is `good` still, or read now.
    pub fn get(
        &self,
        key: Key,
        good: impl Fn(&Piece) -> bool,
        read: impl FnOnce() -> Result<Piece, Damage>,
    ) -> Result<Arc<Piece>, Damage> {
        let slot = self.slot(key);
        let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(piece) = held.as_ref().filter(|piece| good(piece)) {
            return Ok(Arc::clone(piece));
        }
        let piece = Arc::new(read()?);
        // What is damaged is looked at anew each time: the file may be restored meanwhile.
        if piece.damage.is_none() {
            *held = Some(Arc::clone(&piece));
            self.weigh(key, piece.events.memory_bytes());
        }
        Ok(piece)
    }

    fn slot(&self, key: Key) -> Slot {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|kept| kept.key == key);
        let found = at.and_then(|at| kept.remove(at)).unwrap_or_else(|| Kept {
            key,
            slot: Slot::default(),
            bytes: 0,
        });
        let slot = Arc::clone(&found.slot);
        kept.push_back(found);
        slot
    }

    /// Notes how much a piece is, and gives up those that were not used for longest.
    fn weigh(&self, key: Key, bytes: usize) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.iter_mut().find(|kept| kept.key == key) {
            kept.bytes = bytes;
        }
        let mut total: usize = kept.iter().map(|kept| kept.bytes).sum();
        while total > READ_EVENTS_MAX_BYTES
            && let Some(oldest) = kept.pop_front()
        {
            total -= oldest.bytes;
        }
        // Without bytes: those that could not be read.
        while kept.len() > SLOTS_MAX {
            kept.pop_front();
        }
    }
}

/// Pieces that may be kept at all, however small.
const SLOTS_MAX: usize = 256;
