//! `MANIFEST`: which segments the journal has, so that one that is missing or cut is noticed.
//!
//! It is text that a person can read, with a sum of its own, and is replaced as a whole. It names every sealed segment
//! with its length, its records and events and a sum over the whole file, and the open one with what it begins with.
//!
//! A new segment is made before the manifest names it, and is written to only afterwards. So a segment that the manifest
//! names was there; and one behind it, without a record, is what a crash in between has left.
//!
//! Where rows are written in a format that an older chatd does not know, it says so, and which version reads it: who does not
//! know that format opens nothing.
//!
//! A person may put `end N` in its place: the journal ends with record N, and what was behind it is given up.

use super::Damage;
use super::format::{Header, Next};
use super::segment::Seal;
use crate::model::Id;
use crate::store::data_dir::Directory;
use crate::store::format::{self, Format};
use std::fmt::Write;
use std::io;

/// The name of its file.
pub const MANIFEST: &str = "MANIFEST";
const TITLE: &str = "chatd journal manifest 1";
const NOTE: &str = "# chatd writes this file. sealed: first and last record, first and last seq, bytes, CRC-32C of the file; open: first record, first seq.";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The newest format that rows may be in.
    pub format: Format,
    /// The segments that are written to no more, in order.
    pub sealed: Vec<Named>,
    /// The one that is written to.
    pub open: Option<Named>,
}

/// A segment as the manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Which log it belongs to.
    pub epoch: Id,
    /// Its first record and event.
    pub begins: Next,
    /// How it ends, if it is sealed.
    pub seal: Option<Seal>,
}

impl Named {
    /// Whether a segment's header is the one that was named.
    pub fn is(&self, header: &Header) -> bool {
        self.epoch == header.epoch && self.begins == header.begins()
    }
}

/// Why the text is no manifest.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is not as it was written.
    Damaged(String),
    /// A newer chatd wrote it: the number of its format, and the version that reads it, if it says so.
    Newer(u64, Option<String>),
}

/// What stands in the manifest's place.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A manifest.
    Manifest(Manifest),
    /// A person's word that the journal ends with this record.
    End(u64),
}

impl Found {
    /// Whether it names a segment, by its first record.
    pub fn names(&self, first_record: u64) -> bool {
        match self {
            Self::Manifest(manifest) => manifest
                .sealed
                .iter()
                .chain(&manifest.open)
                .any(|named| named.begins.record == first_record),
            Self::End(_) => false,
        }
    }
}

impl Manifest {
    /// What stands in the manifest's place in a directory, or why there is nothing.
    pub fn find(directory: &Directory) -> Result<(Option<Found>, String), Damage> {
        let text = match directory.read(MANIFEST) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let why = "it is missing, or the journal is of an older chatd";
                return Ok((None, why.to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok((None, "it is damaged: it is no text".to_owned()));
            }
            Err(error) => {
                let path = directory.join(MANIFEST);
                return Err(Damage(format!(
                    "{} cannot be read: {error}",
                    path.display()
                )));
            }
        };
        Ok(match Manifest::decode(&text) {
            Ok(found) => (Some(found), String::new()),
            Err(Unread::Damaged(why)) => (None, format!("it is damaged: {why}")),
            Err(Unread::Newer(number, since)) => {
                let what = format!("the journal in {}", directory.path().display());
                return Err(Damage(format::newer(&what, number, since.as_deref())));
            }
        })
    }

    /// The text of the file.
    pub fn encode(&self) -> String {
        let mut text = format!("{TITLE}\n{NOTE}\n");
        if self.format != Format::POSTCARD {
            let _ = writeln!(text, "format {} {}", self.format, self.format.since());
        }
        let mut epoch = None;
        for named in self.sealed.iter().chain(&self.open) {
            if epoch != Some(named.epoch) {
                epoch = Some(named.epoch);
                let _ = writeln!(text, "epoch {}", named.epoch);
            }
            let Next { record, seq } = named.begins;
            let _ = match &named.seal {
                Some(seal) => writeln!(
                    text,
                    "sealed {record} {} {seq} {} {} {:08x}",
                    seal.next.record - 1,
                    seal.next.seq - 1,
                    seal.bytes,
                    seal.sum,
                ),
                None => writeln!(text, "open {record} {seq}"),
            };
        }
        let sum = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "sum {sum:08x}");
        text
    }

    /// Reads the text of the file; an error says what is wrong with it.
    pub fn decode(text: &str) -> Result<Found, Unread> {
        let damaged = |why: &str| Unread::Damaged(why.to_owned());
        if let Some(number) = text.trim().strip_prefix("end ") {
            let number = number.trim().parse();
            return number
                .map(Found::End)
                .map_err(|_| damaged("after \"end\" comes the number of a record"));
        }
        let (body, sum) = text
            .trim_end_matches('\n')
            .rsplit_once('\n')
            .ok_or_else(|| damaged("it is cut off"))?;
        let body_bytes = body.len() + 1;
        let sum = sum
            .strip_prefix("sum ")
            .and_then(|sum| u32::from_str_radix(sum, 16).ok())
            .ok_or_else(|| damaged("it is cut off"))?;
        if crc32c::crc32c(&text.as_bytes()[..body_bytes]) != sum {
            return Err(damaged("its sum is wrong"));
        }
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return Err(Unread::Newer(u64::from(Format::NEWEST.number()) + 1, None));
        }
        let mut found = Self {
            format: Format::POSTCARD,
            sealed: Vec::new(),
            open: None,
        };
        let mut epoch = None;
        for line in lines.filter(|line| !line.starts_with('#')) {
            let unknown = || Unread::Damaged(format!("this line is unknown: {line}"));
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                ["format", number, since] => {
                    let number: u64 = number.parse().map_err(|_| unknown())?;
                    let known = u8::try_from(number).ok().and_then(Format::known);
                    found.format = known.ok_or(Unread::Newer(number, Some(since.to_owned())))?;
                }
                ["epoch", text] => epoch = Some(Id::parse(text).ok_or_else(unknown)?),
                ["open" | "sealed", ..] => {
                    let epoch = epoch.ok_or_else(unknown)?;
                    let named = named(epoch, &words).ok_or_else(unknown)?;
                    match named.seal {
                        Some(_) => found.sealed.push(named),
                        None => found.open = Some(named),
                    }
                }
                _ => return Err(unknown()),
            }
        }
        if found.open.is_none() {
            return Err(damaged("it names no open segment"));
        }
        Ok(Found::Manifest(found))
    }
}

