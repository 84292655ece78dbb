//! How often one account, token or address may fail to log in, and how often an address may register.
//!
//! A login counts as failed when it has failed. Until then it is under way: only as many are under way at once as might
//! fail, and the others wait for these to end. Nothing here is counted by account alone: a stranger who fails on purpose
//! locks out nobody who comes from elsewhere. A token is no guess: whoever presents one is let in if it is good, however
//! many others failed beside it.

use crate::limits::{
    FAILED_LOGINS_MAX_ENTRIES, FAILED_LOGINS_PER_ADDRESS, SUSPECT_FAILURES_PER_NETWORK,
    SUSPECT_SECONDS,
};
use crate::registry::{Network, Source};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Failures, which fade with time, and what is under way.
///
/// Levels of its own, and no rate limiter: only failures count, and how many there were is looked at before one more is
/// risked.
#[derive(Debug)]
pub struct FailedLogins {
    per_minute: f64,
    state: Mutex<State>,
    /// Told whenever an attempt has ended.
    ended: Notify,
    /// For those who look up tokens where too many were bad: one at a time, so that they hold up nobody's reads.
    lookups: Semaphore,
    hashes: RandomState,
}

#[derive(Debug)]
struct State {
    levels: HashMap<Key, Level>,
    under_way: HashMap<Key, u32>,
    /// Until when an address is suspicious.
    suspects: HashMap<(Kind, Source), Instant>,
    /// The failures of whole networks: each of their addresses may fail for the first time.
    networks: HashMap<(Kind, Network), Level>,
    purged: Instant,
}

/// What is counted apart from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Logins with a password.
    Password,
    /// Logins with a token.
    Token,
    /// Users that strangers create.
    Registration,
}

/// Where somebody comes from, and the hash of the name that it gave: a login, or a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    source: Source,
    name: u64,
}

impl Caller {
    /// Where it comes from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// The hash of its account or token.
    pub(crate) const fn name(&self) -> u64 {
        self.name
    }
}

/// What is counted: of a source, all of a kind or those with one name.
type Key = (Kind, Source, Option<u64>);

#[derive(Clone, Copy, Debug)]
struct Level {
    failures: f64,
    at: Instant,
}

/// How many failures of a network fade in a minute.
const NETWORK_PER_MINUTE: f64 = SUSPECT_FAILURES_PER_NETWORK as f64;

impl Level {
    /// The failures that are left after fading at `per_minute`.
    fn left(&self, per_minute: f64, now: Instant) -> f64 {
        let faded = now.saturating_duration_since(self.at).as_secs_f64() / 60.0 * per_minute;
        (self.failures - faded).max(0.0)
    }

    /// Those with one more, but no more than are allowed a minute: nobody waits longer than that takes to fade.
    fn one_more(before: Option<&Self>, per_minute: f64, now: Instant) -> Self {
        let before = before.map_or(0.0, |level| level.left(per_minute, now));
        Self {
            failures: (before + 1.0).min(per_minute),
            at: now,
        }
    }
}

/// A login with a password, or a registration, under way until it is dropped.
#[derive(Debug)]
pub struct Attempt {
    failed_logins: Arc<FailedLogins>,
    kind: Kind,
    caller: Caller,
}

/// Whether an attempt may begin.
enum Begun {
    Now,
    /// When one of those under way has ended.
    Later,
    /// After this time.
    Refused(Duration),
}

/// What became of looking up a token that is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadToken {
    /// It failed.
    Failed,
    /// So many tokens failed there that this one is to wait for so long.
    TooMany(Duration),
}

impl FailedLogins {
    /// Allows so many failures a minute for one account or token from one address, and a few times as many from one
    /// address.
    #[must_use]
    pub fn new(per_minute: u32) -> Arc<Self> {
        Arc::new(Self {
            per_minute: per_minute.into(),
            state: Mutex::new(State {
                levels: HashMap::new(),
                under_way: HashMap::new(),
                suspects: HashMap::new(),
                networks: HashMap::new(),
                purged: Instant::now(),
            }),
            ended: Notify::new(),
            lookups: Semaphore::new(1),
            hashes: RandomState::new(),
        })
    }

