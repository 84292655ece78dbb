//! A subscriber that does not read costs one buffer, slows nobody down, and loses nothing.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{Daemon, PATIENCE};

/// What is written while it does not read: far more than sockets and the daemon's buffer hold.
const MESSAGES_PER_WRITER: usize = 500;
const WRITERS: usize = 4;
const TEXT_BYTES: usize = 16_000;
/// What the daemon may hold for it: its buffer of 1 MiB, twice over, the 4 MiB of events that were read lately, which all
/// share, and what an allocator does not give back. It is well below what the subscriber has not read.
const COST_MAX_KIB: u64 = 20 * 1024;

/// Resident memory of a daemon.
fn resident_kib(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Writes on several connections while a subscriber that reads gets every message.
fn write(daemon: &Daemon) {
    let mut client = daemon.client();
    let user = client.create_user("ann@example.org");
    let conversation = client.create_conversation("lunch", &[&user]);
    let mut reader = daemon.client();
    reader.subscribe(json!({"obj_id": conversation}));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (mut client, user, conversation) = (daemon.client(), &user, &conversation);
            scope.spawn(move || {
                let text = "x".repeat(TEXT_BYTES);
                for number in 0..MESSAGES_PER_WRITER {
                    let text = format!("{writer} {number} {text}");
                    client.send_message(conversation, user, &text);
                }
            });
        }
        scope.spawn(move || {
            for _ in 0..WRITERS * MESSAGES_PER_WRITER {
                reader.next_event();
            }
        });
    });
}

#[test]
fn a_subscriber_that_does_not_read_costs_one_buffer_and_loses_nothing() {
    let config = "";
    let with = Daemon::with(config);
    let mut slow = with.client();
    slow.subscribe(json!({}));
    write(&with);
    // The same without the slow one, beside it: what is left is its cost.
    let without = Daemon::with(config);
    write(&without);
    let (cost, base) = (resident_kib(&with), resident_kib(&without));
    println!("{cost} KiB with a slow subscriber, {base} KiB without");
    assert!(
        cost <= base + COST_MAX_KIB,
        "{cost} KiB with a slow subscriber, {base} KiB without"
    );
    // Now it reads: everything, once, in order.
    let mut next = BTreeMap::new();
    for seq in 1..=(2 + WRITERS * MESSAGES_PER_WRITER) as u64 {
        let event = slow.next_event();
        assert_eq!(event["seq"], seq);
        if event["type"] == "created_message" {
            let text = event["body"]["message"].as_str().unwrap();
            let (writer, rest) = text.split_once(' ').unwrap();
            let number: usize = rest.split_once(' ').unwrap().0.parse().unwrap();
            let expected = next.entry(writer.to_owned()).or_insert(0);
            assert_eq!(number, *expected);
            *expected += 1;
        }
    }
    assert_eq!(
        next.into_values().collect::<Vec<_>>(),
        [MESSAGES_PER_WRITER; WRITERS]
    );
    slow.no_more_events();
    let cost = resident_kib(&with);
    assert!(
        cost <= base + COST_MAX_KIB,
        "{cost} KiB after a slow subscriber has read, {base} KiB without"
    );
}

#[test]
fn a_subscriber_that_takes_no_byte_for_long_is_closed() {
    let daemon = Daemon::with("[limits]\nstalled_seconds = 1\nmax_pending_bytes = 65536\n");
    let mut client = daemon.client();
    let mut idle = daemon.client();
    let mut slow = daemon.client();
    // One has nothing to take, so it may be as slow as it likes.
    idle.subscribe(json!({"obj_id": "nothing"}));
    slow.subscribe(json!({}));
    write(&daemon);
    let patience = Instant::now() + PATIENCE;
    while !daemon.log().contains(r#""result":"stalled""#) {
        assert!(Instant::now() < patience, "it is not closed");
        client.ok("session", "ping", json!({}));
    }
    // It gets what its socket holds, in order, and then the end.
    let mut seq = 0;
    while let Some(line) = slow.read_line_or_end() {
        let event: Value = serde_json::from_str(&line).unwrap();
        seq += 1;
        assert_eq!(event["seq"], seq);
    }
    assert!(seq > 0);
    idle.no_more_events();
}
