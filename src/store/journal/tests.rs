//! Damage of every kind at every place of small segments: it is refused or told, and never passed over.

mod reading;

use super::manifest::MANIFEST;
use super::sample::{
    EPOCH, NEW_EPOCH, RECORDS, SEGMENT_MAX_BYTES, check, files, line, open, restore, round, seq_at,
    write,
};
use super::*;
use crate::limits::CUTS_MAX_FILES;
use crate::store::failure::Failure;
use crate::store::watch::Watch;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Opens a journal whose state has `applied` records, as a start does, and gives the records that were replayed.
fn try_open(
    path: &Path,
    applied: u64,
    noted: Option<End>,
) -> Result<(Arc<JournalReader>, JournalWriter, Vec<u64>), Damage> {
    let journal = check(path, noted, NEW_EPOCH)?;
    let mut replayed = Vec::new();
    journal.allows(applied)?;
    journal.replay(applied + 1, |record| {
        replayed.push(record.at.record);
        Ok(())
    })?;
    let (reader, writer) = open(journal);
    Ok((reader, writer, replayed))
}

fn refusal(path: &Path, applied: u64, noted: Option<End>) -> String {
    let before = files(path);
    let Err(damage) = try_open(path, applied, noted) else {
        panic!("it was not refused");
    };
    assert!(before == files(path), "a refusal changed something");
    damage.0
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let names = files(path).into_keys();
    let segments = names.filter(|name| name.ends_with(".journal"));
    segments.map(|name| path.join(name)).collect()
}

/// A journal of several segments, with its end.
fn journal() -> (TempDir, End) {
    let scratch = tempfile::tempdir().unwrap();
    let end = write(scratch.path()).unwrap();
    assert_eq!((end.record, end.seq), (RECORDS, seq_at(RECORDS)));
    assert!(segments(scratch.path()).len() >= 4);
    (scratch, end)
}

/// Every event that a client can read from any place on is the right one, and none is jumped over. Gives how many places
/// told of damage.
fn read_all(reader: &JournalReader) -> usize {
    let newest = reader.end().seq;
    let mut damaged = 0;
    for begin in 1..=newest + 1 {
        let mut next = begin;
        loop {
            match reader.events_from(next) {
                Ok(Some(events)) => {
                    for event in events.iter() {
                        assert_eq!(event.seq, next);
                        assert_eq!(event.line, line(next));
                        next += 1;
                    }
                }
                Ok(None) => {
                    assert_eq!(next, newest + 1);
                    break;
                }
                Err(_) => {
                    damaged += 1;
                    break;
                }
            }
        }
    }
    damaged
}

/// Opens a journal and goes on with it; what was written before and now is there, and it opens again.
fn goes_on(path: &Path, applied: u64, noted: Option<End>) {
    let (reader, mut writer, replayed) = try_open(path, applied, noted).unwrap();
    let last = reader.end().record;
    let missing: Vec<u64> = (applied + 1..=last).collect();
    assert_eq!(replayed, missing);
    for record in last + 1..=last + RECORDS {
        writer.append(&round(record)).unwrap();
    }
    assert_eq!(read_all(&reader), 0);
    drop((reader, writer));
    let (reader, _, _) = try_open(path, last + RECORDS, None).unwrap();
    assert_eq!(reader.end().record, last + RECORDS);
    assert_eq!(read_all(&reader), 0);
}

#[test]
fn a_journal_is_opened_as_it_was_left() {
    let (scratch, end) = journal();
    let whole = files(scratch.path());
    for applied in [0, 1, RECORDS / 2, RECORDS] {
        for noted in [None, Some(end)] {
            goes_on(scratch.path(), applied, noted);
            restore(scratch.path(), &whole);
        }
    }
    assert_eq!(End::parse(&end.to_string()), Some(end));
}

#[test]
fn a_segment_that_is_missing_short_or_empty_is_refused_wherever_it_stands() {
    let (scratch, _) = journal();
    let whole = files(scratch.path());
    let all = segments(scratch.path());
    for (index, segment) in all.iter().enumerate() {
        let open = index + 1 == all.len();
        let bytes = &whole[segment.file_name().unwrap().to_str().unwrap()];
        let name = segment.display().to_string();
        fs::remove_file(segment).unwrap();
        let said = refusal(scratch.path(), 0, None);
        assert!(said.contains(&format!("{name} is missing")), "{said}");
        assert!(said.contains("backup") && said.contains("\"end "), "{said}");
        for length in (0..60).chain((60..bytes.len()).step_by(7)) {
            fs::write(segment, &bytes[..length]).unwrap();
            // What the open one had is known by the state alone.
            let applied = if open { RECORDS } else { 0 };
            let said = refusal(scratch.path(), applied, None);
            assert!(said.contains(&name), "{length}: {said}");
            if open && length >= 48 {
                assert!(said.contains(&format!("has record {RECORDS}")), "{said}");
            }
        }
        fs::write(segment, [bytes, &b"more"[..]].concat()).unwrap();
        if !open {
            let said = refusal(scratch.path(), 0, None);
            assert!(said.contains(&name), "{said}");
        }
        restore(scratch.path(), &whole);
    }
}

