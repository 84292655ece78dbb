//! Changing passwords, and what a token is not good for (the protocol's sections 7 and 8).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Client, Daemon, LOGINS};

const LOGIN: &str = "ann@example.org";

/// A daemon with one user, whose password is `s3cret`, and a trusted connection to it.
fn with_ann(config_toml: &str) -> (Daemon, Client, String) {
    let daemon = Daemon::with(config_toml);
    let mut root = daemon.client();
    let ann = root.create_user(LOGIN);
    (daemon, root, ann)
}

fn token_of(root: &mut Client, user: &str) -> Value {
    let made = root.ok(
        "session",
        "token_create",
        json!({"name": "bot", "user_id": user}),
    );
    json!({"token": made["token"]})
}

/// The code of a refusal, and the field at fault.
fn refusal(client: &mut Client, data: Value) -> (String, Value) {
    let mut error = client.error("user", "update", data);
    let code = error["code"].as_str().unwrap().to_owned();
    (code, error["field"].take())
}

fn let_in(daemon: &Daemon, credentials: Value) -> bool {
    let answer = daemon.stranger().call("session", "login", credentials);
    answer["result"] == "ok"
}

fn with_password(password: &str) -> Value {
    json!({"login": LOGIN, "password": password})
}

#[test]
fn what_is_sent_right_behind_a_login_by_token_needs_more_than_a_token() {
    for role in ["user", "admin"] {
        let (daemon, mut root, ann) = with_ann(LOGINS);
        let ben = root.create_user("ben@example.org");
        root.ok("user", "update", json!({"user_id": ann, "role": role}));
        let token = token_of(&mut root, &ann);
        let mut changes = vec![
            ("session", "token_create", json!({"name": "another"})),
            (
                "user",
                "update",
                json!({"user_id": ann, "password": "stolen it", "old_password": "s3cret"}),
            ),
            (
                "user",
                "update",
                json!({"user_id": ann, "name": "A", "role": "admin"}),
            ),
            ("user", "delete", json!({"user_id": ann})),
        ];
        if role == "admin" {
            let boss =
                json!({"login": "eve", "name": "E", "password": "a good one", "role": "admin"});
            changes.push(("user", "create", boss));
            let of_ben = json!({"user_id": ben, "password": "stolen it"});
            changes.push(("user", "update", of_ben));
            let raised = json!({"user_id": ben, "role": "admin"});
            changes.push(("user", "update", raised));
            let for_ben = json!({"name": "another", "user_id": ben});
            changes.push(("session", "token_create", for_ben));
        }
        let before = root.ok("server", "info", json!({}))["seq"].take();
        // On a trusted listener a token makes no more of whoever has it.
        for mut client in [daemon.stranger(), daemon.client()] {
            client.request("session", "login", token.clone());
            for (subclass, cmd, data) in &changes {
                client.request(subclass, cmd, data.clone());
            }
            assert_eq!(client.next_value()["result"], "ok");
            for change in &changes {
                let answer = client.next_value();
                assert_eq!(
                    answer["data"]["code"], "forbidden",
                    "{role}, {change:?}: {answer}"
                );
            }
            // What else its user may do, it may.
            client.create_conversation("lunch", &[&ben]);
            let own = json!({"user_id": ann, "surname": "Archer"});
            client.ok("user", "update", own);
            client.ok("session", "token_list", json!({}));
        }
        let after = root.ok("server", "info", json!({}))["seq"].take();
        assert_eq!(after.as_u64(), before.as_u64().map(|seq| seq + 4));
        let tokens = root.ok("session", "token_list", json!({"user_id": ann}));
        assert_eq!(tokens["tokens"].as_array().unwrap().len(), 1);
        // Whoever knows the password, and whoever is not that user, may do all of it, on the same connection.
        let mut client = daemon.stranger();
        client.ok("session", "login", token);
        client.login(LOGIN, "s3cret");
        client.ok("session", "token_create", json!({"name": "another"}));
    }
}

