//! Who is next to have a password hashed: strangers wait here for a thread. Those who have had least of the threads lately
//! come first (`shares.rs`), and among them whoever first asked.
//!
//! Few wait here. The others are told when to come back, and keep their place meanwhile: whoever comes back as it was told
//! stands where it stood. Where there is no room, whoever asks for most goes: the last one of the greediest network,
//! address or account. Those whose addresses are suspicious have a lane of their own, which is served when the other
//! one is empty, and now and then when it is not. It knows callers and times, no passwords.

mod rank;
mod shares;

use crate::limits::{
    LOGIN_PLACES_MAX, LOGIN_PLACES_MAX_PER_ADDRESS, LOGIN_RETRY_MAX_MS, LOGIN_RETRY_MIN_MS,
    LOGIN_WAIT_MAX_MS, LOGINS_MAX_WAITING, LOGINS_MIN_WAITING_PER_THREAD, LOGINS_WAIT_MS,
    SUSPICIOUS_LOGINS_MAX_WAITING,
};
use crate::registry::Source;
use crate::throttle::Caller;
use rank::Rank;
use shares::{Asker, Shares};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Turns that others have before one of the suspicious has its own.
const TURNS_OF_OTHERS: usize = 3;
/// Classes of those who were told to come back, by what they ask for: each class for twice as much as the one before.
const CLASSES: usize = 16;

/// What is known of one who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repute {
    /// This account logged in well from there before, or is logged in.
    Known,
    /// Nothing.
    Unknown,
    /// It failed lately, or asked before its time.
    Suspicious,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    threads: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// All others, and the suspicious.
    lanes: [Lane; 2],
    shares: Shares,
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
    /// The same by what they ask for.
    by_class: [BTreeSet<u64>; CLASSES],
    by_caller: HashMap<Caller, u64>,
    by_source: HashMap<Source, usize>,
}

#[derive(Debug)]
struct Waiting {
    asker: Asker,
    granted: oneshot::Sender<Result<(), Busy>>,
}

#[derive(Debug)]
struct Away {
    asker: Asker,
    class: usize,
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
    asker: Asker,
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
    asker: Asker,
    lane: usize,
    number: u64,
    granted: oneshot::Receiver<Result<(), Busy>>,
}

