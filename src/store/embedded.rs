//! The embedded store: the journal as the truth, sled as the state that it has built.
//!
//! | in `data_dir` | |
//! |---|---|
//! | `lock` | held by the running daemon |
//! | `journal/` | the data |
//! | `state/` | sled; built again from the journal whenever it cannot be trusted |
//! | `state.old/` | the state before, until a new one is built |
//! | `running` | there while the state may hold writes that are not on the disk: which boot and mount they were made in |
//! | `state.aside-TIME` | a state that had records which a person has given up |
//! | `stopped` | there after a clean stop: where the journal ended, and the state's files as they were left |
//! | `reserve` | room that is given back when the disk is full, so that chatd can still start |
//! | `reserve.deletions` | the same for deletions on a full disk |

use crate::error::Error;
use crate::limits::{BACKLOG_SLICE_ROWS, SEGMENT_MAX_BYTES};
use crate::model::{Events, Id, IdMaker, Seq};
use crate::store::actor::{Backend, CommitError};
use crate::store::backlog::{Backlog, Fronted, Row};
use crate::store::data_dir::{Directory, is_full};
use crate::store::failure::Failure;
use crate::store::format::Format;
use crate::store::journal::{
    AppendError, CheckedJournal, Damage, JournalReader, JournalWriter, Record, begin_audit,
};
use crate::store::lock::{LOCK_FILE, Lock};
use crate::store::modes::{self, Own};
use crate::store::recent::Recent;
use crate::store::room::{DELETIONS_RESERVE_FILE, RESERVE_FILE, Room, Space};
use crate::store::state::{Noted, State};
use crate::store::state_dir::{self, Built, OLD_STATE, RUNNING, STATE, STOPPED, apply};
use crate::store::told::Told;
use crate::store::txn::Round;
use crate::store::watch::Watch;
use crate::store::{OnCommit, OpenError, Settings, Store};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// The directory of the journal.
const JOURNAL: &str = "journal";
/// What chatd makes in a data directory.
const OWN: Own = Own {
    files: &[
        LOCK_FILE,
        RUNNING,
        STOPPED,
        RESERVE_FILE,
        DELETIONS_RESERVE_FILE,
    ],
    directories: &[JOURNAL, STATE, OLD_STATE],
};
/// A row may take at most this part of a sled segment: larger ones would go to files of their own.
const SEGMENT_ROWS: usize = 80;
/// Bytes of the smallest and the largest segment.
const SEGMENT_BYTES: (usize, usize) = (2 * 1024 * 1024, 8 * 1024 * 1024);
/// Changes that a replay applies at once.
const REPLAY_BATCH_CHANGES: usize = 2000;

/// Opens the store in a directory, which is made if it is missing. Cancelled meanwhile, it is an error: what was built
/// of the state is kept, and the next start goes on from there.
pub fn open(
    data_dir: &Path,
    settings: Settings,
    on_commit: OnCommit,
    stop: &CancellationToken,
) -> Result<Store, OpenError> {
    let backend = Embedded::open(data_dir, &settings, stop)?;
    Store::start(Box::new(backend), settings, on_commit)
}

struct Embedded {
    directory: Arc<Directory>,
    /// There until the store is dropped.
    database: Option<sled::Db>,
    /// What it does not have yet.
    backlog: Backlog,
    reader: Arc<JournalReader>,
    writer: Mutex<JournalWriter>,
    /// The newest events.
    recent: Recent,
    /// Damage that the log was told of lately.
    told: Told,
    failure: Failure,
    /// Looks after the paths as long as the store is open.
    _watch: Arc<Watch>,
    room: Room,
    _lock: Lock,
}

