//! A journal that is damaged, or ends before what was built from it: said, refused, and never covered up.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::crash::{CONFIG, everything, fill, journal, refusal};
use crate::harness::{Client, Daemon};

/// Bytes of a text of which the journal keeps two copies.
const TEXT_BYTES: usize = 16_000;
/// Texts of that size that fill a segment.
const TEXTS_PER_SEGMENT: usize = 2100;
/// Requests that are under way at once.
const WINDOW: usize = 100;

/// Cuts a file, and gives what it was.
fn cut(path: &Path, bytes: u64) -> Vec<u8> {
    let whole = fs::read(path).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
    whole
}

/// The numbers of records that a refusal names, and the command that goes on all the same.
fn numbers(said: &str) -> (u64, u64) {
    let after = |words: &str| -> u64 {
        let (_, rest) = said
            .split_once(words)
            .unwrap_or_else(|| panic!("{words}: {said}"));
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    (after("ends with record "), after(" has record "))
}

#[test]
fn a_journal_that_ends_before_the_state_is_refused_and_neither_is_touched() {
    for killed in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
        let mut client = daemon.client();
        fill(&mut client, 300);
        let (newest, epoch) = client.subscribe(json!({}));
        let before = everything(&mut daemon.client());
        // Once it was stopped the state has everything; killed at once, it might not.
        assert!(daemon.terminate().success());
        if killed {
            daemon = Daemon::on_dir(directory.path(), CONFIG);
            daemon.kill();
        }
        let segment = journal(directory.path());
        let whole = cut(&segment, 48);
        for _ in 0..2 {
            let (code, said) = refusal(directory.path());
            assert_eq!(code, Some(74), "{said}");
            let (journal, state) =
                numbers(&said.replace("it had when chatd was stopped record", "x has record"));
            assert_eq!(journal, 0, "{said}");
            assert!(state > 0, "{said}");
            assert!(said.contains(&segment.display().to_string()), "{said}");
            assert!(
                said.contains("backup") && said.contains("\"end 0\""),
                "{said}"
            );
            assert_eq!(fs::metadata(&segment).unwrap().len(), 48);
        }
        // With what was missing it goes on.
        fs::write(&segment, &whole).unwrap();
        daemon = Daemon::on_dir(directory.path(), CONFIG);
        assert!(everything(&mut daemon.client()) == before);
        assert!(daemon.terminate().success());
        // Without it, only by a person's word; then it is another log.
        fs::write(&segment, &whole[..whole.len() - 100]).unwrap();
        let (_, said) = refusal(directory.path());
        let (_, way) = said.split_once("write the line \"").unwrap();
        let (way, _) = way.split_once('"').unwrap();
        fs::write(directory.path().join("journal/MANIFEST"), way).unwrap();
        daemon = Daemon::on_dir(directory.path(), CONFIG);
        let mut client = daemon.client();
        let resume = json!({"since": newest - 50, "epoch": epoch});
        assert_eq!(client.code("event", "subscribe", resume), "events_expired");
        let (left, other) = client.subscribe(json!({}));
        assert!(
            left < newest && left > 0 && other != epoch,
            "{left} of {newest}"
        );
        let names = fs::read_dir(directory.path()).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(names.any(|name| name.starts_with("state.aside-")));
    }
}

#[test]
fn a_journal_that_is_missing_or_empty_beside_a_state_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    fill(&mut daemon.client(), 20);
    let before = everything(&mut daemon.client());
    assert!(daemon.terminate().success());
    let (journal, away) = (
        directory.path().join("journal"),
        directory.path().join("away"),
    );
    fs::rename(&journal, &away).unwrap();
    for noted in [true, false] {
        if !noted {
            fs::remove_file(directory.path().join("stopped")).unwrap();
        }
        let (code, said) = refusal(directory.path());
        assert_eq!(code, Some(74), "{said}");
        assert!(said.contains("is empty"), "{said}");
    }
    fs::remove_dir(&journal).unwrap();
    fs::rename(&away, &journal).unwrap();
    daemon = Daemon::on_dir(directory.path(), CONFIG);
    assert!(everything(&mut daemon.client()) == before);
}

