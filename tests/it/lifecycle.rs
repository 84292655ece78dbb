//! Starting and stopping: Unix sockets, signals with requests under way, exit codes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::crash::CONFIG;
use crate::harness::{Client, Daemon};

fn on_socket(path: &Path) -> String {
    format!("[[listen]]\naddress = \"unix:{}\"\n", path.display())
}

/// Runs a daemon that must not start: its exit code and the one line that it says.
pub fn refusal(arguments: &[&str], config_toml: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("chatd.toml");
    fs::write(&config, config_toml).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .arg("--config")
        .arg(&config)
        .args(arguments)
        .current_dir(directory.path())
        .env_remove("STATE_DIRECTORY")
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("chatd: "), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(output.stdout, b"", "it did not start, and says so");
    (output.status.code(), said)
}

#[test]
fn a_unix_socket_is_for_owner_and_group_and_goes_with_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chatd.sock");
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::with(&on_socket(&path));
        assert_eq!(
            daemon.listeners()[0].address,
            format!("unix:{}", path.display())
        );
        let about = fs::metadata(&path).unwrap();
        assert!(about.file_type().is_socket());
        assert_eq!(about.mode() & 0o777, 0o660);
        daemon.client().ok("session", "ping", json!({}));
        assert!(daemon.end_with(signal).success());
        assert!(!path.exists(), "the socket's file is left");
    }
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chatd.sock");
    drop(UnixListener::bind(&path).unwrap());
    let mut daemon = Daemon::with(&on_socket(&path));
    daemon.client().ok("session", "ping", json!({}));
    daemon.kill();
    assert!(path.exists(), "a killed daemon leaves its socket");
    let daemon = Daemon::with(&on_socket(&path));
    daemon.client().ok("session", "ping", json!({}));
}

#[test]
fn a_live_unix_socket_or_another_file_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chatd.sock");
    let daemon = Daemon::with(&on_socket(&path));
    let (code, said) = refusal(&[], &on_socket(&path));
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("another process listens there"), "{said}");
    daemon.client().ok("session", "ping", json!({}));

    let file = directory.path().join("notes.txt");
    fs::write(&file, "not a socket").unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link, &directory.path().to_path_buf()] {
        let (code, said) = refusal(&[], &on_socket(path));
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("no socket"), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a socket");
    let missing = directory.path().join("missing/chatd.sock");
    let (code, said) = refusal(&[], &on_socket(&missing));
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("missing/chatd.sock"), "{said}");
}

#[test]
fn an_address_that_may_be_there_later_ends_it_with_75_and_the_unit_starts_it_again() {
    let daemon = Daemon::start();
    // 192.0.2.1 is for documentation: no machine has it.
    for address in ["192.0.2.1:24283", daemon.address()] {
        let listen = format!("[[listen]]\naddress = \"{address}\"\ninsecure = true\n");
        let (code, said) = refusal(&[], &listen);
        assert_eq!(code, Some(75), "{said}");
        assert!(said.contains(address), "{said}");
    }
    let unit = include_str!("../../contrib/chatd.service");
    let says = |line: &str| unit.lines().any(|written| written == line);
    assert!(says("Restart=on-failure"));
    assert!(says("RestartPreventExitStatus=78"));
    assert!(
        says("StartLimitIntervalSec=0"),
        "systemd would give up after a few starts"
    );
}

#[test]
fn what_cannot_be_used_is_refused_in_one_line_with_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let daemon = Daemon::on_dir(&data_dir, CONFIG);
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let taken = format!("[[listen]]\naddress = \"{}\"\n", daemon.address());
    let free = "[[listen]]\naddress = \"127.0.0.1:0\"\n";
    let text = |path: &Path| path.display().to_string();
    let cases: [(&[&str], &str, i32, &str); 9] = [
        (&[], "[limits]\nmax_lines = 1\n", 78, "line 2"),
        (&[], "[[listen]\n", 78, "line 1"),
        (&[], "listen = []\n", 78, "[[listen]]"),
        (&[], "[[listen]]\naddress = \"0.0.0.0:1\"\n", 78, "insecure"),
        (&[], &taken, 75, daemon.address()),
        (&["--no-such-option"], free, 78, "--no-such-option"),
        (
            &["--data-dir", &text(&data_dir)],
            free,
            74,
            "in use by another chatd",
        ),
        (&["--data-dir", &text(&file)], free, 74, &text(&file)),
        (
            &["--data-dir", &text(&file.join("below"))],
            free,
            74,
            &text(&file),
        ),
    ];
    for (arguments, config, expected, mentioned) in cases {
        let (code, said) = refusal(arguments, config);
        assert_eq!(code, Some(expected), "{arguments:?} {config}: {said}");
        assert!(said.contains(mentioned), "{arguments:?} {config}: {said}");
    }
    daemon.client().ok("session", "ping", json!({}));
}

/// Requests that a client sends ahead of their answers.
const SENT_AHEAD: u64 = 500;

