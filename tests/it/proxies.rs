//! Behind proxies: PROXY headers, what goes by the address in them, and Debian's proxies as contrib/behind-a-proxy.md runs
//! them.

mod running;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Authority, Client, Daemon, PATIENCE, Socket, run_to_end, wait_until};
use crate::lines::goes_on;

/// A trusted listener, and a login listener with more lines.
fn with_login_listener(more: &str) -> String {
    let trusted = "[[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"trusted\"\n";
    format!("{trusted}[[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n{more}\n")
}

const TRUSTED: &str = "trusted_proxies = [\"127.0.0.1\"]";

/// A header of version 1 that names this address.
fn text_header(address: &str) -> Vec<u8> {
    let family = if address.contains(':') {
        "TCP6"
    } else {
        "TCP4"
    };
    format!("PROXY {family} {address} {address} 4711 24285\r\n").into_bytes()
}

/// A header of version 2 that names `192.0.2.9`, port 258, with an extension behind.
const BINARY_HEADER: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x09\x7f\0\0\x01\x01\x02\0\x50\x05\0\x02hi";
/// One of version 2 by which a proxy speaks for itself.
const LOCAL_HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A connection that begins with these bytes.
fn begun(address: &str, header: &[u8]) -> Client {
    let mut client = Client::connect(address);
    client.send_bytes(header);
    client
}

fn remote(client: &mut Client) -> String {
    let session = client.ok("session", "get", json!({}));
    session["remote"].as_str().expect("a remote").to_owned()
}

fn count(daemon: &Daemon, counter: &str) -> Value {
    daemon.client().ok("server", "info", json!({}))["counters"][counter].take()
}

/// Asserts that the connection is closed for what came first on it.
fn closed_with_protocol(client: &mut Client) {
    let line = client.next_value();
    assert_eq!(line["type"], "closed", "{line}");
    assert_eq!(line["body"]["code"], "protocol", "{line}");
    assert_eq!(line["body"]["retry"], false, "{line}");
    client.expect_end();
}

