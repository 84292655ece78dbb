//! Reading the journal: checking and replaying it at start, and fetching stored events while it grows.

use super::format::{
    FRAME_BYTES, HEADER_BYTES, Header, PREFIX_BYTES, Record, RoundTime, check_sum, decode_prefix,
    decode_record,
};
use crate::limits::RECORD_MAX_BYTES;
use crate::model::{Event, Id, Seq};
use crate::store::data_dir::Directory;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const ENDING: &str = "journal";
const BUFFER_BYTES: usize = 256 * 1024;

/// The journal as it can be read: everything that is on stable storage, and no more.
#[derive(Debug)]
pub struct JournalReader {
    directory: Directory,
    epoch: Id,
    state: Mutex<Extent>,
}

/// How far the journal goes.
#[derive(Clone, Debug, Default)]
struct Extent {
    segments: Vec<Header>,
    /// Bytes of the last segment that are whole records.
    length: u64,
    next_record: u64,
    seq: Seq,
    /// Where the oldest event that is kept begins.
    oldest: Option<Place>,
}

/// The end of the journal, for its writer.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The last segment, by its first record.
    pub segment: Option<u64>,
    /// Bytes of it that are whole records.
    pub length: u64,
    /// The number of the next record.
    pub next_record: u64,
}

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    segment: u64,
    offset: u64,
    first_seq: Seq,
}

/// A journal that cannot be trusted: what is wrong, and where.
#[derive(Debug)]
pub struct Damage(pub String);

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Self(format!("the journal cannot be read: {error}"))
    }
}

/// The name of a segment's file.
pub fn segment_name(first_record: u64) -> String {
    format!("{first_record:020}.{ENDING}")
}

impl JournalReader {
    /// Opens the journal in a directory, or an empty one with a new epoch.
    ///
    /// Every record from `from_record` on is checked and handed to `replay`; the last segment is always checked whole.
    /// What a crash left of a last record is cut off by the writer; a damaged record anywhere else is an error.
    pub fn open(
        directory: Directory,
        from_record: u64,
        new_epoch: Id,
        mut replay: impl FnMut(Record) -> Result<(), Damage>,
    ) -> Result<Self, Damage> {
        let segments = find_segments(&directory)?;
        let mut extent = Extent {
            next_record: 1,
            ..Extent::default()
        };
        let epoch = segments.first().map_or(new_epoch, |header| header.epoch);
        for (index, header) in segments.iter().enumerate() {
            let last = index + 1 == segments.len();
            let name = segment_name(header.first_record);
            let path = directory.join(&name);
            if header.epoch != epoch {
                return Err(Damage(format!(
                    "{} belongs to another journal",
                    path.display()
                )));
            }
            let next = segments.get(index + 1).map(|next| next.first_record);
            if !last && next.is_some_and(|next| next <= from_record) {
                continue;
            }
            let mut expected = header.first_record;
            let mut records = Records::open(&directory, &name, HEADER_BYTES as u64, u64::MAX)?;
            extent.seq = header.first_seq - 1;
            loop {
                match records.next_payload()? {
                    Step::End => break,
                    // What the state has applied was whole once: then it is damage, not the trace of a crash.
                    Step::Broken
                        if last
                            && expected >= from_record
                            && !records.anything_valid_behind(expected)? =>
                    {
                        tracing::warn!(
                            path = %path.display(), offset = records.offset,
                            "the last record of the journal is torn, as after a crash; it was never acknowledged and is cut off"
                        );
                        break;
                    }
                    Step::Broken => {
                        return Err(Damage(format!(
                            "{} is damaged at byte {}: record {expected} cannot be read, and it was whole once; \
                             restore the file from a backup",
                            path.display(),
                            records.offset
                        )));
                    }
                    Step::Payload(payload) => {
                        let at = decode_prefix(&payload)
                            .filter(|at| at.record == expected)
                            .ok_or_else(|| {
                                Damage(format!(
                                    "{} is out of order at byte {}: record {expected} is missing",
                                    path.display(),
                                    records.offset
                                ))
                            })?;
                        if expected >= from_record {
                            let record = decode_record(&payload).map_err(|_| {
                                Damage(format!(
                                    "{}: record {expected} is of an unknown format",
                                    path.display()
                                ))
                            })?;
                            replay(record)?;
                        }
                        extent.seq = at.first_seq + u64::from(at.events) - 1;
                        expected += 1;
                        records.advance(payload.len());
                    }
                }
            }
            if let Some(next) = next
                && next != expected
            {
                return Err(Damage(format!(
                    "{} ends before record {next}: records are missing",
                    path.display()
                )));
            }
            extent.next_record = expected;
            extent.length = records.offset;
        }
        extent.segments = segments;
        Ok(Self {
            directory,
            epoch,
            state: Mutex::new(extent),
        })
    }

