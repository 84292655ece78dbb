//! Sieges: many connections at once, most of them hostile. Others must not notice.
//!
//! Small here; `CHATD_SIEGE=full cargo test --release --test it siege -- --nocapture --test-threads=1` lays them in full
//! size. What is measured is printed; what is asserted holds on a machine of any speed.

mod floods;
mod handshakes;
mod logins;
mod places;
mod reads;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpSocket;

use crate::harness::{Authority, Client, Daemon, Socket, wait_until};
use crate::lines::goes_on;

const LIMITS: &str = "\
[limits]
max_connections = 19000
max_connections_per_address = 19000
max_connections_not_logged_in = 19000
max_sessions_per_user = 19000
requests_per_second_per_address = 1000000
handshakes_per_second_per_address = 1000000
requests_per_second_per_user = 1000000
";

/// The first unless the full size is asked for.
pub fn size<T>(small: T, full: T) -> T {
    if is_full() { full } else { small }
}

pub fn is_full() -> bool {
    std::env::var("CHATD_SIEGE").is_ok_and(|size| size == "full")
}

/// Lets this process have as many descriptors as it may.
pub fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("raise the limit of descriptors");
}

/// A trusted listener, and one for logins.
fn listeners(tls: &str) -> String {
    format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n{tls}"
    )
}

/// Connects to the listener for logins from one of the addresses 127.0.N.1, so that ports last.
fn connect(daemon: &Daemon, number: usize) -> Socket {
    const PER_ADDRESS: usize = 1000;
    let network = u8::try_from(number / PER_ADDRESS + 1).expect("an address");
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, network, 1));
    Socket::connect_from(source, daemon.address_of("login")).expect("connect")
}

fn info(client: &mut Client) -> Value {
    client.ok("server", "info", json!({}))
}

/// A client for a moment: it holds a descriptor of its own, and there are not enough for two on each connection.
fn client_of(socket: &Socket) -> Client {
    Client::over(socket.try_clone().expect("another handle"))
}

/// Holds idle users, and gives the bytes of memory that each costs.
fn hold_idle_users(daemon: &Daemon, tls: Option<&Arc<ClientConfig>>, users: usize) -> usize {
    let mut trusted = daemon.client();
    let user = trusted.create_user("ann");
    let token = trusted.ok(
        "session",
        "token_create",
        json!({"name": "t", "user_id": user}),
    );
    let open = |number| {
        let socket = connect(daemon, number);
        let socket = match tls {
            Some(config) => socket.tls(config).expect("a handshake"),
            None => socket,
        };
        let mut client = client_of(&socket);
        client.ok("session", "login", json!({"token": token["token"]}));
        socket
    };
    // What the first one costs is not what each one costs.
    drop(open(0));
    wait_until("the first to be gone", || {
        info(&mut trusted)["connections"] == 1
    });
    let before = daemon.resident_bytes();
    let sockets: Vec<Socket> = (0..users).map(open).collect();
    let held = daemon.resident_bytes() - before;
    assert_eq!(info(&mut trusted)["connections"], users + 1);
    for socket in &sockets {
        goes_on(&mut client_of(socket));
    }
    drop(sockets);
    wait_until("all to be gone", || info(&mut trusted)["connections"] == 1);
    goes_on(&mut client_of(&open(0)));
    held / users
}

#[test]
fn thousands_of_idle_users_are_held() {
    raise_descriptors();
    let users = size(300, 15_000);
    let daemon = Daemon::with(&(listeners("") + LIMITS));
    let each = hold_idle_users(&daemon, None, users);
    println!("{users} idle users: {each} bytes each");
    // Few of them share what many do, so that there is more room for each.
    assert!(each <= size(32, 8) * 1024, "{each}");
    let Some(authority) = Authority::new() else {
        return;
    };
    let daemon = Daemon::with(&(listeners(&authority.issue("server").toml()) + LIMITS));
    let each = hold_idle_users(&daemon, Some(&authority.client(None)), users);
    println!("{users} idle users with TLS: {each} bytes each");
    assert!(each <= 64 * 1024, "{each}");
}

#[test]
fn strangers_that_send_a_byte_a_second_are_gone_when_their_time_is_over() {
    raise_descriptors();
    let (strangers, seconds) = size((200, 2), (5000, 10));
    let security = format!("[security]\nbcrypt_cost = 4\nlogin_seconds = {seconds}\n");
    let daemon = Daemon::with(&(listeners("") + LIMITS + &security));
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let mut user = Client::over(connect(&daemon, 0));
    user.login("ann", "s3cret");
    let begun = Instant::now();
    let mut open: Vec<Client> = (0..strangers)
        .map(|number| Client::over(connect(&daemon, number)))
        .collect();
    let connected = Instant::now();
    while info(&mut trusted)["counters"]["login_timeouts"] == 0 {
        for client in &mut open {
            client.send_bytes_or_end(b"{");
        }
        thread::park_timeout(Duration::from_secs(1));
    }
    assert!(begun.elapsed() >= Duration::from_secs(seconds));
    wait_until("the end of all strangers", || {
        info(&mut trusted)["connections"] == 2
    });
    println!(
        "{strangers} slow strangers: gone {:?} after the last one came",
        connected.elapsed()
    );
    for client in &mut open {
        let line = client.next_value();
        assert_eq!(line["body"]["code"], "login_timeout", "{line}");
    }
    assert_eq!(info(&mut trusted)["counters"]["login_timeouts"], strangers);
    goes_on(&mut user);
}

