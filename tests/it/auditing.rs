//! The audit log tells an operator who did what to whom.

mod closings;

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS};

/// The audit lines that the daemon has written so far.
fn lines(daemon: &Daemon) -> Vec<Value> {
    let log = daemon.log();
    let audited = log.lines().filter_map(|line| line.split_once(" audit: "));
    audited
        .map(|(_, json)| serde_json::from_str(json).expect("an audit line of JSON"))
        .collect()
}

/// What `act` adds to the audit log, without what differs from run to run.
fn added(daemon: &Daemon, act: impl FnOnce()) -> Vec<Value> {
    let before = lines(daemon).len();
    act();
    let mut added = lines(daemon).split_off(before);
    for line in &mut added {
        let line = line.as_object_mut().unwrap();
        line.remove("session_id");
        line.remove("remote");
    }
    added
}

/// Users that can log in with `s3cret`: an admin, and two more in a conversation with a message.
struct Cast {
    daemon: Daemon,
    admin: String,
    ann: String,
    ben: String,
    lunch: String,
    message: String,
}

impl Cast {
    fn start() -> Self {
        let daemon = Daemon::with(LOGINS);
        let mut trusted = daemon.client();
        let admin = json!({"login": "admin", "name": "n", "password": "s3cret", "role": "admin"});
        let admin = trusted.ok("user", "create", admin)["user_id"].clone();
        let (ann, ben) = (trusted.create_user("ann"), trusted.create_user("ben"));
        let lunch = trusted.create_conversation("lunch", &[&ann, &ben]);
        let message = trusted.send_message(&lunch, &ann, "hello");
        Self {
            daemon,
            admin: admin.as_str().unwrap().to_owned(),
            ann,
            ben,
            lunch,
            message,
        }
    }

    fn admin(&self) -> Client {
        self.daemon.user("admin")
    }
}

#[test]
fn the_audit_log_tells_which_role_was_given_and_which_one_was_before() {
    let cast = Cast::start();
    let mut admin = cast.admin();
    let by = &cast.admin;
    let made = added(&cast.daemon, || {
        admin.ok(
            "user",
            "update",
            json!({"user_id": cast.ann, "role": "admin"}),
        );
        admin.ok(
            "user",
            "update",
            json!({"user_id": cast.ann, "name": "Ann"}),
        );
    });
    let expected = json!([
        {"event": "user update", "result": "ok", "by": by, "object": cast.ann, "role": "admin", "role_before": "user"},
        {"event": "user update", "result": "ok", "by": by, "object": cast.ann},
    ]);
    assert_eq!(json!(made), expected);
    let mut ben = cast.daemon.user("ben");
    let tried = added(&cast.daemon, || {
        ben.error(
            "user",
            "update",
            json!({"user_id": cast.ben, "role": "admin"}),
        );
    });
    let expected = json!([
        {"event": "user update", "result": "forbidden", "by": cast.ben, "object": cast.ben, "role": "admin"},
    ]);
    assert_eq!(json!(tried), expected);
}

#[test]
fn the_audit_log_tells_whose_token_was_made_used_and_deleted() {
    let cast = Cast::start();
    let mut admin = cast.admin();
    let by = &cast.admin;
    let mut made = Value::Null;
    let told = added(&cast.daemon, || {
        let asked = json!({"name": "phone", "user_id": cast.ann});
        made = admin.ok("session", "token_create", asked);
    });
    let token = &made["token_id"];
    let expected = json!([
        {"event": "session token_create", "result": "ok", "by": by, "object": token, "user": cast.ann},
    ]);
    assert_eq!(json!(told), expected);
    let mut phone = cast.daemon.stranger();
    let told = added(&cast.daemon, || {
        phone.ok("session", "login", json!({"token": made["token"]}));
    });
    let expected = json!([
        {"event": "login", "result": "ok", "by": cast.ann, "token": token},
    ]);
    assert_eq!(json!(told), expected);
    let told = added(&cast.daemon, || {
        admin.ok("session", "token_delete", json!({"token_id": token}));
    });
    let expected = json!([
        {"event": "session token_delete", "result": "ok", "by": by, "object": token, "user": cast.ann},
    ]);
    assert_eq!(json!(told), expected);
}

#[test]
fn the_audit_log_tells_what_an_admin_does_where_it_is_no_member() {
    let cast = Cast::start();
    let (lunch, message) = (&cast.lunch, &cast.message);
    let mut admin = cast.admin();
    let by = &cast.admin;
    let delete = json!({"conversation_id": lunch, "message_id": message});
    let join = json!({"conversation_id": lunch, "user_ids": [cast.admin]});
    let rename = json!({"conversation_id": lunch, "name": "supper"});
    let told = added(&cast.daemon, || {
        admin.ok("message", "delete", delete);
        admin.ok("conversation", "update", rename.clone());
        admin.ok("conversation", "add_members", join.clone());
        // From here on it is a member.
        admin.ok("conversation", "update", rename.clone());
    });
    let expected = json!([
        {"event": "message delete", "result": "ok", "by": by, "object": message, "conversation": lunch, "outside": true},
        {"event": "conversation update", "result": "ok", "by": by, "object": lunch, "outside": true},
        {"event": "conversation add_members", "result": "ok", "by": by, "object": lunch, "members": [by], "outside": true},
    ]);
    assert_eq!(json!(told), expected);
    let mut trusted = cast.daemon.client();
    let quiet = added(&cast.daemon, || {
        trusted.ok("conversation", "update", rename);
        trusted.ok("conversation", "remove_members", join);
    });
    assert_eq!(json!(quiet), json!([]));
}

