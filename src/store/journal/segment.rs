//! A segment: which records and events it has, and where in its file they begin.

use super::Damage;
use super::format::{Header, Next};
use super::records::{Records, Skim};
use crate::limits::INDEX_EVERY_BYTES;
use crate::store::data_dir::Directory;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// How the names of segments end.
pub const ENDING: &str = ".journal";

/// The name of a segment's file.
pub fn segment_name(first_record: u64) -> String {
    format!("{first_record:020}{ENDING}")
}

/// How a segment ends that is written to no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Bytes in the file.
    pub bytes: u64,
    /// What comes behind it.
    pub next: Next,
    /// The CRC-32C of the whole file.
    pub sum: u32,
}

/// One segment.
#[derive(Debug)]
pub struct Segment {
    /// Its header.
    pub header: Header,
    seal: OnceLock<Seal>,
    /// Made while it is written, or when it is first read.
    index: Mutex<Option<Index>>,
}

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where in the file.
    pub offset: u64,
    /// Its number, and that of its first event.
    pub next: Next,
    /// When it was decided, in milliseconds.
    pub time: u64,
}

/// A record for about each MiB of a segment, in order.
#[derive(Clone, Debug, Default)]
pub struct Index(Vec<Mark>);

impl Index {
    /// Takes a record in, if the last one is far enough before it.
    pub fn note(&mut self, mark: Mark) {
        if self
            .0
            .last()
            .is_none_or(|last| mark.offset >= last.offset + INDEX_EVERY_BYTES)
        {
            self.0.push(mark);
        }
    }

    /// The last mark for which something holds that holds for all before it too.
    pub fn last_where(&self, holds: impl Fn(&Mark) -> bool) -> Option<Mark> {
        let behind = self.0.partition_point(holds);
        self.0.get(behind.checked_sub(1)?).copied()
    }
}

impl Segment {
    /// A segment that is written to, or whose records are not known yet.
    pub fn new(header: Header, seal: Option<Seal>, index: Option<Index>) -> Self {
        Self {
            header,
            seal: seal.map(OnceLock::from).unwrap_or_default(),
            index: Mutex::new(index),
        }
    }

    /// The name of its file.
    pub fn name(&self) -> String {
        segment_name(self.header.first_record)
    }

    /// How it ends, if it is written to no more.
    pub fn seal(&self) -> Option<Seal> {
        self.seal.get().copied()
    }

    /// Says how it ends.
    pub fn close(&self, seal: Seal) {
        let _ = self.seal.set(seal);
    }

    /// Takes in a record that was written.
    pub fn note(&self, mark: Mark) {
        if let Some(index) = self.lock().as_mut() {
            index.note(mark);
        }
    }

    /// Looks something up in the index, which is made now if there is none. `end` is where the whole records end.
    pub fn look_up<T>(
        &self,
        directory: &Directory,
        end: u64,
        find: impl FnOnce(&Index) -> T,
    ) -> Result<T, Damage> {
        // Whoever else needs it waits here, and finds it made.
        let mut index = self.lock();
        let made = match &mut *index {
            Some(made) => made,
            None => index.insert(self.make_index(directory, end)?),
        };
        Ok(find(made))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Index>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes through the file by the lengths and numbers of its records. Where those are damaged, it goes on behind the
    /// damage: what is whole there can be read, and the marks say which record it is.
    fn make_index(&self, directory: &Directory, end: u64) -> Result<Index, Damage> {
        let mut index = Index::default();
        let mut next = self.header.begins();
        let mut records = Records::open(directory, &self.name(), Some(end))?;
        loop {
            let offset = records.offset();
            match records.skim()? {
                Skim::End => return Ok(index),
                Skim::Record(at) if next.behind(&at).is_some() => {
                    let time = at.time;
                    index.note(Mark { offset, next, time });
                    next = next.behind(&at).unwrap_or(next);
                }
                Skim::Record(_) | Skim::Broken => {
                    let Some((offset, at)) = records.find_behind(offset, next.record)? else {
                        return Ok(index);
                    };
                    next = Next {
                        record: at.record,
                        seq: at.first_seq,
                    };
                    let time = at.time;
                    index.0.push(Mark { offset, next, time });
                    records.go_to(offset)?;
                }
            }
        }
    }
}

/// A segment's file.
pub struct SegmentFile {
    /// The number in its name.
    pub first_record: u64,
    /// How long it is.
    pub bytes: u64,
}

impl SegmentFile {
    /// Those of a directory, in order.
    pub fn all_in(directory: &Directory) -> Result<Vec<Self>, Damage> {
        let mut files = Vec::new();
        for name in directory.names()? {
            let name = name.to_string_lossy();
            let Some(number) = name.strip_suffix(ENDING) else {
                continue;
            };
            let first_record = number.parse().unwrap_or_default();
            if first_record == 0 || segment_name(first_record) != name {
                return Err(Damage(format!(
                    "{} is no name of a segment; move the file elsewhere",
                    directory.join(&*name).display()
                )));
            }
            let bytes = u64::try_from(directory.about(&name)?.st_size).unwrap_or_default();
            files.push(Self {
                first_record,
                bytes,
            });
        }
        Ok(files)
    }
}
