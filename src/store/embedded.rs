//! The embedded store: the journal as the truth, sled as the state that it has built.
//!
//! | in `data_dir` | |
//! |---|---|
//! | `lock` | held by the running daemon |
//! | `journal/` | the data |
//! | `state/` | sled; thrown away and built again from the journal whenever it cannot be trusted |
//! | `running` | there while the state may hold writes that are not on the disk: which boot and mount they were made in |
//! | `stopped` | there after a clean stop: the state's files as they were left |
//! | `reserve` | room that is given back when the disk is full, so that chatd can still start |

use crate::error::Error;
use crate::model::{Event, Id, IdMaker, Seq};
use crate::store::actor::{Backend, CommitError};
use crate::store::data_dir::{Directory, Lock, Residence};
use crate::store::journal::{AppendError, Damage, JournalReader, JournalWriter, Place, Record};
use crate::store::room::Room;
use crate::store::rows::{self, FORMAT_VERSION, Head};
use crate::store::state::State;
use crate::store::txn::Round;
use crate::store::{OnCommit, OpenError, Settings, Store, keys};
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The directory of the journal.
const JOURNAL: &str = "journal";
/// The directory of the state.
const STATE: &str = "state";
/// Bytes of sled's cache.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Milliseconds between sled's own flushes: they only shorten the replay after a crash.
const FLUSH_MS: u64 = 1000;
/// A row may take at most this part of a sled segment: larger ones would go to files of their own.
const SEGMENT_ROWS: usize = 80;
/// Bytes of the smallest and the largest segment.
const SEGMENT_BYTES: (usize, usize) = (2 * 1024 * 1024, 8 * 1024 * 1024);
/// Changed keys for each collection of the garbage that a batch makes.
const KEYS_PER_FLUSH: usize = 64;
/// Changes that a replay applies at once.
const REPLAY_BATCH_CHANGES: usize = 2000;

/// Opens the store in a directory, which is made if it is missing.
pub fn open(data_dir: &Path, settings: Settings, on_commit: OnCommit) -> Result<Store, OpenError> {
    let backend = Embedded::open(data_dir, &settings)?;
    Store::start(Box::new(backend), settings, on_commit)
}

struct Embedded {
    directory: Arc<Directory>,
    /// There until the store is dropped.
    database: Option<sled::Db>,
    reader: Arc<JournalReader>,
    writer: Mutex<JournalWriter>,
    failed: AtomicBool,
    room: Room,
    _lock: Lock,
}

impl Embedded {
    fn open(data_dir: &Path, settings: &Settings) -> Result<Self, OpenError> {
        let at = |what: &str, path: &Path| {
            let text = format!("{what} {}", path.display());
            move |error: io::Error| OpenError(format!("{text}: {error}"))
        };
        let cannot_open = at("cannot make the data directory", data_dir);
        let directory = Arc::new(Directory::make(data_dir).map_err(cannot_open)?);
        let lock = Lock::take(&directory).map_err(OpenError)?;
        let journal_dir = directory.join(JOURNAL);
        let state_dir = data_dir.join(STATE);
        let segment_bytes = (settings.max_message_bytes * SEGMENT_ROWS)
            .next_power_of_two()
            .clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1);
        let room = Room::open(Arc::clone(&directory), segment_bytes);
        if let Err(why) = trust(&directory) {
            discard(&directory, &why)?;
        }
        let running = Residence::of(&directory).map_err(at("cannot read", data_dir))?;
        if directory.read("running").ok().as_ref() != Some(&running.text()) {
            directory
                .write_synced("running", &running.text())
                .map_err(at("cannot write to", data_dir))?;
        }
        let _ = directory.remove("stopped");
        directory.sync().map_err(at("cannot sync", data_dir))?;

