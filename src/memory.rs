//! What clients make the daemon hold for them: answers and events on their way, requests under way, subscriptions.
//!
//! Each connection is bounded by itself ([`crate::wire::Outbox`]); here is the sum, in total and by address. While
//! more than half of what there may be is held, those that hold more than their share are read no further; so the
//! others go on. What may be large, a page or many subscriptions, must fit beneath the whole of it before it is begun.

use crate::error::Error;
use crate::limits::{Limits, READ_UNCOUNTED_MAX_BYTES};
use crate::registry::Source;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes by which a connection's use may change before the sum is told: many small changes cost nothing.
const TOLD_BYTES: usize = 4096;

/// The sum over all connections.
#[derive(Debug)]
pub struct Memory {
    total: Level,
    max_bytes_per_address: usize,
    addresses: Mutex<HashMap<Source, Arc<Level>>>,
}

/// What some connections hold together.
#[derive(Debug)]
struct Level {
    bytes: AtomicUsize,
    connections: AtomicUsize,
    max_bytes: usize,
}

impl Level {
    const fn new(max_bytes: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            max_bytes,
        }
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn move_by(&self, from: usize, to: usize) {
        if to > from {
            self.bytes.fetch_add(to - from, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(from - to, Ordering::Relaxed);
        }
    }

    fn holds(&self, more: usize, most: usize) -> bool {
        self.bytes().saturating_add(more) <= most
    }

    fn is_greedy(&self, bytes: usize) -> bool {
        let ease = self.max_bytes / 2;
        self.bytes() > ease && bytes > ease / self.connections.load(Ordering::Relaxed).max(1)
    }
}

impl Memory {
    /// Nothing is held; as much may be as the limits say.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            total: Level::new(limits.max_memory_bytes_pending),
            max_bytes_per_address: limits.max_memory_bytes_pending_per_address,
            addresses: Mutex::default(),
        }
    }

    /// The use of a new connection, which counts for its source, if it has one.
    #[must_use]
    pub fn connection(self: &Arc<Self>, source: Option<Source>) -> Usage {
        let address = source.map(|source| {
            let mut addresses = self.lock();
            let level = addresses
                .entry(source)
                .or_insert_with(|| Arc::new(Level::new(self.max_bytes_per_address)));
            level.connections.fetch_add(1, Ordering::Relaxed);
            (source, Arc::clone(level))
        });
        self.total.connections.fetch_add(1, Ordering::Relaxed);
        Usage {
            memory: Arc::clone(self),
            address,
            told: 0,
        }
    }

    /// Bytes that are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.total.bytes()
    }

    /// Bytes that are held beyond all that there may be.
    #[must_use]
    pub fn excess_bytes(&self) -> usize {
        self.total.bytes().saturating_sub(self.total.max_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Source, Arc<Level>>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one connection holds.
#[derive(Debug)]
pub struct Usage {
    memory: Arc<Memory>,
    address: Option<(Source, Arc<Level>)>,
    /// What the sum was told.
    told: usize,
}

impl Usage {
    /// Says how many bytes the connection holds now.
    pub fn set(&mut self, bytes: usize) {
        if bytes / TOLD_BYTES != self.told / TOLD_BYTES {
            self.tell(bytes);
        }
    }

    /// Whether a connection that holds so many bytes is to hold no more, since memory is short and it has its share.
    #[must_use]
    pub fn is_greedy(&self, bytes: usize) -> bool {
        self.levels().any(|level| level.is_greedy(bytes))
    }

    /// Whether so many bytes more may be held for a while. Whatever strangers hold, a quarter is left to trusted connections.
    #[must_use]
    pub fn fits(&self, more: usize) -> bool {
        let total = &self.memory.total;
        let for_all = match self.address {
            Some(_) => total.max_bytes / 4 * 3,
            None => total.max_bytes,
        };
        total.holds(more, for_all)
            && self
                .address
                .as_ref()
                .is_none_or(|(_, level)| level.holds(more, level.max_bytes))
    }

    /// Counts what a read holds while it runs, unless there is no room for it. A little is always there.
    pub fn hold_read(&mut self, bytes: usize) -> Result<(), Error> {
        let more = bytes.saturating_sub(self.told);
        if bytes > READ_UNCOUNTED_MAX_BYTES {
            if !self.fits(more) {
                return Err(Error::memory_short());
            }
            self.set(bytes);
        }
        Ok(())
    }

    /// Whether so many bytes more may be held for good: that is at most half of all, so that answers always fit in the end.
    #[must_use]
    pub fn fits_for_good(&self, more: usize) -> bool {
        self.levels()
            .all(|level| level.holds(more, level.max_bytes / 2))
    }

    fn levels(&self) -> impl Iterator<Item = &Level> {
        let address = self.address.as_ref().map(|(_, level)| level.as_ref());
        std::iter::once(&self.memory.total).chain(address)
    }

    fn tell(&mut self, bytes: usize) {
        for level in self.levels() {
            level.move_by(self.told, bytes);
        }
        self.told = bytes;
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.tell(0);
        self.memory
            .total
            .connections
            .fetch_sub(1, Ordering::Relaxed);
        if let Some((source, level)) = self.address.take() {
            let mut addresses = self.memory.lock();
            if level.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
                addresses.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Remote;

    fn memory() -> Arc<Memory> {
        Arc::new(Memory::new(&Limits {
            max_memory_bytes_pending: 800_000,
            max_memory_bytes_pending_per_address: 400_000,
            ..Limits::default()
        }))
    }

    fn source(address: &str) -> Option<Source> {
        let address: std::net::SocketAddr = address.parse().ok()?;
        Some(Remote::Tcp(address).source())
    }

    #[test]
    fn the_greediest_of_an_address_are_read_no_further_and_the_others_are() {
        let memory = memory();
        let mut greedy = memory.connection(source("10.0.0.1:1"));
        let modest = memory.connection(source("10.0.0.1:2"));
        let elsewhere = memory.connection(source("10.0.0.2:1"));
        greedy.set(200_000);
        assert!(!greedy.is_greedy(200_000));
        greedy.set(300_000);
        assert!(greedy.is_greedy(300_000) && modest.is_greedy(100_001));
        assert!(!modest.is_greedy(100_000) && !elsewhere.is_greedy(300_000));
        assert!(modest.fits(100_000) && !modest.fits(110_000) && elsewhere.fits(300_000));
        // A quarter is left to trusted connections, and half to what does not stay.
        assert!(!elsewhere.fits(310_000) && memory.connection(None).fits(500_000));
        assert!(elsewhere.fits_for_good(100_000) && !elsewhere.fits_for_good(100_001));
    }

    #[test]
    fn what_a_read_holds_is_counted_and_refused_where_there_is_no_room() {
        let memory = Arc::new(Memory::new(&Limits {
            max_memory_bytes_pending: 4 * READ_UNCOUNTED_MAX_BYTES,
            ..Limits::default()
        }));
        let mut others = memory.connection(None);
        others.set(READ_UNCOUNTED_MAX_BYTES);
        let mut read = memory.connection(None);
        for pieces in 1..=3 {
            assert_eq!(read.hold_read(pieces * READ_UNCOUNTED_MAX_BYTES), Ok(()));
        }
        assert_eq!(memory.bytes(), 4 * READ_UNCOUNTED_MAX_BYTES);
        let refused = read.hold_read(3 * READ_UNCOUNTED_MAX_BYTES + 1);
        assert_eq!(refused, Err(Error::memory_short()));
        let mut small = memory.connection(None);
        assert_eq!(small.hold_read(READ_UNCOUNTED_MAX_BYTES), Ok(()));
        drop((read, others, small));
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn in_total_each_has_its_share_and_all_is_given_back() {
        let memory = memory();
        let mut some: Vec<Usage> = (0..8).map(|_| memory.connection(None)).collect();
        for usage in &mut some[..5] {
            usage.set(100_000);
        }
        assert_eq!(memory.bytes(), 500_000);
        assert!(some[0].is_greedy(100_000) && !some[7].is_greedy(50_000));
        assert!(some[7].fits(300_000) && !some[7].fits(300_001));
        // What is small is not told.
        some[7].set(4000);
        assert_eq!(memory.bytes(), 500_000);
        drop(some);
        assert_eq!(memory.bytes(), 0);
        drop(memory.connection(source("10.0.0.1:1")));
        assert!(memory.lock().is_empty());
    }
}
