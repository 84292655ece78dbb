//! TLS: stock clients, certificates of clients, certificates read again, and handshakes that go wrong.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use serde_json::{Value, json};

use crate::crash::seed;
use crate::harness::{Authority, Client, Daemon, PATIENCE, Socket, wait_until};
use crate::lines::goes_on;

const PING: &str = r#"{"class":"chat","subclass":"session","cmd":"ping","tid":1}"#;
const PONG: &str = r#"{"result":"ok","data":{},"tid":1}"#;

/// A trusted listener without TLS, then one with it.
fn config(access: &str, tls: &str, more: &str) -> String {
    format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"{access}\"\n{tls}\
         [security]\nbcrypt_cost = 4\n{more}"
    )
}

/// The address of the listener that speaks TLS.
fn secure(daemon: &Daemon) -> &str {
    &daemon.listeners()[1].address
}

fn counter(client: &mut Client, name: &str) -> u64 {
    let info = client.ok("server", "info", json!({}));
    info["counters"][name].as_u64().expect("a counter")
}

/// Runs a program, gives it one line, waits for one line of its output, closes its input, and waits for its end.
fn converse(program: &[&str], line: &str) -> Option<String> {
    let patience = PATIENCE.as_secs().to_string();
    let mut child = Command::new("timeout")
        .arg(patience)
        .args(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("run timeout");
    let mut input = child.stdin.take().expect("its input");
    // One that was refused is gone, and takes nothing.
    let _ = input.write_all(format!("{line}\n").as_bytes());
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut answer = String::new();
    output.read_line(&mut answer).expect("read its output");
    drop(input);
    let status = child.wait().expect("wait for it");
    assert_ne!(status.code(), Some(124), "{program:?} hung");
    answer.strip_suffix('\n').map(str::to_owned)
}

fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("-V").output().is_ok();
    if !found {
        println!("skipped: there is no {program}");
    }
    found
}

#[test]
fn openssl_and_socat_speak_with_a_tls_listener() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let daemon = Daemon::with(&config("trusted", &authority.issue("server").toml(), ""));
    let address = secure(&daemon);
    let roots = authority.certificate();
    let roots = roots.to_str().unwrap();
    let s_client = |version, more: &[&'static str]| {
        let usual = [
            "openssl",
            "s_client",
            "-quiet",
            "-no_ign_eof",
            "-connect",
            address,
            version,
        ];
        [&usual, more].concat()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let mut openssl = s_client(
            version,
            &["-verify_return_error", "-verify_ip", "127.0.0.1"],
        );
        openssl.extend(["-CAfile", roots]);
        assert_eq!(converse(&openssl, PING).as_deref(), Some(PONG), "{version}");
    }
    for version in ["-tls1", "-tls1_1"] {
        let old = s_client(version, &["-cipher", "ALL:@SECLEVEL=0"]);
        assert_eq!(converse(&old, PING), None, "{version}");
    }
    if installed("socat") {
        let to = format!("OPENSSL:{address},cafile={roots}");
        assert_eq!(converse(&["socat", "-", &to], PING).as_deref(), Some(PONG));
    }
}

#[test]
fn the_line_that_chatd_says_to_try_works_with_tls() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let tls = authority.issue("server").toml();
    let daemon = Daemon::with(&format!("[[listen]]\naddress = \"127.0.0.1:0\"\n{tls}"));
    let line = daemon.line_to_try();
    for _ in 0..3 {
        let output = Command::new("timeout")
            .arg(PATIENCE.as_secs().to_string())
            .args(["sh", "-c", &line])
            .output()
            .expect("run a shell");
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(
            answer.starts_with(r#"{"result":"ok","#),
            "{line}: {answer:?}"
        );
    }
}

#[test]
fn requests_answers_and_events_pass_through_tls_as_they_do_without() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let daemon = Daemon::with(&config("login", &authority.issue("server").toml(), ""));
    let mut plain = daemon.client();
    let ann = plain.create_user("ann");
    let room = plain.create_conversation("room", &[&ann]);
    let mut client = Client::connect_tls(secure(&daemon), &authority.client(None));
    client.login("ann", "s3cret");
    client.subscribe(json!({"subclass": "conversation", "obj_id": room}));
    // Longer than one record of TLS.
    let text = "é".repeat(8192);
    for _ in 0..20 {
        client.send_message(&room, &ann, &text);
        assert_eq!(client.next_event()["body"]["message"], json!(text));
    }
    let page = client.ok(
        "message",
        "search",
        json!({"filter": {"conversation_id": room}, "fields": "_all"}),
    );
    assert_eq!(page["data"].as_array().map(Vec::len), Some(20));

    // One that ends its requests gets every answer, and the end in good order.
    let mut half = Client::connect_tls(secure(&daemon), &authority.client(None));
    half.send_bytes(format!("{PING}\n").repeat(100).as_bytes());
    half.shutdown_write();
    for _ in 0..100 {
        assert_eq!(half.read_line().as_deref(), Some(PONG));
    }
    half.expect_end();
    // So does one that is closed.
    let session = client.ok("session", "get", json!({}))["session_id"].take();
    plain.ok("session", "stop", json!({"session_id": session}));
    assert_eq!(client.next_event()["body"]["code"], "session_ended");
    client.expect_end();
}

