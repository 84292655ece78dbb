//! Limits: each refuses what goes beyond it, says so, is counted, and lets the rest go on.

mod logins;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, wait_until};
use crate::lines::goes_on;

/// A trusted listener, one for logins, and these limits.
fn limited(limits: &str, security: &str) -> Daemon {
    Daemon::with(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n\
         [limits]\n{limits}\n[security]\nbcrypt_cost = 4\n{security}\n"
    ))
}

/// A connection to the listener for logins from the address 127.0.N.1.
fn from(daemon: &Daemon, network: u8) -> Client {
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, network, 1));
    Client::connect_from(source, daemon.address_of("login"))
}

/// How often a limit refused, as a trusted connection is told.
fn count(trusted: &mut Client, counter: &str) -> u64 {
    let info = trusted.ok("server", "info", json!({}));
    let count = info["counters"][counter].as_u64();
    count.unwrap_or_else(|| panic!("no {counter} in {info}"))
}

/// Asserts that a connection is refused with a line that says why.
fn is_refused(mut client: Client) {
    let line = client.next_value();
    assert_eq!(line["type"], "closed", "{line}");
    assert_eq!(line["body"]["code"], "too_many_connections", "{line}");
    assert_eq!(line["body"]["retry"], true, "{line}");
    client.expect_end();
}

/// Waits until a connection that failed before is served.
fn wait_for_place(mut connect: impl FnMut() -> Client) -> Client {
    let mut served = None;
    wait_until("a place", || {
        let mut client = connect();
        let answer = client.call_or_end("session", "ping", json!({}));
        let is_served = answer.is_some_and(|answer| answer["result"] == "ok");
        served = is_served.then_some(client);
        is_served
    });
    served.expect("a client")
}

#[test]
fn connections_in_total() {
    let daemon = limited("max_connections = 3", "");
    let mut clients = [daemon.client(), daemon.client(), from(&daemon, 1)];
    clients.iter_mut().for_each(goes_on);
    is_refused(daemon.client());
    is_refused(from(&daemon, 2));
    let [mut first, second, _third] = clients;
    assert_eq!(count(&mut first, "refused_max_connections"), 2);
    goes_on(&mut first);
    drop(second);
    wait_for_place(|| daemon.client());
}

#[test]
fn connections_of_one_address() {
    let daemon = limited("max_connections_per_address = 2", "");
    let mut trusted = daemon.client();
    let mut here = [from(&daemon, 1), from(&daemon, 1)];
    here.iter_mut().for_each(goes_on);
    is_refused(from(&daemon, 1));
    goes_on(&mut from(&daemon, 2));
    // Trusted connections are not counted by address.
    let mut more: Vec<Client> = (0..5).map(|_| daemon.client()).collect();
    more.iter_mut().for_each(goes_on);
    assert_eq!(
        count(&mut trusted, "refused_max_connections_per_address"),
        1
    );
    drop(here);
    wait_for_place(|| from(&daemon, 1));
}

#[test]
fn connections_on_which_nobody_is_logged_in() {
    let daemon = limited("max_connections_not_logged_in = 2", "");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let mut strangers = [from(&daemon, 1), from(&daemon, 2)];
    strangers.iter_mut().for_each(goes_on);
    is_refused(from(&daemon, 3));
    strangers[0].login("ann", "s3cret");
    let mut third = from(&daemon, 3);
    goes_on(&mut third);
    is_refused(from(&daemon, 4));
    third.login("ann", "s3cret");
    strangers[0].ok("session", "logout", json!({}));
    is_refused(from(&daemon, 4));
    let name = "refused_max_connections_not_logged_in";
    assert_eq!(count(&mut trusted, name), 3);
    drop(strangers);
    wait_for_place(|| from(&daemon, 4));
}

/// A user's connection from the address 127.0.N.1. All of them are the same user's.
fn user_from(daemon: &Daemon, network: u8) -> Client {
    let mut client = from(daemon, network);
    client.login("ann", "s3cret");
    client
}

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