#[test]
fn a_trusted_proxy_says_for_whom_its_connection_comes() {
    let daemon = Daemon::with(&with_login_listener(TRUSTED));
    let login = daemon.address_of("login");
    let ann = daemon.client().create_user("ann@example.org");
    for (header, expected) in [
        (text_header("192.0.2.7"), "192.0.2.7:4711"),
        (text_header("2001:db8::7"), "[2001:db8::7]:4711"),
        (text_header("::ffff:192.0.2.8"), "192.0.2.8:4711"),
        (BINARY_HEADER.to_vec(), "192.0.2.9:258"),
        (LOCAL_HEADER.to_vec(), "127.0.0.1:"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1:"),
    ] {
        let mut client = begun(login, &header);
        let shown = remote(&mut client);
        assert!(shown.starts_with(expected), "{expected}: {shown}");
        // However few bytes of it come at a time.
        let mut slow = Client::connect(login);
        for byte in &header {
            slow.send_bytes(&[*byte]);
        }
        slow.login("ann@example.org", "s3cret");
        let shown = remote(&mut slow);
        assert!(shown.starts_with(expected), "{expected}: {shown}");
        let sessions = daemon.client().ok("session", "list", json!({}));
        let of_ann = sessions["sessions"].as_array().unwrap().iter();
        let mut of_ann = of_ann.filter(|session| session["user_id"] == ann);
        assert!(
            of_ann.any(|session| session["remote"] == *shown),
            "{sessions}"
        );
        // Into the audit log it goes as well.
        let log = daemon.log();
        let mut audited = log
            .lines()
            .filter(|line| line.contains("\"event\":\"login\""));
        assert!(
            audited.any(|line| line.contains(&format!("\"remote\":\"{shown}\""))),
            "{log}"
        );
    }
}

#[test]
fn a_trusted_listener_shows_the_address_and_stays_trusted() {
    let listen = format!("[[listen]]\naddress = \"127.0.0.1:0\"\n{TRUSTED}\n");
    let daemon = Daemon::with(&listen);
    let mut client = begun(daemon.address(), &text_header("192.0.2.7"));
    assert_eq!(remote(&mut client), "192.0.2.7:4711");
    client.create_user("ann@example.org");
}

#[test]
fn everything_counts_for_the_address_that_the_proxy_names() {
    let more = format!(
        "{TRUSTED}\n[limits]\nmax_connections_per_address = 2\n[security]\nbcrypt_cost = 4\nfailed_logins_per_minute = 1\n"
    );
    let daemon = Daemon::with(&with_login_listener(&more));
    daemon.client().create_user("ann@example.org");
    let login = daemon.address_of("login");
    let from = |address: &str| begun(login, &text_header(address));
    let mut two: Vec<Client> = (0..2).map(|_| from("192.0.2.1")).collect();
    for client in &mut two {
        goes_on(client);
    }
    let mut third = from("192.0.2.1");
    assert_eq!(third.next_value()["body"]["code"], "too_many_connections");
    third.expect_end();
    assert_eq!(count(&daemon, "refused_max_connections_per_address"), 1);
    // The others behind the proxy do not notice, and neither does its own check.
    let mut others: Vec<Client> = (2..8)
        .map(|last| from(&format!("192.0.2.{last}")))
        .collect();
    for client in &mut others {
        goes_on(client);
    }
    goes_on(&mut begun(login, LOCAL_HEADER));
    drop(two);
    // One stranger guesses until it is told to wait.
    let mut stranger = from("192.0.2.66");
    let guess = |client: &mut Client, number: usize| {
        let guess = json!({"login": format!("nobody{number}@example.org"), "password": "wrong"});
        client.code("session", "login", guess)
    };
    let limited = (0..100).any(|number| guess(&mut stranger, number) == "rate_limited");
    assert!(limited, "nobody was told to wait");
    from("192.0.2.67").login("ann@example.org", "s3cret");
}

#[test]
fn a_header_from_others_is_a_bad_line_that_closes() {
    let elsewhere = "trusted_proxies = [\"192.0.2.0/24\", \"::1\"]";
    for more in ["", elsewhere] {
        let daemon = Daemon::with(&with_login_listener(more));
        let request = b"{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\",\"tid\":1}\n";
        let mut closed = 0;
        for address in [daemon.address_of("login"), daemon.address_of("trusted")] {
            goes_on(&mut Client::connect(address));
            for header in [
                &text_header("192.0.2.7"),
                BINARY_HEADER,
                b"PROXY UNKNOWN\r\n",
            ] {
                let mut client = begun(address, &[header, request].concat());
                let answer = client.next_value();
                assert_eq!(answer["data"]["code"], "bad_json", "{answer}");
                let text = answer["data"]["error"].as_str().unwrap();
                assert!(text.contains("trusted_proxies"), "{text}");
                closed_with_protocol(&mut client);
                closed += 1;
            }
        }
        assert_eq!(count(&daemon, "bad_proxy_headers"), closed);
        daemon.wait_for_log("it is no trusted proxy");
    }
}

#[test]
fn a_trusted_proxy_without_a_header_is_closed_and_told_of() {
    let daemon = Daemon::with(&with_login_listener(TRUSTED));
    let login = daemon.address_of("login");
    // It waits for the one that says nothing while the others are tried.
    let mut silent = Client::connect(login);
    let mut slow = begun(login, b"PROXY TCP4 192.0.2.1");
    for first in [
        &b"{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\",\"tid\":1}\n"[..],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\n",
        b"PROXY TCP4 192.0.2.300 127.0.0.1 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\n",
    ] {
        closed_with_protocol(&mut begun(login, first));
    }
    assert_eq!(count(&daemon, "bad_proxy_headers"), 6);
    daemon.wait_for_log("did not begin with a PROXY header");
    closed_with_protocol(&mut silent);
    closed_with_protocol(&mut slow);
    daemon.wait_for_log("did not come in time");
    assert!(daemon.log().contains("127.0.0.1:"), "{}", daemon.log());
    assert_eq!(count(&daemon, "bad_proxy_headers"), 8);
    goes_on(&mut begun(login, LOCAL_HEADER));
}

#[test]
fn a_check_that_goes_without_a_byte_leaves_no_line() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let tls = authority.issue("server").toml();
    for more in [TRUSTED.to_owned(), format!("{TRUSTED}\n{tls}"), tls.clone()] {
        let daemon = Daemon::with(&with_login_listener(&more));
        let address = daemon.address_of("login");
        for number in 0..50 {
            let check = TcpStream::connect(address).expect("connect");
            if number % 2 == 0 {
                // As haproxy's checks do, it goes with a reset.
                socket2::SockRef::from(&check)
                    .set_linger(Some(Duration::ZERO))
                    .expect("linger");
            }
            if more.starts_with(TRUSTED) && number % 5 == 0 {
                (&check).write_all(LOCAL_HEADER).expect("write");
            }
        }
        let mut root = daemon.client();
        wait_until("the checks to be gone", || {
            root.ok("server", "info", json!({}))["connections"] == 1
        });
        // What is worth a line gets one, and it is the only one.
        begun(address, b"GET / HTTP/1.1\r\n\r\n");
        daemon.wait_for_log("limited");
        for counter in ["bad_proxy_headers", "failed_handshakes"] {
            let counted = count(&daemon, counter).as_u64();
            assert!(
                counted <= Some(1),
                "{counter} is {counted:?}: {}",
                daemon.log()
            );
        }
        assert_eq!(
            daemon.log().matches("limited").count(),
            1,
            "{}",
            daemon.log()
        );
    }
}

