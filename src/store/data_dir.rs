//! The data directory as the file system sees it: descriptors that stay with it whatever its path names later, small
//! files that are there whole or not at all, and where its unsynced writes live.
//!
//! It must not know what the files mean.

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat, StatxFlags, fchmod, flock,
    fstat, fsync, mkdirat, openat, renameat, stat, statat, statx, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Others on the machine neither read nor write what chatd makes.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o700);
/// The rights of the group and of everybody else.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;
/// In a directory: who may write there removes only what is its own.
const STICKY: u32 = 0o1000;

/// A directory that is held open. Names are looked up in the directory itself, so that they go on meaning the same files
/// when its path is renamed, removed or replaced.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// Which file or directory something is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// What a path names.
    pub fn of(path: &Path) -> Result<Self, Errno> {
        stat(path).map(Self::from)
    }

    /// Which file this is.
    pub fn of_file(file: &File) -> io::Result<Self> {
        Ok(fstat(file)?.into())
    }
}

impl From<Stat> for Identity {
    fn from(about: Stat) -> Self {
        Self {
            device: about.st_dev,
            inode: about.st_ino,
        }
    }
}

/// Who can get at a file, a directory or a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// What it is.
    pub kind: FileType,
    /// The user that it belongs to.
    pub owner: u32,
    mode: u32,
}

impl Access {
    /// Whether it belongs to the user that chatd runs as.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.owner == geteuid().as_raw()
    }

    /// Whether it is a link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.kind == FileType::Symlink
    }

    /// Whether others than its owner may read, write or enter it. A link is nobody's: what it leads to is looked at
    /// where it is.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.is_link() && self.mode & OTHERS != 0
    }

    /// Whether others than its owner may write it, or into it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.is_link() && self.mode & OTHERS_WRITE != 0
    }

    /// Whether it is a directory that is meant for several users, as /tmp is.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.mode & STICKY != 0
    }
}

impl Directory {
    /// Opens a directory that is there.
    pub fn open_path(path: &Path) -> io::Result<Self> {
        Self::open_at(CWD, path, path.to_owned())
    }

