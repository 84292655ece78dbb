//! Reading stored events while the journal grows. Every record that is read is checked: its length, its sum, and that it
//! follows on the one before it.

use super::Damage;
use super::end::End;
use super::format::{HEADER_BYTES, Header, Next, decode_events};
use super::manifest::{Manifest, Named};
use super::pieces::{Piece, Pieces};
use super::records::{Records, Skim, Step};
use super::segment::{Index, Mark, Seal, Segment};
use crate::limits::INDEX_EVERY_BYTES;
use crate::model::{Events, Gathered, Id, Seq};
use crate::store::data_dir::Directory;
use crate::store::format::Format;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The journal as it can be read: everything that is on stable storage, and no more.
#[derive(Debug)]
pub struct JournalReader {
    directory: Directory,
    epoch: Id,
    state: Mutex<Extent>,
    /// What was read lately.
    pieces: Pieces,
}

/// How far the journal goes.
#[derive(Debug)]
struct Extent {
    /// The newest format that its rows may be in.
    format: Format,
    segments: Vec<Arc<Segment>>,
    end: End,
    /// The oldest event that is kept, as it was last looked for.
    oldest: Option<Oldest>,
}

/// The oldest event whose round is not older than a time.
#[derive(Clone, Copy, Debug)]
struct Oldest {
    /// The time that was asked for.
    since_ms: u64,
    /// When the event's round was decided.
    time: u64,
    seq: Seq,
}

/// A segment as far as it can be read.
struct Stretch {
    segment: Arc<Segment>,
    /// Where its whole records end.
    bytes: u64,
    /// What comes behind them.
    behind: Next,
    /// Whether another segment follows.
    followed: bool,
}

impl JournalReader {
    pub(super) fn new(
        directory: Directory,
        (epoch, format): (Id, Format),
        segments: Vec<Arc<Segment>>,
        end: End,
    ) -> Self {
        Self {
            directory,
            epoch,
            state: Mutex::new(Extent {
                format,
                segments,
                end,
                oldest: None,
            }),
            pieces: Pieces::default(),
        }
    }

    /// Where the journal is.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Which log the journal is.
    #[must_use]
    pub fn epoch(&self) -> Id {
        self.epoch
    }

    /// The end of the journal.
    #[must_use]
    pub fn end(&self) -> End {
        self.lock().end
    }

    /// The segments that are written to no more.
    pub(super) fn sealed(&self) -> Vec<(Arc<Segment>, Seal)> {
        let extent = self.lock();
        let sealed = extent.segments.iter();
        sealed
            .filter_map(|segment| Some((Arc::clone(segment), segment.seal()?)))
            .collect()
    }

    /// The newest format that its rows may be in.
    pub(super) fn format(&self) -> Format {
        self.lock().format
    }

    /// Lets its rows be in another format.
    pub(super) fn set_format(&self, format: Format) {
        self.lock().format = format;
    }

    /// The manifest as it is, or with the last segment sealed and another one behind it.
    pub(super) fn manifest(&self, seal: Option<Seal>, open: Option<Header>) -> Manifest {
        let extent = self.lock();
        let mut named: Vec<Named> = extent
            .segments
            .iter()
            .map(|segment| Named {
                epoch: segment.header.epoch,
                begins: segment.header.begins(),
                seal: segment.seal().or(seal),
            })
            .collect();
        named.extend(open.map(|header| Named {
            epoch: header.epoch,
            begins: header.begins(),
            seal: None,
        }));
        let open = named.pop();
        Manifest {
            format: extent.format,
            sealed: named,
            open,
        }
    }

    pub(super) fn add_segment(&self, seal: Option<Seal>, header: Header) {
        let mut extent = self.lock();
        if let (Some(last), Some(seal)) = (extent.segments.last(), seal) {
            last.close(seal);
        }
        let segment = Segment::new(header, None, Some(Index::default()));
        extent.segments.push(Arc::new(segment));
        extent.end.segment = header.first_record;
        extent.end.bytes = HEADER_BYTES as u64;
    }

    pub(super) fn publish(&self, written: Mark, bytes: u64, next: Next) {
        let mut extent = self.lock();
        if let Some(last) = extent.segments.last() {
            last.note(written);
        }
        extent.end = End {
            record: next.record - 1,
            seq: next.seq - 1,
            bytes,
            ..extent.end
        };
    }

    fn lock(&self) -> MutexGuard<'_, Extent> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last segment for which something holds that holds for all before it too; the first one if there is none.
    fn stretch(&self, holds: impl Fn(&Segment) -> bool) -> Option<Stretch> {
        let extent = self.lock();
        let index = extent
            .segments
            .partition_point(|segment| holds(segment))
            .saturating_sub(1);
        let segment = extent.segments.get(index)?;
        let sealed = segment.seal();
        Some(Stretch {
            segment: Arc::clone(segment),
            bytes: sealed.map_or(extent.end.bytes, |seal| seal.bytes),
            behind: sealed.map_or(extent.end.next(), |seal| seal.next),
            followed: sealed.is_some(),
        })
    }

    /// The number of the oldest event whose round is not older than `since_ms`; one above the newest if there is none.
    ///
    /// What cannot be read counts as kept: nobody is told that it has expired.
    pub fn oldest(&self, since_ms: u64) -> Seq {
        if let Some(known) = self.known_oldest(since_ms) {
            return known;
        }
        let (seq, time) = self.find_oldest(since_ms);
        self.lock().oldest = Some(Oldest {
            since_ms,
            time,
            seq,
        });
        seq
    }