#[test]
fn what_a_crash_between_segment_and_manifest_leaves_is_mended_by_itself() {
    let (scratch, _) = journal();
    let whole = files(scratch.path());
    let next = RECORDS + 1;
    let header = super::format::Header {
        epoch: EPOCH,
        first_record: next,
        first_seq: seq_at(RECORDS) + 1,
        time: 9,
    };
    for length in [0, 1, 8, 39, 40, 47, 48] {
        for applied in [0, RECORDS] {
            let path = scratch.path().join(segment::segment_name(next));
            fs::write(path, &header.encode()[..length]).unwrap();
            fs::write(scratch.path().join("MANIFEST.new"), "chatd jour").unwrap();
            goes_on(scratch.path(), applied, None);
            restore(scratch.path(), &whole);
        }
    }
    // The very first segment, before there is a manifest.
    for length in [0, 1, 47, 48] {
        let empty = tempfile::tempdir().unwrap();
        let header = super::format::Header {
            first_record: 1,
            first_seq: 1,
            ..header
        };
        let path = empty.path().join(segment::segment_name(1));
        fs::write(path, &header.encode()[..length]).unwrap();
        goes_on(empty.path(), 0, None);
    }
    // An older chatd wrote on, and knew no manifest.
    let mut older = whole.clone();
    let (reader, mut writer, _) = try_open(scratch.path(), 0, None).unwrap();
    for record in next..next + RECORDS {
        writer.append(&round(record)).unwrap();
    }
    drop((reader, writer));
    older.extend(
        files(scratch.path())
            .into_iter()
            .filter(|(name, _)| name != MANIFEST),
    );
    restore(scratch.path(), &older);
    goes_on(scratch.path(), 0, None);
}

#[test]
fn a_manifest_that_is_missing_or_damaged_is_made_anew_unless_that_could_hide_a_missing_segment() {
    let (scratch, end) = journal();
    let whole = files(scratch.path());
    let manifest = scratch.path().join(MANIFEST);
    let damage: [&dyn Fn(); 3] = [
        &|| fs::remove_file(&manifest).unwrap(),
        &|| fs::write(&manifest, b"\xff\xfe").unwrap(),
        &|| fs::write(&manifest, &whole[MANIFEST][..whole[MANIFEST].len() / 2]).unwrap(),
    ];
    for damage in damage {
        damage();
        goes_on(scratch.path(), 0, None);
        restore(scratch.path(), &whole);
        let all = segments(scratch.path());
        let last = all.last().unwrap();
        // With the last segment gone, what is there ends with a full one.
        damage();
        fs::remove_file(last).unwrap();
        let said = refusal(scratch.path(), 0, None);
        assert!(said.contains("has no manifest"), "{said}");
        let said = refusal(scratch.path(), RECORDS, None);
        assert!(said.contains(&format!("record {RECORDS}")), "{said}");
        let said = refusal(scratch.path(), 0, Some(end));
        assert!(said.contains(&format!("record {RECORDS}")), "{said}");
        // In the middle, the numbers tell.
        restore(scratch.path(), &whole);
        damage();
        fs::remove_file(&all[1]).unwrap();
        let said = refusal(scratch.path(), 0, None);
        assert!(said.contains("is missing"), "{said}");
        restore(scratch.path(), &whole);
    }
}

#[test]
fn an_empty_journal_beside_a_state_or_a_note_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let said = refusal(scratch.path(), 7, None);
    assert!(
        said.contains("is empty") && said.contains("record 7"),
        "{said}"
    );
    let end = End {
        record: 7,
        seq: 9,
        segment: 1,
        bytes: 99,
    };
    assert!(refusal(scratch.path(), 0, Some(end)).contains("record 7"));
    fs::write(scratch.path().join(MANIFEST), "end 0\n").unwrap();
    let journal = check(scratch.path(), Some(end), NEW_EPOCH).unwrap();
    assert!(journal.given_up());
    open(journal);
    goes_on(scratch.path(), 0, None);
}

