//! A disk that is full, and one that fails.

mod behind;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::crash::CONFIG;
use crate::harness::clocked::Room;
use crate::harness::machine::{Disk, Fault, Mount, root_with, skipped};
use crate::harness::{Client, Daemon, LOGINS};
use crate::ledger::all;

const DISK_BYTES: u64 = 96 * 1024 * 1024;
const TEXT_BYTES: usize = 16_000;

/// A small disk of its own, mounted, or why there is none.
fn small_disk() -> Result<(Disk, Mount), String> {
    root_with(&["mkfs.ext4", "mount", "umount"])?;
    let disk = Disk::ext4(DISK_BYTES)?;
    let mount = disk.mount("loop")?;
    Ok((disk, mount))
}

/// Somebody who writes, and what was acknowledged.
struct Writer {
    client: Client,
    user: String,
    conversation: String,
    ids: Vec<String>,
}

impl Writer {
    fn new(daemon: &Daemon) -> Self {
        let Room {
            client,
            user,
            conversation,
        } = Room::of(daemon.client());
        Self {
            client,
            user,
            conversation,
            ids: Vec::new(),
        }
    }

    /// One that has written some messages to a daemon on this directory.
    fn begun(directory: &Path) -> (Daemon, Self) {
        let daemon = Daemon::on_dir(directory, CONFIG);
        let mut writer = Self::new(&daemon);
        for _ in 0..20 {
            writer.write().unwrap();
        }
        (daemon, writer)
    }

    /// The message that it writes.
    fn message(&self) -> Value {
        json!({
            "conversation_id": self.conversation, "user_id": self.user, "message": "x".repeat(TEXT_BYTES),
        })
    }

    /// Writes a message; an error is its code.
    fn write(&mut self) -> Result<(), String> {
        let answer = self.client.call("message", "create", self.message());
        match answer["data"]["message_id"].as_str() {
            Some(id) => {
                self.ids.push(id.to_owned());
                Ok(())
            }
            None => Err(answer["data"]["code"].as_str().unwrap().to_owned()),
        }
    }

    /// Every kind of change but a deletion is refused with this code, changes nothing, and everything can be read.
    fn only_reads(&mut self, code: &str) {
        let (user, conversation) = (self.user.clone(), self.conversation.clone());
        let message = self.ids[0].clone();
        let update =
            json!({"conversation_id": conversation, "message_id": message, "message": "y"});
        let before = self.read();
        assert_eq!(self.write(), Err(code.to_owned()));
        let changes = [
            ("message", "update", update),
            ("user", "update", json!({"user_id": user, "name": "Anne"})),
            ("conversation", "create", json!({"name": "another"})),
            (
                "conversation",
                "remove_members",
                json!({"conversation_id": conversation, "user_ids": [user]}),
            ),
        ];
        for (subclass, cmd, data) in changes {
            assert_eq!(
                self.client.code(subclass, cmd, data),
                code,
                "{subclass} {cmd}"
            );
        }
        // What is refused for a reason of its own is refused for that reason still.
        let taken = json!({"login": "ANN@example.org", "name": "Ann", "password": "x"});
        assert_eq!(self.client.code("user", "create", taken), "login_taken");
        assert!(self.read() == before, "a refused change left something");
        let stored: Vec<Value> = all(&mut self.client, "message")
            .iter()
            .filter(|row| row["conversation_id"] == self.conversation)
            .map(|row| row["message_id"].clone())
            .collect();
        assert!(
            stored == self.ids,
            "{} stored, {} acknowledged",
            stored.len(),
            self.ids.len()
        );
    }

    /// Deletions are refused too.
    fn no_deletions(&mut self, code: &str) {
        let (user, conversation) = (&self.user, &self.conversation);
        let deletions = [
            (
                "message",
                json!({"conversation_id": conversation, "message_id": self.ids[0]}),
            ),
            ("user", json!({"user_id": user})),
            ("conversation", json!({"conversation_id": conversation})),
        ];
        for (subclass, data) in deletions {
            assert_eq!(self.client.code(subclass, "delete", data), code);
        }
    }

