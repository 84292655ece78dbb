//! Who a connection is: it comes from the login, and from nothing that a request says.

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS};

use super::newest;

#[test]
fn a_user_id_in_a_request_is_data() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let ann = root.create_user("ann@example.org");
    let ben = root.create_user("ben@example.org");
    let boss = root.create_user("boss@example.org");
    root.ok("user", "update", json!({"user_id": boss, "role": "admin"}));
    let mut client = daemon.user("ann@example.org");
    root.subscribe(json!({"subclass": "conversation"}));
    let conversation = client.create_conversation("lunch", &[&ben]);
    let shown = client.ok(
        "conversation",
        "get",
        json!({"conversation_id": conversation}),
    );
    assert_eq!(shown["created_by"], ann);
    assert_eq!(shown["user_ids"], json!([ann, ben]));
    assert_eq!(root.next_event()["by"], ann);
    // Members both, and yet one cannot write, or take out, or look as the other.
    let as_ben = json!({"conversation_id": conversation, "user_id": ben, "message": "hello"});
    let refused = client.error("message", "create", as_ben.clone());
    assert_eq!(
        (&refused["code"], &refused["field"]),
        (&json!("forbidden"), &json!("user_id"))
    );
    assert_eq!(
        client.code("session", "token_list", json!({"user_id": ben})),
        "forbidden"
    );
    // Nor does saying the same twice help.
    let twice = format!(
        r#"{{"class":"chat","subclass":"message","cmd":"create","data":{{"conversation_id":"{conversation}","user_id":"{ann}","user_id":"{ben}","message":"x"}}}}"#
    );
    client.send_line(&twice);
    assert_eq!(client.next_value()["data"]["code"], "bad_request");
    // An admin may, and the event says who it was.
    let mut admin = daemon.user("boss@example.org");
    let message = admin.ok("message", "create", as_ben);
    let event = root.next_event();
    assert_eq!(
        (
            &event["by"],
            &event["body"]["user_id"],
            &event["body"]["message_id"]
        ),
        (&json!(boss), &json!(ben), &message["message_id"])
    );
    let own = json!({"conversation_id": conversation, "message": "hello"});
    admin.ok("message", "create", own);
    assert_eq!(root.next_event()["body"]["user_id"], boss);
    let created = admin.create_conversation("the boss's", &[]);
    let created = admin.ok("conversation", "get", json!({"conversation_id": created}));
    assert_eq!(created["created_by"], boss);
    assert_eq!(created["user_ids"], json!([boss]));
}

#[test]
fn roles_are_named_by_those_who_may_do_everything_alone() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let ann = root.create_user("ann@example.org");
    let mut client = daemon.user("ann@example.org");
    // Not even the role that it has.
    for role in ["admin", "user"] {
        let refused = client.error("user", "update", json!({"user_id": ann, "role": role}));
        assert_eq!(
            (&refused["code"], &refused["field"]),
            (&json!("forbidden"), &json!("role"))
        );
    }
    assert_eq!(client.ok("session", "get", json!({})).get("role"), None);
    root.ok("user", "update", json!({"user_id": ann, "role": "admin"}));
    // The session that was there has the rights from now on, and has them no more as soon as they are taken away.
    assert_eq!(client.ok("session", "get", json!({}))["role"], "admin");
    client.ok("session", "list", json!({}));
    let new = json!({"login": "new@example.org", "name": "n", "password": "p", "role": "admin"});
    client.ok("user", "create", new);
    root.ok("user", "update", json!({"user_id": ann, "role": "user"}));
    assert_eq!(client.code("session", "list", json!({})), "forbidden");
    assert_eq!(client.ok("session", "get", json!({})).get("role"), None);
    assert_eq!(
        client.code("user", "update", json!({"user_id": ann, "role": "admin"})),
        "forbidden"
    );
    // An admin can give up being one.
    root.ok("user", "update", json!({"user_id": ann, "role": "admin"}));
    client.ok("user", "update", json!({"user_id": ann, "role": "user"}));
    assert_eq!(client.code("session", "list", json!({})), "forbidden");
}

#[test]
fn a_closed_registration_lets_nobody_in() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let before = newest(&mut root);
    let mut client = daemon.stranger();
    for data in [
        json!({"login": "eve@example.org", "name": "Eve", "password": "s3cret"}),
        json!({"login": "eve@example.org", "name": "Eve", "password": "s3cret", "role": "admin"}),
        json!({"nonsense": 1}),
        json!({}),
    ] {
        assert_eq!(client.code("user", "create", data), "not_logged_in");
    }
    assert_eq!(newest(&mut root), before);
    assert_eq!(client.ok("session", "get", json!({})).get("user_id"), None);
}

