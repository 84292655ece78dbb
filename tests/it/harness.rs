//! Starts the real daemon on a port of its own choosing, and speaks to it over a plain blocking socket.
//!
//! It must not know more of chatd than a client can: the command line, the lines on standard output, and the protocol.
//! Nothing in it sleeps; whatever is waited for arrives on a pipe, a socket or from `wait`, each with one patient deadline.

// A method that no test needs today is still part of the harness.
#![allow(dead_code)]

mod certificates;
mod client;
pub mod clocked;
pub mod fake_time;
mod logins;
pub mod machine;
mod socket;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use certificates::Authority;
pub use client::Client;
pub use logins::LOGINS;
pub use socket::Socket;

/// How long anything may take before a test gives up: long enough for a loaded machine, short enough to see the message.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One running chatd with its own configuration, data directory and log.
pub struct Daemon {
    child: Option<Child>,
    listeners: Vec<Listener>,
    /// Its further lines on standard output.
    said: Mutex<mpsc::Receiver<String>>,
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

impl Listener {
    /// The listener that a line of standard output announces.
    fn announced(line: &str) -> Option<Self> {
        let (address, access) = line.strip_prefix("listening on ")?.split_once(" access=")?;
        Some(Self {
            address: address.to_owned(),
            access: access.trim().to_owned(),
        })
    }
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
        Self::spawn(scratch, data_dir, config_toml, &[])
    }

    /// Starts a daemon through another program, such as `prlimit --nofile=64`, that becomes it by exec.
    pub fn under(program: &[&str], config_toml: &str) -> Self {
        let scratch = TempDir::new().expect("a temporary directory");
        let data_dir = scratch.path().join("data");
        Self::spawn(scratch, data_dir, config_toml, program)
    }

    /// The same on a data directory that outlives it.
    pub fn under_on_dir(program: &[&str], data_dir: &Path, config_toml: &str) -> Self {
        let scratch = TempDir::new().expect("a temporary directory");
        Self::spawn(scratch, data_dir.to_path_buf(), config_toml, program)
    }

    /// Starts a daemon on a data directory that outlives it, for restarts. The configuration is completed as in [`Daemon::with`].
    pub fn on_dir(data_dir: &Path, config_toml: &str) -> Self {
        let scratch = TempDir::new().expect("a temporary directory");
        Self::spawn(scratch, data_dir.to_path_buf(), config_toml, &[])
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
        self.end_with(Signal::TERM)
    }

    /// Sends a signal that the daemon does not end on.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running chatd");
        kill_process(Pid::from_child(child), signal).expect("signal chatd");
    }

    /// Sends a signal that the daemon ends on, and gives the status that it ended with.
    pub fn end_with(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.ended()
    }

    /// Waits until the daemon ends, and gives the status that it ended with.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running chatd");
        let pid = Pid::from_child(&child);
        let (ended, status) = mpsc::channel();
        thread::spawn(move || ended.send(child.wait()));
        if let Ok(status) = status.recv_timeout(PATIENCE) {
            return status.expect("wait for chatd");
        }
        // The waiting thread has not reaped it, so the process id is still this child's.
        let _ = kill_process(pid, Signal::KILL);
        panic!("chatd did not end within {PATIENCE:?}");
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
        if let Some(child) = &self.child {
            wait_until("the log to be written", || !is_writing_log(child.id()));
        }
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn next_line_said(&self) -> Option<String> {
        let said = self.said.lock().expect("nobody panicked while waiting");
        said.recv_timeout(PATIENCE).ok()
    }

    /// The command that the daemon says to try, once it is started.
    pub fn line_to_try(&self) -> String {
        let line = self.next_line_said().expect("a line to try");
        let line = line.strip_prefix("try: ");
        line.expect("the line after the listeners").to_owned()
    }

    /// Waits until the log holds a text.
    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || {
            self.log().contains(text)
        });
    }

    /// How many descriptors the daemon has open; only root is told, since the daemon lets nobody look into it.
    pub fn descriptors(&self) -> Option<usize> {
        match fs::read_dir(format!("/proc/{}/fd", self.pid())) {
            Ok(descriptors) => Some(descriptors.count()),
            Err(error) => {
                println!("skipped: counting descriptors: {error}");
                None
            }
        }
    }

    /// Bytes of memory that the daemon holds.
    pub fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("about the process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: usize = kib.expect("VmRSS").parse().expect("a number");
        kib * 1024
    }

    /// Processor time that the daemon has used.
    pub fn processor_time(&self) -> Duration {
        const AFTER_NAME: &str = ") ";
        const USER_TICKS: usize = 11;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.expect("about the process");
        let (_, fields) = stat.rsplit_once(AFTER_NAME).expect("fields");
        let fields = fields.split_whitespace().skip(USER_TICKS).take(2);
        let ticks: u64 = fields
            .map(|ticks| ticks.parse::<u64>().expect("ticks"))
            .sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    fn spawn(scratch: TempDir, data_dir: PathBuf, config_toml: &str, program: &[&str]) -> Self {
        let config = complete(config_toml);
        let config_file = scratch.path().join("chatd.toml");
        let log = scratch.path().join("chatd.log");
        fs::write(&config_file, &config).expect("write chatd.toml");
        let mut words = program.iter().chain(&[env!("CARGO_BIN_EXE_chatd")]);
        let mut child = Command::new(words.next().expect("a program"))
            .args(words)
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
            said: Mutex::new(drain(stdout)),
            data_dir,
            log,
            _scratch: scratch,
        };
        // From here on a panic drops the daemon, which kills the process and shows its log.
        while daemon.listeners.len() < listener_count(&config) {
            let line = daemon.next_line_said().unwrap_or_else(|| {
                panic!(
                    "chatd did not announce all of its listeners; it announced {:?}",
                    daemon.listeners
                )
            });
            daemon.listeners.extend(Listener::announced(&line));
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

/// Whether the thread that writes the log of this process has something to do. One that was given a line is awake before
/// whoever gave it goes on.
fn is_writing_log(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    let stats = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats
        .filter_map(|stat| stat.split_once(" (log) ").map(|(_, rest)| rest.to_owned()))
        .any(|state| state.starts_with(['R', 'D']))
}

/// Waits until a condition holds that nobody tells of, looking again and again.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain for {what}"
        );
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs chatd with this chatd.toml to its end, and gives its exit code and what it wrote on standard error.
pub fn run_to_end(config_toml: &str, arguments: &[&str]) -> (i32, String) {
    let scratch = TempDir::new().expect("a temporary directory");
    let config_file = scratch.path().join("chatd.toml");
    fs::write(&config_file, config_toml).expect("write chatd.toml");
    let output = Command::new("timeout")
        .arg(PATIENCE.as_secs().to_string())
        .arg(env!("CARGO_BIN_EXE_chatd"))
        .arg("--config")
        .arg(&config_file)
        .arg("--data-dir")
        .arg(scratch.path().join("data"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("run chatd");
    let code = output.status.code().expect("an exit code");
    (code, String::from_utf8_lossy(&output.stderr).into_owned())
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

/// Reads standard output to its end, so that the daemon never waits for us, and passes its lines on.
fn drain(stdout: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (said, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = said.send(line);
        }
    });
    lines
}
