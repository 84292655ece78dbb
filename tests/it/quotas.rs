//! What one user may store in a day.

use crate::harness::{Client, Daemon, LOGINS};
use serde_json::{Value, json};

/// The login listener's configuration with these limits.
fn daemon(limits: &str) -> Daemon {
    Daemon::with(&LOGINS.replace("[limits]\n", &format!("[limits]\n{limits}\n")))
}

fn message(conversation: &str, user: &str, nonce: &str) -> Value {
    json!({"conversation_id": conversation, "user_id": user, "message": "hello", "nonce": nonce})
}

/// Asserts that a change is refused, and until when.
fn refused(client: &mut Client, subclass: &str, cmd: &str, data: Value) {
    let error = client.error(subclass, cmd, data);
    assert_eq!(error["code"], "quota_exceeded", "{subclass} {cmd}: {error}");
    let left_ms = error["retry_after_ms"].as_u64().unwrap();
    assert!((1..=86_400_000).contains(&left_ms), "{error}");
}

#[test]
fn a_user_stores_so_much_in_a_day_and_may_delete_all_the_same() {
    let daemon = daemon("rows_per_day_per_user = 6");
    let mut trusted = daemon.client();
    let [ann, ben] = ["ann", "ben"].map(|login| trusted.create_user(login));
    let mut client = daemon.user("ann");
    // The conversation and a member that is named, and each message.
    let lunch = client.create_conversation("lunch", &[&ben]);
    let first = client.ok("message", "create", message(&lunch, &ann, "1"))["message_id"].take();
    for nonce in ["2", "3", "4"] {
        client.ok("message", "create", message(&lunch, &ann, nonce));
    }
    let place = json!({"conversation_id": lunch, "message_id": first});
    let mut edit = place.clone();
    edit["message"] = json!("changed");
    // On whatever connection, also one that a back end made for it.
    let mut again = daemon.user("ann");
    let mut behalf = daemon.client();
    behalf.ok("session", "login", json!({"user_id": ann}));
    let token = trusted.ok(
        "session",
        "token_create",
        json!({"name": "bot", "user_id": ann}),
    );
    let mut bot = daemon.stranger();
    bot.ok("session", "login", json!({"token": token["token"]}));
    for client in [&mut client, &mut again, &mut behalf, &mut bot] {
        refused(client, "message", "create", message(&lunch, &ann, "5"));
        refused(client, "message", "update", edit.clone());
        refused(client, "conversation", "create", json!({"name": "another"}));
        let members = json!({"conversation_id": lunch, "user_ids": [ann]});
        client.ok("conversation", "add_members", members);
        refused(
            client,
            "user",
            "update",
            json!({"user_id": ann, "name": "Anne"}),
        );
        // What is there already stores nothing.
        let repeated = client.ok("message", "create", message(&lunch, &ann, "1"));
        assert_eq!(repeated["message_id"], first);
    }
    // Each has its own, and trusted connections store what they like in whose name they like.
    daemon
        .user("ben")
        .ok("message", "create", message(&lunch, &ben, "1"));
    for nonce in 10..20 {
        trusted.ok(
            "message",
            "create",
            message(&lunch, &ann, &nonce.to_string()),
        );
    }
    let members = json!({"conversation_id": lunch, "user_ids": [ben]});
    client.ok("message", "delete", place);
    client.ok("conversation", "remove_members", members.clone());
    refused(&mut client, "conversation", "add_members", members);
    client.ok("conversation", "delete", json!({"conversation_id": lunch}));
    client.ok("user", "delete", json!({"user_id": ann}));
}

#[test]
fn an_admin_stores_what_it_likes() {
    let daemon = daemon("rows_per_day_per_user = 1");
    let data = json!({"login": "root", "name": "root", "password": "s3cret", "role": "admin"});
    daemon.client().ok("user", "create", data);
    let mut admin = daemon.user("root");
    for _ in 0..5 {
        admin.create_conversation("lunch", &[]);
    }
}

#[test]
fn a_user_stores_so_many_bytes_in_a_day_and_others_their_own() {
    let daemon = daemon("bytes_per_day_per_user = 20000");
    let mut trusted = daemon.client();
    for (login, text_bytes) in [("ann", 8000), ("ben", 4000)] {
        let user = trusted.create_user(login);
        let conversation = trusted.create_conversation("lunch", &[&user]);
        let mut client = daemon.user(login);
        let text = "x".repeat(text_bytes);
        let data = json!({"conversation_id": conversation, "user_id": user, "message": text});
        // It is written twice: as a row, and in its event.
        for _ in 0..8000 / text_bytes {
            client.ok("message", "create", data.clone());
        }
        refused(&mut client, "message", "create", data);
    }
}
