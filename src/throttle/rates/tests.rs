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