fn named(epoch: Id, words: &[&str]) -> Option<Named> {
    let number = |word: &str| word.parse::<u64>().ok();
    let begins = |record, seq| {
        Some(Next {
            record: number(record)?,
            seq: number(seq)?,
        })
    };
    match *words {
        ["open", record, seq] => Some(Named {
            epoch,
            begins: begins(record, seq)?,
            seal: None,
        }),
        ["sealed", record, last_record, seq, last_seq, bytes, sum] => {
            let last = begins(last_record, last_seq)?;
            let seal = Seal {
                bytes: number(bytes)?,
                next: Next {
                    record: last.record.checked_add(1)?,
                    seq: last.seq.checked_add(1)?,
                },
                sum: u32::from_str_radix(sum, 16).ok()?,
            };
            Some(Named {
                epoch,
                begins: begins(record, seq)?,
                seal: Some(seal),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Manifest {
        let named = |epoch, record, seq, seal| Named {
            epoch: Id(epoch),
            begins: Next { record, seq },
            seal,
        };
        let seal = |bytes, record, seq| {
            Some(Seal {
                bytes,
                next: Next { record, seq },
                sum: 0xabc,
            })
        };
        Manifest {
            format: Format::NEWEST,
            sealed: vec![
                named(7, 1, 1, seal(100, 9, 1)),
                named(7, 9, 1, seal(200, 20, 400)),
            ],
            open: Some(named(8, 20, 400, None)),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let text = example().encode();
        assert_eq!(
            Manifest::decode(&text),
            Ok(Found::Manifest(example())),
            "{text}"
        );
        let older = Manifest {
            format: Format::POSTCARD,
            ..example()
        };
        assert!(!older.encode().contains("format"));
        assert_eq!(
            Manifest::decode(&older.encode()),
            Ok(Found::Manifest(older))
        );
        assert_eq!(Manifest::decode("end 12\n"), Ok(Found::End(12)));
        assert!(Manifest::decode("end of it").is_err());
    }

    #[test]
    fn every_changed_or_missing_byte_of_a_manifest_is_noticed() {
        let text = example().encode();
        for length in 0..text.len() - 1 {
            assert!(Manifest::decode(&text[..length]).is_err(), "{length}");
        }
        for index in 0..text.len() - 1 {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[index] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                // The case of the sum's own digits tells nothing.
                if !changed.eq_ignore_ascii_case(&text) {
                    assert!(Manifest::decode(&changed).is_err(), "{changed}");
                }
            }
        }
    }

    /// A manifest that a newer chatd may write: the text is changed, and its sum is right.
    fn of_a_newer_chatd(change: impl Fn(&str) -> String) -> String {
        let text = change(&example().encode());
        let (body, _) = text.rsplit_once("sum ").unwrap();
        format!("{body}sum {:08x}\n", crc32c::crc32c(body.as_bytes()))
    }

    #[test]
    fn a_manifest_of_a_newer_chatd_is_not_taken_for_a_damaged_one() {
        let line = format!("format {} {}", Format::NEWEST, Format::NEWEST.since());
        let newer = of_a_newer_chatd(|text| text.replace(&line, "format 77 4.5.0"));
        let said = Err(Unread::Newer(77, Some("4.5.0".to_owned())));
        assert_eq!(Manifest::decode(&newer), said);
        let another = of_a_newer_chatd(|text| text.replace("manifest 1", "manifest 2"));
        let said = Manifest::decode(&another);
        assert!(matches!(said, Err(Unread::Newer(3, None))), "{said:?}");
    }
}