#[test]
fn nobody_changes_its_own_password_without_the_old_one() {
    let (daemon, mut root, ann) = with_ann(LOGINS);
    for role in ["user", "admin"] {
        root.ok("user", "update", json!({"user_id": ann, "role": role}));
        let mut client = daemon.user(LOGIN);
        let missing = json!({"user_id": ann, "password": "a new one"});
        assert_eq!(
            refusal(&mut client, missing),
            ("missing_field".to_owned(), json!("old_password"))
        );
        let wrong =
            json!({"user_id": ann, "password": "a new one", "old_password": "s3cret", "name": "A"});
        let mut wrong_old = wrong.clone();
        wrong_old["old_password"] = json!("S3cret");
        assert_eq!(
            refusal(&mut client, wrong_old),
            ("login_failed".to_owned(), json!("old_password"))
        );
        for alone in [
            json!({"old_password": "s3cret"}),
            json!({"keep_tokens": true}),
        ] {
            let mut alone = alone;
            alone["user_id"] = json!(ann);
            assert_eq!(
                refusal(&mut client, alone),
                ("missing_field".to_owned(), json!("password"))
            );
        }
        assert!(let_in(&daemon, with_password("s3cret")));
        client.ok("user", "update", wrong);
        assert!(!let_in(&daemon, with_password("s3cret")));
        assert!(let_in(&daemon, with_password("a new one")));
        root.ok(
            "user",
            "update",
            json!({"user_id": ann, "password": "s3cret"}),
        );
    }
    // Admins choose freely for others. An old password that is sent without need must be right all the same.
    let ben = root.create_user("ben@example.org");
    let admin = daemon.user(LOGIN);
    for mut client in [daemon.client(), admin] {
        let wrong = json!({"user_id": ben, "password": "b", "old_password": "wrong"});
        assert_eq!(
            refusal(&mut client, wrong),
            ("login_failed".to_owned(), json!("old_password"))
        );
        client.ok("user", "update", json!({"user_id": ben, "password": "p"}));
        let right = json!({"user_id": ben, "password": "s3cret", "old_password": "p"});
        client.ok("user", "update", right);
    }
}

#[test]
fn a_new_password_deletes_the_tokens_unless_they_are_to_stay() {
    let (daemon, mut root, ann) = with_ann(LOGINS);
    let ben = root.create_user("ben@example.org");
    let of_ben = token_of(&mut root, &ben);
    for by_root in [true, false] {
        let mut change = |keep: Option<bool>| {
            let mut data = json!({"user_id": ann, "password": "s3cret s3cret"});
            if let Some(keep) = keep {
                data["keep_tokens"] = json!(keep);
            }
            if by_root {
                root.ok("user", "update", data);
            } else {
                data["old_password"] = json!("s3cret s3cret");
                let mut client = daemon.stranger();
                client.login(LOGIN, "s3cret s3cret");
                client.ok("user", "update", data);
                client.ok("session", "ping", json!({}));
            }
        };
        if by_root {
            change(None);
        }
        let mut again = daemon.client();
        let token = token_of(&mut again, &ann);
        let mut bot = daemon.stranger();
        bot.ok("session", "login", token.clone());
        change(Some(true));
        // The session ends, as others do; the token does not.
        bot.expect_session_ended();
        assert!(let_in(&daemon, token.clone()));
        for gone in [Some(false), None] {
            let token = token_of(&mut again, &ann);
            change(gone);
            assert!(!let_in(&daemon, token));
            let listed = again.ok("session", "token_list", json!({"user_id": ann}));
            assert_eq!(listed, json!({"tokens": []}));
        }
        assert!(!let_in(&daemon, token));
        assert!(let_in(&daemon, of_ben.clone()));
    }
}

