#![allow(
    clippy::needless_pass_by_value,
    reason = "what asking came to is dropped once it is looked at"
)]

use super::*;
use crate::registry::Remote;
use crate::throttle::FailedLogins;
use std::cmp::Ordering;
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
    let Asked::Now(turn) = queue.ask(caller(0, u64::MAX), Repute::Unknown, Instant::now()) else {
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

/// A turn of nobody's who is asked about.
fn granted(queue: &Arc<Queue>) -> Turn {
    queue.granted(Asker {
        caller: caller(0, u64::MAX),
        known: false,
    })
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
                match queue.ask(caller(1, user as u64), Repute::Unknown, now) {
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
        turn = granted(&queue);
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
    let here = crowd(&queue, most, now);
    let wait = told(queue.ask(caller(2, 0), Repute::Unknown, now));
    // Only its second try, not anybody's first, finds the room that is there by then.
    drop(here);
    let mut one = waiting(queue.ask(caller(3, 0), Repute::Unknown, now));
    told_after(&queue, now, wait);
    let mut kept = waiting(queue.ask(caller(2, 0), Repute::Unknown, now + wait));
    drop(turn);
    assert!(is_next(&mut kept), "it asked first");
    drop(kept);
    drop(granted(&queue));
    assert!(is_next(&mut one));
}

/// Those who fill the queue, each from a network of its own.
fn crowd(queue: &Arc<Queue>, most: usize, now: Instant) -> Vec<Place> {
    let networks = 100..100 + u8::try_from(most).unwrap();
    let ask = |network| waiting(queue.ask(caller(network, 0), Repute::Unknown, now));
    networks.map(ask).collect()
}

/// A place that was kept is not there before its time.
fn told_after(queue: &Arc<Queue>, now: Instant, wait: Duration) {
    let left = told(queue.ask(caller(2, 0), Repute::Unknown, now + wait / 2));
    assert!(left <= wait / 2, "{left:?} of {wait:?}");
}

#[test]
fn whoever_does_not_wait_as_it_was_told_loses_its_place() {
    let (queue, _turn) = busy_queue();
    let now = Instant::now();
    let most = queue.lock().most(0, 1);
    let _here = crowd(&queue, most, now);
    let wait = told(queue.ask(caller(2, 0), Repute::Unknown, now));
    let _behind = told(queue.ask(caller(3, 0), Repute::Unknown, now));
    queue.forget(caller(2, 0));
    let again = told(queue.ask(caller(2, 0), Repute::Unknown, now + wait));
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
        if let Asked::Wait(place) = queue.ask(caller(1, number as u64), Repute::Unknown, now) {
            here.push(place);
        }
    }
    assert_eq!(here.len(), queue.lock().most(0, 1));
    let kept = |queue: &Queue| queue.lock().lanes[0].away.len();
    assert_eq!(kept(&queue), LOGIN_PLACES_MAX_PER_ADDRESS);
    // One of a more modest network does not wait behind them: the last of them goes.
    here.push(waiting(queue.ask(caller(2, 0), Repute::Unknown, now)));
    assert_eq!(kept(&queue), LOGIN_PLACES_MAX_PER_ADDRESS);
    let later = now + Duration::from_millis(2 * LOGIN_RETRY_MAX_MS + 2 * LOGINS_WAIT_MS);
    queue.lock().purge(later);
    drop(here);
    let state = queue.lock();
    let lane = &state.lanes[0];
    assert!(state.shares.holds_nothing());
    assert!(lane.by_class.iter().all(BTreeSet::is_empty));
    assert!(lane.away.is_empty() && lane.by_caller.is_empty() && lane.by_source.is_empty());
}

#[test]
fn those_who_went_away_for_good_keep_nobody_from_an_idle_thread() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    let here: Vec<Place> = (0..100)
        .filter_map(
            |user| match queue.ask(caller(1, user), Repute::Unknown, now) {
                Asked::Wait(place) => Some(place),
                _ => None,
            },
        )
        .collect();
    drop(here);
    let mut first = waiting(queue.ask(caller(2, 0), Repute::Unknown, now));
    drop(turn);
    assert!(is_next(&mut first));
}

#[test]
fn a_turn_that_nobody_takes_is_the_next_ones() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    let gone = waiting(queue.ask(caller(1, 1), Repute::Unknown, now));
    let mut next = waiting(queue.ask(caller(1, 2), Repute::Unknown, now));
    drop(turn);
    // It has the turn already, but was dropped before it took it.
    drop(gone);
    assert!(is_next(&mut next));
    drop(next);
    drop(granted(&queue));
    assert_eq!(queue.lock().free, 1);
}

#[test]
fn the_suspicious_find_a_short_lane_and_hold_up_few() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    let suspicious: Vec<Place> = (0..SUSPICIOUS_LOGINS_MAX_WAITING)
        .map(|user| waiting(queue.ask(caller(1, user as u64), Repute::Suspicious, now)))
        .collect();
    told(queue.ask(caller(1, 100), Repute::Suspicious, now));
    let mut places: Vec<Place> = (0..8)
        .map(|user| waiting(queue.ask(caller(2, user), Repute::Unknown, now)))
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
        drop(granted(&queue));
    }
    assert_eq!(order, "gggsgggsgg");
}

