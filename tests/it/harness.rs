//! Starts the real daemon on a port of its own choosing, and speaks to it over a plain blocking socket.
//!
//! It must not know more of chatd than a client can: the command line, the lines on standard output, and the protocol.
//! Nothing in it sleeps; whatever is waited for arrives on a pipe, a socket or from `wait`, each with one patient deadline.

// A method that no test needs today is still part of the harness.
#![allow(dead_code)]

mod client;
pub mod clocked;
mod logins;
pub mod machine;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

pub use client::Client;
pub use logins::LOGINS;

/// How long anything may take before a test gives up: long enough for a loaded machine, short enough to see the message.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One running chatd with its own configuration, data directory and log.
pub struct Daemon {
    child: Option<Child>,
    listeners: Vec<Listener>,
    data_dir: PathBuf,
    log: PathBuf,
    /// Holds the configuration, the log and, unless the test brought its own, the data; goes away with the daemon.
    _scratch: TempDir,
}

/// What the daemon said of one of its listeners.
#[derive(Debug, Clone)]
pub struct Listener {
    /// `127.0.0.1:PORT` or `unix:PATH`, as [`Client::connect`] takes it.
    pub address: String,
    /// `trusted` or `login`.
    pub access: String,
}

impl Daemon {
    /// Starts a daemon with one trusted listener and fast password hashing.
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts a daemon with the given chatd.toml. A text without `[[listen]]` gets a trusted listener on a free port, one
    /// without `[security]` a `bcrypt_cost` of 4, so that a test names only what it is about.
    pub fn with(config_toml: &str) -> Self {
        let scratch = TempDir::new().expect("a temporary directory");
        let data_dir = scratch.path().join("data");
        Self::spawn(scratch, data_dir, config_toml)
    }

    /// Starts a daemon on a data directory that outlives it, for restarts. The configuration is completed as in [`Daemon::with`].
    pub fn on_dir(data_dir: &Path, config_toml: &str) -> Self {
        let scratch = TempDir::new().expect("a temporary directory");
        Self::spawn(scratch, data_dir.to_path_buf(), config_toml)
    }

    /// Ends the daemon as a crash would (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill chatd");
            child.wait().expect("wait for chatd");
        }
    }

    /// Asks the daemon to stop (SIGTERM) and gives the status that it ended with.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM)
    }

    /// Sends the daemon a signal that stops it, and gives the status that it ended with.
    pub fn signal(&mut self, signal: rustix::process::Signal) -> ExitStatus {
        let mut child = self.child.take().expect("a running chatd");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("signal chatd");
        let (ended, status) = mpsc::channel();
        thread::spawn(move || ended.send(child.wait()));
        if let Ok(status) = status.recv_timeout(PATIENCE) {
            return status.expect("wait for chatd");
        }
        // The waiting thread has not reaped it, so the process id is still this child's.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        panic!("chatd did not stop within {PATIENCE:?} of {signal:?}");
    }

    /// The address of the first listener.
    pub fn address(&self) -> &str {
        &self.listeners[0].address
    }

    /// The address of the first listener with this access, `trusted` or `login`.
    pub fn address_of(&self, access: &str) -> &str {
        let found = self
            .listeners
            .iter()
            .find(|listener| listener.access == access);
        &found
            .unwrap_or_else(|| panic!("no {access} listener among {:?}", self.listeners))
            .address
    }

    /// Every listener, in the order in which the daemon announced them.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Where this daemon keeps its data.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running chatd").id()
    }

    /// A new connection to the first listener.
    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// What the daemon has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn spawn(scratch: TempDir, data_dir: PathBuf, config_toml: &str) -> Self {
        let config = complete(config_toml);
        let config_file = scratch.path().join("chatd.toml");
        let log = scratch.path().join("chatd.log");
        fs::write(&config_file, &config).expect("write chatd.toml");
        let mut child = Command::new(env!("CARGO_BIN_EXE_chatd"))
            .arg("--config")
            .arg(&config_file)
            .arg("--data-dir")
            .arg(&data_dir)
            // A test run that is itself a service must not lend the daemon its directory or its notification socket.
            .env_remove("STATE_DIRECTORY")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("create the log"))
            .spawn()
            .expect("start chatd");
        let stdout = child.stdout.take().expect("a piped standard output");
        let mut daemon = Self {
            child: Some(child),
            listeners: Vec::new(),
            data_dir,
            log,
            _scratch: scratch,
        };
        // From here on a panic drops the daemon, which kills the process and shows its log.
        let announced = drain(stdout);
        for _ in 0..listener_count(&config) {
            let listener = announced.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!(
                    "chatd did not announce all of its listeners; it announced {:?}",
                    daemon.listeners
                )
            });
            daemon.listeners.push(listener);
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!(
                "--- the log of chatd on {} ---\n{}--- end of the log ---",
                self.data_dir.display(),
                self.log()
            );
        }
    }
}

fn complete(config_toml: &str) -> String {
    let mut config = config_toml.to_owned();
    if listener_count(&config) == 0 {
        config.push_str("\n[[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"trusted\"\n");
    }
    if !config.lines().any(|line| line.trim() == "[security]") {
        config.push_str("\n[security]\nbcrypt_cost = 4\n");
    }
    config
}

fn listener_count(config: &str) -> usize {
    config
        .lines()
        .filter(|line| line.trim() == "[[listen]]")
        .count()
}

/// Reads standard output to its end, so that the daemon never waits for us, and passes on the listeners that it names.
fn drain(stdout: impl Read + Send + 'static) -> mpsc::Receiver<Listener> {
    let (found, announced) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let Some((address, access)) = line
                .strip_prefix("listening on ")
                .and_then(|rest| rest.split_once(" access="))
            else {
                continue;
            };
            let _ = found.send(Listener {
                address: address.to_owned(),
                access: access.trim().to_owned(),
            });
        }
    });
    announced
}
