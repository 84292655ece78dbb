//! What becomes of events that are older than `events.keep`, and how a client learns where it stands.

use serde_json::{Value, json};

use crate::harness::clocked::{Clocked, Room};

/// A small buffer, so that a client that does not read is soon behind.
const CONFIG: &str =
    "[limits]\nmax_pending_bytes = 4096\n[events]\nkeep = \"7d\"\n[security]\nbcrypt_cost = 4\n";
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn seq(event: &Value) -> u64 {
    event["seq"].as_u64().unwrap_or_else(|| panic!("{event}"))
}

#[test]
fn expired_events_are_refused_with_what_is_there() {
    let server = Clocked::with(CONFIG);
    let mut room = Room::new(&server);
    server.clock.advance(4 * DAY_MS);
    room.write("after four days");
    room.write("and another");
    server.clock.advance(3 * DAY_MS);
    let mut client = server.client();
    // Seven days to the millisecond: everything is still there.
    let (newest, epoch) = client.subscribe(json!({"since": 0}));
    assert_eq!(newest, 4);
    assert_eq!(seq(&client.next_event()), 1);
    server.clock.advance(1);
    let mut client = server.client();
    let expired = json!({"oldest": 3, "seq": 4, "epoch": epoch});
    let check = |refused: Value| {
        assert_eq!(refused["code"], "events_expired", "{refused}");
        for (name, value) in expired.as_object().unwrap() {
            assert_eq!(&refused[name], value, "{name} of {refused}");
        }
    };
    check(client.error("event", "subscribe", json!({"since": 0})));
    check(client.error("event", "subscribe", json!({"since": 1, "epoch": epoch})));
    check(client.error("event", "subscribe", json!({"since": 5})));
    let other_log = json!({"since": 3, "epoch": "0000000000001"});
    check(client.error("event", "subscribe", other_log));
    // Nothing was subscribed by any of these.
    let none = client.ok("event", "get_subscriptions", json!({}));
    assert_eq!(none, json!({"subscriptions": []}));
    room.write("nobody hears this");
    client.no_more_events();
    client.subscribe(json!({"since": 2, "epoch": epoch}));
    for expected in 3..=5 {
        assert_eq!(seq(&client.next_event()), expected);
    }
    // With everything expired, a client that has it all resumes, and one that has not does not.
    server.clock.advance(8 * DAY_MS);
    let mut client = server.client();
    let refused = client.error("event", "subscribe", json!({"since": 4}));
    assert_eq!(
        (&refused["oldest"], &refused["seq"]),
        (&json!(6), &json!(5))
    );
    client.subscribe(json!({"since": 5}));
    room.write("live");
    assert_eq!(seq(&client.next_event()), 6);
}

#[test]
fn a_subscriber_that_falls_behind_what_is_kept_is_told_of_the_gap() {
    let server = Clocked::with(CONFIG);
    let mut room = Room::new(&server);
    let mut slow = server.client();
    slow.subscribe(json!({}));
    // More than the socket and the server's buffer hold together.
    let long = "x".repeat(16_000);
    for _ in 0..200 {
        room.write(&long);
    }
    server.clock.advance(8 * DAY_MS);
    for _ in 0..3 {
        room.write("kept");
    }
    let mut last = 2;
    let gap = loop {
        let event = slow.next_event();
        if event["type"] == "gap" {
            break event;
        }
        assert_eq!(seq(&event), last + 1);
        last += 1;
    };
    assert!((3..202).contains(&last), "{last}");
    assert_eq!(gap["subclass"], "event");
    assert_eq!(gap["body"], json!({"from": last + 1, "to": 202}));
    for expected in 203..=205 {
        assert_eq!(seq(&slow.next_event()), expected);
    }
    room.write("live");
    assert_eq!(seq(&slow.next_event()), 206);
    slow.no_more_events();
    // What the gap says is what to resume from.
    let mut resumed = server.client();
    resumed.subscribe(json!({"since": 202}));
    assert_eq!(seq(&resumed.next_event()), 203);
}

#[test]
fn a_gap_that_nothing_follows_ends_at_the_newest_event() {
    let server = Clocked::with(CONFIG);
    let mut room = Room::new(&server);
    let mut slow = server.client();
    slow.subscribe(json!({}));
    let long = "x".repeat(16_000);
    for _ in 0..200 {
        room.write(&long);
    }
    server.clock.advance(8 * DAY_MS);
    let gap = loop {
        let event = slow.next_event();
        if event["type"] == "gap" {
            break event;
        }
    };
    assert_eq!(gap["body"]["to"], 202);
    room.write("live");
    assert_eq!(seq(&slow.next_event()), 203);
    slow.no_more_events();
}

#[test]
fn a_position_comes_when_caught_up_and_once_a_minute_while_the_log_moves_on() {
    let server = Clocked::with(CONFIG);
    let mut room = Room::new(&server);
    let position = |event: &Value, expected: u64| {
        assert_eq!(event["class"], "chat", "{event}");
        assert_eq!(event["subclass"], "event", "{event}");
        assert_eq!(event["type"], "position", "{event}");
        assert_eq!(seq(event), expected, "{event}");
    };
    let mut quiet = server.client();
    quiet.subscribe(json!({"subclass": "user", "position": true}));
    position(&quiet.next_event(), 2);
    room.write("nothing of its subclass");
    server.clock.advance(60_000);
    position(&quiet.next_event(), 3);
    // An event of its own tells a position as well, so the next minute begins there.
    server.clock.advance(30_000);
    room.client.create_user("bob@example.org");
    assert_eq!(seq(&quiet.next_event()), 4);
    room.write("nothing of its subclass");
    server.clock.advance(60_000);
    position(&quiet.next_event(), 5);
    // One that resumes is told when it has everything.
    let mut resumed = server.client();
    resumed.subscribe(json!({"subclass": "user", "since": 0, "position": true}));
    assert_eq!(seq(&resumed.next_event()), 1);
    assert_eq!(seq(&resumed.next_event()), 4);
    position(&resumed.next_event(), 5);
    // One that did not ask is told nothing.
    let mut other = server.client();
    other.subscribe(json!({"subclass": "user"}));
    room.write("nothing of its subclass");
    server.clock.advance(60_000);
    position(&quiet.next_event(), 6);
    position(&resumed.next_event(), 6);
    other.no_more_events();
}
