//! One sender, many subscribers: how many deliveries a second, and how long each takes.
//!
//! A message begins with its number and the time at which it was sent. Every subscriber must receive every number,
//! once and in order. The sender keeps at most so many messages under way, sent and not yet with all subscribers:
//! more would only fill the server's buffers, and some servers cut off those that fall behind.

use crate::pool::{Pool, Work};
use crate::protocol::{Frame, Kind, number};
use crate::report::{self, Times};
use crate::{Fanout, Outcome};
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};

const NUMBER_DIGITS: usize = 10;
const TIME_DIGITS: usize = 16;
/// Bytes of the shortest message: the number, a space, the time.
const PAYLOAD_MIN_BYTES: usize = NUMBER_DIGITS + 1 + TIME_DIGITS;

/// Runs it.
pub fn run(arguments: &Fanout) -> Outcome<Value> {
    let (kind, subscribers) = (arguments.server.kind, arguments.subscribers);
    if arguments.payload < PAYLOAD_MIN_BYTES || arguments.pipeline == 0 || subscribers == 0 {
        return Err(format!("--payload is at least {PAYLOAD_MIN_BYTES}, the others 1").into());
    }
    // The last connection sends. On IRC, only who is in the room may speak there.
    let mut pool = Pool::open(kind, arguments.server.address, subscribers + 1)?;
    pool.subscribe(if kind == Kind::Irc {
        subscribers + 1
    } else {
        subscribers
    })?;
    let (before, after) = kind.around(arguments.payload, &arguments.conversation_id);
    let began = Instant::now();
    let ending = began + Duration::from_secs_f64(arguments.seconds);
    let mut work = Room {
        answer: kind.sent(subscribers),
        before,
        after,
        filling: vec![b'x'; arguments.payload - PAYLOAD_MIN_BYTES],
        window: arguments.pipeline,
        ending_ns: u64::try_from((ending - pool.began()).as_nanos())?,
        ended: false,
        sent: 0,
        answers: 0,
        deliveries: 0,
        expected: vec![0; subscribers],
        times: Times::new()?,
    };
    pool.drive(&mut work)?;
    let took = began.elapsed();

    let deliveries = work.deliveries;
    let mut figures = report::figures(
        "fanout",
        &arguments.server,
        took,
        work.sent,
        Some(&work.times),
    );
    figures["connections"] = json!(subscribers);
    figures["pipeline"] = json!(arguments.pipeline);
    figures["payload_bytes"] = json!(arguments.payload);
    figures["events"] = json!(deliveries);
    figures["subscribers"] = json!(subscribers);
    figures["deliveries"] = json!(deliveries);
    figures["deliveries_per_second"] = report::per_second(deliveries, took);
    Ok(figures)
}

struct Room {
    /// What the server answers to each message, if it does.
    answer: Option<Vec<u8>>,
    before: Vec<u8>,
    after: &'static [u8],
    filling: Vec<u8>,
    window: usize,
    ending_ns: u64,
    ended: bool,
    sent: usize,
    /// Messages that were answered.
    answers: usize,
    deliveries: usize,
    /// By subscriber, the number of the message that comes next.
    expected: Vec<usize>,
    times: Times,
}

impl Work for Room {
    fn frame(&mut self, index: usize, frame: Frame<'_>, now_ns: u64) -> Outcome<()> {
        match (frame, self.expected.get_mut(index)) {
            (Frame::Delivery(payload), Some(expected)) => {
                let (digits, rest) = payload.split_at_checked(NUMBER_DIGITS).ok_or("cut short")?;
                let time = rest.get(1..=TIME_DIGITS).ok_or("cut short")?;
                let got = number(digits)?;
                if got != *expected {
                    let text = format!("subscriber {index} got message {got}, not {expected}");
                    return Err(text.into());
                }
                *expected += 1;
                self.deliveries += 1;
                self.times.record(now_ns - number(time)? as u64);
            }
            (Frame::Line(line), None) if self.answer.as_deref() == Some(line) => self.answers += 1,
            // On IRC, somebody joined; NATS looks whether somebody is there.
            (Frame::Line(_), _) if self.answer.is_none() => {}
            (frame, _) => return Err(format!("connection {index} got {frame:?}").into()),
        }
        Ok(())
    }

    fn send(&mut self, index: usize, now_ns: u64, out: &mut Vec<u8>) {
        let sender = self.expected.len();
        self.ended |= now_ns >= self.ending_ns;
        if index != sender || self.ended {
            return;
        }
        while self.sent * sender < self.deliveries + self.window * sender {
            out.extend_from_slice(&self.before);
            // Writing to memory cannot fail.
            let _ = write!(out, "{:0NUMBER_DIGITS$} {now_ns:0TIME_DIGITS$}", self.sent);
            out.extend_from_slice(&self.filling);
            out.extend_from_slice(self.after);
            self.sent += 1;
        }
    }

    fn gated(&self) -> Option<usize> {
        Some(self.expected.len())
    }

    fn is_complete(&self) -> bool {
        self.ended
            && self.deliveries == self.sent * self.expected.len()
            && (self.answer.is_none() || self.answers == self.sent)
    }
}
