//! How lines travel: the protocol's section 1, down to the byte.

use std::io::Write;
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Client, Daemon};

const PING: &str = r#"{"class":"chat","subclass":"session","cmd":"ping","tid":1}"#;
const PONG: &str = r#"{"result":"ok","data":{},"tid":1}"#;

/// Sends a line and gives the answer.
pub fn ask(client: &mut Client, line: &str) -> Value {
    client.send_line(line);
    client.next_value()
}

/// Asserts that a line is refused with this code and, where it is not empty, this field.
pub fn refused(client: &mut Client, line: &str, code: &str, field: &str) -> Value {
    let answer = ask(client, line);
    assert_eq!(
        answer["result"], "error",
        "{line} was answered with {answer}"
    );
    assert_eq!(
        answer["data"]["code"], code,
        "{line} was answered with {answer}"
    );
    if !field.is_empty() {
        assert_eq!(
            answer["data"]["field"], field,
            "{line} was answered with {answer}"
        );
    }
    assert!(
        answer["data"]["error"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "no text in {answer}"
    );
    answer
}

/// Asserts that the connection goes on as if nothing had happened.
pub fn goes_on(client: &mut Client) {
    client.send_line(PING);
    assert_eq!(client.read_line().as_deref(), Some(PONG));
}

/// A ping whose line is exactly so many bytes long, without its end.
fn ping_of(bytes: usize) -> String {
    let frame = r#"{"class":"chat","subclass":"session","cmd":"ping","data":{"text":""},"tid":1}"#;
    frame.replace(
        r#""text":"""#,
        &format!(r#""text":"{}""#, "x".repeat(bytes - frame.len())),
    )
}

#[test]
fn ten_thousand_requests_in_one_write_are_answered_in_order() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let requests: Vec<String> = (0..10_000)
        .map(|tid| {
            format!(
                "{{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\",\"tid\":{tid}}}\n"
            )
        })
        .collect();
    // Nothing is read until everything is written: the daemon must hold all of the answers meanwhile.
    client.send_bytes(requests.concat().as_bytes());
    for tid in 0..10_000 {
        assert_eq!(
            client.read_line(),
            Some(format!(r#"{{"result":"ok","data":{{}},"tid":{tid}}}"#))
        );
    }
    client.no_more_events();
}

#[test]
fn pipelining_more_than_may_wait_holds_the_sender_back_and_loses_nothing() {
    let daemon = Daemon::with("[limits]\nmax_pending_bytes = 65536\n");
    let mut client = daemon.client();
    let mut sender = client.sender();
    let padding = "x".repeat(2000);
    // Some 20 MB either way, more than any buffer in between: the daemon has to stop reading, and to start again.
    let writing = thread::spawn(move || {
        for tid in 0..10_000 {
            let line = json!({"class": "chat", "subclass": "session", "cmd": "ping", "data": {"p": padding}, "tid": tid});
            sender.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
    });
    for tid in 0..10_000 {
        let answer = client.next_value();
        assert_eq!(
            (&answer["result"], &answer["tid"]),
            (&json!("ok"), &json!(tid))
        );
    }
    writing.join().unwrap();
}

#[test]
fn pipelined_requests_take_effect_in_the_order_sent() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let user = client.create_user("ann@example.org");
    let conversation = client.create_conversation("talk", &[&user]);
    let filter = json!({"conversation_id": conversation});
    for number in 0..500 {
        client.request(
            "message",
            "create",
            json!({"conversation_id": conversation, "user_id": user, "message": format!("{number}")}),
        );
        client.request("message", "search", json!({"filter": filter, "size": 0}));
    }
    let mut previous = String::new();
    for number in 0..500 {
        let created = client.next_value();
        let message_id = created["data"]["message_id"]
            .as_str()
            .unwrap_or_else(|| panic!("{created}"))
            .to_owned();
        assert!(previous < message_id, "ids rise: {previous}, {message_id}");
        previous = message_id;
        assert_eq!(
            client.next_value()["data"],
            json!({"data": [], "total": number + 1})
        );
    }
}

#[test]
fn a_response_comes_before_the_events_that_its_request_caused() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    client.subscribe(json!({}));
    for number in 0..50 {
        client.request(
            "user",
            "create",
            json!({"login": format!("{number}@example.org"), "name": "n", "password": "p"}),
        );
        let answer = client.next_value();
        let event = client.next_value();
        assert_eq!(
            event["obj_id"], answer["data"]["user_id"],
            "{answer} then {event}"
        );
    }
}

#[test]
fn a_half_closed_connection_gets_every_answer_and_then_ends() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for number in 0..100 {
        client.request(
            "user",
            "create",
            json!({"login": format!("{number}@example.org"), "name": "n", "password": "p"}),
        );
    }
    client.shutdown_write();
    for tid in 1..=100 {
        let answer = client.next_value();
        assert_eq!(
            (&answer["result"], &answer["tid"]),
            (&json!("ok"), &json!(tid)),
            "{answer}"
        );
    }
    client.expect_end();
}

#[test]
fn a_half_closed_connection_with_a_subscription_goes_on_streaming() {
    let daemon = Daemon::start();
    let mut subscriber = daemon.client();
    subscriber.request("event", "subscribe", json!({"subclass": "user"}));
    subscriber.shutdown_write();
    assert_eq!(subscriber.next_value()["result"], "ok");
    let mut client = daemon.client();
    for number in 0..10 {
        let user = client.create_user(&format!("{number}@example.org"));
        assert_eq!(subscriber.next_event()["obj_id"], user);
    }
}

#[test]
fn an_over_long_line_is_skipped_and_the_request_behind_it_works() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for length in [65_537, 200_000, 10_000_000] {
        client.send_bytes(format!("{}\n{PING}\n", ping_of(length)).as_bytes());
        let answer = client.next_value();
        assert_eq!(
            (&answer["result"], &answer["data"]["code"]),
            (&json!("error"), &json!("line_too_long")),
            "{answer}"
        );
        assert_eq!(answer.get("tid"), None, "{answer}");
        assert_eq!(client.read_line().as_deref(), Some(PONG));
    }
    assert_eq!(
        ask(&mut client, &ping_of(65_536))["result"],
        "ok",
        "a line of exactly max_line_bytes"
    );
}

