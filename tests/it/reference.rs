//! The generated reference is in step with the command table, and its examples are accepted.

use crate::harness::Daemon;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

#[test]
fn the_reference_is_in_step_with_the_commands() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/protocol.md");
    let made = chatd::command::reference();
    if std::env::var_os("CHATD_WRITE_REFERENCE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    assert!(
        kept == made,
        "contrib/protocol.md is out of step; CHATD_WRITE_REFERENCE=1 cargo test reference writes it"
    );
}

#[test]
fn every_example_of_the_reference_is_accepted() {
    let daemon = Daemon::start();
    let mut tried = 0;
    for line in chatd::command::reference()
        .lines()
        .filter(|line| line.starts_with("{\"class\""))
    {
        // Each example finds what it names, on a connection of its own: one may delete, or log in as, what the next needs.
        let mut client = daemon.client();
        let mut other = daemon.client();
        let ann = client.create_user(&format!("ann{tried}@example.com"));
        let ben = client.create_user(&format!("ben{tried}@example.com"));
        let conversation = client.create_conversation("lunch", &[&ann]);
        let message = client.send_message(&conversation, &ann, "hello");
        let token = client.ok(
            "session",
            "token_create",
            json!({"name": "bot", "user_id": ann}),
        );
        let session = other.ok("session", "get", json!({}));
        let line = line
            .replace("01k9token0001", token["token_id"].as_str().unwrap())
            .replace("81k9sess00001", session["session_id"].as_str().unwrap())
            .replace("01k9user00001", &ann)
            .replace("01k9user00002", &ben)
            .replace("01k9conv00001", &conversation)
            .replace("01k9mess00001", &message);
        client.send_line(&line);
        let answer = loop {
            let answer: Value = client.next_value();
            if answer.get("result").is_some() {
                break answer;
            }
        };
        assert_eq!(answer["result"], "ok", "{line} was answered with {answer}");
        tried += 1;
    }
    assert!(tried >= 33, "only {tried} examples were found");
}

#[test]
fn the_reference_names_every_code_with_which_a_connection_is_closed() {
    let reference = chatd::command::reference();
    let (_, closed) = reference.split_once("## Closed connections").unwrap();
    // protocol.md, 1; none that was given out is ever renamed.
    for code in [
        "shutdown",
        "session_ended",
        "login_timeout",
        "stalled",
        "too_many_connections",
        "rate_limited",
        "http",
        "protocol",
        "forbidden",
        "unavailable",
    ] {
        assert!(closed.contains(&format!("| `{code}` |")), "{code}");
    }
}
