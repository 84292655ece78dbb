//! Who else on the machine can get at the data: nobody, once chatd has started.
//!
//! What chatd makes is for its owner alone from the beginning. What an older build or a copy left open is mended here.
//! What belongs to somebody else is never used: small files are made again, and for the data chatd does not start.

use crate::store::OpenError;
use crate::store::data_dir::{Access, Directory};
use nix::unistd::{Uid, User};
use rustix::fs::FileType;
use rustix::process::geteuid;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// Names that one warning lists.
const NAMED: usize = 8;
/// What a file system itself puts into its root.
const LOST_AND_FOUND: &str = "lost+found";
/// The user whose links are followed besides chatd's own.
const ROOT: u32 = 0;

/// The names of what chatd makes in a data directory.
#[derive(Clone, Copy)]
pub struct Own {
    /// Small files, which can be made again.
    pub files: &'static [&'static str],
    /// Directories with data.
    pub directories: &'static [&'static str],
}

impl Own {
    fn names(self) -> impl Iterator<Item = &'static str> {
        self.files.iter().chain(self.directories).copied()
    }
}

/// What others could get at.
#[derive(Default)]
struct Found {
    mended: Vec<PathBuf>,
    left: Vec<PathBuf>,
}

/// Refuses a data directory that belongs to another user than the one that chatd runs as, or that others write into and
/// that is not chatd's alone.
pub fn check(data_dir: &Directory, own: Own) -> Result<(), OpenError> {
    let path = data_dir.path().display();
    let failed = |error| OpenError(format!("cannot look at the data directory {path}: {error}"));
    let about = data_dir.access(".").map_err(failed)?;
    if !about.is_own() {
        let (owner, own) = (user(about.owner), own_user());
        return Err(OpenError(format!(
            "the data directory {path} belongs to {owner}, and chatd runs as {own}: start it as {owner} (runuser -u {owner} -- chatd …, \
             or User= in its unit), or give it another data_dir; chown -R {own} {path} hands this one over"
        )));
    }
    if about.is_writable() && !is_alone(data_dir, own).map_err(failed)? {
        return Err(OpenError(format!(
            "others on this machine can write into the data directory {path}, which is not chatd's alone; \
             give chatd a directory of its own (data_dir = \"{path}/chatd-data\"), or close this one: chmod go-rwx {path}"
        )));
    }
    Ok(())
}

/// Takes a data directory of chatd's, and what chatd makes there, away from everybody else; warns of what others could
/// get at, or still can. Says whether others could get into the directory until now.
pub fn mend(data_dir: &Directory, own: Own) -> Result<bool, OpenError> {
    let mut found = Found::default();
    let was_open = mend_directory(data_dir, own, &mut found)?;
    for name in own.files {
        remove_foreign(data_dir, name)?;
    }
    for name in own.names() {
        look_at(data_dir, name, &mut found)?;
    }
    if !found.mended.is_empty() {
        tracing::warn!(
            files = found.mended.len(),
            names = names(&found.mended),
            "others on this machine could get at data of chatd: its modes are 0600 and 0700 again; who may have read password hashes or messages before?"
        );
    }
    if !found.left.is_empty() {
        tracing::warn!(
            files = found.left.len(),
            names = names(&found.left),
            "others on this machine can get at the data of chatd, and its user may not change that, or the directory is not its alone: \
             chmod -R go-rwx and chown to chatd's user mend it"
        );
    }
    Ok(was_open)
}

/// Closes the directory itself, if nothing in it is for others.
fn mend_directory(data_dir: &Directory, own: Own, found: &mut Found) -> Result<bool, OpenError> {
    let path = data_dir.path();
    let failed = |error| OpenError(format!("cannot look into {}: {error}", path.display()));
    if !data_dir.access(".").map_err(failed)?.is_open() {
        return Ok(false);
    }
    if is_alone(data_dir, own).map_err(failed)? && data_dir.hide(".").is_ok() {
        found.mended.push(path.to_owned());
    } else {
        found.left.push(path.to_owned());
    }
    Ok(true)
}

/// Whether a directory is for chatd alone: for nothing else in it, and not for several users, as /tmp is.
fn is_alone(data_dir: &Directory, own: Own) -> io::Result<bool> {
    let is_own = |name: &OsString| {
        let name = name.to_string_lossy();
        name == LOST_AND_FOUND || own.names().any(|own| begins_with_name(&name, own))
    };
    Ok(!data_dir.access(".")?.is_shared() && data_dir.names()?.iter().all(is_own))
}

/// Whether a name is one of chatd's, or that of something put aside or not yet finished beside it.
fn begins_with_name(name: &str, own: &str) -> bool {
    let rest = name.strip_prefix(own);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Removes a small file that somebody else has put where chatd makes its own.
fn remove_foreign(data_dir: &Directory, name: &str) -> Result<(), OpenError> {
    let Ok(about) = data_dir.access(name) else {
        return Ok(());
    };
    if !is_foreign(&about) || about.kind == FileType::Directory {
        return Ok(());
    }
    let (path, owner) = (data_dir.join(name), user(about.owner));
    tracing::warn!(path = %path.display(), owner, "a file of another user is where chatd makes its own, and is removed");
    data_dir
        .remove(name)
        .map_err(|error| OpenError(format!("cannot remove {}: {error}", path.display())))
}

/// Looks at something and all that is below it. What belongs to somebody else is an error.
fn look_at(directory: &Directory, name: &str, found: &mut Found) -> Result<(), OpenError> {
    let path = directory.join(name);
    let unseen = |error: io::Error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::debug!(path = %path.display(), %error, "the mode cannot be looked at");
        }
    };
    let about = match directory.access(name) {
        Ok(about) => about,
        Err(error) => {
            unseen(error);
            return Ok(());
        }
    };
    if is_foreign(&about) {
        let (path, owner, own) = (path.display(), user(about.owner), own_user());
        return Err(OpenError(format!(
            "{path} belongs to {owner}, and chatd runs as {own}: nothing of others is used as data; if it is chatd's, \
             chown -R {own} {path}, else move it away"
        )));
    }
    if about.is_open() {
        if directory.hide(name).is_ok() {
            found.mended.push(path.clone());
        } else {
            found.left.push(path.clone());
        }
    }
    if about.kind != FileType::Directory {
        return Ok(());
    }
    let opened = directory.open_in(name);
    match opened.and_then(|inner| Ok((inner.names()?, inner))) {
        Ok((names, inner)) => names
            .iter()
            .try_for_each(|name| look_at(&inner, &name.to_string_lossy(), found)),
        Err(error) => {
            unseen(error);
            Ok(())
        }
    }
}

/// Whether it is somebody else's. Links that root has made are where the operator wants them.
fn is_foreign(about: &Access) -> bool {
    let of_root = about.is_link() && about.owner == ROOT;
    !about.is_own() && !of_root
}

fn own_user() -> String {
    user(geteuid().as_raw())
}

/// A user's name, or its number where it has none.
fn user(id: u32) -> String {
    let found = User::from_uid(Uid::from_raw(id)).ok().flatten();
    found.map_or_else(|| id.to_string(), |user| user.name)
}

fn names(paths: &[PathBuf]) -> String {
    let mut names: Vec<String> = paths
        .iter()
        .take(NAMED)
        .map(|path| path.display().to_string())
        .collect();
    if paths.len() > NAMED {
        names.push("…".to_owned());
    }
    names.join(" ")
}
