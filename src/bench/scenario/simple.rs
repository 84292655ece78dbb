//! Requests of one kind, the same on every connection: `ping`, `send`, `login`.

use super::{Stage, text};
use crate::bench::Failure;
use crate::bench::connection::Pool;
use crate::bench::control::{PASSWORD, id, message, request};
use crate::bench::driver::{Work, drive, excerpt};
use crate::bench::report::{Details, Kind, Report};
use serde_json::json;

/// Lines that are sent in turns, and the answer that each must have, where it is known.
struct Lines {
    lines: Vec<String>,
    next: usize,
    answer: Option<Vec<u8>>,
}

impl Work for Lines {
    fn request(&mut self, _: usize, _: u64, out: &mut Vec<u8>) -> Option<usize> {
        out.extend_from_slice(self.lines.get(self.next)?.as_bytes());
        self.next += 1;
        if self.next == self.lines.len() {
            self.next = 0;
        }
        Some(0)
    }

    fn answer(&mut self, _: usize, _: usize, line: &[u8]) -> Result<(), String> {
        match &self.answer {
            Some(right) if line != right => Err(format!("a wrong answer: {}", excerpt(line))),
            _ => Ok(()),
        }
    }
}

/// `ping`.
pub fn ping(stage: &Stage<'_>) -> Result<Report, Failure> {
    let data = if stage.plan.payload_bytes == 0 {
        json!({})
    } else {
        json!({"text": text(0, stage.plan.payload_bytes)})
    };
    let mut work = Lines {
        lines: vec![request("session", "ping", &data)],
        next: 0,
        answer: Some(format!("{{\"result\":\"ok\",\"data\":{data}}}").into_bytes()),
    };
    run(stage, &mut work)
}

/// `send`.
pub fn send(stage: &mut Stage<'_>) -> Result<Report, Failure> {
    let user = stage.control.user()?;
    let mut lines = Vec::new();
    for number in 0..(stage.plan.connections / 4).max(1) {
        let conversation = stage.control.conversation(&user)?;
        let text = text(number, stage.plan.payload_bytes);
        lines.push(message(&conversation, &user, &text));
    }
    let mut work = Lines {
        lines,
        next: 0,
        answer: None,
    };
    run(stage, &mut work)
}

fn run(stage: &Stage<'_>, work: &mut Lines) -> Result<Report, Failure> {
    let address = &stage.target.address;
    let mut pool = Pool::open(address, stage.plan.connections)?;
    let load = stage.load(stage.plan.connections, "");
    let outcome = drive(&mut pool, work, &load, stage.progress)?;
    Report::new(stage.plan, address, outcome, Details::None {})
}

/// `login`: one user for every connection, again and again; a login replaces the session before it.
pub fn login(stage: &mut Stage<'_>) -> Result<Report, Failure> {
    let (mut passwords, mut tokens) = (Vec::new(), Vec::new());
    for number in 0..stage.plan.connections {
        let user = stage.control.user()?;
        let login = stage.control.login(number);
        let data = json!({"login": login, "password": PASSWORD});
        passwords.push(request("session", "login", &data));
        let made = stage.control.call(
            "session",
            "token_create",
            &json!({"name": "bench", "user_id": user}),
        )?;
        let data = json!({"token": id(&made, "token")?});
        tokens.push(request("session", "login", &data));
    }
    let mut total = None;
    for (what, lines) in [("passwords", passwords), ("tokens", tokens)] {
        let mut pool = Pool::open(&stage.target.login_address, stage.plan.connections)?;
        let mut load = stage.load(stage.plan.connections, what);
        load.until = crate::bench::driver::Until::Time(stage.plan.duration / 2);
        let outcome = drive(&mut pool, &mut Own(lines), &load, stage.progress)?;
        match &mut total {
            None => total = Some(outcome),
            Some(total) => total.add(outcome),
        }
    }
    let Some(outcome) = total else {
        return Err(Failure::run("there was nothing to do"));
    };
    let kinds = Kind::list(&["password", "token"], &outcome.times);
    let address = &stage.target.login_address;
    Report::new(stage.plan, address, outcome, Details::Kinds { kinds })
}

/// Each connection's own line.
struct Own(Vec<String>);

impl Work for Own {
    fn request(&mut self, connection: usize, _: u64, out: &mut Vec<u8>) -> Option<usize> {
        out.extend_from_slice(self.0.get(connection)?.as_bytes());
        Some(0)
    }
}
