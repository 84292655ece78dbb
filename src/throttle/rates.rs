//! How fast requests may come on a login listener: of one connection, of one address, and of one user over all its
//! connections.
//!
//! What is taken may be more than there is: then it is owed, and who took it waits until it is paid for. So nothing is
//! too large to be taken, and what is known only after a request was read can still be charged for it.

use crate::limits::{
    BURST_SECONDS, CHANGES_UNDER_WAY_MAX, DEAR_EVENTS_MS, DELIVERIES_PER_REQUEST, Limits,
};
use crate::model::UserId;
use crate::registry::Source;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much may come at once, as the time in which it flows back.
const BURST: Duration = Duration::from_secs(BURST_SECONDS as u64);

/// The rates of all addresses and users.
#[derive(Debug)]
pub struct Rates {
    per_connection: PerSecond,
    per_address: PerSecond,
    per_user: PerSecond,
    addresses: Mutex<HashMap<Source, Flow>>,
    users: Mutex<HashMap<UserId, Arc<UserRate>>>,
}

/// The rate of one user, which all its connections share. It is not forgotten while something is owed, so that nobody
/// gets out of debt by connecting again.
#[derive(Debug)]
struct UserRate {
    flow: Mutex<Flow>,
    /// Room for changes under way.
    changes: Arc<Semaphore>,
}

/// What a line costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How many requests it counts as, besides its deliveries.
    pub requests: usize,
    /// Its bytes.
    pub bytes: usize,
    /// To how many connections its event was given. A connection and an address pay for them as requests.
    pub deliveries: usize,
}

/// What may be taken in a second.
#[derive(Clone, Copy, Debug)]
struct PerSecond {
    requests: u32,
    bytes: u32,
    deliveries: Option<u32>,
}

/// What one connection, one address or one user has taken.
#[derive(Clone, Copy, Debug)]
struct Flow {
    requests: Bucket,
    bytes: Bucket,
    deliveries: Bucket,
}

/// What flows back at a rate.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When all that was taken has flowed back.
    full_at: Instant,
}

impl Rates {
    /// The rates that these limits allow.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            per_connection: PerSecond {
                requests: limits.requests_per_second,
                bytes: limits.bytes_per_second,
                deliveries: None,
            },
            per_address: PerSecond {
                requests: limits.requests_per_second_per_address,
                bytes: limits.bytes_per_second_per_address,
                deliveries: None,
            },
            per_user: PerSecond {
                requests: limits.requests_per_second_per_user,
                bytes: limits.bytes_per_second_per_user,
                deliveries: Some(limits.deliveries_per_second),
            },
            addresses: Mutex::default(),
            users: Mutex::default(),
        }
    }

    /// The rates of a connection from this source, on which nobody is logged in.
    #[must_use]
    pub fn connection(self: &Arc<Self>, source: Source) -> ConnectionRate {
        ConnectionRate {
            own: Arc::new(Mutex::new(Flow::new(Instant::now()))),
            shared: Arc::clone(self),
            source,
            user: None,
        }
    }

    /// Forgets the addresses and users that have been quiet; to be called now and then.
    pub fn forget_quiet(&self) {
        let now = Instant::now();
        keep(&self.addresses, |flow| !flow.is_full(now));
        keep(&self.users, |rate| {
            Arc::strong_count(rate) > 1 || !lock(&rate.flow).is_full(now)
        });
    }

    fn user(&self, user: UserId) -> Arc<UserRate> {
        let mut users = lock(&self.users);
        let rate = users.entry(user).or_insert_with(|| {
            Arc::new(UserRate {
                flow: Mutex::new(Flow::new(Instant::now())),
                changes: Arc::new(Semaphore::new(CHANGES_UNDER_WAY_MAX as usize)),
            })
        });
        Arc::clone(rate)
    }
}

/// Forgets the others.
fn keep<K: Eq + Hash, V>(map: &Mutex<HashMap<K, V>>, mut kept: impl FnMut(&V) -> bool) {
    let mut map = lock(map);
    map.retain(|_, value| kept(value));
    if map.capacity() > 4 * map.len().max(1024) {
        map.shrink_to_fit();
    }
}

/// The rates of one connection, of its address, and of the user that is logged in on it.
#[derive(Debug)]
pub struct ConnectionRate {
    own: Arc<Mutex<Flow>>,
    shared: Arc<Rates>,
    source: Source,
    user: Option<Arc<UserRate>>,
}

impl UserRate {
    /// How much of the room for changes that are under way the next one needs: all of it while events to many are owed for.
    fn room(&self) -> u32 {
        let owed = lock(&self.flow).deliveries.full_at;
        let dear = Instant::now() + Duration::from_millis(DEAR_EVENTS_MS);
        if owed > dear {
            CHANGES_UNDER_WAY_MAX
        } else {
            1
        }
    }
}

