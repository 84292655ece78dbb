//! Keeps many connections busy, or on a schedule, and counts what comes back.
//!
//! It knows three kinds of line, by how they begin: an answer of `ok`, an answer of `error`, and an event. What is in
//! them concerns the scenario alone.

use super::connection::{Pool, Sent};
use super::progress::Progress;
use super::report::{Times, merged, times};
use super::schedule::Schedule;
use super::{Failure, interrupt};
use std::ops::Range;
use std::time::{Duration, Instant};

/// How an answer of `ok` begins.
pub const OK: &[u8] = br#"{"result":"ok","#;
const ERROR: &[u8] = br#"{"result":"error","#;
const EVENT: &[u8] = br#"{"class":"chat","#;
/// How the line begins after which the server closes a connection.
const CLOSED: &[u8] = br#"{"class":"chat","subclass":"session","type":"closed""#;

/// How long the driver waits at most before it looks at the clock and for ctrl-c.
const LOOK: Duration = Duration::from_millis(50);
/// Characters of a line that are shown in an error.
const EXCERPT: usize = 300;

/// What a scenario sends, and what it makes of what comes.
pub trait Work {
    /// How many kinds of request it sends; their latencies are kept apart.
    fn kinds(&self) -> usize {
        1
    }

    /// Whether what comes on one connection can let another one send.
    fn gated(&self) -> bool {
        false
    }

    /// Appends a connection's next request and gives its kind; none, if it must wait for something to come.
    fn request(&mut self, connection: usize, at_ns: u64, out: &mut Vec<u8>) -> Option<usize>;

    /// Looks at an answer of `ok`.
    fn answer(&mut self, _connection: usize, _kind: usize, _line: &[u8]) -> Result<(), String> {
        Ok(())
    }

    /// Looks at an event.
    fn event(&mut self, _connection: usize, line: &[u8], _now_ns: u64) -> Result<(), String> {
        Err(format!("an event that nobody asked for: {}", excerpt(line)))
    }

    /// How many events are still to come once every request is answered.
    fn missing_events(&self) -> u64 {
        0
    }
}

/// How a scenario's requests are sent.
pub struct Load {
    /// The connections that send; the others only listen.
    pub senders: Range<usize>,
    /// Requests in flight on each.
    pub pipeline: usize,
    /// When no more are sent.
    pub until: Until,
    /// Requests a second, if they follow a schedule.
    pub rate: Option<f64>,
    /// How long nothing may come while something is awaited.
    pub timeout: Duration,
    /// What the progress bar says.
    pub what: &'static str,
}

/// When no more requests are sent.
#[derive(Clone, Copy)]
pub enum Until {
    /// After this time.
    Time(Duration),
    /// After so many.
    Count(u64),
}

/// What came of it.
pub struct Outcome {
    /// From the first request to the last answer or event.
    pub took: Duration,
    /// Answers, of whatever kind.
    pub answers: u64,
    /// Events.
    pub events: u64,
    /// Answers and events that were missing or wrong.
    pub errors: u64,
    /// The first of them, in words.
    pub problem: Option<String>,
    /// Requests of the schedule that could not be sent in its time.
    pub unsent: Option<u64>,
    /// How late those were by then.
    pub late: Times,
    /// Latencies by kind.
    pub times: Vec<Times>,
}

impl Outcome {
    /// The latencies of all kinds together, and of what was late.
    pub fn all_times(&self) -> Result<Times, Failure> {
        merged(self.times.iter().chain([&self.late]))
    }

    /// Adds what came of another stretch of the same work.
    pub fn add(&mut self, other: Self) {
        self.took += other.took;
        self.answers += other.answers;
        self.events += other.events;
        self.errors += other.errors;
        self.problem = self.problem.take().or(other.problem);
        self.unsent = self
            .unsent
            .or(other.unsent)
            .map(|_| self.unsent.unwrap_or(0) + other.unsent.unwrap_or(0));
        self.times.extend(other.times);
    }

    fn wrong(&mut self, count: u64, text: String) {
        self.errors += count;
        self.problem.get_or_insert(text);
    }
}

