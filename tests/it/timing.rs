//! A wrong login and a wrong password take the same time.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::crash::seed;
use crate::harness::{Client, Daemon};

/// Pairs of samples in the first try; every further one has twice as many.
const PAIRS: usize = 150;
const TRIES: u32 = 4;
/// A difference is one if chance alone would show it less than once in ten thousand times …
const T_MOST: f64 = 4.0;
/// … and if it is more than so much of the time that a login takes.
const SHARE_MOST: f64 = 0.02;

/// The differences of a paired comparison, and what they are compared with.
struct Comparison {
    t: f64,
    mean_us: f64,
    login_us: f64,
}

impl Comparison {
    /// Of pairs of times in microseconds.
    #[allow(clippy::cast_precision_loss, reason = "a few thousand samples")]
    fn of(pairs: &[(f64, f64)]) -> Self {
        let count = pairs.len() as f64;
        let differences = pairs.iter().map(|(known, unknown)| known - unknown);
        let mean_us = differences.clone().sum::<f64>() / count;
        let square = differences.map(|difference| (difference - mean_us).powi(2));
        let deviation = (square.sum::<f64>() / (count - 1.0)).sqrt();
        let mut all: Vec<f64> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
        all.sort_unstable_by(f64::total_cmp);
        Self {
            t: mean_us / (deviation / count.sqrt()),
            mean_us,
            login_us: all[all.len() / 2],
        }
    }

    fn differs(&self) -> bool {
        self.t.abs() > T_MOST && self.mean_us.abs() > SHARE_MOST * self.login_us
    }
}

fn failed_login_us(client: &mut Client, login: &str) -> f64 {
    let data = json!({"login": login, "password": "a guess"});
    let begun = Instant::now();
    let code = client.code("session", "login", data);
    let took = begun.elapsed();
    assert_eq!(code, "login_failed");
    took.as_secs_f64() * 1e6
}

#[test]
fn an_unknown_login_takes_as_long_as_a_wrong_password() {
    let daemon = Daemon::with(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n\
         [security]\nbcrypt_cost = 7\nfailed_logins_per_minute = 1000000\nlogin_seconds = 3600\n",
    );
    let mut setup = daemon.client();
    for number in 100..200 {
        setup.create_user(&format!("known-{number}"));
    }
    let mut client = Client::connect(daemon.address_of("login"));
    let mut random = StdRng::seed_from_u64(seed());
    // The first ones find cold caches, and a connection that has not failed yet.
    for _ in 0..10 {
        failed_login_us(&mut client, "known-100");
        failed_login_us(&mut client, "other-100");
    }
    for attempt in 0..TRIES {
        let pairs: Vec<(f64, f64)> = (0..PAIRS << attempt)
            .map(|_| {
                let number = random.random_range(100..200);
                let (known, unknown) = (format!("known-{number}"), format!("other-{number}"));
                if random.random() {
                    let first = failed_login_us(&mut client, &known);
                    (first, failed_login_us(&mut client, &unknown))
                } else {
                    let first = failed_login_us(&mut client, &unknown);
                    (failed_login_us(&mut client, &known), first)
                }
            })
            .collect();
        let found = Comparison::of(&pairs);
        println!(
            "{} pairs: a login takes {:.0} µs; known minus unknown is {:.1} µs, t = {:.2}",
            pairs.len(),
            found.login_us,
            found.mean_us,
            found.t
        );
        if !found.differs() {
            return;
        }
    }
    panic!("known and unknown logins can be told apart by their time");
}