#[test]
fn an_over_long_last_line_without_an_end_is_answered_too() {
    let daemon = Daemon::with("[limits]\nmax_line_bytes = 32768\n");
    let mut client = daemon.client();
    client.send_bytes(ping_of(40_000).as_bytes());
    client.shutdown_write();
    assert_eq!(client.next_value()["data"]["code"], "line_too_long");
    client.expect_end();
}

#[test]
fn what_is_not_json_or_not_utf8_is_bad_json() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    // A first line that does not begin as a request does would close the connection.
    goes_on(&mut client);
    for line in [
        "hello",
        "{",
        "{\"class\":\"chat\"",
        "{'class':'chat'}",
        "{\"class\":\"chat\",}",
        "{} {}",
        "nul",
        "\"a\u{1}b\"",
        "[1,]",
    ] {
        let answer = refused(&mut client, line, "bad_json", "");
        assert_eq!(answer.get("tid"), None, "{answer}");
    }
    for bytes in [
        &b"\xff\n"[..],
        b"{\"class\":\"ch\xc3\"}\n",
        b"{\"a\":\"\xc0\x80\"}\n",
        b"\x00\n",
        b"{\"a\":\"\xed\xa0\x80\"}\n",
    ] {
        client.send_bytes(bytes);
        assert_eq!(client.next_value()["data"]["code"], "bad_json", "{bytes:?}");
    }
    goes_on(&mut client);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for byte in format!("{PING}\n").bytes() {
        client.send_bytes(&[byte]);
    }
    assert_eq!(client.read_line().as_deref(), Some(PONG));
}

#[test]
fn carriage_returns_and_blank_lines_are_ignored() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    client.send_bytes(format!("\r\n\n\r\n\n{PING}\r\n\n\r\n{PING}\n\n").as_bytes());
    client.shutdown_write();
    assert_eq!(client.read_line().as_deref(), Some(PONG));
    assert_eq!(client.read_line().as_deref(), Some(PONG));
    client.expect_end();
}

#[test]
fn a_last_line_without_an_end_counts() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    client.send_bytes(format!("{PING}\n{PING}").as_bytes());
    client.shutdown_write();
    assert_eq!(client.read_line().as_deref(), Some(PONG));
    assert_eq!(client.read_line().as_deref(), Some(PONG));
    client.expect_end();
}