impl Embedded {
    fn open(
        data_dir: &Path,
        settings: &Settings,
        stop: &CancellationToken,
    ) -> Result<Self, OpenError> {
        let at = |what: &str, path: &Path| {
            let text = format!("{what} {}", path.display());
            move |error: io::Error| OpenError(format!("{text}: {error}"))
        };
        let directory = Arc::new(find(data_dir, settings.must_exist)?);
        let was_open = modes::mend(&directory, OWN)?;
        let lock = Lock::take(&directory, was_open).map_err(OpenError)?;
        let journal_dir = directory.join(JOURNAL);
        let segment_bytes = (settings.max_message_bytes * SEGMENT_ROWS)
            .next_power_of_two()
            .clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1);
        let room = Room::open(Arc::clone(&directory), segment_bytes);
        let epoch = IdMaker::default().next(settings.clock.now_ms());
        let now_ms = settings.clock.now_ms();
        // Nothing is changed until the journal is known to be whole.
        let noted = state_dir::noted_end(&directory).map_err(at("cannot read", data_dir))?;
        let opened = directory.make_in(JOURNAL);
        let opened = opened.map_err(at("cannot open", &journal_dir))?;
        let journal = CheckedJournal::check(opened, noted, epoch, SEGMENT_MAX_BYTES, stop)
            .map_err(|damage| OpenError(damage.0))?;
        if journal.given_up() {
            state_dir::set_aside(&directory, now_ms)?;
        }
        let database = build(&directory, &journal, segment_bytes, stop)?;
        let failure = Failure::default();
        let watch = Watch::new(&directory, journal.directory(), LOCK_FILE).map(Arc::new);
        let watch = watch.map_err(at("cannot look at", data_dir))?;
        let (reader, writer) = journal
            .open(Arc::clone(&watch), failure.clone(), now_ms)
            .map_err(at("cannot write the journal in", &journal_dir))?;
        begin_audit(&reader);
        let watching = watch.start(failure.clone());
        watching.map_err(at("no thread can be started to look after", data_dir))?;
        Ok(Self {
            directory,
            database: Some(database),
            backlog: Backlog::default(),
            reader,
            writer: Mutex::new(writer),
            recent: Recent::default(),
            told: Told::default(),
            failure,
            _watch: watch,
            room,
            _lock: lock,
        })
    }
}

impl Embedded {
    /// Looks whether a state that could not be read is one of which nothing can be expected any more: after a write that
    /// failed, sled writes nothing, and fails where a read needs it to. Then it is built anew at the next start.
    fn look_at(&self, database: &sled::Db) {
        if let Err(error) = database.flush()
            && !self.failure.is_declared()
        {
            state_dir::note_unusable(&self.directory);
            let why = format!("the state cannot be written: {error}");
            self.failure.declare(&why);
        }
    }
}

impl Backend for Embedded {
    fn commit(&self, round: &Round) -> Result<(), CommitError> {
        if self.failure.is_declared() {
            return Err(CommitError::Unavailable);
        }
        let bytes: usize = round
            .changes
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, |v| v.len()))
            .sum();
        if !self.room.admits(bytes as u64, round.deletes) {
            return Err(CommitError::Full);
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match writer.append(round) {
            Ok(()) => {}
            Err(AppendError::Full) => return Err(CommitError::Full),
            Err(AppendError::Passing) => return Err(CommitError::Unavailable),
            Err(AppendError::InDoubt) => return Err(CommitError::InDoubt),
        }
        match self.backlog.take(round) {
            None => self.write(&round.changes)?,
            Some(now) => self.write_backlog(now)?,
        }
        self.recent.add(&round.events);
        Ok(())
    }

    fn allow_format(&self, format: Format) -> io::Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.allow(format)
    }

    fn space(&self) -> Space {
        self.room.space()
    }

    fn read(&self, read: &mut dyn FnMut(&dyn State)) {
        if let Some(database) = &self.database {
            let (backlog, tree) = (&self.backlog, &Noted::new(database));
            read(&Fronted { backlog, tree });
            if tree.has_failed() {
                self.look_at(database);
            }
        }
    }

    fn settle(&self) -> bool {
        let failed = self.failure.is_declared() || self.write_backlog(BACKLOG_SLICE_ROWS).is_err();
        failed || self.backlog.is_empty()
    }

    fn epoch(&self) -> Id {
        self.reader.epoch()
    }

    fn failure(&self) -> &Failure {
        &self.failure
    }

    fn oldest(&self, since_ms: u64) -> Seq {
        self.reader.oldest(since_ms)
    }

    fn events_from(&self, seq: Seq) -> Result<Option<Events>, Error> {
        self.reader.events_from(seq).map_err(|damage| {
            self.told.tell(&damage.0);
            Error::unavailable()
        })
    }

    fn at_hand(&self, since_ms: u64, seq: Seq) -> Option<(Seq, Events)> {
        let oldest = self.reader.known_oldest(since_ms)?;
        Some((oldest, self.recent.starting_at(seq.max(oldest))?))
    }
}

