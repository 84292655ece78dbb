//! Room on the disk: changes are refused before the disk is full, and some room is kept back for what must not fail.
//!
//! Another process can take the last byte at any moment. The journal bears that: a record that does not fit is cut off
//! again. sled does not, since it writes later what it has accepted before; so the blocks that it grows into are always
//! allocated ahead of it.

use crate::limits::{FREE_AGAIN_BYTES, FREE_MIN_BYTES, RESERVE_BYTES};
use crate::store::data_dir::Directory;
use rustix::fs::{FallocateFlags, fallocate};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The part of the state's size that the reserve has besides its smallest size: sled's snapshot takes about half of it.
const RESERVE_STATE_PART: u64 = 64;
/// Segments of the state that are allocated ahead: more than sled has under way at a time.
const SEGMENTS_AHEAD: u64 = 4;

/// The file that sled grows.
const STATE_FILE: &str = "state/db";
/// The file that keeps room back.
pub const RESERVE_FILE: &str = "reserve";

/// The room of one store.
pub struct Room {
    data_dir: Arc<Directory>,
    ahead_bytes: u64,
    full: AtomicBool,
}

impl Room {
    /// Looks at the disk, and gives up the reserve if that is what it takes to start.
    pub fn open(data_dir: Arc<Directory>, segment_bytes: usize) -> Self {
        let room = Self {
            data_dir,
            ahead_bytes: segment_bytes as u64 * SEGMENTS_AHEAD,
            full: AtomicBool::new(false),
        };
        if room.free_bytes() >= FREE_MIN_BYTES {
            room.reserve();
        } else if room.data_dir.remove(RESERVE_FILE).is_ok() {
            tracing::warn!("the disk is full: the reserve file was given up to start");
        }
        room
    }

    /// Whether a round of this size may be written.
    pub fn admits(&self, round_bytes: u64) -> bool {
        let free = self.free_bytes();
        // A disk that was full must have some more, or small rounds would go on where a large one was refused.
        let more = if self.full.load(Ordering::Relaxed) {
            FREE_AGAIN_BYTES
        } else {
            0
        };
        let room = free >= FREE_MIN_BYTES + more + 4 * round_bytes;
        if room {
            self.allocate_ahead();
        }
        if room == self.full.swap(!room, Ordering::Relaxed) {
            if room {
                tracing::info!("there is room on the disk again: changes are taken");
                self.reserve();
            } else {
                tracing::error!(
                    free_bytes = free,
                    needed_bytes = FREE_MIN_BYTES,
                    "the disk is full: no changes are taken until there is room"
                );
            }
        }
        room
    }

    /// Keeps some room back while there is plenty.
    fn reserve(&self) {
        let bytes = |name| {
            let about = self.data_dir.about(name);
            about.map_or(0, |about| u64::try_from(about.st_size).unwrap_or(0))
        };
        let wanted = RESERVE_BYTES + bytes(STATE_FILE) / RESERVE_STATE_PART;
        if bytes(RESERVE_FILE) >= wanted || self.free_bytes() < FREE_MIN_BYTES + 4 * wanted {
            return;
        }
        let file = self.data_dir.append_or_create(RESERVE_FILE);
        let made = file.and_then(|file| {
            fallocate(&file, FallocateFlags::empty(), 0, wanted).map_err(Into::into)
        });
        if let Err(error) = made {
            tracing::debug!(%error, "no reserve file could be made");
            let _ = self.data_dir.remove(RESERVE_FILE);
        }
    }

    /// Allocates blocks beyond the end of sled's file, whose length stays what it is. Where the file system cannot,
    /// there is nothing but the free bytes that every round asks for.
    fn allocate_ahead(&self) {
        let Ok(file) = self.data_dir.append(STATE_FILE) else {
            return;
        };
        let Ok(about) = file.metadata() else {
            return;
        };
        let allocated = about.blocks() * 512;
        if allocated >= about.len() + self.ahead_bytes / 2 {
            return;
        }
        let ahead = fallocate(
            &file,
            FallocateFlags::KEEP_SIZE,
            about.len(),
            self.ahead_bytes,
        );
        if let Err(error) = ahead {
            tracing::debug!(%error, "no room can be allocated ahead");
        }
    }

    fn free_bytes(&self) -> u64 {
        self.data_dir.free_bytes().unwrap_or(u64::MAX)
    }
}