/// Sends messages, many ahead of their answers, until the connection ends; gives how many were answered `ok`.
fn write_until_closed(mut client: Client, conversation: &str, user: &str) -> u64 {
    let data = json!({"conversation_id": conversation, "user_id": user, "message": "hello"});
    let request = json!({"class": "chat", "subclass": "message", "cmd": "create", "data": data});
    let line = format!("{request}\n");
    let mut sender = client.sender();
    let (answered_one, answers) = mpsc::channel();
    (0..SENT_AHEAD).for_each(|_| answered_one.send(()).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(
            move || while answers.recv().is_ok() && sender.write_all(line.as_bytes()).is_ok() {},
        );
        let mut answered = 0;
        let mut closed = None;
        while let Some(line) = client.read_line_or_end() {
            assert_eq!(closed, None, "a line after the last one");
            let answer: Value = serde_json::from_str(&line).unwrap();
            if answer["type"] == "closed" {
                closed = Some(answer["body"].clone());
            } else {
                assert_eq!(answer["result"], "ok", "{answer}");
                answered += 1;
                // The sender may have ended.
                let _ = answered_one.send(());
            }
        }
        drop(answered_one);
        let closed = closed.expect("a line that says why the connection is closed");
        assert_eq!(
            (&closed["code"], &closed["retry"]),
            (&json!("shutdown"), &json!(true))
        );
        // The sending thread may wait in a full socket.
        client.shutdown_both();
        answered
    })
}

#[test]
fn what_was_read_before_a_stop_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    let mut client = daemon.client();
    let user = client.create_user("ann@example.org");
    let conversation = client.create_conversation("lunch", &[&user]);
    let mut answered = 0;
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        let mut client = daemon.client();
        let (seq, _) = client.subscribe(json!({}));
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| {
                    let (client, user, conversation) = (daemon.client(), &user, &conversation);
                    scope.spawn(move || write_until_closed(client, conversation, user))
                })
                .collect();
            // They are well under way.
            while client.next_event()["seq"].as_u64().unwrap() < seq + 500 {}
            drop(client);
            let began = Instant::now();
            assert!(daemon.end_with(signal).success());
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{:?}",
                began.elapsed()
            );
            answered += writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .sum::<u64>();
        });
        daemon = Daemon::on_dir(directory.path(), CONFIG);
        let stored = daemon.client().ok("server", "info", json!({}))["messages"].clone();
        assert_eq!(stored, answered, "more was done than was answered");
    }
}

#[test]
fn a_stop_does_not_wait_for_clients_that_do_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    let mut client = daemon.client();
    let user = client.create_user("ann@example.org");
    let conversation = client.create_conversation("lunch", &[&user]);
    let mut subscriber = daemon.client();
    subscriber.subscribe(json!({}));
    // Answers that fill the sockets on both sides, and the daemon's buffer.
    let asks = daemon.client();
    let mut sender = asks.sender();
    let filled = std::thread::spawn(move || {
        let line = b"{\"class\":\"chat\",\"subclass\":\"server\",\"cmd\":\"help\"}\n".repeat(100);
        // It ends when the daemon does; until then the daemon has stopped reading.
        while sender.write_all(&line).is_ok() {}
    });
    let text = "x".repeat(16_000);
    for _ in 0..1500 {
        client.send_message(&conversation, &user, &text);
    }
    let idle = daemon.client();
    let began = Instant::now();
    assert!(daemon.terminate().success());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    filled.join().unwrap();
    drop((asks, subscriber, idle));
    // It was a clean stop all the same.
    assert!(
        daemon.data_dir().join("stopped").exists(),
        "{}",
        daemon.log()
    );
    let daemon = Daemon::on_dir(directory.path(), CONFIG);
    let info = daemon.client().ok("server", "info", json!({}));
    assert_eq!(info["messages"], 1500);
}

#[test]
fn a_stop_under_long_reads_large_writes_and_unread_answers_is_a_clean_one() {
    let directory = tempfile::tempdir().unwrap();
    // A read may take far longer than a stop may.
    let config = CONFIG.to_owned() + "[limits]\nsearch_seconds = 600\n";
    let mut daemon = Daemon::on_dir(directory.path(), &config);
    let mut client = daemon.client();
    let users: Vec<String> = (0..8)
        .map(|number| client.create_user(&format!("user-{number}")))
        .collect();
    let members: Vec<&str> = users.iter().map(String::as_str).collect();
    let conversation = client.create_conversation("lunch", &members);
    let words = "many words of no meaning ".repeat(600);
    for _ in 0..200 {
        client.send_message(&conversation, &users[0], &words);
    }
    let search =
        json!({"filter": {"message": {"match": "\"meaning of life\""}}, "sort_by": "message"});
    let named: Vec<&str> = members.iter().copied().cycle().take(1000).collect();
    let requests = [
        ("message", "search", search),
        (
            "message",
            "create",
            json!({"conversation_id": conversation, "user_id": users[0], "message": words}),
        ),
        (
            "conversation",
            "create",
            json!({"name": "many", "user_ids": named}),
        ),
        ("server", "help", json!({})),
    ];
    let mut silent = Vec::new();
    std::thread::scope(|scope| {
        for (number, (subclass, cmd, data)) in requests.iter().cycle().take(16).enumerate() {
            let request = json!({"class": "chat", "subclass": subclass, "cmd": cmd, "data": data});
            let line = format!("{request}\n");
            let mut client = daemon.client();
            let mut sender = client.sender();
            scope.spawn(move || while sender.write_all(line.as_bytes()).is_ok() {});
            // Of each kind, every second one reads its answers.
            if number % 8 < 4 {
                scope.spawn(move || {
                    while client.read_line_or_end().is_some() {}
                    client.shutdown_both();
                });
            } else {
                silent.push(client);
            }
        }
        // They are well under way.
        let mut watcher = daemon.client();
        let (seq, _) = watcher.subscribe(json!({}));
        while watcher.next_event()["seq"].as_u64().unwrap() < seq + 50 {}
        drop(watcher);
        assert!(daemon.terminate().success());
    });
    assert!(
        daemon.data_dir().join("stopped").exists(),
        "{}",
        daemon.log()
    );
    let daemon = Daemon::on_dir(directory.path(), CONFIG);
    daemon.client().ok("session", "ping", json!({}));
}