#[test]
fn a_last_record_that_is_damaged_is_kept_and_said_to_be_perhaps_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    fill(&mut daemon.client(), 20);
    daemon.kill();
    // Without a state nothing says that it was whole.
    fs::remove_dir_all(directory.path().join("state")).unwrap();
    let segment = journal(directory.path());
    let mut bytes = fs::read(&segment).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let daemon = Daemon::on_dir(directory.path(), CONFIG);
    let log = daemon.log();
    let line = log
        .lines()
        .find(|line| line.contains("may have been acknowledged"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("WARN"), "{line}");
    let left = usize::try_from(fs::metadata(&segment).unwrap().len()).unwrap();
    assert!(
        line.contains(&format!("bytes={}", bytes.len() - left)),
        "{line}"
    );
    let kept = fs::read_dir(directory.path().join("journal")).unwrap();
    let kept = kept.map(|entry| entry.unwrap().path());
    let kept: Vec<PathBuf> = kept
        .filter(|path| path.to_string_lossy().contains(".cut-"))
        .collect();
    assert_eq!(kept.len(), 1);
    assert!(fs::read(&kept[0]).unwrap() == bytes[left..]);
}

/// Writes texts, so many at once that a segment is soon full.
fn write(client: &mut Client, count: usize) {
    let user = client.create_user("big@example.org");
    let conversation = client.create_conversation("big", &[&user]);
    for window in (0..count).collect::<Vec<_>>().chunks(WINDOW) {
        for number in window {
            let text = format!("{number} {}", "x".repeat(TEXT_BYTES));
            let data = json!({"conversation_id": conversation, "user_id": user, "message": text});
            client.request("message", "create", data);
        }
        for _ in window {
            assert_eq!(client.next_value()["result"], "ok");
        }
    }
}

/// What a client gets that resumes, until it is up to date or closed.
fn resume(client: &mut Client, since: u64, newest: u64) -> Result<u64, Value> {
    let answer = client.call("event", "subscribe", json!({"since": since}));
    if answer["result"] != "ok" {
        return Err(answer["data"].clone());
    }
    let mut last = since;
    while last < newest {
        let event = client.next_event();
        assert_ne!(event["type"], "gap", "{event}");
        if event["type"] == "closed" {
            assert!(client.read_line().is_none());
            return Err(event["body"].clone());
        }
        assert_eq!(event["seq"], last + 1);
        last += 1;
    }
    Ok(last)
}

#[test]
fn who_resumes_over_a_damaged_old_segment_is_told_and_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    write(&mut daemon.client(), TEXTS_PER_SEGMENT);
    fill(&mut daemon.client(), 20);
    let newest = {
        let mut client = daemon.client();
        client.subscribe(json!({})).0
    };
    assert!(daemon.terminate().success());
    let segments = || {
        let paths = fs::read_dir(directory.path().join("journal")).unwrap();
        let mut paths: Vec<PathBuf> = paths.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "journal"));
        paths.sort();
        paths
    };
    let paths = segments();
    assert_eq!(paths.len(), 2);
    let old = &paths[0];
    let whole = fs::read(old).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 4;
    fs::write(old, &damaged).unwrap();

    daemon = Daemon::on_dir(directory.path(), CONFIG);
    // The check in the background finds it without being asked.
    daemon.wait_for_log("the journal is damaged");
    let mut live = daemon.client();
    live.subscribe(json!({}));
    let refused = resume(&mut daemon.client(), 0, newest).unwrap_err();
    assert_eq!(
        (&refused["code"], &refused["retry"]),
        (&json!("unavailable"), &json!(true))
    );
    // Where the first event that is asked for cannot be read, nothing is subscribed.
    let place = format!("{} is damaged at byte", old.display());
    assert!(daemon.log().contains(&place), "{}", daemon.log());
    let mut seen = [false, false];
    for since in (0..newest).step_by(97) {
        let mut client = daemon.client();
        match resume(&mut client, since, newest) {
            Ok(_) => seen[0] = true,
            Err(refused) if refused.get("retry").is_some() => assert!(!seen[0]),
            Err(refused) => {
                seen[1] = true;
                assert_eq!(refused["code"], "unavailable");
                let none = client.ok("event", "get_subscriptions", json!({}));
                assert_eq!(none, json!({"subscriptions": []}));
            }
        }
    }
    assert!(seen[0], "nobody could resume behind the damage");
    // Others and changes go on.
    daemon.client().create_user("eve@example.org");
    assert_eq!(live.next_event()["type"], "created");
    // Once the file is restored, so do those who were refused.
    fs::write(old, &whole).unwrap();
    assert_eq!(resume(&mut daemon.client(), 0, newest), Ok(newest));

    // A segment that is missing is missed at the next start.
    daemon.kill();
    fs::remove_file(old).unwrap();
    let (code, said) = refusal(directory.path());
    assert_eq!(code, Some(74), "{said}");
    assert!(
        said.contains(&format!("{} is missing", old.display())),
        "{said}"
    );
    fs::write(old, &whole[..whole.len() - 1]).unwrap();
    let (code, said) = refusal(directory.path());
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("bytes instead of"), "{said}");
}
