//! A change of many memberships is one change, although its rows are written in slices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::crash::CONFIG;
use crate::harness::{Client, Daemon};

/// Many more rows than a slice has.
const USERS: usize = 400;

/// Creates users, and gives their ids.
fn create_users(client: &mut Client) -> Vec<String> {
    for number in 0..USERS {
        let login = format!("user{number}");
        let data = json!({"login": login, "name": login, "password": "s3cret"});
        client.request("user", "create", data);
    }
    (0..USERS)
        .map(|_| {
            let answer = client.next_value();
            let id = answer["data"]["user_id"].as_str();
            id.unwrap_or_else(|| panic!("{answer}")).to_owned()
        })
        .collect()
}

fn members(client: &mut Client, conversation: &str) -> u64 {
    let data = json!({"conversation_id": conversation, "size": 0});
    let members = client.ok("conversation", "get_members", data);
    members["total"].as_u64().expect("a total")
}

/// In how many conversations each of these users is: as it counts, and as it finds them.
fn conversations(daemon: &Daemon, users: &[&String]) -> Vec<(Value, usize)> {
    let of_user = |user: &&String| {
        let mut client = daemon.client();
        client.ok("session", "login", json!({"user_id": user}));
        let found = client.ok("conversation", "search", json!({}));
        let rows = found["data"].as_array().expect("rows").len();
        (found["total"].clone(), rows)
    };
    users.iter().map(of_user).collect()
}

#[test]
fn a_large_change_of_membership_is_whole_after_kill_9() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::on_dir(directory.path(), CONFIG);
    let mut client = daemon.client();
    let users = create_users(&mut client);
    let some = [&users[0], &users[USERS / 2], &users[USERS - 1]];
    let all: Vec<&str> = users.iter().map(String::as_str).collect();
    let conversation = client.create_conversation("all", &all);
    let data = json!({"conversation_id": conversation, "user_ids": users});
    let counts = [USERS as u64, 0, USERS as u64];
    for (cmd, count) in ["get", "remove_members", "add_members"]
        .into_iter()
        .zip(counts)
    {
        if cmd != "get" {
            client = daemon.client();
            client.ok("conversation", cmd, data.clone());
        }
        // It is answered, and not written into the state yet.
        daemon.kill();
        daemon = Daemon::on_dir(directory.path(), CONFIG);
        assert_eq!(members(&mut daemon.client(), &conversation), count, "{cmd}");
        let each = usize::from(count > 0);
        for (total, rows) in conversations(&daemon, &some) {
            assert_eq!((total, rows), (json!(each), each), "{cmd}");
        }
    }
}

#[test]
fn nobody_sees_a_part_of_a_large_change_of_membership() {
    let daemon = Daemon::with(CONFIG);
    let mut client = daemon.client();
    let users = create_users(&mut client);
    let conversation = client.create_conversation("all", &[&users[0]]);
    let tea = client.create_conversation("tea", &[&users[1]]);
    let data = json!({"conversation_id": conversation, "user_ids": &users[1..]});
    let is_over = AtomicBool::new(false);
    let looks = thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut client = daemon.client();
            let mut looks = 0;
            while !is_over.load(Ordering::Relaxed) {
                let data = json!({"conversation_id": conversation, "size": 1000});
                let found = client.ok("conversation", "get_members", data);
                let ids = found["user_ids"].as_array().expect("ids").len();
                assert!([1, USERS].contains(&ids), "{ids}");
                assert_eq!(found["total"], ids);
                looks += 1;
            }
            looks
        });
        for number in 0..10 {
            let cmd = ["add_members", "remove_members"][number % 2];
            client.ok("conversation", cmd, data.clone());
            // What comes behind it is not written over by it.
            let data = json!({"conversation_id": tea, "user_ids": &users[2..4]});
            client.ok("conversation", cmd, data);
            assert_eq!(members(&mut client, &tea), [3, 1][number % 2]);
        }
        is_over.store(true, Ordering::Relaxed);
        looking.join().expect("the one who looks")
    });
    assert!(looks > 0);
    let some = [&users[1], &users[2], &users[3], &users[4]];
    let expected = [(1, 1), (0, 0), (0, 0), (0, 0)].map(|(total, rows)| (json!(total), rows));
    assert_eq!(conversations(&daemon, &some), expected);
}
