//! The records of one segment's file, one after the other.

use super::Damage;
use super::format::{
    FRAME_BYTES, HEADER_BYTES, Next, PREFIX_BYTES, RoundTime, check_sum, decode_prefix,
};
use crate::limits::RECORD_MAX_BYTES;
use crate::store::data_dir::Directory;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 256 * 1024;

/// The records of a segment. It begins behind the header.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
    end: u64,
}

/// What stands at a place of a segment.
#[derive(Debug)]
pub enum Step {
    /// A whole record, the one that was to come next.
    Record(Whole),
    /// The file ends where a record would begin.
    End,
    /// What stands here is no whole record, or another one.
    Broken,
}

/// A record whose sum and numbers are right.
#[derive(Debug)]
pub struct Whole {
    /// Where it begins.
    pub offset: u64,
    /// What it says of itself.
    pub at: RoundTime,
    /// What comes behind it.
    pub next: Next,
    /// It without its frame.
    pub payload: Bytes,
    /// Its frame.
    pub frame: [u8; FRAME_BYTES],
}

impl Whole {
    /// A sum over a file up to this record, and over the record.
    pub fn add_to(&self, sum: u32) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(sum, &self.frame), &self.payload)
    }
}

/// What stands at a place, by its first bytes alone.
pub enum Skim {
    /// A record that says this of itself. Its sum was not looked at.
    Record(RoundTime),
    /// The file ends here.
    End,
    /// This is no record.
    Broken,
}

impl Records {
    /// Opens a segment whose whole records end at byte `end`, or at the end of the file.
    pub fn open(directory: &Directory, name: &str, end: Option<u64>) -> Result<Self, Damage> {
        let path = directory.join(name);
        let cannot =
            |error: io::Error| Damage(format!("{} cannot be read: {error}", path.display()));
        let file = directory.open(name).map_err(cannot)?;
        let length = file.metadata().map_err(cannot)?.len();
        if let Some(end) = end
            && length < end
        {
            return Err(Damage(format!(
                "{} ends at byte {length}, and has had {end}",
                path.display()
            )));
        }
        let mut records = Self {
            end: end.unwrap_or(length),
            file: BufReader::with_capacity(BUFFER_BYTES, file),
            offset: HEADER_BYTES as u64,
            path,
        };
        records.go_to(HEADER_BYTES as u64)?;
        Ok(records)
    }

    /// Where its file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next record is looked for.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where the file ends, or its whole records.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Goes to where a record begins.
    pub fn go_to(&mut self, offset: u64) -> Result<(), Damage> {
        self.offset = offset;
        let moved = self.seek_to(offset);
        moved.map_err(|error| self.failed(&error))
    }

    /// Damage at the place where the next record is looked for.
    pub fn damaged(&self, next: Next) -> Damage {
        Damage(format!(
            "{} is damaged at byte {}: record {} cannot be read",
            self.path.display(),
            self.offset,
            next.record
        ))
    }

    /// A record whose sum is right, and that cannot be read.
    pub fn unknown(&self, whole: &Whole) -> Damage {
        Damage(format!(
            "{} has a record of an unknown format at byte {}: record {}",
            self.path.display(),
            whole.offset,
            whole.at.record
        ))
    }

    /// Reads the record that is to come next. Behind one, it is at the one after it.
    pub fn read(&mut self, next: Next) -> Result<Step, Damage> {
        if self.offset >= self.end {
            return Ok(Step::End);
        }
        self.try_read(next).map_err(|error| self.failed(&error))
    }

