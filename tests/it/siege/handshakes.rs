//! An address that begins handshakes of TLS again and again, and finishes none: others do not notice.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use serde_json::json;

use super::{is_full, percentile, size};
use crate::harness::{Authority, Client, Daemon, Socket};
use crate::lines::goes_on;

/// What a client says first.
fn client_hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(Arc::clone(config), name).expect("a session");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("a ClientHello");
    hello
}

/// Connects from 127.0.N.1.
fn connect(daemon: &Daemon, network: u8) -> Socket {
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, network, 1));
    Socket::connect_from(source, daemon.address_of("login")).expect("connect")
}

#[test]
fn an_address_that_shakes_hands_again_and_again_is_slowed_down_and_holds_up_nobody() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let per_second = 20_u32;
    let daemon = Daemon::with(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n{}\n\
         [limits]\nhandshakes_per_second_per_address = {per_second}\n[security]\nbcrypt_cost = 4\n",
        authority.issue("server").toml()
    ));
    let config = authority.client(None);
    let hello = client_hello(&config);
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let mut user = Client::over(connect(&daemon, 2).tls(&config).expect("a handshake"));
    user.login("ann", "s3cret");
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let begun = Instant::now();
    let mut pings = Vec::new();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let mut client = Client::over(connect(&daemon, 1));
                    client.send_bytes_or_end(&hello);
                    // A handshake that began answers with its keys and certificate.
                    if client.read_bytes_or_end(&mut [0; 1]) > 0 {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let burst = usize::try_from(5 * per_second).expect("few");
        let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut others = 0;
            while answered.load(Ordering::Relaxed) < size(burst + 20, burst + 200) {
                let asked = Instant::now();
                goes_on(&mut user);
                pings.push(asked.elapsed());
                if others < 20 {
                    // Neither does it hold up the handshakes of others.
                    let socket = connect(&daemon, 3).tls(&config).expect("a handshake");
                    goes_on(&mut Client::over(socket));
                    others += 1;
                }
                thread::park_timeout(Duration::from_millis(5));
            }
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = served {
            std::panic::resume_unwind(panic);
        }
    });
    let (took, answered) = (begun.elapsed(), answered.into_inner());
    pings.sort_unstable();
    println!(
        "{answered} handshakes of one address in {took:?}; {} pings of a user meanwhile: median {:?}, p99 {:?}",
        pings.len(),
        percentile(&pings, 50),
        percentile(&pings, 99),
    );
    // Those that flowed in meanwhile, and the burst; one more may have come for each connection since.
    let most = (took.as_secs() + 1 + 5) * u64::from(per_second) + 8;
    assert!(answered as u64 <= most, "{answered} in {took:?}");
    let info = trusted.ok("server", "info", json!({}));
    assert!(info["counters"]["slowed_handshakes"].as_u64() > Some(0));
    if is_full() {
        let p99 = percentile(&pings, 99);
        assert!(p99 < Duration::from_millis(50), "{p99:?}");
    }
}
