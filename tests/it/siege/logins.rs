//! Attackers with small means at the queue for passwords: one account with many addresses, or one network. Who is honest
//! gets in beside them, and soon.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{LIMITS, is_full, percentile, size};
use crate::harness::{Client, Daemon};

/// Connections of attackers: more than may wait for the threads.
const ATTACKERS: usize = 100;
/// Passwords of attackers that are hashed while one honest login waits, on average and at most. What is under way when it
/// asks is not stopped, and somebody may be as modest as it is.
const OTHERS_FIRST: usize = 10;
/// A proxy that says for whom its connections come.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

/// What the attackers see of the siege, and what is seen of them.
#[derive(Default)]
struct Siege {
    over: AtomicBool,
    /// Passwords that were hashed for them.
    hashed: AtomicUsize,
    refused: AtomicUsize,
    /// Tells addresses apart.
    next: AtomicUsize,
}

impl Siege {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Counts an answer, and waits as it says.
    fn note(&self, answer: &Value) {
        let code = &answer["data"]["code"];
        let of = if code.is_null() || code == "login_failed" {
            &self.hashed
        } else {
            &self.refused
        };
        of.fetch_add(1, Ordering::Relaxed);
        if let Some(wait_ms) = answer["data"]["retry_after_ms"].as_u64() {
            thread::park_timeout(Duration::from_millis(wait_ms.min(500)));
        }
    }
}

fn daemon() -> Daemon {
    // Long enough that some wait, however fast the machine is.
    let cost = size(10, 12);
    Daemon::with(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\ntrusted_proxies = [\"{PROXY}\"]\n\
         {LIMITS}[security]\nbcrypt_cost = {cost}\nlogin_seconds = 3600\n"
    ))
}

fn from(daemon: &Daemon, address: [u8; 4]) -> Client {
    let source = IpAddr::V4(Ipv4Addr::from(address));
    Client::connect_from(source, daemon.address_of("login"))
}

/// The address of an honest user.
fn home(number: u8) -> [u8; 4] {
    [127, 2, number, 1]
}

fn honest(number: u8) -> Value {
    json!({"login": format!("honest-{number}"), "password": "s3cret"})
}

/// Has attackers do their work on many threads while honest users log in, half of whom did before: all get in, at most one
/// in ten is told to come back, and none waits for all the others.
fn holds(name: &str, attack: impl Fn(&Daemon, &Siege) + Sync) {
    let users = size(10, 30);
    let daemon = daemon();
    let mut trusted = daemon.client();
    for number in 0..users {
        trusted.create_user(&format!("honest-{number}"));
    }
    trusted.create_user("eve");
    let known = users / 2;
    for number in 0..known {
        from(&daemon, home(number)).ok("session", "login", honest(number));
    }
    let siege = Siege::default();
    let mut waited = Vec::new();
    let (mut asked, mut refused, mut others) = (0, 0, 0);
    thread::scope(|scope| {
        for _ in 0..ATTACKERS {
            scope.spawn(|| {
                while siege.goes_on() {
                    attack(&daemon, &siege);
                }
            });
        }
        let done = || siege.hashed.load(Ordering::Relaxed) + siege.refused.load(Ordering::Relaxed);
        let begun = Instant::now();
        while done() < ATTACKERS && begun.elapsed() < crate::harness::PATIENCE {
            thread::park_timeout(Duration::from_millis(5));
        }
        let logins = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..users {
                let mut client = from(&daemon, home(number));
                let (begun, before) = (Instant::now(), siege.hashed.load(Ordering::Relaxed));
                loop {
                    asked += 1;
                    let answer = client.call("session", "login", honest(number));
                    if answer["result"] == "ok" {
                        break;
                    }
                    assert_eq!(answer["data"]["code"], "rate_limited", "{answer}");
                    refused += 1;
                    let wait_ms = answer["data"]["retry_after_ms"].as_u64();
                    thread::park_timeout(Duration::from_millis(wait_ms.expect("a time")));
                }
                waited.push(begun.elapsed());
                others += siege.hashed.load(Ordering::Relaxed) - before;
            }
        }));
        siege.over.store(true, Ordering::Relaxed);
        if let Err(panic) = logins {
            std::panic::resume_unwind(panic);
        }
    });
    waited.sort_unstable();
    println!(
        "{name}: {users} honest logins, {asked} times asked, {refused} told to come back, median {:?}, longest {:?}; \
         {others} passwords of attackers were hashed meanwhile; of all theirs {:?} hashed, {:?} refused",
        percentile(&waited, 50),
        percentile(&waited, 100),
        siege.hashed,
        siege.refused,
    );
    assert!(refused * 10 <= asked, "{refused} of {asked} were refused");
    let most = OTHERS_FIRST * usize::from(users);
    assert!(others <= most, "{others} of others came first");
    if is_full() {
        let slow = waited.iter().filter(|&&time| time > Duration::from_secs(3));
        let slow = slow.count();
        assert!(slow * 10 <= waited.len(), "{slow} took longer than 3 s");
    }
}

#[test]
fn one_account_that_logs_in_from_many_addresses_keeps_no_honest_login_out() {
    holds("one account, six addresses", |daemon, siege| {
        let number = siege.next.fetch_add(1, Ordering::Relaxed);
        let network = u8::try_from(number % 6).expect("few");
        let mut client = from(daemon, [127, 3, network, 1]);
        let data = json!({"login": "eve", "password": "s3cret"});
        while siege.goes_on() {
            siege.note(&client.call("session", "login", data.clone()));
        }
    });
}

#[test]
fn a_network_of_addresses_that_never_failed_keeps_no_honest_login_out() {
    holds("a network of 48 bits", |daemon, siege| {
        let number = siege.next.fetch_add(1, Ordering::Relaxed);
        let mut client = from(daemon, PROXY.octets());
        let header = format!("PROXY TCP6 2001:db8:0:{number:x}::1 ::1 4711 24285\r\n");
        client.send_bytes(header.as_bytes());
        for attempt in 0..3 {
            let login = match attempt {
                0 => "honest-0".to_owned(),
                _ => format!("nobody-{number}-{attempt}"),
            };
            let data = json!({"login": login, "password": "a guess"});
            siege.note(&client.call("session", "login", data));
        }
    });
}

#[test]
fn updates_of_somebody_elses_password_keep_no_honest_login_out() {
    holds("updates of another's password", |daemon, siege| {
        let mut trusted = daemon.client();
        let find = json!({"filter": {"login": ["eve", "honest-0"]}, "sort_by": "login"});
        let found = trusted.ok("user", "search", find)["data"].take();
        let named = json!({"name": "t", "user_id": found[0]["user_id"]});
        let token = trusted.call("session", "token_create", named)["data"]["token"].take();
        if token.is_null() {
            // One user has no more than a hundred.
            return;
        }
        let mut client = from(daemon, [127, 3, 1, 1]);
        client.ok("session", "login", json!({"token": token}));
        let change = json!({"user_id": found[1]["user_id"], "password": "somebody else's"});
        while siege.goes_on() {
            let answer = client.call("user", "update", change.clone());
            assert_ne!(answer["result"], "ok", "{answer}");
            siege.note(&answer);
        }
    });
}
