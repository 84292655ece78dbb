//! Appending to the journal. One writer, on the store's own thread.

use super::format::{HEADER_BYTES, Header, encode_record};
use super::reader::{JournalReader, segment_name};
use crate::limits::SEGMENT_MAX_BYTES;
use crate::model::{Id, Seq};
use crate::store::data_dir::Directory;
use crate::store::txn::Round;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

/// Bytes of the buffer that are kept after a large round.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;

/// Appends rounds, each on stable storage before the call returns.
#[derive(Debug)]
pub struct JournalWriter {
    reader: Arc<JournalReader>,
    file: File,
    length: u64,
    epoch: Id,
    next_record: u64,
    buffer: Vec<u8>,
    broken: Option<AppendError>,
}

/// Why a round was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The disk is full; the file is as it was, and writing goes on once there is room.
    Full,
    /// A write or sync failed: nothing more is written in this process, since a sync that succeeds after one that
    /// failed proves nothing.
    Failed,
}

impl JournalWriter {
    /// Goes on at the end of the journal that `reader` has open, or begins it.
    pub fn open(reader: Arc<JournalReader>, now_ms: u64) -> io::Result<Self> {
        let epoch = reader.epoch();
        let end = reader.end();
        let (file, length) = if let Some(first_record) = end.segment {
            let file = reader.directory().append(&segment_name(first_record))?;
            // A torn record, if there is one, is cut off before anything is written behind it.
            file.set_len(end.length)?;
            file.sync_all()?;
            (file, end.length)
        } else {
            let header = Header {
                epoch,
                first_record: 1,
                first_seq: 1,
                time: now_ms,
            };
            let file = begin_segment(reader.directory(), header)?;
            reader.add_segment(header);
            (file, HEADER_BYTES as u64)
        };
        Ok(Self {
            reader,
            file,
            length,
            epoch,
            next_record: end.next_record,
            buffer: Vec::new(),
            broken: None,
        })
    }

    /// Appends a round and syncs it.
    pub fn append(&mut self, round: &Round) -> Result<(), AppendError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
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
            let cut = self.file.set_len(self.length);
            tracing::error!(%error, "the journal cannot be written");
            return Err(
                if error.kind() == io::ErrorKind::StorageFull && cut.is_ok() {
                    AppendError::Full
                } else {
                    self.give_up()
                },
            );
        }
        if let Err(error) = self.file.sync_data() {
            tracing::error!(%error, "the journal cannot be synced; no more changes are taken until chatd is started again");
            // As far as it can be had, what was refused does not come back after a restart.
            let _ = self.file.set_len(self.length);
            return Err(self.give_up());
        }
        self.length += self.buffer.len() as u64;
        self.next_record += 1;
        self.reader
            .publish(self.length, self.next_record, round.head.seq);
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        Ok(())
    }

    fn begin_next(&mut self, first_seq: Seq, time: u64) -> Result<(), AppendError> {
        let header = Header {
            epoch: self.epoch,
            first_record: self.next_record,
            first_seq,
            time,
        };
        match begin_segment(self.reader.directory(), header) {
            Ok(file) => {
                self.file = file;
                self.length = HEADER_BYTES as u64;
                self.reader.add_segment(header);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "a new journal segment cannot be begun");
                let _ = self
                    .reader
                    .directory()
                    .remove(segment_name(header.first_record));
                if error.kind() == io::ErrorKind::StorageFull {
                    Err(AppendError::Full)
                } else {
                    Err(self.give_up())
                }
            }
        }
    }

    fn give_up(&mut self) -> AppendError {
        self.broken = Some(AppendError::Failed);
        AppendError::Failed
    }
}

/// Makes a segment that is on stable storage, under its name, before it is used.
fn begin_segment(directory: &Directory, header: Header) -> io::Result<File> {
    let mut file = directory.create_new(&segment_name(header.first_record))?;
    file.write_all(&header.encode())?;
    file.sync_all()?;
    directory.sync()?;
    Ok(file)
}