impl Queue {
    /// A queue for so many threads, where a turn takes about `each`.
    #[must_use]
    pub fn new(threads: usize, each: Duration) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            threads,
            state: Mutex::new(State {
                free: threads,
                lanes: Default::default(),
                shares: Shares::new(now),
                asked: 0,
                in_a_row: 0,
                each,
                purged: now,
            }),
        })
    }

    /// Waits for a turn; an error says when to come back.
    pub async fn turn(self: &Arc<Self>, caller: Caller, repute: Repute) -> Result<Turn, Busy> {
        match self.ask(caller, repute, Instant::now()) {
            Asked::Now(turn) => Ok(turn),
            Asked::Busy(busy) => Err(busy),
            Asked::Wait(mut place) => {
                let most = Duration::from_millis(LOGIN_WAIT_MAX_MS);
                match tokio::time::timeout(most, &mut place.granted).await {
                    Ok(Ok(told)) => told.map(|()| self.granted(place.asker)),
                    // The queue drops nobody.
                    Ok(Err(_)) => Err(Busy(Duration::from_millis(LOGIN_RETRY_MIN_MS))),
                    Err(_) => place.leave(Instant::now()),
                }
            }
        }
    }

    /// Forgets the place of one that did not wait as it was told.
    pub fn forget(&self, caller: Caller) {
        let mut state = self.lock();
        for which in 0..state.lanes.len() {
            if let Some(&number) = state.lanes[which].by_caller.get(&caller) {
                state.come_back(which, number);
            }
        }
    }

    fn ask(self: &Arc<Self>, caller: Caller, repute: Repute, now: Instant) -> Asked {
        let which = usize::from(repute == Repute::Suspicious);
        let asker = Asker {
            caller,
            known: repute == Repute::Known,
        };
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
            state.come_back(which, number);
        }
        let number = kept.unwrap_or_else(|| {
            state.asked += 1;
            state.asked
        });
        if state.free > 0 {
            state.free -= 1;
            state.shares.take(&asker, now);
            drop(state);
            return Asked::Now(self.granted(asker));
        }
        state.shares.hold(&asker);
        let mut displaced = None;
        if !state.has_room(which, &asker, kept.is_some(), self.threads, now) {
            let own = Rank::new(state.shares.wants(&asker, now), &asker, number);
            match state.greediest(which, now).filter(|most| *most > own) {
                Some(most) => displaced = state.lanes[which].waiting.remove_entry(&most.number),
                None => return Asked::Busy(state.send_away(which, number, asker, now, self)),
            }
        }
        let (granted, receiver) = oneshot::channel();
        state.lanes[which]
            .waiting
            .insert(number, Waiting { asker, granted });
        if let Some((number, most)) = displaced {
            let busy = state.send_away(which, number, most.asker, now, self);
            let _ = most.granted.send(Err(busy));
        }
        drop(state);
        Asked::Wait(Place {
            queue: Arc::clone(self),
            asker,
            lane: which,
            number,
            granted: receiver,
        })
    }

    fn granted(self: &Arc<Self>, asker: Asker) -> Turn {
        Turn {
            queue: Arc::clone(self),
            asker,
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

    /// Says that whoever has it owns the account: the turn is one of the account's.
    pub fn is_of_account(&self) {
        let mut state = self.queue.lock();
        state.shares.take_of_account(&self.asker, Instant::now());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.queue.lock();
        match self.began {
            Some(began) => state.each = (state.each * 7 + (now - began)) / 8,
            None => state.shares.take_back(&self.asker, now),
        }
        state.hand_on(now);
    }
}

impl Place {
    /// Waits no longer: it is told to come back, unless it was its turn just now. One that others come before again and again
    /// is not left without an answer.
    fn leave(mut self, now: Instant) -> Result<Turn, Busy> {
        let mut state = self.queue.lock();
        if let Some(waiting) = state.lanes[self.lane].waiting.remove(&self.number) {
            return Err(state.send_away(self.lane, self.number, waiting.asker, now, &self.queue));
        }
        drop(state);
        match self.granted.try_recv() {
            Ok(told) => told.map(|()| self.queue.granted(self.asker)),
            Err(_) => Err(Busy(Duration::from_millis(LOGIN_RETRY_MIN_MS))),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.queue.lock();
        if state.lanes[self.lane]
            .waiting
            .remove(&self.number)
            .is_some()
        {
            state.shares.release(&self.asker);
        } else if self.granted.try_recv() == Ok(Ok(())) {
            // It was its turn, but it had gone.
            state.shares.take_back(&self.asker, now);
            state.hand_on(now);
        }
    }
}

impl State {
    /// Gives the thread that is free now to the next one.
    fn hand_on(&mut self, now: Instant) {
        loop {
            let [good, suspicious] = &self.lanes;
            let other = !suspicious.waiting.is_empty()
                && (good.waiting.is_empty() || self.in_a_row >= TURNS_OF_OTHERS);
            self.in_a_row = if other { 0 } else { self.in_a_row + 1 };
            let lane = &mut self.lanes[usize::from(other)];
            let shares = &self.shares;
            let ranks = lane
                .waiting
                .iter()
                .map(|(&number, one)| Rank::new(shares.had(&one.asker, now), &one.asker, number));
            let first = ranks.min().map(|first| first.number);
            let Some(next) = first.and_then(|number| lane.waiting.remove(&number)) else {
                self.free += 1;
                return;
            };
            self.shares.release(&next.asker);
            if next.granted.send(Ok(())).is_ok() {
                self.shares.take(&next.asker, now);
                return;
            }
        }
    }

    /// Whether one more may wait without another giving way.
    fn has_room(
        &self,
        which: usize,
        asker: &Asker,
        is_kept: bool,
        threads: usize,
        now: Instant,
    ) -> bool {
        let most = self.most(which, threads);
        let lane = &self.lanes[which];
        let here = lane.waiting.len();
        if is_kept {
            return here < 2 * most;
        }
        // Whoever is away and asks for no more comes first, as long as the threads have enough to do until then.
        let class = class_of(self.shares.wants(asker, now));
        let first: usize = lane.by_class[..=class].iter().map(BTreeSet::len).sum();
        here < threads.min(most) || here + first < most
    }

    /// Whoever asks for most of those that wait here.
    fn greediest(&self, which: usize, now: Instant) -> Option<Rank> {
        let waiting = self.lanes[which].waiting.iter();
        let ranks = waiting.map(|(&number, one)| {
            Rank::new(self.shares.wants(&one.asker, now), &one.asker, number)
        });
        ranks.max()
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
        asker: Asker,
        now: Instant,
        queue: &Queue,
    ) -> Busy {
        let each = self.each;
        let of_others: usize = self.lanes[..which]
            .iter()
            .map(|lane| lane.waiting.len() + lane.away.len())
            .sum();
        let lane = &self.lanes[which];
        let away_before = if number == self.asked {
            lane.away.len()
        } else {
            lane.away.range(..number).count()
        };
        let ahead = of_others + lane.waiting.len() + away_before + queue.threads;
        let turns = u32::try_from(ahead / queue.threads.max(1)).unwrap_or(u32::MAX);
        // A little too early, so that it waits here for the rest and no thread waits for it.
        let wait = each.saturating_mul(turns) * 2 / 3;
        let wait = wait.clamp(
            Duration::from_millis(LOGIN_RETRY_MIN_MS),
            Duration::from_millis(LOGIN_RETRY_MAX_MS),
        );
        let class = class_of(self.shares.wants(&asker, now));
        let caller = asker.caller;
        let of_source = lane.by_source.get(&caller.source()).copied().unwrap_or(0);
        let may_stay =
            of_source < LOGIN_PLACES_MAX_PER_ADDRESS && !lane.by_caller.contains_key(&caller);
        if may_stay && self.make_place(which, class) {
            let lane = &mut self.lanes[which];
            *lane.by_source.entry(caller.source()).or_default() += 1;
            lane.by_caller.insert(caller, number);
            lane.by_class[class].insert(number);
            let away = Away {
                asker,
                class,
                // Clocks and timers are not that exact.
                due: now + wait * 9 / 10,
                lost: now + wait * 2 + Duration::from_millis(LOGINS_WAIT_MS),
            };
            lane.away.insert(number, away);
        } else {
            self.shares.release(&asker);
        }
        Busy(wait)
    }

    /// Sees that there is room for one more who is away: where there is none, the last of those who ask for most goes.
    fn make_place(&mut self, which: usize, class: usize) -> bool {
        let lane = &self.lanes[which];
        if lane.away.len() < LOGIN_PLACES_MAX {
            return true;
        }
        let mut greedier = lane.by_class[class + 1..].iter().rev();
        let last = greedier.find_map(BTreeSet::last).copied();
        last.is_some_and(|number| {
            self.come_back(which, number);
            true
        })
    }

    /// Takes one off those who are away.
    fn come_back(&mut self, which: usize, number: u64) {
        let lane = &mut self.lanes[which];
        let Some(away) = lane.away.remove(&number) else {
            return;
        };
        lane.by_class[away.class].remove(&number);
        let caller = away.asker.caller;
        if lane.by_caller.get(&caller) == Some(&number) {
            lane.by_caller.remove(&caller);
        }
        if let Some(count) = lane.by_source.get_mut(&caller.source()) {
            *count -= 1;
            if *count == 0 {
                lane.by_source.remove(&caller.source());
            }
        }
        self.shares.release(&away.asker);
    }

    /// Gives up the places of those who did not come back; once a second at most.
    fn purge(&mut self, now: Instant) {
        if now.saturating_duration_since(self.purged) < Duration::from_secs(1) {
            return;
        }
        self.purged = now;
        for which in 0..self.lanes.len() {
            let lost = self.lanes[which].away.iter();
            let lost = lost.filter(|(_, away)| away.lost < now);
            let lost: Vec<u64> = lost.map(|(&number, _)| number).collect();
            for number in lost {
                self.come_back(which, number);
            }
        }
    }
}

/// The class of one who asks for so many turns.
fn class_of(turns: f64) -> usize {
    let mut most = 2.0;
    for class in 0..CLASSES - 1 {
        if turns < most {
            return class;
        }
        most *= 2.0;
    }
    CLASSES - 1
}

#[cfg(test)]
mod tests;
