//! Floods of one user over many connections. What they cost it owes, and honest users beside it do not notice.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chatd::limits::{BURST_SECONDS, CHANGES_UNDER_WAY_MAX};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use super::{is_full, listeners, percentile, raise_descriptors, size};
use crate::harness::{Client, Daemon};

/// Connections of the user that floods, each from an address of its own.
const CONNECTIONS: u8 = 20;
/// Within this, 99 of 100 requests of honest users are answered.
const P99: Duration = Duration::from_millis(50);

/// What is sent again and again.
struct Flood {
    limits: String,
    subclass: &'static str,
    cmd: &'static str,
    /// What it costs of a rate, and that rate.
    cost: usize,
    per_second: usize,
}

/// A scene: users, and conversations of theirs.
struct Scene {
    daemon: Daemon,
    runtime: Runtime,
    /// Of the one who floods.
    user: String,
    conversation: String,
    /// Of the honest ones.
    tea: String,
}

/// How a flood is answered.
#[derive(Default)]
struct Answers {
    ok: AtomicUsize,
    refused: AtomicUsize,
}

fn line(subclass: &str, cmd: &str, data: &Value) -> String {
    let request = json!({"class": "chat", "subclass": subclass, "cmd": cmd, "data": data});
    format!("{request}\n")
}

async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    let source = SocketAddr::from((Ipv4Addr::from(from), 0));
    socket.bind(source).expect("an address");
    socket.connect(to).await.expect("connect")
}

/// Sends a request, and reads its answer.
async fn ask(stream: &mut BufReader<TcpStream>, request: &str) {
    stream
        .write_all(request.as_bytes())
        .await
        .expect("send a request");
    let mut answer = String::new();
    stream.read_line(&mut answer).await.expect("an answer");
    assert!(is_ok(&answer), "{answer}");
}

