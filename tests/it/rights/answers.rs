//! What may not be seen is refused in the same words, to the byte, as what does not exist.

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS};

/// The answer to a request as it came, with `id` masked.
fn masked(client: &mut Client, subclass: &str, cmd: &str, data: &Value, id: &str) -> String {
    let request =
        json!({"class": "chat", "subclass": subclass, "cmd": cmd, "data": data, "tid": 1});
    client.send(&request);
    client.read_line().unwrap().replace(id, "ID")
}

/// Every request by which a user names an object that it might not see. `ID` stands for the object, `PLACE` for the
/// conversation of a message, `ANN` for the user itself, and `HOME` and `NOTE` for what is its own to see.
const REQUESTS: &str = r#"
conversation conversation get {"conversation_id":"ID"}
conversation conversation get_members {"conversation_id":"ID"}
conversation conversation update {"conversation_id":"ID"}
conversation conversation update {"conversation_id":"ID","name":"x"}
conversation conversation delete {"conversation_id":"ID"}
conversation conversation add_members {"conversation_id":"ID","user_ids":[]}
conversation conversation add_members {"conversation_id":"ID","user_ids":["ANN"]}
conversation conversation add_members {"conversation_id":"ID","user_ids":["zzz"]}
conversation conversation remove_members {"conversation_id":"ID","user_ids":["ANN"]}
conversation conversation remove_members {"conversation_id":"ID","user_ids":["zzz"]}
conversation conversation search {"filter":{"conversation_id":"ID"}}
conversation message create {"conversation_id":"ID","message":"x"}
conversation message create {"conversation_id":"ID","message":"x","nonce":"n"}
conversation message create {"conversation_id":"ID","message":"another","nonce":"n"}
conversation message create {"conversation_id":"ID","message":"x","user_id":"zzz"}
conversation message update {"conversation_id":"ID","message_id":"NOTE","message":"x"}
conversation message delete {"conversation_id":"ID","message_id":"NOTE"}
conversation message search {"filter":{"conversation_id":"ID"}}
conversation message search {"filter":{"conversation_id":["ID","ID"]},"total":false}
conversation event send {"type":"typing","obj_id":"ID"}
conversation event subscribe {"obj_id":"ID"}
conversation event unsubscribe {"obj_id":"ID"}
message message get {"message_id":"ID"}
message message update {"conversation_id":"PLACE","message_id":"ID","message":"x"}
message message update {"conversation_id":"HOME","message_id":"ID","message":"x"}
message message delete {"conversation_id":"PLACE","message_id":"ID"}
message message delete {"conversation_id":"HOME","message_id":"ID"}
message message search {"filter":{"message_id":"ID"}}
token session token_delete {"token_id":"ID"}
session session stop {"session_id":"ID"}
"#;

#[test]
fn what_may_not_be_seen_is_refused_like_what_does_not_exist() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let ann = root.create_user("ann@example.org");
    root.create_user("ben@example.org");
    let mut ben = daemon.stranger();
    let session = ben.login("ben@example.org", "s3cret");
    let hidden = ben.create_conversation("ben's", &[]);
    // One that the user was in, and wrote in.
    let left = ben.create_conversation("once ann's", &[&ann]);
    let mut client = daemon.stranger();
    client.login("ann@example.org", "s3cret");
    let home = client.create_conversation("ann's", &[]);
    let own = client.send_message(&home, &ann, "mine");
    let written = client.send_message(&left, &ann, "once mine");
    let nonce = json!({"conversation_id": left, "message": "x", "nonce": "n"});
    client.ok("message", "create", nonce);
    let leave = json!({"conversation_id": left, "user_ids": [ann]});
    client.ok("conversation", "remove_members", leave);
    let message = root.send_message(&hidden, &ann, "hidden");
    let gone = ben.create_conversation("gone", &[&ann]);
    let gone_message = root.send_message(&gone, &ann, "gone");
    ben.ok("conversation", "delete", json!({"conversation_id": gone}));
    let token = ben.ok("session", "token_create", json!({"name": "bot"}));
    let token = token["token_id"].as_str().unwrap();
    let mut compared = 0;
    for line in REQUESTS.trim().lines() {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap();
        let [object, subclass, cmd, data] = [word(), word(), word(), word()];
        // A made-up id, one that was given out and is gone, and those that are hidden.
        let ids = match object {
            "conversation" => vec!["01zzzzzzzzzzz", &gone, &hidden, &left],
            "message" => vec!["01zzzzzzzzzzz", &gone_message, &message, &written],
            "token" => vec!["01zzzzzzzzzzz", token],
            "session" => vec!["01zzzzzzzzzzz", &session],
            other => panic!("the object {other}"),
        };
        let mut answers = Vec::new();
        for id in ids {
            let place = if *id == written { &left } else { &hidden };
            let data = data
                .replace("ID", id)
                .replace("PLACE", place)
                .replace("ANN", &ann)
                .replace("HOME", &home)
                .replace("NOTE", &own);
            let data = serde_json::from_str(&data).unwrap();
            answers.push(masked(&mut client, subclass, cmd, &data, id));
        }
        for answer in &answers {
            assert_eq!(answer, &answers[0], "{line}: {answers:?}");
        }
        compared += 1;
    }
    assert_eq!(compared, 30);
    // What was hidden is still there, and none of this did anything to it.
    for conversation in [&hidden, &left] {
        root.ok(
            "conversation",
            "get",
            json!({"conversation_id": conversation}),
        );
    }
    for message in [&message, &written] {
        root.ok("message", "get", json!({"message_id": message}));
    }
}

#[test]
fn a_wrong_login_and_a_wrong_password_are_the_same() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let ann = root.create_user("ann@example.org");
    let token = root.ok(
        "session",
        "token_create",
        json!({"name": "bot", "user_id": ann}),
    );
    root.ok(
        "session",
        "token_delete",
        json!({"token_id": token["token_id"]}),
    );
    let mut client = daemon.stranger();
    let answers: Vec<String> = [
        json!({"login": "ann@example.org", "password": "wrong"}),
        json!({"login": "nobody@example.org", "password": "wrong"}),
        json!({"token": token["token"]}),
        json!({"token": format!("cht_{}", "0".repeat(64))}),
        json!({"token": "no token at all"}),
    ]
    .iter()
    .map(|data| masked(&mut client, "session", "login", data, "\0"))
    .collect();
    for answer in &answers {
        assert_eq!(answer, &answers[0]);
    }
    assert!(
        answers[0].contains(r#""code":"login_failed""#),
        "{answers:?}"
    );
}
