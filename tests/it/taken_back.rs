//! Stored events show the present: a text that was deleted or changed is handed to nobody who resumes.

use serde_json::{Value, json};

use crate::harness::clocked::Clocked;
use crate::harness::{Client, Daemon, LOGINS};

/// The events of a stream that are about messages, up to number `seq`.
fn messages_up_to(client: &mut Client, seq: u64) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let event = client.next_event();
        let last = event["seq"] == seq;
        if event["body"]["message_id"].is_string() {
            events.push(event);
        }
        if last {
            return events;
        }
    }
}

#[test]
fn deleted_and_changed_texts_are_not_handed_to_members_that_were_added_later() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), LOGINS);
    let mut client = daemon.client();
    let mut watcher = daemon.client();
    watcher.subscribe(json!({}));
    let ann = client.create_user("ann@example.org");
    let bob = client.create_user("bob@example.org");
    let lunch = client.create_conversation("lunch", &[&ann]);
    let other = client.create_conversation("other", &[&ann, &bob]);
    let deleted = client.send_message(&lunch, &ann, "a secret, deleted");
    let changed = client.send_message(&lunch, &ann, "a secret, changed");
    let restored = client.send_message(&lunch, &ann, "there and back");
    client.send_message(&lunch, &ann, "kept");
    let gone = client.send_message(&other, &ann, "a secret, gone with its conversation");
    let mut update = |message: &str, text: &str| {
        let data = json!({"conversation_id": lunch, "message_id": message, "message": text});
        client.ok("message", "update", data);
    };
    update(&changed, "a secret, changed again");
    update(&changed, "harmless");
    update(&restored, "somewhere");
    update(&restored, "there and back");
    let data = json!({"conversation_id": lunch, "message_id": deleted});
    client.ok("message", "delete", data);
    client.ok("conversation", "delete", json!({"conversation_id": other}));
    let data = json!({"conversation_id": lunch, "user_ids": [bob]});
    client.ok("conversation", "add_members", data);
    let seq = client.ok("server", "info", json!({}))["seq"]
        .as_u64()
        .unwrap();
    // Live, all of it was shown as it was.
    let live = messages_up_to(&mut watcher, seq);
    let stands = ["harmless", "there and back", "kept"];
    let expected = |shown: &dyn Fn(&Value) -> bool| -> Vec<Value> {
        let events = live.iter().filter(|event| shown(event)).cloned();
        let now = |mut event: Value| {
            if let Some(text) = event["body"].get("message")
                && !stands.contains(&text.as_str().unwrap())
            {
                event["body"].as_object_mut().unwrap().remove("message");
            }
            event
        };
        events.map(now).collect()
    };
    assert!(live.iter().any(|event| event["body"]["message_id"] == gone));
    for restarted in [false, true] {
        if restarted {
            daemon.kill();
            daemon = Daemon::on_dir(directory.path(), LOGINS);
        }
        for _ in 0..2 {
            let mut late = daemon.stranger();
            late.login("bob@example.org", "s3cret");
            late.subscribe(json!({"since": 0}));
            let of_lunch = |event: &Value| event["obj_id"] == *lunch;
            assert_eq!(messages_up_to(&mut late, seq), expected(&of_lunch));
            let mut trusted = daemon.client();
            trusted.subscribe(json!({"since": 0}));
            assert_eq!(messages_up_to(&mut trusted, seq), expected(&|_| true));
        }
    }
}

#[test]
fn what_is_taken_back_after_a_resume_is_not_in_the_next_one() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let ann = client.create_user("ann@example.org");
    let lunch = client.create_conversation("lunch", &[&ann]);
    let message = client.send_message(&lunch, &ann, "first");
    let resumed = || {
        let mut client = daemon.client();
        client.subscribe(json!({"since": 2, "type": ["created_message", "updated_message"]}));
        client
    };
    let texts = |count: usize| -> Vec<Value> {
        let mut client = resumed();
        (0..count)
            .map(|_| client.next_event()["body"]["message"].clone())
            .collect()
    };
    assert_eq!(texts(1), [json!("first")]);
    let change =
        |text: &str| json!({"conversation_id": lunch, "message_id": message, "message": text});
    client.ok("message", "update", change("second"));
    assert_eq!(texts(2), [Value::Null, json!("second")]);
    assert_eq!(texts(2), [Value::Null, json!("second")]);
    client.ok("message", "update", change("first"));
    assert_eq!(texts(3), [json!("first"), Value::Null, json!("first")]);
    client.ok("conversation", "delete", json!({"conversation_id": lunch}));
    assert_eq!(texts(3), [Value::Null, Value::Null, Value::Null]);
}

#[test]
fn a_slow_subscriber_gets_no_text_that_was_taken_back_before_it_read() {
    let server = Clocked::with("[limits]\nmax_pending_bytes = 4096\n[security]\nbcrypt_cost = 4\n");
    let mut client = server.client();
    let ann = client.create_user("ann@example.org");
    let lunch = client.create_conversation("lunch", &[&ann]);
    let mut slow = server.client();
    slow.subscribe(json!({}));
    // More than the socket and the server's buffer hold together.
    let long = "x".repeat(16_000);
    for _ in 0..100 {
        client.send_message(&lunch, &ann, &long);
    }
    let secret = client.send_message(&lunch, &ann, "a secret");
    let data = json!({"conversation_id": lunch, "message_id": secret});
    client.ok("message", "delete", data);
    let event = loop {
        let event = slow.next_event();
        if event["body"]["message_id"] == *secret {
            break event;
        }
        assert_eq!(event["body"]["message"], *long);
    };
    assert_eq!(event["type"], "created_message");
    assert_eq!(event["body"].get("message"), None, "{event}");
    assert_eq!(event["body"]["user_id"], *ann);
    assert_eq!(slow.next_event()["type"], "deleted_message");
}
