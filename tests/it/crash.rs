//! What was acknowledged survives kill -9, a lost or noisy state, and a torn journal.

use crate::harness::{Client, Daemon};
use crate::ledger::{Ledger, all};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A trusted listener and fast password hashing, the same at every start.
pub const CONFIG: &str = "[[listen]]\naddress = \"127.0.0.1:0\"\n[security]\nbcrypt_cost = 4\n";

/// The seed of a random test, new or given back through `CHATD_SEED`.
pub fn seed() -> u64 {
    let given = std::env::var("CHATD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    println!("CHATD_SEED={seed}");
    seed
}

pub fn everything(client: &mut Client) -> Vec<Vec<Value>> {
    ["user", "conversation", "message"]
        .map(|subclass| all(client, subclass))
        .into()
}

#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    let mut random = StdRng::seed_from_u64(seed());
    let cycles: usize = std::env::var("CHATD_CRASHES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(50);
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    let mut ledger = Ledger::new(&mut daemon.client());
    for cycle in 0..cycles {
        let wanted = random.random_range(1..200);
        ledger.write_until(&mut daemon, &cycle.to_string(), wanted, |daemon, _| {
            daemon.kill();
        });
        daemon = Daemon::on_dir(directory.path(), CONFIG);
    }
    let (stored, events) = ledger.check(&mut daemon.client());
    println!(
        "{cycles} crashes, {} acknowledged, {stored} stored, {events} events",
        ledger.len()
    );
}

pub fn fill(client: &mut Client, count: usize) -> String {
    let user = client.create_user("ann@example.org");
    let conversation = client.create_conversation("lunch", &[&user]);
    for number in 0..count {
        let data = json!({"conversation_id": conversation, "user_id": user, "message": format!("message {number}")});
        client.request("message", "create", data);
    }
    for _ in 0..count {
        let answer = client.next_value();
        assert_eq!(answer["result"], "ok", "{answer}");
    }
    conversation
}

fn overwrite(path: &Path, from: usize, random: &mut StdRng) {
    let mut bytes = fs::read(path).unwrap();
    for byte in bytes
        .iter_mut()
        .skip(from)
        .take(if from == 0 { usize::MAX } else { 4096 })
    {
        *byte = random.random();
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_lost_or_noisy_state_is_built_again_from_the_journal() {
    let mut random = StdRng::seed_from_u64(seed());
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    fill(&mut daemon.client(), 500);
    let before = everything(&mut daemon.client());
    let state = directory.path().join("state");
    let files = |state: &Path| {
        fs::read_dir(state)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect::<Vec<_>>()
    };
    for damage in ["gone", "noise", "noise in the middle", "noise after a kill"] {
        if damage == "noise after a kill" {
            daemon.kill();
        } else {
            assert!(daemon.terminate().success());
        }
        match damage {
            "gone" => fs::remove_dir_all(&state).unwrap(),
            "noise in the middle" => {
                let path = state.join("db");
                let middle = fs::metadata(&path).unwrap().len() / 8;
                overwrite(&path, usize::try_from(middle).unwrap(), &mut random);
            }
            _ => files(&state)
                .iter()
                .filter(|path| path.is_file())
                .for_each(|path| overwrite(path, 0, &mut random)),
        }
        daemon = Daemon::on_dir(directory.path(), CONFIG);
        assert!(
            everything(&mut daemon.client()) == before,
            "the data differs after: {damage}"
        );
    }
}

#[test]
fn a_deletion_is_finished_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    let mut client = daemon.client();
    let conversation = fill(&mut client, 3000);
    let message = all(&mut client, "message")[0]["message_id"].clone();
    client.ok(
        "conversation",
        "delete",
        json!({"conversation_id": conversation}),
    );
    for restarted in [false, true] {
        if restarted {
            daemon.kill();
            daemon = Daemon::on_dir(directory.path(), CONFIG);
            client = daemon.client();
        }
        let get = json!({"conversation_id": conversation});
        assert_eq!(
            client.code("conversation", "get", get),
            "conversation_not_found"
        );
        assert_eq!(
            client.code("message", "get", json!({"message_id": message})),
            "message_not_found"
        );
        assert_eq!(all(&mut client, "message"), Vec::<Value>::new());
        assert_eq!(client.ok("server", "info", json!({}))["messages"], 0);
    }
}

/// The segment that is written to.
pub fn journal(directory: &Path) -> std::path::PathBuf {
    let paths = fs::read_dir(directory.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let segments = paths.filter(|path| path.extension().is_some_and(|ending| ending == "journal"));
    segments.max().unwrap()
}

/// Runs the daemon on a directory that it must refuse: its exit code, and what it says.
pub fn refusal(directory: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory)
        .current_dir(directory)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Asserts that a start on this directory is refused as one on storage that cannot be used; gives what it says of that, in
/// which this is.
fn refused(directory: &Path, mentioned: &str) -> String {
    let (code, said) = refusal(directory);
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains(mentioned), "{said}");
    said
}

#[test]
fn a_torn_tail_is_cut_off_and_damage_elsewhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    fill(&mut daemon.client(), 100);
    // Each of these is a record of its own, so that there is something whole behind the damage below.
    for number in 0..20 {
        daemon
            .client()
            .create_conversation(&format!("c{number}"), &[]);
    }
    let before = everything(&mut daemon.client());
    daemon.kill();
    let path = journal(directory.path());
    let whole = fs::read(&path).unwrap();
    for torn in [
        &b"\x20\x01\x00\x00torn"[..],
        &[0; 5000],
        &whole[48..48 + 30],
    ] {
        fs::write(&path, [&whole, torn].concat()).unwrap();
        daemon = Daemon::on_dir(directory.path(), CONFIG);
        assert!(everything(&mut daemon.client()) == before);
        daemon.kill();
        assert_eq!(fs::read(&path).unwrap().len(), whole.len());
        let kept = fs::read_dir(directory.path().join("journal")).unwrap();
        let mut kept = kept.map(|entry| entry.unwrap().path());
        assert!(kept.any(|path| fs::read(path).unwrap() == torn));
    }
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&path, damaged).unwrap();
    refused(directory.path(), ".journal is damaged at byte");
}

