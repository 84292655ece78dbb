//! The state's directory: opens it with sled, says whether what is there can be trusted, and puts aside what cannot.
//!
//! What is put aside is kept until a new state is built, so that there is a good copy of the data at every moment, even
//! where the journal turns out to be damaged.

use crate::store::data_dir::{Directory, Residence};
use crate::store::journal::End;
use crate::store::rows::{Head, KEYS_VERSION};
use crate::store::{OpenError, keys};
use std::fmt::Write;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

/// The directory of the state.
pub const STATE: &str = "state";
/// The state before, while a new one is built.
pub const OLD_STATE: &str = "state.old";
/// There while the state may hold writes that are not on the disk: which boot and mount they were made in.
pub const RUNNING: &str = "running";
/// There after a clean stop: where the journal ended, and the state's files as they were left.
pub const STOPPED: &str = "stopped";
/// How its first line begins.
const STOPPED_END: &str = "journal ";
/// Bytes of sled's cache.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Milliseconds between sled's own flushes: they only shorten the replay after a crash.
const FLUSH_MS: u64 = 1000;
/// Changed keys for each collection of the garbage that a batch makes.
const KEYS_PER_FLUSH: usize = 64;

/// The state, opened.
pub struct Built {
    /// What sled has.
    pub database: sled::Db,
    /// The last record of the journal that it holds.
    pub applied: u64,
}

/// Why a state is not opened.
enum Refused {
    /// It cannot be used: it is to be built anew.
    Damaged(String),
    /// It may be good; something else is in the way.
    Other(String),
}

/// Opens the state in a data directory. One that cannot be trusted, or is damaged, is put aside, and the one that is
/// opened is empty; whatever else keeps it from being opened is an error, and nothing is touched.
pub fn open(data_dir: &Directory, segment_bytes: usize) -> Result<Built, OpenError> {
    let path = data_dir.join(STATE);
    let failed = |text: String| OpenError(format!("cannot open {}: {text}", path.display()));
    if let Some(why) = distrust(data_dir).map_err(|error| failed(error.to_string()))? {
        put_aside(data_dir, &why)?;
    }
    note_running(data_dir).map_err(|error| {
        OpenError(format!(
            "cannot write to {}: {error}",
            data_dir.path().display()
        ))
    })?;
    match open_sled(data_dir, STATE, segment_bytes) {
        Ok(built) => Ok(built),
        Err(Refused::Other(why)) => Err(failed(why)),
        Err(Refused::Damaged(why)) => {
            put_aside(data_dir, &why)?;
            open_sled(data_dir, STATE, segment_bytes).map_err(|refused| match refused {
                Refused::Damaged(why) | Refused::Other(why) => failed(why),
            })
        }
    }
}

/// Where the state before is kept, if a new one is being built.
pub fn old(data_dir: &Directory) -> Result<Option<PathBuf>, OpenError> {
    match data_dir.has(OLD_STATE) {
        Ok(there) => Ok(there.then(|| data_dir.join(OLD_STATE))),
        Err(error) => Err(OpenError(format!(
            "cannot look into {}: {error}",
            data_dir.path().display()
        ))),
    }
}

/// The last record that the state before holds, if there is one that can be opened.
pub fn applied_by_old(
    data_dir: &Directory,
    segment_bytes: usize,
) -> Result<Option<u64>, OpenError> {
    if old(data_dir)?.is_none() {
        return Ok(None);
    }
    let opened = open_sled(data_dir, OLD_STATE, segment_bytes);
    Ok(opened.ok().map(|built| built.applied))
}

/// Keeps the state under another name: it has records that a person has given up.
pub fn set_aside(data_dir: &Directory, now_ms: u64) -> Result<(), OpenError> {
    for name in [OLD_STATE, STATE] {
        let path = data_dir.join(name);
        let kept = format!("{name}.aside-{now_ms}");
        match data_dir.rename(name, &kept) {
            Ok(()) => {
                tracing::warn!(
                    path = %path.display(), kept,
                    "records were given up: the state is kept under another name, and built again from the journal"
                );
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = path.display();
                return Err(OpenError(format!("cannot rename {path}: {error}")));
            }
        }
    }
    Ok(())
}

/// Removes the state before: the new one is built, or there is no room for both and the journal is known to be whole.
pub fn remove_old(data_dir: &Directory) -> Result<(), OpenError> {
    removed(data_dir, OLD_STATE)
}