    /// Passes the record at this place by its length. Behind one, it is at the one after it.
    pub fn skim(&mut self) -> Result<Skim, Damage> {
        if self.offset >= self.end {
            return Ok(Skim::End);
        }
        self.try_skim().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Damage {
        Damage(format!(
            "{} cannot be read at byte {}: {error}",
            self.path.display(),
            self.offset
        ))
    }

    fn try_read(&mut self, next: Next) -> io::Result<Step> {
        self.seek_to(self.offset)?;
        let Some((frame, length)) = self.read_frame()? else {
            return Ok(Step::Broken);
        };
        let mut payload = vec![0; length];
        self.file.read_exact(&mut payload)?;
        let (length_bytes, sum) = split_frame(frame);
        let at = decode_prefix(&payload).filter(|_| check_sum(length_bytes, &payload) == sum);
        let Some((at, next)) = at.and_then(|at| Some((at, next.behind(&at)?))) else {
            return Ok(Step::Broken);
        };
        let offset = self.offset;
        self.offset += (FRAME_BYTES + length) as u64;
        Ok(Step::Record(Whole {
            offset,
            at,
            next,
            payload: payload.into(),
            frame,
        }))
    }

    fn try_skim(&mut self) -> io::Result<Skim> {
        self.seek_to(self.offset)?;
        let Some((_, length)) = self.read_frame()? else {
            return Ok(Skim::Broken);
        };
        let mut prefix = [0; PREFIX_BYTES];
        self.file.read_exact(&mut prefix)?;
        self.offset += (FRAME_BYTES + length) as u64;
        Ok(decode_prefix(&prefix).map_or(Skim::Broken, Skim::Record))
    }

    /// Reads a frame, and the length of its payload, if that can be right.
    fn read_frame(&mut self) -> io::Result<Option<([u8; FRAME_BYTES], usize)>> {
        let left = self.end - self.offset;
        if left < (FRAME_BYTES + PREFIX_BYTES) as u64 {
            return Ok(None);
        }
        let mut frame = [0; FRAME_BYTES];
        self.file.read_exact(&mut frame)?;
        let length = u32::from_le_bytes(split_frame(frame).0) as usize;
        let possible = (PREFIX_BYTES..=RECORD_MAX_BYTES).contains(&length)
            && (FRAME_BYTES + length) as u64 <= left;
        Ok(possible.then_some((frame, length)))
    }

    /// Moves within the buffer where possible.
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        let now = self.file.stream_position()?;
        let distance =
            i64::try_from(offset).unwrap_or(i64::MAX) - i64::try_from(now).unwrap_or(i64::MAX);
        self.file.seek_relative(distance)
    }

    /// The first whole record behind a place, of this number or a later one. Where there is one, what stands at the place
    /// was not torn by a crash.
    pub fn find_behind(
        &mut self,
        offset: u64,
        record: u64,
    ) -> Result<Option<(u64, RoundTime)>, Damage> {
        let rest = self.rest(offset).map_err(|error| self.failed(&error))?;
        for start in 1..rest.len().saturating_sub(FRAME_BYTES + PREFIX_BYTES) {
            if let Some(at) = whole_record(&rest[start..], record) {
                return Ok(Some((offset + start as u64, at)));
            }
        }
        Ok(None)
    }

    /// Whether what stands at a place is the beginning of the record that was to come next, and the file ends within it:
    /// then it was never written to its end.
    pub fn is_unfinished(&mut self, offset: u64, next: Next) -> Result<bool, Damage> {
        let rest = self.rest(offset).map_err(|error| self.failed(&error))?;
        let Some((frame, payload)) = rest.split_first_chunk::<FRAME_BYTES>() else {
            return Ok(true);
        };
        let (length_bytes, sum) = split_frame(*frame);
        let length = u32::from_le_bytes(length_bytes) as usize;
        if !(payload.len() + 1..=RECORD_MAX_BYTES).contains(&length) {
            return Ok(false);
        }
        // With a damaged length, a record that is whole seems to be cut.
        let real_length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let whole = check_sum(real_length.to_le_bytes(), payload) == sum;
        let is_next = decode_prefix(payload).is_none_or(|at| next.behind(&at).is_some());
        Ok(is_next && !whole)
    }

    /// What stands behind a place, to the end.
    pub fn rest(&mut self, offset: u64) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(offset))?;
        let mut rest = Vec::new();
        let left = self.end.saturating_sub(offset);
        self.file.by_ref().take(left).read_to_end(&mut rest)?;
        Ok(rest)
    }
}

/// What the record at the beginning of these bytes says of itself, if it is a whole one of this number or a later one.
fn whole_record(bytes: &[u8], record: u64) -> Option<RoundTime> {
    let (frame, behind) = bytes.split_first_chunk::<FRAME_BYTES>()?;
    let (length_bytes, sum) = split_frame(*frame);
    let length = u32::from_le_bytes(length_bytes) as usize;
    let payload = behind.get(..length)?;
    // The number comes first: a sum over what may be much is only taken where it can be right.
    let at = decode_prefix(payload)
        .filter(|at| (record..record.saturating_add(1 << 32)).contains(&at.record))?;
    (check_sum(length_bytes, payload) == sum).then_some(at)
}

fn split_frame(frame: [u8; FRAME_BYTES]) -> ([u8; 4], u32) {
    let (length, sum) = frame.split_at(4);
    let four = |bytes: &[u8]| bytes.try_into().unwrap_or_default();
    (four(length), u32::from_le_bytes(four(sum)))
}