/// Fills the queue with an attack, and has the last one who asks be served: gives after how many turns that was.
fn turns_until_served(
    queue: &Arc<Queue>,
    mut turn: Turn,
    attack: impl Fn(u64) -> (Caller, Repute),
    own: (Caller, Repute),
    start: Instant,
) -> usize {
    let mut attackers = Vec::new();
    let mut number = 0;
    // Whoever attacks asks again and again, and what it holds is its own account.
    let mut refill = |attackers: &mut Vec<Place>, now| {
        for _ in 0..50 {
            number += 1;
            let (caller, repute) = attack(number);
            if let Asked::Wait(place) = queue.ask(caller, repute, now) {
                attackers.push(place);
            }
        }
    };
    refill(&mut attackers, start);
    let mut honest = None;
    for turns in 0..100 {
        let now = start + EACH * u32::try_from(turns).unwrap();
        // The attack has been going on when it asks.
        if turns == 20 {
            honest = Some(waiting(queue.ask(own.0, own.1, now)));
        }
        turn.began = Some(now);
        turn.is_of_account();
        drop(turn);
        if honest.as_mut().is_some_and(is_next) {
            return turns - 20;
        }
        let next = attackers.iter_mut().position(is_next);
        let place = attackers.remove(next.expect("the thread is never idle"));
        turn = queue.granted(place.asker);
        drop(place);
        refill(&mut attackers, now);
    }
    panic!("it is never served");
}

#[test]
fn one_account_from_many_addresses_keeps_nobody_waiting() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    let attack = |number: u64| {
        let network = 100 + u8::try_from(number % 6).unwrap();
        (caller(network, 7), Repute::Unknown)
    };
    let own = (caller(1, 1), Repute::Unknown);
    assert_eq!(turns_until_served(&queue, turn, attack, own, now), 0);
    // Nor does it where all of its addresses are known, and the other one's is not.
    let (queue, turn) = busy_queue();
    let attack = |number| (attack(number).0, Repute::Known);
    assert_eq!(turns_until_served(&queue, turn, attack, own, now), 0);
}

#[test]
fn one_network_with_many_addresses_and_accounts_keeps_nobody_waiting() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    let of_network = |number: u64| {
        let address = format!("[2001:db8:0:{number:x}::1]:1").parse().unwrap();
        (address, number)
    };
    let callers = FailedLogins::new(1);
    let attack = |number: u64| {
        let (address, name) = of_network(number);
        let caller = callers.caller(Remote::Tcp(address).source(), name);
        (caller, Repute::Unknown)
    };
    let own = (caller(1, 1), Repute::Unknown);
    assert_eq!(turns_until_served(&queue, turn, attack, own, now), 0);
}

#[test]
fn whoever_is_known_pays_for_its_account_alone() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    // Everybody at its own address asks for much.
    let attack = |number: u64| (caller(1, number), Repute::Unknown);
    let known = (caller(1, u64::MAX - 1), Repute::Known);
    assert_eq!(turns_until_served(&queue, turn, attack, known, now), 0);
}

#[test]
fn a_stranger_who_fails_costs_nobodys_account_anything() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    drop(turn);
    // Guesses at one account, from everywhere.
    for network in 100..200 {
        let Asked::Now(mut turn) = queue.ask(caller(network, 1), Repute::Unknown, now) else {
            panic!("the thread is free");
        };
        turn.begin();
    }
    let asker = |known| Asker {
        caller: caller(1, 1),
        known,
    };
    let state = queue.lock();
    for known in [false, true] {
        assert_eq!(
            state.shares.had(&asker(known), now).total_cmp(&0.0),
            Ordering::Equal
        );
    }
}

#[test]
fn turns_fade() {
    let (queue, _turn) = busy_queue();
    let now = Instant::now();
    let asker = Asker {
        caller: caller(1, 1),
        known: true,
    };
    let mut state = queue.lock();
    for _ in 0..16 {
        state.shares.take(&asker, now);
    }
    let had = |after| state.shares.had(&asker, now + Duration::from_secs(after));
    let found: Vec<String> = [0, 20, 40, 100].map(|after| had(after).to_string()).into();
    assert_eq!(found, ["16", "8", "4", "0"]);
}

#[test]
fn where_no_more_can_be_told_to_come_back_the_greediest_gives_way() {
    let (queue, _turn) = busy_queue();
    let now = Instant::now();
    let most = queue.lock().most(0, 1);
    let _here = crowd(&queue, most, now);
    let callers = FailedLogins::new(1);
    for number in 0..LOGIN_PLACES_MAX as u64 + 10 {
        let address = format!("[2001:db8:0:{number:x}::1]:1").parse().unwrap();
        let caller = callers.caller(Remote::Tcp(address).source(), number);
        told(queue.ask(caller, Repute::Unknown, now));
    }
    assert_eq!(queue.lock().lanes[0].away.len(), LOGIN_PLACES_MAX);
    told(queue.ask(caller(2, 0), Repute::Unknown, now));
    let state = queue.lock();
    assert_eq!(state.lanes[0].away.len(), LOGIN_PLACES_MAX);
    assert!(state.lanes[0].by_caller.contains_key(&caller(2, 0)));
}

#[test]
fn whoever_waits_for_long_is_told_to_come_back_and_keeps_its_place() {
    let (queue, turn) = busy_queue();
    let now = Instant::now();
    let first = waiting(queue.ask(caller(1, 1), Repute::Unknown, now));
    let mut second = waiting(queue.ask(caller(2, 2), Repute::Unknown, now));
    let Err(Busy(wait)) = first.leave(now) else {
        panic!("there is no thread for it");
    };
    let mut first = waiting(queue.ask(caller(1, 1), Repute::Unknown, now + wait));
    drop(turn);
    assert!(is_next(&mut first));
    assert!(!is_next(&mut second));
    // It was its turn while it gave up.
    let third = waiting(queue.ask(caller(3, 3), Repute::Unknown, now + wait));
    drop(granted(&queue));
    drop(granted(&queue));
    assert!(is_next(&mut second));
    assert!(third.leave(now + wait).is_ok());
}
