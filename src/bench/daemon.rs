//! The daemon that a run starts for itself: on a temporary directory, on ports of its own, gone with the run.

use super::arguments::{Plan, Scenario};
use super::{Failure, Target, interrupt};
use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

/// How long a daemon on an empty directory may take to listen.
const START: Duration = Duration::from_secs(30);
/// Connections besides those under load: the one that sets up, those that fill.
const MORE_CONNECTIONS: usize = 64;
/// What statfs says of a file system in memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A running daemon; dropped, it is ended and its directory removed.
pub struct Daemon {
    child: Option<Child>,
    directory: PathBuf,
}

impl Daemon {
    /// Starts one that has what the plan needs.
    pub fn start(plan: &Plan) -> Result<Target, Failure> {
        let mut daemon = Self {
            child: None,
            directory: make_directory()?,
        };
        let config = config(plan);
        let cannot = |error| Failure::Run(format!("a daemon cannot be started: {error}"));
        fs::write(daemon.directory.join("chatd.toml"), &config).map_err(cannot)?;
        let log = File::create(daemon.directory.join("log")).map_err(cannot)?;
        let mut child = Command::new(std::env::current_exe().map_err(cannot)?)
            .arg("--config")
            .arg(daemon.directory.join("chatd.toml"))
            .arg("--data-dir")
            .arg(daemon.directory.join("data"))
            // What was meant for this process is not meant for that one.
            .env_remove("STATE_DIRECTORY")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(cannot)?;
        let pid = child.id();
        let lines = child.stdout.take().map(listeners);
        daemon.child = Some(child);
        let mut addresses = Vec::new();
        for _ in config.matches("[[listen]]") {
            let found = lines.as_ref().map(await_listener).transpose()?.flatten();
            let Some(address) = found else {
                return Err(Failure::Run(
                    daemon.explain("the daemon of this run did not start"),
                ));
            };
            addresses.push(address);
        }
        let mut addresses = addresses.into_iter();
        let address = addresses.next().unwrap_or_default();
        Ok(Target {
            login_address: addresses.next().unwrap_or_else(|| address.clone()),
            address,
            pid: Some(pid),
            own: Some(daemon),
        })
    }

    /// A text, with the end of what the daemon logged, which may say why.
    pub fn explain(&self, text: &str) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        log.trim_end().lines().next_back().map_or_else(
            || text.to_owned(),
            |last| format!("{text}; its last word was: {last}"),
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Nothing that it keeps outlives it, so there is nothing to finish.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Bytes of memory that a process holds at the moment (`VmRSS`).
pub fn resident_bytes(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path)
        .map_err(|error| Failure::Run(format!("cannot read {path}: {error}")))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| Failure::Run(format!("{path} says nothing of VmRSS")))
}

fn config(plan: &Plan) -> String {
    let connections = plan.connections + MORE_CONNECTIONS;
    let text_bytes = plan.payload_bytes.max(16_384);
    let limits = format!(
        "max_message_bytes = {text_bytes}\nmax_line_bytes = {}",
        text_bytes * 4
    );
    let trusted = "[[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"trusted\"";
    let (more_limits, more) = if plan.scenario == Scenario::Login {
        // What is measured is how fast logins are, not how soon they are too many.
        let most = u32::MAX;
        let more_limits = format!(
            "max_connections = {connections}\nmax_connections_per_address = {connections}\n\
             max_connections_not_logged_in = {connections}\n\
             requests_per_second = {most}\nrequests_per_second_per_address = {most}\n\
             requests_per_second_per_user = {most}\nmax_sessions_per_user = {connections}"
        );
        (more_limits, trusted.replace("trusted", "login"))
    } else {
        // Where passwords are not what is measured, they are not waited for.
        let more_limits = format!("max_connections = 1\nmax_connections_trusted = {connections}");
        (more_limits, "[security]\nbcrypt_cost = 4".to_owned())
    };
    format!("[log]\nlevel = \"warn\"\n\n[limits]\n{limits}\n{more_limits}\n\n{trusted}\n\n{more}\n")
}

fn make_directory() -> Result<PathBuf, Failure> {
    let base = std::env::temp_dir();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let name = format!(
        "chatd-bench-{}-{}",
        std::process::id(),
        now.unwrap_or_default().as_nanos()
    );
    let directory = base.join(name);
    DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .map_err(|error| Failure::Run(format!("cannot make {}: {error}", directory.display())))?;
    if rustix::fs::statfs(&directory).is_ok_and(|about| about.f_type == TMPFS_MAGIC) {
        super::complain(format_args!(
            "{} is in memory, where a sync costs nothing: set TMPDIR to a directory on a disk",
            base.display()
        ));
    }
    Ok(directory)
}

/// Reads standard output to its end, so that the daemon never waits for it, and passes on the listeners that it names.
fn listeners(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (found, announced) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let address = line
                .strip_prefix("listening on ")
                .and_then(|rest| rest.split_once(" access="));
            if let Some((address, _)) = address {
                let _ = found.send(address.to_owned());
            }
        }
    });
    announced
}

fn await_listener(announced: &Receiver<String>) -> Result<Option<String>, Failure> {
    let began = Instant::now();
    while began.elapsed() < START {
        interrupt::check()?;
        match announced.recv_timeout(Duration::from_millis(100)) {
            Ok(address) => return Ok(Some(address)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(None)
}