/// Whether a client gets an answer over TLS; what it asks for may not be done if it gets none.
fn is_served(address: &str, config: &Arc<ClientConfig>, line: &str) -> bool {
    let Ok(mut socket) = Socket::connect(address).and_then(|socket| socket.tls(config)) else {
        return false;
    };
    let mut answer = [0; 1];
    socket.write_all(format!("{line}\n").as_bytes()).is_ok()
        && socket.read_exact(&mut answer).is_ok()
}

#[test]
fn a_listener_that_asks_for_certificates_serves_nobody_without_one_of_its_authority() {
    let (Some(authority), Some(other)) = (Authority::new(), Authority::new()) else {
        return;
    };
    let server = authority.issue("server");
    let tls = server.toml_with_client_ca(&authority.certificate());
    let daemon = Daemon::with(&config("trusted", &tls, ""));
    let address = secure(&daemon);
    let mut plain = daemon.client();
    let (good, bad) = (authority.issue("client"), other.issue("client"));
    let create = |login: &str| {
        json!({"class": "chat", "subclass": "user", "cmd": "create",
               "data": {"login": login, "name": "n", "password": "p"}})
        .to_string()
    };
    assert!(!is_served(
        address,
        &authority.client(None),
        &create("nobody")
    ));
    let stranger = authority.client(Some(&bad));
    assert!(!is_served(address, &stranger, &create("stranger")));
    wait_until("two handshakes that count as failed", || {
        counter(&mut plain, "failed_handshakes") == 2
    });
    assert!(is_served(
        address,
        &authority.client(Some(&good)),
        &create("friend")
    ));
    let found = plain.ok("user", "search", json!({"fields": "login"}));
    assert_eq!(found["total"], 1, "{found}");
    assert_eq!(found["data"][0]["login"], "friend");

    let openssl = |more: &[&str]| {
        let to = [
            "openssl",
            "s_client",
            "-quiet",
            "-no_ign_eof",
            "-connect",
            address,
        ];
        converse(&[&to, more].concat(), PING)
    };
    assert_eq!(openssl(&[]), None);
    let (cert, key) = (good.cert.to_str().unwrap(), good.key.to_str().unwrap());
    assert_eq!(
        openssl(&["-cert", cert, "-key", key]).as_deref(),
        Some(PONG)
    );
}

/// The certificate that a new connection is shown.
fn shown(address: &str, config: &Arc<ClientConfig>) -> Vec<u8> {
    let socket = Socket::connect(address).and_then(|socket| socket.tls(config));
    let shown = socket.expect("a handshake").peer_certificate();
    shown.expect("a certificate")
}

#[test]
fn certificates_are_read_again_on_sighup_and_no_connection_is_dropped() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let first = authority.issue("server");
    let first_der = first.der().to_vec();
    let daemon = Daemon::with(&config("trusted", &first.toml(), ""));
    let (address, trust) = (secure(&daemon), authority.client(None));
    let mut before = Client::connect_tls(address, &trust);
    goes_on(&mut before);
    assert_eq!(shown(address, &trust), first_der);

    let second_der = authority.issue("server").der().to_vec();
    assert_eq!(shown(address, &trust), first_der, "before SIGHUP");
    daemon.signal(Signal::HUP);
    wait_until("the new certificate", || {
        shown(address, &trust) == second_der
    });
    goes_on(&mut before);

    let whole = (
        fs::read(&first.cert).unwrap(),
        fs::read(&first.key).unwrap(),
    );
    let other = authority.issue("other");
    let mut reloads = 0;
    let mut breaks = |cert: &[u8], key: &[u8], said: &str| {
        fs::write(&first.cert, cert).unwrap();
        fs::write(&first.key, key).unwrap();
        daemon.signal(Signal::HUP);
        reloads += 1;
        wait_until("a refused certificate in the log", || {
            daemon.log().matches("stay in use").count() == reloads
        });
        assert!(daemon.log().contains(said), "{said}");
        assert_eq!(shown(address, &trust), second_der, "{said}");
    };
    breaks(b"", &whole.1, "server.pem");
    breaks(&whole.0[..whole.0.len() / 2], &whole.1, "server.pem");
    breaks(&whole.0, b"no key", "server.key");
    breaks(
        &whole.0,
        &fs::read(&other.key).unwrap(),
        "does not belong to the key",
    );
    fs::remove_file(&first.cert).unwrap();
    daemon.signal(Signal::HUP);
    wait_until("a missing certificate in the log", || {
        daemon.log().matches("stay in use").count() == 5
    });
    assert_eq!(shown(address, &trust), second_der);
    goes_on(&mut before);

    let third_der = authority.issue("server").der().to_vec();
    daemon.signal(Signal::HUP);
    wait_until("the third certificate", || {
        shown(address, &trust) == third_der
    });
    goes_on(&mut before);
}