        let (database, applied) = match open_state(&state_dir, segment_bytes) {
            Ok(opened) => opened,
            Err(why) => {
                discard(&directory, &why)?;
                open_state(&state_dir, segment_bytes).map_err(OpenError)?
            }
        };
        let epoch = IdMaker::default().next(settings.clock.now_ms());
        let journal = || {
            let opened = directory.make_in(JOURNAL);
            opened.map_err(at("cannot open", &journal_dir))
        };
        let damaged = |damage: Damage| OpenError(damage.0);
        let mut database = database;
        let mut reader = replay(&database, journal()?, applied, epoch).map_err(damaged)?;
        if reader.end().next_record <= applied {
            drop(database);
            if reader.end().segment.is_none() {
                return Err(OpenError(format!(
                    "{} is empty, but there is a state that it has built: restore the journal, or move {} away to begin anew",
                    journal_dir.display(),
                    state_dir.display()
                )));
            }
            discard(&directory, "it is ahead of the journal")?;
            (database, _) = open_state(&state_dir, segment_bytes).map_err(OpenError)?;
            reader = replay(&database, journal()?, 0, epoch).map_err(damaged)?;
        }
        let reader = Arc::new(reader);
        let writer = JournalWriter::open(Arc::clone(&reader), settings.clock.now_ms())
            .map_err(at("cannot write the journal in", &journal_dir))?;
        Ok(Self {
            directory,
            database: Some(database),
            reader,
            writer: Mutex::new(writer),
            failed: AtomicBool::new(false),
            room,
            _lock: lock,
        })
    }
}

impl Backend for Embedded {
    fn commit(&self, round: &Round) -> Result<(), CommitError> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(CommitError::Failed);
        }
        let bytes: usize = round
            .changes
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, |v| v.len()))
            .sum();
        if !self.room.admits(bytes as u64) {
            return Err(CommitError::Full);
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match writer.append(round) {
            Ok(()) => {}
            Err(AppendError::Full) => return Err(CommitError::Full),
            Err(AppendError::Failed) => return Err(self.give_up()),
        }
        let Some(database) = &self.database else {
            return Err(CommitError::Failed);
        };
        if let Err(error) = apply(database, &round.changes) {
            // The round is in the journal, so it counts; but this process can no longer show it to anyone.
            tracing::error!(%error, "the state cannot be written; start chatd again, and it is built anew");
            let _ = self.directory.remove("running");
            return Err(self.give_up());
        }
        Ok(())
    }

    fn read(&self, read: &mut dyn FnMut(&dyn State)) {
        if let Some(database) = &self.database {
            let tree: &sled::Tree = database;
            read(tree);
        }
    }

    fn epoch(&self) -> Id {
        self.reader.epoch()
    }

    fn oldest(&self, since_ms: u64) -> Result<Seq, Error> {
        self.reader
            .oldest(since_ms)
            .map_err(|damage| unreadable(&damage))
    }

    fn events_after(
        &self,
        after: Seq,
        hint: Option<Place>,
        max_bytes: usize,
    ) -> Result<(Vec<Event>, Option<Place>), Error> {
        self.reader
            .events_after(after, hint, max_bytes)
            .map_err(|damage| unreadable(&damage))
    }
}

impl Embedded {
    fn give_up(&self) -> CommitError {
        self.failed.store(true, Ordering::Relaxed);
        CommitError::Failed
    }
}

impl Drop for Embedded {
    /// Lets sled write the rest, brings it to the disk, and notes how its files were left.
    fn drop(&mut self) {
        drop(self.database.take());
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let done = self
            .directory
            .open_in(STATE)
            .and_then(|state| state.sync_files().and_then(|()| Files::of(&state)))
            .and_then(|files| self.directory.write_synced("stopped", &files.0))
            .and_then(|()| self.directory.remove("running"));
        if let Err(error) = done {
            tracing::warn!(%error, "the clean stop could not be noted; the state is checked at the next start");
        }
    }
}

fn unreadable(damage: &Damage) -> Error {
    tracing::error!(error = damage.0, "stored events cannot be read");
    Error::unavailable()
}

fn apply(
    tree: &sled::Tree,
    changes: &[(sled::IVec, Option<sled::IVec>)],
) -> Result<(), sled::Error> {
    let mut batch = sled::Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(key.clone(), value.clone()),
            None => batch.remove(key.clone()),
        }
    }
    tree.apply_batch(batch)?;
    // One epoch pin per batch collects too little of the garbage that large batches make.
    for _ in 0..=changes.len() / KEYS_PER_FLUSH {
        crossbeam_epoch::pin().flush();
    }
    Ok(())
}

