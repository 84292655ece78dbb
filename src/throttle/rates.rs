//! How fast requests may come on a login listener, of one connection and of one address.

use crate::limits::{BURST_SECONDS, Limits};
use crate::registry::Source;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Middleware = NoOpMiddleware<Instant>;
type Direct = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, Middleware>;
type Keyed = RateLimiter<Source, HashMapStateStore<Source>, MonotonicClock, Middleware>;

/// The rates of all addresses.
#[derive(Debug)]
pub struct Rates {
    requests: Keyed,
    bytes: Keyed,
    per_connection: (Quota, Quota),
}

impl Rates {
    /// The rates that these limits allow.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let keyed = |per_second| {
            Keyed::new(
                quota(per_second),
                HashMapStateStore::default(),
                MonotonicClock,
            )
        };
        Self {
            requests: keyed(limits.requests_per_second_per_address),
            bytes: keyed(limits.bytes_per_second_per_address),
            per_connection: (
                quota(limits.requests_per_second),
                quota(limits.bytes_per_second),
            ),
        }
    }

    /// The rates of a connection from this source.
    #[must_use]
    pub fn connection(self: &Arc<Self>, source: Source) -> ConnectionRate {
        let (requests, bytes) = self.per_connection;
        ConnectionRate {
            requests: Direct::new(requests, InMemoryState::default(), MonotonicClock),
            bytes: Direct::new(bytes, InMemoryState::default(), MonotonicClock),
            shared: Arc::clone(self),
            source,
        }
    }

    /// Forgets the addresses that have been quiet; to be called now and then.
    pub fn forget_quiet(&self) {
        self.requests.retain_recent();
        self.bytes.retain_recent();
    }
}

/// The rates of one connection, and of its address.
#[derive(Debug)]
pub struct ConnectionRate {
    requests: Direct,
    bytes: Direct,
    shared: Arc<Rates>,
    source: Source,
}

impl ConnectionRate {
    /// Takes a request of so many bytes; an error says how long to wait before the next.
    pub fn take(&self, request_bytes: usize) -> Result<(), Duration> {
        let bytes = u32::try_from(request_bytes).unwrap_or(u32::MAX);
        let bytes = NonZeroU32::new(bytes).unwrap_or(NonZeroU32::MIN);
        let now = MonotonicClock.now();
        // One that asks for more than a whole burst could never be taken, and so waits for a whole burst.
        let until = |wait: Duration| Err(wait.max(Duration::from_millis(1)));
        let whole = Duration::from_secs(BURST_SECONDS.into());
        if let Err(not_until) = self.requests.check() {
            return until(not_until.wait_time_from(now));
        }
        if let Err(not_until) = self.shared.requests.check_key(&self.source) {
            return until(not_until.wait_time_from(now));
        }
        match self.bytes.check_n(bytes) {
            Ok(Ok(())) => {}
            Ok(Err(not_until)) => return until(not_until.wait_time_from(now)),
            Err(_) => return until(whole),
        }
        match self.shared.bytes.check_key_n(&self.source, bytes) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => until(not_until.wait_time_from(now)),
            Err(_) => until(whole),
        }
    }
}

fn quota(per_second: u32) -> Quota {
    let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
    let seconds = NonZeroU32::new(BURST_SECONDS).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(rate).allow_burst(rate.saturating_mul(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Remote;

    fn source(address: &str) -> Source {
        Remote::Tcp(address.parse().unwrap()).source()
    }

    #[test]
    fn a_flood_of_requests_is_told_to_wait() {
        let limits = Limits {
            requests_per_second: 10,
            bytes_per_second: 1000,
            ..Limits::default()
        };
        let rates = Arc::new(Rates::new(&limits));
        let flood = rates.connection(source("10.0.0.1:1"));
        let taken = (0..1000).take_while(|_| flood.take(1).is_ok()).count();
        assert!((50..=60).contains(&taken), "{taken}");
        assert!(flood.take(1).unwrap_err() <= Duration::from_millis(100));
        let large = rates.connection(source("10.0.0.1:2"));
        assert!(large.take(4000).is_ok());
        assert!(large.take(4000).unwrap_err() > Duration::from_secs(1));
        assert!(large.take(1 << 30).is_err());
    }
}
