//! Data that other builds of chatd wrote: every build opens what an older one wrote, and leaves alone what a newer one did.
//!
//! `tests/fixtures/data-N` is a data directory as the last chatd left it that wrote format N, and `data-N.json` what it said
//! of it. `tests/fixtures/make` made them.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Client, Daemon};
use crate::lifecycle::refusal;

/// Events of that time are still kept.
const CONFIG: &str = "[events]\nkeep = \"36500d\"\n";

/// A data directory that an older chatd wrote, and what it said of it.
struct Fixture {
    scratch: TempDir,
    said: Value,
}

impl Fixture {
    fn of(name: &str) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let scratch = tempfile::tempdir().unwrap();
        copy(&fixtures.join(name), &scratch.path().join("data"));
        let said = fs::read_to_string(fixtures.join(format!("{name}.json"))).unwrap();
        Self {
            scratch,
            said: serde_json::from_str(&said).unwrap(),
        }
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn start(&self) -> Daemon {
        Daemon::on_dir(&self.data(), CONFIG)
    }

    /// Raises the format of the rows.
    fn upgrade(&self) {
        let output = Command::new(env!("CARGO_BIN_EXE_chatd"))
            .args(["--upgrade", "--data-dir"])
            .arg(self.data())
            .current_dir(self.scratch.path())
            .env_remove("STATE_DIRECTORY")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// The lines of the journal's manifest that tell of a format.
    fn format(&self) -> Vec<String> {
        let manifest = fs::read_to_string(self.data().join("journal/MANIFEST")).unwrap();
        let lines = manifest.lines().map(str::to_owned);
        lines.filter(|line| line.starts_with("format")).collect()
    }

    /// Everything that was said of the data is still so.
    fn check(&self, client: &mut Client) {
        let said = &self.said;
        let all = json!({"fields": "_all"});
        let same = |what: &str, now: &Value| {
            assert!(
                holds(now, &said[what]),
                "{what}: {now} is not {}",
                said[what]
            );
        };
        for (what, subclass) in [
            ("users", "user"),
            ("conversations", "conversation"),
            ("messages", "message"),
        ] {
            same(what, &client.ok(subclass, "search", all.clone()));
        }
        let bob = &said["nonce"]["user_id"];
        let tokens = client.ok("session", "token_list", json!({"user_id": bob}));
        let names = |tokens: &Value| -> Vec<Value> {
            let tokens = tokens["tokens"].as_array().unwrap();
            tokens.iter().map(|token| token["name"].clone()).collect()
        };
        assert_eq!(names(&tokens), names(&said["bot_tokens"]));
        // What was sent once is not sent again.
        let mut again = said["nonce"].clone();
        let message_id = again.as_object_mut().unwrap().remove("message_id").unwrap();
        assert_eq!(
            client.ok("message", "create", again)["message_id"],
            message_id
        );
    }

    /// The events are all there, and tokens and passwords let their users in.
    fn check_events_and_logins(&self, daemon: &Daemon) {
        let mut client = daemon.client();
        client.subscribe(json!({"since": 0, "epoch": self.said["info"]["epoch"]}));
        for event in self.said["events"].as_array().unwrap() {
            let now = client.next_event();
            assert!(holds(&now, event), "{now} is not {event}");
        }
        for token in self.said["tokens"].as_object().unwrap().values() {
            daemon
                .client()
                .ok("session", "login", json!({"token": token}));
        }
        daemon.client().login("ann@example.org", "s3cret-ann");
    }
}

/// Whether every field of `was` is in `now`, and as it was. A later chatd may tell more.
fn holds(now: &Value, was: &Value) -> bool {
    match (now, was) {
        (Value::Object(now), Value::Object(was)) => was
            .iter()
            .all(|(name, was)| now.get(name).is_some_and(|now| holds(now, was))),
        (Value::Array(now), Value::Array(was)) => {
            now.len() == was.len() && now.iter().zip(was).all(|(now, was)| holds(now, was))
        }
        (now, was) => now == was,
    }
}

fn copy(from: &Path, to: &Path) {
    fs::DirBuilder::new().mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Every file below a directory, with what is in it.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            files.push((path, bytes));
        }
    }
    files.sort();
    files
}

