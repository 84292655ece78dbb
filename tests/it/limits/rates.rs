//! Whoever sends faster than its rate is read more slowly: nothing is refused, and the order is kept.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{count, from, limited, user_from};
use crate::harness::{Client, wait_until};
use crate::lines::goes_on;

/// Sends requests without waiting for any, and gives the time until all are answered: each is done, in its place.
fn flood(client: &mut Client, requests: usize, data: &Value) -> Duration {
    let begun = Instant::now();
    let mut sender = client.sender();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut lines = String::new();
            for tid in 0..requests {
                let request = json!({"class": "chat", "subclass": "session", "cmd": "ping",
                                     "data": data, "tid": tid});
                lines += &request.to_string();
                lines.push('\n');
            }
            sender.write_all(lines.as_bytes()).expect("send");
        });
        for tid in 0..requests {
            let answer = client.next_value();
            assert_eq!(
                (&answer["result"], &answer["tid"]),
                (&json!("ok"), &json!(tid)),
                "{answer}"
            );
        }
    });
    begun.elapsed()
}

/// That nothing was refused, and that a flood took at least the time that its rate asks for.
fn took(time: Duration, least: Duration) {
    assert!(time >= least, "{time:?} instead of {least:?}");
}

const NO_TIME: Duration = Duration::ZERO;

#[test]
fn requests_of_one_connection_that_come_too_fast_wait_and_none_is_refused() {
    let daemon = limited("requests_per_second = 100", "");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let mut client = user_from(&daemon, 1);
    // Five seconds' worth may come at once.
    took(
        flood(&mut client, 650, &json!({})),
        Duration::from_millis(1400),
    );
    let slowed = count(&mut trusted, "slowed_requests");
    assert!((1..=160).contains(&slowed), "{slowed}");
    took(flood(&mut user_from(&daemon, 1), 400, &json!({})), NO_TIME);
    took(flood(&mut trusted, 2000, &json!({})), NO_TIME);
    assert_eq!(count(&mut trusted, "slowed_requests"), slowed);
}

#[test]
fn requests_of_one_address_that_come_too_fast_wait_and_none_is_refused() {
    let daemon = limited("requests_per_second_per_address = 100", "");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let mut here = [user_from(&daemon, 1), user_from(&daemon, 1)];
    let [first, second] = here.each_mut().map(|client| flood(client, 320, &json!({})));
    took(first + second, Duration::from_millis(1300));
    let slowed = count(&mut trusted, "slowed_requests");
    assert!(slowed > 0);
    took(flood(&mut user_from(&daemon, 2), 400, &json!({})), NO_TIME);
    assert_eq!(count(&mut trusted, "slowed_requests"), slowed);
}

#[test]
fn bytes_that_come_too_fast_wait_and_no_request_is_refused() {
    for limit in ["bytes_per_second", "bytes_per_second_per_address"] {
        let daemon = limited(&format!("max_line_bytes = 2048\n{limit} = 1000"), "");
        let mut trusted = daemon.client();
        trusted.create_user("ann");
        let mut client = user_from(&daemon, 1);
        let text = json!({"text": "x".repeat(1900)});
        took(flood(&mut client, 4, &text), Duration::from_secs(2));
        let slowed = count(&mut trusted, "slowed_requests");
        assert!(slowed > 0, "{limit}");
        took(flood(&mut user_from(&daemon, 2), 2, &text), NO_TIME);
        assert_eq!(count(&mut trusted, "slowed_requests"), slowed, "{limit}");
    }
}

#[test]
fn an_over_long_line_is_charged_for_and_what_is_behind_it_is_done() {
    let daemon = limited("max_line_bytes = 1024\nbytes_per_second = 100000", "");
    daemon.client().create_user("ann");
    let mut client = user_from(&daemon, 1);
    let begun = Instant::now();
    let mut sender = client.sender();
    let sending = thread::spawn(move || {
        let _ = sender.write_all(&vec![b'x'; 650_000]);
        let _ = sender.write_all(b"\n");
    });
    assert_eq!(client.next_value()["data"]["code"], "line_too_long");
    sending.join().expect("send");
    goes_on(&mut client);
    took(begun.elapsed(), Duration::from_secs(1));
}

