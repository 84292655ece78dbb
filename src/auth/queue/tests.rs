#![allow(
    clippy::needless_pass_by_value,
    reason = "what asking came to is dropped once it is looked at"
)]

use super::*;
use crate::registry::Remote;
use crate::throttle::FailedLogins;
use std::sync::LazyLock;

const EACH: Duration = Duration::from_millis(300);

/// Callers `number` from address 10.0.`network`.1.
fn caller(network: u8, number: u64) -> Caller {
    static CALLERS: LazyLock<Arc<FailedLogins>> = LazyLock::new(|| FailedLogins::new(1));
    let address = format!("10.0.{network}.1:1").parse().unwrap();
    CALLERS.caller(Remote::Tcp(address).source(), number)
}

/// A queue for one thread, which is taken.
fn busy_queue() -> (Arc<Queue>, Turn) {
    let queue = Queue::new(1, EACH);
    let Asked::Now(turn) = queue.ask(caller(0, u64::MAX), false, Instant::now()) else {
        panic!("a free thread is not given");
    };
    (queue, turn)
}

fn waiting(asked: Asked) -> Place {
    match asked {
        Asked::Wait(place) => place,
        Asked::Now(_) => panic!("it is not its turn"),
        Asked::Busy(busy) => panic!("it is told to come back: {busy:?}"),
    }
}

fn told(asked: Asked) -> Duration {
    match asked {
        Asked::Busy(Busy(wait)) => wait,
        Asked::Now(_) | Asked::Wait(_) => panic!("there is no room"),
    }
}

/// Whether it is the turn of this one.
fn is_next(place: &mut Place) -> bool {
    place.granted.try_recv() == Ok(Ok(()))
}

#[test]
fn those_who_come_back_as_told_are_served_in_the_order_in_which_they_first_asked() {
    const USERS: usize = 60;
    let (queue, mut turn) = busy_queue();
    let start = Instant::now();
    let mut now = start;
    // When each asks next, and where it waits meanwhile.
    let mut asks = vec![Some(start); USERS];
    let mut places: Vec<Option<Place>> = (0..USERS).map(|_| None).collect();
    let mut tries = vec![0; USERS];
    let mut served = Vec::new();
    while served.len() < USERS {
        for user in 0..USERS {
            if asks[user].is_some_and(|at| at <= now) {
                tries[user] += 1;
                asks[user] = None;
                match queue.ask(caller(1, user as u64), false, now) {
                    Asked::Wait(place) => places[user] = Some(place),
                    Asked::Busy(Busy(wait)) => asks[user] = Some(now + wait),
                    Asked::Now(_) => panic!("the thread is taken"),
                }
            }
        }
        now += EACH;
        drop(turn);
        let mut next = None;
        for (user, slot) in places.iter_mut().enumerate() {
            let Some(place) = slot else { continue };
            match place.granted.try_recv() {
                Ok(Ok(())) => {
                    next = Some(user);
                    *slot = None;
                }
                Ok(Err(Busy(wait))) => {
                    asks[user] = Some(now + wait);
                    *slot = None;
                }
                Err(_) => {}
            }
        }
        served.push(next.expect("the thread is never idle"));
        turn = queue.granted();
    }
    assert!(served.is_sorted(), "{served:?}");
    assert!(tries.iter().all(|&tries| tries <= 5), "{tries:?}");
    assert_eq!(now - start, EACH * u32::try_from(USERS).unwrap());
}

#[test]
fn whoever_is_new_does_not_overtake_those_who_were_told_to_come_back() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    let most = queue.lock().most(0, 1);
    let here: Vec<Place> = (0..most)
        .map(|user| waiting(queue.ask(caller(1, user as u64), false, now)))
        .collect();
    let wait = told(queue.ask(caller(2, 0), false, now));
    // Only its second try, not anybody's first, finds the room that is there by then.
    drop(here);
    let mut one = waiting(queue.ask(caller(3, 0), false, now));
    told_after(&queue, now, wait);
    let mut kept = waiting(queue.ask(caller(2, 0), false, now + wait));
    drop(turn);
    assert!(is_next(&mut kept), "it asked first");
    drop(kept);
    drop(queue.granted());
    assert!(is_next(&mut one));
}

