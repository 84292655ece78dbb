//! The audit log tells of each connection that is closed for what its client did, and why.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::lines;
use crate::harness::{Authority, Client, Daemon, PATIENCE, wait_until};

const LISTENERS: &str = r#"
[[listen]]
address = "127.0.0.1:0"
[[listen]]
address = "127.0.0.1:0"
access = "login"
"#;

fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 7, number))
}

/// A connection to the login listener.
fn from(daemon: &Daemon, number: u8) -> Client {
    Client::connect_from(address(number), daemon.address_of("login"))
}

/// The lines about closed connections, without what differs from run to run.
fn closings(daemon: &Daemon) -> Vec<Value> {
    let mut closings = lines(daemon);
    closings.retain(|line| line["event"] == "closed");
    for line in &mut closings {
        let line = line.as_object_mut().unwrap();
        line.remove("session_id");
        let remote = line["remote"].as_str().unwrap();
        let host = remote.rsplit_once(':').map_or(remote, |(host, _)| host);
        line["remote"] = json!(host);
    }
    closings
}

fn closed(result: &str, number: u8) -> Value {
    json!({"event": "closed", "result": result, "remote": address(number)})
}

/// Reads to the end of a connection, so that what is told of it has been told.
fn read_out(mut client: Client) {
    while client.read_line_or_end().is_some() {}
}

#[test]
fn the_audit_log_tells_which_connections_were_closed_for_abuse_and_why() {
    let limits = "[limits]\nmax_connections_per_address = 2\nrequests_per_second = 10\n";
    let security = "[security]\nlogin_seconds = 1\nbcrypt_cost = 4\n";
    let daemon = Daemon::with(&format!("{LISTENERS}{limits}{security}"));
    let opening: [(&str, &[u8]); 4] = [
        ("http", b"GET / HTTP/1.1\r\n"),
        ("protocol", b"EHLO mail.example.org\r\n"),
        ("rate_limited", &b"{}\n".repeat(200)),
        ("login_timeout", b""),
    ];
    let mut expected = Vec::new();
    for (number, (result, bytes)) in (1..).zip(opening) {
        let mut client = from(&daemon, number);
        client.send_bytes_or_end(bytes);
        read_out(client);
        expected.push(closed(result, number));
    }
    let mut user = daemon.client();
    user.create_user("ann");
    let mut places = [0; 2].map(|_| from(&daemon, 9));
    for place in &mut places {
        place.login("ann", "s3cret");
    }
    read_out(from(&daemon, 9));
    let mut too_many = closed("too_many_connections", 9);
    too_many["limit"] = json!("max_connections_per_address");
    expected.push(too_many);
    assert_eq!(json!(closings(&daemon)), json!(expected));
    // Whoever goes of its own accord, is ended, or sends nonsense did no harm.
    places[0].send_line("nonsense");
    drop(places);
    let mut stopped = from(&daemon, 8);
    let session = stopped.login("ann", "s3cret");
    user.ok("session", "stop", json!({"session_id": session}));
    read_out(stopped);
    assert_eq!(json!(closings(&daemon)), json!(expected));
}

#[test]
fn the_audit_log_tells_who_was_closed_since_it_took_nothing() {
    let config = format!("{LISTENERS}[limits]\nstalled_seconds = 1\nmax_pending_bytes = 65536\n");
    let daemon = Daemon::with(&format!("{config}[security]\nbcrypt_cost = 4\n"));
    daemon.client().create_user("ann");
    let mut stalled = from(&daemon, 1);
    stalled.login("ann", "s3cret");
    for _ in 0..150 {
        stalled.request("server", "help", json!({}));
    }
    daemon.wait_for_log(r#""event":"closed""#);
    let told = lines(&daemon).pop().unwrap();
    assert_eq!(told["result"], "stalled", "{told}");
    let login = lines(&daemon)
        .into_iter()
        .find(|line| line["event"] == "login");
    assert_eq!(told["by"], login.unwrap()["by"], "{told}");
}

#[test]
fn the_audit_log_sums_up_closed_connections_beyond_a_hundred_a_second() {
    const CONNECTIONS: u64 = 300;
    let mut daemon = Daemon::with(&format!("{LISTENERS}[security]\nbcrypt_cost = 4\n"));
    for _ in 0..CONNECTIONS {
        let mut client = from(&daemon, 1);
        client.send_bytes_or_end(b"GET / HTTP/1.1\r\n");
        read_out(client);
    }
    daemon.terminate();
    let counts = closings(&daemon).into_iter().map(|line| {
        assert_eq!(line["result"], "http", "{line}");
        line.get("count").map_or(1, |count| count.as_u64().unwrap())
    });
    assert_eq!(counts.sum::<u64>(), CONNECTIONS);
}

#[test]
fn the_audit_log_tells_of_failed_handshakes_missing_proxies_and_users_that_may_not_connect() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("chatd.sock");
    let config = format!(
        "{LISTENERS}[[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n{}\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
         [[listen]]\naddress = \"unix:{}\"\nallow_uids = []\n\
         [security]\nbcrypt_cost = 4\n",
        authority.issue("server").toml(),
        socket.display()
    );
    let daemon = Daemon::with(&config);
    for listener in [2, 3] {
        let address = &daemon.listeners()[listener].address;
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"EHLO mail.example.org\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    // A handshake has failed a little before that is told.
    wait_until("three lines", || closings(&daemon).len() >= 3);
    let told = closings(&daemon);
    let mut results: Vec<&str> = told
        .iter()
        .filter_map(|line| line["result"].as_str())
        .collect();
    results.sort_unstable();
    assert_eq!(
        results,
        ["forbidden", "handshake_failed", "protocol"],
        "{told:?}"
    );
    for line in &told {
        let remote = if line["result"] == "forbidden" {
            "unix"
        } else {
            "127.0.0.1"
        };
        assert_eq!(line["remote"], remote, "{line}");
    }
}
