//! A small load generator: what a running chatd does in a second, and how long its answers take.
//!
//! `cargo run --release --example load -- SCENARIO --address 127.0.0.1:24283`. Every answer is counted; one that is
//! missing or not `ok` ends the run with an error.

use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::error::Error;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Puts load on a running chatd.
#[derive(Parser, Clone)]
struct Arguments {
    /// What to do
    scenario: Scenario,
    /// A trusted listener
    #[arg(long, default_value = "127.0.0.1:24283")]
    address: String,
    /// Connections at the same time
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests in flight on each
    #[arg(long, default_value_t = 16)]
    pipeline: usize,
    /// Requests in total
    #[arg(long, default_value_t = 200_000)]
    messages: usize,
    /// Bytes in a message
    #[arg(long, default_value_t = 200)]
    payload: usize,
}

#[derive(Clone, Copy, ValueEnum, PartialEq)]
enum Scenario {
    /// `session ping`.
    Ping,
    /// `message create`, over a quarter as many conversations as connections.
    Send,
    /// The newest page of 50: of a conversation with so many messages, and of one with 200, in turns.
    History,
    /// Deletes a conversation with so many messages while another connection pings and writes.
    Delete,
}

/// A connection, with what was sent on it and not yet answered.
struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    sent: VecDeque<Instant>,
    line: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: BufReader::with_capacity(64 * 1024, reader),
            writer,
            sent: VecDeque::new(),
            line: Vec::new(),
        })
    }

    async fn send(&mut self, lines: &[u8], count: usize) -> Outcome<()> {
        let now = Instant::now();
        self.sent.extend(std::iter::repeat_n(now, count));
        self.writer.write_all(lines).await?;
        Ok(())
    }

    async fn answer(&mut self) -> Outcome<Duration> {
        self.line.clear();
        self.reader.read_until(b'\n', &mut self.line).await?;
        if !self.line.starts_with(br#"{"result":"ok""#) {
            return Err(format!("not ok: {}", String::from_utf8_lossy(&self.line)).into());
        }
        Ok(self.sent.pop_front().ok_or("an answer too many")?.elapsed())
    }

    async fn call(&mut self, subclass: &str, cmd: &str, data: Value) -> Outcome<Value> {
        self.send(request(subclass, cmd, &data).as_bytes(), 1)
            .await?;
        self.answer().await?;
        Ok(serde_json::from_slice::<Value>(&self.line)?["data"].take())
    }

    /// Sends `lines`, `pipeline` in flight, until `count` are answered.
    async fn drive(
        &mut self,
        lines: &[String],
        count: usize,
        pipeline: usize,
    ) -> Outcome<Histogram<u64>> {
        let mut times = histogram()?;
        let (mut sent, mut answered, mut batch) = (0, 0, Vec::new());
        while answered < count {
            // Half of the requests in flight go at once, as a busy client's would.
            let more = (pipeline - (sent - answered)).min(count - sent);
            if more >= pipeline.div_ceil(2) || sent == answered {
                batch.clear();
                (sent..sent + more).for_each(|number| {
                    batch.extend_from_slice(lines[number % lines.len()].as_bytes());
                });
                self.send(&batch, more).await?;
                sent += more;
            }
            record(&mut times, self.answer().await?);
            answered += 1;
        }
        Ok(times)
    }
}

/// Latencies of up to an hour, in microseconds. The bounds are fixed: beyond them a value would be clamped.
fn histogram() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 3_600_000_000, 3)?)
}

