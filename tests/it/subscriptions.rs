//! Many subscriptions on one connection: they come and go with few lines, and a line costs what it changes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Daemon};

/// What `event get_subscriptions` lists.
fn listed(client: &mut Client) -> Vec<Value> {
    let answer = client.ok("event", "get_subscriptions", json!({}));
    let Value::Array(listed) = answer["subscriptions"].clone() else {
        panic!("a list, not {answer}")
    };
    listed
}

#[test]
fn thousands_of_types_of_one_object_come_and_go_with_a_line() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let object = "x".repeat(240);
    let types = |numbers: std::ops::Range<usize>| -> Vec<String> {
        numbers.map(|number| format!("t{number:04}")).collect()
    };
    for begin in [0, 3000, 6000] {
        let data = json!({"obj_id": object, "type": types(begin..begin + 3000)});
        client.ok("event", "subscribe", data);
    }
    assert_eq!(listed(&mut client).len(), 9000);
    let none = json!({"obj_id": object, "type": vec!["a"; 16_000]});
    client.ok("event", "unsubscribe", none);
    assert_eq!(listed(&mut client).len(), 9000);
    let most = json!({"obj_id": object, "type": types(1..8000)});
    client.ok("event", "unsubscribe", most);
    assert_eq!(listed(&mut client).len(), 1001);
}

#[test]
fn subscribing_again_at_the_limit_is_no_subscription_too_many() {
    let daemon = Daemon::with("[limits]\nmax_subscriptions = 3\n");
    let mut client = daemon.client();
    let some = json!({"obj_id": "a", "type": ["typing", "created", "*"]});
    client.subscribe(some.clone());
    client.subscribe(some.clone());
    let more = json!({"subscriptions": [some, {"obj_id": "b"}]});
    let code = client.code("event", "subscribe", more);
    assert_eq!(code, "too_many_subscriptions");
    client.ok("event", "unsubscribe", json!({"obj_id": "a"}));
    client.subscribe(json!({"obj_id": "b"}));
    assert_eq!(listed(&mut client).len(), 3);
}

#[test]
fn as_many_subscriptions_as_there_may_be_are_listed_in_no_more_than_they_count() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    // What is longest in JSON, beside what is usual.
    let texts = ["\u{1}", "\u{2028}", "\u{85}", "\"", "x"].map(|text| text.repeat(64 / text.len()));
    let mut made = 0;
    'all: loop {
        for text in &texts {
            let types: Vec<String> = (0..100).map(|n| format!("{made}.{n}{text}")).collect();
            let data = json!({"subclass": "conversation", "obj_id": text, "type": types});
            if client.call("event", "subscribe", data)["result"] == "error" {
                break 'all;
            }
            made += 100;
        }
    }
    assert!(made > 5000, "{made}");
    client.request("event", "get_subscriptions", json!({}));
    let line = client.read_line().expect("an answer");
    assert!(line.len() < 4_194_304, "{} bytes", line.len());
    let answer: Value = serde_json::from_str(&line).expect("JSON");
    let listed = answer["data"]["subscriptions"].as_array();
    let listed = listed.expect("a list");
    assert_eq!(listed.len(), made);
    for text in &texts {
        assert!(listed.iter().any(|one| one["obj_id"] == **text));
    }
}

#[test]
fn a_long_answer_is_charged_by_its_bytes() {
    let daemon = Daemon::with(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n\
         [limits]\nrequests_per_second = 100\n[security]\nbcrypt_cost = 4\n",
    );
    daemon.client().create_user("ann");
    let mut client = Client::connect(daemon.address_of("login"));
    client.login("ann", "s3cret");
    let types: Vec<String> = (0..5000).map(|number| format!("t{number:04}")).collect();
    client.subscribe(json!({"obj_id": "x".repeat(250), "type": types}));
    let begun = Instant::now();
    // Each is worth about 90 requests, and less than 450 may come at once.
    for _ in 0..7 {
        assert_eq!(listed(&mut client).len(), 5000);
    }
    assert!(begun.elapsed() > Duration::from_millis(800));
}

#[test]
fn a_connection_that_has_ended_all_its_subscriptions_does_not_resume() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    client.subscribe(json!({"obj_id": "a"}));
    client.ok("event", "unsubscribe", json!({"obj_id": "a"}));
    assert!(listed(&mut client).is_empty());
    // Its stream is at the newest event: what came before would be missed.
    let refused = client.error("event", "subscribe", json!({"since": 0}));
    assert_eq!(refused["code"], "bad_request");
    assert_eq!(refused["field"], "since");
    client.subscribe(json!({}));
}

#[test]
fn a_mistyped_type_of_user_events_is_refused_with_the_one_that_was_meant() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for (slip, meant) in [
        ("crated", "created"),
        ("Update", "updated"),
        ("deletd", "deleted"),
    ] {
        for data in [
            json!({"subclass": "user", "type": slip}),
            json!({"subclass": "user", "type": ["created", slip]}),
            json!({"subscriptions": [{"obj_id": "a"}, {"subclass": "user", "type": slip}]}),
        ] {
            let error = client.error("event", "subscribe", data.clone());
            assert_eq!(error["code"], "invalid_field", "{data}");
            assert_eq!(error["field"], "type", "{data}");
            let text = error["error"].as_str().unwrap();
            assert!(text.contains(&format!("did you mean {meant}?")), "{text}");
        }
    }
    assert_eq!(listed(&mut client), Vec::<Value>::new());
    // Conversations have types of applications, and what is far from every type is no slip.
    for data in [
        json!({"subclass": "conversation", "type": "crated"}),
        json!({"type": "crated"}),
        json!({"subclass": "user", "type": ["typing", "created_message", "*"]}),
    ] {
        client.ok("event", "subscribe", data);
    }
    client.ok(
        "event",
        "unsubscribe",
        json!({"subclass": "user", "type": "crated"}),
    );
}