/// Applies what the journal has beyond record `applied`.
fn replay(
    database: &sled::Db,
    journal: Directory,
    applied: u64,
    epoch: Id,
) -> Result<JournalReader, Damage> {
    let failed = |error: sled::Error| Damage(format!("the state cannot be written: {error}"));
    let began = Instant::now();
    let mut told = began;
    let mut count: u64 = 0;
    let mut pending = Vec::new();
    let reader = JournalReader::open(journal, applied + 1, epoch, |record: Record| {
        count += 1;
        pending.extend(record.changes);
        if pending.len() >= REPLAY_BATCH_CHANGES {
            // In one batch the last change of a key counts.
            apply(database, &std::mem::take(&mut pending)).map_err(failed)?;
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
    })?;
    apply(database, &pending).map_err(failed)?;
    if count > 0 {
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            records = count,
            took_ms,
            "brought the state up to the journal"
        );
    }
    Ok(reader)
}

/// Opens sled and says up to which record it holds the state; an error says why it must be built anew.
fn open_state(state_dir: &Path, segment_bytes: usize) -> Result<(sled::Db, u64), String> {
    if let Ok(entries) = fs::read_dir(state_dir) {
        for entry in entries.flatten() {
            // What a crash leaves of a snapshot would make sled report corruption.
            if entry.file_name().to_string_lossy().ends_with(".generating") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
    let config = sled::Config::new()
        .path(state_dir)
        .cache_capacity(CACHE_BYTES)
        .segment_size(segment_bytes)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(Some(FLUSH_MS));
    // sled panics on some kinds of damage.
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| -> Result<_, String> {
        let database = config.open().map_err(|error| error.to_string())?;
        let format = sled::Tree::get(&database, keys::FORMAT).map_err(|error| error.to_string())?;
        let head = sled::Tree::get(&database, keys::HEAD).map_err(|error| error.to_string())?;
        let applied = match (format.as_deref(), head) {
            (Some(&[FORMAT_VERSION]), Some(row)) => {
                rows::decode::<Head>(&row)
                    .map_err(|_| "its head cannot be read".to_owned())?
                    .record
            }
            (Some(&[FORMAT_VERSION]) | None, None) if database.len() <= 1 => 0,
            _ => return Err("it is of another format".to_owned()),
        };
        if format.is_none() {
            database
                .insert(keys::FORMAT, &[FORMAT_VERSION])
                .map_err(|error| error.to_string())?;
        }
        Ok((database, applied))
    }));
    opened.unwrap_or_else(|_| Err("it is damaged".to_owned()))
}

/// Whether the state's files are as chatd left them; an error says why not.
fn trust(directory: &Directory) -> Result<(), String> {
    let unreadable = |error: io::Error| error.to_string();
    if !directory.has(STATE).map_err(unreadable)? {
        return Ok(());
    }
    if let Ok(stopped) = directory.read("stopped") {
        let files = directory.open_in(STATE).and_then(|state| Files::of(&state));
        let files = files.map_err(unreadable)?;
        return if files.0 == stopped {
            Ok(())
        } else {
            Err("its files were changed since the last stop".to_owned())
        };
    }
    let Ok(running) = directory.read("running") else {
        return Err("nothing says how chatd left it".to_owned());
    };
    let here = Residence::of(directory).map_err(unreadable)?;
    if running == here.text() {
        Ok(())
    } else {
        Err("the power was lost, or the disk was mounted anew, while chatd was running".to_owned())
    }
}

fn discard(directory: &Directory, why: &str) -> Result<(), OpenError> {
    let path = directory.join(STATE);
    tracing::warn!(path = %path.display(), why, "the state is thrown away and built again from the journal");
    let removed = directory.remove_tree(STATE);
    removed.map_err(|error| OpenError(format!("cannot remove {}: {error}", path.display())))
}

/// The files of a directory with their sizes and times of change.
struct Files(String);

impl Files {
    fn of(directory: &Directory) -> io::Result<Self> {
        let mut lines = String::new();
        for name in directory.names()? {
            let about = directory.open(&name)?.metadata()?;
            if about.is_file() {
                let (seconds, nanoseconds) = (about.mtime(), about.mtime_nsec());
                let _ = writeln!(
                    lines,
                    "{} {} {seconds}.{nanoseconds}",
                    name.display(),
                    about.len()
                );
            }
        }
        Ok(Self(lines))
    }
}