#[test]
fn an_open_registration_makes_the_stranger_a_user_and_no_more() {
    let daemon = Daemon::with(&LOGINS.replace("[security]", "[security]\nregistration = \"open\""));
    let mut root = daemon.client();
    let taken = root.create_user("taken@example.org");
    let before = newest(&mut root);
    let mut client = daemon.stranger();
    let mut data = json!({"login": "eve@example.org", "name": "Eve", "password": "s3cret s3cret"});
    for role in ["admin", "user"] {
        data["role"] = json!(role);
        let refused = client.error("user", "create", data.clone());
        assert_eq!(refused["code"], "not_logged_in", "{refused}");
    }
    let other = json!({"login": "Taken@example.org", "name": "Eve", "password": "s3cret"});
    assert_eq!(client.code("user", "create", other), "login_taken");
    assert_eq!(newest(&mut root), before);
    assert_eq!(client.ok("session", "get", json!({})).get("user_id"), None);
    assert_eq!(
        client.code("user", "get", json!({"user_id": taken})),
        "not_logged_in"
    );
    data.as_object_mut().unwrap().remove("role");
    let eve = client.ok("user", "create", data.clone());
    let session = client.ok("session", "get", json!({}));
    assert_eq!(session["user_id"], eve["user_id"]);
    assert_eq!(session["login"], "eve@example.org");
    assert_eq!(session.get("role"), None);
    client.create_conversation("mine", &[&taken]);
    // Whoever is somebody already creates nobody.
    data["login"] = json!("mallory@example.org");
    assert_eq!(client.code("user", "create", data.clone()), "forbidden");
    // The password is the one that was given, and the others' sessions are untouched.
    daemon.stranger().login("eve@example.org", "s3cret s3cret");
    client.ok("session", "logout", json!({}));
    client.ok("user", "create", data);
}

#[test]
fn a_trusted_connection_that_logs_in_is_that_user_until_it_logs_out() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let ann = root.create_user("ann@example.org");
    let ben = root.create_user("ben@example.org");
    let conversation = root.create_conversation("ben's", &[&ben]);
    let get = json!({"conversation_id": conversation});
    let mut client = daemon.client();
    client.subscribe(json!({}));
    let first = client.ok("session", "get", json!({}));
    assert_eq!(first.get("user_id"), None);
    // A refusal leaves things as they were.
    let wrong = json!({"login": "ann@example.org", "password": "wrong"});
    assert_eq!(client.code("session", "login", wrong), "login_failed");
    client.ok("conversation", "get", get.clone());
    let session = client.login("ann@example.org", "s3cret");
    let second = client.ok("session", "get", json!({}));
    assert_eq!(second["user_id"], ann);
    assert_eq!(second["access"], "trusted");
    assert_eq!(second["session_id"], session);
    assert_ne!(first["session_id"], second["session_id"]);
    assert_eq!(
        client.ok("event", "get_subscriptions", json!({})),
        json!({"subscriptions": []})
    );
    assert_eq!(
        client.code("conversation", "get", get.clone()),
        "conversation_not_found"
    );
    assert_eq!(client.code("session", "list", json!({})), "forbidden");
    assert_eq!(
        client.code("user", "update", json!({"user_id": ben, "name": "x"})),
        "forbidden"
    );
    client.subscribe(json!({}));
    root.send_message(&conversation, &ben, "not for ann");
    client.no_more_events();
    client.ok("session", "logout", json!({}));
    let third = client.ok("session", "get", json!({}));
    assert_eq!(third.get("user_id"), None);
    assert_ne!(third["session_id"], second["session_id"]);
    assert_eq!(
        client.ok("event", "get_subscriptions", json!({})),
        json!({"subscriptions": []})
    );
    client.ok("conversation", "get", get);
    client.ok("session", "list", json!({}));
    root.send_message(&conversation, &ben, "nobody listens");
    client.no_more_events();
}

#[test]
fn a_login_replaces_the_session_before_it() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let ann = root.create_user("ann@example.org");
    let ben = root.create_user("ben@example.org");
    let of_ann = root.create_conversation("ann's", &[&ann]);
    let of_ben = root.create_conversation("ben's", &[&ben]);
    let mut client = daemon.user("ann@example.org");
    client.subscribe(json!({}));
    root.send_message(&of_ann, &ann, "one");
    assert_eq!(client.next_event()["body"]["message"], "one");
    client.login("ben@example.org", "s3cret");
    root.send_message(&of_ann, &ann, "two");
    client.no_more_events();
    client.subscribe(json!({"since": 0}));
    let seen: Vec<Value> = (0..3).map(|_| client.next_event()).collect();
    // Both users, and the conversation of the one that it is now.
    assert!(
        seen.iter()
            .all(|event| event["subclass"] == "user" || event["obj_id"] == of_ben),
        "{seen:?}"
    );
    client.ok("session", "logout", json!({}));
    assert_eq!(
        client.code("event", "get_subscriptions", json!({})),
        "not_logged_in"
    );
    root.send_message(&of_ben, &ben, "three");
    client.no_more_events();
}

