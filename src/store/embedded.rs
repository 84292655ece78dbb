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
use crate::store::journal::{AppendError, Damage, JournalReader, JournalWriter, Place, Record};
use crate::store::room::Room;
use crate::store::rows::{self, FORMAT_VERSION, Head};
use crate::store::state::State;
use crate::store::txn::Round;
use crate::store::{OnCommit, OpenError, Settings, Store, keys};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

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
    directory: PathBuf,
    /// There until the store is dropped.
    database: Option<sled::Db>,
    reader: Arc<JournalReader>,
    writer: Mutex<JournalWriter>,
    failed: AtomicBool,
    room: Room,
    _lock: File,
}

impl Embedded {
    fn open(data_dir: &Path, settings: &Settings) -> Result<Self, OpenError> {
        let at = |what: &str, path: &Path| {
            let text = format!("{what} {}", path.display());
            move |error: io::Error| OpenError(format!("{text}: {error}"))
        };
        let journal_dir = data_dir.join("journal");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&journal_dir)
            .map_err(at("cannot make the data directory", &journal_dir))?;
        let lock = lock(data_dir)?;
        let state_dir = data_dir.join("state");
        let segment_bytes = (settings.max_message_bytes * SEGMENT_ROWS)
            .next_power_of_two()
            .clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1);
        let room = Room::open(data_dir, &state_dir, segment_bytes);
        if let Err(why) = trust(data_dir, &state_dir) {
            discard(&state_dir, &why)?;
        }
        let running = Residence::here(data_dir).map_err(at("cannot read", data_dir))?;
        if fs::read_to_string(data_dir.join("running")).ok().as_ref() != Some(&running.text()) {
            write_synced(data_dir, "running", &running.text())
                .map_err(at("cannot write to", data_dir))?;
        }
        let _ = fs::remove_file(data_dir.join("stopped"));
        sync_directory(data_dir).map_err(at("cannot sync", data_dir))?;

        let (database, applied) = match open_state(&state_dir, segment_bytes) {
            Ok(opened) => opened,
            Err(why) => {
                discard(&state_dir, &why)?;
                open_state(&state_dir, segment_bytes).map_err(OpenError)?
            }
        };
        let epoch = IdMaker::default().next(settings.clock.now_ms());
        let damaged = |damage: Damage| OpenError(damage.0);
        let mut database = database;
        let mut reader = replay(&database, &journal_dir, applied, epoch).map_err(damaged)?;
        if reader.end().next_record <= applied {
            drop(database);
            if reader.end().segment.is_none() {
                return Err(OpenError(format!(
                    "{} is empty, but there is a state that it has built: restore the journal, or move {} away to begin anew",
                    journal_dir.display(),
                    state_dir.display()
                )));
            }
            discard(&state_dir, "it is ahead of the journal")?;
            (database, _) = open_state(&state_dir, segment_bytes).map_err(OpenError)?;
            reader = replay(&database, &journal_dir, 0, epoch).map_err(damaged)?;
        }
        let reader = Arc::new(reader);
        let writer = JournalWriter::open(Arc::clone(&reader), settings.clock.now_ms())
            .map_err(at("cannot write the journal in", &journal_dir))?;
        Ok(Self {
            directory: data_dir.to_owned(),
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
            let _ = fs::remove_file(self.directory.join("running"));
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
        let state_dir = self.directory.join("state");
        let done = sync_files(&state_dir)
            .and_then(|()| Files::of(&state_dir))
            .and_then(|files| write_synced(&self.directory, "stopped", &files.0))
            .and_then(|()| fs::remove_file(self.directory.join("running")));
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
    journal_dir: &Path,
    applied: u64,
    epoch: Id,
) -> Result<JournalReader, Damage> {
    let failed = |error: sled::Error| Damage(format!("the state cannot be written: {error}"));
    let began = Instant::now();
    let mut told = began;
    let mut count: u64 = 0;
    let mut pending = Vec::new();
    let reader = JournalReader::open(journal_dir, applied + 1, epoch, |record: Record| {
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
fn trust(data_dir: &Path, state_dir: &Path) -> Result<(), String> {
    if !state_dir.exists() {
        return Ok(());
    }
    if let Ok(stopped) = fs::read_to_string(data_dir.join("stopped")) {
        let files = Files::of(state_dir).map_err(|error| error.to_string())?;
        return if files.0 == stopped {
            Ok(())
        } else {
            Err("its files were changed since the last stop".to_owned())
        };
    }
    let Ok(running) = fs::read_to_string(data_dir.join("running")) else {
        return Err("nothing says how chatd left it".to_owned());
    };
    let here = Residence::here(data_dir).map_err(|error| error.to_string())?;
    if running == here.text() {
        Ok(())
    } else {
        Err("the power was lost, or the disk was mounted anew, while chatd was running".to_owned())
    }
}

fn discard(state_dir: &Path, why: &str) -> Result<(), OpenError> {
    tracing::warn!(path = %state_dir.display(), why, "the state is thrown away and built again from the journal");
    match fs::remove_dir_all(state_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError(format!(
            "cannot remove {}: {error}",
            state_dir.display()
        ))),
        _ => Ok(()),
    }
}

/// Where unsynced writes live: this boot of the machine, and this mount of the disk. When either is another one, they
/// may be lost.
struct Residence {
    boot: String,
    mount: u64,
}

impl Residence {
    fn here(directory: &Path) -> io::Result<Self> {
        // From linux/stat.h; a kernel before 6.8 does not know it and leaves the id that may come again.
        const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned();
        let wanted = rustix::fs::StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
        let found = rustix::fs::statx(
            rustix::fs::CWD,
            directory,
            rustix::fs::AtFlags::empty(),
            wanted,
        )?;
        Ok(Self {
            boot,
            mount: found.stx_mnt_id,
        })
    }

    fn text(&self) -> String {
        format!("boot {}\nmount {}\n", self.boot, self.mount)
    }
}

/// The files of a directory with their sizes and times of change.
struct Files(String);

impl Files {
    fn of(directory: &Path) -> io::Result<Self> {
        let mut lines = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_file() {
                let name = entry.file_name();
                lines.push(format!(
                    "{} {} {}.{}\n",
                    name.display(),
                    about.len(),
                    about.mtime(),
                    about.mtime_nsec()
                ));
            }
        }
        lines.sort();
        Ok(Self(lines.concat()))
    }
}

fn sync_files(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.metadata()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_directory(directory)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Writes a small file so that it is there whole or not at all.
fn write_synced(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = directory.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, directory.join(name))?;
    sync_directory(directory)
}

fn lock(data_dir: &Path) -> Result<File, OpenError> {
    let path = data_dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file =
        file.map_err(|error| OpenError(format!("cannot open {}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError(format!(
            "{} is in use by another chatd; stop that one, or give this one a data_dir of its own",
            data_dir.display()
        ))),
        Err(fs::TryLockError::Error(error)) => Err(OpenError(format!(
            "cannot lock {}: {error}",
            path.display()
        ))),
    }
}
