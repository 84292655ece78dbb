//! How much of the queue each account, address and network has had lately, and how much more it asks for.
//!
//! Whoever is known at its address is counted by its account alone: what its neighbours do is not its own. Anybody else is
//! counted by address and network, and by an account once it has shown that the account is its own: a stranger who fails
//! costs nobody's account anything.

use crate::limits::{LOGIN_SHARES_MAX_ENTRIES, LOGINS_PER_NETWORK};
use crate::registry::{Network, Source};
use crate::throttle::Caller;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

/// Seconds after which a turn counts for half.
const HALF_LIFE_SECONDS: f64 = 20.0;
/// What is left of turns when they are forgotten.
const FADED: f64 = 0.05;

/// Who asks, and whether it is known there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub caller: Caller,
    pub known: bool,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Account(u64),
    Address(Source),
    Network(Network),
}

/// The turns that were had, and the places that are held.
#[derive(Debug)]
pub struct Shares {
    had: HashMap<Key, Had>,
    held: HashMap<Key, u32>,
    purged: Instant,
}

/// Turns, which fade.
#[derive(Clone, Copy, Debug)]
struct Had {
    turns: f64,
    at: Instant,
}

impl Had {
    fn left(&self, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.turns * (-seconds / HALF_LIFE_SECONDS).exp2()
    }
}

impl Asker {
    /// What its turns and places are counted by, and how many askers share it.
    fn keys(&self) -> impl Iterator<Item = (Key, f64)> + use<> {
        let source = self.caller.source();
        let keys = if self.known {
            [Some((self.account(), 1.0)), None]
        } else {
            let network = (Key::Network(source.network()), LOGINS_PER_NETWORK);
            [Some((Key::Address(source), 1.0)), Some(network)]
        };
        keys.into_iter().flatten()
    }

    fn account(&self) -> Key {
        Key::Account(self.caller.name())
    }
}

impl Shares {
    pub fn new(now: Instant) -> Self {
        Self {
            had: HashMap::new(),
            held: HashMap::new(),
            purged: now,
        }
    }

    /// How many turns it has had lately, by what it has had most of; in whole turns, so that those who have had about as
    /// much are served in the order in which they came.
    pub fn had(&self, asker: &Asker, now: Instant) -> f64 {
        self.most(asker, now, |_| 0)
    }

    /// The same with what it waits for, and has places for.
    pub fn wants(&self, asker: &Asker, now: Instant) -> f64 {
        self.most(asker, now, |key| self.held.get(key).copied().unwrap_or(0))
    }

    fn most(&self, asker: &Asker, now: Instant, more: impl Fn(&Key) -> u32) -> f64 {
        let had = |key: &Key| self.had.get(key).map_or(0.0, |had| had.left(now));
        let counted = asker
            .keys()
            .map(|(key, sharing)| (had(&key) + f64::from(more(&key))) / sharing);
        counted.fold(had(&asker.account()), f64::max).floor()
    }

    /// Counts a place that it holds.
    pub fn hold(&mut self, asker: &Asker) {
        for (key, _) in asker.keys() {
            *self.held.entry(key).or_default() += 1;
        }
    }

    /// Counts it no more.
    pub fn release(&mut self, asker: &Asker) {
        for (key, _) in asker.keys() {
            if let Entry::Occupied(mut held) = self.held.entry(key) {
                *held.get_mut() -= 1;
                if *held.get() == 0 {
                    held.remove();
                }
            }
        }
    }

    /// Counts a turn.
    pub fn take(&mut self, asker: &Asker, now: Instant) {
        for (key, _) in asker.keys() {
            self.add(key, 1.0, now);
        }
    }

    /// Takes a turn back that was not used.
    pub fn take_back(&mut self, asker: &Asker, now: Instant) {
        for (key, _) in asker.keys() {
            self.add(key, -1.0, now);
        }
    }

    /// Counts the turn of an asker that was not known by its account, which it has shown to be its own.
    pub fn take_of_account(&mut self, asker: &Asker, now: Instant) {
        if !asker.known {
            self.add(asker.account(), 1.0, now);
        }
    }

    fn add(&mut self, key: Key, turns: f64, now: Instant) {
        self.purge_if_full(now);
        // Where even that makes no room, turns are so short that nobody waits for long.
        let is_full = self.had.len() >= LOGIN_SHARES_MAX_ENTRIES;
        if !is_full || self.had.contains_key(&key) {
            let had = self.had.entry(key).or_insert(Had {
                turns: 0.0,
                at: now,
            });
            let turns = (had.left(now) + turns).max(0.0);
            *had = Had { turns, at: now };
        }
    }

    /// Forgets what has faded, if there is much; once a second at most.
    fn purge_if_full(&mut self, now: Instant) {
        let rested = now.saturating_duration_since(self.purged) >= Duration::from_secs(1);
        if self.had.len() >= LOGIN_SHARES_MAX_ENTRIES && rested {
            self.purged = now;
            self.had.retain(|_, had| had.left(now) > FADED);
        }
    }

    #[cfg(test)]
    pub fn holds_nothing(&self) -> bool {
        self.held.is_empty()
    }
}
