//! The state fails behind the journal: what is in the journal counts, and the state is built again from it.

use std::fs;

use super::{CONFIG, Writer, all};
use crate::harness::Daemon;
use crate::harness::machine::{Fault, Mount, root_with, skipped};

/// More messages than are kept back before they are written.
const MESSAGES_MAX: usize = 1000;

#[test]
fn a_state_that_can_be_written_no_more_ends_the_daemon_and_is_built_again() {
    const NAME: &str = "a_state_that_can_be_written_no_more_ends_the_daemon_and_is_built_again";
    if let Err(why) = root_with(&["strace"]) {
        return skipped(NAME, &why);
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut daemon, mut writer) = Writer::begun(directory.path());
    let state = directory.path().join("state/db");
    let fault = match Fault::inject_on(&daemon, &[state], &["pwrite64"], "EIO") {
        Ok(fault) => fault,
        Err(why) => return skipped(NAME, &why),
    };
    for sent in 0.. {
        assert!(sent < MESSAGES_MAX, "the state never fails");
        let data = writer.message();
        let Some(answer) = writer.client.call_or_end("message", "create", data) else {
            break;
        };
        match answer["data"]["message_id"].as_str() {
            Some(id) => writer.ids.push(id.to_owned()),
            // What needs a state that cannot be read is refused, in the moment before the end.
            None => assert_eq!(answer["data"]["code"], "unavailable", "{answer}"),
        }
    }
    assert_eq!(daemon.ended().code(), Some(74), "{}", daemon.log());
    drop(fault);
    let daemon = Daemon::on_dir(directory.path(), CONFIG);
    let log = daemon.log();
    assert!(log.contains("built again from the journal"), "{log}");
    // What was acknowledged is there, and one more may be.
    writer.client = daemon.client();
    let rows = all(&mut writer.client, "message");
    let stored: Vec<&str> = rows
        .iter()
        .map(|row| row["message_id"].as_str().unwrap())
        .take(writer.ids.len())
        .collect();
    assert_eq!(stored, writer.ids);
    assert!(rows.len() <= writer.ids.len() + 1, "{}", rows.len());
    writer.write().unwrap();
}

#[test]
fn the_old_state_goes_first_where_there_is_no_room_for_both() {
    const NAME: &str = "the_old_state_goes_first_where_there_is_no_room_for_both";
    const LEFT_BYTES: u64 = 4 * 1024 * 1024;
    if let Err(why) = root_with(&["mount", "umount"]) {
        return skipped(NAME, &why);
    }
    let mount = match Mount::tmpfs(96 * 1024 * 1024) {
        Ok(mount) => mount,
        Err(why) => return skipped(NAME, &why),
    };
    let data = mount.path().join("data");
    let mut daemon = Daemon::on_dir(&data, CONFIG);
    let mut writer = Writer::new(&daemon);
    for _ in 0..800 {
        writer.write().unwrap();
    }
    assert!(daemon.terminate().success());
    // The state is doubtful, and must be built again; most of the disk is somebody else's meanwhile.
    fs::remove_file(data.join("stopped")).unwrap();
    let free = rustix::fs::statvfs(mount.path()).unwrap();
    let free = free.f_bavail * free.f_frsize;
    let ballast = usize::try_from(free - LEFT_BYTES).unwrap();
    fs::write(mount.path().join("ballast"), vec![0; ballast]).unwrap();
    let daemon = Daemon::on_dir(&data, CONFIG);
    let log = daemon.log();
    assert!(
        log.contains("the state before is removed, to make room"),
        "{log}"
    );
    assert!(!data.join("state.old").exists());
    let rows = all(&mut daemon.client(), "message");
    assert_eq!(rows.len(), writer.ids.len());
}
