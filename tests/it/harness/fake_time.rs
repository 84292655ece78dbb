//! A real daemon whose clock a test sets, where libfaketime is there. Its monotonic clock goes on as it is.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::Daemon;

/// Where libfaketime is, and the file that tells it the time.
pub struct FakeTime {
    preload: String,
    scratch: TempDir,
}

impl FakeTime {
    /// The machine's time at first; an error says what is missing.
    pub fn new() -> Result<Self, String> {
        let architectures = fs::read_dir("/usr/lib").map_err(|error| error.to_string())?;
        let found = architectures
            .flatten()
            .map(|entry| entry.path().join("faketime/libfaketime.so.1"))
            .find(|path| path.exists())
            .ok_or("libfaketime is not installed")?;
        let fake = Self {
            preload: format!("LD_PRELOAD={}", found.display()),
            scratch: TempDir::new().map_err(|error| error.to_string())?,
        };
        fake.set("+0");
        Ok(fake)
    }

    /// Sets the clock, as far from the machine's as this says.
    pub fn set(&self, offset: &str) {
        let new = self.scratch.path().join("new");
        fs::write(&new, offset).expect("write the time");
        // A daemon that looks meanwhile finds the one or the other.
        fs::rename(new, self.scratch.path().join("time")).expect("set the time");
    }

    /// A daemon that sees this time, on a data directory that outlives it.
    pub fn daemon(&self, data_dir: &Path, config_toml: &str) -> Daemon {
        let time = self.scratch.path().join("time");
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", time.display());
        let settings = ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"];
        let program = [&["env", &self.preload, &file][..], &settings].concat();
        Daemon::under_on_dir(&program, data_dir, config_toml)
    }
}
