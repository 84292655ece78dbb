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
mod tests {
    use super::*;
    use crate::model::Id;
    use crate::registry::Remote;

    const USER: UserId = UserId(Id(7));

    fn source(address: &str) -> Source {
        Remote::Tcp(address.parse().unwrap()).source()
    }

    fn rates() -> Arc<Rates> {
        Arc::new(Rates::new(&Limits {
            requests_per_second: 10,
            requests_per_second_per_address: 20,
            bytes_per_second: 1000,
            bytes_per_second_per_address: 100_000,
            requests_per_second_per_user: 20,
            deliveries_per_second: 1000,
            ..Limits::default()
        }))
    }

    fn waits(rate: &ConnectionRate, requests: usize, bytes: usize, now: Instant) -> u128 {
        let wait = rate.taken(cost(requests, bytes), now, true);
        wait.unwrap().as_millis()
    }

    /// A moment after all that a test makes.
    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn cost(requests: usize, bytes: usize) -> Cost {
        Cost {
            requests,
            bytes,
            deliveries: 0,
        }
    }

    #[test]
    fn a_user_has_one_rate_over_all_its_connections() {
        let rates = rates();
        let now = soon();
        let of_user = |address: &str, user: u64| {
            let stranger = rates.connection(source(address));
            stranger.acting_as(Some(UserId(Id(user))))
        };
        // From three addresses, so that neither these nor the connections have taken too much.
        let [one, two, three] =
            ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(|address| of_user(address, 7));
        assert_eq!(waits(&one, 50, 1, now), 0);
        assert_eq!(waits(&two, 50, 1, now), 0);
        assert_eq!(waits(&three, 20, 1, now), 1000);
        let other = of_user("10.0.0.3:2", 8);
        assert_eq!(waits(&other, 15, 1, now), 0);
    }

    #[test]
    fn deliveries_are_a_users_own_and_requests_of_its_connection() {
        let now = soon();
        let given = |deliveries| Cost {
            deliveries,
            ..Cost::default()
        };
        let rate = rates()
            .connection(source("10.0.0.1:1"))
            .acting_as(Some(USER));
        assert_eq!(rate.taken(given(5000), now, true), Some(Duration::ZERO));
        let wait = rate.taken(given(2000), now, true);
        // The user owes two seconds, its connection two: 70 requests of which 50 may come at once.
        assert_eq!(wait, Some(Duration::from_secs(2)));
        let wait = rate.taken(given(5000), now, true);
        assert_eq!(wait, Some(Duration::from_secs(7)));
    }

    #[test]
    fn what_a_connection_has_taken_stays_taken_whoever_logs_in() {
        let rates = rates();
        let now = soon();
        let before = rates.connection(source("10.0.0.1:1"));
        assert_eq!(waits(&before, 50, 1, now), 0);
        let after = before.acting_as(Some(USER));
        assert_eq!(waits(&after, 1, 1, now), 100);
    }

    #[test]
    fn each_request_of_a_flood_waits_its_time() {
        let flood = rates().connection(source("10.0.0.1:1"));
        let now = soon();
        for _ in 0..50 {
            assert_eq!(waits(&flood, 1, 1, now), 0);
        }
        for number in 1..50 {
            assert_eq!(waits(&flood, 1, 1, now), number * 100);
        }
        let later = now + Duration::from_secs(10);
        assert_eq!(waits(&flood, 50, 1, later), 0);
        assert_eq!(waits(&flood, 1, 1, later), 100);
    }

    #[test]
    fn what_is_larger_than_a_burst_is_taken_and_paid_for() {
        let large = rates().connection(source("10.0.0.1:2"));
        let now = soon();
        assert_eq!(waits(&large, 1, 5000, now), 0);
        assert_eq!(waits(&large, 1, 20_000, now), 20_000);
        assert_eq!(waits(&large, 1, 0, now + Duration::from_secs(20)), 0);
        assert_eq!(waits(&large, 1, 1000, now + Duration::from_secs(20)), 1000);
        // What can never be paid for does not stop the clock.
        let wait = large.taken(cost(usize::MAX, usize::MAX), now, true);
        assert!(wait > Some(Duration::from_secs(1000)), "{wait:?}");
    }