#[test]
fn messages_that_come_too_fast_keep_their_order() {
    let daemon = limited("requests_per_second = 100", "");
    let mut trusted = daemon.client();
    let user = trusted.create_user("ann");
    let conversation = trusted.create_conversation("lunch", &[&user]);
    trusted.subscribe(json!({"type": "created_message"}));
    let mut client = user_from(&daemon, 1);
    for number in 0..600 {
        let data = json!({"conversation_id": conversation, "message": number.to_string()});
        client.request("message", "create", data);
    }
    for number in 0..600 {
        assert_eq!(client.next_value()["result"], "ok");
        let event = trusted.next_event();
        assert_eq!(event["body"]["message"], number.to_string(), "{event}");
    }
    assert!(count(&mut trusted, "slowed_requests") > 0);
}

#[test]
fn a_line_over_the_rate_closes_a_connection_on_which_nobody_is_logged_in() {
    let daemon = limited("requests_per_second = 10", "");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    for line in ["{}\n", "\n"] {
        let mut stranger = from(&daemon, 1);
        stranger.send_bytes_or_end(line.repeat(200).as_bytes());
        let mut answers = 0;
        let last = loop {
            let line = stranger.next_value();
            if line["type"] == "closed" {
                break line;
            }
            answers += 1;
        };
        assert_eq!(last["body"]["code"], "rate_limited", "{last}");
        assert_eq!(last["body"]["retry"], true, "{last}");
        assert!(answers <= 60, "{answers}");
        stranger.expect_end();
    }
    assert_eq!(count(&mut trusted, "limited_connections"), 2);
    assert_eq!(count(&mut trusted, "slowed_requests"), 0);
    goes_on(&mut user_from(&daemon, 1));
}

#[test]
fn each_id_of_a_list_counts_as_a_request() {
    let ids: Vec<String> = (0..700).map(|number| format!("{number:013}")).collect();
    let lists = [
        (
            "conversation",
            "search",
            json!({"filter": {"conversation_id": ids}, "total": false}),
        ),
        (
            "conversation",
            "create",
            json!({"name": "all", "user_ids": ids}),
        ),
        (
            "event",
            "subscribe",
            json!({"subscriptions": ids.iter().map(|id| json!({"obj_id": id})).collect::<Vec<_>>()}),
        ),
    ];
    for (subclass, cmd, data) in lists {
        let daemon = limited("requests_per_second = 100", "");
        daemon.client().create_user("ann");
        let mut client = user_from(&daemon, 1);
        let begun = Instant::now();
        client.call(subclass, cmd, data);
        goes_on(&mut client);
        took(begun.elapsed(), Duration::from_millis(1900));
    }
}

#[test]
fn each_hundred_deliveries_of_an_event_count_as_a_request() {
    const SUBSCRIBERS: usize = 300;
    let daemon = limited("requests_per_second = 20", "");
    let mut trusted = daemon.client();
    let user = trusted.create_user("ann");
    let conversation = trusted.create_conversation("all", &[&user]);
    let subscribers: Vec<Client> = (0..SUBSCRIBERS)
        .map(|_| {
            let mut subscriber = daemon.client();
            subscriber.subscribe(json!({"obj_id": conversation}));
            subscriber
        })
        .collect();
    let event = json!({"type": "typing", "obj_id": conversation});
    let message = json!({"conversation_id": conversation, "message": "hello"});
    for (subclass, cmd, data) in [("event", "send", event), ("message", "create", message)] {
        let mut client = user_from(&daemon, 1);
        let begun = Instant::now();
        // 38 of them are worth 152 requests, of which 100 may come at once.
        for _ in 0..38 {
            client.ok(subclass, cmd, data.clone());
        }
        took(begun.elapsed(), Duration::from_secs(2));
    }
    drop(subscribers);
}