/// A change that is under way, and whose event is not paid for yet.
#[derive(Debug)]
pub struct ChangeUnderWay {
    rate: Arc<ConnectionRate>,
    _room: Option<OwnedSemaphorePermit>,
}

impl ChangeUnderWay {
    /// Takes what its event has cost, now that it was given to so many connections.
    pub fn pay(self, deliveries: usize) {
        let _paid_by_the_next = self.rate.take(Cost {
            deliveries,
            ..Cost::default()
        });
    }
}

impl ConnectionRate {
    /// The rates of the same connection once somebody else is logged in on it. What it has taken stays taken.
    #[must_use]
    pub fn acting_as(&self, user: Option<UserId>) -> Self {
        Self {
            own: Arc::clone(&self.own),
            shared: Arc::clone(&self.shared),
            source: self.source,
            user: user.map(|user| self.shared.user(user)),
        }
    }

    /// Waits until few enough of the user's changes are under way, and begins one more.
    pub async fn begin_change(self: Arc<Self>) -> ChangeUnderWay {
        let room = match &self.user {
            Some(user) => {
                let changes = Arc::clone(&user.changes);
                changes.acquire_many_owned(user.room()).await.ok()
            }
            None => None,
        };
        ChangeUnderWay {
            rate: self,
            _room: room,
        }
    }

    /// Takes what a line costs, and gives for how long the next thing is to wait.
    #[must_use]
    pub fn take(&self, cost: Cost) -> Duration {
        self.taken(cost, Instant::now(), true).unwrap_or_default()
    }

    /// Takes a request of so many bytes, unless it would have to wait: then nothing is taken, and false is given.
    #[must_use]
    pub fn take_at_once(&self, bytes: usize) -> bool {
        let cost = Cost {
            requests: 1,
            bytes,
            deliveries: 0,
        };
        self.taken(cost, Instant::now(), false).is_some()
    }

    fn taken(&self, cost: Cost, now: Instant, may_owe: bool) -> Option<Duration> {
        let shared = self.shared.as_ref();
        let mut own = lock(&self.own);
        let mut addresses = lock(&shared.addresses);
        let all = addresses.entry(self.source);
        let all = all.or_insert_with(|| Flow::new(now));
        let own_after = own.after(shared.per_connection, cost, now);
        let all_after = all.after(shared.per_address, cost, now);
        let mut wait = own_after.wait(now).max(all_after.wait(now));
        if !may_owe && !wait.is_zero() {
            return None;
        }
        if let Some(user) = &self.user {
            let mut of_user = lock(&user.flow);
            *of_user = of_user.after(shared.per_user, cost, now);
            wait = wait.max(of_user.wait(now));
        }
        (*own, *all) = (own_after, all_after);
        Some(wait)
    }
}

impl Flow {
    const fn new(now: Instant) -> Self {
        let full = Bucket { full_at: now };
        Self {
            requests: full,
            bytes: full,
            deliveries: full,
        }
    }

    /// The same once this is taken too.
    fn after(self, rate: PerSecond, cost: Cost, now: Instant) -> Self {
        let (requests, deliveries) = if let Some(per_second) = rate.deliveries {
            let deliveries = self.deliveries.after(per_second, cost.deliveries, now);
            (cost.requests, deliveries)
        } else {
            let as_requests = cost.deliveries / DELIVERIES_PER_REQUEST;
            (cost.requests.saturating_add(as_requests), self.deliveries)
        };
        Self {
            requests: self.requests.after(rate.requests, requests, now),
            bytes: self.bytes.after(rate.bytes, cost.bytes, now),
            deliveries,
        }
    }

    fn buckets(&self) -> [Bucket; 3] {
        [self.requests, self.bytes, self.deliveries]
    }

    fn is_full(&self, now: Instant) -> bool {
        self.buckets().iter().all(|bucket| bucket.full_at <= now)
    }

    fn wait(&self, now: Instant) -> Duration {
        let waits = self.buckets().map(|bucket| bucket.wait(now));
        waits.into_iter().max().unwrap_or_default()
    }
}

impl Bucket {
    fn after(self, per_second: u32, amount: usize, now: Instant) -> Self {
        let nanoseconds = amount as u128 * 1_000_000_000 / u128::from(per_second.max(1));
        let flowing = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let begun = self.full_at.max(now);
        Self {
            full_at: begun.checked_add(flowing).unwrap_or(begun),
        }
    }

    /// How long until no more is owed than may be taken at once.
    fn wait(self, now: Instant) -> Duration {
        self.full_at
            .saturating_duration_since(now)
            .saturating_sub(BURST)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
