//! What clients can make the daemon hold for them is bounded.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS, Socket, wait_until};
use crate::lines::goes_on;
use crate::siege::{is_full, raise_descriptors, size};

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
        assert!((9000..10_000).contains(&begin), "{begin}");
        // One that is given up makes room again.
        let data = json!({"subclass": "conversation", "obj_id": format!("{:0256}", 0)});
        client.ok("event", "unsubscribe", data.clone());
        client.subscribe(data);
    }
    let each = (daemon.resident_bytes() - before) / clients.len();
    println!("{each} bytes for the subscriptions of a connection");
    assert!(each < 5 * 1024 * 1024, "{each}");
}

/// A user's connection from the address 127.0.N.1, which asks for many pages and reads none.
fn hog(daemon: &Daemon, network: u8, conversation: &str) -> Client {
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, network, 1));
    let socket = Socket::connect_from(source, daemon.address_of("login")).expect("connect");
    socket.take_little().expect("a small buffer");
    let mut client = Client::over(socket);
    client.login("ann", "s3cret");
    for _ in 0..20 {
        let filter = json!({"conversation_id": conversation});
        let data = json!({"filter": filter, "fields": "_all", "size": 1000});
        client.request("message", "search", data);
    }
    client
}

#[test]
fn what_many_clients_that_read_nothing_bind_is_bounded_and_others_go_on() {
    const MEBIBYTE: usize = 1024 * 1024;
    raise_descriptors();
    let most = size(16, 256) * MEBIBYTE;
    let daemon = Daemon::with(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n\
         [limits]\nmax_memory_bytes_pending = {most}\nmax_memory_bytes_pending_per_address = {}\n",
        most / 4
    ));
    let (mut trusted, conversation) = conversation(&daemon, 70);
    let mut modest = Client::connect(daemon.address_of("login"));
    modest.login("ann", "s3cret");
    let before = daemon.resident_bytes();
    let hogs: Vec<Client> = (0..size(6, 40))
        .flat_map(|_| 1..=5)
        .map(|network| hog(&daemon, network, &conversation))
        .collect();
    let held = |trusted: &mut Client| {
        let info = trusted.ok("server", "info", json!({}));
        let held = info["counters"]["memory_bytes_pending"].as_u64();
        usize::try_from(held.expect("a counter")).expect("a size")
    };
    let mut highest = 0;
    wait_until("what is bound to be near its bound", || {
        let now = held(&mut trusted);
        highest = highest.max(now);
        now > most / 2
    });
    for _ in 0..200 {
        goes_on(&mut modest);
        highest = highest.max(held(&mut trusted));
    }
    // Strangers leave a quarter to trusted connections. Where so many pages are asked for, theirs waits long behind them.
    let filter = json!({"conversation_id": conversation});
    let data = json!({"filter": filter, "fields": "_all", "size": 1000});
    if !is_full() {
        wait_until("a page", || {
            trusted.call("message", "search", data.clone())["result"] == "ok"
        });
    }
    let grown = daemon.resident_bytes().saturating_sub(before);
    println!(
        "{} connections that read nothing: {highest} bytes held of {most}, {grown} bytes of memory",
        hogs.len()
    );
    assert!(highest <= most, "{highest}");
    // The copies of searches under way, and what the allocator keeps, come on top.
    assert!(grown <= 2 * most + 32 * MEBIBYTE, "{grown}");
    drop(hogs);
    wait_until("all to be given back", || held(&mut trusted) == 0);
    let data = json!({"filter": {"conversation_id": conversation}, "fields": "message"});
    assert_eq!(modest.ok("message", "search", data)["total"], 70);
}

#[test]
fn of_many_who_do_not_read_those_who_hold_most_go() {
    const MAX_BYTES: usize = 1_048_576;
    let limits = format!(
        "[limits]\nmax_page_bytes = 65536\nmax_memory_bytes_pending = {MAX_BYTES}\n\
         max_memory_bytes_pending_per_address = {MAX_BYTES}\n"
    );
    let daemon = Daemon::with(&LOGINS.replace("[limits]\n", &limits));
    let mut trusted = daemon.client();
    let user = trusted.create_user("ann");
    let conversation = trusted.create_conversation("all", &[&user]);
    let mut reader = daemon.user("ann");
    reader.subscribe(json!({"obj_id": conversation}));
    let silent: Vec<Client> = (0..20)
        .map(|_| {
            let socket = Socket::connect(daemon.address_of("login")).expect("connect");
            socket.take_little().expect("a small buffer");
            let mut client = Client::over(socket);
            client.login("ann", "s3cret");
            client.subscribe(json!({"obj_id": conversation}));
            client
        })
        .collect();
    let event =
        json!({"type": "note", "obj_id": conversation, "body": {"text": "x".repeat(50_000)}});
    let counter = |trusted: &mut Client, name: &str| {
        let info = trusted.ok("server", "info", json!({}));
        info["counters"][name].as_u64().expect("a counter")
    };
    wait_until("a connection that holds too much to be closed", || {
        trusted.ok("event", "send", event.clone());
        reader.ok("session", "ping", json!({}));
        counter(&mut trusted, "stalled") > 0
    });
    wait_until("what was held to be given back", || {
        counter(&mut trusted, "memory_bytes_pending") <= MAX_BYTES as u64
    });
    // Some of them are enough, and whoever reads stays.
    assert!(counter(&mut trusted, "stalled") < 20);
    reader.ok("session", "ping", json!({}));
    drop(silent);
}