    /// Where the journal is.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Which log the journal is.
    #[must_use]
    pub fn epoch(&self) -> Id {
        self.epoch
    }

    /// The end of the journal.
    #[must_use]
    pub fn end(&self) -> End {
        let extent = self.lock();
        End {
            segment: extent.segments.last().map(|header| header.first_record),
            length: extent.length,
            next_record: extent.next_record,
        }
    }

    pub(super) fn add_segment(&self, header: Header) {
        let mut extent = self.lock();
        extent.segments.push(header);
        extent.length = HEADER_BYTES as u64;
    }

    pub(super) fn publish(&self, length: u64, next_record: u64, seq: Seq) {
        let mut extent = self.lock();
        extent.length = length;
        extent.next_record = next_record;
        extent.seq = seq;
    }

    fn lock(&self) -> MutexGuard<'_, Extent> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the oldest event whose round is not older than `since_ms`; one above the newest if there is none.
    pub fn oldest(&self, since_ms: u64) -> Result<Seq, Damage> {
        let extent = self.lock().clone();
        let Some(first) = extent.segments.first() else {
            return Ok(extent.seq + 1);
        };
        // The last segment begun before the bound may still hold records from after it.
        let begun = extent
            .segments
            .partition_point(|header| header.time < since_ms)
            .saturating_sub(1);
        let header = extent.segments.get(begun).unwrap_or(first);
        let mut place = Place {
            segment: header.first_record,
            offset: HEADER_BYTES as u64,
            first_seq: header.first_seq,
        };
        if let Some(known) = extent.oldest
            && known.segment >= place.segment
        {
            place = known;
        }
        let mut walk = Walk::at(&extent, place);
        while let Some(mut records) = walk.open(&self.directory)? {
            while let Some((at, payload_bytes)) = records.next_prefix()? {
                if at.time >= since_ms {
                    let found = Place {
                        segment: walk.segment,
                        offset: records.offset,
                        first_seq: at.first_seq,
                    };
                    self.lock().oldest = Some(found);
                    return Ok(at.first_seq);
                }
                records.skip(payload_bytes);
            }
            walk.next(records.offset);
        }
        self.lock().oldest = Some(walk.place(extent.seq + 1));
        Ok(extent.seq + 1)
    }

