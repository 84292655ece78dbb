//! Damage that those who read stored events meet.

use super::*;
use crate::store::journal::format;

/// Whether the record around a byte of a segment has events; without, nobody who reads events needs it.
fn has_events(segment: &[u8], at: usize) -> bool {
    let mut begin = format::HEADER_BYTES;
    loop {
        let length = u32::from_le_bytes(segment[begin..begin + 4].try_into().unwrap());
        let end = begin + format::FRAME_BYTES + length as usize;
        if at < end {
            let payload = &segment[begin + format::FRAME_BYTES..end];
            return format::decode_prefix(payload).unwrap().events > 0;
        }
        begin = end;
    }
}

#[test]
fn a_changed_bit_is_refused_at_the_start_or_told_to_those_who_read_there() {
    let (scratch, end) = journal();
    let whole = files(scratch.path());
    let all = segments(scratch.path());
    for (index, segment) in all.iter().enumerate() {
        let open = index + 1 == all.len();
        let bytes = fs::read(segment).unwrap();
        // Every third byte, and every bit in turn.
        for at in (0..bytes.len()).step_by(3) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(segment, &changed).unwrap();
            let unused = (44..48).contains(&at);
            // A state that is built anew reads everything.
            let rebuilt = try_open(scratch.path(), 0, Some(end));
            assert_eq!(
                rebuilt.is_ok(),
                unused,
                "byte {at} of {}",
                segment.display()
            );
            match try_open(scratch.path(), RECORDS, Some(end)) {
                Ok((reader, _, _)) => {
                    assert!(!open || unused, "byte {at}");
                    let told = read_all(&reader) > 0;
                    assert!(told || unused || !has_events(&bytes, at), "byte {at}");
                    // The newest ones do not need it.
                    assert!(reader.events_from(seq_at(RECORDS)).is_ok());
                }
                Err(damage) => assert!(open || at < 48, "{}", damage.0),
            }
        }
        restore(scratch.path(), &whole);
    }
}

#[test]
fn a_file_that_goes_away_under_a_reader_is_told_and_the_others_are_read_on() {
    let (scratch, _) = journal();
    let (reader, _, _) = try_open(scratch.path(), RECORDS, None).unwrap();
    let all = segments(scratch.path());
    fs::remove_file(&all[1]).unwrap();
    let file = fs::File::options().write(true).open(&all[2]).unwrap();
    file.set_len(100).unwrap();
    assert!(reader.events_from(1).is_ok());
    assert!(reader.events_from(seq_at(RECORDS)).is_ok());
    assert!(read_all(&reader) > 0);
    // Damage has not expired: a gap would cover it.
    let begins = |path: &PathBuf| -> u64 {
        let name = path.file_stem().unwrap().to_str().unwrap();
        name.parse().unwrap()
    };
    let first = seq_at(begins(&all[1]) - 1) + 1;
    assert_eq!(reader.oldest(1000 + begins(&all[1]) + 1), first);
}

#[test]
fn the_index_finds_what_stands_behind_damage() {
    const LINE_BYTES: usize = 100_000;
    let scratch = tempfile::tempdir().unwrap();
    let (reader, mut writer) = open(check(scratch.path(), None, EPOCH).unwrap());
    let large = |record: u64| {
        let mut round = round(1);
        (round.head.record, round.head.seq) = (record, record);
        round.head.time = 1000 + record;
        round.events.truncate(1);
        round.events[0].seq = record;
        round.events[0].line = vec![b'x'; LINE_BYTES].into();
        round
    };
    writer.grow_to(u64::MAX);
    for record in 1..=60 {
        writer.append(&large(record)).unwrap();
    }
    writer.grow_to(0);
    writer.append(&large(61)).unwrap();
    drop((reader, writer));
    let (reader, _, _) = try_open(scratch.path(), 61, None).unwrap();
    // The length of a record in the middle, by which those behind it would be found.
    let path = &segments(scratch.path())[0];
    let mut bytes = fs::read(path).unwrap();
    let frame = (bytes.len() - 48) / 60 * 30 + 48;
    bytes[frame] ^= 1;
    fs::write(path, &bytes).unwrap();
    let readable = |seq| match reader.events_from(seq) {
        Ok(Some(events)) => events[0].seq == seq,
        Ok(None) => panic!("{seq} is passed over"),
        Err(damage) => {
            assert!(
                damage.0.contains(&format!("at byte {frame}")),
                "{}",
                damage.0
            );
            false
        }
    };
    let found: Vec<bool> = (1..=61).map(readable).collect();
    assert!(found[..30].iter().all(|&readable| readable));
    assert!(!found[30], "it was read");
    assert!(found[31..].iter().all(|&readable| readable));
    // Neither counts as expired, whatever comes after.
    assert_eq!(reader.oldest(1000 + 31), 31);
    assert_eq!(reader.oldest(1000 + 45), 45);
}