#[test]
fn the_header_comes_before_tls() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let more = format!("{TRUSTED}\n{}", authority.issue("server").toml());
    let daemon = Daemon::with(&with_login_listener(&more));
    let address = daemon.address_of("login");
    for header in [&text_header("192.0.2.7"), BINARY_HEADER] {
        let mut socket = Socket::connect(address).expect("connect");
        socket.write_all(header).expect("write the header");
        let socket = socket.tls(&authority.client(None)).expect("a handshake");
        assert!(remote(&mut Client::over(socket)).starts_with("192.0.2."));
    }
    // Without it there is no handshake, and no word in the clear.
    let mut socket = Socket::connect(address).expect("connect");
    socket
        .write_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03")
        .expect("write");
    let mut said = Vec::new();
    let _ = socket.read_to_end(&mut said);
    assert_eq!(said, b"");
    assert_eq!(count(&daemon, "bad_proxy_headers"), 1);
}

#[test]
fn the_peers_of_a_unix_socket_are_proxies_where_that_is_said() {
    let folder = TempDir::new().expect("a temporary directory");
    let address = format!("unix:{}", folder.path().join("chatd.sock").display());
    let listen =
        |more: &str| format!("[[listen]]\naddress = \"{address}\"\naccess = \"login\"\n{more}\n");
    let mut daemon = Daemon::with(&listen("trusted_proxies = [\"unix\"]"));
    let mut client = begun(&address, &text_header("192.0.2.7"));
    assert_eq!(remote(&mut client), "192.0.2.7:4711");
    let mut client = begun(&address, LOCAL_HEADER);
    assert!(remote(&mut client).starts_with("unix"));
    closed_with_protocol(&mut begun(&address, b"{}\n"));
    drop(client);
    daemon.terminate();
    let daemon = Daemon::with(&listen(""));
    let mut client = begun(&address, &text_header("192.0.2.7"));
    assert_eq!(client.next_value()["data"]["code"], "bad_json");
    closed_with_protocol(&mut client);
    drop(daemon);
    let refused = |listen: &str, said: &str| {
        let (code, error) = run_to_end(listen, &["--check-config"]);
        assert_eq!(code, 78, "{error}");
        assert!(
            error.contains("trusted_proxies") && error.contains(said),
            "{error}"
        );
    };
    refused(&listen("trusted_proxies = [\"127.0.0.1\"]"), "[\"unix\"]");
    let tcp = "[[listen]]\naddress = \"127.0.0.1:0\"\ntrusted_proxies = [\"unix\"]\n";
    refused(tcp, "10.0.0.0/8");
    let everybody = "[[listen]]\naddress = \"0.0.0.0:0\"\naccess = \"login\"\ntrusted_proxies = [\"0.0.0.0/0\"]\n";
    let authority = Authority::new();
    if let Some(authority) = &authority {
        let tls = authority.issue("server").toml();
        refused(&format!("{everybody}{tls}"), "insecure = true");
    }
}

#[test]
fn a_stop_does_not_wait_for_headers() {
    let mut daemon = Daemon::with(&with_login_listener(TRUSTED));
    let mut silent = Client::connect(daemon.address_of("login"));
    // The one behind it was accepted later, so both are.
    goes_on(&mut begun(daemon.address_of("login"), LOCAL_HEADER));
    let begun = std::time::Instant::now();
    assert!(daemon.terminate().success());
    assert!(begun.elapsed() < PATIENCE / 10, "{:?}", begun.elapsed());
    assert_eq!(silent.next_value()["body"]["code"], "shutdown");
    silent.expect_end();
}

