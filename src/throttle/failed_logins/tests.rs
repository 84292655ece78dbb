use super::*;
use crate::registry::Remote;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

fn source(address: &str) -> Source {
    Remote::Tcp(address.parse().unwrap()).source()
}

impl FailedLogins {
    /// An attempt that begins at once; none if it has to wait for others.
    fn try_attempt(
        self: &Arc<Self>,
        kind: Kind,
        caller: Caller,
        now: Instant,
    ) -> Result<Option<Attempt>, Duration> {
        let attempt = || Attempt {
            failed_logins: Arc::clone(self),
            kind,
            caller,
        };
        match self.begin(kind, caller, now) {
            Begun::Now => Ok(Some(attempt())),
            Begun::Later => Ok(None),
            Begun::Refused(wait) => Err(wait),
        }
    }

    fn fail(self: &Arc<Self>, caller: Caller, now: Instant) -> Result<(), Duration> {
        let attempt = self.try_attempt(Kind::Password, caller, now)?;
        attempt.expect("nothing is under way").count(now);
        Ok(())
    }
}

#[test]
fn failures_count_by_address_and_account_and_fade() {
    let failed = FailedLogins::new(3);
    let (here, there) = (source("10.0.0.1:1"), source("10.0.0.2:1"));
    let ann = failed.caller(here, "ann");
    let start = Instant::now();
    for _ in 0..3 {
        failed.fail(ann, start).unwrap();
    }
    let wait = failed.fail(ann, start).unwrap_err();
    assert!((19.9..=20.1).contains(&wait.as_secs_f64()), "{wait:?}");
    failed.fail(failed.caller(here, "ben"), start).unwrap();
    failed.fail(failed.caller(there, "ann"), start).unwrap();
    let later = start + Duration::from_secs(21);
    failed.fail(ann, later).unwrap();
    failed.fail(ann, later).unwrap_err();
}

#[test]
fn an_address_cannot_try_one_account_after_the_other() {
    let failed = FailedLogins::new(3);
    let (here, start) = (source("10.0.0.1:1"), Instant::now());
    let tried = (0..1000)
        .take_while(|number| failed.fail(failed.caller(here, number), start).is_ok())
        .count();
    assert_eq!(tried, 3 * FAILED_LOGINS_PER_ADDRESS as usize);
}

#[test]
fn what_is_under_way_counts_as_nothing_and_others_wait_for_it() {
    let failed = FailedLogins::new(3);
    let start = Instant::now();
    let ann = failed.caller(source("10.0.0.1:1"), "ann");
    let begin = || failed.try_attempt(Kind::Password, ann, start).unwrap();
    for _ in 0..100 {
        let mut under_way: Vec<_> = (0..3).map(|_| begin().unwrap()).collect();
        assert!(begin().is_none(), "more than might fail");
        // As each succeeds, the next may begin.
        under_way.pop();
        under_way.push(begin().unwrap());
        assert!(begin().is_none());
    }
    assert!(failed.lock().levels.is_empty());
    assert!(failed.lock().under_way.is_empty());
    assert!(!failed.suspects(Kind::Password, ann.source, start));
}