    /// Stored events after `after`, up to about `max_bytes`, and the place to go on from.
    ///
    /// `hint` is the place that an earlier call gave; without it the record is looked for.
    pub fn events_after(
        &self,
        after: Seq,
        hint: Option<Place>,
        max_bytes: usize,
    ) -> Result<(Vec<Event>, Option<Place>), Damage> {
        let extent = self.lock().clone();
        let mut found = Vec::new();
        if after >= extent.seq {
            return Ok((found, hint));
        }
        let place = hint
            .filter(|place| place.first_seq <= after + 1)
            .or_else(|| {
                let begun = extent
                    .segments
                    .partition_point(|header| header.first_seq <= after + 1)
                    .saturating_sub(1);
                let header = extent.segments.get(begun)?;
                Some(Place {
                    segment: header.first_record,
                    offset: HEADER_BYTES as u64,
                    first_seq: header.first_seq,
                })
            });
        let Some(place) = place else {
            return Ok((found, None));
        };
        let mut walk = Walk::at(&extent, place);
        let mut bytes = 0;
        while let Some(mut records) = walk.open(&self.directory)? {
            while let Some((at, payload_bytes)) = records.next_prefix()? {
                if at.first_seq + u64::from(at.events) <= after + 1 {
                    records.skip(payload_bytes);
                    continue;
                }
                if bytes >= max_bytes {
                    let next = Place {
                        segment: walk.segment,
                        offset: records.offset,
                        first_seq: at.first_seq,
                    };
                    return Ok((found, Some(next)));
                }
                let Step::Payload(payload) = records.read_payload()? else {
                    return Err(Damage(format!(
                        "{} is damaged at byte {}",
                        records.path.display(),
                        records.offset
                    )));
                };
                let record = decode_record(&payload)
                    .map_err(|_| Damage("a record is of an unknown format".into()))?;
                records.advance(payload.len());
                bytes += payload.len();
                found.extend(
                    record
                        .events
                        .into_iter()
                        .filter(|event| event.seq > after && event.seq <= extent.seq),
                );
            }
            walk.next(records.offset);
        }
        let next = found.last().map_or(after + 1, |event| event.seq + 1);
        Ok((found, Some(walk.place(next))))
    }
}

/// A walk over the segments from a place to the end.
struct Walk<'a> {
    extent: &'a Extent,
    index: usize,
    segment: u64,
    offset: u64,
    past_end: bool,
}

impl<'a> Walk<'a> {
    fn at(extent: &'a Extent, place: Place) -> Self {
        let index = extent
            .segments
            .partition_point(|header| header.first_record < place.segment);
        Self {
            extent,
            index,
            segment: place.segment,
            offset: place.offset,
            past_end: false,
        }
    }

    fn open(&self, directory: &Directory) -> Result<Option<Records>, Damage> {
        if self.past_end || self.index >= self.extent.segments.len() {
            return Ok(None);
        }
        let last = self.index + 1 == self.extent.segments.len();
        let end = if last { self.extent.length } else { u64::MAX };
        Ok(Some(Records::open(
            directory,
            &segment_name(self.segment),
            self.offset,
            end,
        )?))
    }

    fn next(&mut self, offset: u64) {
        if let Some(header) = self.extent.segments.get(self.index + 1) {
            self.index += 1;
            self.segment = header.first_record;
            self.offset = HEADER_BYTES as u64;
        } else {
            self.offset = offset;
            self.past_end = true;
        }
    }

    fn place(&self, first_seq: Seq) -> Place {
        Place {
            segment: self.segment,
            offset: self.offset,
            first_seq,
        }
    }
}

enum Step {
    Payload(Bytes),
    /// The file ends where a record would begin.
    End,
    /// What stands here is no whole record.
    Broken,
}

/// The records of one segment, one after the other.
struct Records {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
    end: u64,
}