    /// Who asks. `name` is the folded login, whether or not there is one, or the token's hash.
    pub fn caller(&self, source: Source, name: impl Hash) -> Caller {
        Caller {
            source,
            name: self.hashes.hash_one(name),
        }
    }

    /// Begins an attempt, once it is one of those that may be under way; an error says how long to wait.
    pub async fn attempt(
        self: &Arc<Self>,
        kind: Kind,
        caller: Caller,
    ) -> Result<Attempt, Duration> {
        loop {
            let ended = self.ended.notified();
            match self.begin(kind, caller, Instant::now()) {
                Begun::Now => {
                    return Ok(Attempt {
                        failed_logins: Arc::clone(self),
                        kind,
                        caller,
                    });
                }
                Begun::Later => ended.await,
                Begun::Refused(wait) => return Err(wait),
            }
        }
    }

    fn begin(&self, kind: Kind, caller: Caller, now: Instant) -> Begun {
        let mut state = self.lock();
        let mut begun = Begun::Now;
        for (key, allowed) in self.bounds(kind, caller) {
            let failures = state.failures(&key, allowed, now);
            let under_way = state.under_way.get(&key).copied().unwrap_or(0);
            if let Some(wait) = over(failures, allowed) {
                return Begun::Refused(wait);
            }
            if over(failures + f64::from(under_way), allowed).is_some() {
                begun = Begun::Later;
            }
        }
        if matches!(begun, Begun::Now) {
            for (key, _) in self.bounds(kind, caller) {
                *state.under_way.entry(key).or_default() += 1;
            }
        }
        begun
    }

    /// What an attempt is counted by, and how much of it is allowed a minute.
    fn bounds(&self, kind: Kind, caller: Caller) -> impl Iterator<Item = (Key, f64)> + use<> {
        let of_name = (kind, caller.source, Some(caller.name));
        let of_source = (kind, caller.source, None);
        let of_all = self.per_minute * f64::from(FAILED_LOGINS_PER_ADDRESS);
        let bounds = match kind {
            Kind::Password | Kind::Token => {
                [Some((of_name, self.per_minute)), Some((of_source, of_all))]
            }
            // Each has another name: there is nothing to guess, and all of them cost the same.
            Kind::Registration => [Some((of_source, self.per_minute)), None],
        };
        bounds.into_iter().flatten()
    }

    /// Whether an address is suspicious: it has failed lately, or registered, or many of its network have.
    #[must_use]
    pub fn suspects(&self, kind: Kind, source: Source, now: Instant) -> bool {
        let state = self.lock();
        let until = state.suspects.get(&(kind, source));
        let network = state.networks.get(&(kind, source.network()));
        until.is_some_and(|&until| now < until)
            || network.is_some_and(|level| {
                over(level.left(NETWORK_PER_MINUTE, now), NETWORK_PER_MINUTE).is_some()
            })
    }