fn is_ok(answer: &str) -> bool {
    answer.contains(r#""result":"ok""#)
}

impl Scene {
    fn of(limits: &str) -> Self {
        raise_descriptors();
        let more = format!(
            "{}[limits]\nmax_connections = 1000\nmax_connections_trusted = 18000\n{limits}\n[security]\nbcrypt_cost = 4\n",
            listeners("")
        );
        let daemon = Daemon::with(&more);
        let mut trusted = daemon.client();
        let [user, honest] = ["ann", "bob"].map(|login| trusted.create_user(login));
        let conversation = trusted.create_conversation("all", &[&user]);
        let tea = trusted.create_conversation("tea", &[&honest]);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        Self {
            daemon,
            runtime,
            user,
            conversation,
            tea,
        }
    }

    /// Has a crowd follow the conversation, and read what it is given.
    fn gather(&self, crowd: usize) {
        let to: SocketAddr = self.daemon.address().parse().expect("an address");
        let request = line("event", "subscribe", &json!({"obj_id": self.conversation}));
        self.runtime.block_on(async {
            for number in 0..crowd {
                let network = u8::try_from(number / 1000).expect("an address");
                let stream = connect([127, 2, network, 1], to).await;
                let mut stream = BufReader::new(stream);
                ask(&mut stream, &request).await;
                tokio::spawn(async move {
                    let mut stream = stream.into_inner();
                    let mut bytes = [0; 4096];
                    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                });
            }
        });
    }

    /// Floods, and counts what is done and what is refused.
    fn flood(&self, flood: &Flood, data: &Value) -> Arc<Answers> {
        let answers = Arc::new(Answers::default());
        let to = self.daemon.address_of("login");
        let to: SocketAddr = to.parse().expect("an address");
        let login = json!({"login": "ann", "password": "s3cret"});
        let login = line("session", "login", &login);
        let lines = line(flood.subclass, flood.cmd, data);
        for number in 1..=CONNECTIONS {
            let (login, lines) = (login.clone(), lines.clone());
            let answers = Arc::clone(&answers);
            self.runtime.spawn(async move {
                let stream = connect([127, 3, number, 1], to).await;
                let mut stream = BufReader::new(stream);
                ask(&mut stream, &login).await;
                let (input, mut output) = stream.into_inner().into_split();
                tokio::spawn(
                    async move { while output.write_all(lines.as_bytes()).await.is_ok() {} },
                );
                let mut input = BufReader::new(input).lines();
                while let Ok(Some(answer)) = input.next_line().await {
                    let count = if is_ok(&answer) {
                        &answers.ok
                    } else {
                        &answers.refused
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        answers
    }

    /// The times in which requests of an honest user are answered, sorted.
    fn honest(&self, subclass: &str, cmd: &str, data: &Value, requests: usize) -> Vec<Duration> {
        let mut client = Client::connect(self.daemon.address_of("login"));
        client.login("bob", "s3cret");
        let mut times: Vec<Duration> = (0..requests)
            .map(|_| {
                thread::park_timeout(Duration::from_millis(15));
                let begun = Instant::now();
                client.ok(subclass, cmd, data.clone());
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        times
    }

    /// Floods while honest users send and ping; asserts that it cost what it may, and that they noticed nothing.
    fn endure(self, flood: &Flood, data: &Value) {
        let requests = size(60, 1000);
        let begun = Instant::now();
        let answers = self.flood(flood, data);
        let message = json!({"conversation_id": self.tea, "message": "hello"});
        let (sends, pings) = thread::scope(|scope| {
            let sends = scope.spawn(|| self.honest("message", "create", &message, requests));
            let pings = self.honest("session", "ping", &json!({}), requests);
            (sends.join().expect("honest sends"), pings)
        });
        let answered = answers.ok.load(Ordering::Relaxed);
        let took = begun.elapsed();
        println!(
            "{} {}: {answered} in {took:?} over {CONNECTIONS} connections; others' sends: median {:?}, p99 {:?}, longest {:?}; \
             pings: median {:?}, p99 {:?}, longest {:?}",
            flood.subclass,
            flood.cmd,
            percentile(&sends, 50),
            percentile(&sends, 99),
            percentile(&sends, 100),
            percentile(&pings, 50),
            percentile(&pings, 99),
            percentile(&pings, 100),
        );
        let seconds = u64::from(BURST_SECONDS) + took.as_secs() + 1;
        let paid = flood.per_second * usize::try_from(seconds).expect("few") / flood.cost;
        // Each connection, and each change under way, may go beyond it once.
        let most = paid + usize::from(CONNECTIONS) + CHANGES_UNDER_WAY_MAX as usize;
        assert!((1..=most).contains(&answered), "{answered} of {most}");
        assert_eq!(answers.refused.load(Ordering::Relaxed), 0);
        if is_full() {
            for times in [&sends, &pings] {
                let p99 = percentile(times, 99);
                assert!(p99 < P99, "{p99:?}");
            }
        }
        self.runtime.shutdown_background();
    }
}

/// One line costs as many deliveries as there are in the crowd.
fn flood_a_crowd(subclass: &'static str, cmd: &'static str, data: impl Fn(&str) -> Value) {
    let (crowd, per_second) = size((100, 2000), (10_000, 200_000));
    let flood = Flood {
        limits: format!("deliveries_per_second = {per_second}"),
        subclass,
        cmd,
        cost: crowd,
        per_second,
    };
    let scene = Scene::of(&flood.limits);
    scene.gather(crowd);
    let data = data(&scene.conversation);
    scene.endure(&flood, &data);
}

#[test]
fn a_flood_of_sends_to_a_crowd_holds_up_nobody() {
    flood_a_crowd(
        "event",
        "send",
        |conversation| json!({"obj_id": conversation, "type": "typing"}),
    );
}

#[test]
fn a_flood_of_messages_to_a_crowd_holds_up_nobody() {
    flood_a_crowd(
        "message",
        "create",
        |conversation| json!({"conversation_id": conversation, "message": "hello"}),
    );
}

#[test]
fn a_flood_of_conversations_with_all_users_holds_up_nobody() {
    let (users, per_second) = size((50, 100), (1000, 400));
    let flood = Flood {
        limits: format!("requests_per_second_per_user = {per_second}"),
        subclass: "conversation",
        cmd: "create",
        cost: users,
        per_second,
    };
    let scene = Scene::of(&flood.limits);
    let mut trusted = scene.daemon.client();
    let others = (1..users).map(|number| trusted.create_user(&format!("user{number}")));
    let mut ids: Vec<String> = others.collect();
    ids.push(scene.user.clone());
    scene.endure(&flood, &json!({"name": "all", "user_ids": ids}));
}