#[test]
fn of_a_thousand_guesses_at_once_no_more_are_made_than_may_fail() {
    let failed = FailedLogins::new(10);
    let ann = failed.caller(source("10.0.0.1:1"), "ann");
    let mut context = Context::from_waker(Waker::noop());
    let mut guesses: Vec<_> = (0..1000)
        .map(|_| Some(Box::pin(failed.attempt(Kind::Password, ann))))
        .collect();
    let (mut made, mut refused) = (0, 0);
    while made + refused < 1000 {
        let mut under_way = Vec::new();
        for guess in &mut guesses {
            let Some(waiting) = guess else { continue };
            if let Poll::Ready(ended) = pin!(waiting).poll(&mut context) {
                *guess = None;
                match ended {
                    Ok(attempt) => under_way.push(attempt),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(!under_way.is_empty() || made + refused == 1000, "stuck");
        for attempt in under_way {
            attempt.count(Instant::now());
            made += 1;
        }
    }
    assert_eq!((made, refused), (10, 990));
}

#[test]
fn a_registration_counts_by_its_address_and_beside_logins() {
    let failed = FailedLogins::new(3);
    let (here, start) = (source("10.0.0.1:1"), Instant::now());
    let register = |name: &str| {
        let caller = failed.caller(here, name);
        let attempt = failed.try_attempt(Kind::Registration, caller, start)?;
        attempt.expect("nothing is under way").count(start);
        Ok::<_, Duration>(())
    };
    for name in ["a", "b", "c"] {
        register(name).unwrap();
    }
    register("d").unwrap_err();
    assert!(failed.suspects(Kind::Registration, here, start));
    assert!(!failed.suspects(Kind::Password, here, start));
    failed.fail(failed.caller(here, "a"), start).unwrap();
}

#[test]
fn an_address_stays_suspicious_for_a_while_after_it_failed() {
    let failed = FailedLogins::new(60);
    let (here, there) = (source("10.0.0.1:1"), source("10.0.0.2:1"));
    let start = Instant::now();
    failed.fail(failed.caller(here, "ann"), start).unwrap();
    let suspects = |source, seconds| {
        let at = start + Duration::from_secs(seconds);
        failed.suspects(Kind::Password, source, at)
    };
    assert!(suspects(here, SUSPECT_SECONDS - 1));
    assert!(!suspects(here, SUSPECT_SECONDS));
    assert!(!suspects(there, 0));
}

#[tokio::test]
async fn a_bad_token_is_told_to_wait_and_a_good_one_is_not() {
    let failed = FailedLogins::new(3);
    let (here, start) = (source("10.0.0.1:1"), Instant::now());
    let bad = failed.caller(here, "bad");
    for _ in 0..3 {
        assert!(failed.look_up(bad, false, start).await.unwrap().is_none());
        assert_eq!(failed.bad_token(bad, start), BadToken::Failed);
    }
    failed.look_up(bad, false, start).await.unwrap_err();
    let good = failed.caller(here, "good");
    assert!(failed.look_up(good, false, start).await.unwrap().is_none());
    let later = start + Duration::from_secs(21);
    failed.look_up(bad, false, later).await.unwrap();
}

#[tokio::test]
async fn bad_tokens_one_after_the_other_are_told_to_wait_and_remembered_together() {
    let failed = FailedLogins::new(3);
    let (here, start) = (source("10.0.0.1:1"), Instant::now());
    let allowed = 3 * FAILED_LOGINS_PER_ADDRESS;
    for number in 0..1000 {
        let bad = failed.caller(here, number);
        let alone = failed.look_up(bad, false, start).await.unwrap();
        assert_eq!(alone.is_some(), number >= allowed, "{number}");
        let refused = failed.bad_token(bad, start) != BadToken::Failed;
        assert_eq!(refused, number >= allowed, "{number}");
    }
    assert_eq!(u32::try_from(failed.lock().levels.len()), Ok(allowed + 1));
    // One that has not failed is looked up all the same.
    let good = failed.caller(here, "good");
    failed.look_up(good, false, start).await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_known_to_be_good_does_not_wait_in_a_crowd() {
    let failed = FailedLogins::new(1);
    let (here, start) = (source("10.0.0.1:1"), Instant::now());
    for number in 0..10 {
        let _ = failed.bad_token(failed.caller(here, number), start);
    }
    let good = failed.caller(here, "good");
    let crowd = failed.look_up(good, false, start).await.unwrap();
    assert!(crowd.is_some(), "one at a time");
    assert!(failed.look_up(good, true, start).await.unwrap().is_none());
}

#[test]
fn a_network_of_which_many_addresses_failed_is_suspicious_for_a_while() {
    let failed = FailedLogins::new(1);
    let start = Instant::now();
    let address = |number: u32| source(&format!("[2001:db8:0:{number:x}::1]:1"));
    let suspects = |seconds: u64| {
        let at = start + Duration::from_secs(seconds);
        failed.suspects(Kind::Password, address(1000), at)
    };
    for number in 0..SUSPECT_FAILURES_PER_NETWORK {
        assert!(!suspects(0), "{number} have failed");
        let caller = failed.caller(address(number), number);
        failed
            .lock()
            .suspect(Kind::Password, caller.source(), start);
    }
    assert!(suspects(0));
    assert!(!suspects(60));
    assert!(!failed.suspects(Kind::Registration, address(1000), start));
    assert!(!failed.suspects(Kind::Password, source("[2001:db8:1::1]:1"), start));
}