    /// Opens a directory, which is made with those above it if it is missing.
    pub fn make(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE.as_raw_mode())
            .create(path)?;
        Self::open_path(path)
    }

    /// Opens a directory in this one, which is made if it is missing.
    pub fn make_in(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.descriptor, name, DIRECTORY_MODE) {
            Ok(()) => self.sync()?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.open_in(name)
    }

    /// Opens a directory in this one.
    pub fn open_in(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        let name = name.as_ref();
        Self::open_at(self.descriptor.as_fd(), name, self.join(name))
    }

    fn open_at(parent: BorrowedFd<'_>, name: &Path, path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            descriptor: openat(parent, name, flags, Mode::empty())?,
            path,
        })
    }

    /// Locks the directory itself, as long as it is open.
    pub fn lock(&self) -> Result<(), Errno> {
        flock(&self.descriptor, FlockOperation::NonBlockingLockExclusive)
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it, for messages.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Which directory it is.
    pub fn identity(&self) -> io::Result<Identity> {
        Ok(self.stat()?.into())
    }

    /// About the directory itself.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(fstat(&self.descriptor)?)
    }

    /// Opens a file for reading.
    pub fn open(&self, name: impl AsRef<Path>) -> io::Result<File> {
        self.open_with(name, OFlags::RDONLY)
    }

    /// Opens a file that is there for appending. A link is not followed.
    pub fn append(&self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW)
    }

    /// Makes a file that is not there yet, for appending.
    pub fn create_new(&self, name: &str) -> io::Result<File> {
        self.open_with(
            name,
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW,
        )
    }

    /// Opens a file for appending, and makes it if it is missing. A link of this name is not followed but removed.
    pub fn append_or_create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW;
        match self.open_with(name, flags) {
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                self.remove(name)?;
                self.open_with(name, flags)
            }
            opened => opened,
        }
    }

    fn open_with(&self, name: impl AsRef<Path>, flags: OFlags) -> io::Result<File> {
        let file = openat(
            &self.descriptor,
            name.as_ref(),
            flags | OFlags::CLOEXEC,
            FILE_MODE,
        )?;
        Ok(file.into())
    }

    /// What a small file says.
    pub fn read(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        self.open(name)?.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Writes a small file so that it is there whole, and on stable storage, or as it was before.
    pub fn write_synced(&self, name: &str, text: &str) -> io::Result<()> {
        let new = format!("{name}.new");
        self.remove_if_there(&new)?;
        let mut file = self.create_new(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        self.rename(&new, name)?;
        self.sync()
    }

    /// About a file or directory in it; one that is a link is followed.
    pub fn about(&self, name: &str) -> io::Result<Stat> {
        Ok(statat(&self.descriptor, name, AtFlags::empty())?)
    }

    /// Who can get at something in it; a link is not followed.
    pub fn access(&self, name: impl AsRef<Path>) -> io::Result<Access> {
        let about = statat(&self.descriptor, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Access {
            kind: FileType::from_raw_mode(about.st_mode),
            owner: about.st_uid,
            mode: about.st_mode,
        })
    }

    /// Takes a file or directory in it away from everybody but its owner.
    pub fn hide(&self, name: &str) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = self.open_with(name, flags)?;
        let mode = Mode::from_raw_mode(file.metadata()?.mode() & !OTHERS);
        Ok(fchmod(&file, mode)?)
    }

    /// Whether there is something of this name.
    pub fn has(&self, name: &str) -> io::Result<bool> {
        match statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of what is in it, sorted.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.descriptor)? {
            let name = entry?.file_name().to_bytes().to_owned();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Gives something in it another name; what had that name is gone.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    /// Removes a file.
    pub fn remove(&self, name: impl AsRef<Path>) -> io::Result<()> {
        Ok(unlinkat(&self.descriptor, name.as_ref(), AtFlags::empty())?)
    }

    /// Removes a file, if it is there.
    pub fn remove_if_there(&self, name: &str) -> io::Result<()> {
        match self.remove(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Removes something with all that is in it, if it is there. Of a link only the link is removed.
    pub fn remove_tree(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let name = name.as_ref();
        match self.remove(name) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                let inner = self.open_in(name)?;
                for name in inner.names()? {
                    inner.remove_tree(&name)?;
                }
                Ok(unlinkat(&self.descriptor, name, AtFlags::REMOVEDIR)?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Brings the names in it to stable storage.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.descriptor)?)
    }

    /// Brings the files in it, and their names, to stable storage.
    pub fn sync_files(&self) -> io::Result<()> {
        for name in self.names()? {
            let file = self.open(name)?;
            if file.metadata()?.is_file() {
                file.sync_all()?;
            }
        }
        self.sync()
    }

    /// Bytes that are free for chatd on its file system.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let about = rustix::fs::fstatvfs(&self.descriptor)?;
        Ok(about.f_bavail * about.f_frsize)
    }
}

/// Whether an error says that there is no room: on the disk, or within a quota.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Where unsynced writes live: this boot of the machine, and this mount of the disk. When either is another one, they
/// may be lost.
#[derive(Debug, PartialEq, Eq)]
pub struct Residence {
    /// None where it cannot be read: then no other residence is known to be this one.
    boot: Option<String>,
    mount: u64,
}

impl Residence {
    /// Where those of a directory live.
    pub fn of(directory: &Directory) -> io::Result<Self> {
        // From linux/stat.h; a kernel before 6.8 does not know it and leaves the id that may come again.
        const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let boot = boot.map(|id| id.trim().to_owned());
        let boot = boot.filter(|id| !id.is_empty());
        let wanted = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
        let found = statx(&directory.descriptor, "", AtFlags::EMPTY_PATH, wanted)?;
        Ok(Self {
            boot,
            mount: found.stx_mnt_id,
        })
    }

    /// It as text, for a file.
    #[must_use]
    pub fn text(&self) -> String {
        let boot = self.boot.as_deref().unwrap_or("unknown");
        format!("boot {boot}\nmount {}\n", self.mount)
    }

    /// Whether what was noted is known to be this.
    #[must_use]
    pub fn is(&self, noted: &str) -> bool {
        self.boot.is_some() && self.text() == noted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_mean_the_same_files_after_the_path_names_another_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b");
        let directory = Directory::make(&path).unwrap();
        fs::rename(&path, scratch.path().join("elsewhere")).unwrap();
        let other = Directory::make(&path).unwrap();
        assert_ne!(directory.identity().unwrap(), other.identity().unwrap());
        directory.write_synced("note", "kept").unwrap();
        assert_eq!(directory.read("note").unwrap(), "kept");
        assert!(!other.has("note").unwrap());
        assert_eq!(directory.names().unwrap(), ["note"]);
    }

    #[test]
    fn what_it_makes_is_for_its_owner_alone_and_follows_no_link() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::make(&scratch.path().join("data")).unwrap();
        directory.write_synced("note", "text").unwrap();
        directory.make_in("inner").unwrap();
        for (name, mode) in [("note", 0o600), ("inner", 0o700)] {
            let about = fs::metadata(directory.join(name)).unwrap();
            assert_eq!(about.mode() & 0o777, mode, "{name}");
        }
        let target = scratch.path().join("target");
        symlink(&target, directory.join("link")).unwrap();
        assert!(directory.append("link").is_err());
        assert!(directory.create_new("link").is_err());
        directory.write_synced("link", "text").unwrap();
        symlink(&target, directory.join("made")).unwrap();
        directory.append_or_create("made").unwrap();
        for name in ["link", "made"] {
            let about = directory.access(name).unwrap();
            assert_eq!(about.kind, FileType::RegularFile, "{name}");
        }
        assert!(!target.exists());
    }

    #[test]
    fn a_tree_is_removed_whole_and_no_link_is_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::make(&scratch.path().join("data")).unwrap();
        let outside = scratch.path().join("outside");
        fs::create_dir_all(outside.join("kept")).unwrap();
        let tree = directory.make_in("tree").unwrap();
        tree.write_synced("file", "").unwrap();
        tree.make_in("below")
            .unwrap()
            .write_synced("file", "")
            .unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        directory.remove_tree("tree").unwrap();
        directory.remove_tree("tree").unwrap();
        assert!(!directory.has("tree").unwrap());
        symlink(&outside, directory.join("link")).unwrap();
        directory.remove_tree("link").unwrap();
        assert!(!directory.has("link").unwrap());
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn without_the_id_of_the_boot_no_residence_is_known_to_be_this_one() {
        let here = Residence {
            boot: Some("id".to_owned()),
            mount: 7,
        };
        assert!(here.is(&here.text()));
        let unknown = Residence {
            boot: None,
            mount: 7,
        };
        assert!(!unknown.is(&unknown.text()) && !unknown.is(&here.text()));
    }
}
