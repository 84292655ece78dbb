//! The data directory itself: removed, renamed or replaced under a running daemon, or another daemon's.

mod others;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::crash::CONFIG;
use crate::harness::{Client, Daemon};
use crate::ledger::all;
use crate::lifecycle::refusal;

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

fn segment(data_dir: &Path) -> PathBuf {
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

/// What is below a directory, itself included, and may be used by others than its owner.
fn open_to_others(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        if about.mode() & 0o077 != 0 {
            found.push(path.clone());
        }
        if about.is_dir() {
            left.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    found
}

fn write_something(daemon: &Daemon) {
    let mut client = daemon.client();
    let user = client.create_user("ann@example.org");
    let conversation = client.create_conversation("lunch", &[&user]);
    client.send_message(&conversation, &user, "the secret of the year");
}

#[test]
fn nobody_else_can_read_what_chatd_makes_whatever_the_umask_and_the_directory() {
    for umask in ["000", "022"] {
        for before in [None, Some(0o755)] {
            let scratch = tempfile::tempdir().unwrap();
            let data = scratch.path().join("data");
            if let Some(mode) = before {
                fs::create_dir(&data).unwrap();
                fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
            }
            let script = format!("umask {umask}; exec \"$0\" \"$@\"");
            for start in 0..2 {
                let mut daemon = Daemon::under_on_dir(&["sh", "-c", &script], &data, CONFIG);
                if start == 0 {
                    write_something(&daemon);
                }
                let none: [PathBuf; 0] = [];
                assert_eq!(open_to_others(&data), none, "umask {umask}");
                let told = daemon.log().contains("others on this machine could get at");
                assert_eq!(told, before.is_some() && start == 0, "{}", daemon.log());
                assert!(daemon.terminate().success());
                assert_eq!(open_to_others(&data), none, "umask {umask}, stopped");
            }
        }
    }
}

#[test]
fn data_that_others_could_read_is_told_and_mended() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let mut daemon = Daemon::on_dir(&data, CONFIG);
    write_something(&daemon);
    assert!(daemon.terminate().success());
    let notes = data.join("notes.txt");
    fs::write(&notes, "the operator's own").unwrap();
    for path in [
        data.join("journal"),
        segment(&data),
        data.join("state/db"),
        notes.clone(),
    ] {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    let daemon = Daemon::on_dir(&data, CONFIG);
    let log = daemon.log();
    assert!(
        log.contains("others on this machine could get at data"),
        "{log}"
    );
    assert!(
        log.contains(".journal") && log.contains("state/db"),
        "{log}"
    );
    // What chatd did not make is left as it is.
    assert_eq!(open_to_others(&data), [notes]);
    assert_eq!(all(&mut daemon.client(), "message").len(), 1);
}

#[test]
fn an_empty_mount_point_is_told_and_refused_where_data_must_exist() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let config = format!("must_exist = true\n{CONFIG}");
    for there in [false, true] {
        if there {
            fs::create_dir(&data).unwrap();
        }
        let (code, said) = refusal(&["--data-dir", data.to_str().unwrap()], &config);
        assert_eq!(code, Some(74), "{said}");
        assert!(said.contains("must_exist"), "{said}");
    }
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "it left something");
    let mut daemon = Daemon::on_dir(&data, CONFIG);
    assert!(
        daemon.log().contains("the data directory is new"),
        "{}",
        daemon.log()
    );
    write_something(&daemon);
    assert!(daemon.terminate().success());
    let daemon = Daemon::on_dir(&data, &config);
    assert_eq!(all(&mut daemon.client(), "message").len(), 1);
    assert!(!daemon.log().contains("the data directory is new"));
}
