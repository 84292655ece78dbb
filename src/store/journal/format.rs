//! Segment headers and records as bytes.

use crate::model::{Audience, Event, EventType, Id, Seq, Subclass, UserId};
use crate::store::keys;
use crate::store::state::Blob;
use crate::store::txn::Round;
use crate::wire::escape_separators;
use bytes::{Buf, BufMut, Bytes};

/// How a segment begins.
const MAGIC: &[u8; 8] = b"chatdjn1";
/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 48;
/// Bytes before a record's payload: length and check sum.
pub const FRAME_BYTES: usize = 8;
/// Bytes at the beginning of a payload that say which record it is.
pub const PREFIX_BYTES: usize = 28;
/// The length that stands for a removed key.
const REMOVED: u32 = u32::MAX;

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which log the segment belongs to.
    pub epoch: Id,
    /// The number of its first record.
    pub first_record: u64,
    /// The number of the first event that may be in it.
    pub first_seq: Seq,
    /// When it was begun, in milliseconds.
    pub time: u64,
}

/// What a record's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTime {
    /// The record's number.
    pub record: u64,
    /// The number of its first event, or of the next one if it has none.
    pub first_seq: Seq,
    /// How many events it has.
    pub events: u32,
    /// When it was decided, in milliseconds.
    pub time: u64,
}

/// Where the log goes on. Numbers are dense, so that a missing record is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The number of the next record.
    pub record: u64,
    /// The number of the next event.
    pub seq: Seq,
}

impl Next {
    /// Where a log begins.
    pub const FIRST: Self = Self { record: 1, seq: 1 };

    /// Where the log goes on behind a record, if that record is the next one.
    pub fn behind(self, at: &RoundTime) -> Option<Self> {
        let follows = at.record == self.record && at.first_seq == self.seq;
        let seq = self.seq.checked_add(u64::from(at.events))?;
        follows.then_some(Self {
            record: self.record + 1,
            seq,
        })
    }
}

/// A record, read.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// Which one it is.
    pub at: RoundTime,
    /// The keys that it sets or removes.
    pub changes: Vec<(Blob, Option<Blob>)>,
    /// Its events.
    pub events: Vec<Event>,
}

/// Bytes that are no record, although their check sum is right.
#[derive(Debug)]
pub struct FormatError;

impl Header {
    /// The first record and event that belong behind it.
    pub fn begins(&self) -> Next {
        Next {
            record: self.first_record,
            seq: self.first_seq,
        }
    }

    /// The CRC-32C of a segment that has nothing else.
    pub fn sum(&self) -> u32 {
        crc32c::crc32c(&self.encode())
    }

    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.put_slice(MAGIC);
        bytes.put_u64_le(self.epoch.0);
        bytes.put_u64_le(self.first_record);
        bytes.put_u64_le(self.first_seq);
        bytes.put_u64_le(self.time);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    /// The header in these bytes, if it is one.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
            return None;
        }
        let sum = crc32c::crc32c(&bytes[..40]);
        bytes.advance(MAGIC.len());
        let header = Self {
            epoch: Id(bytes.get_u64_le()),
            first_record: bytes.get_u64_le(),
            first_seq: bytes.get_u64_le(),
            time: bytes.get_u64_le(),
        };
        (bytes.get_u32_le() == sum).then_some(header)
    }
}

/// Appends a round as a record, its frame included.
pub fn encode_record(round: &Round, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.put_bytes(0, FRAME_BYTES);
    let first_seq = round
        .events
        .first()
        .map_or(round.head.seq + 1, |event| event.seq);
    buffer.put_u64_le(round.head.record);
    buffer.put_u64_le(first_seq);
    buffer.put_u32_le(length(round.events.len()));
    buffer.put_u64_le(round.head.time);
    buffer.put_u32_le(length(round.changes.len()));
    for (key, value) in &round.changes {
        put_bytes(buffer, key);
        match value {
            Some(value) => put_bytes(buffer, value),
            None => buffer.put_u32_le(REMOVED),
        }
    }
    for event in &round.events {
        buffer.put_u8(event.subclass.number());
        buffer.put_u8(event.kind.number());
        buffer.put_u64_le(event.object.0);
        put_users(buffer, &event.audience.added);
        put_users(buffer, &event.audience.removed);
        put_bytes(buffer, &event.line);
    }
    let payload = buffer.len() - start - FRAME_BYTES;
    let length_bytes = length(payload).to_le_bytes();
    let sum = check_sum(length_bytes, &buffer[start + FRAME_BYTES..]);
    buffer[start..start + 4].copy_from_slice(&length_bytes);
    buffer[start + 4..start + FRAME_BYTES].copy_from_slice(&sum.to_le_bytes());
}

/// The check sum of a record: over its length too, so that a wrong length cannot pass.
pub fn check_sum(length_bytes: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length_bytes), payload)
}