/// Puts the state aside, and keeps what was put aside before: then this one was not yet built.
pub fn put_aside(data_dir: &Directory, why: &str) -> Result<(), OpenError> {
    let path = data_dir.join(STATE);
    if old(data_dir)?.is_some() {
        tracing::warn!(path = %path.display(), why, "the state that was being built is thrown away, and built again from the journal");
        return removed(data_dir, STATE);
    }
    tracing::warn!(
        path = %path.display(), old = OLD_STATE, why,
        "the state is put aside, and built again from the journal"
    );
    let moved = data_dir
        .rename(STATE, OLD_STATE)
        .and_then(|()| data_dir.sync());
    moved.map_err(|error| OpenError(format!("cannot put {} aside: {error}", path.display())))
}

fn removed(data_dir: &Directory, name: &str) -> Result<(), OpenError> {
    let removed = data_dir.remove_tree(name).and_then(|()| data_dir.sync());
    removed.map_err(|error| {
        OpenError(format!(
            "cannot remove {}: {error}",
            data_dir.join(name).display()
        ))
    })
}

/// Notes where the journal ends, and that the state's files were left as sled wrote them to the end; it must be closed.
pub fn note_stopped(data_dir: &Directory, end: End) -> io::Result<()> {
    let state = data_dir.open_in(STATE)?;
    state.sync_files()?;
    let text = format!("{STOPPED_END}{end}\n{}", Files::of(&state)?.0);
    data_dir.write_synced(STOPPED, &text)?;
    data_dir.remove(RUNNING)
}

/// Where the journal ended at the last stop, if it was a clean one.
pub fn noted_end(data_dir: &Directory) -> io::Result<Option<End>> {
    let stopped = said(data_dir, STOPPED)?.unwrap_or_default();
    let first = stopped.lines().next();
    Ok(first
        .and_then(|line| line.strip_prefix(STOPPED_END))
        .and_then(End::parse))
}

/// Lets the state be built anew at the next start.
pub fn note_unusable(data_dir: &Directory) {
    if let Err(error) = data_dir.remove(RUNNING) {
        tracing::warn!(%error, "it cannot be noted that the state is to be built anew");
    }
}

fn note_running(data_dir: &Directory) -> io::Result<()> {
    let here = Residence::of(data_dir)?.text();
    if said(data_dir, RUNNING)?.as_ref() != Some(&here) {
        data_dir.write_synced(RUNNING, &here)?;
    }
    data_dir.remove_if_there(STOPPED)?;
    data_dir.sync()
}

/// What a small file says, if it is there.
fn said(data_dir: &Directory, name: &str) -> io::Result<Option<String>> {
    match data_dir.read(name) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // It is no text of chatd's.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(String::new())),
        Err(error) => Err(error),
    }
}

/// Why the state's files are not as chatd left them, if they are not.
fn distrust(data_dir: &Directory) -> io::Result<Option<String>> {
    if !data_dir.has(STATE)? {
        return Ok(None);
    }
    let why = if let Some(stopped) = said(data_dir, STOPPED)? {
        let files = Files::of(&data_dir.open_in(STATE)?)?;
        let stopped = match stopped.split_once('\n') {
            Some((end, files)) if end.starts_with(STOPPED_END) => files,
            // An older chatd wrote it.
            _ => &stopped,
        };
        (files.0 != stopped).then_some("its files were changed since the last stop")
    } else {
        match said(data_dir, RUNNING)? {
            None => Some("nothing says how chatd left it"),
            Some(running) => (!Residence::of(data_dir)?.is(&running)).then_some(
                "the power was lost, or the disk was mounted anew, while chatd was running, or that cannot be known",
            ),
        }
    };
    Ok(why.map(str::to_owned))
}

