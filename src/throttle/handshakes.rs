//! TLS handshakes of login listeners: how fast they may come, and how many are under way.
//!
//! A handshake costs the server far more than the client, who need not even finish it. So each address has a rate, and
//! its network a few times as much; whoever comes faster waits for its turn, in order. Few are under way at once for an
//! address, and a bounded number for all of them: where there are too many, the oldest one of the busiest network goes.

use crate::limits::{
    BURST_SECONDS, HANDSHAKES_MAX, HANDSHAKES_MAX_PER_ADDRESS, HANDSHAKES_PER_NETWORK,
};
use crate::registry::{Network, Source};
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex as Gate, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How many seconds' worth may come at once.
const BURST: Duration = Duration::from_secs(BURST_SECONDS as u64);

/// The handshakes of all addresses.
#[derive(Debug)]
pub struct Handshakes {
    /// Between two of one address.
    each: Duration,
    addresses: Mutex<HashMap<Source, Arc<OfAddress>>>,
    networks: Mutex<HashMap<Network, Flow>>,
    under_way: Mutex<UnderWay>,
}

/// Those of one address.
#[derive(Debug)]
struct OfAddress {
    /// Whoever waits for its turn, in order; the first one holds it.
    flow: Gate<Flow>,
    places: Arc<Semaphore>,
}

/// When all that was taken has flowed back.
#[derive(Clone, Copy, Debug)]
struct Flow {
    full_at: Instant,
}

#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    handshakes: HashMap<u64, (Network, CancellationToken)>,
    by_network: HashMap<Network, BTreeSet<u64>>,
}

/// A handshake under way, until it is dropped.
#[derive(Debug)]
pub struct Handshake {
    handshakes: Arc<Handshakes>,
    number: u64,
    has_waited: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Flow {
    /// How long until one more may be taken.
    fn wait(&self, each: Duration, now: Instant) -> Duration {
        let full_at = self.full_at.max(now) + each;
        full_at.saturating_duration_since(now + BURST)
    }

    fn take(&mut self, each: Duration, now: Instant) {
        self.full_at = self.full_at.max(now) + each;
    }
}

impl Handshakes {
    /// Allows so many a second for one address; five seconds' worth may come at once.
    #[must_use]
    pub fn new(per_second: u32) -> Arc<Self> {
        Arc::new(Self {
            each: Duration::from_secs(1) / per_second.max(1),
            addresses: Mutex::default(),
            networks: Mutex::default(),
            under_way: Mutex::default(),
        })
    }

    /// Waits for the turn of a handshake from this source. It is to end when `leave` is cancelled.
    pub async fn turn(self: &Arc<Self>, source: Source, leave: CancellationToken) -> Handshake {
        let of_address = self.of_address(source);
        let places = Arc::clone(&of_address.places);
        let free = Arc::clone(&places).try_acquire_owned();
        let mut has_waited = free.is_err();
        let place = match free {
            Ok(place) => Some(place),
            Err(_) => places.acquire_owned().await.ok(),
        };
        let network = source.network();
        // Whoever goes away while it waits has taken nothing.
        let mut flow = of_address.flow.lock().await;
        loop {
            let wait = self.take(&mut flow, network, Instant::now());
            if wait.is_zero() {
                break;
            }
            has_waited = true;
            tokio::time::sleep(wait).await;
        }
        drop(flow);
        let mut under_way = lock(&self.under_way);
        Handshake {
            number: under_way.begin(network, leave),
            handshakes: Arc::clone(self),
            has_waited,
            _place: place,
        }
    }

    fn of_address(&self, source: Source) -> Arc<OfAddress> {
        let mut addresses = lock(&self.addresses);
        let of_address = addresses.entry(source).or_insert_with(|| {
            let flow = Flow {
                full_at: Instant::now(),
            };
            Arc::new(OfAddress {
                flow: Gate::new(flow),
                places: Arc::new(Semaphore::new(HANDSHAKES_MAX_PER_ADDRESS)),
            })
        });
        Arc::clone(of_address)
    }

    /// Takes one of the address and one of its network, or says how long to wait for them.
    fn take(&self, flow: &mut Flow, network: Network, now: Instant) -> Duration {
        let each_of_network = self.each / HANDSHAKES_PER_NETWORK;
        let mut networks = lock(&self.networks);
        let of_network = networks.entry(network).or_insert(Flow { full_at: now });
        let wait = flow
            .wait(self.each, now)
            .max(of_network.wait(each_of_network, now));
        if wait.is_zero() {
            flow.take(self.each, now);
            of_network.take(each_of_network, now);
        }
        wait
    }