/// What the beginning of a payload says.
pub fn decode_prefix(mut bytes: &[u8]) -> Option<RoundTime> {
    if bytes.len() < PREFIX_BYTES {
        return None;
    }
    Some(RoundTime {
        record: bytes.get_u64_le(),
        first_seq: bytes.get_u64_le(),
        events: bytes.get_u32_le(),
        time: bytes.get_u64_le(),
    })
}

/// Reads a payload whose check sum was right.
pub fn decode_record(payload: &Bytes) -> Result<Record, FormatError> {
    let mut changes = Vec::new();
    let (at, events) = decode(payload, |key, value| {
        changes.push((
            Blob::from(key.as_ref()),
            value.map(|value| Blob::from(value.as_ref())),
        ));
    })?;
    Ok(Record {
        at,
        changes,
        events,
    })
}

/// Reads the events alone of a payload whose check sum was right.
pub fn decode_events(payload: &Bytes) -> Result<Vec<Event>, FormatError> {
    decode(payload, |_, _| {}).map(|(_, events)| events)
}

/// The number of the format in which a payload's rows are written, by its head's row, if that can be told.
pub fn row_format(payload: &Bytes) -> Option<u8> {
    let mut format = None;
    let _damage_is_told_when_it_is_read = decode(payload, |key, value| {
        if key == keys::HEAD {
            format = value.and_then(|row| row.first().copied());
        }
    });
    format
}

fn decode(
    payload: &Bytes,
    mut change: impl FnMut(Bytes, Option<Bytes>),
) -> Result<(RoundTime, Vec<Event>), FormatError> {
    let at = decode_prefix(payload).ok_or(FormatError)?;
    let mut rest = payload.slice(PREFIX_BYTES..);
    let count = rest.try_get_u32_le().map_err(|_| FormatError)?;
    for _ in 0..count {
        let key = take_bytes(&mut rest)?.ok_or(FormatError)?;
        change(key, take_bytes(&mut rest)?);
    }
    let mut events = Vec::new();
    for number in 0..u64::from(at.events) {
        let subclass = rest
            .try_get_u8()
            .ok()
            .and_then(Subclass::from_number)
            .ok_or(FormatError)?;
        let kind = rest
            .try_get_u8()
            .ok()
            .and_then(EventType::from_number)
            .ok_or(FormatError)?;
        let object = Id(rest.try_get_u64_le().map_err(|_| FormatError)?);
        let audience = Audience {
            added: take_users(&mut rest)?,
            removed: take_users(&mut rest)?,
        };
        // Journals of earlier versions hold separators as they were given.
        let line = escape_separators(take_bytes(&mut rest)?.ok_or(FormatError)?);
        events.push(Event {
            seq: at.first_seq + number,
            subclass,
            kind,
            object,
            audience,
            line,
        });
    }
    Ok((at, events))
}

fn length(bytes: usize) -> u32 {
    // Rounds are bounded far below this (limits.rs).
    u32::try_from(bytes).unwrap_or(REMOVED)
}

fn put_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.put_u32_le(length(bytes.len()));
    buffer.put_slice(bytes);
}

fn put_users(buffer: &mut Vec<u8>, users: &[UserId]) {
    buffer.put_u32_le(length(users.len()));
    for user in users {
        buffer.put_u64_le(user.0.0);
    }
}

fn take_bytes(rest: &mut Bytes) -> Result<Option<Bytes>, FormatError> {
    match rest.try_get_u32_le().map_err(|_| FormatError)? {
        REMOVED => Ok(None),
        length if length as usize <= rest.len() => Ok(Some(rest.split_to(length as usize))),
        _ => Err(FormatError),
    }
}

fn take_users(rest: &mut Bytes) -> Result<Vec<UserId>, FormatError> {
    let count = rest.try_get_u32_le().map_err(|_| FormatError)? as usize;
    if count.saturating_mul(8) > rest.len() {
        return Err(FormatError);
    }
    Ok((0..count).map(|_| UserId(Id(rest.get_u64_le()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::Head;

    #[test]
    fn an_event_of_an_older_journal_is_one_line_for_every_reader() {
        let line = "{\"body\":{\"message\":\"a\u{85}b\u{2028}c\u{2029}d\"}}\n";
        let event = Event {
            seq: 1,
            subclass: Subclass::Conversation,
            kind: EventType::CreatedMessage,
            object: Id(8),
            audience: Audience::default(),
            line: Bytes::from(line),
        };
        let round = Round {
            head: Head::default(),
            changes: Vec::new(),
            events: vec![event],
            deletes: false,
            largest_change: 0,
        };
        let mut buffer = Vec::new();
        encode_record(&round, &mut buffer);
        let payload = Bytes::from(buffer).slice(FRAME_BYTES..);
        let record = decode_record(&payload).unwrap();
        let expected = "{\"body\":{\"message\":\"a\\u0085b\\u2028c\\u2029d\"}}\n";
        assert_eq!(record.events[0].line, expected);
    }
}
