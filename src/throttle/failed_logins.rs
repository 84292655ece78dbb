//! How often one account or one address may fail to log in.
//!
//! Nothing here is counted by account alone: a stranger who fails on purpose locks out nobody who comes from elsewhere.

use crate::limits::{FAILED_LOGINS_MAX_ENTRIES, FAILED_LOGINS_PER_ADDRESS};
use crate::registry::Source;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failed logins, which fade with time: by address, and by address and account.
///
/// A level of its own, and no rate limiter: only failures count, and how many there were is looked at before one more
/// is risked.
#[derive(Debug)]
pub struct FailedLogins {
    per_minute: f64,
    levels: Mutex<Levels>,
    hashes: RandomState,
}

#[derive(Debug)]
struct Levels {
    by_key: HashMap<Key, Level>,
    /// Until when an address is suspicious.
    suspects: HashMap<Source, Instant>,
    purged: Instant,
}

/// A source, and the hash of a login, if it is counted with one.
type Key = (Source, Option<u64>);

#[derive(Clone, Copy, Debug)]
struct Level {
    failures: f64,
    at: Instant,
}

/// A login under way, which counts as failed until it succeeds.
#[derive(Debug)]
pub struct Attempt {
    keys: [Key; 2],
    /// Whether the address has failed lately, has another attempt under way, or did not wait as it was told.
    pub suspicious: bool,
}