impl Embedded {
    /// Writes rows into the state's tree that the journal has.
    fn write(&self, rows: &[Row]) -> Result<(), CommitError> {
        let applied = match &self.database {
            Some(database) => apply(database, rows).map_err(|error| error.to_string()),
            None => Err("it is closed".to_owned()),
        };
        applied.map_err(|error| {
            // The rows are in the journal, so they count; but this process can no longer show them to anyone. The state
            // is built anew at the next start.
            state_dir::note_unusable(&self.directory);
            let why = format!("the state cannot be written: {error}");
            self.failure.declare(&why);
            CommitError::InDoubt
        })
    }

    /// Writes so many rows of the backlog.
    fn write_backlog(&self, rows: usize) -> Result<(), CommitError> {
        if rows == 0 || self.backlog.is_empty() {
            return Ok(());
        }
        let slice = self.backlog.slice(rows);
        self.write(&slice)?;
        self.backlog.written(&slice);
        Ok(())
    }
}

impl Drop for Embedded {
    /// Lets sled write the rest, brings it to the disk, and notes how its files were left.
    fn drop(&mut self) {
        let database = self.database.take();
        if self.failure.is_declared() {
            // sled opens files by their paths, which may name another's by now. The process is about to end.
            std::mem::forget(database);
            return;
        }
        drop(database);
        if let Err(error) = state_dir::note_stopped(&self.directory, self.reader.end()) {
            tracing::warn!(%error, "the clean stop could not be noted; the state is checked at the next start");
        }
    }
}

/// Opens the data directory. One without data is begun anew, and that is said, unless there must be some.
fn find(data_dir: &Path, must_exist: bool) -> Result<Directory, OpenError> {
    let path = data_dir.display();
    let cannot = |what: &str, error: io::Error| OpenError(format!("cannot {what} {path}: {error}"));
    let found = match Directory::open_path(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened.map_err(|error| cannot("open the data directory", error))?),
    };
    let has_data = match &found {
        Some(found) => {
            modes::check(found, OWN)?;
            has_data(found).map_err(|error| cannot("look into", error))?
        }
        None => false,
    };
    match found {
        Some(found) if has_data => Ok(found),
        _ if must_exist => Err(OpenError(format!(
            "there is no chatd data in {path}, and must_exist = true says that there must be: is its disk mounted? \
             To begin anew there, start once with must_exist = false"
        ))),
        _ => {
            tracing::info!(data_dir = %path, "the data directory is new: there is nothing stored yet");
            let made = Directory::make(data_dir);
            let made = made.map_err(|error| cannot("make the data directory", error))?;
            modes::check(&made, OWN)?;
            Ok(made)
        }
    }
}

fn has_data(directory: &Directory) -> io::Result<bool> {
    for name in [JOURNAL, STATE, OLD_STATE] {
        match directory.open_in(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(inner) if inner.names()?.is_empty() => {}
            Ok(_) => return Ok(true),
        }
    }
    Ok(false)
}

/// What is said where the daemon stops before the state is built.
const UNBUILT: &str = "the state is not built yet; the next start goes on from there";

/// Why the state could not be brought up to the journal.
enum Unbuilt {
    /// The journal cannot be read.
    Journal(Damage),
    /// The state cannot be written.
    State(sled::Error),
    /// It was to stop.
    Stopped,
}

