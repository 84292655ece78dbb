//! The lock of a data directory: one daemon at a time, and no other user of the machine decides whether there is one.

use crate::store::data_dir::Directory;
use rustix::fs::{Stat, fstat, major, minor};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::fs::{self, File, TryLockError};
use std::io;

/// The lock of a data directory: held by one daemon at a time, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The file that is locked besides the directory itself: older builds lock nothing else.
pub const LOCK_FILE: &str = "lock";

impl Lock {
    /// Locks a directory, or gives the text that says why not. One that `was_open` to other users may be locked by one of
    /// them: there the file alone counts.
    pub fn take(directory: &Directory, was_open: bool) -> Result<Self, String> {
        let path = directory.join(LOCK_FILE);
        let failed =
            |what: &str, error: io::Error| format!("cannot {what} {}: {error}", path.display());
        let in_use = || {
            format!(
                "{} is in use by another chatd; stop that one, or give this one a data_dir of its own (fuser {} says who it is)",
                directory.path().display(),
                path.display()
            )
        };
        let locked_by_others = match directory.lock() {
            Ok(()) => false,
            Err(Errno::WOULDBLOCK) => {
                if !was_open && !directory.stat().is_ok_and(|of| is_foreign(&of)) {
                    return Err(in_use());
                }
                true
            }
            Err(error) => {
                // Some network file systems lock files alone.
                tracing::debug!(%error, "the data directory itself cannot be locked");
                false
            }
        };
        let open = || directory.append_or_create(LOCK_FILE);
        let mut file = open().map_err(|error| failed("open", error))?;
        let mut locked = file.try_lock();
        let blocked = matches!(locked, Err(TryLockError::WouldBlock));
        let renewed = blocked && fstat(&file).is_ok_and(|of| is_foreign(&of));
        if renewed {
            let made = directory.remove(LOCK_FILE).and_then(|()| open());
            file = made.map_err(|error| failed("make", error))?;
            locked = file.try_lock();
        }
        locked.map_err(|error| match error {
            TryLockError::WouldBlock => in_use(),
            TryLockError::Error(error) => failed("lock", error),
        })?;
        if locked_by_others || renewed {
            tracing::warn!(
                path = %directory.path().display(),
                "another user holds a lock here, where others could get in once; it counts for nothing"
            );
        }
        Ok(Self { _file: file })
    }
}

/// Whether it is known that something is locked by other users, and by nobody else.
fn is_foreign(locked: &Stat) -> bool {
    let own = geteuid().as_raw();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut holders = holders(&locks, locked).map(user_of).peekable();
    holders.peek().is_some() && holders.all(|user| user.is_some_and(|user| user != own))
}

/// The processes that have taken locks of a file or directory.
fn holders<'a>(locks: &'a str, of: &Stat) -> impl Iterator<Item = &'a str> {
    // Such as: 1: FLOCK  ADVISORY  WRITE 700 08:01:1048603 0 EOF
    let (major, minor) = (major(of.st_dev), minor(of.st_dev));
    let object = format!("{major:02x}:{minor:02x}:{}", of.st_ino);
    locks.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        words.find(|word| *word == "FLOCK")?;
        let process = words.nth(2)?;
        (words.next()? == object).then_some(process)
    })
}

/// The user that a process runs as, if that can be seen.
fn user_of(process: &str) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    // The real one, then the one that it acts as.
    users.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_once_even_without_its_lock_file() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("data");
        let directory = Directory::make(&path).unwrap();
        let lock = Lock::take(&directory, false).unwrap();
        fs::remove_file(path.join(LOCK_FILE)).unwrap();
        let second = Directory::make(&path).unwrap();
        assert!(Lock::take(&second, false).unwrap_err().contains("in use"));
        drop((lock, directory));
        assert!(Lock::take(&second, false).is_ok());
    }

    #[test]
    fn a_lock_is_known_by_device_and_inode() {
        let scratch = tempfile::tempdir().unwrap();
        let of = fstat(File::open(scratch.path()).unwrap()).unwrap();
        let (major, minor) = (major(of.st_dev), minor(of.st_dev));
        let (here, there) = (of.st_ino, of.st_ino + 1);
        let locks = format!(
            "1: FLOCK  ADVISORY  WRITE 700 {major:02x}:{minor:02x}:{here} 0 EOF\n\
             2: POSIX  ADVISORY  WRITE 701 {major:02x}:{minor:02x}:{here} 0 EOF\n\
             3: FLOCK  ADVISORY  WRITE 702 {major:02x}:{minor:02x}:{there} 0 EOF\n\
             4: FLOCK  ADVISORY  READ  703 {major:02x}:{minor:02x}:{here} 0 EOF\n\
             4: -> FLOCK  ADVISORY  WRITE 704 ff:{minor:02x}:{here} 0 EOF\n"
        );
        let found: Vec<&str> = holders(&locks, &of).collect();
        assert_eq!(found, ["700", "703"]);
        assert_eq!(user_of("self"), Some(geteuid().as_raw()));
        assert_eq!(user_of("0"), None);
    }
}
