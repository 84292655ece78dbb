//! Appending to the journal. One writer, on the store's own thread.

use super::format::{HEADER_BYTES, Header, Next, encode_record};
use super::manifest::{MANIFEST, Manifest};
use super::reader::JournalReader;
use super::segment::{Mark, Seal, segment_name};
use crate::model::Id;
use crate::store::data_dir::{Directory, Identity, is_full};
use crate::store::failure::Failure;
use crate::store::format::Format;
use crate::store::txn::Round;
use crate::store::watch::Watch;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of the buffer that are kept after a large round.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;
/// How often the log says that the journal still takes nothing.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Appends rounds, each on stable storage before the call returns.
#[derive(Debug)]
pub struct JournalWriter {
    reader: Arc<JournalReader>,
    watch: Arc<Watch>,
    failure: Failure,
    file: File,
    length: u64,
    /// The CRC-32C of the segment, kept while it is written so that sealing it reads nothing.
    sum: u32,
    segment_max_bytes: u64,
    epoch: Id,
    next: Next,
    buffer: Vec<u8>,
    /// When the log was last told that nothing can be written, if that is so.
    told: Option<Instant>,
}

/// Why a round was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// There is no room. The file is as it was, and writing goes on once there is some.
    Full,
    /// It could not be written. The file is as it was, and writing goes on when it can.
    Passing,
    /// Whether it is stored cannot be known; the failure was declared.
    InDoubt,
}

/// Why a segment was not begun.
enum BeginError {
    /// Nothing is left of it.
    Passing(io::Error),
    /// The disk did not keep it, or there is one that must not be touched.
    Failed(io::Error),
}

impl JournalWriter {
    /// Goes on at the end of the journal that `reader` has open, whose last segment is as `last` says. With `anew` it goes
    /// on in a segment of its own; a journal without segments always begins with one.
    pub fn open(
        reader: Arc<JournalReader>,
        (watch, failure): (Arc<Watch>, Failure),
        last: Option<Seal>,
        segment_max_bytes: u64,
        now_ms: u64,
        anew: bool,
    ) -> io::Result<Self> {
        let end = reader.end();
        let header = Header {
            epoch: reader.epoch(),
            first_record: end.next().record,
            first_seq: end.next().seq,
            time: now_ms,
        };
        let goes_on = last.filter(|_| !anew);
        let (name, file) = if goes_on.is_some() {
            let name = segment_name(end.segment);
            let file = reader.directory().append(&name)?;
            (name, file)
        } else {
            let file = begin_segment(&reader, last, header).map_err(|error| match error {
                BeginError::Passing(error) | BeginError::Failed(error) => error,
            })?;
            reader.add_segment(last, header);
            (segment_name(header.first_record), file)
        };
        let begun = Identity::of_file(&file)?;
        let watched = watch.segment_begun(&name, begun);
        watched.map_err(io::Error::other)?;
        Ok(Self {
            watch,
            failure,
            file,
            length: reader.end().bytes,
            sum: goes_on.map_or_else(|| header.sum(), |last| last.sum),
            segment_max_bytes,
            epoch: reader.epoch(),
            next: end.next(),
            reader,
            buffer: Vec::new(),
            told: None,
        })
    }

    /// Lets the segment grow to another size.
    #[cfg(test)]
    pub fn grow_to(&mut self, segment_max_bytes: u64) {
        self.segment_max_bytes = segment_max_bytes;
    }

    /// Lets rows be written in a format. From now on, who does not know it refuses the journal.
    pub fn allow(&self, format: Format) -> io::Result<()> {
        let before = self.reader.format();
        if format <= before {
            return Ok(());
        }
        self.reader.set_format(format);
        let manifest = self.reader.manifest(None, None).encode();
        let written = self.reader.directory().write_synced(MANIFEST, &manifest);
        if written.is_err() {
            self.reader.set_format(before);
        }
        written
    }

    /// Appends a round and syncs it.
    pub fn append(&mut self, round: &Round) -> Result<(), AppendError> {
        debug_assert_eq!(round.head.record, self.next.record);
        if self.length >= self.segment_max_bytes {
            self.begin_next(round.head.time)?;
        }
        self.buffer.clear();
        encode_record(round, &mut self.buffer);
        if let Err(error) = self.file.write_all(&self.buffer) {
            return Err(match self.file.set_len(self.length) {
                Ok(()) => self.passing(&error),
                Err(cut) => {
                    let why = format!(
                        "the journal cannot be written ({error}), and what was written of the last record cannot be cut off ({cut})"
                    );
                    self.failure.declare(&why);
                    AppendError::InDoubt
                }
            });
        }
        if let Err(error) = self.file.sync_data() {
            // A sync that succeeds after one that failed proves nothing. What can be cut off is written anew after
            // the restart, if the client repeats it.
            let _ = self.file.set_len(self.length);
            let why = format!(
                "the journal cannot be synced: {error}; the last changes may have been stored or not"
            );
            self.failure.declare(&why);
            return Err(AppendError::InDoubt);
        }
        let written = Mark {
            offset: self.length,
            next: self.next,
            time: round.head.time,
        };
        self.length += self.buffer.len() as u64;
        self.sum = crc32c::crc32c_append(self.sum, &self.buffer);
        self.next = Next {
            record: round.head.record + 1,
            seq: round.head.seq + 1,
        };
        self.reader.publish(written, self.length, self.next);
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        if self.told.take().is_some() {
            tracing::info!("the journal can be written again: changes are taken");
        }
        Ok(())
    }