    /// Objects, counters and the log as they are read.
    fn read(&mut self) -> Vec<Value> {
        let mut found: Vec<Value> = ["user", "conversation"]
            .map(|subclass| json!(all(&mut self.client, subclass)))
            .into();
        let mut info = self.client.ok("server", "info", json!({}));
        found.extend(["users", "conversations", "messages", "seq"].map(|name| info[name].take()));
        let page =
            json!({"filter": {"conversation_id": self.conversation}, "size": 3, "fields": "_all"});
        found.push(self.client.ok("message", "search", page));
        found
    }
}

/// Takes all the room that a disk has.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("ballast");
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .unwrap();
    // What a sync gives back of the room that it had set aside is taken too.
    for piece_bytes in [1 << 20, 4096, 4096] {
        let piece = vec![0; piece_bytes];
        while file.write_all(&piece).is_ok() {}
        file.sync_all().unwrap();
    }
    path
}

/// The events are dense, and tell of every message that was acknowledged.
fn check_events(daemon: &Daemon, ids: &[String]) {
    let mut client = daemon.client();
    let (newest, _) = client.subscribe(json!({"since": 0}));
    let mut told = Vec::new();
    for seq in 1..=newest {
        let event = client.next_event();
        assert_eq!(event["seq"], seq);
        if event["type"] == "created_message" {
            told.push(event["body"]["message_id"].as_str().unwrap().to_owned());
        }
    }
    assert!(
        told == ids,
        "{} told, {} acknowledged",
        told.len(),
        ids.len()
    );
}

#[test]
fn a_disk_that_fills_up_takes_no_changes_until_there_is_room() {
    let (_disk, mount) = match small_disk() {
        Ok(made) => made,
        Err(why) => {
            return skipped(
                "a_disk_that_fills_up_takes_no_changes_until_there_is_room",
                &why,
            );
        }
    };
    let data_dir = mount.path().join("data");
    let ballast = mount.path().join("ballast");
    fs::write(&ballast, vec![0; 32 << 20]).unwrap();
    let daemon = Daemon::on_dir(&data_dir, CONFIG);
    let mut writer = Writer::new(&daemon);
    let refused = loop {
        if let Err(code) = writer.write() {
            break code;
        }
    };
    assert_eq!(refused, "storage_full");
    assert!(writer.ids.len() > 100, "{}", writer.ids.len());
    writer.only_reads("storage_full");
    check_events(&daemon, &writer.ids);
    // With room again, it goes on without a restart.
    fs::remove_file(&ballast).unwrap();
    for _ in 0..100 {
        writer.write().unwrap();
    }
    check_events(&daemon, &writer.ids);
}

/// Who can be put out while the disk is full, and what of theirs.
struct Culprit {
    user: String,
    conversation: String,
    message: String,
    token: String,
}

impl Culprit {
    fn new(trusted: &mut Client, login: &str) -> Self {
        let user = trusted.create_user(login);
        let conversation = trusted.create_conversation("hoard", &[&user]);
        let message = trusted.send_message(&conversation, &user, "mine");
        let token = json!({"name": "bot", "user_id": user});
        let token = trusted.ok("session", "token_create", token)["token_id"].take();
        Self {
            user,
            conversation,
            message,
            token: token.as_str().unwrap().to_owned(),
        }
    }

    /// The deletions of all that is its own, itself last.
    fn deletions(&self) -> [(&'static str, &'static str, Value); 4] {
        let (conversation, message) = (&self.conversation, &self.message);
        [
            (
                "message",
                "delete",
                json!({"conversation_id": conversation, "message_id": message}),
            ),
            (
                "conversation",
                "delete",
                json!({"conversation_id": conversation}),
            ),
            ("session", "token_delete", json!({"token_id": self.token})),
            ("user", "delete", json!({"user_id": self.user})),
        ]
    }

    fn is_gone(&self, trusted: &mut Client) {
        let gets = [
            ("message", "message_id", &self.message),
            ("conversation", "conversation_id", &self.conversation),
            ("user", "user_id", &self.user),
        ];
        for (subclass, field, id) in gets {
            let code = trusted.code(subclass, "get", json!({field: id}));
            assert_eq!(code, format!("{subclass}_not_found"));
        }
    }
}