#[test]
fn requests_of_one_user_are_counted_over_all_its_connections() {
    let daemon = limited("requests_per_second_per_user = 100", "");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    trusted.create_user("bob");
    let mut bob = from(&daemon, 3);
    bob.login("bob", "s3cret");
    let nothing = json!({});
    let [first, second] =
        [1, 2].map(|network| flood(&mut user_from(&daemon, network), 320, &nothing));
    // The first connection is closed by then, and what it has taken is still owed.
    took(first + second, Duration::from_millis(1300));
    let slowed = count(&mut trusted, "slowed_requests");
    assert!(slowed > 0);
    took(flood(&mut bob, 400, &nothing), NO_TIME);
    assert_eq!(count(&mut trusted, "slowed_requests"), slowed);
}

#[test]
fn bytes_of_one_user_are_counted_over_all_its_connections() {
    let daemon = limited(
        "max_line_bytes = 2048\nbytes_per_second_per_user = 1000",
        "",
    );
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let text = json!({"text": "x".repeat(1900)});
    let times = [1, 2].map(|network| flood(&mut user_from(&daemon, network), 2, &text));
    took(times.iter().sum(), Duration::from_secs(2));
    assert!(count(&mut trusted, "slowed_requests") > 0);
}

#[test]
fn deliveries_of_one_user_are_counted_over_all_its_connections() {
    const SUBSCRIBERS: usize = 20;
    for (subclass, cmd) in [
        ("event", "send"),
        ("message", "create"),
        ("conversation", "update"),
    ] {
        let daemon = limited("deliveries_per_second = 100", "");
        let mut trusted = daemon.client();
        let user = trusted.create_user("ann");
        let conversation = trusted.create_conversation("all", &[&user]);
        let (mut owner, more) = (user_from(&daemon, 1), user_from(&daemon, 2));
        let conversation = match cmd {
            "update" => owner.create_conversation("own", &[]),
            _ => conversation,
        };
        let subscribers = [(); SUBSCRIBERS].map(|()| {
            let mut subscriber = daemon.client();
            subscriber.subscribe(json!({"obj_id": conversation}));
            subscriber
        });
        let data = match subclass {
            "event" => json!({"type": "typing", "obj_id": conversation}),
            "message" => json!({"conversation_id": conversation, "message": "hello"}),
            _ => json!({"conversation_id": conversation, "name": "other"}),
        };
        let begun = Instant::now();
        // 38 of them are 760 deliveries, of which 500 may be at once.
        for mut client in [owner, more] {
            for _ in 0..19 {
                client.ok(subclass, cmd, data.clone());
            }
        }
        took(begun.elapsed(), Duration::from_secs(2));
        drop(subscribers);
    }
}

#[test]
fn a_connection_that_is_made_to_wait_ends_at_once_when_it_is_to_end() {
    let mut daemon = limited("requests_per_second = 1\nbytes_per_second = 15000", "");
    let mut trusted = daemon.client();
    let user = trusted.create_user("ann");
    let patient = || {
        let mut client = user_from(&daemon, 1);
        for _ in 0..100 {
            client.request("session", "ping", json!({}));
        }
        assert_eq!(client.next_value()["result"], "ok");
        client
    };
    let begun = Instant::now();
    // Its client goes away.
    patient().reset();
    wait_until("its end", || {
        trusted.ok("server", "info", json!({}))["connections"] == 1
    });
    // Its session ends.
    let mut ended = patient();
    let data = json!({"user_id": user, "password": "another"});
    trusted.ok("user", "update", data);
    wait_until("its end", || {
        trusted.ok("server", "info", json!({}))["connections"] == 1
    });
    while let Some(line) = ended.read_line() {
        assert!(
            line.contains("ok") || line.contains("session_ended"),
            "{line}"
        );
    }
    // The daemon stops.
    let data = json!({"user_id": user, "password": "s3cret"});
    trusted.ok("user", "update", data);
    let mut last = patient();
    assert!(daemon.terminate().success());
    let mut said = String::new();
    while let Some(line) = last.read_line() {
        said = line;
    }
    assert!(said.contains("shutdown"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(60), "it waited");
}
