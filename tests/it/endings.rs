//! What ends sessions: deleting a user, changing its password, deleting a token, `session stop` (the protocol's section 7).

mod expiry;
mod races;
mod twice;

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS};

/// What a user can be connected by: a password, a token, and a password on a trusted listener.
struct Sessions {
    daemon: Daemon,
    root: Client,
    ann: String,
    token: Value,
    by_password: Client,
    by_token: Client,
    trusted: Client,
    /// Another user's.
    of_ben: Client,
}

impl Sessions {
    fn new() -> Self {
        let daemon = Daemon::with(LOGINS);
        let mut root = daemon.client();
        let ann = root.create_user("ann@example.org");
        root.create_user("ben@example.org");
        let data = json!({"name": "bot", "user_id": ann});
        let token = root.ok("session", "token_create", data);
        let mut by_token = daemon.stranger();
        by_token.ok("session", "login", json!({"token": token["token"]}));
        let mut trusted = daemon.client();
        trusted.login("ann@example.org", "s3cret");
        Self {
            by_password: daemon.user("ann@example.org"),
            of_ben: daemon.user("ben@example.org"),
            daemon,
            root,
            ann,
            token,
            by_token,
            trusted,
        }
    }

    fn of_ann(&mut self) -> [&mut Client; 3] {
        [&mut self.by_password, &mut self.by_token, &mut self.trusted]
    }

    /// Nobody else's session was ended.
    fn others_go_on(&mut self) {
        self.of_ben.ok("session", "ping", json!({}));
        self.root.ok("session", "ping", json!({}));
    }
}

#[test]
fn deleting_a_user_ends_its_sessions() {
    let mut sessions = Sessions::new();
    let conversation = sessions
        .root
        .create_conversation("lunch", &[&sessions.ann.clone()]);
    for client in sessions.of_ann() {
        client.subscribe(json!({}));
    }
    let ann = json!({"user_id": sessions.ann});
    sessions.root.ok("user", "delete", ann);
    for client in sessions.of_ann() {
        // What it was to see of its own end, and then the end.
        let left = client.next_event();
        assert_eq!(
            (&left["type"], &left["obj_id"]),
            (&json!("removed_memebers"), &json!(conversation))
        );
        let deleted = client.next_event();
        assert_eq!(
            (&deleted["subclass"], &deleted["type"]),
            (&json!("user"), &json!("deleted"))
        );
        client.expect_session_ended();
    }
    sessions.others_go_on();
    for data in [
        json!({"token": sessions.token["token"]}),
        json!({"login": "ann@example.org", "password": "s3cret"}),
    ] {
        let mut client = sessions.daemon.stranger();
        assert_eq!(client.code("session", "login", data), "login_failed");
    }
}

#[test]
fn changing_a_password_ends_the_other_sessions_only() {
    const BY_TOKEN: usize = 1;
    for own in 0..3 {
        let mut sessions = Sessions::new();
        let data =
            json!({"user_id": sessions.ann, "password": "changed it", "old_password": "s3cret"});
        let of_ann = sessions.of_ann();
        if own == BY_TOKEN {
            assert_eq!(of_ann[own].code("user", "update", data), "forbidden");
            continue;
        }
        of_ann[own].ok("user", "update", data);
        for (number, client) in of_ann.into_iter().enumerate() {
            if number == own {
                client.ok("session", "ping", json!({}));
                client.ok("session", "token_list", json!({}));
            } else {
                client.expect_session_ended();
            }
        }
        sessions.others_go_on();
        let mut client = sessions.daemon.stranger();
        let old = json!({"login": "ann@example.org", "password": "s3cret"});
        assert_eq!(client.code("session", "login", old), "login_failed");
        client.login("ann@example.org", "changed it");
    }
    // By somebody else it ends all of them; and any other change ends none.
    let mut sessions = Sessions::new();
    let data = json!({"user_id": sessions.ann, "name": "Anna", "role": "admin"});
    sessions.root.ok("user", "update", data);
    for client in sessions.of_ann() {
        client.ok("session", "ping", json!({}));
    }
    let data = json!({"user_id": sessions.ann, "password": "changed"});
    sessions.root.ok("user", "update", data);
    for client in sessions.of_ann() {
        client.expect_session_ended();
    }
    sessions.others_go_on();
}

