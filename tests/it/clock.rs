//! A clock that is set while chatd runs, or while it does not: times are right again when it is, order is that of ids,
//! and nothing expires before its time.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::clocked::{BEGIN_MS, Clocked, Room};
use crate::harness::fake_time::FakeTime;
use crate::harness::machine::skipped;
use crate::harness::{Client, Daemon};

const CONFIG: &str = "[events]\nkeep = \"7d\"\n[security]\nbcrypt_cost = 4\n";
const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
const YEAR_MS: u64 = 365 * DAY_MS;

impl Room {
    /// Sends a message with a nonce.
    fn write_once(&mut self, nonce: &str) -> Value {
        let data = json!({"conversation_id": self.conversation, "user_id": self.user, "message": "once", "nonce": nonce});
        self.client.ok("message", "create", data)["message_id"].clone()
    }

    fn forget(&mut self, message: &Value) {
        let data = json!({"conversation_id": self.conversation, "message_id": message});
        self.client.ok("message", "delete", data);
    }

    /// Makes a token that expires then.
    fn token(&mut self, expires_time: u64) -> Value {
        let data = json!({"user_id": self.user, "name": "bot", "expires_time": expires_time});
        self.client.ok("session", "token_create", data)["token"].clone()
    }

    fn created_times(&mut self, data: Value) -> Vec<u64> {
        let page = self.client.ok("message", "search", data);
        let rows = page["data"].as_array().unwrap();
        assert_eq!(page["total"], rows.len());
        rows.iter()
            .map(|row| row["created_time"].as_u64().unwrap())
            .collect()
    }
}

fn lets_in(server: &Clocked, token: &Value) -> bool {
    let mut client = server.client();
    client.call("session", "login", json!({"token": token}))["result"] == "ok"
}

/// The numbers and times of the stored events after `since`, up to the newest.
fn resume(server: &Clocked, since: u64) -> Result<Vec<(u64, u64)>, Value> {
    let mut client = server.client();
    let data = json!({"since": since, "position": true});
    let answer = client.call("event", "subscribe", data);
    if answer["result"] != "ok" {
        return Err(answer["data"].clone());
    }
    let mut found = Vec::new();
    loop {
        let event = client.next_event();
        if event["type"] == "position" {
            return Ok(found);
        }
        found.push((
            event["seq"].as_u64().unwrap(),
            event["time"].as_u64().unwrap(),
        ));
    }
}

#[test]
fn a_clock_that_was_ten_years_ahead_and_is_right_again_gives_right_times() {
    let server = Clocked::with(CONFIG);
    let mut room = Room::new(&server);
    let clock = &server.clock;
    let mut written = vec![room.write("before")];
    clock.set(BEGIN_MS + 10 * YEAR_MS);
    written.push(room.write("just ahead"));
    clock.advance(HOUR_MS);
    // By now it is believed.
    written.push(room.write("ahead for an hour"));
    clock.set(BEGIN_MS + HOUR_MS);
    written.push(room.write("right again"));
    clock.advance(1000);
    written.push(room.write("later"));
    let wall = [
        BEGIN_MS,
        BEGIN_MS + 10 * YEAR_MS,
        BEGIN_MS + 10 * YEAR_MS + HOUR_MS,
        BEGIN_MS + HOUR_MS,
        BEGIN_MS + HOUR_MS + 1000,
    ];
    assert!(written.is_sorted(), "{written:?}");
    let server = server.restarted_at(BEGIN_MS + HOUR_MS + 2000);
    let mut room = room.on(&server);
    written.push(room.write("after a restart"));
    assert!(written.is_sorted(), "{written:?}");
    let wall = [&wall[..], &[BEGIN_MS + HOUR_MS + 2000]].concat();
    // Sorted by the time of creation is in the order of creation, whatever the order of the times.
    let all = |order: &str, filter: Value| json!({"fields": "_all", "sort_by": ["created_time", "message"], "sort_order": order, "filter": filter});
    assert_eq!(room.created_times(all("asc", json!({}))), wall);
    let down: Vec<u64> = wall.iter().rev().copied().collect();
    assert_eq!(room.created_times(all("desc", json!({}))), down);
    let here = json!({"conversation_id": room.conversation});
    assert_eq!(room.created_times(all("desc", here)), down);
    // A filter compares the times.
    let ahead = json!({"created_time": {"gte": BEGIN_MS + YEAR_MS}});
    assert_eq!(room.created_times(all("asc", ahead)), wall[1..3]);
    // What was there before the ten years that were believed is old now.
    assert_eq!(resume(&server, 2).unwrap_err()["oldest"], 4);
    let stored = resume(&server, 3).unwrap();
    let times: Vec<u64> = stored.iter().map(|event| event.1).collect();
    assert_eq!(times, wall[1..]);
    // The rest is kept for its seven days, and no longer.
    server.clock.advance(6 * DAY_MS);
    room.write("six days later");
    assert!(resume(&server, 5).is_ok());
    server.clock.advance(DAY_MS + 1);
    assert_eq!(resume(&server, 5).unwrap_err()["oldest"], 9);
    assert_eq!(resume(&server, 8).unwrap().len(), 1);
}