#[test]
fn whoever_tries_old_passwords_is_stopped_as_if_it_logged_in() {
    let few = LOGINS.replace(
        "failed_logins_per_minute = 1000000",
        "failed_logins_per_minute = 3",
    );
    let (daemon, _root, ann) = with_ann(&few);
    let mut client = daemon.user(LOGIN);
    for number in 0..3 {
        let guess =
            json!({"user_id": ann, "password": "mine now", "old_password": format!("{number}")});
        assert_eq!(refusal(&mut client, guess).0, "login_failed");
    }
    let right = json!({"user_id": ann, "password": "mine now", "old_password": "s3cret"});
    let mut stopped = client.error("user", "update", right);
    assert_eq!(stopped["code"], "rate_limited");
    assert!(stopped["retry_after_ms"].take().as_u64() > Some(0));
    // It is the budget of logins.
    let guess = with_password("s3cret");
    assert_eq!(
        daemon.stranger().code("session", "login", guess),
        "rate_limited"
    );
}

#[test]
fn what_users_choose_themselves_is_not_too_short() {
    let open = LOGINS.replace(
        "[security]",
        "[security]\nregistration = \"open\"\npassword_min_bytes = 10",
    );
    let (daemon, mut root, ann) = with_ann(&open);
    let mut client = daemon.user(LOGIN);
    // Bytes, as bcrypt counts them.
    for (password, fits) in [("123456789", false), ("äöüß1", false), ("äöüßä", true)] {
        let data = json!({"user_id": ann, "password": password, "old_password": "s3cret"});
        let new =
            json!({"login": format!("{password}@example.org"), "name": "n", "password": password});
        let mut stranger = daemon.stranger();
        if fits {
            client.ok("user", "update", data);
            stranger.ok("user", "create", new);
        } else {
            let expected = ("invalid_field".to_owned(), json!("password"));
            assert_eq!(refusal(&mut client, data), expected);
            let refused = stranger.error("user", "create", new);
            assert_eq!(refused["code"], "invalid_field");
            assert!(
                refused["error"].as_str().unwrap().contains("10 bytes"),
                "{refused}"
            );
        }
    }
    // One that was chosen before lets its user in.
    root.ok("user", "update", json!({"user_id": ann, "password": "p"}));
    assert!(let_in(&daemon, with_password("p")));
}

#[test]
fn what_may_not_be_done_is_refused_before_a_password_is_hashed() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::on_dir(data_dir.path(), LOGINS);
    let mut root = daemon.client();
    let [ann, ben, boss] =
        ["ann", "ben", "boss"].map(|name| root.create_user(&format!("{name}@example.org")));
    root.ok("user", "update", json!({"user_id": boss, "role": "admin"}));
    let of_boss = token_of(&mut root, &boss);
    drop(daemon);
    // One hash of this cost takes days.
    let slow = LOGINS.replace(
        "bcrypt_cost = 4",
        "registration = \"open\"\nbcrypt_cost = 31",
    );
    let daemon = Daemon::on_dir(data_dir.path(), &slow);
    let mut client = daemon.client();
    client.ok("session", "login", json!({"user_id": ann}));
    for (data, code) in [
        (
            json!({"user_id": ben, "password": "a new one"}),
            "forbidden",
        ),
        (
            json!({"user_id": "zzz", "password": "a new one"}),
            "user_not_found",
        ),
        (
            json!({"user_id": ann, "password": "a new one", "role": "user"}),
            "forbidden",
        ),
        (
            json!({"user_id": ann, "password": "a new one"}),
            "missing_field",
        ),
        (
            json!({"user_id": ann, "password": "short", "old_password": "s3cret"}),
            "invalid_field",
        ),
        (
            json!({"user_id": ann, "password": "a new one", "old_password": "wrong"}),
            "login_failed",
        ),
    ] {
        assert_eq!(client.code("user", "update", data.clone()), code, "{data}");
    }
    // A login that nobody has is as quick as most others, whose hashes are from before the cost was raised.
    let unknown = json!({"login": "nobody@example.org", "password": "s3cret"});
    let mut stranger = daemon.stranger();
    assert_eq!(stranger.code("session", "login", unknown), "login_failed");
    let new = json!({"login": "Ann@example.org", "name": "n", "password": "a good one"});
    assert_eq!(
        daemon.stranger().code("user", "create", new.clone()),
        "login_taken"
    );
    let short = json!({"login": "cy@example.org", "name": "n", "password": "short"});
    assert_eq!(
        daemon.stranger().code("user", "create", short),
        "invalid_field"
    );
    let mut admin = daemon.client();
    admin.ok("session", "login", json!({"user_id": boss}));
    assert_eq!(admin.code("user", "create", new), "login_taken");
    let mut by_token = daemon.stranger();
    by_token.ok("session", "login", of_boss);
    let another = json!({"login": "eve", "name": "n", "password": "a good one", "role": "admin"});
    assert_eq!(by_token.code("user", "create", another), "forbidden");
    let own = json!({"user_id": boss, "password": "a new one", "old_password": "s3cret"});
    assert_eq!(by_token.code("user", "update", own), "forbidden");
}

