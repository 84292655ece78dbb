//! Logins that are good get in, whoever fails beside them, and as many of them as come at once.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{count, from, limited};
use crate::harness::{Client, Daemon, LOGINS};

/// A token of a user, which is created if it is not there.
fn token_of(trusted: &mut Client, user: &str) -> Value {
    let made = trusted.ok(
        "session",
        "token_create",
        json!({"name": "t", "user_id": user}),
    );
    json!({"token": made["token"]})
}

/// A token that nobody has.
fn bad_token(number: usize) -> Value {
    json!({"token": format!("cht_{number:064x}")})
}

/// Sends the same request on every one of these connections before any answer is read, and gives the answers.
fn at_once(clients: &mut [Client], data: &[Value]) -> Vec<Value> {
    for (client, data) in clients.iter_mut().zip(data) {
        client.request("session", "login", data.clone());
    }
    clients.iter_mut().map(Client::next_value).collect()
}

fn all_are_in(answers: &[Value]) {
    for answer in answers {
        assert_eq!(answer["result"], "ok", "{answer}");
    }
}

/// Logs in as a client does that obeys `retry_after_ms`, and says how often it asked.
fn log_in_in_time(client: &mut Client, data: &Value) -> usize {
    for tries in 1.. {
        let answer = client.call("session", "login", data.clone());
        if answer["result"] == "ok" {
            return tries;
        }
        assert_eq!(answer["data"]["code"], "rate_limited", "{answer}");
        let wait_ms = answer["data"]["retry_after_ms"].as_u64();
        thread::park_timeout(Duration::from_millis(wait_ms.expect("a time to wait")));
    }
    unreachable!("somebody asks for ever");
}

#[test]
fn many_good_tokens_at_once_from_one_address_are_let_in() {
    let daemon = limited("", "failed_logins_per_minute = 3");
    let mut trusted = daemon.client();
    let ann = trusted.create_user("ann");
    let tokens: Vec<Value> = (0..40).map(|_| token_of(&mut trusted, &ann)).collect();
    let mut clients: Vec<Client> = (0..40).map(|_| from(&daemon, 1)).collect();
    all_are_in(&at_once(&mut clients, &tokens));
    // Nor does it matter that they are the same one.
    let same = vec![tokens[0].clone(); 40];
    all_are_in(&at_once(&mut clients, &same));
    assert_eq!(count(&mut trusted, "limited_logins"), 0);
}

#[test]
fn a_bad_token_is_told_to_wait_and_keeps_no_good_one_out() {
    let daemon = limited("", "failed_logins_per_minute = 3");
    let mut trusted = daemon.client();
    let ann = trusted.create_user("ann");
    let good = token_of(&mut trusted, &ann);
    let mut bad = from(&daemon, 1);
    for _ in 0..3 {
        assert_eq!(bad.code("session", "login", bad_token(0)), "login_failed");
    }
    let refused = bad.error("session", "login", bad_token(0));
    assert_eq!(refused["code"], "rate_limited", "{refused}");
    assert!(refused["retry_after_ms"].as_u64() > Some(1000), "{refused}");
    let mut client = from(&daemon, 1);
    client.ok("session", "login", good.clone());
    // Others fail one after the other, until each of them is told to wait; a good one is not.
    let codes: Vec<String> = (1..30)
        .map(|number| bad.code("session", "login", bad_token(number)))
        .collect();
    assert_eq!(codes.first().map(String::as_str), Some("login_failed"));
    assert_eq!(codes.last().map(String::as_str), Some("rate_limited"));
    for _ in 0..10 {
        client.ok("session", "login", good.clone());
    }
    // What cannot be a token is one that fails.
    let none = bad.code("session", "login", json!({"token": "no token"}));
    assert_eq!(none, "rate_limited");
    // Passwords are counted apart.
    client.login("ann", "s3cret");
}

#[test]
fn wrong_passwords_keep_no_token_out_and_no_other_account() {
    let daemon = limited("", "failed_logins_per_minute = 3");
    let mut trusted = daemon.client();
    let ann = trusted.create_user("ann");
    trusted.create_user("ben");
    let good = token_of(&mut trusted, &ann);
    let mut client = from(&daemon, 1);
    let guess = json!({"login": "ann", "password": "a guess"});
    for _ in 0..4 {
        client.error("session", "login", guess.clone());
    }
    client.ok("session", "login", good);
    from(&daemon, 1).login("ben", "s3cret");
}

