//! While the store is being opened: who connects is told so, and a signal is heard.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::crash::CONFIG;
use crate::harness::machine::run;
use crate::harness::{Client, Daemon, wait_until};

/// Enough that building the state takes a while.
const MESSAGES: usize = 40_000;
/// Bytes of the state's file when the new one is well under way.
const UNDER_WAY_BYTES: u64 = 6 * 1024 * 1024;

fn fill(daemon: &Daemon) {
    let mut client = daemon.client();
    let user = client.create_user("ann@example.org");
    let conversation = client.create_conversation("lunch", &[&user]);
    let text = "hello ".repeat(60);
    for _ in 0..MESSAGES / 1000 {
        for _ in 0..1000 {
            let data = json!({"conversation_id": conversation, "user_id": user, "message": text});
            client.request("message", "create", data);
        }
        for _ in 0..1000 {
            assert_eq!(client.next_value()["result"], "ok");
        }
    }
}

/// Starts a daemon that is not waited for.
fn start(data: &Path, socket: &Path, log: &Path, said: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_chatd"))
        .arg("--listen")
        .arg(format!("unix:{}", socket.display()))
        .arg("--data-dir")
        .arg(data)
        .current_dir(log.parent().unwrap())
        .env_remove("STATE_DIRECTORY")
        .stdin(Stdio::null())
        .stdout(File::create(said).unwrap())
        .stderr(File::create(log).unwrap())
        .spawn()
        .unwrap()
}

/// How many records a start has brought the state up by, as its log says.
fn brought(log: &Path) -> Option<usize> {
    let log = fs::read_to_string(log).unwrap();
    let line = log
        .lines()
        .find(|line| line.contains("brought the state up"))?;
    let (_, records) = line.split_once("records=")?;
    records.split_whitespace().next()?.parse().ok()
}

/// Asks a daemon that is not open yet to stop: it does, soon, and has listened to nobody.
fn stop(mut starting: Child, signal: Signal, log: &Path, said: &Path) {
    let asked = Instant::now();
    kill_process(Pid::from_child(&starting), signal).unwrap();
    let status = starting.wait().unwrap();
    let log = fs::read_to_string(log).unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    // A second, and time for a busy machine.
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(fs::read(said).unwrap(), b"", "it did not listen yet");
}

#[test]
fn who_connects_while_the_store_is_opened_is_told_and_a_signal_is_heard() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (data, socket, log, said) = (path("data"), path("socket"), path("log"), path("said"));
    fs::create_dir_all(data.join("state")).unwrap();
    // Nobody ever writes to this pipe: the opening hangs, as on a disk that does not answer.
    run(Command::new("mkfifo").arg(data.join("stopped"))).unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let starting = start(&data, &socket, &log, &said);
        wait_until("the socket", || UnixStream::connect(&socket).is_ok());
        let mut client = Client::connect(&format!("unix:{}", socket.display()));
        // What was sent does not keep the last line from coming.
        client
            .send_bytes_or_end(b"{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\"}\n");
        let last: Value = serde_json::from_str(&client.read_line().unwrap()).unwrap();
        assert_eq!(last["type"], "closed", "{last}");
        let body = &last["body"];
        assert_eq!(
            (&body["code"], &body["retry"]),
            (&json!("unavailable"), &json!(true))
        );
        let text = body["error"].as_str().unwrap();
        assert!(text.contains("opens its store"), "{text}");
        assert_eq!(client.read_line_or_end(), None);
        stop(starting, signal, &log, &said);
    }
}

#[test]
fn a_rebuild_that_is_stopped_goes_on_at_the_next_start() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (data, socket, log, said) = (path("data"), path("socket"), path("log"), path("said"));
    let mut daemon = Daemon::on_dir(&data, CONFIG);
    fill(&daemon);
    assert!(daemon.terminate().success());
    fs::remove_dir_all(data.join("state")).unwrap();
    let starting = start(&data, &socket, &log, &said);
    wait_until("the new state to grow", || {
        let about = fs::metadata(data.join("state/db"));
        about.is_ok_and(|about| about.len() >= UNDER_WAY_BYTES)
    });
    stop(starting, Signal::TERM, &log, &said);
    assert_eq!(
        brought(&log),
        None,
        "it was over before it was asked to stop"
    );
    let mut starting = start(&data, &socket, &log, &said);
    wait_until("the daemon to listen", || {
        fs::read_to_string(&said).unwrap().contains("listening on")
    });
    // Nothing is said of no rest: where the stop was heard behind the last record.
    let rest = brought(&log).unwrap_or(0);
    let mut client = Client::connect(&format!("unix:{}", socket.display()));
    let info = client.ok("server", "info", json!({}));
    assert_eq!(info["messages"], MESSAGES);
    starting.kill().unwrap();
    starting.wait().unwrap();
    // Built from the beginning, it takes them all.
    fs::remove_dir_all(data.join("state")).unwrap();
    let mut starting = start(&data, &socket, &log, &said);
    wait_until("all of it", || brought(&log).is_some());
    let all = brought(&log).expect("a line about all");
    assert!(rest < all, "{rest} of {all}");
    starting.kill().unwrap();
    starting.wait().unwrap();
}
