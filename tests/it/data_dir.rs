//! The data directory itself: removed, renamed or replaced under a running daemon, or another daemon's.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::crash::CONFIG;
use crate::harness::{Client, Daemon};
use crate::ledger::all;

/// Sends messages one after the other until the connection ends; gives how many were acknowledged, and the last line.
fn write_to_the_end(client: &mut Client, conversation: &str, user: &str) -> (usize, Value) {
    let mut acknowledged = 0;
    loop {
        let data = json!({"conversation_id": conversation, "user_id": user, "message": "hello"});
        let request =
            json!({"class": "chat", "subclass": "message", "cmd": "create", "data": data});
        client.send_bytes_or_end(format!("{request}\n").as_bytes());
        let line = client.read_line_or_end().expect("a last line");
        let answer: Value = serde_json::from_str(&line).unwrap();
        if answer["type"] == "closed" {
            return (acknowledged, answer["body"].clone());
        }
        // Between the failure and the end, changes are refused.
        if answer["result"] == "ok" {
            acknowledged += 1;
        } else {
            assert_eq!(answer["data"]["code"], "unavailable", "{answer}");
        }
    }
}

fn segment(data_dir: &Path) -> std::path::PathBuf {
    let entries = fs::read_dir(data_dir.join("journal")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let found = paths.find(|path| path.extension().is_some_and(|ending| ending == "journal"));
    found.expect("a segment")
}

#[test]
fn data_that_is_removed_renamed_or_replaced_under_the_daemon_ends_it() {
    type Fault = fn(&Path, &Path);
    let faults: [(&str, Fault); 8] = [
        ("renamed", |data, aside| fs::rename(data, aside).unwrap()),
        ("removed", |data, _| fs::remove_dir_all(data).unwrap()),
        ("replaced", |data, aside| {
            fs::rename(data, aside).unwrap();
            fs::create_dir(data).unwrap();
        }),
        ("renamed above", |data, aside| {
            fs::rename(data.parent().unwrap(), aside).unwrap();
        }),
        ("lock removed", |data, _| {
            fs::remove_file(data.join("lock")).unwrap();
        }),
        ("lock replaced", |data, _| {
            fs::remove_file(data.join("lock")).unwrap();
            fs::write(data.join("lock"), "").unwrap();
        }),
        ("journal renamed", |data, aside| {
            fs::rename(data.join("journal"), aside).unwrap();
        }),
        ("segment replaced by a copy", |data, aside| {
            let segment = segment(data);
            fs::copy(&segment, aside).unwrap();
            fs::rename(aside, &segment).unwrap();
        }),
    ];
    for (name, fault) in faults {
        let scratch = tempfile::tempdir().unwrap();
        let (data, aside) = (
            scratch.path().join("above/data"),
            scratch.path().join("aside"),
        );
        let mut daemon = Daemon::on_dir(&data, CONFIG);
        let mut client = daemon.client();
        let user = client.create_user("ann@example.org");
        let conversation = client.create_conversation("lunch", &[&user]);
        client.send_message(&conversation, &user, "hello");
        fault(&data, &aside);
        let (acknowledged, last) = write_to_the_end(&mut client, &conversation, &user);
        assert_eq!(
            (&last["code"], &last["retry"]),
            (&json!("unavailable"), &json!(true)),
            "{name}"
        );
        assert_eq!(daemon.ended().code(), Some(74), "{name}");
        let log = daemon.log();
        assert!(
            log.contains("was removed, renamed or replaced"),
            "{name}: {log}"
        );
        if name == "renamed" {
            // Nothing of what was acknowledged is lost, and the daemon takes it up where it is.
            let daemon = Daemon::on_dir(&aside, CONFIG);
            let stored = all(&mut daemon.client(), "message").len();
            // The one that was under way at the end may be there too.
            let there = acknowledged + 1..=acknowledged + 2;
            assert!(there.contains(&stored), "{stored} of {acknowledged}");
        }
    }
}