#[test]
fn what_chatd_0_1_wrote_is_opened_and_stays_what_it_can_open() {
    let fixture = Fixture::of("data-1");
    let mut daemon = fixture.start();
    fixture.check(&mut daemon.client());
    fixture.check_events_and_logins(&daemon);
    let conversation = fixture.said["nonce"]["conversation_id"].as_str().unwrap();
    let bob = fixture.said["nonce"]["user_id"].as_str().unwrap();
    let mut client = daemon.client();
    let added = client.send_message(conversation, bob, "one more");
    client.ok(
        "message",
        "delete",
        json!({"conversation_id": conversation, "message_id": added}),
    );
    let log = daemon.log();
    assert!(log.contains("--upgrade"), "{log}");
    assert!(daemon.terminate().success());
    assert_eq!(fixture.format(), [""; 0]);
    fs::remove_dir_all(fixture.data().join("state")).unwrap();
    fixture.check(&mut fixture.start().client());
}

#[test]
fn what_chatd_0_2_wrote_is_opened() {
    let fixture = Fixture::of("data-2");
    let daemon = fixture.start();
    fixture.check(&mut daemon.client());
    fixture.check_events_and_logins(&daemon);
}

#[test]
fn an_upgrade_lets_rows_grow_and_old_ones_are_read_beside_new_ones() {
    let fixture = Fixture::of("data-1");
    fixture.upgrade();
    let raised = fixture.format();
    assert_eq!(raised, ["format 2 0.2.0"]);
    // Once is enough.
    fixture.upgrade();
    let mut daemon = fixture.start();
    fixture.check(&mut daemon.client());
    fixture.check_events_and_logins(&daemon);
    assert!(!daemon.log().contains("--upgrade"), "{}", daemon.log());
    let conversation = fixture.said["nonce"]["conversation_id"].as_str().unwrap();
    let bob = fixture.said["nonce"]["user_id"].as_str().unwrap();
    let mut client = daemon.client();
    let added = client.send_message(conversation, bob, "one more");
    let text = |client: &mut Client| client.ok("message", "get", json!({"message_id": added}));
    assert_eq!(text(&mut client)["message"], "one more");
    daemon.kill();
    for manifest in [true, false] {
        if !manifest {
            fs::remove_file(fixture.data().join("journal/MANIFEST")).unwrap();
        }
        fs::remove_dir_all(fixture.data().join("state")).unwrap();
        let mut daemon = fixture.start();
        assert_eq!(text(&mut daemon.client())["message"], "one more");
        assert_eq!(fixture.format(), raised);
        assert!(daemon.terminate().success());
    }
}

#[test]
fn new_data_is_in_the_newest_format() {
    let daemon = Daemon::start();
    let manifest = fs::read_to_string(daemon.data_dir().join("journal/MANIFEST")).unwrap();
    assert!(manifest.contains("\nformat 2 0.2.0\n"), "{manifest}");
}

#[test]
fn what_a_newer_chatd_wrote_is_left_alone() {
    let fixture = Fixture::of("data-1");
    fixture.upgrade();
    let path = fixture.data().join("journal/MANIFEST");
    let manifest = fs::read_to_string(&path).unwrap();
    let newer = manifest.replace("format 2 0.2.0", "format 9 7.5.0");
    let (body, _) = newer.rsplit_once("sum ").unwrap();
    let sum = crc32c::crc32c(body.as_bytes());
    fs::write(&path, format!("{body}sum {sum:08x}\n")).unwrap();
    let before = files(&fixture.data());
    let data_dir = fixture.data().display().to_string();
    let free = "[[listen]]\naddress = \"127.0.0.1:0\"\n";
    for arguments in [
        &["--data-dir", &data_dir][..],
        &["--upgrade", "--data-dir", &data_dir],
    ] {
        let (code, said) = refusal(arguments, free);
        assert_eq!(code, Some(74), "{said}");
        for part in ["format 9", "version 7.5.0", "nothing was changed"] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(files(&fixture.data()), before);
    }
}
