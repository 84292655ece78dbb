//! A journal of many small segments, for the tests and the fuzzer to damage.

use super::{CheckedJournal, Damage, End, JournalReader, JournalWriter};
use crate::model::{Event, Id, Seq};
use crate::store::data_dir::Directory;
use crate::store::failure::Failure;
use crate::store::rows::Head;
use crate::store::txn::Round;
use crate::store::watch::Watch;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub const SEGMENT_MAX_BYTES: u64 = 600;
pub const EPOCH: Id = Id(1 << 40);
/// The epoch of a journal that is begun anew.
pub const NEW_EPOCH: Id = Id(1 << 41);
pub const RECORDS: u64 = 20;

/// What stands in a directory, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

pub fn line(seq: Seq) -> Bytes {
    Bytes::from(format!(
        "{{\"seq\":{seq},\"text\":\"something that is said\"}}\n"
    ))
}

/// Record `record`: every third has no event, the others have two.
pub fn round(record: u64) -> Round {
    let before = seq_at(record - 1);
    let seq = seq_at(record);
    Round {
        head: Head {
            record,
            seq,
            time: 1000 + record,
            ..Head::default()
        },
        changes: vec![(b"key".into(), Some(record.to_be_bytes().as_slice().into()))],
        events: (before + 1..=seq)
            .map(|seq| Event::plain(seq, line(seq)))
            .collect(),
        deletes: false,
        largest_change: 1,
    }
}

/// The newest event once a record is written.
pub fn seq_at(record: u64) -> Seq {
    2 * (record - record / 3)
}

/// Opens what was checked, with nobody to look after it.
pub fn open(journal: CheckedJournal) -> (Arc<JournalReader>, JournalWriter) {
    let directory = journal.directory();
    let watch = Watch::new(directory, directory, ".").unwrap();
    journal
        .open(Arc::new(watch), Failure::default(), 5)
        .unwrap()
}

pub fn check(path: &Path, noted: Option<End>, new_epoch: Id) -> Result<CheckedJournal, Damage> {
    let directory = Directory::make(path).unwrap();
    let go_on = CancellationToken::new();
    CheckedJournal::check(directory, noted, new_epoch, SEGMENT_MAX_BYTES, &go_on)
}

/// Writes the journal into an empty directory, and says where it ends.
pub fn write(path: &Path) -> Result<End, Damage> {
    let (reader, mut writer) = open(check(path, None, EPOCH)?);
    for record in 1..=RECORDS {
        writer.append(&round(record)).unwrap();
    }
    Ok(reader.end())
}

pub fn files(path: &Path) -> Files {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Makes a directory hold these files and no others.
pub fn restore(path: &Path, whole: &Files) {
    for name in files(path).into_keys() {
        fs::remove_file(path.join(name)).unwrap();
    }
    for (name, bytes) in whole {
        fs::write(path.join(name), bytes).unwrap();
    }
}
