//! Reading: `history` and `search`. Nothing is written meanwhile, so every answer must be the first one's equal.

use super::{Stage, text};
use crate::bench::Failure;
use crate::bench::connection::Pool;
use crate::bench::control::{id, request};
use crate::bench::driver::{Work, drive, excerpt};
use crate::bench::report::{Details, Kind, Page, Report};
use serde_json::{Value, json};

/// Rows in a page.
const PAGE: usize = 50;
/// Messages in the short conversation.
const SHORT: usize = 200;

/// Searches that are made in turns, with the answer of each.
struct Searches<const KINDS: usize> {
    lines: [String; KINDS],
    answers: [Vec<u8>; KINDS],
    /// The kind that each connection asks for next.
    next: Vec<usize>,
}

impl<const KINDS: usize> Work for Searches<KINDS> {
    fn kinds(&self) -> usize {
        KINDS
    }

    fn request(&mut self, connection: usize, _: u64, out: &mut Vec<u8>) -> Option<usize> {
        let next = self.next.get_mut(connection)?;
        let kind = *next;
        *next = (kind + 1) % KINDS;
        out.extend_from_slice(self.lines.get(kind)?.as_bytes());
        Some(kind)
    }

    fn answer(&mut self, _: usize, kind: usize, line: &[u8]) -> Result<(), String> {
        match self.answers.get_mut(kind) {
            Some(first) if first.is_empty() => first.extend_from_slice(line),
            Some(first) if first != line => {
                return Err(format!("another answer than before: {}", excerpt(line)));
            }
            _ => {}
        }
        Ok(())
    }
}

impl<const KINDS: usize> Searches<KINDS> {
    fn new(lines: [String; KINDS], connections: usize) -> Self {
        Self {
            lines,
            answers: std::array::from_fn(|_| Vec::new()),
            next: (0..connections).map(|number| number % KINDS).collect(),
        }
    }
}

/// `history`: if a page's cost grew with the conversation, it would show between the two.
pub fn history(stage: &mut Stage<'_>) -> Result<Report, Failure> {
    let user = stage.control.user()?;
    let mut lengths = [stage.plan.messages, SHORT];
    let mut lines = [String::new(), String::new()];
    for (length, line) in lengths.iter_mut().zip(&mut lines) {
        let conversation = stage.control.conversation(&user)?;
        stage.fill(&conversation, &user, *length, &mut |number| {
            text(number, stage.plan.payload_bytes)
        })?;
        let filter = json!({"conversation_id": conversation});
        let data = json!({"filter": filter, "fields": "_all", "sort_order": "desc", "size": PAGE});
        rows(&stage.control.call("message", "search", &data)?, *length)?;
        *line = request("message", "search", &data);
    }
    let address = &stage.target.address;
    let mut pool = Pool::open(address, stage.plan.connections)?;
    let mut work = Searches::new(lines, stage.plan.connections);
    let load = stage.load(stage.plan.connections, "");
    let outcome = drive(&mut pool, &mut work, &load, stage.progress)?;
    let page = |(&messages, times)| Page {
        messages,
        latency_us: std::convert::Into::into(times),
    };
    let pages = lengths.iter().zip(&outcome.times).map(page).collect();
    Report::new(stage.plan, address, outcome, Details::History { pages })
}

/// The kinds of `search`.
const SEARCHES: [&str; 5] = ["words", "prefix", "author", "time", "older page"];

/// `search`.
pub fn search(stage: &mut Stage<'_>) -> Result<Report, Failure> {
    let (user, other) = (stage.control.user()?, stage.control.user()?);
    let conversation = stage.control.conversation(&user)?;
    let half = stage.plan.messages / 2;
    for (author, first, count) in [(&user, 0, half), (&other, half, stage.plan.messages - half)] {
        stage.fill(&conversation, author, count, &mut |number| {
            text(first + number, stage.plan.payload_bytes)
        })?;
    }
    let search = |filter: Value| json!({"filter": filter, "fields": "_all", "sort_order": "desc", "size": PAGE});
    let all = search(json!({"conversation_id": conversation}));
    let newest = stage.control.call("message", "search", &all)?;
    let rows = rows(&newest, stage.plan.messages)?;
    let oldest_row = rows.last().cloned().unwrap_or_default();
    let (oldest, time) = (id(&oldest_row, "message_id")?, &oldest_row["created_time"]);
    let filters = [
        json!({"conversation_id": conversation, "message": {"match": "harbour willow"}}),
        json!({"conversation_id": conversation, "message": {"match": "est*"}}),
        json!({"conversation_id": conversation, "user_id": other}),
        json!({"conversation_id": conversation, "created_time": {"gte": time}}),
        json!({"conversation_id": conversation, "message_id": {"lt": oldest}}),
    ];
    let lines = filters.map(|filter| request("message", "search", &search(filter)));
    let address = &stage.target.address;
    let mut pool = Pool::open(address, stage.plan.connections)?;
    let mut work = Searches::new(lines, stage.plan.connections);
    let load = stage.load(stage.plan.connections, "");
    let outcome = drive(&mut pool, &mut work, &load, stage.progress)?;
    let kinds = Kind::list(&SEARCHES, &outcome.times);
    Report::new(stage.plan, address, outcome, Details::Kinds { kinds })
}

/// The rows of a first page, which must be those of a conversation of so many messages.
fn rows(answer: &Value, messages: usize) -> Result<&[Value], Failure> {
    let rows = answer["data"].as_array().map(Vec::as_slice);
    match rows {
        Some(rows) if answer["total"] == json!(messages) && rows.len() == messages.min(PAGE) => {
            Ok(rows)
        }
        _ => Err(Failure::Run(format!(
            "a page of a conversation of {messages} messages has {} rows, and a total of {}",
            rows.map_or(0, <[Value]>::len),
            answer["total"]
        ))),
    }
}