#[test]
fn a_clock_that_is_a_year_ahead_for_a_moment_lets_nothing_expire() {
    let server = Clocked::with(CONFIG);
    let mut room = Room::new(&server);
    let old_token = room.token(BEGIN_MS + DAY_MS);
    let message = room.write_once("n");
    room.forget(&message);
    let others = room.write_once("other");
    room.forget(&others);
    server.clock.set(BEGIN_MS + YEAR_MS);
    for _ in 0..3 {
        assert_eq!(resume(&server, 0).map(|events| events[0].0), Ok(1));
        assert!(lets_in(&server, &old_token));
        assert_eq!(room.write_once("n"), message);
        // By the clock as it is, and by the clock as it will be.
        for expires_time in [BEGIN_MS + YEAR_MS + DAY_MS, BEGIN_MS + DAY_MS] {
            let token = room.token(expires_time);
            assert!(lets_in(&server, &token));
        }
        server.clock.advance(HOUR_MS / 4);
    }
    server.clock.set(BEGIN_MS + HOUR_MS);
    assert_eq!(resume(&server, 0).map(|events| events[0].0), Ok(1));
    assert!(lets_in(&server, &old_token));
    assert_eq!(room.write_once("other"), others);
    let now = room.write("now");
    let got = room.client.ok("message", "get", json!({"message_id": now}));
    assert_eq!(got["created_time"], BEGIN_MS + HOUR_MS);
    let expires = BEGIN_MS + HOUR_MS + 1000;
    let token = room.token(expires);
    assert!(lets_in(&server, &token));
    server.clock.advance(1000);
    assert!(!lets_in(&server, &token));
}

#[test]
fn a_jump_of_the_clock_that_lasts_an_hour_lets_expire_what_is_old() {
    let server = Clocked::with(CONFIG);
    let mut room = Room::new(&server);
    let token = room.token(BEGIN_MS + DAY_MS);
    let message = room.write_once("n");
    room.forget(&message);
    server.clock.set(BEGIN_MS + 30 * DAY_MS);
    assert!(resume(&server, 0).is_ok());
    server.clock.advance(HOUR_MS);
    assert_eq!(resume(&server, 0).unwrap_err()["code"], "events_expired");
    assert!(!lets_in(&server, &token));
    assert_ne!(room.write_once("n"), message);
}

#[test]
fn a_machine_that_was_off_for_weeks_expires_events_only_after_an_hour() {
    let server = Clocked::with(CONFIG);
    let mut room = Room::new(&server);
    room.write("before");
    let server = server.restarted_at(BEGIN_MS + 30 * DAY_MS);
    let mut room = room.on(&server);
    assert!(resume(&server, 0).is_ok());
    room.write("after");
    // A restart does not shorten it.
    let server = server.restarted_at(BEGIN_MS + 30 * DAY_MS + HOUR_MS / 2);
    assert!(resume(&server, 0).is_ok());
    server.clock.advance(HOUR_MS);
    assert_eq!(resume(&server, 0).unwrap_err()["oldest"], 4);
    assert_eq!(resume(&server, 3).unwrap().len(), 1);
}

