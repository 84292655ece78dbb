//! Connections whose clients are gone: they end, and keep no place from anybody.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Authority, Client, Daemon, wait_until};
use crate::lines::goes_on;
use crate::siege::size;

/// A daemon with a trusted listener and one for logins, the default limits, and a bot on it.
struct Scene {
    daemon: Daemon,
    trusted: Client,
    token: Value,
    /// The directory of its Unix socket.
    _place: TempDir,
}

impl Scene {
    /// The listener for logins is on the given address, where `{}` stands for a directory.
    fn new(address: &str, more: &str) -> Self {
        let place = TempDir::new().expect("a temporary directory");
        let address = address.replace("{}", &place.path().display().to_string());
        let daemon = Daemon::with(&format!(
            "[[listen]]\naddress = \"127.0.0.1:0\"\n\
             [[listen]]\naddress = \"{address}\"\naccess = \"login\"\n{more}"
        ));
        let mut trusted = daemon.client();
        let user = trusted.create_user("bot");
        let data = json!({"name": "t", "user_id": user});
        let token = trusted.ok("session", "token_create", data)["token"].take();
        Self {
            daemon,
            trusted,
            token,
            _place: place,
        }
    }

    fn info(&mut self) -> Value {
        self.trusted.ok("server", "info", json!({}))
    }

    /// Logs a bot in that is told of what happens, as it does after each of its starts.
    fn start(&self, tls: Option<&Arc<ClientConfig>>) -> Client {
        let address = self.daemon.address_of("login");
        let mut bot = match tls {
            Some(config) => Client::connect_tls(address, config),
            None => Client::connect(address),
        };
        bot.ok("session", "login", json!({"token": self.token}));
        bot.subscribe(json!({}));
        bot
    }

    /// Starts a bot again and again, each time after the one before it has ended in this way, while another one stays.
    /// Gives the one that stays.
    fn restart(&mut self, tls: Option<&Arc<ClientConfig>>, end: impl Fn(Client)) -> Client {
        let mut faithful = self.start(tls);
        for _ in 0..size(120, 1000) {
            end(self.start(tls));
        }
        goes_on(&mut faithful);
        let counters = self.info()["counters"].take();
        assert_eq!(
            counters["refused_max_connections_per_address"], 0,
            "{counters}"
        );
        faithful
    }

    /// Waits until only the one that stays is left, and the trusted one, though no event was sent to any.
    fn wait_for_the_end_of_others(&mut self, mut faithful: Client) {
        wait_until("the others to be gone", || self.info()["connections"] == 2);
        goes_on(&mut faithful);
        let displaced = self.info()["counters"]["displaced_connections"].take();
        assert_eq!(displaced, 0, "some were noticed too late");
    }
}

#[test]
fn a_bot_that_resets_its_connections_does_not_lock_itself_out() {
    let mut scene = Scene::new("127.0.0.1:0", "");
    let faithful = scene.restart(None, Client::reset);
    scene.wait_for_the_end_of_others(faithful);
}

#[test]
fn a_bot_that_ends_its_input_and_then_resets_its_connections_does_not_lock_itself_out() {
    let mut scene = Scene::new("127.0.0.1:0", "");
    let faithful = scene.restart(None, |mut bot| {
        bot.shutdown_write();
        bot.reset();
    });
    scene.wait_for_the_end_of_others(faithful);
}

#[test]
fn a_bot_that_closes_its_unix_socket_does_not_lock_itself_out() {
    let mut scene = Scene::new("unix:{}/chatd.sock", "");
    let faithful = scene.restart(None, drop);
    scene.wait_for_the_end_of_others(faithful);
}

#[test]
fn a_bot_that_closes_its_connections_does_not_lock_itself_out() {
    let mut scene = Scene::new("127.0.0.1:0", "");
    let mut faithful = scene.restart(None, drop);
    // A close looks like the end of input alone: the oldest of those gave their places up.
    let info = scene.info();
    let displaced = info["counters"]["displaced_connections"].as_u64();
    assert!(displaced > Some(0), "{info}");
    assert!(info["connections"].as_u64() <= Some(102), "{info}");
    // The first event that reaches them ends the rest.
    scene.trusted.create_user("ann");
    scene.trusted.create_user("ben");
    wait_until("the others to be gone", || scene.info()["connections"] == 2);
    assert_eq!(faithful.next_event()["type"], "created");
}