    /// Says that a token may be looked up; an error says how long to wait, since this very token failed too often there.
    /// What is given is to be held meanwhile. One that is known to be good there does not wait in a crowd.
    pub async fn look_up(
        &self,
        token: Caller,
        known: bool,
        now: Instant,
    ) -> Result<Option<SemaphorePermit<'_>>, Duration> {
        let mut crowded = false;
        for (key, allowed) in self.bounds(Kind::Token, token) {
            let failures = self.lock().failures(&key, allowed, now);
            match over(failures, allowed) {
                Some(wait) if key.2.is_some() => return Err(wait),
                Some(_) => crowded = true,
                None => {}
            }
        }
        if crowded && !known {
            return Ok(self.lookups.acquire().await.ok());
        }
        Ok(None)
    }

    /// Counts a token that is bad.
    #[must_use]
    pub fn bad_token(&self, token: Caller, now: Instant) -> BadToken {
        let mut state = self.lock();
        let of_source = (Kind::Token, token.source, None);
        let allowed = self.per_minute * f64::from(FAILED_LOGINS_PER_ADDRESS);
        let refused = over(state.failures(&of_source, allowed, now), allowed);
        for (key, allowed) in self.bounds(Kind::Token, token) {
            // Where too many failed, new ones are not remembered one by one.
            if refused.is_none() || state.levels.contains_key(&key) {
                state.add(key, allowed, now);
            }
        }
        refused.map_or(BadToken::Failed, BadToken::TooMany)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// Counts it: it failed, or it was a registration. Its address is suspicious for a while.
    pub fn count(&self, now: Instant) {
        let mut state = self.failed_logins.lock();
        for (key, allowed) in self.failed_logins.bounds(self.kind, self.caller) {
            state.add(key, allowed, now);
        }
        state.suspect(self.kind, self.caller.source, now);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut state = self.failed_logins.lock();
        for (key, _) in self.failed_logins.bounds(self.kind, self.caller) {
            if let Entry::Occupied(mut count) = state.under_way.entry(key) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        drop(state);
        self.failed_logins.ended.notify_waiters();
    }
}

/// How long to wait until one more failure is allowed, if it is not.
fn over(failures: f64, allowed: f64) -> Option<Duration> {
    let over = failures + 1.0 - allowed;
    (over > 0.0).then(|| Duration::from_secs_f64((over * 60.0 / allowed).max(0.001)))
}

impl State {
    /// The failures that are left of a key's after fading at `per_minute`.
    fn failures(&self, key: &Key, per_minute: f64, now: Instant) -> f64 {
        let level = self.levels.get(key);
        level.map_or(0.0, |level| level.left(per_minute, now))
    }

    fn add(&mut self, key: Key, per_minute: f64, now: Instant) {
        let level = Level::one_more(self.levels.get(&key), per_minute, now);
        self.purge_if_full(now);
        // Where even that makes no room, what is not counted is still bounded by the queue of the password pool.
        if self.levels.len() < FAILED_LOGINS_MAX_ENTRIES || self.levels.contains_key(&key) {
            self.levels.insert(key, level);
        }
    }

    fn suspect(&mut self, kind: Kind, source: Source, now: Instant) {
        self.purge_if_full(now);
        let is_full = self.suspects.len() >= FAILED_LOGINS_MAX_ENTRIES;
        if !is_full || self.suspects.contains_key(&(kind, source)) {
            let until = now + Duration::from_secs(SUSPECT_SECONDS);
            self.suspects.insert((kind, source), until);
        }
        let network = (kind, source.network());
        let level = Level::one_more(self.networks.get(&network), NETWORK_PER_MINUTE, now);
        let is_full = self.networks.len() >= FAILED_LOGINS_MAX_ENTRIES;
        if !is_full || self.networks.contains_key(&network) {
            self.networks.insert(network, level);
        }
    }

    /// Forgets what is older than two minutes, which has faded, if there is much; once a second at most.
    fn purge_if_full(&mut self, now: Instant) {
        const FADED: Duration = Duration::from_secs(120);
        let most = self.levels.len().max(self.suspects.len());
        let most = most.max(self.networks.len());
        let rested = now.saturating_duration_since(self.purged) >= Duration::from_secs(1);
        if most >= FAILED_LOGINS_MAX_ENTRIES && rested {
            self.purged = now;
            let is_fresh = |level: &mut Level| now.saturating_duration_since(level.at) < FADED;
            self.levels.retain(|_, level| is_fresh(level));
            self.networks.retain(|_, level| is_fresh(level));
            self.suspects.retain(|_, until| now < *until);
        }
    }
}

#[cfg(test)]
mod tests;
