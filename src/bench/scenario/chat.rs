//! `mixed`: a chat day. Every connection is subscribed to its conversation, writes in it, reads its newest page, edits
//! what it wrote last, and lets somebody join and leave.
//!
//! Each change that was answered with `ok` must come as an event to every connection of its conversation, once.

use super::{Stage, text};
use crate::bench::Failure;
use crate::bench::connection::Pool;
use crate::bench::control::{message, request};
use crate::bench::driver::{Work, drive, excerpt};
use crate::bench::report::{Details, Kind, Report};
use memchr::memmem;
use serde_json::json;

/// The kinds of request.
const KINDS: [&str; 4] = ["message", "page", "edit", "join or leave"];
const MESSAGE: usize = 0;
const PAGE: usize = 1;
const EDIT: usize = 2;
const JOIN: usize = 3;
/// What a connection does, over and over: of 20 requests 13 messages, 4 pages, 2 edits, 1 join or leave.
const DAY: [usize; 20] = [
    MESSAGE, PAGE, MESSAGE, MESSAGE, MESSAGE, EDIT, MESSAGE, PAGE, MESSAGE, MESSAGE, MESSAGE, JOIN,
    PAGE, MESSAGE, MESSAGE, EDIT, MESSAGE, MESSAGE, PAGE, MESSAGE,
];
/// Connections in one conversation.
const ROOM: usize = 8;
/// What stands in a template for the id of the message that is edited.
const BLANK_ID: &str = "BLANK-MESSAGE-ID";

/// `mixed`.
pub fn run(stage: &mut Stage<'_>) -> Result<Report, Failure> {
    let connections = stage.plan.connections;
    // One user for each place in a room: who joins and leaves is nobody else's business in that room.
    let mut users = Vec::new();
    for _ in 0..=ROOM.min(connections) {
        users.push(stage.control.user()?);
    }
    let owner = users.pop().unwrap_or_default();
    let (mut seats, mut rooms) = (Vec::new(), Vec::new());
    for number in 0..connections {
        if number % ROOM == 0 {
            rooms.push(stage.control.conversation(&owner)?);
        }
        let (Some(room), Some(user)) = (rooms.last(), users.get(number % ROOM)) else {
            continue;
        };
        seats.push(Seat::new(number, room, user, stage.plan.payload_bytes));
    }
    let address = &stage.target.address;
    let mut pool = Pool::open(address, connections)?;
    stage.once(&mut pool, connections, "subscribing", &mut |number| {
        let room = rooms.get(number / ROOM);
        request("event", "subscribe", &json!({"obj_id": room}))
    })?;
    let mut work = Day {
        seats,
        changes: vec![0; rooms.len()],
    };
    let load = stage.load(connections, "");
    let mut outcome = drive(&mut pool, &mut work, &load, stage.progress)?;
    if outcome.problem.is_none()
        && let Some(text) = work.uneven()
    {
        outcome.errors += 1;
        outcome.problem = Some(text);
    }
    let kinds = Kind::list(&KINDS, &outcome.times);
    Report::new(stage.plan, address, outcome, Details::Kinds { kinds })
}

/// One connection.
struct Seat {
    lines: [Vec<u8>; 4],
    leave: Vec<u8>,
    /// Where the id of the message stands in the edit.
    id_place: usize,
    /// The id of the message that was written last.
    written: Vec<u8>,
    /// How many requests were made.
    made: usize,
    inside: bool,
    events: u64,
    seq: u64,
}

impl Seat {
    fn new(number: usize, room: &str, user: &str, payload_bytes: usize) -> Self {
        let filter = json!({"conversation_id": room});
        let page = json!({"filter": filter, "fields": "_all", "sort_order": "desc", "size": 50});
        let edit = json!({"conversation_id": room, "message_id": BLANK_ID, "message": text(number + 1, payload_bytes)});
        let edit = request("message", "update", &edit);
        let member = json!({"conversation_id": room, "user_ids": [user]});
        let lines = [
            message(room, user, &text(number, payload_bytes)),
            request("message", "search", &page),
            edit.replace(BLANK_ID, ""),
            request("conversation", "add_members", &member),
        ];
        Self {
            lines: lines.map(String::into_bytes),
            leave: request("conversation", "remove_members", &member).into_bytes(),
            id_place: edit.find(BLANK_ID).unwrap_or(0),
            written: Vec::new(),
            // So that not everybody does the same at the same time.
            made: number,
            inside: false,
            events: 0,
            seq: 0,
        }
    }
}

struct Day {
    seats: Vec<Seat>,
    /// Changes that were answered, by room.
    changes: Vec<u64>,
}

impl Day {
    /// The first connection that has not received exactly the changes of its room.
    fn uneven(&self) -> Option<String> {
        self.seats.iter().enumerate().find_map(|(number, seat)| {
            let changes = self.changes.get(number / ROOM).copied().unwrap_or(0);
            (seat.events != changes).then(|| {
                format!(
                    "connection {number} got {} events for {changes} changes",
                    seat.events
                )
            })
        })
    }
}

impl Work for Day {
    fn kinds(&self) -> usize {
        KINDS.len()
    }

    fn request(&mut self, connection: usize, _: u64, out: &mut Vec<u8>) -> Option<usize> {
        let seat = self.seats.get_mut(connection)?;
        let mut kind = DAY.get(seat.made % DAY.len()).copied()?;
        seat.made += 1;
        if kind == EDIT && seat.written.is_empty() {
            kind = MESSAGE;
        }
        let line = seat.lines.get(kind)?;
        match kind {
            EDIT => {
                let (before, after) = line.split_at_checked(seat.id_place)?;
                out.extend_from_slice(before);
                out.extend_from_slice(&seat.written);
                out.extend_from_slice(after);
            }
            JOIN => {
                out.extend_from_slice(if seat.inside { &seat.leave } else { line });
                seat.inside = !seat.inside;
            }
            _ => out.extend_from_slice(line),
        }
        Some(kind)
    }

    fn answer(&mut self, connection: usize, kind: usize, line: &[u8]) -> Result<(), String> {
        if kind != PAGE
            && let Some(changes) = self.changes.get_mut(connection / ROOM)
        {
            *changes += 1;
        }
        if kind == MESSAGE
            && let Some(seat) = self.seats.get_mut(connection)
        {
            let id = value(line, b"\"message_id\":\"")
                .ok_or_else(|| format!("an answer without message_id: {}", excerpt(line)))?;
            seat.written.clear();
            seat.written.extend_from_slice(id);
        }
        Ok(())
    }

    fn event(&mut self, connection: usize, line: &[u8], _: u64) -> Result<(), String> {
        let seq = value(line, b"\"seq\":")
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let (Some(seq), Some(seat)) = (seq, self.seats.get_mut(connection)) else {
            return Err(format!("an event without seq: {}", excerpt(line)));
        };
        let before = std::mem::replace(&mut seat.seq, seq);
        seat.events += 1;
        if seq <= before {
            return Err(format!(
                "connection {connection} got seq {seq} after {before}"
            ));
        }
        Ok(())
    }

    fn missing_events(&self) -> u64 {
        let all = self.seats.iter().enumerate().map(|(number, seat)| {
            let changes = self.changes.get(number / ROOM).copied().unwrap_or(0);
            changes.saturating_sub(seat.events)
        });
        all.sum()
    }
}

/// A field's value, to its end.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.get(memmem::find(line, name)? + name.len()..)?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b',' | b'}'))?;
    rest.get(..end)
}
