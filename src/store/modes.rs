//! Who else on the machine can read the data: nobody, once chatd has started.
//!
//! What chatd makes is for its owner alone from the beginning. What an older build or a copy left readable is mended
//! here, as far as chatd owns it; the rest, and the data directory itself, is the operator's, and is told.

use crate::store::data_dir::Directory;
use std::io;
use std::path::PathBuf;

/// Names that one warning lists.
const NAMED: usize = 8;

/// What others could get at.
#[derive(Default)]
struct Found {
    mended: Vec<PathBuf>,
    left: Vec<PathBuf>,
}

/// Takes files and directories of chatd's own in a data directory away from everybody else, and warns of what others
/// could get at, or still can.
pub fn mend(data_dir: &Directory, own: &[&str]) {
    let mut found = Found::default();
    for name in own {
        look_at(data_dir, name, &mut found);
    }
    if data_dir.access(".").is_ok_and(|about| about.others) {
        found.left.push(data_dir.path().to_owned());
    }
    if !found.mended.is_empty() {
        tracing::warn!(
            files = found.mended.len(),
            names = names(&found.mended),
            "others on this machine could get at data of chatd: its modes are 0600 and 0700 again; \
             who may have read password hashes or messages before?"
        );
    }
    if !found.left.is_empty() {
        tracing::warn!(
            names = names(&found.left),
            "others on this machine can get at the data directory, or at something in it; \
             chmod -R go-rwx and chown to chatd's user mend it"
        );
    }
}

fn look_at(directory: &Directory, name: &str, found: &mut Found) {
    match look(directory, name, found) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(path = %directory.join(name).display(), %error, "the mode cannot be looked at");
        }
        _ => {}
    }
}

fn look(directory: &Directory, name: &str, found: &mut Found) -> io::Result<()> {
    let about = directory.access(name)?;
    if about.others {
        let path = directory.join(name);
        if about.own && directory.hide(name).is_ok() {
            found.mended.push(path);
        } else {
            found.left.push(path);
        }
    }
    if about.directory {
        let inner = directory.open_in(name)?;
        for name in inner.names()? {
            look_at(&inner, &name.to_string_lossy(), found);
        }
    }
    Ok(())
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
