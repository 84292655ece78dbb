//! A session that logged in with a token ends when the token expires.

use std::io::Write;
use std::thread;

use serde_json::{Value, json};

use crate::harness::Client;
use crate::harness::clocked::{BEGIN_MS, Clocked};

const CONFIG: &str = "[security]\nbcrypt_cost = 4\n";
const LIFE_MS: u64 = 60_000;

/// A server where ann is in a conversation, and has a token that expires in a minute.
struct Scene {
    server: Clocked,
    root: Client,
    ann: String,
    conversation: String,
    token: Value,
}

impl Scene {
    fn new() -> Self {
        let server = Clocked::with(CONFIG);
        let mut root = server.client();
        let ann = root.create_user("ann@example.org");
        let conversation = root.create_conversation("lunch", &[&ann]);
        let data = json!({"name": "t", "user_id": ann, "expires_time": BEGIN_MS + LIFE_MS});
        let token = root.ok("session", "token_create", data)["token"].take();
        Self {
            server,
            root,
            ann,
            conversation,
            token,
        }
    }

    fn by_token(&self) -> Client {
        let mut client = self.server.client();
        client.ok("session", "login", json!({"token": self.token}));
        client
    }

    fn message(&self) -> Value {
        json!({"conversation_id": self.conversation, "message": "hello"})
    }

    fn logins(&mut self) -> Vec<Value> {
        let mut listed = self.root.ok("session", "list", json!({}));
        let sessions = listed["sessions"].as_array_mut().expect("a list");
        sessions
            .iter_mut()
            .map(|session| session["login"].take())
            .filter(|login| !login.is_null())
            .collect()
    }
}

#[test]
fn a_session_that_logged_in_with_a_token_ends_when_the_token_expires() {
    let mut scene = Scene::new();
    let (mut client, mut idle) = (scene.by_token(), scene.by_token());
    client.subscribe(json!({"subclass": "conversation"}));
    let mut by_password = scene.server.client();
    by_password.login("ann@example.org", "s3cret");
    let lasting = json!({"name": "lasting", "user_id": scene.ann});
    let lasting = scene.root.ok("session", "token_create", lasting)["token"].take();
    let mut by_lasting = scene.server.client();
    by_lasting.ok("session", "login", json!({"token": lasting}));
    scene.server.clock.advance(LIFE_MS - 1);
    client.ok("message", "create", scene.message());
    assert_eq!(client.next_event()["type"], "created_message");
    assert_eq!(scene.logins().len(), 4);
    scene.server.clock.advance(1);
    // Nothing but the end, whether or not it asks for anything.
    client.expect_session_ended();
    idle.expect_session_ended();
    assert_eq!(scene.logins(), ["ann@example.org"; 2]);
    by_password.ok("message", "create", scene.message());
    by_lasting.ok("message", "create", scene.message());
    let again = json!({"token": scene.token});
    let code = by_password.code("session", "login", again);
    assert_eq!(code, "login_failed");
}

#[test]
fn what_comes_behind_the_expiry_of_a_token_is_not_done() {
    for _ in 0..20 {
        let mut scene = Scene::new();
        let mut client = scene.by_token();
        scene.root.subscribe(json!({}));
        scene.server.clock.advance(LIFE_MS);
        for _ in 0..50 {
            client.request("message", "create", scene.message());
        }
        client.expect_session_ended();
        scene.root.no_more_events();
    }
}

#[test]
fn the_expiry_of_a_token_in_the_middle_of_what_is_sent_cuts_it_off_cleanly() {
    let mut scene = Scene::new();
    let mut client = scene.by_token();
    let request =
        json!({"class": "chat", "subclass": "message", "cmd": "create", "data": scene.message()});
    let lines = format!("{request}\n").repeat(20_000);
    let mut sender = client.sender();
    // The connection may be closed before it is all sent.
    let sending = thread::spawn(move || drop(sender.write_all(lines.as_bytes())));
    let (mut done, mut refused) = (0, 0);
    let mut last = Value::Null;
    while let Some(line) = client.read_line_or_end() {
        last = serde_json::from_str(&line).expect("JSON");
        match last["result"].as_str() {
            Some("ok") => {
                assert_eq!(refused, 0, "{last}");
                done += 1;
                if done == 100 {
                    scene.server.clock.advance(LIFE_MS);
                }
            }
            Some(_) => {
                assert_eq!(last["data"]["code"], "not_logged_in", "{last}");
                refused += 1;
            }
            None => {}
        }
    }
    assert_eq!(last["body"]["code"], "session_ended", "{last}");
    sending.join().expect("a sender");
    assert!((100..20_000).contains(&done), "{done}");
    let search = json!({"filter": {"conversation_id": scene.conversation}, "size": 0});
    let found = scene.root.ok("message", "search", search);
    assert_eq!(found["total"], done, "{refused} were refused");
}

#[test]
fn another_login_on_the_connection_does_not_end_when_the_token_expires() {
    let mut scene = Scene::new();
    let (mut client, mut trusted) = (scene.by_token(), scene.by_token());
    client.login("ann@example.org", "s3cret");
    trusted.ok("session", "logout", json!({}));
    scene.server.clock.advance(2 * LIFE_MS);
    client.ok("message", "create", scene.message());
    trusted.ok("session", "list", json!({}));
    assert_eq!(scene.logins(), ["ann@example.org"]);
}

#[test]
fn a_clock_that_is_ahead_for_a_moment_ends_no_session() {
    let mut scene = Scene::new();
    let mut client = scene.by_token();
    let clock = scene.server.clock.clone();
    clock.set(BEGIN_MS + 365 * 24 * 3_600_000);
    client.ok("message", "create", scene.message());
    assert_eq!(scene.logins().len(), 1);
    clock.set(BEGIN_MS);
    client.ok("message", "create", scene.message());
    clock.advance(LIFE_MS);
    client.expect_session_ended();
}
