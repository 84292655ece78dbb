//! Opening the journal: everything is checked before anything is changed.
//!
//! | checked | how |
//! |---|---|
//! | which segments there are | by the manifest: each is there, as long as it was, and begins with its header |
//! | the open segment | every record, since only there a crash can have left something |
//! | sealed segments | by length and header; their sums in the background (`audit.rs`), for a start takes no longer the more there is |
//! | a journal without a manifest | every record of every segment |
//! | the end | by the note of the last clean stop, and by the state: neither may be ahead of the journal |
//!
//! What is missing, or damaged where it was whole once, is refused. Only behind the last whole record may something stand
//! that is no record: what a crash left. It is cut off, and kept in a file beside.

mod refusal;

use super::end::End;
use super::format::{FRAME_BYTES, HEADER_BYTES, Header, Next, Record, decode_record, row_format};
use super::kept::{self, Tail};
use super::manifest::{Found, MANIFEST, Manifest};
use super::records::{Records, Step, Whole};
use super::segment::{Index, Mark, Seal, Segment, SegmentFile, segment_name};
use super::{Damage, JournalReader, JournalWriter};
use crate::model::Id;
use crate::store::data_dir::Directory;
use crate::store::failure::Failure;
use crate::store::format::{self, Format};
use crate::store::watch::Watch;
use std::io::{self, Read};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A journal that was checked, and is as it was found.
#[derive(Debug)]
pub struct CheckedJournal {
    directory: Directory,
    epoch: Id,
    segment_max_bytes: u64,
    /// The newest format that its rows may be in.
    format: Format,
    segments: Vec<Segment>,
    end: End,
    /// The CRC-32C of the last segment, up to its end.
    sum: u32,
    tail: Option<Tail>,
    /// Segments that are no part of the journal, and are kept under other names.
    aside: Vec<String>,
    /// A person has said that the journal ends here.
    given_up: bool,
    /// Nothing but the records themselves says where the journal ends.
    unwitnessed: bool,
    /// The manifest is to be written.
    stale: bool,
    /// Cancelled when chatd is to stop: then no more is checked.
    stop: CancellationToken,
}

/// A segment whose records were all read.
struct Scan {
    index: Index,
    sum: u32,
    next: Next,
    /// Bytes of whole records, and of the file.
    bytes: u64,
    file_bytes: u64,
    /// The format of the newest rows.
    format: Format,
}

impl CheckedJournal {
    /// Checks the journal in a directory; one without segments is a new one, of the epoch `new_epoch`.
    ///
    /// `noted` is the end that was noted when chatd was stopped. Nothing is changed. It gives up when `stop` is cancelled.
    pub fn check(
        directory: Directory,
        noted: Option<End>,
        new_epoch: Id,
        segment_max_bytes: u64,
        stop: &CancellationToken,
    ) -> Result<Self, Damage> {
        let files = SegmentFile::all_in(&directory)?;
        let (manifest, why) = Manifest::find(&directory)?;
        let mut journal = Self {
            directory,
            epoch: new_epoch,
            segment_max_bytes,
            format: if files.is_empty() {
                Format::NEWEST
            } else {
                Format::POSTCARD
            },
            segments: Vec::new(),
            end: End {
                record: 0,
                seq: 0,
                segment: 0,
                bytes: 0,
            },
            sum: 0,
            tail: None,
            aside: Vec::new(),
            given_up: false,
            unwitnessed: false,
            stale: true,
            stop: stop.clone(),
        };
        match manifest {
            Some(Found::Manifest(manifest)) => journal.by_manifest(&manifest, &files)?,
            Some(Found::End(record)) => {
                journal.given_up = true;
                journal.up_to(record, &files)?;
            }
            None => {
                journal.unwitnessed = noted.is_none();
                journal.scan_all(&files.iter().collect::<Vec<_>>(), None)?;
                if !journal.segments.is_empty() {
                    tracing::warn!(
                        path = %journal.path(), why, segments = journal.segments.len(),
                        "the journal has no manifest; every record was checked, and it gets one"
                    );
                }
            }
        }
        // Where records are given up, others will have their numbers: the log that begins there is another one.
        if let Some(last) = journal.segments.last().filter(|_| !journal.given_up) {
            journal.epoch = last.header.epoch;
        }
        if let Some(noted) = noted.filter(|_| !journal.given_up) {
            journal.not_before(noted.record, "it had when chatd was stopped")?;
        }
        Ok(journal)
    }

