//! Who is next to have a password hashed: strangers wait here for a thread, in the order in which they first asked.
//!
//! Few wait here. The others are told when to come back, and keep their place meanwhile: whoever comes back as it was told
//! stands where it stood. Those whose addresses are suspicious have a lane of their own, which is served when the other
//! one is empty, and now and then when it is not. It knows callers and times, no passwords.

use crate::limits::{
    LOGIN_PLACES_MAX, LOGIN_PLACES_MAX_PER_ADDRESS, LOGIN_RETRY_MAX_MS, LOGIN_RETRY_MIN_MS,
    LOGINS_MAX_WAITING, LOGINS_MIN_WAITING_PER_THREAD, LOGINS_WAIT_MS,
    SUSPICIOUS_LOGINS_MAX_WAITING,
};
use crate::registry::Source;
use crate::throttle::Caller;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Turns that others have before one of the suspicious has its own.
const TURNS_OF_OTHERS: usize = 3;

/// The queue.
#[derive(Debug)]
pub struct Queue {
    threads: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Those of good repute, and the suspicious.
    lanes: [Lane; 2],
    /// The number of the last one who asked for the first time.
    asked: u64,
    /// Turns of others since one of the suspicious had its own.
    in_a_row: usize,
    /// How long one turn takes, lately.
    each: Duration,
    purged: Instant,
}

/// One of the two lanes; the numbers are the order of first asking.
#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeMap<u64, Waiting>,
    /// Those told to come back.
    away: BTreeMap<u64, Away>,
    by_caller: HashMap<Caller, u64>,
    by_source: HashMap<Source, usize>,
}

#[derive(Debug)]
struct Waiting {
    caller: Caller,
    granted: oneshot::Sender<Result<(), Busy>>,
}

#[derive(Debug)]
struct Away {
    caller: Caller,
    /// From when on it may be here again, and until when it must be.
    due: Instant,
    lost: Instant,
}

/// There is no room in the queue; to be asked again after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy(pub Duration);

/// A thread to hash on, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    queue: Arc<Queue>,
    /// Since when it is at work.
    began: Option<Instant>,
}

/// What asking for a turn comes to.
enum Asked {
    Now(Turn),
    Wait(Place),
    Busy(Busy),
}

/// A place among those who wait.
struct Place {
    queue: Arc<Queue>,
    lane: usize,
    number: u64,
    granted: oneshot::Receiver<Result<(), Busy>>,
}

impl Queue {
    /// A queue for so many threads, where a turn takes about `each`.
    #[must_use]
    pub fn new(threads: usize, each: Duration) -> Arc<Self> {
        Arc::new(Self {
            threads,
            state: Mutex::new(State {
                free: threads,
                lanes: Default::default(),
                asked: 0,
                in_a_row: 0,
                each,
                purged: Instant::now(),
            }),
        })
    }

    /// Waits for a turn; an error says when to come back.
    pub async fn turn(self: &Arc<Self>, caller: Caller, suspicious: bool) -> Result<Turn, Busy> {
        match self.ask(caller, suspicious, Instant::now()) {
            Asked::Now(turn) => Ok(turn),
            Asked::Busy(busy) => Err(busy),
            Asked::Wait(mut place) => match (&mut place.granted).await {
                Ok(Ok(())) => Ok(self.granted()),
                Ok(Err(busy)) => Err(busy),
                // The queue drops nobody.
                Err(_) => Err(Busy(Duration::from_millis(LOGIN_RETRY_MIN_MS))),
            },
        }
    }

    /// Forgets the place of one that did not wait as it was told.
    pub fn forget(&self, caller: Caller) {
        for lane in &mut self.lock().lanes {
            if let Some(&number) = lane.by_caller.get(&caller) {
                lane.come_back(number);
            }
        }
    }

    fn ask(self: &Arc<Self>, caller: Caller, suspicious: bool, now: Instant) -> Asked {
        let which = usize::from(suspicious);
        let mut state = self.lock();
        state.purge(now);
        let lane = &mut state.lanes[which];
        let kept = lane.by_caller.get(&caller).copied();
        if let Some(number) = kept {
            // Another connection for the same one, or the same one anew: it waits with the first.
            let due = lane.away.get(&number).map_or(now, |away| away.due);
            if now < due {
                return Asked::Busy(Busy(due - now));
            }
            lane.come_back(number);
        }
        let number = kept.unwrap_or_else(|| {
            state.asked += 1;
            state.asked
        });
        if state.free > 0 {
            state.free -= 1;
            drop(state);
            return Asked::Now(self.granted());
        }
        let most = state.most(which, self.threads);
        let lane = &mut state.lanes[which];
        let here = lane.waiting.len();
        let room = if kept.is_some() {
            here < 2 * most
        } else {
            // Whoever is away comes first, as long as the threads have enough to do until then.
            here < self.threads.min(most) || here + lane.away.len() < most
        };
        let mut displaced = None;
        if !room {
            let later = kept.and_then(|_| lane.waiting.last_entry());
            match later.filter(|last| *last.key() > number) {
                Some(last) => displaced = Some(last.remove_entry()),
                None => return Asked::Busy(state.send_away(which, number, caller, now, self)),
            }
        }
        let (granted, receiver) = oneshot::channel();
        lane.waiting.insert(number, Waiting { caller, granted });
        if let Some((number, last)) = displaced {
            let busy = state.send_away(which, number, last.caller, now, self);
            let _ = last.granted.send(Err(busy));
        }
        drop(state);
        Asked::Wait(Place {
            queue: Arc::clone(self),
            lane: which,
            number,
            granted: receiver,
        })
    }