/// Lays a siege of connections to a daemon that has too few descriptors for them.
fn besiege(daemon: &Daemon, connections: usize) {
    let mut trusted = daemon.client();
    let used = daemon.processor_time();
    let begun = Instant::now();
    let mut open = Vec::new();
    let mut refused = 0_u64;
    for number in 0..connections {
        let mut client = Client::over(connect(daemon, number));
        match client.call_or_end("session", "ping", json!({})) {
            Some(_) => open.push(client),
            None => refused += 1,
        }
    }
    let took = begun.elapsed();
    let assault = daemon.processor_time().saturating_sub(used);
    assert!(!open.is_empty() && refused > 200, "{refused} were refused");
    goes_on(&mut trusted);
    // Those that were let in wait for the end of their time to log in.
    let (begun, used) = (Instant::now(), daemon.processor_time());
    for client in &mut open {
        let line = client.next_value();
        assert_eq!(line["body"]["code"], "login_timeout", "{line}");
    }
    let (idle, waiting) = (
        begun.elapsed(),
        daemon.processor_time().saturating_sub(used),
    );
    println!(
        "{connections} connects in {took:?}, {refused} refused, {assault:?} of processor time; \
         {waiting:?} in the {idle:?} after"
    );
    assert!(waiting < idle / 2, "it spins");
    let freed = Instant::now();
    wait_until("a place", || {
        let mut client = Client::over(connect(daemon, 0));
        let answer = client.call_or_end("session", "ping", json!({}));
        refused += u64::from(answer.is_none());
        answer.is_some()
    });
    println!("served again after {:?}", freed.elapsed());
    let counters = info(&mut trusted)["counters"].take();
    let counted = counters["refused_max_connections"].as_u64().unwrap_or(0)
        + counters["refused_descriptors"].as_u64().unwrap_or(0);
    assert_eq!(counted, refused, "{counters}");
}

const FEW_DESCRIPTORS: &str = "[security]\nlogin_seconds = 2\n";

#[test]
fn a_daemon_with_few_descriptors_refuses_politely_and_does_not_spin() {
    raise_descriptors();
    let config = listeners("") + LIMITS + FEW_DESCRIPTORS;
    let daemon = Daemon::under(&["prlimit", "--nofile=64"], &config);
    besiege(&daemon, size(300, 1000));
}

#[test]
fn a_daemon_that_runs_out_of_descriptors_refuses_politely_and_does_not_spin() {
    raise_descriptors();
    let daemon = Daemon::with(&(listeners("") + LIMITS + FEW_DESCRIPTORS));
    // It counts on the limit of its start, and gets less.
    let limit = Rlimit {
        current: Some(40),
        maximum: Some(40),
    };
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Nofile, limit).expect("take descriptors away");
    besiege(&daemon, size(300, 1000));
    let counters = info(&mut daemon.client())["counters"].take();
    assert!(
        counters["refused_descriptors"].as_u64() > Some(0),
        "{counters}"
    );
}

/// Who tries to get in, and how often.
#[derive(Clone, Copy)]
struct Attack {
    connections: usize,
    addresses: usize,
    logins_each: usize,
    /// Between two logins of a connection.
    pause: Duration,
    /// Whether it ends when all of them were sent, answered or not.
    in_haste: bool,
}

/// Lays the attack, and gives how many of its logins were answered with which code.
async fn attack(address: SocketAddr, attack: Attack) -> BTreeMap<String, usize> {
    let mut connections = Vec::new();
    for number in 0..attack.connections {
        connections.push(tokio::spawn(async move {
            let network = u8::try_from(1 + number % attack.addresses).expect("an address");
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("an option");
            let source = SocketAddr::from(([127, 0, network, 1], 0));
            socket.bind(source).expect("an address");
            let stream = socket.connect(address).await.expect("connect");
            let (input, mut output) = stream.into_split();
            let sending = tokio::spawn(async move {
                let mut ticks = tokio::time::interval(attack.pause.max(Duration::from_nanos(1)));
                for attempt in 0..attack.logins_each {
                    ticks.tick().await;
                    // Every second one aims at a user that there is.
                    let login = match attempt % 2 {
                        0 => "ann".to_owned(),
                        _ => format!("stranger-{number}-{attempt}"),
                    };
                    let line = json!({"class": "chat", "subclass": "session", "cmd": "login",
                                      "data": {"login": login, "password": "a guess"}});
                    let line = format!("{line}\n");
                    output.write_all(line.as_bytes()).await.expect("send");
                }
                output
            });
            let mut codes = Vec::new();
            let mut lines = BufReader::new(input).lines();
            let receiving = async {
                for _ in 0..attack.logins_each {
                    let line = lines
                        .next_line()
                        .await
                        .expect("receive")
                        .expect("an answer");
                    codes.push(code_of(&line));
                }
            };
            if attack.in_haste {
                tokio::select! {
                    () = receiving => {}
                    output = sending => drop(output),
                }
            } else {
                receiving.await;
                drop(sending.await);
            }
            codes
        }));
    }
    let mut counts = BTreeMap::new();
    for connection in connections {
        for code in connection.await.expect("an attacker") {
            *counts.entry(code).or_default() += 1;
        }
    }
    counts
}