impl Records {
    fn open(directory: &Directory, name: &str, offset: u64, end: u64) -> Result<Self, Damage> {
        let path = directory.join(name);
        let file = directory
            .open(name)
            .map_err(|error| Damage(format!("{} cannot be read: {error}", path.display())))?;
        let end = end.min(file.metadata()?.len());
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self {
            path,
            file,
            offset,
            end,
        })
    }

    /// Reads the record at the current offset; the offset moves with [`Records::advance`].
    fn next_payload(&mut self) -> Result<Step, Damage> {
        if self.offset >= self.end {
            return Ok(Step::End);
        }
        self.read_payload()
    }

    fn read_payload(&mut self) -> Result<Step, Damage> {
        self.file.seek_relative(0)?;
        let left = self.end - self.offset;
        if left < (FRAME_BYTES + PREFIX_BYTES) as u64 {
            return Ok(Step::Broken);
        }
        self.seek_to(self.offset)?;
        let mut frame = [0; FRAME_BYTES];
        self.file.read_exact(&mut frame)?;
        let (length_bytes, sum) = split_frame(frame);
        let length = u32::from_le_bytes(length_bytes) as usize;
        if !(PREFIX_BYTES..=RECORD_MAX_BYTES).contains(&length)
            || (FRAME_BYTES + length) as u64 > left
        {
            return Ok(Step::Broken);
        }
        let mut payload = vec![0; length];
        self.file.read_exact(&mut payload)?;
        if check_sum(length_bytes, &payload) != sum {
            return Ok(Step::Broken);
        }
        Ok(Step::Payload(payload.into()))
    }

    /// What the record at the current offset says about itself, and how long its payload is.
    fn next_prefix(&mut self) -> Result<Option<(RoundTime, u64)>, Damage> {
        if self.offset + (FRAME_BYTES + PREFIX_BYTES) as u64 > self.end {
            return Ok(None);
        }
        self.seek_to(self.offset)?;
        let mut bytes = [0; FRAME_BYTES + PREFIX_BYTES];
        self.file.read_exact(&mut bytes)?;
        let length = u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        Ok(decode_prefix(&bytes[FRAME_BYTES..]).map(|at| (at, length)))
    }

    fn skip(&mut self, payload_bytes: u64) {
        self.offset += FRAME_BYTES as u64 + payload_bytes;
    }

    fn advance(&mut self, payload_bytes: usize) {
        self.offset += (FRAME_BYTES + payload_bytes) as u64;
    }

    /// Moves within the buffer where possible.
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        let now = self.file.stream_position()?;
        let distance =
            i64::try_from(offset).unwrap_or(i64::MAX) - i64::try_from(now).unwrap_or(i64::MAX);
        self.file.seek_relative(distance)
    }

    /// Whether a whole record with a later number than `expected` begins anywhere behind the current offset: then what
    /// stands here was not torn by a crash, but damaged.
    fn anything_valid_behind(&mut self, expected: u64) -> Result<bool, Damage> {
        self.seek_to(self.offset)?;
        let mut rest = Vec::new();
        self.file.read_to_end(&mut rest)?;
        for start in 1..rest.len().saturating_sub(FRAME_BYTES + PREFIX_BYTES) {
            let bytes = &rest[start..];
            let Some((frame, behind)) = bytes.split_first_chunk::<FRAME_BYTES>() else {
                break;
            };
            let (length_bytes, sum) = split_frame(*frame);
            let length = u32::from_le_bytes(length_bytes) as usize;
            let plausible = (PREFIX_BYTES..=behind.len()).contains(&length)
                && decode_prefix(behind)
                    .is_some_and(|at| (expected..expected + (1 << 32)).contains(&at.record));
            if plausible && check_sum(length_bytes, &behind[..length]) == sum {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn split_frame(frame: [u8; FRAME_BYTES]) -> ([u8; 4], u32) {
    let (length, sum) = frame.split_at(4);
    let four = |bytes: &[u8]| bytes.try_into().unwrap_or_default();
    (four(length), u32::from_le_bytes(four(sum)))
}

fn find_segments(directory: &Directory) -> Result<Vec<Header>, Damage> {
    let mut names: Vec<String> = directory
        .names()?
        .into_iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.retain(|name| {
        Path::new(name)
            .extension()
            .is_some_and(|ending| ending == ENDING)
    });
    let mut headers = Vec::new();
    let count = names.len();
    for (index, name) in names.into_iter().enumerate() {
        let mut bytes = Vec::new();
        let file = directory.open(&name)?;
        let length = file.metadata()?.len();
        file.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
        match Header::decode(&bytes) {
            Some(header) if segment_name(header.first_record) == name => {
                headers.push(header);
            }
            // A crash while the segment was begun: nothing was ever written behind the header.
            _ if index + 1 == count && length <= HEADER_BYTES as u64 => {
                directory.remove(&name)?;
            }
            _ => {
                return Err(Damage(format!(
                    "{} has a damaged header; restore it from a backup",
                    directory.join(&name).display()
                )));
            }
        }
    }
    if let Some(first) = headers.first()
        && first.first_record != 1
    {
        return Err(Damage(format!(
            "the journal begins with record {}; the segments before are missing",
            first.first_record
        )));
    }
    Ok(headers)
}