#[test]
fn subscriptions_of_one_connection() {
    let daemon = limited("max_subscriptions = 3", "");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let mut client = from(&daemon, 1);
    client.login("ann", "s3cret");
    for name in ["a", "b", "c"] {
        client.subscribe(json!({"obj_id": name}));
    }
    let code = client.code("event", "subscribe", json!({"obj_id": "d"}));
    assert_eq!(code, "too_many_subscriptions");
    client.ok("event", "unsubscribe", json!({"obj_id": "a"}));
    client.subscribe(json!({"obj_id": "d"}));
    assert_eq!(count(&mut trusted, "refused_subscriptions"), 1);
    let shown = client.ok("event", "get_subscriptions", json!({}));
    assert_eq!(shown["subscriptions"].as_array().map(Vec::len), Some(3));
}

#[test]
fn time_without_a_login() {
    let daemon = limited("", "login_seconds = 1");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let timed_out = |mut client: Client| {
        let line = client.next_value();
        assert_eq!(line["body"]["code"], "login_timeout", "{line}");
        client.expect_end();
    };
    let mut user = from(&daemon, 1);
    user.login("ann", "s3cret");
    let mut stranger = from(&daemon, 1);
    goes_on(&mut stranger);
    timed_out(stranger);
    // The user came first, and is still there.
    goes_on(&mut user);
    user.ok("session", "logout", json!({}));
    timed_out(user);
    assert_eq!(count(&mut trusted, "login_timeouts"), 2);
}

#[test]
fn failed_logins_of_one_account_from_one_address() {
    let daemon = limited("", "failed_logins_per_minute = 3");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    trusted.create_user("ben");
    let mut client = from(&daemon, 1);
    let guess = json!({"login": "ANN", "password": "a guess"});
    for _ in 0..3 {
        assert_eq!(
            client.code("session", "login", guess.clone()),
            "login_failed"
        );
    }
    // Not even the right password gets through from here now …
    let right = json!({"login": "ann", "password": "s3cret"});
    let refused = client.error("session", "login", right);
    assert_eq!(refused["code"], "rate_limited");
    assert!(refused["retry_after_ms"].as_u64() > Some(1000), "{refused}");
    assert_eq!(count(&mut trusted, "limited_logins"), 1);
    assert_eq!(count(&mut trusted, "failed_logins"), 3);
    // … but it does from elsewhere, as another account does from here.
    from(&daemon, 2).login("ann", "s3cret");
    from(&daemon, 1).login("ben", "s3cret");
    trusted.login("ann", "s3cret");
    trusted.ok("session", "logout", json!({}));
    assert_eq!(count(&mut trusted, "logins"), 3);
}

#[test]
fn a_client_that_takes_nothing() {
    let daemon = limited("stalled_seconds = 1", "");
    let (mut trusted, mut stalled) = (daemon.client(), daemon.client());
    for _ in 0..2000 {
        stalled.request("server", "help", json!({}));
    }
    wait_until("the end of the stalled connection", || {
        count(&mut trusted, "stalled") == 1
    });
    wait_until("its place to be free", || {
        trusted.ok("server", "info", json!({}))["connections"] == 1
    });
}

#[test]
fn limits_are_shown_to_all_and_counters_to_those_who_run_the_server() {
    let daemon = limited("max_subscriptions = 17", "");
    let mut trusted = daemon.client();
    let chief = json!({"login": "chief", "name": "n", "password": "s3cret", "role": "admin"});
    trusted.ok("user", "create", chief);
    trusted.create_user("ann");
    let mut client = from(&daemon, 1);
    let mut info = |login: &str| {
        if !login.is_empty() {
            client.login(login, "s3cret");
        }
        client.ok("server", "info", json!({}))
    };
    let (stranger, user, admin) = (info(""), info("ann"), info("chief"));
    let all = trusted.ok("server", "info", json!({}));
    let names = |info: &Value| -> Vec<String> {
        info.as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(names(&stranger), ["limits", "protocol"]);
    for info in [&stranger, &user, &admin, &all] {
        assert_eq!(info["limits"]["max_subscriptions"], 17, "{info}");
        let may = info == &admin || info == &all;
        for name in [
            "counters",
            "connections",
            "users",
            "conversations",
            "messages",
        ] {
            assert_eq!(info.get(name).is_some(), may, "{name} in {info}");
        }
    }
    assert_eq!(names(&admin), names(&all));
}