    /// Refuses a state that has what the journal has lost. `applied` is the last record that is in the state.
    pub fn allows(&self, applied: u64) -> Result<(), Damage> {
        self.not_before(applied, "the state that was built from it has")?;
        // A segment is full before the next one is begun; so behind one that is not full none is missing.
        let full = self.end.bytes >= self.segment_max_bytes;
        if self.unwitnessed && full && applied < self.end.segment {
            return Err(self.refusal(&format!(
                "{} has no manifest, and nothing else says whether segments are missing behind {}, which is full",
                self.path(),
                self.segment_path(self.end.segment)
            )));
        }
        Ok(())
    }

    /// Whether a person has said where the journal ends: then what was built from it before may be ahead of it.
    #[must_use]
    pub fn given_up(&self) -> bool {
        self.given_up
    }

    /// Hands on every record from `from` on.
    pub fn replay(
        &self,
        from: u64,
        mut each: impl FnMut(Record) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        for segment in &self.segments {
            let last = segment.header.first_record == self.end.segment;
            let (end, behind) = match segment.seal().filter(|_| !last) {
                Some(seal) => (seal.bytes, seal.next),
                None => (self.end.bytes, self.end.next()),
            };
            if behind.record <= from {
                continue;
            }
            let mut records = Records::open(&self.directory, &segment.name(), Some(end))?;
            let mut next = segment.header.begins();
            if last {
                // Its index was made when it was checked.
                let mark = segment.look_up(&self.directory, end, |index| {
                    index.last_where(|mark| mark.next.record <= from)
                })?;
                if let Some(mark) = mark {
                    records.go_to(mark.offset)?;
                    next = mark.next;
                }
            }
            while next != behind {
                let Step::Record(whole) = records.read(next)? else {
                    return Err(self.refusal_at(&records, next));
                };
                next = whole.next;
                if whole.at.record >= from {
                    each(decode(&records, &whole)?)?;
                }
            }
        }
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Where it ends.
    #[must_use]
    pub fn end(&self) -> End {
        self.end
    }

    /// Makes the journal ready to be written to: what a crash left is cut off, and kept in a file beside.
    pub fn open(
        self,
        watch: Arc<Watch>,
        failure: Failure,
        now_ms: u64,
    ) -> io::Result<(Arc<JournalReader>, JournalWriter)> {
        for name in &self.aside {
            kept::set_aside(&self.directory, name, now_ms)?;
        }
        if let Some(tail) = self.tail {
            kept::cut_off(&self.directory, self.end, tail, now_ms)?;
        }
        let last = (!self.segments.is_empty()).then(|| self.seal());
        let reader = Arc::new(JournalReader::new(
            self.directory,
            (self.epoch, self.format),
            self.segments.into_iter().map(Arc::new).collect(),
            self.end,
        ));
        let writer = JournalWriter::open(
            Arc::clone(&reader),
            (watch, failure),
            last,
            self.segment_max_bytes,
            now_ms,
            self.given_up,
        )?;
        if self.stale {
            let text = reader.manifest(None, None).encode();
            reader.directory().write_synced(MANIFEST, &text)?;
        }
        Ok((reader, writer))
    }

    /// Checks what is there against what the manifest says.
    fn by_manifest(&mut self, manifest: &Manifest, files: &[SegmentFile]) -> Result<(), Damage> {
        self.format = manifest.format;
        let named = || manifest.sealed.iter().chain(&manifest.open);
        let mut next = Next::FIRST;
        for segment in named() {
            let first_record = segment.begins.record;
            let path = self.segment_path(first_record);
            let records = match segment.seal {
                Some(seal) => format!("records {first_record} to {}", seal.next.record - 1),
                None => format!("record {first_record} and those behind it"),
            };
            if segment.begins != next {
                return Err(self.refusal(&format!(
                    "{MANIFEST} in {} names no segment with record {}",
                    self.path(),
                    next.record
                )));
            }
            self.end.record = first_record - 1;
            let Some(file) = files.iter().find(|file| file.first_record == first_record) else {
                return Err(self.refusal(&format!("{path} is missing; it has {records}")));
            };
            if let Some(seal) = segment.seal
                && seal.bytes != file.bytes
            {
                return Err(self.refusal(&format!(
                    "{path} has {} bytes instead of {}; it has {records}",
                    file.bytes, seal.bytes
                )));
            }
            let header = self.header(first_record)?;
            if !header.is_some_and(|header| segment.is(&header)) {
                return Err(self.refusal(&format!(
                    "{path} has {} bytes and does not begin with its header; it has {records}",
                    file.bytes
                )));
            }
            if let (Some(seal), Some(header)) = (segment.seal, header) {
                next = seal.next;
                self.segments.push(Segment::new(header, Some(seal), None));
            }
        }
        let open = manifest.open.map_or(u64::MAX, |open| open.begins.record);
        let unnamed = |file: &&SegmentFile| {
            file.first_record < open
                && !named().any(|segment| segment.begins.record == file.first_record)
        };
        if let Some(file) = files.iter().find(unnamed) {
            return Err(self.refusal(&format!(
                "{} is no part of the journal by its {MANIFEST}: one of them is of another journal, or older",
                self.segment_path(file.first_record)
            )));
        }
        let rest: Vec<&SegmentFile> = files
            .iter()
            .filter(|file| file.first_record >= open)
            .collect();
        self.stale = rest.len() > 1;
        self.end.record = next.record - 1;
        self.end.seq = next.seq - 1;
        self.scan_all(&rest, manifest.open.map(|open| open.begins.record))
    }

    /// Reads the records of segments that follow on what there is so far. `named` is the one that is in the manifest.
    fn scan_all(&mut self, files: &[&SegmentFile], named: Option<u64>) -> Result<(), Damage> {
        for (index, file) in files.iter().enumerate() {
            let last = index + 1 == files.len();
            let path = self.segment_path(file.first_record);
            let next = self.end.next();
            let header = self.header(file.first_record)?;
            let follows = header.filter(|header| header.begins() == next);
            let Some(header) = follows else {
                // A crash while the segment was begun: nothing was ever written behind its header.
                let begun = file.first_record == next.record && file.bytes <= HEADER_BYTES as u64;
                if last && begun && header.is_none() && named != Some(file.first_record) {
                    self.aside.push(segment_name(file.first_record));
                    break;
                }
                return Err(self.refusal(&if header.is_none() {
                    format!(
                        "{path} has {} bytes and does not begin with its header",
                        file.bytes
                    )
                } else {
                    format!(
                        "the segment with record {} is missing; the next one is {path}",
                        next.record
                    )
                }));
            };
            if self
                .segments
                .last()
                .is_some_and(|before| before.header.epoch > header.epoch)
            {
                return Err(self.refusal(&format!("{path} belongs to another journal")));
            }
            let (scan, mut records) = self.scan(header, u64::MAX)?;
            let (whole, next) = (scan.bytes, scan.next);
            let torn = whole < scan.file_bytes;
            self.add(header, scan);
            if torn {
                // Behind damage the writer would not have gone on.
                if !last || records.find_behind(whole, next.record)?.is_some() {
                    return Err(self.refusal_at(&records, next));
                }
                self.tail = Some(Tail {
                    unfinished: records.is_unfinished(whole, next)?,
                });
            }
        }
        Ok(())
    }

    /// Reads the records up to one that a person has named as the last; what is behind is no part of the journal.
    fn up_to(&mut self, record: u64, files: &[SegmentFile]) -> Result<(), Damage> {
        for file in files {
            if self.end.record == record {
                self.aside.push(segment_name(file.first_record));
                continue;
            }
            let next = self.end.next();
            let header = self.header(file.first_record)?;
            let Some(header) = header.filter(|header| header.begins() == next) else {
                break;
            };
            let (scan, _) = self.scan(header, record)?;
            self.tail = (scan.bytes < scan.file_bytes).then_some(Tail { unfinished: false });
            self.add(header, scan);
            if self.tail.is_some() && self.end.record != record {
                break;
            }
        }
        if self.end.record != record {
            let whole = self.end.record;
            return Err(Damage(format!(
                "{MANIFEST} in {} says that the journal ends with record {record}, but the last whole one is {whole}; \
                 write \"end {whole}\" there, or restore the data directory from a backup",
                self.path()
            )));
        }
        Ok(())
    }

    /// Adds a segment whose records were read. What was the last one until now is sealed.
    fn add(&mut self, header: Header, scan: Scan) {
        if let Some(before) = self.segments.last() {
            before.close(self.seal());
        }
        self.end = End {
            record: scan.next.record - 1,
            seq: scan.next.seq - 1,
            segment: header.first_record,
            bytes: scan.bytes,
        };
        self.sum = scan.sum;
        if scan.format > self.format {
            self.format = scan.format;
            self.stale = true;
        }
        self.segments
            .push(Segment::new(header, None, Some(scan.index)));
    }

    /// How the last segment ends.
    fn seal(&self) -> Seal {
        Seal {
            bytes: self.end.bytes,
            next: self.end.next(),
            sum: self.sum,
        }
    }

    /// Reads the records of a segment, up to and with `last_record`.
    fn scan(&self, header: Header, last_record: u64) -> Result<(Scan, Records), Damage> {
        let name = segment_name(header.first_record);
        let mut records = Records::open(&self.directory, &name, None)?;
        let mut scan = Scan {
            index: Index::default(),
            sum: header.sum(),
            next: header.begins(),
            bytes: HEADER_BYTES as u64,
            file_bytes: records.end(),
            format: Format::POSTCARD,
        };
        let mut last = None;
        while scan.next.record <= last_record {
            if self.stop.is_cancelled() {
                return Err(Damage("the journal is not checked yet".to_owned()));
            }
            let Step::Record(whole) = records.read(scan.next)? else {
                break;
            };
            scan.index.note(Mark {
                offset: whole.offset,
                next: scan.next,
                time: whole.at.time,
            });
            scan.sum = whole.add_to(scan.sum);
            scan.next = whole.next;
            scan.bytes += (FRAME_BYTES + whole.payload.len()) as u64;
            last = Some(whole);
        }
        if let Some(whole) = last
            && let Some(number) = row_format(&whole.payload)
        {
            scan.format = Format::known(number).ok_or_else(|| {
                let what = format!("record {} in {}", whole.at.record, records.path().display());
                Damage(format::newer(&what, number.into(), None))
            })?;
        }
        Ok((scan, records))
    }

    /// The header of a segment, if it is whole and that of this file.
    fn header(&self, first_record: u64) -> Result<Option<Header>, Damage> {
        let mut bytes = Vec::new();
        let read = self
            .directory
            .open(segment_name(first_record))
            .and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut bytes));
        read.map_err(|error| {
            Damage(format!(
                "{} cannot be read: {error}",
                self.segment_path(first_record)
            ))
        })?;
        Ok(Header::decode(&bytes).filter(|header| header.first_record == first_record))
    }
}

fn decode(records: &Records, whole: &Whole) -> Result<Record, Damage> {
    decode_record(&whole.payload).map_err(|_| records.unknown(whole))
}
