//! The log, on standard error. It never fails the daemon, and never holds it up: a line that cannot be written in time is
//! dropped and counted.

mod filter;
mod queue;

use crate::config::{self, LogFormat};
use crate::limits::{LOG_FLUSH_MS, LOG_QUEUE_MAX_BYTES};
use queue::{Lines, Queue};
use rustix::event::{PollFd, PollFlags, poll};
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// What waits to be written, with a thread of its own that writes it.
static QUEUE: LazyLock<Queue> = LazyLock::new(|| {
    let queue = Queue::new(LOG_QUEUE_MAX_BYTES);
    let spawned = thread::Builder::new()
        .name("log".to_owned())
        .spawn(|| QUEUE.write_to(&mut Lines::new(StandardError, lost)));
    if spawned.is_err() {
        // Whoever has something to say then writes it.
        queue.close(Duration::ZERO);
    }
    queue
});

/// Whether lines are objects of JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Starts the log, with the panics of every thread in it; an error says what is wrong with the configuration.
pub fn start(config: &config::Log) -> Result<(), String> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter::filter(config)?)
        // It would say on standard error that standard error cannot be written, and panic.
        .log_internal_errors(false)
        .with_writer(|| Queued);
    match config.format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => {
            JSON.store(true, Ordering::Relaxed);
            log.json().init();
        }
    }
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
        tracing::error!(
            thread = std::thread::current().name(),
            location = panic.location().map(tracing::field::display),
            text = message(panic.payload()),
            backtrace = backtrace.as_ref().map(tracing::field::display),
            "panicked; this is a fault of chatd"
        );
    }));
    Ok(())
}

/// What a panic says.
fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or_default()
}

/// Says something to whoever started the program, behind what is in the log.
pub fn say(text: impl Display) {
    push(format!("chatd: {text}\n").as_bytes());
}

/// Has what was logged be written when it goes, as far as whoever reads takes it in time.
#[derive(Debug)]
pub struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        QUEUE.close(Duration::from_millis(LOG_FLUSH_MS));
    }
}

fn push(line: &[u8]) {
    if !QUEUE.push(line) {
        Lines::new(StandardError, lost).write(line);
    }
}

/// The line that says how many are missing.
fn lost(lines: u64) -> String {
    const TEXT: &str = "lines of the log could not be written";
    if !JSON.load(Ordering::Relaxed) {
        return format!("chatd: {lines} {TEXT}\n");
    }
    let mut time = String::new();
    // Writing to a string cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let target = module_path!();
    format!(
        r#"{{"timestamp":"{time}","level":"WARN","fields":{{"message":"{TEXT}","lines":{lines}}},"target":"{target}"}}"#
    ) + "\n"
}

/// Takes each line whole, as the formatter writes it.
struct Queued;

impl Write for Queued {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error, also where whoever shares it has made it one that does not wait.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut error = io::stderr();
            match error.write(bytes) {
                Err(full) if full.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&error, PollFlags::OUT)], None)?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
