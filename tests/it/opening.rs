//! While the store is being opened: who connects is told so, and a signal is heard.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::crash::CONFIG;
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

#[test]
fn a_signal_during_a_rebuild_is_heard_and_who_connects_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (data, socket, log, said) = (path("data"), path("socket"), path("log"), path("said"));
    let mut daemon = Daemon::on_dir(&data, CONFIG);
    fill(&daemon);
    assert!(daemon.terminate().success());
    fs::remove_dir_all(data.join("state")).unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let mut starting = start(&data, &socket, &log, &said);
        wait_until("the socket", || UnixStream::connect(&socket).is_ok());
        let mut client = Client::connect(&format!("unix:{}", socket.display()));
        // What was sent does not keep the last line from coming.
        client
            .send_bytes_or_end(b"{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\"}\n");
        let last: Value = serde_json::from_str(&client.read_line().unwrap()).unwrap();
        assert_eq!(last["type"], "closed", "{last}");
        assert_eq!(last["body"]["code"], "unavailable");
        assert_eq!(last["body"]["retry"], true);
        assert!(
            last["body"]["error"]
                .as_str()
                .unwrap()
                .contains("opens its store")
        );
        assert_eq!(client.read_line_or_end(), None);
        if signal == Signal::TERM {
            wait_until("the new state to grow", || {
                let about = fs::metadata(data.join("state/db"));
                about.is_ok_and(|about| about.len() >= UNDER_WAY_BYTES)
            });
        }
        let asked = Instant::now();
        kill_process(Pid::from_child(&starting), signal).unwrap();
        let status = starting.wait().unwrap();
        assert_eq!(
            status.code(),
            Some(0),
            "{}",
            fs::read_to_string(&log).unwrap()
        );
        // A second, and time for a busy machine.
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            asked.elapsed()
        );
        assert_eq!(
            brought(&log),
            None,
            "it was over before it was asked to stop"
        );
        assert_eq!(fs::read(&said).unwrap(), b"", "it did not listen yet");
    }
    // The next start goes on from there.
    let mut starting = start(&data, &socket, &log, &said);
    wait_until("the daemon to listen", || {
        fs::read_to_string(&said).unwrap().contains("listening on")
    });
    let records = brought(&log).expect("a line about the rest");
    assert!(fs::read_to_string(&log).unwrap().contains("started"));
    let mut client = Client::connect(&format!("unix:{}", socket.display()));
    let info = client.ok("server", "info", json!({}));
    assert_eq!(info["messages"], MESSAGES);
    starting.kill().unwrap();
    starting.wait().unwrap();
    // Built from the beginning, it takes them all.
    fs::remove_dir_all(data.join("state")).unwrap();
    let daemon = Daemon::on_dir(&data, CONFIG);
    let all = daemon.log();
    let (_, all) = all.split_once("records=").expect("a line about all");
    let all: usize = all.split_whitespace().next().unwrap().parse().unwrap();
    assert!(records < all, "{records} of {all}");
}
