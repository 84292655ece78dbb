//! What is no part of the journal any more, and is kept beside it.

use super::end::End;
use super::records::Records;
use super::segment::{ENDING, segment_name};
use crate::limits::CUTS_MAX_FILES;
use crate::store::data_dir::Directory;
use std::io::{self, Write};

/// What stands behind the last whole record.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    /// The file was not written to the end of the record.
    pub unfinished: bool,
}

/// Gives a segment another name.
pub fn set_aside(directory: &Directory, name: &str, now_ms: u64) -> io::Result<()> {
    let number = name.trim_end_matches(ENDING);
    let kept = free_name(directory, &format!("{number}.aside"), now_ms)?;
    tracing::warn!(path = %directory.join(name).display(), kept, "this file is no part of the journal; it is kept under another name");
    directory.rename(name, &kept)
}

/// Keeps what stands behind the end of a journal, and cuts it off.
pub fn cut_off(directory: &Directory, end: End, tail: Tail, now_ms: u64) -> io::Result<()> {
    let name = segment_name(end.segment);
    let rest = Records::open(directory, &name, None)
        .map_err(|damage| io::Error::other(damage.0))?
        .rest(end.bytes)?;
    let number = name.trim_end_matches(ENDING);
    let kept = free_name(directory, &format!("{number}.cut"), now_ms)?;
    let mut file = directory.create_new(&kept)?;
    file.write_all(&rest)?;
    file.sync_all()?;
    directory.sync()?;
    let text = if tail.unfinished {
        "the last record of the journal was not written to its end, as after a crash, and so was not acknowledged; \
         it is cut off, and kept in a file beside"
    } else {
        "what stands behind the last whole record of the journal may have been acknowledged; it is cut off, and kept in \
         a file beside"
    };
    let path = directory.join(&name);
    let (bytes, offset, record) = (rest.len(), end.bytes, end.record + 1);
    tracing::warn!(path = %path.display(), offset, bytes, record, kept, "{text}");
    let file = directory.append(&name)?;
    file.set_len(end.bytes)?;
    file.sync_all()?;
    remove_old_cuts(directory)
}

/// A name for what is kept: behind those of all that is kept already, also where the clock was set back.
fn free_name(directory: &Directory, begin: &str, now_ms: u64) -> io::Result<String> {
    let kept = kept_files(directory, ".")?;
    let newest = kept.last().map_or(0, |(time, _)| *time);
    Ok(format!("{begin}-{:013}", now_ms.max(newest + 1)))
}

/// Keeps the newest of the files with what was cut off.
fn remove_old_cuts(directory: &Directory) -> io::Result<()> {
    let cuts = kept_files(directory, ".cut-")?;
    let old = cuts.len().saturating_sub(CUTS_MAX_FILES);
    let mut old = cuts.iter().take(old);
    old.try_for_each(|(_, name)| directory.remove(name))
}

/// The files with this in their names that are kept, with their times, in the order of those.
fn kept_files(directory: &Directory, kind: &str) -> io::Result<Vec<(u64, String)>> {
    let mut kept = Vec::new();
    for name in directory.names()? {
        let name = name.to_string_lossy();
        let time = name
            .rsplit_once('-')
            .and_then(|(_, time)| time.parse().ok());
        if let Some(time) = time.filter(|_| name.contains(kind)) {
            kept.push((time, name.into_owned()));
        }
    }
    kept.sort();
    Ok(kept)
}