/// Opens the state, and brings it up to the journal. A state that was put aside is removed once the new one is built.
fn build(
    directory: &Directory,
    journal: &CheckedJournal,
    segment_bytes: usize,
    stop: &CancellationToken,
) -> Result<sled::Db, OpenError> {
    let Built { database, applied } = state_dir::open(directory, segment_bytes)?;
    let old = state_dir::old(directory)?;
    let damaged = |damage: Damage| match &old {
        Some(old) => OpenError(format!(
            "{}; the state before is kept in {}",
            damage.0,
            old.display()
        )),
        None => OpenError(damage.0),
    };
    let full = |error: &sled::Error| matches!(error, sled::Error::Io(error) if is_full(error));
    let unwritable =
        |error: sled::Error| OpenError(format!("the state cannot be written: {error}"));
    // It may be damaged; but a record that it has was in the journal.
    let applied_by_old = state_dir::applied_by_old(directory, segment_bytes)?;
    let most = applied_by_old.map_or(applied, |by_old| by_old.max(applied));
    journal.allows(most).map_err(damaged)?;
    match replay(&database, journal, applied, stop) {
        Ok(()) => {}
        Err(Unbuilt::State(error)) if old.is_some() && full(&error) => {
            drop(database);
            // The old state may go first, but only where the journal is known to be whole.
            let go_on = |_| {
                let stopped = stop.is_cancelled();
                let stopped = stopped.then(|| Damage(UNBUILT.to_owned()));
                stopped.map_or(Ok(()), Err)
            };
            journal.replay(1, go_on).map_err(damaged)?;
            tracing::warn!(
                "the disk is full: the state before is removed, to make room for the new one"
            );
            state_dir::put_aside(directory, "the disk is full")?;
            state_dir::remove_old(directory)?;
            return build(directory, journal, segment_bytes, stop);
        }
        Err(Unbuilt::State(error)) => return Err(unwritable(error)),
        Err(Unbuilt::Stopped) => {
            // Dropped, sled writes what it has. So the next start goes on from there, after a boot too.
            drop(database);
            if let Err(error) = state_dir::note_stopped(directory, journal.end()) {
                tracing::warn!(%error, "what was built of the state could not be noted");
            }
            return Err(OpenError(UNBUILT.to_owned()));
        }
        Err(Unbuilt::Journal(damage)) => return Err(damaged(damage)),
    }
    if old.is_some() {
        database.flush().map_err(unwritable)?;
        state_dir::remove_old(directory)?;
    }
    Ok(database)
}

/// Applies what the journal has beyond record `applied`.
fn replay(
    database: &sled::Db,
    journal: &CheckedJournal,
    applied: u64,
    stop: &CancellationToken,
) -> Result<(), Unbuilt> {
    let began = Instant::now();
    let mut told = began;
    let mut count: u64 = 0;
    let mut pending = Vec::new();
    let mut unbuilt = None;
    let read = journal.replay(applied + 1, |record: Record| {
        count += 1;
        pending.extend(record.changes);
        if pending.len() >= REPLAY_BATCH_CHANGES {
            // In one batch the last change of a key counts.
            let applied = apply(database, &std::mem::take(&mut pending));
            unbuilt = match applied {
                Err(error) => Some(Unbuilt::State(error)),
                Ok(()) => stop.is_cancelled().then_some(Unbuilt::Stopped),
            };
            if unbuilt.is_some() {
                return Err(Damage("it is read no further".to_owned()));
            }
            if told.elapsed().as_secs() >= 5 {
                told = Instant::now();
                tracing::info!(
                    records = count,
                    at_record = record.at.record,
                    "building the state from the journal"
                );
            }
        }
        Ok(())
    });
    match (read, unbuilt) {
        (Err(_), Some(unbuilt)) => return Err(unbuilt),
        (Err(damage), None) => return Err(Unbuilt::Journal(damage)),
        (Ok(()), _) => {}
    }
    apply(database, &pending).map_err(Unbuilt::State)?;
    if count > 0 {
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            records = count,
            took_ms,
            "brought the state up to the journal"
        );
    }
    Ok(())
}