#[test]
fn on_a_full_disk_those_who_may_do_everything_still_delete() {
    const NAME: &str = "on_a_full_disk_those_who_may_do_everything_still_delete";
    let (_disk, mount) = match small_disk() {
        Ok(made) => made,
        Err(why) => return skipped(NAME, &why),
    };
    let data_dir = mount.path().join("data");
    let mut daemon = Daemon::on_dir(&data_dir, LOGINS);
    let mut writer = Writer::new(&daemon);
    let admin = json!({"login": "root", "name": "root", "password": "s3cret", "role": "admin"});
    writer.client.ok("user", "create", admin);
    let logins = ["cuno", "dora", "emil"];
    let culprits = logins.map(|login| Culprit::new(&mut writer.client, login));
    let [by_trusted, by_admin, by_itself] = &culprits;
    let mut itself = daemon.user("emil");
    while writer.write().is_ok() {}
    // Full to the last byte: what chatd kept back is gone too, but for its reserves.
    for full in ["for chatd", "for everybody"] {
        if full == "for everybody" {
            fill(mount.path());
        }
        let (culprit, mut client) = match full {
            "for chatd" => (by_trusted, daemon.client()),
            _ => (by_admin, daemon.user("root")),
        };
        writer.only_reads("storage_full");
        for (subclass, cmd, data) in by_itself.deletions() {
            // The conversation is not its own.
            if subclass != "conversation" {
                assert_eq!(itself.code(subclass, cmd, data), "storage_full", "{full}");
            }
        }
        for (subclass, cmd, data) in culprit.deletions() {
            let answer = client.call(subclass, cmd, data);
            assert_eq!(answer["result"], "ok", "{subclass} {cmd} {full}: {answer}");
        }
        culprit.is_gone(&mut writer.client);
        writer.only_reads("storage_full");
        daemon.kill();
        daemon = Daemon::on_dir(&data_dir, LOGINS);
        writer.client = daemon.client();
        itself = daemon.user("emil");
        culprit.is_gone(&mut writer.client);
        writer.only_reads("storage_full");
    }
}

#[test]
fn a_disk_that_others_fill_to_the_last_byte_is_survived() {
    let (_disk, mount) = match small_disk() {
        Ok(made) => made,
        Err(why) => return skipped("a_disk_that_others_fill_to_the_last_byte_is_survived", &why),
    };
    let data_dir = mount.path().join("data");
    let mut daemon = Daemon::on_dir(&data_dir, CONFIG);
    let mut writer = Writer::new(&daemon);
    for _ in 0..200 {
        writer.write().unwrap();
    }
    let ballast = fill(mount.path());
    writer.only_reads("storage_full");
    fs::remove_file(&ballast).unwrap();
    writer.write().unwrap();
    // It starts on a full disk too, after a stop and after a crash, and goes on there in the same way.
    for stopped in [true, false] {
        let ballast = fill(mount.path());
        writer.only_reads("storage_full");
        if stopped {
            assert!(daemon.terminate().success());
        } else {
            daemon.kill();
        }
        fill(mount.path());
        daemon = Daemon::on_dir(&data_dir, CONFIG);
        writer.client = daemon.client();
        writer.only_reads("storage_full");
        fs::remove_file(&ballast).unwrap();
        writer.write().unwrap();
    }
    check_events(&daemon, &writer.ids);
}

/// The last line of a connection that the storage's failure ends: what was asked last is answered in no other way.
fn closed_in_doubt(client: &mut Client) {
    let last = client.next_value();
    assert_eq!(last["type"], "closed", "{last}");
    let body = &last["body"];
    assert_eq!(
        (&body["code"], &body["retry"]),
        (&json!("unavailable"), &json!(true))
    );
    assert_eq!(client.read_line_or_end(), None);
}