/// A place that was kept is not there before its time.
fn told_after(queue: &Arc<Queue>, now: Instant, wait: Duration) {
    let left = told(queue.ask(caller(2, 0), false, now + wait / 2));
    assert!(left <= wait / 2, "{left:?} of {wait:?}");
}

#[test]
fn whoever_does_not_wait_as_it_was_told_loses_its_place() {
    let (queue, _turn) = busy_queue();
    let now = Instant::now();
    let most = queue.lock().most(0, 1);
    let _here: Vec<Place> = (0..most)
        .map(|user| waiting(queue.ask(caller(1, user as u64), false, now)))
        .collect();
    let wait = told(queue.ask(caller(2, 0), false, now));
    let _behind = told(queue.ask(caller(3, 0), false, now));
    queue.forget(caller(2, 0));
    let again = told(queue.ask(caller(2, 0), false, now + wait));
    assert!(again > Duration::from_millis(LOGIN_RETRY_MIN_MS));
    let numbers = queue.lock().lanes[0].by_caller.clone();
    assert!(numbers[&caller(2, 0)] > numbers[&caller(3, 0)]);
}

#[test]
fn places_are_given_up_in_time_and_bounded() {
    let (queue, _turn) = busy_queue();
    let now = Instant::now();
    let mut here = Vec::new();
    for number in 0..2 * LOGIN_PLACES_MAX_PER_ADDRESS {
        if let Asked::Wait(place) = queue.ask(caller(1, number as u64), false, now) {
            here.push(place);
        }
    }
    assert_eq!(here.len(), queue.lock().most(0, 1));
    let kept = |queue: &Queue| queue.lock().lanes[0].away.len();
    assert_eq!(kept(&queue), LOGIN_PLACES_MAX_PER_ADDRESS);
    told(queue.ask(caller(2, 0), false, now));
    assert_eq!(kept(&queue), LOGIN_PLACES_MAX_PER_ADDRESS + 1);
    let later = now + Duration::from_millis(2 * LOGIN_RETRY_MAX_MS + 2 * LOGINS_WAIT_MS);
    queue.lock().purge(later);
    let state = queue.lock();
    let lane = &state.lanes[0];
    assert!(lane.away.is_empty() && lane.by_caller.is_empty() && lane.by_source.is_empty());
}

#[test]
fn those_who_went_away_for_good_keep_nobody_from_an_idle_thread() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    let here: Vec<Place> = (0..100)
        .filter_map(|user| match queue.ask(caller(1, user), false, now) {
            Asked::Wait(place) => Some(place),
            _ => None,
        })
        .collect();
    drop(here);
    let mut first = waiting(queue.ask(caller(2, 0), false, now));
    drop(turn);
    assert!(is_next(&mut first));
}

#[test]
fn a_turn_that_nobody_takes_is_the_next_ones() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    let gone = waiting(queue.ask(caller(1, 1), false, now));
    let mut next = waiting(queue.ask(caller(1, 2), false, now));
    drop(turn);
    // It has the turn already, but was dropped before it took it.
    drop(gone);
    assert!(is_next(&mut next));
    drop(next);
    drop(queue.granted());
    assert_eq!(queue.lock().free, 1);
}

#[test]
fn the_suspicious_find_a_short_lane_and_hold_up_few() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    let suspicious: Vec<Place> = (0..SUSPICIOUS_LOGINS_MAX_WAITING)
        .map(|user| waiting(queue.ask(caller(1, user as u64), true, now)))
        .collect();
    told(queue.ask(caller(1, 100), true, now));
    let mut places: Vec<Place> = (0..8)
        .map(|user| waiting(queue.ask(caller(2, user), false, now)))
        .chain(suspicious)
        .collect();
    drop(turn);
    let mut order = String::new();
    while !places.is_empty() {
        let next = places
            .iter_mut()
            .position(is_next)
            .expect("somebody's turn");
        order.push(if places[next].lane == 1 { 's' } else { 'g' });
        places.remove(next);
        drop(queue.granted());
    }
    assert_eq!(order, "gggsgggsgg");
}