#[test]
fn the_audit_log_tells_what_an_admin_reads_where_it_is_no_member() {
    let cast = Cast::start();
    let (lunch, message, by) = (&cast.lunch, &cast.message, &cast.admin);
    let mut admin = cast.admin();
    let own = json!({"name": "own", "user_ids": [by]});
    let own = admin.ok("conversation", "create", own)["conversation_id"].clone();
    let of = |conversation: &Value| json!({"filter": {"conversation_id": conversation}});
    let told = added(&cast.daemon, || {
        for conversation in [&own, &json!(lunch)] {
            let named = json!({"conversation_id": conversation});
            admin.ok("conversation", "get", named.clone());
            admin.ok("conversation", "get_members", named);
            admin.ok("conversation", "search", of(conversation));
            admin.ok("message", "search", of(conversation));
        }
        admin.ok("message", "get", json!({"message_id": message}));
        admin.ok("message", "search", of(&json!([own, lunch])));
        admin.ok("message", "search", json!({}));
        admin.ok(
            "conversation",
            "search",
            json!({"filter": {"user_ids": by}}),
        );
        admin.ok("user", "search", json!({}));
        let nowhere = json!({"conversation_id": "1"});
        admin.error("conversation", "get", nowhere);
    });
    let expected = json!([
        {"event": "conversation get", "result": "ok", "by": by, "conversation": lunch, "outside": true},
        {"event": "conversation get_members", "result": "ok", "by": by, "conversation": lunch, "outside": true},
        {"event": "conversation search", "result": "ok", "by": by, "conversation": lunch, "outside": true},
        {"event": "message search", "result": "ok", "by": by, "conversation": lunch, "outside": true},
        {"event": "message get", "result": "ok", "by": by, "object": message, "conversation": lunch, "outside": true},
        {"event": "message search", "result": "ok", "by": by, "conversation": lunch, "outside": true},
        {"event": "message search", "result": "ok", "by": by, "outside": true},
    ]);
    assert_eq!(json!(told), expected);
    let (mut ann, mut trusted) = (cast.daemon.user("ann"), cast.daemon.client());
    let quiet = added(&cast.daemon, || {
        for client in [&mut ann, &mut trusted] {
            client.ok("message", "search", json!({}));
            client.ok("message", "get", json!({"message_id": message}));
            client.ok("event", "subscribe", json!({}));
        }
    });
    assert_eq!(json!(quiet), json!([]));
}

#[test]
fn the_audit_log_tells_of_what_an_admin_subscribes_to_where_it_is_no_member() {
    let cast = Cast::start();
    let (lunch, by) = (&cast.lunch, &cast.admin);
    let mut admin = cast.admin();
    let own = json!({"name": "own", "user_ids": [by]});
    let own = admin.ok("conversation", "create", own)["conversation_id"].clone();
    let told = added(&cast.daemon, || {
        for subscription in [
            json!({"subclass": "user"}),
            json!({"obj_id": own}),
            json!({"obj_id": "nothing that exists"}),
            json!({"obj_id": lunch}),
            json!({"subscriptions": [{"obj_id": own}, {"obj_id": lunch, "type": "created_message"}]}),
            json!({"subclass": "conversation"}),
        ] {
            admin.ok("event", "subscribe", subscription);
        }
        admin.error("event", "subscribe", json!({"since": 0}));
    });
    let expected = json!([
        {"event": "event subscribe", "result": "ok", "by": by, "conversation": lunch, "outside": true},
        {"event": "event subscribe", "result": "ok", "by": by, "conversation": lunch, "outside": true},
        {"event": "event subscribe", "result": "ok", "by": by, "outside": true},
    ]);
    assert_eq!(json!(told), expected);
}

#[test]
fn reading_a_conversation_page_by_page_fills_no_log_and_is_told_whole() {
    const PAGES: u64 = 400;
    let mut cast = Cast::start();
    // On a trusted listener, where nothing holds an admin up.
    let mut admin = cast.daemon.client();
    admin.ok(
        "session",
        "login",
        json!({"login": "admin", "password": "s3cret"}),
    );
    let before = lines(&cast.daemon).len();
    let search = json!({"filter": {"conversation_id": cast.lunch}, "fields": "_all"});
    for _ in 0..PAGES {
        admin.ok("message", "search", search.clone());
    }
    // What is summed up is told at the end, if not before.
    cast.daemon.terminate();
    let told = lines(&cast.daemon).split_off(before);
    let read = told
        .iter()
        .filter(|line| line["conversation"] == cast.lunch && line["by"] == cast.admin)
        .map(|line| line.get("count").map_or(1, |count| count.as_u64().unwrap()));
    let (lines, pages) = read.fold((0, 0), |(lines, pages), count| (lines + 1, pages + count));
    assert_eq!(pages, PAGES, "{told:?}");
    println!("{PAGES} pages, {lines} lines");
}