impl FailedLogins {
    /// Allows so many failures a minute for one account from one address, and a few times as many from one address.
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        Self {
            per_minute: per_minute.into(),
            levels: Mutex::new(Levels {
                by_key: HashMap::new(),
                suspects: HashMap::new(),
                purged: Instant::now(),
            }),
            hashes: RandomState::new(),
        }
    }

    /// Begins an attempt; an error says how long to wait. `account` is the folded login, whether or not there is one.
    pub fn begin(&self, source: Source, account: &str, now: Instant) -> Result<Attempt, Duration> {
        let keys = [
            (source, None),
            (source, Some(self.hashes.hash_one(account))),
        ];
        let allowed = [
            self.per_minute * f64::from(FAILED_LOGINS_PER_ADDRESS),
            self.per_minute,
        ];
        let mut levels = self.lock();
        let mut suspicious = levels
            .suspects
            .get(&source)
            .is_some_and(|&until| now < until);
        for (key, allowed) in keys.iter().zip(allowed) {
            let failures = levels.failures(key, allowed, now);
            suspicious |= failures > 0.0;
            let over = failures + 1.0 - allowed;
            if over > 0.0 {
                return Err(Duration::from_secs_f64((over * 60.0 / allowed).max(0.001)));
            }
        }
        for (key, allowed) in keys.iter().zip(allowed) {
            levels.add(*key, 1.0, allowed, now);
        }
        Ok(Attempt { keys, suspicious })
    }

    /// Takes back what an attempt counted: it succeeded, or was not made.
    pub fn forgive(&self, attempt: &Attempt, now: Instant) {
        let allowed = [
            self.per_minute * f64::from(FAILED_LOGINS_PER_ADDRESS),
            self.per_minute,
        ];
        let mut levels = self.lock();
        for (key, allowed) in attempt.keys.iter().zip(allowed) {
            levels.add(*key, -1.0, allowed, now);
        }
    }

    /// Keeps the address of an attempt suspicious for so long: it failed, or was told to wait.
    pub fn suspect(&self, attempt: &Attempt, lasting: Duration, now: Instant) {
        let [(source, _), _] = attempt.keys;
        let mut levels = self.lock();
        levels.purge_if_full(now);
        let is_full = levels.suspects.len() >= FAILED_LOGINS_MAX_ENTRIES;
        if !is_full || levels.suspects.contains_key(&source) {
            let until = levels.suspects.entry(source).or_insert(now);
            *until = (*until).max(now + lasting);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Levels> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Levels {
    /// The failures that are left of a key's after fading at `per_minute`.
    fn failures(&self, key: &Key, per_minute: f64, now: Instant) -> f64 {
        self.by_key.get(key).map_or(0.0, |level| {
            let faded = now.saturating_duration_since(level.at).as_secs_f64() / 60.0 * per_minute;
            (level.failures - faded).max(0.0)
        })
    }

    fn add(&mut self, key: Key, failures: f64, per_minute: f64, now: Instant) {
        let failures = self.failures(&key, per_minute, now) + failures;
        if failures <= 0.0 {
            self.by_key.remove(&key);
            return;
        }
        self.purge_if_full(now);
        // Where even that makes no room, what is not counted is still bounded by the queue of the password pool.
        if self.by_key.len() < FAILED_LOGINS_MAX_ENTRIES || self.by_key.contains_key(&key) {
            self.by_key.insert(key, Level { failures, at: now });
        }
    }

    /// Forgets what is older than two minutes, which has faded, if there is much; once a second at most.
    fn purge_if_full(&mut self, now: Instant) {
        const FADED: Duration = Duration::from_secs(120);
        let most = self.by_key.len().max(self.suspects.len());
        let rested = now.saturating_duration_since(self.purged) >= Duration::from_secs(1);
        if most >= FAILED_LOGINS_MAX_ENTRIES && rested {
            self.purged = now;
            self.by_key
                .retain(|_, level| now.saturating_duration_since(level.at) < FADED);
            self.suspects.retain(|_, until| now < *until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Remote;

    fn source(address: &str) -> Source {
        Remote::Tcp(address.parse().unwrap()).source()
    }

    #[test]
    fn failures_count_by_address_and_account_and_fade() {
        let failed = FailedLogins::new(3);
        let (here, there) = (source("10.0.0.1:1"), source("10.0.0.2:1"));
        let start = Instant::now();
        for number in 0..3 {
            let attempt = failed.begin(here, "ann", start).unwrap();
            assert_eq!(attempt.suspicious, number > 0);
        }
        let wait = failed.begin(here, "ann", start).unwrap_err();
        assert!((19.9..=20.1).contains(&wait.as_secs_f64()), "{wait:?}");
        assert!(failed.begin(here, "ben", start).is_ok());
        assert!(!failed.begin(there, "ann", start).unwrap().suspicious);
        let later = start + Duration::from_secs(21);
        assert!(failed.begin(here, "ann", later).is_ok());
        assert!(failed.begin(here, "ann", later).is_err());
    }

    #[test]
    fn an_address_cannot_try_one_account_after_the_other() {
        let failed = FailedLogins::new(3);
        let (here, start) = (source("10.0.0.1:1"), Instant::now());
        let tried = (0..1000)
            .take_while(|number| failed.begin(here, &format!("user {number}"), start).is_ok())
            .count();
        assert_eq!(tried, 3 * FAILED_LOGINS_PER_ADDRESS as usize);
    }

    #[test]
    fn what_succeeds_counts_as_nothing() {
        let failed = FailedLogins::new(3);
        let (here, start) = (source("10.0.0.1:1"), Instant::now());
        for _ in 0..100 {
            let attempt = failed.begin(here, "ann", start).unwrap();
            assert!(!attempt.suspicious);
            failed.forgive(&attempt, start);
        }
        assert!(failed.lock().by_key.is_empty());
    }

    #[test]
    fn an_address_stays_suspicious_after_its_failures_have_faded_and_while_it_does_not_wait() {
        let failed = FailedLogins::new(60);
        let (here, there) = (source("10.0.0.1:1"), source("10.0.0.2:1"));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let failure = failed.begin(here, "ann", start).unwrap();
        failed.suspect(&failure, Duration::from_secs(60), start);
        failed.suspect(&failure, Duration::from_secs(1), start);
        let attempt = |at: Instant, source| {
            let attempt = failed.begin(source, "ben", at).unwrap();
            failed.forgive(&attempt, at);
            attempt
        };
        assert!(attempt(after(59), here).suspicious);
        assert!(!attempt(after(60), here).suspicious);
        let told_to_wait = attempt(start, there);
        failed.suspect(&told_to_wait, Duration::from_secs(1), start);
        assert!(attempt(start + Duration::from_millis(999), there).suspicious);
        assert!(!attempt(after(1), there).suspicious);
    }
}