    fn begin_next(&mut self, time: u64) -> Result<(), AppendError> {
        let header = Header {
            epoch: self.epoch,
            first_record: self.next.record,
            first_seq: self.next.seq,
            time,
        };
        let seal = Seal {
            bytes: self.length,
            next: self.next,
            sum: self.sum,
        };
        let name = segment_name(header.first_record);
        let begun = begin_segment(&self.reader, Some(seal), header).and_then(|file| {
            let begun = Identity::of_file(&file).map_err(BeginError::Failed)?;
            let watched = self.watch.segment_begun(&name, begun);
            watched.map_err(|why| BeginError::Failed(io::Error::other(why)))?;
            Ok(file)
        });
        match begun {
            Ok(file) => {
                self.file = file;
                self.length = HEADER_BYTES as u64;
                self.sum = header.sum();
                self.reader.add_segment(Some(seal), header);
                Ok(())
            }
            Err(BeginError::Passing(error)) => Err(self.passing(&error)),
            // No record was written yet: nothing that was asked for is in doubt.
            Err(BeginError::Failed(error)) => {
                let path = self.reader.directory().join(&name);
                let path = path.display();
                let why = format!("the journal's next segment {path} cannot be begun: {error}");
                self.failure.declare(&why);
                Err(AppendError::Passing)
            }
        }
    }

    /// What is said of an error after which the journal is as it was.
    fn passing(&mut self, error: &io::Error) -> AppendError {
        if self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.told = Some(Instant::now());
            tracing::error!(%error, "the journal cannot be written: no changes are taken until it can");
        }
        if is_full(error) {
            AppendError::Full
        } else {
            AppendError::Passing
        }
    }
}

/// Makes a segment, and names it in the manifest; both are on stable storage before it is used. `seal` is how the one
/// before it ends.
///
/// In this order a crash in between leaves a segment without a record, which the next start knows for what it is.
fn begin_segment(
    reader: &JournalReader,
    seal: Option<Seal>,
    header: Header,
) -> Result<File, BeginError> {
    let directory = reader.directory();
    let file = make_segment(directory, header)?;
    let manifest = reader.manifest(seal, Some(header)).encode();
    let Err(error) = directory.write_synced(MANIFEST, &manifest) else {
        return Ok(file);
    };
    // Once it is named it stays: a segment that is named and not there was lost.
    let found = Manifest::find(directory);
    match found.as_ref().map(|(found, _)| found.as_ref()) {
        Ok(found) if !found.is_some_and(|found| found.names(header.first_record)) => {
            let removed = directory.remove(segment_name(header.first_record));
            removed.map_err(BeginError::Failed)?;
            Err(BeginError::Passing(error))
        }
        _ => Err(BeginError::Failed(error)),
    }
}

/// Makes a segment that is on stable storage, under its name.
fn make_segment(directory: &Directory, header: Header) -> Result<File, BeginError> {
    let name = segment_name(header.first_record);
    let mut file = match directory.create_new(&name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_empty(directory, &name)?;
            directory.create_new(&name)
        }
        made => made,
    }
    .map_err(BeginError::Passing)?;
    let written = file.write_all(&header.encode());
    let done = written.map_err(BeginError::Passing).and_then(|()| {
        let synced = file.sync_all().and_then(|()| directory.sync());
        synced.map_err(|error| match error {
            full if is_full(&full) => BeginError::Passing(full),
            failed => BeginError::Failed(failed),
        })
    });
    if done.is_err() {
        // One that stays all the same is removed when it is begun again.
        let _ = directory.remove(&name);
    }
    done.map(|()| file)
}

/// Removes a segment that was left behind with nothing in it. One with records is another writer's.
fn remove_empty(directory: &Directory, name: &str) -> Result<(), BeginError> {
    let about = directory.about(name).map_err(BeginError::Passing)?;
    if u64::try_from(about.st_size).is_ok_and(|bytes| bytes <= HEADER_BYTES as u64) {
        tracing::warn!(path = %directory.join(name).display(), "an empty segment was left behind; it is made anew");
        return directory.remove(name).map_err(BeginError::Passing);
    }
    Err(BeginError::Failed(Errno::EXIST.into()))
}