#[test]
fn tokens_are_their_owners_alone() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    root.create_user("ann@example.org");
    let ben = root.create_user("ben@example.org");
    let mut client = daemon.user("ann@example.org");
    let token = client.ok("session", "token_create", json!({"name": "bot"}));
    let listed = client.ok("session", "token_list", json!({}));
    assert_eq!(listed["tokens"][0]["token_id"], token["token_id"]);
    assert_eq!(listed["tokens"][0].get("token"), None);
    let mut other = daemon.user("ben@example.org");
    assert_eq!(
        other.ok("session", "token_list", json!({})),
        json!({"tokens": []})
    );
    let mut bot = daemon.stranger();
    let login = json!({"token": token["token"]});
    bot.ok("session", "login", login.clone());
    assert_eq!(
        bot.ok("session", "get", json!({}))["login"],
        "ann@example.org"
    );
    // A token makes none, and a user none for others.
    for data in [
        json!({"name": "second"}),
        json!({"name": "third", "user_id": ben}),
    ] {
        assert_eq!(bot.code("session", "token_create", data), "forbidden");
    }
    let second = client.ok("session", "token_create", json!({"name": "second"}));
    let for_ben = json!({"name": "third", "user_id": ben});
    assert_eq!(client.code("session", "token_create", for_ben), "forbidden");
    // Nobody else's word ends it.
    let delete = json!({"token_id": token["token_id"]});
    assert_eq!(
        other.code("session", "token_delete", delete.clone()),
        "token_not_found"
    );
    bot.ok("session", "ping", json!({}));
    client.ok("session", "token_delete", delete);
    bot.expect_session_ended();
    client.ok("session", "ping", json!({}));
    assert_eq!(
        daemon.stranger().code("session", "login", login),
        "login_failed"
    );
    daemon
        .stranger()
        .ok("session", "login", json!({"token": second["token"]}));
}

#[test]
fn sessions_are_listed_and_stopped_by_admins() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let ann = root.create_user("ann@example.org");
    let boss = root.create_user("boss@example.org");
    root.ok("user", "update", json!({"user_id": boss, "role": "admin"}));
    let mut client = daemon.user("ann@example.org");
    let mut admin = daemon.user("boss@example.org");
    let mut nobody = daemon.stranger();
    nobody.ok("session", "ping", json!({}));
    let sessions = admin.ok("session", "list", json!({}));
    let sessions = sessions["sessions"].as_array().unwrap();
    let mut who: Vec<(&Value, Option<&Value>)> = sessions
        .iter()
        .map(|session| (&session["access"], session.get("user_id")))
        .collect();
    who.sort_by_key(|(access, user)| (access.to_string(), user.map(Value::to_string)));
    assert_eq!(
        who,
        [
            (&json!("login"), None),
            (&json!("login"), Some(&json!(ann))),
            (&json!("login"), Some(&json!(boss))),
            (&json!("trusted"), None),
        ]
    );
    let of_ann = sessions
        .iter()
        .find(|session| session["user_id"] == ann)
        .unwrap();
    assert_eq!(
        admin.code("session", "stop", json!({"session_id": "zzz"})),
        "session_not_found"
    );
    let stop = json!({"session_id": of_ann["session_id"]});
    admin.ok("session", "stop", stop.clone());
    client.expect_session_ended();
    // The session's id is of no use once more.
    client = daemon.user("ann@example.org");
    assert_eq!(admin.code("session", "stop", stop), "session_not_found");
    client.ok("session", "ping", json!({}));
    // An admin can stop itself: it is answered, and ended.
    let own = admin.ok("session", "get", json!({}));
    admin.ok("session", "stop", json!({"session_id": own["session_id"]}));
    admin.expect_session_ended();
}

#[test]
fn the_server_tells_each_what_concerns_it() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let ann = root.create_user("ann@example.org");
    let boss = root.create_user("boss@example.org");
    root.ok("user", "update", json!({"user_id": boss, "role": "admin"}));
    root.create_conversation("lunch", &[&ann]);
    let keys = |client: &mut Client| {
        let info = client.ok("server", "info", json!({}));
        let keys: Vec<String> = info.as_object().unwrap().keys().cloned().collect();
        keys.join(" ")
    };
    assert_eq!(keys(&mut daemon.stranger()), "limits protocol");
    let of_user = "epoch limits protocol uptime_seconds version";
    assert_eq!(keys(&mut daemon.user("ann@example.org")), of_user);
    let everything = "connections conversations counters epoch limits messages protocol seq uptime_seconds users version";
    assert_eq!(keys(&mut daemon.user("boss@example.org")), everything);
    assert_eq!(keys(&mut root), everything);
    let info = root.ok("server", "info", json!({}));
    assert_eq!(
        (&info["users"], &info["conversations"]),
        (&json!(2), &json!(1))
    );
}
