//! The file of a Unix socket.

use crate::config::Allowed;
use rustix::fs::{AtFlags, CWD, Gid, chownat};
use std::fs::{Metadata, symlink_metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// The file of a Unix socket, removed when this is dropped, unless another has taken its place.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.about().is_ok() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl SocketFile {
    /// Listens on a socket of this name and mode. One that a daemon left behind is replaced.
    pub fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, Self)> {
        remove_stale(path)?;
        // The mode is that of the moment the file appears: at no time is it open to others.
        let hidden = rustix::fs::Mode::from_raw_mode(!mode & 0o777);
        let before = rustix::process::umask(hidden);
        let listener = UnixListener::bind(path);
        rustix::process::umask(before);
        let listener = listener?;
        let file = Self {
            path: path.to_path_buf(),
            identity: identity(&symlink_metadata(path)?),
        };
        Ok((listener, file))
    }

    /// Lets those who are allowed open it, as far as its mode goes; an error says what to set instead.
    pub fn open_to(&self, allowed: &Allowed, mode: u32) -> Result<(), String> {
        if let Some(group) = allowed.group() {
            // Where others may write to its folder, they may have put a link there.
            let (flags, gid) = (AtFlags::SYMLINK_NOFOLLOW, Gid::from_raw(group));
            chownat(CWD, &self.path, None, Some(gid), flags).map_err(|error| {
                format!(
                    "the socket cannot be given to group {group}, which allow_groups names: {error}; let chatd be in that group \
                     (SupplementaryGroups= in its unit), or write mode = \"0666\": chatd itself refuses whom you do not name"
                )
            })?;
        }
        let about = self.about().map_err(|error| error.to_string())?;
        for uid in allowed.kept_out(mode, about.uid(), about.gid()) {
            tracing::warn!(
                socket = %self.path.display(),
                uid,
                "allow_uids names a user that the mode of the socket keeps out; with mode = \"0666\" chatd itself refuses whom you do not name"
            );
        }
        Ok(())
    }

    /// About the file, if it is still there.
    fn about(&self) -> io::Result<Metadata> {
        let about = symlink_metadata(&self.path)?;
        if identity(&about) == self.identity {
            return Ok(about);
        }
        Err(io::Error::other(
            "another file has taken the place of the socket",
        ))
    }
}

fn identity(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// Removes the socket of a daemon that is gone; that of a living one is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    match symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(about) if !about.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of this name that is no socket",
        )),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)
            }
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process listens there",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn what_has_taken_the_place_of_the_socket_is_not_touched() {
        let scratch = tempfile::tempdir().unwrap();
        let [path, target] = ["socket", "target"].map(|name| scratch.path().join(name));
        fs::write(&target, "somebody's").unwrap();
        let (_listener, file) = SocketFile::bind(&path, 0o660).unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&target, &path).unwrap();
        let group = fs::metadata(&target).unwrap().gid();
        let allowed = Allowed::members_of(group + 1);
        assert!(file.open_to(&allowed, 0o660).is_err());
        assert_eq!(fs::metadata(&target).unwrap().gid(), group);
        drop(file);
        assert!(path.is_symlink());
        // Its own it removes.
        fs::remove_file(&path).unwrap();
        let (_listener, file) = SocketFile::bind(&path, 0o660).unwrap();
        assert!(path.exists());
        drop(file);
        assert!(!path.exists());
    }
}