/// The hashes of this cost that are in the journal.
fn hashes_of_cost(data_dir: &Path, cost: u32) -> BTreeSet<String> {
    const HASH_BYTES: usize = 60;
    let mark = format!("$2b${cost:02}$");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(data_dir.join("journal")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        for place in memchr::memmem::find_iter(&bytes, mark.as_bytes()) {
            let hash = bytes.get(place..place + HASH_BYTES).unwrap_or_default();
            found.insert(String::from_utf8_lossy(hash).into_owned());
        }
    }
    found
}

#[test]
fn a_good_login_brings_its_hash_to_the_new_cost() {
    let data_dir = TempDir::new().unwrap();
    let of_cost = |cost: u32| LOGINS.replace("bcrypt_cost = 4", &format!("bcrypt_cost = {cost}"));
    let daemon = Daemon::on_dir(data_dir.path(), &of_cost(4));
    let mut root = daemon.client();
    let ann = root.create_user(LOGIN);
    root.create_user("ben@example.org");
    drop(daemon);
    let daemon = Daemon::on_dir(data_dir.path(), &of_cost(5));
    let mut root = daemon.client();
    let before = root.ok("user", "get", json!({"user_id": ann}));
    root.subscribe(json!({}));
    let renewed = || hashes_of_cost(data_dir.path(), 5).len();
    assert!(!let_in(&daemon, with_password("S3cret")));
    for _ in 0..2 {
        assert!(let_in(&daemon, with_password("s3cret")));
        // What is stored behind it says that it is stored.
        root.create_conversation("lunch", &[]);
        assert_eq!(renewed(), 1);
    }
    // Nobody is told.
    for _ in 0..2 {
        assert_eq!(root.next_event()["subclass"], "conversation");
    }
    root.no_more_events();
    assert_eq!(root.ok("user", "get", json!({"user_id": ann})), before);
    drop(daemon);
    let daemon = Daemon::on_dir(data_dir.path(), &of_cost(5));
    assert!(let_in(&daemon, with_password("s3cret")));
    assert!(!let_in(&daemon, with_password("S3cret")));
}

#[test]
fn logins_at_once_all_get_in_while_their_hash_is_renewed() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::on_dir(data_dir.path(), LOGINS);
    daemon.client().create_user(LOGIN);
    drop(daemon);
    let slower = LOGINS.replace("bcrypt_cost = 4", "bcrypt_cost = 8");
    let daemon = Daemon::on_dir(data_dir.path(), &slower);
    let mut clients: Vec<Client> = (0..8).map(|_| daemon.client()).collect();
    for client in &mut clients {
        client.request("session", "login", with_password("s3cret"));
    }
    for client in &mut clients {
        let answer = client.next_value();
        assert_eq!(answer["result"], "ok", "{answer}");
    }
}
