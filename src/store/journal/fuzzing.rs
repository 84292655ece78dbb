//! What the fuzzer knows of the journal.

use super::end::End;
use super::format::{Header, decode_events, decode_prefix, decode_record};
use super::manifest::Manifest;
use super::sample::{self, Files, RECORDS, files, restore};
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// A whole journal of many small segments, and a directory in which copies of it are damaged.
pub struct Sample {
    directory: PathBuf,
    files: Files,
    records: Vec<String>,
}

impl Sample {
    /// Writes the journal into an empty directory.
    pub fn new(directory: &Path) -> Self {
        sample::write(directory).unwrap();
        let records = read(directory).unwrap();
        assert_eq!(records.len() as u64, RECORDS);
        Self {
            directory: directory.to_owned(),
            files: files(directory),
            records,
        }
    }

    /// The names of its files.
    pub fn names(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }

    /// Reads the journal after `damage` was done to its files: it is refused, or what is read is what was written; and
    /// only where the last segment or the note of all segments was touched, its end may be missing.
    pub fn damaged(&self, damage: impl FnOnce(&mut Files)) {
        let mut files = self.files.clone();
        damage(&mut files);
        restore(&self.directory, &files);
        let Ok(read) = read(&self.directory) else {
            return;
        };
        assert!(
            self.records.starts_with(&read),
            "what was read was never written"
        );
        let last = self.files.keys().rfind(|name| name.ends_with(".journal"));
        let others_are_whole = files
            .iter()
            .filter(|(name, _)| Some(*name) != last)
            .eq(self.files.iter().filter(|(name, _)| Some(*name) != last));
        if read.len() < self.records.len() && others_are_whole {
            let kept = files.get(last.unwrap());
            assert!(
                kept != self.files.get(last.unwrap()),
                "records are missing from a whole journal"
            );
        }
    }
}

/// Every record that a start would read, or why it would not.
fn read(directory: &Path) -> Result<Vec<String>, String> {
    let journal = sample::check(directory, None, sample::NEW_EPOCH).map_err(|damage| damage.0)?;
    let mut records = Vec::new();
    let replayed = journal.replay(1, |record| {
        records.push(format!("{record:?}"));
        Ok(())
    });
    replayed.map_err(|damage| damage.0)?;
    Ok(records)
}

/// Takes bytes for each kind of thing that is read from the disk.
pub fn decode(bytes: &[u8]) {
    let payload = Bytes::copy_from_slice(bytes);
    let record = decode_record(&payload);
    let events = decode_events(&payload);
    if let (Ok(record), Ok(events)) = (record, events) {
        assert_eq!(record.events, events);
    }
    decode_prefix(bytes);
    Header::decode(bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = Manifest::decode(text);
        if let Some(end) = End::parse(text) {
            assert_eq!(End::parse(&end.to_string()), Some(end));
        }
    }
}