    /// What [`JournalReader::oldest`] gives, if it is known without reading.
    pub fn known_oldest(&self, since_ms: u64) -> Option<Seq> {
        let extent = self.lock();
        let known = extent.oldest.filter(|known| {
            known.since_ms <= since_ms && (since_ms <= known.time || known.seq > extent.end.seq)
        })?;
        Some(known.seq)
    }

    /// The oldest event not older than a time, and when its round was decided.
    fn find_oldest(&self, since_ms: u64) -> (Seq, u64) {
        // The last segment begun before the bound may still hold records from after it.
        let mut stretch = self.stretch(|segment| segment.header.time < since_ms);
        while let Some(here) = stretch {
            if let Some(found) = self.oldest_in(&here, since_ms) {
                return found;
            }
            let behind = here.behind.record;
            stretch = here
                .followed
                .then(|| self.stretch(|segment| segment.header.first_record <= behind))
                .flatten();
        }
        // As soon as there is a newer one it is looked for again.
        (self.end().seq + 1, since_ms)
    }

    /// The oldest event of a segment that is not older than a time, if it has one.
    fn oldest_in(&self, here: &Stretch, since_ms: u64) -> Option<(Seq, u64)> {
        let unreadable = |next: Next, damage: &Damage| {
            tracing::debug!(
                error = damage.0,
                "expired events cannot be told from others"
            );
            Some((next.seq, since_ms))
        };
        let mut next = here.segment.header.begins();
        let search = || -> Result<_, Damage> {
            let mark = here.segment.look_up(&self.directory, here.bytes, |index| {
                index.last_where(|mark| mark.time < since_ms)
            })?;
            let mut records =
                Records::open(&self.directory, &here.segment.name(), Some(here.bytes))?;
            if let Some(mark) = mark {
                records.go_to(mark.offset)?;
            }
            Ok((records, mark))
        };
        let (mut records, mark) = match search() {
            Ok(found) => found,
            Err(damage) => return unreadable(next, &damage),
        };
        next = mark.map_or(next, |mark| mark.next);
        while next != here.behind {
            let at = match records.skim() {
                Ok(Skim::Record(at)) => at,
                Ok(_) => return unreadable(next, &records.damaged(next)),
                Err(damage) => return unreadable(next, &damage),
            };
            let Some(behind) = next.behind(&at) else {
                return unreadable(next, &records.damaged(next));
            };
            if at.time >= since_ms {
                return Some((at.first_seq, at.time));
            }
            next = behind;
        }
        None
    }

    /// Stored events from `seq` on, as many as are read at once; none if there are none yet.
    ///
    /// What cannot be read is an error once it comes first.
    pub fn events_from(&self, seq: Seq) -> Result<Option<Events>, Damage> {
        let mut stretch = self.stretch(|segment| segment.header.first_seq <= seq);
        while let Some(here) = stretch {
            if seq >= here.behind.seq && !here.followed {
                return Ok(None);
            }
            let find = |index: &Index| index.last_where(|mark| mark.next.seq <= seq);
            let mut mark = here.segment.look_up(&self.directory, here.bytes, find)?;
            loop {
                let piece = self.piece(&here, mark)?;
                if let Some(found) = piece.events.starting_at(seq) {
                    return Ok(Some(found));
                }
                if let Some(damage) = &piece.damage {
                    return Err(Damage(damage.clone()));
                }
                if piece.behind == here.behind {
                    break;
                }
                // Rounds without events may fill much.
                mark = Some(Mark {
                    offset: piece.end,
                    next: piece.behind,
                    time: 0,
                });
            }
            let behind = here.behind.record;
            stretch = here
                .followed
                .then(|| self.stretch(|segment| segment.header.first_record <= behind))
                .flatten();
        }
        Ok(None)
    }

    /// The events of a segment from a mark on, decoded once for all who read there.
    fn piece(&self, here: &Stretch, mark: Option<Mark>) -> Result<Arc<Piece>, Damage> {
        let offset = mark.map_or(HEADER_BYTES as u64, |mark| mark.offset);
        let next = mark.map_or(here.segment.header.begins(), |mark| mark.next);
        self.pieces.get(
            (here.segment.header.first_record, offset),
            // One that was read at the end of the journal may have more behind it by now.
            |piece| piece.full || piece.behind == here.behind,
            || self.read_piece(here, offset, next),
        )
    }

    fn read_piece(&self, here: &Stretch, offset: u64, mut next: Next) -> Result<Piece, Damage> {
        let mut records = Records::open(&self.directory, &here.segment.name(), Some(here.bytes))?;
        records.go_to(offset)?;
        let mut events = Gathered::default();
        let mut damage = None;
        while next != here.behind && records.offset() < offset + INDEX_EVERY_BYTES {
            let Step::Record(whole) = records.read(next)? else {
                damage = Some(records.damaged(next).0);
                break;
            };
            let decoded = decode_events(&whole.payload).map_err(|_| records.unknown(&whole))?;
            for event in decoded {
                events.push(event);
            }
            next = whole.next;
        }
        Ok(Piece {
            events: events.finish(),
            end: records.offset(),
            behind: next,
            full: damage.is_none() && records.offset() >= offset + INDEX_EVERY_BYTES,
            damage,
        })
    }
}