/// Sends a scenario's requests and takes in all that they bring.
pub fn drive(
    pool: &mut Pool,
    work: &mut dyn Work,
    load: &Load,
    progress: &Progress,
) -> Result<Outcome, Failure> {
    let mut all = Vec::new();
    for _ in 0..work.kinds() {
        all.push(times()?);
    }
    for connection in pool
        .connections
        .get_mut(load.senders.clone())
        .into_iter()
        .flatten()
    {
        connection.in_flight.reserve(load.pipeline);
    }
    let length = match load.until {
        Until::Time(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        Until::Count(count) => count,
    };
    progress.begin(load.what, length);
    Drive {
        schedule: load
            .rate
            .map(|rate| Schedule::new(load.senders.len(), rate)),
        began: Instant::now(),
        heard_ns: 0,
        moved_ns: 0,
        issued: 0,
        in_flight: 0,
        issuing: true,
        out: Vec::new(),
        outcome: Outcome {
            took: Duration::ZERO,
            answers: 0,
            events: 0,
            errors: 0,
            problem: None,
            unsent: None,
            late: times()?,
            times: all,
        },
        pool,
        work,
        load,
        progress,
    }
    .run()
}

/// The beginning of a line, for an error.
pub fn excerpt(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    let mut characters = text.chars();
    let mut shown: String = characters.by_ref().take(EXCERPT).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

struct Drive<'a> {
    pool: &'a mut Pool,
    work: &'a mut dyn Work,
    load: &'a Load,
    progress: &'a Progress,
    schedule: Option<Schedule>,
    began: Instant,
    /// When anything came last.
    heard_ns: u64,
    /// When anything came or went last.
    moved_ns: u64,
    issued: u64,
    in_flight: u64,
    /// More requests are to be sent.
    issuing: bool,
    out: Vec<u8>,
    outcome: Outcome,
}

impl Drive<'_> {
    fn run(mut self) -> Result<Outcome, Failure> {
        if self.schedule.is_none() {
            for sender in self.load.senders.clone() {
                self.fill(sender)?;
            }
        }
        let gated = self.work.gated();
        let mut looked = Instant::now();
        loop {
            self.follow_schedule()?;
            let time = self.time_to_wait();
            let ready = self.pool.wait(time, self.schedule.is_some())?;
            for number in 0..ready {
                self.serve(number)?;
            }
            if gated {
                for sender in self.load.senders.clone() {
                    self.fill(sender)?;
                }
            }
            let now = self.now_ns();
            self.end_in_time(now)?;
            if !self.issuing && (self.is_complete() || self.is_silent(now)) {
                break;
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                interrupt::check()?;
                self.tell(now);
                if self.is_silent(now) {
                    break;
                }
            }
        }
        self.outcome.took = Duration::from_nanos(self.heard_ns);
        let missing = self.in_flight + self.work.missing_events();
        if missing > 0 {
            let text = format!(
                "{} answers and {} events missing after {:?} in which nothing came",
                self.in_flight,
                self.work.missing_events(),
                self.load.timeout
            );
            self.outcome.wrong(missing, text);
        }
        Ok(self.outcome)
    }

    /// Reads from and writes to the `number`th connection that is ready.
    fn serve(&mut self, number: usize) -> Result<(), Failure> {
        let Some(ready) = self.pool.ready(number) else {
            return Ok(());
        };
        if ready.writable {
            self.pool.flush(ready.index)?;
        }
        if !ready.readable {
            return Ok(());
        }
        let Some((input, end)) = self.pool.read(ready.index)? else {
            return Err(Failure::Run(format!(
                "the server closed a connection while {} answers were awaited on all",
                self.in_flight
            )));
        };
        let now = self.now_ns();
        let mut rest = 0;
        let lines = input.get(..end).unwrap_or_default();
        for place in memchr::memchr_iter(b'\n', lines) {
            self.take(ready.index, lines.get(rest..place).unwrap_or_default(), now)?;
            rest = place + 1;
        }
        self.pool.give_back(input);
        if end > 0 {
            (self.heard_ns, self.moved_ns) = (now, now);
            if self.load.senders.contains(&ready.index) {
                self.fill(ready.index)?;
            }
        }
        Ok(())
    }

    /// Takes one line.
    fn take(&mut self, index: usize, line: &[u8], now_ns: u64) -> Result<(), Failure> {
        let looked = if line.starts_with(OK) {
            match self.answered(index) {
                Some(sent) => {
                    if let Some(times) = self.outcome.times.get_mut(sent.kind) {
                        times.saturating_record(now_ns.saturating_sub(sent.at_ns));
                    }
                    self.work.answer(index, sent.kind, line)
                }
                None => Err(format!("an answer too many: {}", excerpt(line))),
            }
        } else if line.starts_with(ERROR) {
            self.answered(index);
            Err(excerpt(line))
        } else if line.starts_with(CLOSED) {
            return Err(Failure::Run(format!(
                "the server closes a connection: {}",
                excerpt(line)
            )));
        } else if line.starts_with(EVENT) {
            self.outcome.events += 1;
            self.work.event(index, line, now_ns)
        } else {
            Err(format!("neither an answer nor an event: {}", excerpt(line)))
        };
        if let Err(text) = looked {
            self.outcome.wrong(1, text);
        }
        Ok(())
    }

    fn answered(&mut self, index: usize) -> Option<Sent> {
        let sent = self
            .pool
            .connections
            .get_mut(index)?
            .in_flight
            .pop_front()?;
        self.in_flight -= 1;
        self.outcome.answers += 1;
        Some(sent)
    }

    /// Sends what a connection may send now, in one write.
    fn fill(&mut self, index: usize) -> Result<(), Failure> {
        let now = self.now_ns();
        self.end_in_time(now)?;
        let Some(connection) = self.pool.connections.get_mut(index) else {
            return Ok(());
        };
        let room = self
            .load
            .pipeline
            .saturating_sub(connection.in_flight.len());
        // A busy client sends what has gathered: half of what may be in flight goes at once.
        if !self.issuing || (self.schedule.is_none() && room < self.load.pipeline.div_ceil(2)) {
            return Ok(());
        }
        let sender = index - self.load.senders.start;
        self.out.clear();
        for _ in 0..room {
            let at_ns = self
                .schedule
                .as_ref()
                .map_or(now, |schedule| schedule.next_of_ns(sender));
            if at_ns > now {
                break;
            }
            let Some(kind) = self.work.request(index, at_ns, &mut self.out) else {
                break;
            };
            connection.in_flight.push_back(Sent { at_ns, kind });
            self.in_flight += 1;
            self.issued += 1;
            if let Some(schedule) = &mut self.schedule {
                schedule.sent(sender);
            }
            if matches!(self.load.until, Until::Count(count) if self.issued >= count) {
                self.issuing = false;
                break;
            }
        }
        if self.out.is_empty() {
            return Ok(());
        }
        self.moved_ns = now;
        let out = std::mem::take(&mut self.out);
        self.pool.send(index, &out)?;
        self.out = out;
        Ok(())
    }

    /// Lets every connection send whose next request of the schedule is due.
    fn follow_schedule(&mut self) -> Result<(), Failure> {
        let now = self.now_ns();
        while self.issuing
            && let Some(sender) = self.schedule.as_mut().and_then(|all| all.become_due(now))
        {
            self.fill(self.load.senders.start + sender)?;
        }
        Ok(())
    }

    /// Ends the sending when its time is over. What the schedule wanted sent by then, and could not be, counts with
    /// the time that it had waited: to leave it out would hide the worst.
    fn end_in_time(&mut self, now_ns: u64) -> Result<(), Failure> {
        let Until::Time(time) = self.load.until else {
            return Ok(());
        };
        let end_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if !self.issuing || now_ns < end_ns {
            return Ok(());
        }
        self.issuing = false;
        if let Some(schedule) = &mut self.schedule {
            let mut unsent = 0;
            for sender in 0..self.load.senders.len() {
                while let Some(due_ns) = schedule.overdue(sender, end_ns) {
                    self.outcome
                        .late
                        .saturating_record(now_ns.saturating_sub(due_ns));
                    unsent += 1;
                }
                interrupt::check()?;
            }
            self.outcome.unsent = Some(unsent);
        }
        Ok(())
    }

    fn time_to_wait(&self) -> Duration {
        let mut time = LOOK;
        if let (Until::Time(all), true) = (self.load.until, self.issuing) {
            time = time.min(all.saturating_sub(self.began.elapsed()));
        }
        if let (Some(schedule), true) = (&self.schedule, self.issuing) {
            let due = Duration::from_nanos(schedule.next_ns());
            time = time.min(due.saturating_sub(self.began.elapsed()));
        }
        time
    }

    fn is_complete(&self) -> bool {
        self.in_flight == 0 && self.work.missing_events() == 0
    }

    /// Whether nothing came for so long that what is awaited will not.
    fn is_silent(&self, now_ns: u64) -> bool {
        let waiting = !self.is_complete();
        waiting && Duration::from_nanos(now_ns.saturating_sub(self.moved_ns)) >= self.load.timeout
    }

    fn tell(&self, now_ns: u64) {
        self.progress.at(match self.load.until {
            Until::Time(_) => now_ns / 1_000_000,
            Until::Count(_) => self.outcome.answers,
        });
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