#[test]
fn registrations_keep_no_token_and_no_password_out() {
    let daemon = limited("", "failed_logins_per_minute = 3\nregistration = \"open\"");
    let mut trusted = daemon.client();
    let ann = trusted.create_user("ann");
    let good = token_of(&mut trusted, &ann);
    let register = |name: &str| {
        let data = json!({"login": name, "name": "n", "password": "a good one"});
        from(&daemon, 1).call("user", "create", data)
    };
    for name in ["a", "b", "c"] {
        let answer = register(name);
        assert_eq!(answer["result"], "ok", "{answer}");
    }
    let refused = register("d");
    assert_eq!(refused["data"]["code"], "rate_limited", "{refused}");
    let mut clients: Vec<Client> = (0..20).map(|_| from(&daemon, 1)).collect();
    all_are_in(&at_once(&mut clients, &vec![good; 20]));
    from(&daemon, 1).login("ann", "s3cret");
}

#[test]
fn many_devices_of_one_account_with_the_right_password_are_let_in() {
    let daemon = limited("", "failed_logins_per_minute = 3");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let right = json!({"login": "ann", "password": "s3cret"});
    let mut clients: Vec<Client> = (0..30).map(|_| from(&daemon, 1)).collect();
    all_are_in(&at_once(&mut clients, &vec![right; 30]));
    assert_eq!(count(&mut trusted, "limited_logins"), 0);
}

#[test]
fn of_many_guesses_at_once_no_more_are_tried_than_may_fail() {
    let daemon = limited("", "failed_logins_per_minute = 3");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let guess = json!({"login": "ann", "password": "a guess"});
    let mut clients: Vec<Client> = (0..50).map(|_| from(&daemon, 1)).collect();
    let answers = at_once(&mut clients, &vec![guess; 50]);
    let failed = answers
        .iter()
        .filter(|answer| answer["data"]["code"] == "login_failed")
        .count();
    // One more may have faded meanwhile, where the machine is slow.
    assert!((3..10).contains(&failed), "{failed} were tried");
    assert_eq!(count(&mut trusted, "failed_logins"), failed as u64);
}

#[test]
fn the_time_in_which_a_password_waits_to_be_verified_is_not_the_clients() {
    // About 150 ms each, so that the last ones wait for longer than they have.
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .div_ceil(2);
    let users = 16 * threads;
    let daemon = Daemon::with(&LOGINS.replace(
        "bcrypt_cost = 4\nlogin_seconds = 600",
        "bcrypt_cost = 11\nlogin_seconds = 2",
    ));
    let mut trusted = daemon.client();
    for number in 0..users {
        trusted.create_user(&format!("user-{number}"));
    }
    let begun = Instant::now();
    let mut clients: Vec<Client> = (0..users)
        .map(|number| {
            let mut client = daemon.stranger();
            let data = json!({"login": format!("user-{number}"), "password": "s3cret"});
            client.request("session", "login", data);
            client
        })
        .collect();
    let answers: Vec<Value> = clients.iter_mut().map(Client::next_value).collect();
    all_are_in(&answers);
    println!("{users} logins in {:?}", begun.elapsed());
    assert_eq!(count(&mut trusted, "login_timeouts"), 0);
}

#[test]
fn the_time_that_a_login_was_told_to_wait_is_not_the_clients() {
    let daemon = limited("", "failed_logins_per_minute = 20\nlogin_seconds = 2");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let mut client = from(&daemon, 1);
    let guess = json!({"login": "ann", "password": "a guess"});
    for _ in 0..20 {
        client.code("session", "login", guess.clone());
    }
    let begun = Instant::now();
    let right = json!({"login": "ann", "password": "s3cret"});
    assert_eq!(log_in_in_time(&mut client, &right), 2);
    assert!(begun.elapsed() > Duration::from_secs(2));
    assert_eq!(count(&mut trusted, "login_timeouts"), 0);
}