/// Makes the state doubtful, as a power cut does.
fn make_doubtful(directory: &Path) {
    let _ = fs::remove_file(directory.join("stopped"));
    fs::write(directory.join("running"), "boot another\nmount 1\n").unwrap();
}

#[test]
fn a_doubtful_state_is_kept_until_the_journal_is_found_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (state, old) = (
        directory.path().join("state"),
        directory.path().join("state.old"),
    );
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    fill(&mut daemon.client(), 500);
    // Each of these is a record of its own, so that there is something whole behind the damage below.
    for number in 0..20 {
        let name = format!("c{number}");
        daemon.client().create_conversation(&name, &[]);
    }
    let before = everything(&mut daemon.client());
    assert!(daemon.terminate().success());
    let path = journal(directory.path());
    let whole = fs::read(&path).unwrap();
    let state_bytes = fs::read(state.join("db")).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 4] ^= 1;
    fs::write(&path, damaged).unwrap();
    make_doubtful(directory.path());
    // However often it is tried, the state is still there, and was not touched.
    for _ in 0..2 {
        refused(directory.path(), ".journal");
        assert!(fs::read(state.join("db")).unwrap() == state_bytes);
        assert!(!old.exists());
    }
    // The last record may be what a crash left, as far as the journal tells; the doubtful state knows better.
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&path, damaged).unwrap();
    for _ in 0..2 {
        let said = refused(directory.path(), "ends with record");
        assert!(said.contains(old.to_str().unwrap()), "{said}");
        assert!(old.join("db").exists());
    }
    fs::write(&path, whole).unwrap();
    daemon = Daemon::on_dir(directory.path(), CONFIG);
    assert!(everything(&mut daemon.client()) == before);
    assert!(!old.exists(), "it is built");
}

#[test]
fn a_crash_while_the_state_is_built_again_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (state, old) = (
        directory.path().join("state"),
        directory.path().join("state.old"),
    );
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    fill(&mut daemon.client(), 500);
    let before = everything(&mut daemon.client());
    assert!(daemon.terminate().success());
    for crash in [
        "before the new one is begun",
        "while it is built",
        "with a doubtful new one",
    ] {
        if crash == "before the new one is begun" {
            fs::rename(&state, &old).unwrap();
        } else {
            fs::create_dir(&old).unwrap();
            fs::write(old.join("db"), "the state before").unwrap();
        }
        if crash == "with a doubtful new one" {
            make_doubtful(directory.path());
        }
        daemon = Daemon::on_dir(directory.path(), CONFIG);
        assert!(everything(&mut daemon.client()) == before, "{crash}");
        assert!(!old.exists(), "{crash}");
        daemon.kill();
    }
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::on_dir(directory.path(), CONFIG);
    refused(directory.path(), "in use by another chatd");
    daemon.client().ok("session", "ping", json!({}));
}
