//! The log, on standard error. It never fails the daemon: a line that cannot be written is dropped and counted.

use crate::config::{self, LogFormat};
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_subscriber::EnvFilter;

/// Lines that could not be written since the last one that could.
static LOST_LINES: AtomicU64 = AtomicU64::new(0);

/// Starts the log, with the panics of every thread in it; an error says what is wrong with the configuration.
pub fn start(config: &config::Log) -> Result<(), String> {
    let level = std::env::var("RUST_LOG").unwrap_or_else(|_| config.level.clone());
    let filter = EnvFilter::try_new(&level)
        .map_err(|error| format!("log.level {level:?} is not known: {error}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would say on standard error that standard error cannot be written, and panic.
        .log_internal_errors(false)
        .with_writer(|| Unfailing(io::stderr()));
    match config.format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
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

/// Writes what can be written, and says that all of it was.
struct Unfailing<W>(W);

impl<W: Write> Write for Unfailing<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = LOST_LINES.load(Ordering::Relaxed);
        let mut written = Ok(());
        if lost > 0 {
            written = writeln!(
                self.0,
                "chatd: {lost} lines of the log could not be written"
            );
        }
        if written.and_then(|()| self.0.write_all(line)).is_ok() {
            LOST_LINES.fetch_sub(lost, Ordering::Relaxed);
        } else {
            LOST_LINES.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file on a disk that is full, or not.
    struct File<'a> {
        full: bool,
        text: &'a mut Vec<u8>,
    }

    impl Write for File<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.text.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_later() {
        let mut text = Vec::new();
        for full in [true, true, false, false] {
            let mut log = Unfailing(File {
                full,
                text: &mut text,
            });
            log.write_all(b"line\n").unwrap();
        }
        let expected = "chatd: 2 lines of the log could not be written\nline\nline\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