#[test]
fn deleting_a_token_ends_the_sessions_that_it_began() {
    let mut sessions = Sessions::new();
    let other = sessions
        .trusted
        .ok("session", "token_create", json!({"name": "other"}));
    let mut by_other = sessions.daemon.stranger();
    by_other.ok("session", "login", json!({"token": other["token"]}));
    let data = json!({"token_id": sessions.token["token_id"]});
    sessions.root.ok("session", "token_delete", data);
    sessions.by_token.expect_session_ended();
    for client in [
        &mut sessions.by_password,
        &mut sessions.trusted,
        &mut by_other,
    ] {
        client.ok("session", "ping", json!({}));
    }
    sessions.others_go_on();
}

#[test]
fn a_refused_change_ends_nothing() {
    let mut sessions = Sessions::new();
    let update = json!({"user_id": sessions.ann, "password": "changed"});
    let delete = json!({"user_id": sessions.ann});
    let token = json!({"token_id": sessions.token["token_id"]});
    let of_ben = &mut sessions.of_ben;
    assert_eq!(of_ben.code("user", "update", update.clone()), "forbidden");
    assert_eq!(of_ben.code("user", "delete", delete), "forbidden");
    assert_eq!(
        of_ben.code("session", "token_delete", token),
        "token_not_found"
    );
    let mut with_role = update;
    with_role["role"] = json!("admin");
    assert_eq!(
        sessions.by_password.code("user", "update", with_role),
        "forbidden"
    );
    for client in sessions.of_ann() {
        client.ok("session", "ping", json!({}));
    }
}

/// Sends requests at once, and gives the answers and whatever else comes, to the end of the connection.
fn pipelined(client: &mut Client, requests: &[(&str, &str, Value)]) -> Vec<Value> {
    let mut lines = String::new();
    for (subclass, cmd, data) in requests {
        let request = json!({"class": "chat", "subclass": subclass, "cmd": cmd, "data": data});
        lines.push_str(&request.to_string());
        lines.push('\n');
    }
    client.send_bytes(lines.as_bytes());
    std::iter::from_fn(|| client.read_line())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect()
}

#[test]
fn what_was_sent_behind_the_end_of_a_session_is_not_done() {
    for _ in 0..20 {
        let mut sessions = Sessions::new();
        let boss = json!({"user_id": sessions.ann, "role": "admin"});
        sessions.root.ok("user", "update", boss);
        let conversation = sessions
            .root
            .create_conversation("lunch", &[&sessions.ann.clone()]);
        let session = sessions.by_password.ok("session", "get", json!({}));
        let stop = json!({"session_id": session["session_id"]});
        let of_token = sessions.by_token.ok("session", "get", json!({}));
        let stop_token = json!({"session_id": of_token["session_id"]});
        let delete = json!({"user_id": sessions.ann});
        let before = sessions.root.ok("server", "info", json!({}))["seq"].take();
        let message = json!({"conversation_id": conversation, "message": "too late"});
        let new = json!({"login": "new@example.org", "name": "n", "password": "p"});
        let behind = [
            ("message", "create", message.clone()),
            ("conversation", "create", json!({"name": "too late"})),
            ("session", "token_create", json!({"name": "too late"})),
            ("user", "create", new),
            ("message", "search", json!({})),
            ("event", "subscribe", json!({"since": 0})),
            (
                "session",
                "login",
                json!({"login": "ben@example.org", "password": "s3cret"}),
            ),
            ("message", "create", message),
        ];
        let with = |first: (&'static str, &'static str, Value)| {
            let mut all = vec![first];
            all.extend(behind.iter().cloned());
            all
        };
        let enders = [
            (&mut sessions.by_password, with(("session", "stop", stop))),
            (
                &mut sessions.by_token,
                with(("session", "stop", stop_token)),
            ),
            (&mut sessions.trusted, with(("user", "delete", delete))),
        ];
        for (client, requests) in enders {
            let lines = pipelined(client, &requests);
            assert_eq!(lines[0]["result"], "ok", "{lines:?}");
            assert_eq!(lines[1]["body"]["code"], "session_ended", "{lines:?}");
            assert_eq!(lines.len(), 2, "{lines:?}");
        }
        // Taken out of the conversation, and deleted: two events, and none besides.
        let after = sessions.root.ok("server", "info", json!({}));
        assert_eq!(after["seq"].as_u64(), before.as_u64().map(|seq| seq + 2));
        assert_eq!(after["messages"], 0);
    }
}
