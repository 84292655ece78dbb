//! Room on the disk: changes are refused before the disk is full, and some room is kept back for what must not fail.
//!
//! What is kept back beneath that is for those who may do everything: they delete still, so that whoever filled the disk
//! can be put out. Another process may have taken even that; so there is a reserve file, which is given back for it.
//!
//! Another process can take the last byte at any moment. The journal bears that: a record that does not fit is cut off
//! again. sled does not, since it writes later what it has accepted before; so the blocks that it grows into are always
//! allocated ahead of it.

use crate::limits::{
    DELETIONS_RESERVE_BYTES, FREE_AGAIN_BYTES, FREE_LAST_BYTES, FREE_MIN_BYTES, RESERVE_BYTES,
    ROUND_MAX_BYTES,
};
use crate::store::data_dir::Directory;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The part of the state's size that the reserve has besides its smallest size: sled's snapshot takes about half of it.
const RESERVE_STATE_PART: u64 = 64;
/// Segments of the state that are allocated ahead: more than sled has under way at a time.
const SEGMENTS_AHEAD: u64 = 4;

/// The file that sled grows.
const STATE_FILE: &str = "state/db";
/// The file that keeps room back for a start.
pub const RESERVE_FILE: &str = "reserve";
/// The file that keeps room back for deletions.
pub const DELETIONS_RESERVE_FILE: &str = "reserve.deletions";

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Enough for any round.
    Plenty,
    /// A large round may find none.
    Short,
    /// None, but for deletions.
    Full,
}

/// The room of one store.
pub struct Room {
    data_dir: Arc<Directory>,
    segment_bytes: u64,
    full: AtomicBool,
    /// Bytes that were given back for what must not fail, and that others are not to have.
    given_up_bytes: AtomicU64,
}

impl Room {
    /// Looks at the disk, and gives up the reserve if that is what it takes to start.
    pub fn open(data_dir: Arc<Directory>, segment_bytes: usize) -> Self {
        let room = Self {
            data_dir,
            segment_bytes: segment_bytes as u64,
            full: AtomicBool::new(false),
            given_up_bytes: AtomicU64::new(0),
        };
        if room.free_bytes() >= FREE_MIN_BYTES {
            room.reserve();
        } else if room.give_up(RESERVE_FILE) {
            room.full.store(true, Ordering::Relaxed);
            if room.bytes_of(DELETIONS_RESERVE_FILE) == 0 {
                room.given_up_bytes
                    .fetch_add(DELETIONS_RESERVE_BYTES, Ordering::Relaxed);
            }
            tracing::warn!("the disk is full: the reserve file was given up to start");
        }
        room
    }

    /// How much room there is for the next round.
    pub fn space(&self) -> Space {
        let free = self.free_bytes();
        let least = self.least_bytes();
        if free < least {
            self.note(false, free);
            return Space::Full;
        }
        let largest = 4 * 2 * ROUND_MAX_BYTES as u64;
        if free < least + FREE_AGAIN_BYTES + largest {
            return Space::Short;
        }
        Space::Plenty
    }

    /// Whether a round of this size may be written; one that only deletes may be where others may not.
    pub fn admits(&self, round_bytes: u64, deletes: bool) -> bool {
        let free = self.free_bytes();
        let room = free >= self.least_bytes() + 4 * round_bytes;
        if room {
            self.allocate_ahead(SEGMENTS_AHEAD);
        }
        self.note(room, free);
        room || deletes && self.admits_deletion(round_bytes)
    }

    /// Free bytes without which a round of others is not looked at. A disk that was full must have some more, or small
    /// rounds would go on where a large one was refused.
    fn least_bytes(&self) -> u64 {
        let more = if self.full.load(Ordering::Relaxed) {
            FREE_AGAIN_BYTES
        } else {
            0
        };
        FREE_MIN_BYTES + more + self.given_up_bytes.load(Ordering::Relaxed)
    }

    /// Whether deletions of this size may be written on a full disk.
    fn admits_deletion(&self, round_bytes: u64) -> bool {
        let state_part = self.bytes_of(STATE_FILE) / RESERVE_STATE_PART;
        let needed = FREE_LAST_BYTES + state_part + 4 * round_bytes;
        // The state must not grow into room that another may have taken by then.
        let fits = || self.free_bytes() >= needed && self.allocate_ahead(1);
        if fits() {
            return true;
        }
        if !self.give_up(DELETIONS_RESERVE_FILE) {
            return false;
        }
        tracing::warn!("the disk is full: the reserve for deletions was given up for them");
        fits()
    }

    /// Gives a reserve file back to the file system; false if there is none.
    fn give_up(&self, name: &str) -> bool {
        let bytes = self.bytes_of(name);
        let given_up = self.data_dir.remove(name).is_ok();
        if given_up {
            self.given_up_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        given_up
    }

    /// Notes whether changes are taken, and tells when that has changed.
    fn note(&self, room: bool, free: u64) {
        if room == self.full.swap(!room, Ordering::Relaxed) {
            if room {
                tracing::info!("there is room on the disk again: changes are taken");
                self.given_up_bytes.store(0, Ordering::Relaxed);
                self.reserve();
            } else {
                tracing::error!(
                    free_bytes = free,
                    needed_bytes = FREE_MIN_BYTES,
                    "the disk is full: no changes are taken until there is room, but deletions by those who may do everything"
                );
            }
        }
    }

    /// Keeps some room back while there is plenty.
    fn reserve(&self) {
        let for_start = RESERVE_BYTES + self.bytes_of(STATE_FILE) / RESERVE_STATE_PART;
        self.keep_back(RESERVE_FILE, for_start);
        self.keep_back(DELETIONS_RESERVE_FILE, DELETIONS_RESERVE_BYTES);
    }

    fn keep_back(&self, name: &str, wanted: u64) {
        if self.bytes_of(name) >= wanted || self.free_bytes() < FREE_MIN_BYTES + 4 * wanted {
            return;
        }
        let file = self.data_dir.append_or_create(name);
        let made = file.and_then(|file| {
            fallocate(&file, FallocateFlags::empty(), 0, wanted).map_err(Into::into)
        });
        if let Err(error) = made {
            tracing::debug!(%error, "no reserve file could be made");
            let _ = self.data_dir.remove(name);
        }
    }

    fn bytes_of(&self, name: &str) -> u64 {
        let about = self.data_dir.about(name);
        about.map_or(0, |about| u64::try_from(about.st_size).unwrap_or(0))
    }

    /// Allocates blocks beyond the end of sled's file, whose length stays what it is; false if that fails. Where the file
    /// system cannot, there is nothing but the free bytes that every round asks for.
    fn allocate_ahead(&self, segments: u64) -> bool {
        let Ok(file) = self.data_dir.append(STATE_FILE) else {
            return false;
        };
        let Ok(about) = file.metadata() else {
            return false;
        };
        let ahead_bytes = segments * self.segment_bytes;
        let allocated = about.blocks() * 512;
        if allocated >= about.len() + ahead_bytes / 2 {
            return true;
        }
        let ahead = fallocate(&file, FallocateFlags::KEEP_SIZE, about.len(), ahead_bytes);
        if let Err(error) = ahead {
            tracing::debug!(%error, "no room can be allocated ahead");
            return error != Errno::NOSPC && error != Errno::DQUOT;
        }
        true
    }

    fn free_bytes(&self) -> u64 {
        self.data_dir.free_bytes().unwrap_or(u64::MAX)
    }
}
