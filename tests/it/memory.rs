//! What clients can make the daemon hold for them is bounded.

use serde_json::{Value, json};

use crate::harness::{Client, Daemon};

/// A trusted client, and a conversation with so many of the largest messages.
fn conversation(daemon: &Daemon, messages: usize) -> (Client, String) {
    let mut client = daemon.client();
    let user = client.create_user("ann");
    let conversation = client.create_conversation("all", &[&user]);
    for _ in 0..messages {
        client.send_message(&conversation, &user, &"x".repeat(16_384));
    }
    (client, conversation)
}

#[test]
fn a_page_whose_rows_are_large_is_cut_and_goes_on_from_its_last_row() {
    const MESSAGES: usize = 150;
    let daemon = Daemon::start();
    let (mut client, conversation) = conversation(&daemon, MESSAGES);
    for sort_by in ["message_id", "created_time"] {
        let (mut seen, mut pages) = (Vec::new(), 0);
        loop {
            let mut filter = json!({"conversation_id": conversation});
            if let Some(last) = seen.last() {
                filter["message_id"] = json!({"gt": last});
            }
            let data = json!({"filter": filter, "fields": "message", "size": 1000,
                              "sort_by": [sort_by, "message_id"]});
            let page = client.ok("message", "search", data);
            let rows = page["data"].as_array().expect("rows");
            assert_eq!(page["total"], MESSAGES - seen.len());
            assert!(page.to_string().len() <= 1_048_576 + 4096);
            seen.extend(rows.iter().map(|row| row["message_id"].clone()));
            pages += 1;
            if page.get("cut").is_none() {
                break;
            }
            assert_eq!(page["cut"], true);
            assert!(rows.len() >= 60, "{}", rows.len());
        }
        assert_eq!((seen.len(), pages), (MESSAGES, 3));
        seen.dedup();
        assert_eq!(seen.len(), MESSAGES);
    }
    // A page that holds all that was asked for is whole.
    let data = json!({"filter": {"conversation_id": conversation}, "fields": "message", "size": 5});
    let page = client.ok("message", "search", data);
    assert!(page.get("cut").is_none());
}

#[test]
fn a_row_that_is_larger_than_a_page_comes_alone() {
    let daemon = Daemon::with("[limits]\nmax_page_bytes = 1024\n");
    let (mut client, conversation) = conversation(&daemon, 2);
    let data = json!({"filter": {"conversation_id": conversation}, "fields": "message"});
    let page = client.ok("message", "search", data);
    assert_eq!(page["data"].as_array().map(Vec::len), Some(1));
    assert_eq!((&page["cut"], &page["total"]), (&json!(true), &json!(2)));
}

#[test]
fn subscriptions_with_long_names_are_bounded_in_bytes() {
    let daemon = Daemon::start();
    let subscribe = |client: &mut Client, name: &dyn Fn(usize) -> String| {
        let mut refused = None;
        for begin in (0..10_000).step_by(100) {
            let list: Vec<Value> = (begin..begin + 100)
                .map(|number| json!({"subclass": "conversation", "obj_id": name(number)}))
                .collect();
            let data = json!({"subscriptions": list});
            let answer = client.call("event", "subscribe", data);
            if answer["result"] == "error" {
                refused = Some((begin, answer["data"]["code"].clone()));
                break;
            }
        }
        refused
    };
    let mut client = daemon.client();
    assert_eq!(
        subscribe(&mut client, &|number| format!("{number:013}")),
        None
    );
    let before = daemon.resident_bytes();
    let mut clients: Vec<Client> = (0..10).map(|_| daemon.client()).collect();
    for client in &mut clients {
        let refused = subscribe(client, &|number| format!("{number:0256}"));
        let (begin, code) = refused.expect("a refusal");
        assert_eq!(code, "too_many_subscriptions");
        assert!((5000..9000).contains(&begin), "{begin}");
        // One that is given up makes room again.
        let data = json!({"subclass": "conversation", "obj_id": format!("{:0256}", 0)});
        client.ok("event", "unsubscribe", data.clone());
        client.subscribe(data);
    }
    let each = (daemon.resident_bytes() - before) / clients.len();
    println!("{each} bytes for the subscriptions of a connection");
    assert!(each < 5 * 1024 * 1024, "{each}");
}