fn record(times: &mut Histogram<u64>, time: Duration) {
    times.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

fn request(subclass: &str, cmd: &str, data: &Value) -> String {
    format!(
        "{{\"class\":\"chat\",\"subclass\":\"{subclass}\",\"cmd\":\"{cmd}\",\"data\":{data}}}\n"
    )
}

fn summary(what: &str, times: &Histogram<u64>, took: Duration) {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (rate, ms) = (times.len() as f64 / took.as_secs_f64(), |micros: u64| {
        micros as f64 / 1000.0
    });
    println!(
        "{what}: {} in {:.2} s, {rate:.0}/s, p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
        times.len(),
        took.as_secs_f64(),
        ms(times.value_at_quantile(0.5)),
        ms(times.value_at_quantile(0.99)),
        ms(times.max()),
    );
}

/// A user of this run's own.
async fn user(connection: &mut Connection) -> Outcome<String> {
    let login = format!("load-{}-{:?}", std::process::id(), Instant::now());
    let made = connection
        .call(
            "user",
            "create",
            json!({"login": login, "name": "Load", "password": "load"}),
        )
        .await?;
    Ok(made["user_id"].as_str().ok_or("no user_id")?.to_owned())
}

async fn conversation(connection: &mut Connection, user: &str) -> Outcome<String> {
    let made = connection
        .call(
            "conversation",
            "create",
            json!({"name": "load", "user_ids": [user]}),
        )
        .await?;
    Ok(made["conversation_id"]
        .as_str()
        .ok_or("no conversation_id")?
        .to_owned())
}

fn message(conversation: &str, user: &str, payload: usize) -> String {
    let data =
        json!({"conversation_id": conversation, "user_id": user, "message": "x".repeat(payload)});
    request("message", "create", &data)
}

/// The same lines on many connections at once.
async fn load(
    arguments: &Arguments,
    lines: Vec<String>,
    count: usize,
) -> Outcome<(Histogram<u64>, Duration)> {
    let share = count.div_ceil(arguments.connections);
    let mut tasks = Vec::new();
    let began = Instant::now();
    for number in 0..arguments.connections {
        let (address, pipeline, mut lines) =
            (arguments.address.clone(), arguments.pipeline, lines.clone());
        let first = number % lines.len();
        lines.rotate_left(first);
        tasks.push(tokio::spawn(async move {
            Connection::open(&address)
                .await?
                .drive(&lines, share, pipeline)
                .await
        }));
    }
    let mut times = histogram()?;
    for task in tasks {
        times.add(task.await??)?;
    }
    Ok((times, began.elapsed()))
}

async fn history(arguments: &Arguments, control: &mut Connection, user: &str) -> Outcome<()> {
    let mut pages = Vec::new();
    for count in [arguments.messages, 200] {
        let conversation = conversation(control, user).await?;
        load(
            arguments,
            vec![message(&conversation, user, arguments.payload)],
            count,
        )
        .await?;
        let filter = json!({"conversation_id": conversation});
        let data = json!({"filter": filter, "sort_order": "desc", "size": 50, "fields": "_all"});
        pages.push((count, request("message", "search", &data), histogram()?));
    }
    for _ in 0..2000 {
        for (_, line, times) in &mut pages {
            control.send(line.as_bytes(), 1).await?;
            record(times, control.answer().await?);
        }
    }
    for (count, _, times) in &pages {
        let ms = |quantile| Duration::from_micros(times.value_at_quantile(quantile));
        println!(
            "newest 50 of {count}: p50 {:?}, p99 {:?}",
            ms(0.5),
            ms(0.99)
        );
    }
    Ok(())
}

async fn delete(arguments: &Arguments, control: &mut Connection, user: &str) -> Outcome<()> {
    let (large, other) = (
        conversation(control, user).await?,
        conversation(control, user).await?,
    );
    load(
        arguments,
        vec![message(&large, user, arguments.payload)],
        arguments.messages,
    )
    .await?;
    let mut beside = Connection::open(&arguments.address).await?;
    let began = Instant::now();
    control
        .call("conversation", "delete", json!({"conversation_id": large}))
        .await?;
    println!("delete answered after {:?}", began.elapsed());
    let lines = [
        message(&other, user, arguments.payload),
        request("session", "ping", &json!({})),
    ];
    let mut times = histogram()?;
    while began.elapsed() < Duration::from_secs(10) {
        times.add(beside.drive(&lines, 100, 1).await?)?;
    }
    summary("beside the deletion", &times, began.elapsed());
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let mut control = Connection::open(&arguments.address).await?;
    if arguments.scenario == Scenario::Ping {
        let (times, took) = load(
            &arguments,
            vec![request("session", "ping", &json!({}))],
            arguments.messages,
        )
        .await?;
        summary("ping", &times, took);
        return Ok(());
    }
    let user = user(&mut control).await?;
    match arguments.scenario {
        Scenario::History => history(&arguments, &mut control, &user).await,
        Scenario::Delete => delete(&arguments, &mut control, &user).await,
        Scenario::Ping | Scenario::Send => {
            let mut lines = Vec::new();
            for _ in 0..(arguments.connections / 4).max(1) {
                lines.push(message(
                    &conversation(&mut control, &user).await?,
                    &user,
                    arguments.payload,
                ));
            }
            let (times, took) = load(&arguments, lines, arguments.messages).await?;
            summary("send", &times, took);
            Ok(())
        }
    }
}