    /// Forgets the addresses that have been quiet; to be called now and then.
    pub fn forget_quiet(&self) {
        let now = Instant::now();
        retain(&self.addresses, |of_address| {
            // Whoever waits or is under way has a handle on it.
            Arc::strong_count(of_address) > 1
                || of_address.places.available_permits() < HANDSHAKES_MAX_PER_ADDRESS
                || of_address
                    .flow
                    .try_lock()
                    .map_or(true, |flow| flow.full_at > now)
        });
        retain(&self.networks, |flow| flow.full_at > now);
    }
}

fn retain<K: Eq + Hash, V>(map: &Mutex<HashMap<K, V>>, keep: impl Fn(&V) -> bool) {
    let mut map = lock(map);
    map.retain(|_, value| keep(value));
    if map.capacity() > 4 * map.len().max(1024) {
        map.shrink_to_fit();
    }
}

impl Handshake {
    /// Whether its turn did not come at once.
    #[must_use]
    pub const fn has_waited(&self) -> bool {
        self.has_waited
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        lock(&self.handshakes.under_way).end(self.number);
    }
}

impl UnderWay {
    fn begin(&mut self, network: Network, leave: CancellationToken) -> u64 {
        if self.handshakes.len() >= HANDSHAKES_MAX {
            let busiest = self.by_network.values().max_by_key(|numbers| numbers.len());
            if let Some(&oldest) = busiest.and_then(BTreeSet::first) {
                if let Some((_, leave)) = self.handshakes.get(&oldest) {
                    leave.cancel();
                }
                self.end(oldest);
            }
        }
        self.next += 1;
        self.handshakes.insert(self.next, (network, leave));
        self.by_network
            .entry(network)
            .or_default()
            .insert(self.next);
        self.next
    }

    fn end(&mut self, number: u64) {
        let Some((network, _)) = self.handshakes.remove(&number) else {
            return;
        };
        if let Some(numbers) = self.by_network.get_mut(&network) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_network.remove(&network);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Remote;

    fn source(text: &str) -> Source {
        Remote::parse(text).unwrap().source()
    }

    #[test]
    fn an_address_has_a_rate_and_its_network_a_few_times_as_much() {
        let handshakes = Handshakes::new(10);
        let now = Instant::now();
        let waits = |flow: &mut Flow, address: &str, after| {
            let network = source(address).network();
            handshakes.take(flow, network, now + Duration::from_millis(after))
        };
        let mut flow = Flow { full_at: now };
        for _ in 0..50 {
            assert_eq!(waits(&mut flow, "2001:db8::1", 0), Duration::ZERO);
        }
        assert_eq!(waits(&mut flow, "2001:db8::1", 0).as_millis(), 100);
        // Whoever waits has taken nothing.
        assert_eq!(waits(&mut flow, "2001:db8::1", 0).as_millis(), 100);
        assert_eq!(waits(&mut flow, "2001:db8::1", 100), Duration::ZERO);
        // Other addresses of the network have what is left of it.
        let mut left = 0;
        for address in 1..100 {
            let mut flow = Flow { full_at: now };
            let address = format!("2001:db8:0:{address:x}::1");
            while waits(&mut flow, &address, 100).is_zero() {
                left += 1;
            }
        }
        assert!((148..=154).contains(&left), "{left}");
        let mut other = Flow { full_at: now };
        assert_eq!(waits(&mut other, "2001:db8:1::1", 100), Duration::ZERO);
    }

    #[tokio::test]
    async fn few_handshakes_are_under_way_for_an_address_and_the_others_wait() {
        let handshakes = Handshakes::new(1000);
        let turn = |address| handshakes.turn(source(address), CancellationToken::new());
        let mut held = Vec::new();
        for _ in 0..HANDSHAKES_MAX_PER_ADDRESS {
            held.push(turn("10.0.0.1").await);
        }
        let mut waiting = std::pin::pin!(turn("10.0.0.1"));
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there is no place"),
            _ = turn("10.0.0.2") => {}
        }
        held.pop();
        waiting.await;
    }

    #[tokio::test]
    async fn where_too_many_handshakes_are_under_way_the_oldest_of_the_busiest_network_goes() {
        let handshakes = Handshakes::new(1000);
        let mut held = Vec::new();
        let mut begin = async |address: String| {
            let leave = CancellationToken::new();
            let handshake = handshakes.turn(source(&address), leave.clone()).await;
            held.push((handshake, leave));
        };
        begin("10.0.1.1".to_owned()).await;
        for number in 1..HANDSHAKES_MAX {
            begin(format!("10.0.0.{}", number % 250)).await;
        }
        begin("10.0.2.1".to_owned()).await;
        let left: Vec<usize> = (0..held.len())
            .filter(|&number| held[number].1.is_cancelled())
            .collect();
        assert_eq!(left, [1]);
        drop(held);
        let under_way = lock(&handshakes.under_way);
        assert!(under_way.handshakes.is_empty() && under_way.by_network.is_empty());
    }

    #[tokio::test]
    async fn quiet_addresses_are_forgotten() {
        let handshakes = Handshakes::new(1_000_000_000);
        let held = handshakes.turn(source("10.0.0.1"), CancellationToken::new());
        let held = held.await;
        drop(
            handshakes
                .turn(source("10.0.0.2"), CancellationToken::new())
                .await,
        );
        handshakes.forget_quiet();
        assert_eq!(lock(&handshakes.addresses).len(), 1);
        drop(held);
        handshakes.forget_quiet();
        assert!(lock(&handshakes.addresses).is_empty() && lock(&handshakes.networks).is_empty());
    }
}
