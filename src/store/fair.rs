//! Who reads next: whoever has read least lately.
//!
//! Reads run in few places at a time. Each asker has a lane of its own, in the order of arrival, and the lanes take
//! turns by the time that their reads have taken. So long reads hold up those of the same asker, and nobody else's;
//! and no asker has all the places, however many connections it asks on (protocol.md, 5).

use crate::limits::ASKERS_REMEMBERED_MAX;
use crate::model::UserId;
use rustc_hash::FxHashMap;
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// For whom something is read, as far as taking turns goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asker {
    /// A user, on whatever connections.
    User(UserId),
    /// Whoever is not logged in at this address; none for Unix sockets.
    Address(Option<IpAddr>),
    /// A trusted connection.
    Connection(u64),
}

/// Places to read in.
#[derive(Debug)]
pub struct Places {
    /// The most that one asker has at a time.
    each: usize,
    lanes: Mutex<Lanes>,
    /// Wakes the one that waits for the last place to be given back.
    ended: Notify,
}

#[derive(Debug)]
struct Lanes {
    free: usize,
    running: usize,
    /// What those who have read least had used when they were given their place.
    least_used: Duration,
    by_asker: FxHashMap<Asker, Lane>,
    /// The lanes that wait and may be given a place, those that have used least first.
    ready: BTreeSet<(Duration, Asker)>,
}

/// The reads of one asker.
#[derive(Debug, Default)]
struct Lane {
    /// The time that they took, or as much as those had used who read when it came.
    used: Duration,
    running: usize,
    waiting: VecDeque<oneshot::Sender<Place>>,
}

/// A place to read in, free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    /// None once it is given back.
    places: Option<Arc<Places>>,
    asker: Asker,
    began: Instant,
}

