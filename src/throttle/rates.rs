//! How fast requests may come on a login listener, of one connection and of one address.
//!
//! What is taken may be more than there is: then it is owed, and who took it waits until it is paid for. So nothing is
//! too large to be taken, and what is known only after a request was read can still be charged for it.

use crate::limits::{BURST_SECONDS, Limits};
use crate::registry::Source;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much may come at once, as the time in which it flows back.
const BURST: Duration = Duration::from_secs(BURST_SECONDS as u64);

/// The rates of all addresses.
#[derive(Debug)]
pub struct Rates {
    per_address: PerSecond,
    per_connection: PerSecond,
    addresses: Mutex<HashMap<Source, Flow>>,
}

/// What may be taken in a second.
#[derive(Clone, Copy, Debug)]
struct PerSecond {
    requests: u32,
    bytes: u32,
}

/// What one connection or one address has taken.
#[derive(Clone, Copy, Debug)]
struct Flow {
    requests: Bucket,
    bytes: Bucket,
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
            per_address: PerSecond {
                requests: limits.requests_per_second_per_address,
                bytes: limits.bytes_per_second_per_address,
            },
            per_connection: PerSecond {
                requests: limits.requests_per_second,
                bytes: limits.bytes_per_second,
            },
            addresses: Mutex::default(),
        }
    }

    /// The rates of a connection from this source.
    #[must_use]
    pub fn connection(self: &Arc<Self>, source: Source) -> ConnectionRate {
        ConnectionRate {
            own: Mutex::new(Flow::new(Instant::now())),
            shared: Arc::clone(self),
            source,
        }
    }

    /// Forgets the addresses that have been quiet; to be called now and then.
    pub fn forget_quiet(&self) {
        let now = Instant::now();
        let mut addresses = lock(&self.addresses);
        addresses.retain(|_, flow| flow.requests.full_at > now || flow.bytes.full_at > now);
        if addresses.capacity() > 4 * addresses.len().max(1024) {
            addresses.shrink_to_fit();
        }
    }
}

/// The rates of one connection, and of its address.
#[derive(Debug)]
pub struct ConnectionRate {
    own: Mutex<Flow>,
    shared: Arc<Rates>,
    source: Source,
}

impl ConnectionRate {
    /// Takes requests of so many bytes, and gives for how long the next thing is to wait.
    #[must_use]
    pub fn take(&self, requests: usize, bytes: usize) -> Duration {
        self.taken(requests, bytes, Instant::now(), true)
            .unwrap_or_default()
    }

    /// Takes a request of so many bytes, unless it would have to wait: then nothing is taken, and false is given.
    #[must_use]
    pub fn take_at_once(&self, bytes: usize) -> bool {
        self.taken(1, bytes, Instant::now(), false).is_some()
    }

    fn taken(
        &self,
        requests: usize,
        bytes: usize,
        now: Instant,
        may_owe: bool,
    ) -> Option<Duration> {
        let mut own = lock(&self.own);
        let mut addresses = lock(&self.shared.addresses);
        let all = addresses.entry(self.source);
        let all = all.or_insert_with(|| Flow::new(now));
        let (own_after, all_after) = (
            own.after(self.shared.per_connection, requests, bytes, now),
            all.after(self.shared.per_address, requests, bytes, now),
        );
        let wait = own_after.wait(now).max(all_after.wait(now));
        if !may_owe && !wait.is_zero() {
            return None;
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
        }
    }

    /// The same once this is taken too.
    fn after(self, rate: PerSecond, requests: usize, bytes: usize, now: Instant) -> Self {
        Self {
            requests: self.requests.after(rate.requests, requests, now),
            bytes: self.bytes.after(rate.bytes, bytes, now),
        }
    }

    fn wait(&self, now: Instant) -> Duration {
        self.requests.wait(now).max(self.bytes.wait(now))
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
    use crate::registry::Remote;

    fn source(address: &str) -> Source {
        Remote::Tcp(address.parse().unwrap()).source()
    }

    fn rates() -> Arc<Rates> {
        Arc::new(Rates::new(&Limits {
            requests_per_second: 10,
            requests_per_second_per_address: 20,
            bytes_per_second: 1000,
            bytes_per_second_per_address: 100_000,
            ..Limits::default()
        }))
    }

    fn waits(rate: &ConnectionRate, requests: usize, bytes: usize, now: Instant) -> u128 {
        let wait = rate.taken(requests, bytes, now, true);
        wait.unwrap().as_millis()
    }

    #[test]
    fn each_request_of_a_flood_waits_its_time() {
        let flood = rates().connection(source("10.0.0.1:1"));
        let now = Instant::now();
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
        let now = Instant::now();
        assert_eq!(waits(&large, 1, 5000, now), 0);
        assert_eq!(waits(&large, 1, 20_000, now), 20_000);
        assert_eq!(waits(&large, 1, 0, now + Duration::from_secs(20)), 0);
        assert_eq!(waits(&large, 1, 1000, now + Duration::from_secs(20)), 1000);
        // What can never be paid for does not stop the clock.
        let wait = large.taken(usize::MAX, usize::MAX, now, true);
        assert!(wait > Some(Duration::from_secs(1000)), "{wait:?}");
    }

    #[test]
    fn the_connections_of_an_address_share_its_rate_in_the_order_in_which_they_came() {
        let rates = rates();
        let (one, two) = (source("10.0.0.1:1"), source("10.0.0.1:2"));
        let [one, two] = [one, two].map(|source| rates.connection(source));
        let other = rates.connection(source("10.0.0.2:1"));
        let now = Instant::now();
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
        let now = Instant::now();
        let taken = (0..100).take_while(|_| stranger.taken(1, 1, now, false).is_some());
        assert_eq!(taken.count(), 50);
        assert_eq!(waits(&stranger, 1, 1, now), 100);
    }

    #[test]
    fn quiet_addresses_are_forgotten() {
        let rates = rates();
        let rate = rates.connection(source("10.0.0.1:1"));
        let long_ago = Instant::now();
        rate.taken(1, 1, long_ago, true).unwrap();
        lock(&rates.addresses)
            .values_mut()
            .for_each(|flow| *flow = Flow::new(long_ago));
        rates.forget_quiet();
        assert!(lock(&rates.addresses).is_empty());
    }
}
