//! A siege of searches: one user asks on many connections for what takes long. Others must not notice.

use super::{is_full, listeners, percentile, raise_descriptors, size};
use crate::harness::{Client, Daemon};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CONFIG: &str = "\
[limits]
max_connections_per_address = 10000
requests_per_second = 1000000
requests_per_second_per_address = 1000000
requests_per_second_per_user = 1000000
bytes_per_second_per_user = 1000000000
bytes_per_second = 1000000000
bytes_per_second_per_address = 1000000000
[security]
bcrypt_cost = 4
";

/// Authors that one search names.
const AUTHORS: usize = 150;

#[test]
fn honest_reads_come_through_the_searches_of_others() {
    raise_descriptors();
    let daemon = Daemon::with(&(listeners("") + CONFIG));
    let mut trusted = daemon.client();
    let authors: Vec<String> = (0..AUTHORS)
        .map(|number| trusted.create_user(&format!("author-{number}")))
        .collect();
    for name in ["attacker", "hermit", "honest"] {
        trusted.create_user(name);
    }
    let users = trusted.ok(
        "user",
        "search",
        json!({"filter": {"login": ["attacker", "honest"]}, "sort_by": "login"}),
    );
    let [attacker, honest] =
        [0, 1].map(|row| users["data"][row]["user_id"].as_str().unwrap().to_owned());
    // What the attacker may see is as much as it likes to write.
    let long = trusted.create_conversation("long", &[&attacker]);
    let text = "many words of no meaning ".repeat(600);
    for _ in 0..size(50, 2000) {
        trusted.send_message(&long, &attacker, &text);
    }
    for some in authors.chunks(10) {
        let members: Vec<&str> = some.iter().map(String::as_str).collect();
        for _ in 0..size(2, 100) {
            let hidden = trusted.create_conversation("hidden", &members);
            for author in some {
                trusted.send_message(&hidden, author, "nobody else sees this");
            }
        }
    }
    let own = trusted.create_conversation("own", &[&honest]);
    let message = trusted.send_message(&own, &honest, "hello");
    let user = |login: &str| {
        let mut client = Client::connect(daemon.address_of("login"));
        client.login(login, "s3cret");
        client
    };
    let searches = [
        (
            "attacker",
            json!({"filter": {"message": {"match": "\"meaning of life\""}}}),
        ),
        (
            "attacker",
            json!({"filter": {"user_id": authors}, "sort_by": "message"}),
        ),
        ("hermit", json!({"filter": {"user_id": authors}})),
    ];
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut gets = Vec::new();
    thread::scope(|scope| {
        for number in 0..size(8, 40) {
            let (login, search) = &searches[number % searches.len()];
            let mut client = user(login);
            let (over, answered) = (&over, &answered);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let answer = client.call("message", "search", search.clone());
                    let data = &answer["data"];
                    assert!(data["total"] == 0 || data["code"] == "timeout", "{answer}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut client = user("honest");
        let began = Instant::now();
        let lasts = size(Duration::ZERO, Duration::from_secs(10));
        while gets.len() < 100 || began.elapsed() < lasts {
            let sent = Instant::now();
            client.ok("message", "get", json!({"message_id": message}));
            gets.push(sent.elapsed());
        }
        over.store(true, Ordering::Relaxed);
    });
    gets.sort_unstable();
    let (median, p99) = (percentile(&gets, 50), percentile(&gets, 99));
    println!(
        "{} searches of two users; {} gets of another: median {median:?}, p99 {p99:?}",
        answered.load(Ordering::Relaxed),
        gets.len(),
    );
    assert!(!is_full() || p99 < Duration::from_millis(50), "{p99:?}");
}
