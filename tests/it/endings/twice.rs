//! A session that was ended is known no more, from the answer on, although its connection is still being closed.

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS};

/// The ids of the sessions that are listed.
fn listed(answer: &Value) -> Vec<String> {
    let sessions = answer["data"]["sessions"].as_array();
    let sessions = sessions.unwrap_or_else(|| panic!("no list: {answer}"));
    let id = |session: &Value| session["session_id"].as_str().expect("an id").to_owned();
    sessions.iter().map(id).collect()
}

fn session_of(client: &mut Client) -> String {
    let session = client.ok("session", "get", json!({}));
    session["session_id"].as_str().expect("an id").to_owned()
}

/// Ends ann's session in some way, and asks for it in the same breath: the connection has no time to be closed.
fn is_known_no_more(end: impl Fn(&str, &str, &str) -> (&'static str, &'static str, Value)) {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    for round in 0..50 {
        let login = format!("ann{round}@example.org");
        let ann = root.create_user(&login);
        let token = json!({"name": "t", "user_id": ann});
        let token = root.ok("session", "token_create", token);
        let mut client = daemon.stranger();
        client.ok("session", "login", json!({"token": token["token"]}));
        let session = session_of(&mut client);
        let stop = json!({"session_id": session});
        let token_id = token["token_id"].as_str().expect("an id");
        let (subclass, cmd, data) = end(&session, &ann, token_id);
        root.request(subclass, cmd, data);
        root.request("session", "stop", stop.clone());
        root.request("session", "list", json!({}));
        let answers = [(); 3].map(|()| root.next_value());
        assert_eq!(answers[0]["result"], "ok", "round {round}: {}", answers[0]);
        let code = &answers[1]["data"]["code"];
        assert_eq!(code, "session_not_found", "round {round}: {}", answers[1]);
        assert!(!listed(&answers[2]).contains(&session), "round {round}");
        client.expect_session_ended();
        assert_eq!(root.code("session", "stop", stop), "session_not_found");
    }
}

#[test]
fn a_session_is_stopped_once() {
    is_known_no_more(|session, _, _| ("session", "stop", json!({"session_id": session})));
}

#[test]
fn the_sessions_of_a_deleted_user_are_known_no_more() {
    is_known_no_more(|_, user, _| ("user", "delete", json!({"user_id": user})));
}

#[test]
fn the_sessions_from_before_a_changed_password_are_known_no_more() {
    is_known_no_more(|_, user, _| {
        let data = json!({"user_id": user, "password": "changed"});
        ("user", "update", data)
    });
}

#[test]
fn the_sessions_of_a_deleted_token_are_known_no_more() {
    is_known_no_more(|_, _, token| ("session", "token_delete", json!({"token_id": token})));
}

#[test]
fn a_login_under_way_does_not_revive_a_session_that_is_stopped_meanwhile() {
    // A password takes about 75 ms, so that the stop mostly comes in between.
    let daemon = Daemon::with(&LOGINS.replace("bcrypt_cost = 4", "bcrypt_cost = 10"));
    let mut root = daemon.client();
    root.create_user("ann@example.org");
    let mut met = 0;
    for _ in 0..20 {
        let mut client = daemon.stranger();
        let session = session_of(&mut client);
        let login = json!({"login": "ann@example.org", "password": "s3cret"});
        client.request("session", "login", login);
        // Where the login comes first, the session that it ended is not there any more.
        let stopped = root.call("session", "stop", json!({"session_id": session}));
        if stopped["result"] != "ok" {
            continue;
        }
        met += 1;
        let mut lines = Vec::new();
        while let Some(line) = client.read_line_or_end() {
            lines.push(line);
        }
        assert!(
            !lines.iter().any(|line| line.contains(r#""result":"ok""#)),
            "{lines:?}"
        );
        assert!(
            lines
                .last()
                .is_some_and(|line| line.contains("session_ended")),
            "{lines:?}"
        );
        root.request("session", "list", json!({}));
        let answer = root.next_value();
        let sessions = answer["data"]["sessions"].as_array().expect("a list");
        assert!(
            sessions
                .iter()
                .all(|session| session.get("user_id").is_none()),
            "{answer}"
        );
    }
    println!("{met} of 20 logins were under way");
}

#[test]
fn ids_of_sessions_are_those_of_nothing_else() {
    use crate::harness::clocked::Clocked;
    // All of it in one millisecond, which is where both begin to count.
    let server = Clocked::with("[security]\nbcrypt_cost = 4\n");
    let mut root = server.client();
    let ann = root.create_user("ann@example.org");
    let mut stored = vec![ann.clone()];
    let mut sessions = vec![session_of(&mut root)];
    for _ in 0..20 {
        let conversation = root.create_conversation("lunch", &[&ann]);
        stored.push(root.send_message(&conversation, &ann, "hello"));
        stored.push(conversation);
        let mut client = server.client();
        sessions.push(session_of(&mut client));
        client.login("ann@example.org", "s3cret");
        sessions.push(session_of(&mut client));
    }
    assert!(sessions.is_sorted_by(|a, b| a < b), "{sessions:?}");
    for session in &sessions {
        assert!(!stored.contains(session), "{session}");
        let short = session.len() <= 13;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        assert!(short && session.chars().all(plain), "{session}");
        let user = root.code("user", "get", json!({"user_id": session}));
        assert_eq!(user, "user_not_found");
    }
}