#[test]
fn a_back_end_names_its_user_and_for_whom_it_acts() {
    let daemon = Daemon::with(&with_login_listener(""));
    let mut root = daemon.client();
    let ann = root.create_user("ann@example.org");
    let on_behalf = |remote: &str| json!({"user_id": ann, "remote": remote});
    let mut client = daemon.client();
    for (given, shown) in [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7:4711"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]:80", "[2001:db8::7]:80"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
    ] {
        client.ok("session", "login", on_behalf(given));
        let session = client.ok("session", "get", json!({}));
        assert_eq!(
            (&session["remote"], &session["user_id"]),
            (&json!(shown), &json!(ann))
        );
        let listed = root.ok("session", "list", json!({}));
        let mut listed = listed["sessions"].as_array().unwrap().iter();
        assert!(listed.any(|listed| listed["remote"] == shown && listed["user_id"] == ann));
        daemon.wait_for_log(&format!("\"remote\":\"{shown}\",\"by\":\"{ann}\""));
    }
    // It has the user's rights, and no others.
    assert_eq!(client.code("session", "list", json!({})), "forbidden");
    // A refusal leaves things as they were.
    let nobody = json!({"user_id": "01zzzzzzzzzzz", "remote": "203.0.113.99"});
    assert_eq!(client.code("session", "login", nobody), "user_not_found");
    daemon.wait_for_log("\"result\":\"user_not_found\"");
    assert_eq!(remote(&mut client), "203.0.113.9");
    for wrong in [
        "",
        "localhost",
        "203.0.113.7, 10.0.0.1",
        "203.0.113.256",
        "unix",
    ] {
        let refused = client.error("session", "login", on_behalf(wrong));
        assert_eq!(refused["code"], "invalid_field", "{wrong}: {refused}");
        assert_eq!(refused["field"], "remote", "{wrong}: {refused}");
    }
    // Without an address the connection's own is shown.
    client.ok("session", "login", json!({"user_id": ann}));
    assert!(remote(&mut client).starts_with("127.0.0.1:"));
    client.ok("session", "login", on_behalf("203.0.113.7"));
    client.ok("session", "logout", json!({}));
    assert!(remote(&mut client).starts_with("127.0.0.1:"));
    client.ok("session", "list", json!({}));
    // Deleting the user ends such a session as any other.
    client.ok("session", "login", on_behalf("203.0.113.7"));
    root.ok("user", "delete", json!({"user_id": ann}));
    client.expect_session_ended();
}

#[test]
fn a_login_listener_lets_nobody_name_a_user_or_an_address() {
    let daemon = Daemon::with(&with_login_listener(""));
    let ann = daemon.client().create_user("ann@example.org");
    let password = json!({"login": "ann@example.org", "password": "s3cret"});
    let mut client = daemon.stranger();
    for logged_in in [false, true] {
        if logged_in {
            client.ok("session", "login", password.clone());
        }
        let mut with_remote = password.clone();
        with_remote["remote"] = json!("203.0.113.7");
        for (data, field) in [
            (json!({"user_id": ann}), "user_id"),
            (json!({"user_id": "01zzzzzzzzzzz"}), "user_id"),
            (json!({"user_id": ann, "remote": "203.0.113.7"}), "user_id"),
            (with_remote, "remote"),
            (json!({"token": "cht_x", "remote": "203.0.113.7"}), "remote"),
        ] {
            let refused = client.error("session", "login", data);
            assert_eq!(
                (&refused["code"], &refused["field"]),
                (&json!("forbidden"), &json!(field))
            );
        }
        assert!(remote(&mut client).starts_with("127.0.0.1:"));
    }
}

#[test]
fn limits_go_by_the_address_for_which_a_back_end_acts() {
    let more = "[limits]\nmax_connections_per_address = 2\n[security]\nbcrypt_cost = 4\nfailed_logins_per_minute = 1\n";
    let daemon = Daemon::with(&with_login_listener(more));
    let mut root = daemon.client();
    let ann = root.create_user("ann@example.org");
    // A visitor who guesses passwords locks out itself, and neither the back end nor other visitors.
    let guess = |number: usize, remote: &str| json!({"login": format!("nobody{number}@example.org"), "password": "wrong", "remote": remote});
    let mut client = daemon.client();
    let limited = (0..100).any(|number| {
        client.code("session", "login", guess(number, "203.0.113.66")) == "rate_limited"
    });
    assert!(limited, "nobody was told to wait");
    daemon.wait_for_log("\"remote\":\"203.0.113.66\"");
    assert_eq!(
        client.code("session", "login", guess(100, "203.0.113.67")),
        "login_failed"
    );
    let right = json!({"login": "ann@example.org", "password": "s3cret", "remote": "203.0.113.67"});
    client.ok("session", "login", right);
    assert_eq!(remote(&mut client), "203.0.113.67");
    // One visitor has as many connections as one address may.
    let on_behalf = json!({"user_id": ann, "remote": "203.0.113.67"});
    let mut second = daemon.client();
    second.ok("session", "login", on_behalf.clone());
    let mut third = daemon.client();
    let refused = third.error("session", "login", on_behalf.clone());
    assert_eq!(refused["code"], "too_many_connections", "{refused}");
    assert_eq!(remote(&mut third).split(':').next(), Some("127.0.0.1"));
    third.ok("session", "list", json!({}));
    second.ok("session", "logout", json!({}));
    third.ok("session", "login", on_behalf);
}