#[test]
fn a_connection_without_a_request_ends_quietly() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    client.shutdown_write();
    client.expect_end();
}

#[test]
fn a_line_that_looks_like_http_closes_the_connection() {
    let daemon = Daemon::start();
    let browsers = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\n",
        "POST /x\n",
        "POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        "Host: a\n",
    ];
    for request in browsers {
        for before in ["", "a ping\n"] {
            let mut client = daemon.client();
            if !before.is_empty() {
                goes_on(&mut client);
            }
            // Whatever a web page smuggles in behind its headers must not be heard.
            client.send_bytes(format!("{request}{PING}\n").as_bytes());
            let closed = client.next_value();
            let kind = (
                &closed["class"],
                &closed["subclass"],
                &closed["type"],
                &closed["body"]["code"],
            );
            assert_eq!(
                kind,
                (
                    &json!("chat"),
                    &json!("session"),
                    &json!("closed"),
                    &json!("http")
                ),
                "{request:?}: {closed}"
            );
            assert!(
                closed["body"]["error"].is_string() && closed["body"]["retry"].is_boolean(),
                "{closed}"
            );
            client.expect_end();
        }
    }
}

#[test]
fn a_connection_that_ends_inside_an_answer_harms_nobody() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for _ in 0..20 {
        let mut rude = daemon.client();
        rude.send_bytes(format!("{}\n", ping_of(60_000)).repeat(50).as_bytes());
        drop(rude);
        goes_on(&mut client);
    }
}

/// Node's readline and Python's splitlines cut a line at these characters.
#[test]
fn a_line_is_one_line_for_readers_that_know_more_line_ends() {
    const ENDS: &str = "a\u{85}b\u{2028}c\u{2029}d";
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let ann = client.create_user("ann@example.org");
    let lunch = client.create_conversation("lunch", &[&ann]);
    client.subscribe(json!({}));
    let mut events = Vec::new();
    // The client of the tests refuses a line that has one of them.
    let requests = [
        ("session", "ping", json!({ ENDS: [ENDS] })),
        (
            "message",
            "create",
            json!({"conversation_id": lunch, "user_id": ann, "message": ENDS}),
        ),
        (
            "conversation",
            "update",
            json!({"conversation_id": lunch, "description": ENDS}),
        ),
        (
            "event",
            "send",
            json!({"type": "typing", "obj_id": lunch, "body": {ENDS: ENDS}}),
        ),
        ("user", "get", json!({"user_id": ENDS})),
        ("user", "get", json!({ ENDS: 1 })),
        (
            "message",
            "search",
            json!({"filter": {"message": {"match": "b c"}}, "fields": "_all"}),
        ),
        ("conversation", "get", json!({"conversation_id": lunch})),
        ("server", ENDS, json!({})),
    ];
    for (subclass, cmd, data) in requests {
        let request =
            json!({"class": "chat", "subclass": subclass, "cmd": cmd, "data": data, "tid": ENDS});
        client.send(&request);
        let answer = loop {
            let value = client.next_value();
            if value.get("result").is_some() {
                break value;
            }
            events.push(value);
        };
        assert_eq!(answer["tid"], ENDS, "{answer}");
        match (subclass, cmd) {
            ("session", _) => assert_eq!(answer["data"], data),
            ("message", "search") => assert_eq!(answer["data"]["data"][0]["message"], ENDS),
            ("conversation", "get") => assert_eq!(answer["data"]["description"], ENDS),
            _ => {}
        }
    }
    let event = |kind: &str| {
        let mut events = events.iter();
        events.find(|event| event["type"] == kind).unwrap().clone()
    };
    let message = event("created_message");
    assert_eq!(message["body"]["message"], ENDS);
    assert_eq!(event("typing")["body"], json!({ ENDS: ENDS }));
    refused(&mut client, "{\"class\":\"chat\" \u{2028}}", "bad_json", "");
    refused(
        &mut client,
        &format!("{{\"tid\":{{\"{ENDS}\":1}}}}"),
        "invalid_field",
        "tid",
    );
    // The stored event once more.
    let mut client = daemon.client();
    client.subscribe(json!({"since": 2, "type": "created_message"}));
    assert_eq!(client.next_event(), message);
}
