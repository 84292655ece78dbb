//! Appending to the journal. One writer, on the store's own thread.

use super::format::{HEADER_BYTES, Header, encode_record};
use super::reader::{JournalReader, segment_name};
use crate::limits::SEGMENT_MAX_BYTES;
use crate::model::{Id, Seq};
use crate::store::data_dir::{Directory, Identity, is_full};
use crate::store::failure::Failure;
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
    epoch: Id,
    next_record: u64,
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
    /// Goes on at the end of the journal that `reader` has open, or begins it.
    pub fn open(
        reader: Arc<JournalReader>,
        watch: Arc<Watch>,
        failure: Failure,
        now_ms: u64,
    ) -> io::Result<Self> {
        let epoch = reader.epoch();
        let end = reader.end();
        let first_record = end.segment.unwrap_or(1);
        let (file, length) = if end.segment.is_some() {
            let file = reader.directory().append(&segment_name(first_record))?;
            // A torn record, if there is one, is cut off before anything is written behind it.
            file.set_len(end.length)?;
            file.sync_all()?;
            (file, end.length)
        } else {
            let header = Header {
                epoch,
                first_record,
                first_seq: 1,
                time: now_ms,
            };
            let file = begin_segment(reader.directory(), header).map_err(|error| match error {
                BeginError::Passing(error) | BeginError::Failed(error) => error,
            })?;
            reader.add_segment(header);
            (file, HEADER_BYTES as u64)
        };
        let begun = Identity::of_file(&file)?;
        watch
            .segment_begun(&segment_name(first_record), begun)
            .map_err(io::Error::other)?;
        Ok(Self {
            reader,
            watch,
            failure,
            file,
            length,
            epoch,
            next_record: end.next_record,
            buffer: Vec::new(),
            told: None,
        })
    }

    /// Appends a round and syncs it.
    pub fn append(&mut self, round: &Round) -> Result<(), AppendError> {
        debug_assert_eq!(round.head.record, self.next_record);
        let first_seq = round
            .events
            .first()
            .map_or(round.head.seq + 1, |event| event.seq);
        if self.length >= SEGMENT_MAX_BYTES {
            self.begin_next(first_seq, round.head.time)?;
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
        self.length += self.buffer.len() as u64;
        self.next_record += 1;
        self.reader
            .publish(self.length, self.next_record, round.head.seq);
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        if self.told.take().is_some() {
            tracing::info!("the journal can be written again: changes are taken");
        }
        Ok(())
    }

    fn begin_next(&mut self, first_seq: Seq, time: u64) -> Result<(), AppendError> {
        let header = Header {
            epoch: self.epoch,
            first_record: self.next_record,
            first_seq,
            time,
        };
        let name = segment_name(header.first_record);
        let begun = begin_segment(self.reader.directory(), header).and_then(|file| {
            let begun = Identity::of_file(&file).map_err(BeginError::Passing)?;
            let watched = self.watch.segment_begun(&name, begun);
            watched.map_err(|why| BeginError::Failed(io::Error::other(why)))?;
            Ok(file)
        });
        match begun {
            Ok(file) => {
                self.file = file;
                self.length = HEADER_BYTES as u64;
                self.reader.add_segment(header);
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

/// Makes a segment that is on stable storage, under its name, before it is used.
fn begin_segment(directory: &Directory, header: Header) -> Result<File, BeginError> {
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
