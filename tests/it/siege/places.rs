//! Attackers with small means at the places: few addresses that hold as many connections as they may. Newcomers get in
//! beside them, and the operator always does.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{percentile, size};
use crate::harness::{Authority, Client, Daemon, PATIENCE, Socket};
use crate::lines::goes_on;

const ADDRESSES: u8 = 10;

fn connect(daemon: &Daemon, address: [u8; 4]) -> Socket {
    let source = IpAddr::V4(Ipv4Addr::from(address));
    Socket::connect_from(source, daemon.address_of("login")).expect("connect")
}

/// Has ten addresses, each in a network of its own, hold as many connections as they may, and open new ones all the time,
/// on which they send these bytes. Others log in meanwhile: nobody is refused.
fn besiege(name: &str, opening: &[u8], authority: Option<&Authority>) {
    super::raise_descriptors();
    let each = size(20, 100);
    let places = usize::from(ADDRESSES) * each / 2;
    let tls = authority.map(|authority| authority.issue("server").toml());
    let daemon = Daemon::with(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n{}\n\
         [limits]\nmax_connections = {}\nmax_connections_trusted = 2\nmax_connections_not_logged_in = {places}\n\
         [security]\nbcrypt_cost = 4\n",
        tls.unwrap_or_default(),
        places + 100,
    ));
    let config = authority.map(|authority| authority.client(None));
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let (over, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut times = Vec::new();
    let mut users = Vec::new();
    thread::scope(|scope| {
        for number in 0..ADDRESSES {
            let (daemon, over, opened) = (&daemon, &over, &opened);
            scope.spawn(move || {
                let mut held = VecDeque::new();
                while !over.load(Ordering::Relaxed) {
                    let socket = connect(daemon, [127, 3, number, 1]);
                    let mut client = Client::over(socket);
                    client.send_bytes_or_end(opening);
                    opened.fetch_add(1, Ordering::Relaxed);
                    held.push_back(client);
                    if held.len() > each {
                        held.pop_front();
                        // They are to hold what they have, and not to see how fast they connect.
                        thread::park_timeout(Duration::from_millis(2));
                    }
                }
            });
        }
        let begun = Instant::now();
        while opened.load(Ordering::Relaxed) < 2 * places && begun.elapsed() < PATIENCE {
            thread::park_timeout(Duration::from_millis(5));
        }
        let newcomers = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..size(20, 100) {
                let begun = Instant::now();
                let socket = connect(&daemon, [127, 2, number, 1]);
                let mut client = match &config {
                    Some(config) => Client::over(socket.tls(config).expect("a handshake")),
                    None => Client::over(socket),
                };
                client.login("ann", "s3cret");
                times.push(begun.elapsed());
                users.push(client);
                goes_on(&mut daemon.client());
                goes_on(&mut trusted);
            }
            // Who is in stays in.
            users.iter_mut().for_each(goes_on);
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = newcomers {
            std::panic::resume_unwind(panic);
        }
    });
    times.sort_unstable();
    println!(
        "{name}: {opened:?} connections of {ADDRESSES} addresses at {places} places; {} others got in: median {:?}, longest {:?}",
        times.len(),
        percentile(&times, 50),
        percentile(&times, 100),
    );
    let info = trusted.ok("server", "info", json!({}));
    assert!(info["counters"]["displaced_connections"].as_u64() > Some(0));
}

#[test]
fn few_addresses_with_many_silent_connections_keep_no_newcomer_out() {
    besiege("silent connections", b"", None);
}

#[test]
fn few_addresses_with_many_connections_that_say_something_keep_no_newcomer_out() {
    let ping = br#"{"class":"chat","subclass":"session","cmd":"ping"}"#;
    besiege(
        "connections that ping",
        &[ping.as_slice(), b"\n"].concat(),
        None,
    );
}

#[test]
fn few_addresses_with_many_handshakes_under_way_keep_no_newcomer_out() {
    let Some(authority) = Authority::new() else {
        return;
    };
    // The beginning of a ClientHello of 512 bytes.
    let opening = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    besiege("handshakes", opening, Some(&authority));
}

#[test]
fn the_oldest_silent_connection_is_told_why_it_is_closed() {
    let daemon = Daemon::with(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n\
         [limits]\nmax_connections_not_logged_in = 2\n[security]\nbcrypt_cost = 4\n",
    );
    let mut first = Client::over(connect(&daemon, [127, 3, 1, 1]));
    let _second = connect(&daemon, [127, 3, 1, 2]);
    // The kernel has them in the order in which they came.
    let mut newcomer = Client::over(connect(&daemon, [127, 2, 1, 1]));
    goes_on(&mut newcomer);
    let line = first.next_value();
    assert_eq!(line["body"]["code"], "too_many_connections", "{line}");
    assert_eq!(line["body"]["retry"], true, "{line}");
    first.expect_end();
}