#[test]
fn a_write_that_fails_is_refused_and_writing_goes_on_when_it_can() {
    const NAME: &str = "a_write_that_fails_is_refused_and_writing_goes_on_when_it_can";
    if let Err(why) = root_with(&["strace"]) {
        return skipped(NAME, &why);
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut daemon, mut writer) = Writer::begun(directory.path());
    for (error, code) in [
        ("EIO", "unavailable"),
        ("EDQUOT", "storage_full"),
        ("ENOSPC", "storage_full"),
    ] {
        let fault = match Fault::inject(&daemon, &["write"], error) {
            Ok(fault) => fault,
            Err(why) => return skipped(NAME, &why),
        };
        writer.no_deletions(code);
        writer.only_reads(code);
        drop(fault);
        writer.write().unwrap();
    }
    assert!(daemon.log().contains("the journal can be written again"));
    daemon.kill();
    daemon = Daemon::on_dir(directory.path(), CONFIG);
    writer.client = daemon.client();
    writer.write().unwrap();
    check_events(&daemon, &writer.ids);
}

#[test]
fn a_sync_or_a_cut_that_fails_leaves_the_last_change_in_doubt_and_ends_the_daemon() {
    const NAME: &str =
        "a_sync_or_a_cut_that_fails_leaves_the_last_change_in_doubt_and_ends_the_daemon";
    if let Err(why) = root_with(&["strace"]) {
        return skipped(NAME, &why);
    }
    for (calls, error) in [
        (&["fdatasync"][..], "EIO"),
        (&["fdatasync"], "ENOSPC"),
        (&["write", "ftruncate"], "ENOSPC"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (mut daemon, mut writer) = Writer::begun(directory.path());
        let mut bystander = daemon.client();
        bystander.ok("session", "ping", json!({}));
        let fault = match Fault::inject(&daemon, calls, error) {
            Ok(fault) => fault,
            Err(why) => return skipped(NAME, &why),
        };
        let data = json!({"conversation_id": writer.conversation, "user_id": writer.user, "message": "in doubt"});
        writer.client.request("message", "create", data);
        closed_in_doubt(&mut writer.client);
        closed_in_doubt(&mut bystander);
        assert_eq!(daemon.ended().code(), Some(74), "{}", daemon.log());
        drop(fault);
        daemon = Daemon::on_dir(directory.path(), CONFIG);
        writer.client = daemon.client();
        // It may be there or not; what was acknowledged is.
        let (doubtful, rows): (Vec<Value>, Vec<Value>) = all(&mut writer.client, "message")
            .into_iter()
            .partition(|row| row["message"] == "in doubt");
        let stored: Vec<&str> = rows
            .iter()
            .map(|row| row["message_id"].as_str().unwrap())
            .collect();
        assert!(doubtful.len() <= 1 && stored == writer.ids, "{calls:?}");
        writer.write().unwrap();
    }
}

#[test]
fn a_segment_that_cannot_be_begun_is_refused_and_begun_when_it_can() {
    const NAME: &str = "a_segment_that_cannot_be_begun_is_refused_and_begun_when_it_can";
    if let Err(why) = root_with(&["strace"]) {
        return skipped(NAME, &why);
    }
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::on_dir(directory.path(), CONFIG);
    let mut writer = Writer::new(&daemon);
    writer.write().unwrap();
    // The journal's directory is opened through its descriptor, so the path is that of the directory.
    let journal = [directory.path().join("journal")];
    let fault = match Fault::inject_on(&daemon, &journal, &["openat"], "EMFILE") {
        Ok(fault) => fault,
        Err(why) => return skipped(NAME, &why),
    };
    // One segment takes 64 MiB; the next cannot be begun.
    let refused = loop {
        if let Err(code) = writer.write() {
            break code;
        }
        assert!(writer.ids.len() < 6000, "no new segment was begun");
    };
    assert_eq!(refused, "unavailable");
    assert_eq!(writer.write(), Err("unavailable".to_owned()));
    drop(fault);
    writer.write().unwrap();
    let segments = fs::read_dir(&journal[0]).unwrap();
    let segments = segments.filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.extension().is_some_and(|ending| ending == "journal")
    });
    assert_eq!(segments.count(), 2);
    check_events(&daemon, &writer.ids);
}