#[test]
fn records_are_given_up_by_a_persons_word_alone_and_kept_beside() {
    let (scratch, end) = journal();
    let whole = files(scratch.path());
    for last in 0..=RECORDS {
        fs::write(scratch.path().join(MANIFEST), format!("end {last}\n")).unwrap();
        // A segment in the middle may be damaged, as long as it is behind.
        let journal = check(scratch.path(), Some(end), NEW_EPOCH).unwrap();
        assert!(journal.given_up());
        let (reader, _) = open(journal);
        assert_eq!(reader.end().record, last);
        assert_eq!(reader.epoch(), NEW_EPOCH);
        assert_eq!(read_all(&reader), 0);
        drop(reader);
        // It is said once.
        assert!(!check(scratch.path(), None, NEW_EPOCH).unwrap().given_up());
        goes_on(scratch.path(), 0, None);
        let kept: usize = files(scratch.path())
            .iter()
            .filter(|(name, _)| name.contains(".cut-") || name.contains(".aside-"))
            .map(|(_, bytes)| bytes.len())
            .sum();
        assert_eq!(kept == 0, last == RECORDS, "{last}");
        restore(scratch.path(), &whole);
    }
    let said = |text: &str| {
        fs::write(scratch.path().join(MANIFEST), text).unwrap();
        refusal(scratch.path(), 0, None)
    };
    assert!(said("end 21").contains("the last whole one is 20"));
    fs::remove_file(&segments(scratch.path())[1]).unwrap();
    let before = said("end 20");
    assert!(before.contains("write \"end "), "{before}");
}

#[test]
fn what_is_cut_off_the_end_is_kept_and_the_number_of_such_files_is_bounded() {
    let (scratch, end) = journal();
    let last = segments(scratch.path()).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    for number in 0..CUTS_MAX_FILES + 5 {
        let torn = vec![0xAB; 10 + number];
        fs::write(&last, [&whole[..], &torn].concat()).unwrap();
        let (reader, _, _) = try_open(scratch.path(), RECORDS, Some(end)).unwrap();
        assert_eq!(reader.end(), end);
        assert_eq!(fs::read(&last).unwrap(), whole);
        let kept = files(scratch.path());
        assert!(kept.values().any(|bytes| *bytes == torn));
    }
    let kept = files(scratch.path());
    let cuts = kept.keys().filter(|name| name.contains(".cut-")).count();
    assert_eq!(cuts, CUTS_MAX_FILES);
}

#[test]
fn a_segment_left_behind_is_made_anew_if_it_is_empty_and_left_alone_if_it_is_not() {
    for (left_behind, expected) in [
        (&b""[..], Ok(())),
        (b"half a header", Ok(())),
        (&[7; 4096], Err(AppendError::Passing)),
    ] {
        let scratch = TempDir::new().unwrap();
        let journal = check(scratch.path(), None, NEW_EPOCH).unwrap();
        let directory = journal.directory();
        let watch = Arc::new(Watch::new(directory, directory, ".").unwrap());
        let failure = Failure::default();
        let (reader, mut writer) = journal.open(watch, failure.clone(), 5).unwrap();
        let mut record = 0;
        // Until the next record begins a segment.
        while reader.end().bytes < SEGMENT_MAX_BYTES {
            record += 1;
            writer.append(&round(record)).unwrap();
        }
        record += 1;
        let path = scratch.path().join(segment::segment_name(record));
        fs::write(&path, left_behind).unwrap();
        assert_eq!(writer.append(&round(record)), expected);
        assert_eq!(failure.is_declared(), expected.is_err());
        if expected.is_ok() {
            assert_eq!(
                (reader.end().segment, reader.end().record),
                (record, record)
            );
            assert_eq!(read_all(&reader), 0, "unreadable events");
        } else {
            assert_eq!(fs::read(&path).unwrap(), left_behind);
        }
    }
}

#[test]
fn a_manifest_that_cannot_be_written_takes_no_change_until_it_can() {
    let (scratch, _) = journal();
    let whole = files(scratch.path());
    let (reader, mut writer, _) = try_open(scratch.path(), RECORDS, None).unwrap();
    let in_the_way = scratch.path().join("MANIFEST.new");
    fs::create_dir(&in_the_way).unwrap();
    let mut record = RECORDS + 1;
    while writer.append(&round(record)).is_ok() {
        record += 1;
    }
    for _ in 0..3 {
        assert_eq!(writer.append(&round(record)), Err(AppendError::Passing));
    }
    assert_eq!(reader.end().record, record - 1);
    assert_eq!(read_all(&reader), 0);
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(files(scratch.path())[MANIFEST], whole[MANIFEST]);
    for record in record..record + RECORDS {
        writer.append(&round(record)).unwrap();
    }
    drop((reader, writer));
    goes_on(scratch.path(), record + RECORDS - 1, None);
}
