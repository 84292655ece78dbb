//! The file of a Unix socket.

use crate::config::Allowed;
use rustix::fs::Gid;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// The file of a Unix socket, removed when this is dropped.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
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
        Ok((listener?, Self(path.to_path_buf())))
    }

    /// Lets those who are allowed open it, as far as its mode goes; an error says what to set instead.
    pub fn open_to(&self, allowed: &Allowed, mode: u32) -> Result<(), String> {
        if let Some(group) = allowed.group() {
            rustix::fs::chown(&self.0, None, Some(Gid::from_raw(group))).map_err(|error| {
                format!(
                    "the socket cannot be given to group {group}, which allow_groups names: {error}; let chatd be in that group \
                     (SupplementaryGroups= in its unit), or write mode = \"0666\": chatd itself refuses whom you do not name"
                )
            })?;
        }
        let about = std::fs::metadata(&self.0).map_err(|error| error.to_string())?;
        for uid in allowed.kept_out(mode, about.uid(), about.gid()) {
            tracing::warn!(
                socket = %self.0.display(),
                uid,
                "allow_uids names a user that the mode of the socket keeps out; with mode = \"0666\" chatd itself refuses whom you do not name"
            );
        }
        Ok(())
    }
}

/// Removes the socket of a daemon that is gone; that of a living one is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
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
