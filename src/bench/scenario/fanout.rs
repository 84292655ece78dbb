//! `fanout`: one connection sends, and every other one receives each message as an event.
//!
//! Each text holds the message's number and the time at which it was sent, so that an event can be checked and timed
//! without being parsed: at a million events a second there is less than a microsecond for each.

use super::Stage;
use crate::bench::Failure;
use crate::bench::connection::Pool;
use crate::bench::control::{message, request};
use crate::bench::driver::{Load, Work, drive, excerpt};
use crate::bench::report::{Details, Report, Times, merged, per_second, times};
use memchr::memmem::Finder;
use serde_json::json;

const NUMBER_DIGITS: usize = 10;
const TIME_DIGITS: usize = 16;
/// Bytes in the shortest text: the number, a space, the time.
pub const TEXT_MIN_BYTES: usize = NUMBER_DIGITS + 1 + TIME_DIGITS;
/// What stands in a text before its number is known.
const BLANK: &str = "0000000000 0000000000000000";

/// `fanout`.
pub fn run(stage: &mut Stage<'_>) -> Result<Report, Failure> {
    let subscribers = stage.plan.connections;
    let user = stage.control.user()?;
    let conversation = stage.control.conversation(&user)?;
    let address = &stage.target.address;
    let mut pool = Pool::open(address, subscribers + 1)?;
    let wanted =
        json!({"subclass": "conversation", "type": "created_message", "obj_id": conversation});
    let subscribe = request("event", "subscribe", &wanted);
    stage.once(&mut pool, subscribers, "subscribing", &mut |_| {
        subscribe.clone()
    })?;
    let rest = "x".repeat(stage.plan.payload_bytes - TEXT_MIN_BYTES);
    let line = message(&conversation, &user, &format!("{BLANK}{rest}"));
    let mut work = Fanout {
        place: line.find(BLANK).unwrap_or(0),
        line: line.into_bytes(),
        sent: 0,
        window: stage.plan.pipeline as u64,
        deliveries: 0,
        subscribers: vec![Subscriber::default(); subscribers],
        times: times()?,
        text: Field::new("\"message\":\""),
        seq: Field::new("\"seq\":"),
    };
    let load = Load {
        senders: subscribers..subscribers + 1,
        ..stage.load(1, "")
    };
    let outcome = drive(&mut pool, &mut work, &load, stage.progress)?;
    let mut all = merged([&work.times])?;
    for late in outcome.late.iter_recorded() {
        // What could not be sent in time is late for every subscriber.
        let count = late.count_at_value() * subscribers as u64;
        all.saturating_record_n(late.value_iterated_to(), count);
    }
    let details = Details::Fanout {
        subscribers,
        deliveries: work.deliveries,
        deliveries_per_second: per_second(work.deliveries, outcome.took),
    };
    Ok(Report::with_times(
        stage.plan, address, outcome, &all, details,
    ))
}

struct Fanout {
    line: Vec<u8>,
    /// Where the number stands in the line.
    place: usize,
    sent: u64,
    /// Messages that may be under way.
    window: u64,
    deliveries: u64,
    subscribers: Vec<Subscriber>,
    times: Times,
    text: Field,
    seq: Field,
}

/// How far a subscriber is.
#[derive(Clone, Copy, Default)]
struct Subscriber {
    /// The number of the message that comes next.
    next: u64,
    /// The number of the newest event.
    seq: u64,
}

/// Where a field's value begins in an event, which hardly changes from one event to the next.
struct Field {
    name: Finder<'static>,
    place: usize,
}

impl Field {
    fn new(name: &'static str) -> Self {
        Self {
            name: Finder::new(name),
            place: 0,
        }
    }

    /// What follows the field's name. In a string a quote is escaped, so no text can look like a name.
    fn find<'a>(&mut self, line: &'a [u8]) -> Option<&'a [u8]> {
        let found = line
            .get(self.place..)
            .is_some_and(|rest| rest.starts_with(self.name.needle()));
        if !found {
            self.place = self.name.find(line)?;
        }
        line.get(self.place + self.name.needle().len()..)
    }
}

impl Work for Fanout {
    fn gated(&self) -> bool {
        true
    }