#[test]
fn a_clock_that_is_a_year_behind_for_a_while_stops_nothing() {
    let server = Clocked::with(CONFIG);
    let mut room = Room::new(&server);
    let mut quiet = server.client();
    quiet.subscribe(json!({"subclass": "user", "position": true}));
    assert_eq!(quiet.next_event()["seq"], 2);
    let before = room.write("before");
    server.clock.set(BEGIN_MS - YEAR_MS);
    let behind = room.write("behind");
    assert!(behind > before);
    let got = room
        .client
        .ok("message", "get", json!({"message_id": behind}));
    assert_eq!(got["created_time"], BEGIN_MS - YEAR_MS);
    // Positions go on, and events get older.
    assert_eq!(quiet.next_event()["type"], "position");
    server.clock.advance(60_000);
    room.write("behind for a minute");
    assert_eq!(quiet.next_event()["type"], "position");
    server.clock.advance(7 * DAY_MS - 59_999);
    assert_eq!(resume(&server, 0).unwrap_err()["oldest"], 5);
    let server = server.restarted_at(BEGIN_MS + 8 * DAY_MS);
    let mut room = room.on(&server);
    let right = room.write("right again");
    assert!(right > behind);
    let got = room
        .client
        .ok("message", "get", json!({"message_id": right}));
    assert_eq!(got["created_time"], BEGIN_MS + 8 * DAY_MS);
    assert_eq!(resume(&server, 4).unwrap().len(), 2);
}

#[test]
fn an_idle_server_notes_the_time_so_that_a_short_stop_is_no_jump() {
    let server = Clocked::with(CONFIG);
    let mut room = Room::new(&server);
    let token = room.token(BEGIN_MS + DAY_MS);
    let size = |server: &Clocked| server.journal_bytes();
    let before = size(&server);
    server.clock.advance(2 * DAY_MS);
    crate::harness::wait_until("the time in the journal", || size(&server) > before);
    let server = server.restarted_at(BEGIN_MS + 2 * DAY_MS + 1000);
    assert!(!lets_in(&server, &token));
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

#[test]
fn a_daemon_whose_clock_is_set_tells_its_operator() {
    let name = "a_daemon_whose_clock_is_set_tells_its_operator";
    let fake = match FakeTime::new() {
        Ok(fake) => fake,
        Err(why) => return skipped(name, &why),
    };
    fake.set("+3650d");
    let directory = tempfile::tempdir().unwrap();
    let mut ahead = fake.daemon(directory.path(), "");
    let mut client = ahead.client();
    let user = client.create_user("ann@example.org");
    let conversation = client.create_conversation("lunch", &[&user]);
    let created_time = |client: &mut Client, message: &str| {
        let got = client.ok("message", "get", json!({"message_id": message}));
        got["created_time"].as_u64().unwrap()
    };
    let first = client.send_message(&conversation, &user, "ten years ahead");
    assert!(created_time(&mut client, &first) > now_ms() + 9 * YEAR_MS);
    // Set further ahead, and back, while it runs.
    fake.set("+4015d");
    let second = client.send_message(&conversation, &user, "eleven years ahead");
    ahead.wait_for_log("the clock has jumped ahead");
    fake.set("+3650d");
    let third = client.send_message(&conversation, &user, "ten years ahead again");
    ahead.wait_for_log("the clock is right again");
    ahead.kill();
    let right = Daemon::on_dir(directory.path(), "");
    right.wait_for_log("the clock is behind the newest record of the log");
    let mut client = right.client();
    let begun = now_ms();
    let fourth = client.send_message(&conversation, &user, "right");
    let created = created_time(&mut client, &fourth);
    assert!((begun..=now_ms()).contains(&created), "{created} {begun}");
    assert!([first, second, third, fourth].is_sorted());
    let data = json!({"user_id": user, "name": "bot", "expires_time": begun + DAY_MS});
    let token = client.ok("session", "token_create", data)["token"].clone();
    client.ok("session", "login", json!({"token": token}));
    let mut resumed = right.client();
    resumed.subscribe(json!({"since": 0}));
    assert_eq!(resumed.next_event()["seq"], 1);
}