/// What a client of TLS says first.
fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_handshake_that_stalls_is_cut_off() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let tls = authority.issue("server").toml();
    for access in ["trusted", "login"] {
        let daemon = Daemon::with(&config(access, &tls, "login_seconds = 1\n"));
        let hello = hello(&authority.client(None));
        let begun = Instant::now();
        let mut stalled: Vec<TcpStream> = [&hello[..0], &hello[..hello.len() / 2], &hello]
            .iter()
            .map(|start| {
                let mut stream = TcpStream::connect(secure(&daemon)).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(start).unwrap();
                stream
            })
            .collect();
        for stream in &mut stalled {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).expect("the end");
        }
        assert!(begun.elapsed() >= Duration::from_secs(1));
        let mut plain = daemon.client();
        wait_until("the places of the stalled", || {
            plain.ok("server", "info", json!({}))["connections"] == 1
        });
        assert_eq!(counter(&mut plain, "failed_handshakes"), 3);
    }
}

/// A handshake that can come to nothing.
fn broken(random: &mut StdRng, hello: &[u8]) -> Vec<u8> {
    let noise = |random: &mut StdRng, most: usize| -> Vec<u8> {
        let length = random.random_range(0..most);
        (0..length).map(|_| random.random()).collect()
    };
    let mut bytes = hello.to_vec();
    match random.random_range(0..7) {
        0 => bytes.truncate(random.random_range(0..hello.len())),
        1 => {
            for _ in 0..random.random_range(1..9) {
                let place = random.random_range(0..bytes.len());
                bytes[place] ^= 1 << random.random_range(0..8);
            }
        }
        2 => bytes = noise(random, 4096),
        3 => {
            // A record of any type, version and length, with anything in it.
            let kind = random.random_range(20..25);
            bytes = vec![
                kind,
                3,
                random.random_range(0..5),
                random.random(),
                random.random(),
            ];
            bytes.extend(noise(random, 20_000));
        }
        4 => bytes.extend(noise(random, 4096)),
        5 => {
            // Messages that never end: the hello's length grows, and records follow.
            bytes[6] = 0xff;
            for _ in 0..random.random_range(1..20) {
                bytes.extend([22, 3, 3, 0x40, 0]);
                bytes.extend([0; 0x4000]);
            }
        }
        _ => bytes = format!("{PING}\nGET / HTTP/1.1\r\n\r\n").into_bytes(),
    }
    bytes
}

#[test]
fn thousands_of_broken_handshakes_cost_nothing_and_are_counted() {
    const HANDSHAKES: u64 = 3000;
    let Some(authority) = Authority::new() else {
        return;
    };
    let tls = authority.issue("server").toml();
    let daemon = Daemon::with(&config("trusted", &tls, ""));
    let (trust, address) = (authority.client(None), secure(&daemon));
    let mut plain = daemon.client();
    let mut other = Client::connect_tls(address, &trust);
    goes_on(&mut other);
    // Of those of one second the first is told of, so that this one is alone.
    let mut first = TcpStream::connect(address).expect("connect");
    first.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("send");
    daemon.wait_for_log("InvalidContentType");
    drop(first);
    wait_until("the end of the first one", || {
        plain.ok("server", "info", json!({}))["connections"] == 2
    });
    let descriptors = daemon.descriptors();
    let hello = hello(&trust);
    let mut random = StdRng::seed_from_u64(seed());
    // Whoever goes without a byte only looked whether somebody listens.
    let mut counted = 1;
    for _ in 0..HANDSHAKES {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let bytes = broken(&mut random, &hello);
        counted += u64::from(!bytes.is_empty());
        // The daemon may have closed before all of it was sent.
        let _ = stream.write_all(&bytes);
        if random.random() {
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let end = stream.read_to_end(&mut answer);
            let waited = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(!waited, "a broken handshake is kept waiting");
        }
    }
    let mut info = Value::Null;
    wait_until("the end of the broken handshakes", || {
        info = plain.ok("server", "info", json!({}));
        // The last of them may still wait to be accepted.
        info["connections"] == 2 && info["counters"]["failed_handshakes"].as_u64() >= Some(counted)
    });
    assert_eq!(info["counters"]["failed_handshakes"], counted, "{info}");
    assert_eq!(daemon.descriptors(), descriptors);
    goes_on(&mut other);
    goes_on(&mut Client::connect_tls(address, &trust));
}