    fn granted(self: &Arc<Self>) -> Turn {
        Turn {
            queue: Arc::clone(self),
            began: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Says that the work begins: how long it takes tells the others how long to wait.
    pub fn begin(&mut self) {
        self.began = Some(Instant::now());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        if let Some(began) = self.began {
            state.each = (state.each * 7 + began.elapsed()) / 8;
        }
        state.hand_on();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        let waited = state.lanes[self.lane].waiting.remove(&self.number);
        if waited.is_none() && self.granted.try_recv() == Ok(Ok(())) {
            // It was its turn, but it had gone.
            state.hand_on();
        }
    }
}

impl State {
    /// Gives the thread that is free now to the next one.
    fn hand_on(&mut self) {
        loop {
            let [good, suspicious] = &mut self.lanes;
            let other = !suspicious.waiting.is_empty()
                && (good.waiting.is_empty() || self.in_a_row >= TURNS_OF_OTHERS);
            let lane = if other { suspicious } else { good };
            self.in_a_row = if other { 0 } else { self.in_a_row + 1 };
            let Some((_, next)) = lane.waiting.pop_first() else {
                self.free += 1;
                return;
            };
            if next.granted.send(Ok(())).is_ok() {
                return;
            }
        }
    }

    /// How many may wait here who ask for the first time.
    fn most(&self, lane: usize, threads: usize) -> usize {
        if lane == 1 {
            return SUSPICIOUS_LOGINS_MAX_WAITING;
        }
        let each_ms = self.each.as_millis().max(1);
        let fit = usize::try_from(u128::from(LOGINS_WAIT_MS) / each_ms).unwrap_or(usize::MAX);
        (fit.max(LOGINS_MIN_WAITING_PER_THREAD)).min(LOGINS_MAX_WAITING / threads.max(1)) * threads
    }

    /// Keeps the place of one that is told to come back, and says when.
    fn send_away(
        &mut self,
        which: usize,
        number: u64,
        caller: Caller,
        now: Instant,
        queue: &Queue,
    ) -> Busy {
        let each = self.each;
        let of_others: usize = self.lanes[..which]
            .iter()
            .map(|lane| lane.waiting.len() + lane.away.len())
            .sum();
        let lane = &mut self.lanes[which];
        let ahead = of_others
            + lane.waiting.range(..number).count()
            + lane.away.range(..number).count()
            + queue.threads;
        let turns = u32::try_from(ahead / queue.threads.max(1)).unwrap_or(u32::MAX);
        // A little too early, so that it waits here for the rest and no thread waits for it.
        let wait = each.saturating_mul(turns) * 2 / 3;
        let wait = wait.clamp(
            Duration::from_millis(LOGIN_RETRY_MIN_MS),
            Duration::from_millis(LOGIN_RETRY_MAX_MS),
        );
        let of_source = lane.by_source.get(&caller.source()).copied().unwrap_or(0);
        let is_full =
            lane.away.len() >= LOGIN_PLACES_MAX || of_source >= LOGIN_PLACES_MAX_PER_ADDRESS;
        if !is_full && !lane.by_caller.contains_key(&caller) {
            *lane.by_source.entry(caller.source()).or_default() += 1;
            lane.by_caller.insert(caller, number);
            let away = Away {
                caller,
                // Clocks and timers are not that exact.
                due: now + wait * 9 / 10,
                lost: now + wait * 2 + Duration::from_millis(LOGINS_WAIT_MS),
            };
            lane.away.insert(number, away);
        }
        Busy(wait)
    }

    /// Gives up the places of those who did not come back; once a second at most.
    fn purge(&mut self, now: Instant) {
        if now.saturating_duration_since(self.purged) < Duration::from_secs(1) {
            return;
        }
        self.purged = now;
        for lane in &mut self.lanes {
            let lost = lane.away.iter().filter(|(_, away)| away.lost < now);
            let lost: Vec<u64> = lost.map(|(&number, _)| number).collect();
            for number in lost {
                lane.come_back(number);
            }
        }
    }
}

impl Lane {
    /// Takes one off those who are away.
    fn come_back(&mut self, number: u64) {
        let Some(away) = self.away.remove(&number) else {
            return;
        };
        if self.by_caller.get(&away.caller) == Some(&number) {
            self.by_caller.remove(&away.caller);
        }
        let source = away.caller.source();
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests;
