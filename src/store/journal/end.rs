//! Where a journal ends, and how that is noted.

use super::format::Next;
use crate::model::Seq;
use std::fmt;

/// Where a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The number of its last record.
    pub record: u64,
    /// The number of its last event.
    pub seq: Seq,
    /// Its last segment, by the number of its first record; 0 if there is none.
    pub segment: u64,
    /// Bytes of that segment that are whole records.
    pub bytes: u64,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            record,
            seq,
            segment,
            bytes,
        } = self;
        write!(
            f,
            "record {record} seq {seq} segment {segment} bytes {bytes}"
        )
    }
}

impl End {
    /// The end that a text of [`End`]'s own tells of.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [
            "record",
            record,
            "seq",
            seq,
            "segment",
            segment,
            "bytes",
            bytes,
        ] = words[..]
        else {
            return None;
        };
        Some(Self {
            record: record.parse().ok()?,
            seq: seq.parse().ok()?,
            segment: segment.parse().ok()?,
            bytes: bytes.parse().ok()?,
        })
    }

    /// Where it goes on.
    #[must_use]
    pub fn next(&self) -> Next {
        Next {
            record: self.record + 1,
            seq: self.seq + 1,
        }
    }
}