    fn request(&mut self, _: usize, at_ns: u64, out: &mut Vec<u8>) -> Option<usize> {
        let subscribers = self.subscribers.len() as u64;
        if self.sent * subscribers >= self.deliveries + self.window * subscribers {
            return None;
        }
        let number = self.line.get_mut(self.place..self.place + NUMBER_DIGITS)?;
        write_digits(number, self.sent);
        let time = self.place + NUMBER_DIGITS + 1;
        write_digits(self.line.get_mut(time..time + TIME_DIGITS)?, at_ns);
        self.sent += 1;
        out.extend_from_slice(&self.line);
        Some(0)
    }

    fn event(&mut self, connection: usize, line: &[u8], now_ns: u64) -> Result<(), String> {
        let values = (|| {
            let text = self.text.find(line)?;
            let number = digits(text.get(..NUMBER_DIGITS)?)?;
            let time = digits(text.get(NUMBER_DIGITS + 1..TEXT_MIN_BYTES)?)?;
            let seq = digits(self.seq.find(line)?)?;
            Some((number, time, seq))
        })();
        let (Some((number, at_ns, seq)), Some(subscriber)) =
            (values, self.subscribers.get_mut(connection))
        else {
            return Err(format!("an event that nobody asked for: {}", excerpt(line)));
        };
        let (next, newest) = (subscriber.next, subscriber.seq);
        *subscriber = Subscriber {
            next: number + 1,
            seq,
        };
        if number >= next {
            // Whatever was lost before it, this one did arrive.
            self.deliveries += 1;
            self.times.saturating_record(now_ns.saturating_sub(at_ns));
        }
        if number != next || seq <= newest {
            return Err(format!(
                "subscriber {connection} got message {number} with seq {seq}, after message {} with seq {newest}",
                next.wrapping_sub(1).cast_signed()
            ));
        }
        Ok(())
    }

    fn missing_events(&self) -> u64 {
        let all = self.sent * self.subscribers.len() as u64;
        all.saturating_sub(self.deliveries)
    }
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

/// The number that begins here.
fn digits(text: &[u8]) -> Option<u64> {
    let mut number: Option<u64> = None;
    for digit in text.iter().take_while(|byte| byte.is_ascii_digit()) {
        number = Some(
            number
                .unwrap_or(0)
                .checked_mul(10)?
                .checked_add(u64::from(digit - b'0'))?,
        );
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fanout() -> Fanout {
        Fanout {
            line: format!("<{BLANK}>").into_bytes(),
            place: 1,
            sent: 0,
            window: 1,
            deliveries: 0,
            subscribers: vec![Subscriber::default(); 2],
            times: times().unwrap(),
            text: Field::new("\"message\":\""),
            seq: Field::new("\"seq\":"),
        }
    }

    fn event(number: u64, seq: u64) -> String {
        format!(
            "{{\"class\":\"chat\",\"body\":{{\"message\":\"{number:010} {:016}\"}},\"seq\":{seq}}}",
            5
        )
    }

    #[test]
    fn a_message_lost_doubled_or_out_of_order_is_wrong() {
        let mut work = fanout();
        let mut out = Vec::new();
        assert_eq!(work.request(2, 1_234, &mut out), Some(0));
        assert_eq!(out, b"<0000000000 0000000000001234>");
        assert_eq!(
            work.request(2, 1_234, &mut out),
            None,
            "one may be under way"
        );
        assert_eq!(work.missing_events(), 2);
        assert!(work.event(0, event(0, 9).as_bytes(), 7).is_ok());
        assert!(work.event(1, event(0, 9).as_bytes(), 7).is_ok());
        assert_eq!(work.missing_events(), 0);
        assert!(work.event(0, event(1, 11).as_bytes(), 7).is_ok());
        assert!(
            work.event(0, event(1, 11).as_bytes(), 7).is_err(),
            "doubled"
        );
        assert!(
            work.event(1, event(2, 12).as_bytes(), 7).is_err(),
            "one lost"
        );
        assert!(
            work.event(1, event(3, 12).as_bytes(), 7).is_err(),
            "seq must rise"
        );
        assert!(work.event(1, b"{\"class\":\"chat\"}", 7).is_err());
        assert_eq!(work.times.max(), 2);
    }
}
