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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Event;
    use bytes::Bytes;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn piece(bytes: usize, damage: Option<&str>) -> Piece {
        let event = Event::plain(1, Bytes::from(vec![b'x'; bytes]));
        Piece {
            events: Events::new(&[event]),
            end: 0,
            behind: Next::FIRST,
            full: true,
            damage: damage.map(str::to_owned),
        }
    }

    #[test]
    fn many_who_read_a_piece_at_once_read_it_once() {
        let (pieces, reads) = (Pieces::default(), AtomicUsize::new(0));
        let get = |offset| {
            let read = || {
                reads.fetch_add(1, Ordering::Relaxed);
                Ok(piece(100, None))
            };
            pieces.get((1, offset), |_| true, read).unwrap()
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10).for_each(|offset| drop(get(offset))));
            }
        });
        assert_eq!(reads.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn what_is_stale_or_damaged_is_read_again_and_memory_is_bounded() {
        let pieces = Pieces::default();
        let read = |key, good: bool, piece: Piece| {
            let mut read = false;
            let get = || {
                read = true;
                Ok(piece)
            };
            pieces.get(key, |_| good, get).unwrap();
            read
        };
        assert!(read((1, 0), true, piece(1, Some("damaged"))));
        assert!(read((1, 0), true, piece(1, None)));
        assert!(!read((1, 0), true, piece(1, None)));
        assert!(read((1, 0), false, piece(1, None)));
        let large = READ_EVENTS_MAX_BYTES / 4;
        for offset in 1..100 {
            assert!(read((1, offset), true, piece(large, None)));
            // Who is used stays.
            assert!(!read((1, 0), true, piece(1, None)));
        }
        assert!(!read((1, 99), true, piece(large, None)));
        assert!(read((1, 1), true, piece(large, None)));
        let kept = pieces.0.lock().unwrap();
        let bytes: usize = kept.iter().map(|kept| kept.bytes).sum();
        assert!(bytes <= READ_EVENTS_MAX_BYTES, "{bytes}");
    }
}
