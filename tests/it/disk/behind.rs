//! The state fails behind the journal: what is in the journal counts, and the state is built again from it.

use serde_json::json;

use super::{CONFIG, TEXT_BYTES, Writer, all};
use crate::harness::Daemon;
use crate::harness::machine::{Fault, root_with, skipped};

/// More messages than are kept back before they are written.
const MESSAGES_MAX: usize = 1000;

#[test]
fn a_state_that_can_be_written_no_more_ends_the_daemon_and_is_built_again() {
    const NAME: &str = "a_state_that_can_be_written_no_more_ends_the_daemon_and_is_built_again";
    if let Err(why) = root_with(&["strace"]) {
        return skipped(NAME, &why);
    }
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    let mut writer = Writer::new(&daemon);
    for _ in 0..20 {
        writer.write().unwrap();
    }
    let state = directory.path().join("state/db");
    let fault = match Fault::inject_on(&daemon, &[state], &["pwrite64"], "EIO") {
        Ok(fault) => fault,
        Err(why) => return skipped(NAME, &why),
    };
    loop {
        let data = json!({
            "conversation_id": writer.conversation, "user_id": writer.user, "message": "x".repeat(TEXT_BYTES),
        });
        let Some(answer) = writer.client.call_or_end("message", "create", data) else {
            break;
        };
        let id = answer["data"]["message_id"].as_str();
        writer.ids.push(id.expect("an id").to_owned());
        assert!(writer.ids.len() < MESSAGES_MAX, "the state never fails");
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
