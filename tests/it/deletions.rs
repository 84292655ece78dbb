//! Large deletions as a client sees them: what is deleted is gone from the answer on, and everybody concerned is told.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::crash::CONFIG;
use crate::harness::{Client, Daemon, LOGINS};

/// Conversations of the user that is deleted: many slices of them.
const CONVERSATIONS: usize = 400;
/// Messages of the conversation that is deleted before.
const MESSAGES: usize = 4000;

/// Sends the same request many times and gives the answers' data.
fn many(client: &mut Client, subclass: &str, cmd: &str, data: &Value, count: usize) -> Vec<Value> {
    for _ in 0..count {
        client.request(subclass, cmd, data.clone());
    }
    let answers = (0..count).map(|_| client.next_value());
    answers.map(|answer| answer["data"].clone()).collect()
}

fn is_nowhere(client: &mut Client, ghost: &str, kept: &str) {
    let search = json!({"fields": ["user_ids", "member_count"], "size": 1000});
    let page = client.ok("conversation", "search", search);
    assert_eq!(page["total"], CONVERSATIONS);
    for row in page["data"].as_array().unwrap() {
        assert_eq!(row["user_ids"], json!([kept]));
        assert_eq!(row["member_count"], 1);
        let id = json!({"conversation_id": row["conversation_id"]});
        let members = client.ok("conversation", "get_members", id);
        assert_eq!(members, json!({"user_ids": [kept], "total": 1}));
    }
    let search = json!({"filter": {"user_ids": ghost}});
    let none = client.ok("conversation", "search", search);
    assert_eq!(none, json!({"total": 0, "data": []}));
    let code = client.code("user", "get", json!({"user_id": ghost}));
    assert_eq!(code, "user_not_found");
}

#[test]
fn a_deleted_user_is_in_no_list_while_another_deletion_goes_on_and_after_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    let mut client = daemon.client();
    let ghost = client.create_user("ghost@example.org");
    let kept = client.create_user("kept@example.org");
    let big = client.create_conversation("big", &[&kept]);
    let hello = json!({"conversation_id": big, "user_id": kept, "message": "hello"});
    many(&mut client, "message", "create", &hello, MESSAGES);
    let small = json!({"name": "small", "user_ids": [ghost, kept]});
    many(&mut client, "conversation", "create", &small, CONVERSATIONS);
    client.ok("conversation", "delete", json!({"conversation_id": big}));
    client.ok("user", "delete", json!({"user_id": ghost}));
    is_nowhere(&mut client, &ghost, &kept);
    daemon.kill();
    let daemon = Daemon::on_dir(directory.path(), CONFIG);
    let mut client = daemon.client();
    is_nowhere(&mut client, &ghost, &kept);
    // However it was interrupted, each conversation tells of it once.
    client.subscribe(json!({"type": "removed_members", "since": 0}));
    let mut told = BTreeSet::new();
    for _ in 0..CONVERSATIONS {
        let event = client.next_event();
        assert_eq!(event["body"], json!({"user_ids": [ghost]}));
        assert!(told.insert(event["obj_id"].to_string()), "twice: {event}");
    }
    client.no_more_events();
    is_nowhere(&mut client, &ghost, &kept);
}

/// Members of the conversation that is deleted: a few more than its event names.
const MEMBERS: usize = 1004;

#[test]
fn every_member_of_a_large_conversation_learns_of_its_deletion_on_resume() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), LOGINS);
    let mut client = daemon.client();
    for number in 0..=MEMBERS {
        let login = format!("{number}@example.org");
        let data = json!({"login": login, "name": login, "password": "s3cret"});
        client.request("user", "create", data);
    }
    let mut ids: Vec<String> = (0..=MEMBERS)
        .map(|_| {
            client.next_value()["data"]["user_id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    // Passwords are hashed side by side, so that the last to be asked for need not be the last to be made.
    let mut users: Vec<usize> = (0..=MEMBERS).collect();
    users.sort_by_key(|&user| ids[user].clone());
    let outsider = users.remove(0);
    let last = *users.last().unwrap();
    let first = users[0];
    ids.remove(outsider);
    let conversation = client.create_conversation("large", &[]);
    for some in ids.chunks(1000) {
        let data = json!({"conversation_id": conversation, "user_ids": some});
        client.ok("conversation", "add_members", data);
    }
    let seq = client.ok("server", "info", json!({}))["seq"].clone();
    let id = json!({"conversation_id": conversation});
    client.ok("conversation", "delete", id);
    for restarted in [false, true] {
        if restarted {
            daemon.kill();
            daemon = Daemon::on_dir(directory.path(), LOGINS);
        }
        for (user, is_told) in [(first, true), (last, true), (outsider, false)] {
            let mut resumed = daemon.stranger();
            resumed.login(&format!("{user}@example.org"), "s3cret");
            resumed.subscribe(json!({"since": seq, "position": true}));
            if is_told {
                let event = resumed.next_event();
                assert_eq!(
                    (&event["type"], &event["obj_id"]),
                    (&json!("deleted"), &json!(conversation))
                );
            }
            let event = resumed.next_event();
            assert_eq!(event["type"], "position", "{user} {event}");
        }
    }
}