/// The code that a bad login was refused with.
fn code_of(line: &str) -> String {
    let answer: Value = serde_json::from_str(line).expect("JSON");
    let code = answer["data"]["code"].as_str().unwrap_or_default();
    if code == "rate_limited" {
        assert!(
            answer["data"]["retry_after_ms"].as_u64() > Some(0),
            "{line}"
        );
    } else {
        assert_eq!(code, "login_failed", "{line}");
    }
    code.to_owned()
}

/// Logs in from an address of its own, as long as it takes, and gives that time.
fn good_login(daemon: &Daemon, number: u8) -> Duration {
    let source = IpAddr::V4(Ipv4Addr::new(127, 1, number, 1));
    let begun = Instant::now();
    let mut client = Client::connect_from(source, daemon.address_of("login"));
    wait_until("a good login", || {
        let data = json!({"login": "ann", "password": "s3cret"});
        let answer = client.call("session", "login", data);
        assert_ne!(answer["data"]["code"], "login_failed", "{answer}");
        if let Some(wait_ms) = answer["data"]["retry_after_ms"].as_u64() {
            thread::park_timeout(Duration::from_millis(wait_ms));
        }
        answer["result"] == "ok"
    });
    begun.elapsed()
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Attacks while a user pings and others log in; prints how they fared.
fn storm(plan: Attack) {
    let cost = size(4, 12);
    let security = format!("[security]\nbcrypt_cost = {cost}\nlogin_seconds = 3600\n");
    let daemon = Daemon::with(&(listeners("") + LIMITS + &security));
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let mut user = Client::connect(daemon.address_of("login"));
    user.login("ann", "s3cret");
    println!("a login in peace: {:?}", good_login(&daemon, 201));
    let address: SocketAddr = daemon.address_of("login").parse().expect("an address");
    let attackers = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let begun = Instant::now();
        let counts = runtime.expect("a runtime").block_on(attack(address, plan));
        (counts, begun.elapsed())
    });
    let (mut pings, mut logins) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let good = scope.spawn(|| {
            let mut logins = vec![good_login(&daemon, 0)];
            while is_full() && !attackers.is_finished() && logins.len() < 100 {
                logins.push(good_login(
                    &daemon,
                    u8::try_from(logins.len()).expect("few"),
                ));
                thread::park_timeout(Duration::from_millis(100));
            }
            logins
        });
        while !attackers.is_finished() || pings.len() < 100 {
            let begun = Instant::now();
            goes_on(&mut user);
            pings.push(begun.elapsed());
            thread::park_timeout(Duration::from_millis(6));
        }
        logins = good.join().expect("good logins");
    });
    let (counts, took) = attackers.join().expect("the attackers");
    pings.sort_unstable();
    logins.sort_unstable();
    let sent = plan.connections * plan.logins_each;
    println!(
        "{sent} bad logins in {took:?} from {} addresses: {counts:?}; {} pings: median {:?}, p99 {:?}; \
         {} good logins: median {:?}, longest {:?}",
        plan.addresses,
        pings.len(),
        percentile(&pings, 50),
        percentile(&pings, 99),
        logins.len(),
        percentile(&logins, 50),
        percentile(&logins, 100),
    );
    assert!(counts.get("rate_limited") > Some(&(sent / 2)), "{counts:?}");
    // Nothing is locked for who comes from elsewhere.
    good_login(&daemon, 200);
    if !plan.in_haste {
        assert_eq!(counts.values().sum::<usize>(), sent);
        let counters = info(&mut trusted)["counters"].take();
        assert_eq!(
            counters["failed_logins"], counts["login_failed"],
            "{counters}"
        );
    }
}

#[test]
fn a_storm_of_bad_logins_from_few_addresses_holds_up_nobody() {
    raise_descriptors();
    storm(Attack {
        connections: size(40, 200),
        addresses: size(4, 20),
        logins_each: size(40, 100),
        pause: size(Duration::ZERO, Duration::from_millis(100)),
        in_haste: is_full(),
    });
}

#[test]
fn a_storm_of_bad_logins_from_many_addresses_holds_up_nobody() {
    raise_descriptors();
    storm(Attack {
        connections: size(60, 200),
        addresses: size(60, 200),
        logins_each: size(40, 100),
        pause: size(Duration::ZERO, Duration::from_millis(100)),
        in_haste: is_full(),
    });
}