impl Places {
    /// So many places, of which each asker may have some at a time.
    pub fn new(count: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            each,
            lanes: Mutex::new(Lanes {
                free: count,
                running: 0,
                least_used: Duration::ZERO,
                by_asker: FxHashMap::default(),
                ready: BTreeSet::new(),
            }),
            ended: Notify::new(),
        })
    }

    /// Waits for a place. Whoever waits no more gives its turn to the next.
    pub async fn take(self: &Arc<Self>, asker: Asker) -> Option<Place> {
        let (sender, receiver) = oneshot::channel();
        self.lock().join(asker, sender, self.each);
        self.give_out();
        receiver.await.ok()
    }

    /// Waits until nobody has a place.
    pub async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            if self.lock().running == 0 {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives out the places that are free.
    fn give_out(self: &Arc<Self>) {
        loop {
            // In a statement of its own, so that the lock is free when a place goes out.
            let next = self.lock().next(self.each);
            let Some((asker, sender)) = next else {
                return;
            };
            let place = Place {
                places: Some(Arc::clone(self)),
                asker,
                began: Instant::now(),
            };
            if let Err(mut unwanted) = sender.send(place) {
                unwanted.places = None;
                self.lock().give_back(asker, Duration::ZERO, self.each);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.places.take() {
            let used = self.began.elapsed();
            places.lock().give_back(self.asker, used, places.each);
            places.give_out();
            places.ended.notify_one();
        }
    }
}

impl Lanes {
    fn join(&mut self, asker: Asker, sender: oneshot::Sender<Place>, each: usize) {
        if self.by_asker.len() >= ASKERS_REMEMBERED_MAX {
            self.by_asker.retain(|_, lane| !lane.is_idle());
        }
        let least_used = self.least_used;
        let lane = self.by_asker.entry(asker).or_default();
        if lane.is_idle() {
            // What it did not use while it was away is not saved up.
            lane.used = lane.used.max(least_used);
        }
        if lane.waiting.len() >= 64 && lane.waiting.len().is_power_of_two() {
            lane.waiting.retain(|waiting| !waiting.is_closed());
        }
        lane.waiting.push_back(sender);
        self.set_ready(asker, each);
    }

    /// Whose turn it is, if there is a place.
    fn next(&mut self, each: usize) -> Option<(Asker, oneshot::Sender<Place>)> {
        if self.free == 0 {
            return None;
        }
        let &(used, asker) = self.ready.first()?;
        self.ready.remove(&(used, asker));
        let lane = self.by_asker.get_mut(&asker)?;
        let sender = lane.waiting.pop_front()?;
        lane.running += 1;
        self.free -= 1;
        self.running += 1;
        self.least_used = self.least_used.max(used);
        self.set_ready(asker, each);
        Some((asker, sender))
    }

    fn give_back(&mut self, asker: Asker, used: Duration, each: usize) {
        self.free += 1;
        self.running -= 1;
        if let Some(lane) = self.by_asker.get_mut(&asker) {
            self.ready.remove(&(lane.used, asker));
            lane.used += used;
            lane.running -= 1;
            self.set_ready(asker, each);
        }
        if self.running == 0 && self.ready.is_empty() {
            // Nobody waits for anybody: nothing is held against those who come next.
            self.by_asker = FxHashMap::default();
            self.least_used = Duration::ZERO;
        }
    }

    fn set_ready(&mut self, asker: Asker, each: usize) {
        if let Some(lane) = self.by_asker.get(&asker)
            && !lane.waiting.is_empty()
            && lane.running < each
        {
            self.ready.insert((lane.used, asker));
        }
    }
}

impl Lane {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Id;
    use std::task::{Context, Poll, Waker};

    type Waiting = std::pin::Pin<Box<dyn Future<Output = Option<Place>>>>;

    fn user(number: u64) -> Asker {
        Asker::User(UserId(Id(number)))
    }

    fn ask(places: &Arc<Places>, asker: Asker) -> Waiting {
        let places = Arc::clone(places);
        let mut waiting: Waiting = Box::pin(async move { places.take(asker).await });
        // Its place in the lane is taken when it is first looked at; what it gets then is kept for the next look.
        let mut context = Context::from_waker(Waker::noop());
        match waiting.as_mut().poll(&mut context) {
            Poll::Ready(place) => Box::pin(std::future::ready(place)),
            Poll::Pending => waiting,
        }
    }

    fn given(waiting: &mut Waiting) -> Option<Place> {
        match waiting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(place) => place,
            Poll::Pending => None,
        }
    }

    /// Gives a place back as if it had been used for so long.
    fn end(mut place: Place, used_ms: u64) {
        place.began = Instant::now()
            .checked_sub(Duration::from_millis(used_ms))
            .unwrap();
    }

    #[test]
    fn one_asker_never_has_all_the_places_however_much_it_asks() {
        let places = Places::new(4, 2);
        let mut greedy: Vec<Waiting> = (0..40).map(|_| ask(&places, user(1))).collect();
        let held: Vec<Place> = greedy.iter_mut().filter_map(given).collect();
        assert_eq!(held.len(), 2);
        let other = given(&mut ask(&places, user(2)));
        assert!(other.is_some(), "another has to wait for the first");
    }

    #[test]
    fn whoever_has_read_least_is_next_and_each_waits_for_its_own_long_reads() {
        let places = Places::new(1, 1);
        let first = given(&mut ask(&places, user(1))).unwrap();
        let mut behind = ask(&places, user(1));
        let mut other = ask(&places, user(2));
        end(first, 1000);
        assert!(given(&mut behind).is_none());
        let others = given(&mut other).unwrap();
        let mut again = ask(&places, user(2));
        // A stranger that comes last has used nothing.
        let mut stranger = ask(&places, Asker::Address(None));
        end(others, 10);
        end(given(&mut stranger).unwrap(), 1);
        assert!(given(&mut behind).is_none());
        end(given(&mut again).unwrap(), 1);
        assert!(given(&mut behind).is_some());
    }

    #[test]
    fn whoever_waits_no_more_gives_its_turn_to_the_next_and_all_is_forgotten_in_the_end() {
        let places = Places::new(1, 1);
        let held = given(&mut ask(&places, user(1))).unwrap();
        let gone: Vec<Waiting> = (0..1000).map(|_| ask(&places, user(2))).collect();
        let mut last = ask(&places, user(3));
        drop(gone);
        drop(held);
        let held = given(&mut last).unwrap();
        assert_eq!(places.lock().running, 1);
        // One that was given a place and never took it gives it back too.
        let given_to = ask(&places, user(4));
        drop(held);
        drop(given_to);
        let lanes = places.lock();
        assert_eq!((lanes.running, lanes.free), (0, 1));
        assert!(lanes.by_asker.is_empty() && lanes.ready.is_empty());
    }

    #[test]
    fn askers_who_are_idle_are_forgotten_before_they_are_many() {
        let places = Places::new(2, 1);
        let busy = given(&mut ask(&places, user(0))).unwrap();
        for number in 1..=2 * ASKERS_REMEMBERED_MAX as u64 {
            end(given(&mut ask(&places, user(number))).unwrap(), 5);
        }
        assert!(places.lock().by_asker.len() <= ASKERS_REMEMBERED_MAX);
        drop(busy);
    }
}