    #[test]
    fn the_connections_of_an_address_share_its_rate_in_the_order_in_which_they_came() {
        let rates = rates();
        let (one, two) = (source("10.0.0.1:1"), source("10.0.0.1:2"));
        let [one, two] = [one, two].map(|source| rates.connection(source));
        let other = rates.connection(source("10.0.0.2:1"));
        let now = soon();
        assert_eq!(waits(&one, 50, 1, now), 0);
        assert_eq!(waits(&two, 50, 1, now), 0);
        assert_eq!(waits(&one, 1, 1, now), 100);
        assert_eq!(waits(&two, 1, 1, now), 100);
        let three = rates.connection(source("10.0.0.1:3"));
        assert_eq!(waits(&three, 1, 1, now), 150);
        assert_eq!(waits(&other, 1, 1, now), 0);
    }

    #[test]
    fn what_must_be_taken_at_once_is_not_owed() {
        let stranger = rates().connection(source("10.0.0.1:1"));
        let now = soon();
        let taken = (0..100).take_while(|_| stranger.taken(cost(1, 1), now, false).is_some());
        assert_eq!(taken.count(), 50);
        assert_eq!(waits(&stranger, 1, 1, now), 100);
    }

    #[test]
    fn quiet_addresses_and_users_are_forgotten() {
        let rates = rates();
        let rate = rates.connection(source("10.0.0.1:1")).acting_as(Some(USER));
        let long_ago = Instant::now();
        rate.taken(cost(1, 1), long_ago, true).unwrap();
        lock(&rates.addresses)
            .values_mut()
            .for_each(|flow| *flow = Flow::new(long_ago));
        lock(&rates.users)
            .values()
            .for_each(|user| *lock(&user.flow) = Flow::new(long_ago));
        rates.forget_quiet();
        assert!(lock(&rates.addresses).is_empty());
        assert!(!lock(&rates.users).is_empty(), "it is connected");
        drop(rate);
        rates.forget_quiet();
        assert!(lock(&rates.users).is_empty());
    }

    #[test]
    fn what_a_user_owes_is_owed_when_it_connects_again() {
        let rates = rates();
        let log_in = |address| rates.connection(source(address)).acting_as(Some(USER));
        let now = soon();
        let given = Cost {
            deliveries: 1_000_000,
            ..Cost::default()
        };
        let before = log_in("10.0.0.1:1");
        assert!(before.taken(given, now, true).is_some());
        drop(before);
        rates.forget_quiet();
        let wait = log_in("10.0.0.2:1").taken(cost(1, 1), now, true);
        // A million a second has been given out, where a thousand may be, and five thousand at once.
        assert_eq!(wait.unwrap().as_secs(), 995);
    }

    #[tokio::test]
    async fn few_changes_of_a_user_are_under_way_before_they_are_paid_for() {
        let rates = rates();
        let [one, two] = ["10.0.0.1:1", "10.0.0.2:1"].map(|address| {
            let stranger = rates.connection(source(address));
            Arc::new(stranger.acting_as(Some(USER)))
        });
        let mut under_way = Vec::new();
        for _ in 0..CHANGES_UNDER_WAY_MAX {
            under_way.push(Arc::clone(&one).begin_change().await);
        }
        let mut next = std::pin::pin!(two.begin_change());
        assert!(polled(next.as_mut()).is_none());
        under_way.pop().unwrap().pay(1);
        assert!(polled(next.as_mut()).is_some());
    }

    #[tokio::test]
    async fn one_change_at_a_time_is_under_way_while_events_to_many_are_owed_for() {
        let stranger = rates().connection(source("10.0.0.1:1"));
        let one = Arc::new(stranger.acting_as(Some(USER)));
        // The rate is a thousand a second.
        Arc::clone(&one).begin_change().await.pay(10_000);
        let alone = Arc::clone(&one).begin_change().await;
        let mut next = std::pin::pin!(Arc::clone(&one).begin_change());
        assert!(polled(next.as_mut()).is_none());
        alone.pay(1);
        assert!(polled(next.as_mut()).is_some());
    }

    fn polled<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