#[test]
fn a_bot_that_closes_its_tls_connections_does_not_lock_itself_out() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let (files, config) = (authority.issue("server").toml(), authority.client(None));
    let mut scene = Scene::new("127.0.0.1:0", &files);
    drop(scene.restart(Some(&config), |mut bot| bot.shutdown_both()));
    // Without a word of TLS, which is an error.
    let mut scene = Scene::new("127.0.0.1:0", &files);
    let faithful = scene.restart(Some(&config), drop);
    scene.wait_for_the_end_of_others(faithful);
}

#[test]
fn a_place_in_total_is_given_up_by_who_has_ended_its_input() {
    let limits = "[limits]\nmax_connections = 3\n";
    let scene = Scene::new("127.0.0.1:0", limits);
    let mut leaving: Vec<Client> = (0..2).map(|_| scene.start(None)).collect();
    leaving[1].shutdown_write();
    let mut last = scene.daemon.stranger();
    goes_on(&mut last);
    // Only from here on there is one that gives way.
    wait_until("a place", || {
        let mut more = scene.daemon.stranger();
        let answer = more.call_or_end("session", "ping", json!({}));
        answer.is_some_and(|answer| answer["result"] == "ok")
    });
    let mut displaced = leaving.pop().expect("a client");
    let line = displaced.next_value();
    assert_eq!(line["body"]["code"], "too_many_connections", "{line}");
    displaced.expect_end();
    goes_on(&mut leaving[0]);
    goes_on(&mut last);
}

#[test]
fn the_example_with_netcat_can_be_run_more_often_than_there_are_places() {
    let found = Command::new("nc").arg("-h").output().is_ok();
    if !found {
        println!("skipped: there is no nc");
        return;
    }
    let daemon = Daemon::with("[limits]\nmax_connections_trusted = 3\n");
    let (host, port) = daemon.address().split_once(':').expect("an address");
    for number in 0..8 {
        let mut netcat = Command::new("nc")
            .args([host, port])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run nc");
        let line = r#"{"class":"chat","subclass":"event","cmd":"subscribe","data":{"since":0}}"#;
        let mut input = netcat.stdin.take().expect("its input");
        input
            .write_all(format!("{line}\n").as_bytes())
            .expect("write to nc");
        drop(input);
        let mut output = BufReader::new(netcat.stdout.take().expect("its output"));
        let mut answer = String::new();
        output.read_line(&mut answer).expect("read from nc");
        assert!(answer.contains(r#""result":"ok""#), "{number}: {answer}");
        // What `timeout` does.
        netcat.kill().expect("end nc");
        netcat.wait().expect("wait for nc");
    }
}

#[test]
fn a_request_that_tls_cut_short_is_not_done_and_those_before_it_are_answered() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let config = authority.client(None);
    let daemon = Daemon::with(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n{}",
        authority.issue("server").toml()
    ));
    let mut watching = Client::connect_tls(daemon.address(), &config);
    let socket = crate::harness::Socket::connect(daemon.address()).expect("connect");
    let tcp = socket.try_clone().expect("another handle");
    let mut client = Client::over(socket.tls(&config).expect("a handshake"));
    client.subscribe(json!({}));
    client.request("session", "ping", json!({}));
    client.send_bytes(br#"{"class":"chat","subclass":"user","cmd":"create","data":{"login":"a","name":"A","password":"s3cret"}}"#);
    tcp.shutdown(std::net::Shutdown::Write)
        .expect("end the input");
    assert_eq!(client.next_value()["result"], "ok");
    client.expect_end();
    let info = watching.ok("server", "info", json!({}));
    assert_eq!(
        (&info["users"], &info["connections"]),
        (&json!(0), &json!(1)),
        "{info}"
    );
}
