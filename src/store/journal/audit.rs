//! Checking the sums of sealed segments in the background, once after each start.
//!
//! A start looks at their lengths and headers alone, so that it takes no longer the more there is; every record is
//! checked when it is read. This finds what nobody has read yet, while there still is a backup to restore it from.

use super::format::HEADER_BYTES;
use super::records::{Records, Step};
use super::segment::{Seal, Segment};
use super::{Damage, JournalReader};
use crate::limits::AUDIT_BYTES_PER_SECOND;
use crate::store::data_dir::Directory;
use std::io::Read;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Bytes that are read between two looks at the clock.
const STEP_BYTES: usize = 1024 * 1024;

/// Begins to check the sums of the segments that are sealed now. It ends with the journal.
pub fn begin(reader: &Arc<JournalReader>) {
    if reader.sealed().is_empty() {
        return;
    }
    let reader = Arc::downgrade(reader);
    let begun = std::thread::Builder::new()
        .name("journal-audit".to_owned())
        .spawn(move || audit(&reader));
    if let Err(error) = begun {
        tracing::warn!(%error, "the sums of the journal's segments are not checked: no thread can be started");
    }
}

fn audit(reader: &Weak<JournalReader>) {
    let Some(sealed) = reader.upgrade().map(|reader| reader.sealed()) else {
        return;
    };
    let began = Instant::now();
    let mut bytes = 0;
    let mut damaged: u64 = 0;
    for (segment, seal) in &sealed {
        let checked = sum_of(reader, segment, &mut bytes, began);
        let wrong = match checked {
            Ok(None) => return,
            Ok(Some(sum)) if sum == seal.sum => continue,
            Ok(Some(_)) => reader
                .upgrade()
                .map(|reader| find_damage(reader.directory(), segment, *seal)),
            Err(damage) => Some(damage),
        };
        if let Some(wrong) = wrong {
            damaged += 1;
            tracing::error!(
                error = wrong.0,
                "the journal is damaged: those who resume there are refused, and the state cannot be built again; \
                 restore the file from a backup"
            );
        }
    }
    let segments = sealed.len();
    tracing::debug!(
        segments,
        damaged,
        bytes,
        "checked the sums of the journal's segments"
    );
}

/// The sum of a segment's file; none once the journal is closed.
fn sum_of(
    reader: &Weak<JournalReader>,
    segment: &Segment,
    bytes: &mut u64,
    began: Instant,
) -> Result<Option<u32>, Damage> {
    let name = segment.name();
    let Some(directory) = reader.upgrade() else {
        return Ok(None);
    };
    let failed = |error: std::io::Error| {
        let path = directory.directory().join(&name);
        Damage(format!("{} cannot be read: {error}", path.display()))
    };
    let mut file = directory.directory().open(&name).map_err(failed)?;
    let mut buffer = vec![0; STEP_BYTES];
    let mut sum = 0;
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok(Some(sum));
        }
        sum = crc32c::crc32c_append(sum, &buffer[..count]);
        *bytes += count as u64;
        let due = Duration::from_millis(*bytes * 1000 / AUDIT_BYTES_PER_SECOND);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        if reader.strong_count() <= 1 {
            return Ok(None);
        }
    }
}

/// Where the damage is in a segment whose sum is wrong.
fn find_damage(directory: &Directory, segment: &Segment, seal: Seal) -> Damage {
    let find = || -> Result<Damage, Damage> {
        let mut next = segment.header.begins();
        let mut records = Records::open(directory, &segment.name(), Some(seal.bytes))?;
        while next != seal.next {
            match records.read(next)? {
                Step::Record(whole) => next = whole.next,
                _ => return Ok(records.damaged(next)),
            }
        }
        let path = directory.join(segment.name());
        let text = format!(
            "{} is damaged in its first {HEADER_BYTES} bytes, or behind its last record",
            path.display()
        );
        Ok(Damage(text))
    };
    find().unwrap_or_else(|damage| damage)
}
