//! Whether the paths of the data still name what the daemon has open.
//!
//! A directory that is removed, renamed, or hidden below another mount can still be written to through its descriptor.
//! Nobody would ever find again what is written there, so it must not be acknowledged.

use crate::store::data_dir::{Directory, Identity};
use crate::store::failure::Failure;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the paths are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// The paths of a store's data, and what each named when it was opened.
#[derive(Debug)]
pub struct Watch {
    fixed: Vec<(PathBuf, Identity)>,
    journal: PathBuf,
    /// The segment that is written to.
    segment: Mutex<Option<(PathBuf, Identity)>>,
}

impl Watch {
    /// Watches a data directory, its lock, and its journal.
    pub fn new(data_dir: &Directory, journal: &Directory, lock: &str) -> io::Result<Self> {
        // What another daemon or a person finds under the path is looked up from the root, as they do.
        let root = std::path::absolute(data_dir.path())?;
        let below = std::path::absolute(journal.path())?;
        Ok(Self {
            fixed: vec![
                (root.clone(), data_dir.identity()?),
                (root.join(lock), data_dir.about(lock)?.into()),
                (below.clone(), journal.identity()?),
            ],
            journal: below,
            segment: Mutex::default(),
        })
    }

    /// Looks at the paths every second until the watch is dropped. What is wrong is declared a failure.
    pub fn start(self: &Arc<Self>, failure: Failure) -> io::Result<()> {
        let watch = Arc::downgrade(self);
        let looking = move || {
            while let Some(watch) = watch.upgrade() {
                if let Err(why) = watch.check() {
                    return failure.declare(&why);
                }
                drop(watch);
                std::thread::sleep(INTERVAL);
            }
        };
        let thread = std::thread::Builder::new().name("watch".to_owned());
        thread.spawn(looking).map(drop)
    }

    /// Watches another segment from here on, and looks at all the paths; an error says what is wrong.
    pub fn segment_begun(&self, name: &str, identity: Identity) -> Result<(), String> {
        let begun = (self.journal.join(name), identity);
        *self.segment.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        self.check()
    }

    /// Looks at the paths; an error says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let segment = self.segment.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = segment.clone();
        for (path, identity) in self.fixed.iter().chain(&segment) {
            let what = match Identity::of(path) {
                Ok(found) if found == *identity => continue,
                Ok(_) => "is another one now",
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => "is gone",
                // It may be there all the same; a disk that fails shows itself where it is written to.
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "a path cannot be looked at");
                    continue;
                }
            };
            return Err(lost(path, what));
        }
        Ok(())
    }
}

fn lost(path: &Path, what: &str) -> String {
    format!(
        "{} was removed, renamed or replaced while chatd was running: it {what}; no more changes are taken, \
         since nobody would find them there; put it back before chatd is started again",
        path.display()
    )
}
