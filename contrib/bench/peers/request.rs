//! Requests that are answered one by one: messages that are stored, and pings. Each answer is looked at.

use crate::pool::{Pool, Work};
use crate::protocol::{Frame, Kind};
use crate::report::{self, Times};
use crate::{Outcome, Request};
use clap::ValueEnum;
use memchr::memmem;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Messages go to so many rooms.
const ROOMS: usize = 16;

/// What is asked for.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum What {
    /// A message is stored: `JetStream`'s publish, or XADD of Redis
    Store,
    /// PING of Redis
    Ping,
}

/// Runs it.
pub fn run(arguments: &Request) -> Outcome<Value> {
    let (kind, address) = (arguments.server.kind, arguments.server.address);
    if !matches!(
        (kind, arguments.what),
        (Kind::Nats, What::Store) | (Kind::Redis, _)
    ) {
        return Err("store is for nats and redis, ping for redis".into());
    }
    if arguments.pipeline == 0 || arguments.connections == 0 {
        return Err("at least one connection, and one request in flight".into());
    }
    if kind == Kind::Nats {
        Pool::open(kind, address, 1)?.drive(&mut Creation::default())?;
    }
    let mut pool = Pool::open(kind, address, arguments.connections)?;
    let began = Instant::now();
    let ending = began + Duration::from_secs_f64(arguments.seconds);
    let mut work = Requests {
        kind,
        what: arguments.what,
        lines: (0..arguments.connections)
            .map(|index| line(arguments, index))
            .collect(),
        pipeline: arguments.pipeline,
        ending_ns: u64::try_from((ending - pool.began()).as_nanos())?,
        ended: false,
        in_flight: vec![None; arguments.connections],
        missing: 0,
        answered: 0,
        times: Times::new()?,
    };
    pool.drive(&mut work)?;
    let took = began.elapsed();
    let (server, answered) = (&arguments.server, work.answered);
    let mut figures = report::figures("request", server, took, answered, Some(&work.times));
    figures["connections"] = json!(arguments.connections);
    figures["pipeline"] = json!(arguments.pipeline);
    figures["payload_bytes"] = json!(arguments.payload);
    Ok(figures)
}

/// What a connection sends again and again.
fn line(arguments: &Request, index: usize) -> Vec<u8> {
    let (room, payload) = (index % ROOMS, "x".repeat(arguments.payload));
    let bytes = arguments.payload;
    match (arguments.what, arguments.server.kind) {
        (What::Ping, _) => "*1\r\n$4\r\nPING\r\n".to_owned(),
        (What::Store, Kind::Redis) => format!(
            "*7\r\n$4\r\nXADD\r\n$7\r\nroom:{room:02}\r\n$1\r\n*\r\n$7\r\nuser_id\r\n$12\r\n000000000001\r\n$7\r\nmessage\r\n${bytes}\r\n{payload}\r\n"
        ),
        (What::Store, _) => format!("PUB chat.{room} answers.{index} {bytes}\r\n{payload}\r\n"),
    }
    .into_bytes()
}

/// Making a stream of `JetStream`'s, in files, of everything that is said in the rooms.
#[derive(Default)]
struct Creation {
    asked: bool,
    made: bool,
}

impl Work for Creation {
    fn frame(&mut self, _: usize, frame: Frame<'_>, _: u64) -> Outcome<()> {
        if let Frame::Delivery(answer) = frame {
            if memmem::find(answer, br#""error""#).is_some() {
                return Err(format!("no stream: {}", String::from_utf8_lossy(answer)).into());
            }
            self.made = true;
        }
        Ok(())
    }

    fn send(&mut self, _: usize, _: u64, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.asked, true) {
            let stream = r#"{"name":"chat","subjects":["chat.>"],"storage":"file","retention":"limits","num_replicas":1,"discard":"old","max_msgs":-1,"max_bytes":-1,"max_age":0,"max_consumers":-1}"#;
            let request = format!(
                "SUB made 1\r\nPUB $JS.API.STREAM.CREATE.chat made {}\r\n{stream}\r\n",
                stream.len()
            );
            out.extend_from_slice(request.as_bytes());
        }
    }

    fn is_complete(&self) -> bool {
        self.made
    }
}

struct Requests {
    kind: Kind,
    what: What,
    /// By connection, what it sends.
    lines: Vec<Vec<u8>>,
    pipeline: usize,
    ending_ns: u64,
    ended: bool,
    /// By connection, when those were sent that are not answered yet; nothing before the first.
    in_flight: Vec<Option<VecDeque<u64>>>,
    missing: usize,
    answered: usize,
    times: Times,
}

impl Requests {
    /// Whether a frame is the answer to a request; what cannot be one is an error.
    fn is_answer(&self, frame: &Frame<'_>) -> Outcome<bool> {
        match (frame, self.what) {
            (Frame::Line(b"+PONG"), What::Ping) => Ok(true),
            // The length of an id, and then the id: milliseconds, a dash, a number.
            (Frame::Line([b'$', ..]), What::Store) if self.kind == Kind::Redis => Ok(false),
            (Frame::Line(id @ [b'1'..=b'9', ..]), What::Store)
                if self.kind == Kind::Redis && id.contains(&b'-') =>
            {
                Ok(true)
            }
            (Frame::Delivery(answer), What::Store)
                if memmem::find(answer, br#""seq":"#).is_some() =>
            {
                Ok(true)
            }
            (Frame::Line(b"PING"), _) if self.kind == Kind::Nats => Ok(false),
            (frame, _) => Err(format!("not an answer: {frame:?}").into()),
        }
    }
}

impl Work for Requests {
    fn frame(&mut self, index: usize, frame: Frame<'_>, now_ns: u64) -> Outcome<()> {
        if self.is_answer(&frame)? {
            let sent_ns = self.in_flight[index]
                .as_mut()
                .and_then(VecDeque::pop_front)
                .ok_or("an answer too many")?;
            self.times.record(now_ns - sent_ns);
            self.missing -= 1;
            self.answered += 1;
        }
        Ok(())
    }

    fn send(&mut self, index: usize, now_ns: u64, out: &mut Vec<u8>) {
        self.ended |= now_ns >= self.ending_ns;
        let in_flight = self.in_flight[index].get_or_insert_with(|| {
            if self.kind == Kind::Nats {
                out.extend_from_slice(format!("SUB answers.{index} 1\r\n").as_bytes());
            }
            VecDeque::new()
        });
        let room = self.pipeline - in_flight.len();
        // Half of the requests in flight go at once, as a busy client's would.
        if !self.ended && room >= self.pipeline.div_ceil(2) {
            for _ in 0..room {
                out.extend_from_slice(&self.lines[index]);
            }
            in_flight.extend(std::iter::repeat_n(now_ns, room));
            self.missing += room;
        }
    }

    fn is_complete(&self) -> bool {
        self.ended && self.missing == 0
    }
}