fn open_sled(data_dir: &Directory, name: &str, segment_bytes: usize) -> Result<Built, Refused> {
    let other = |error: io::Error| Refused::Other(error.to_string());
    let state = data_dir.make_in(name).map_err(other)?;
    for name in state.names().map_err(other)? {
        // sled would follow it, and write to what it leads to.
        if state.access(&name).map_err(other)?.is_link() {
            return Err(Refused::Damaged(format!(
                "{} is a link",
                state.join(&name).display()
            )));
        }
        // What a crash leaves of a snapshot would make sled report corruption.
        if name.to_string_lossy().ends_with(".generating") {
            state.remove(&name).map_err(other)?;
        }
    }
    let config = sled::Config::new()
        .path(data_dir.join(name))
        .cache_capacity(CACHE_BYTES)
        .segment_size(segment_bytes)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(Some(FLUSH_MS));
    // sled panics on some kinds of damage.
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| -> Result<_, Refused> {
        let database = config.open().map_err(refused)?;
        let format = sled::Tree::get(&database, keys::FORMAT).map_err(refused)?;
        let head = sled::Tree::get(&database, keys::HEAD).map_err(refused)?;
        let applied = match (format.as_deref(), head) {
            (Some(&[KEYS_VERSION]), Some(row)) => {
                let head = Head::from_row(&row);
                let unreadable = |_| Refused::Damaged("its head cannot be read".to_owned());
                head.map_err(unreadable)?.record
            }
            (Some(&[KEYS_VERSION]) | None, None) if database.len() <= 1 => 0,
            _ => return Err(Refused::Damaged("it is of another format".to_owned())),
        };
        if format.is_none() {
            database
                .insert(keys::FORMAT, &[KEYS_VERSION])
                .map_err(refused)?;
        }
        Ok(Built { database, applied })
    }));
    opened.unwrap_or_else(|_| Err(Refused::Damaged("it is damaged".to_owned())))
}

/// Whether an error of sled's is damage, or something that has nothing to do with what is stored: a lock, a right, a
/// limit, a disk that is full or cannot be read.
fn refused(error: sled::Error) -> Refused {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error {
        sled::Error::Io(error)
            if !matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) =>
        {
            Refused::Other(error.to_string())
        }
        error => Refused::Damaged(error.to_string()),
    }
}

/// Applies changes as one.
pub fn apply(
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

/// The files of a directory with their sizes and times of change.
struct Files(String);

impl Files {
    fn of(directory: &Directory) -> io::Result<Self> {
        let mut lines = String::new();
        for name in directory.names()? {
            if directory.access(&name)?.is_link() {
                let _ = writeln!(lines, "{} is a link", name.display());
                continue;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: usize = 2 * 1024 * 1024;

    fn kept(data_dir: &Directory) -> Built {
        let built = open(data_dir, SEGMENT_BYTES).unwrap();
        built.database.insert("key", "value").unwrap();
        built.database.flush().unwrap();
        built
    }

    #[test]
    fn a_state_that_another_has_open_is_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let data_dir = Directory::make(scratch.path()).unwrap();
        let first = kept(&data_dir);
        let refused = open(&data_dir, SEGMENT_BYTES).err().unwrap();
        assert!(refused.0.contains("lock"), "{refused}");
        assert_eq!(old(&data_dir).unwrap(), None);
        let value = sled::Tree::get(&first.database, "key").unwrap();
        assert_eq!(value.as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn only_damage_discards_a_state() {
        use rustix::io::Errno;
        for errno in [
            Errno::ACCESS,
            Errno::MFILE,
            Errno::NFILE,
            Errno::IO,
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::ROFS,
            Errno::NOMEM,
            Errno::WOULDBLOCK,
        ] {
            let refused = refused(sled::Error::Io(errno.into()));
            assert!(matches!(refused, Refused::Other(_)), "{errno}");
        }
        let corruption = sled::Error::Corruption { at: None, bt: () };
        assert!(matches!(refused(corruption), Refused::Damaged(_)));
        let short = sled::Error::Io(io::ErrorKind::UnexpectedEof.into());
        assert!(matches!(refused(short), Refused::Damaged(_)));
    }

    #[test]
    fn a_state_that_is_put_aside_stays_until_it_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let data_dir = Directory::make(scratch.path()).unwrap();
        drop(kept(&data_dir));
        // Nothing says how it was left: as after a power loss. The second time the new one was not built yet.
        for _ in 0..2 {
            data_dir.remove(RUNNING).unwrap();
            drop(open(&data_dir, SEGMENT_BYTES).unwrap());
            let kept = data_dir.open_in(OLD_STATE).unwrap();
            assert!(kept.has("db").unwrap());
            let there = std::fs::read(kept.join("db")).unwrap();
            assert!(there.windows(5).any(|bytes| bytes == b"value"));
        }
        remove_old(&data_dir).unwrap();
        assert_eq!(old(&data_dir).unwrap(), None);
    }
}
