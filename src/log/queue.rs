//! The lines that wait to be written, and the thread that writes them.
//!
//! Whoever reads the log may stop reading. Then that thread waits, and nobody else: lines that find no room are dropped and
//! counted, and their number is told where they are missing.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that a line costs in the queue besides its text.
const ENTRY_BYTES: usize = size_of::<Entry>();

/// Lines on their way to one writer, in their order.
#[derive(Debug)]
pub struct Queue {
    max_bytes: usize,
    state: Mutex<State>,
    /// Something was put in, or nothing more comes.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Lines that found no room since the last one that did.
    lost: u64,
    writing: bool,
    closed: bool,
}

/// A line, and how many were dropped between the one before it and this one.
#[derive(Debug, Default)]
struct Entry {
    lost_before: u64,
    /// Empty where only the loss is to be told.
    line: Box<[u8]>,
}

impl Queue {
    /// An empty queue that holds so many bytes.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a line at the end, or drops and counts it where there is no room. Never waits for the writer. False if the
    /// queue is closed.
    #[must_use]
    pub fn push(&self, line: &[u8]) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        let bytes = state.bytes + line.len() + ENTRY_BYTES;
        if bytes > self.max_bytes {
            state.lost += 1;
            return true;
        }
        state.bytes = bytes;
        let lost_before = std::mem::take(&mut state.lost);
        state.entries.push_back(Entry {
            lost_before,
            line: line.into(),
        });
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Writes lines until the queue is closed and empty.
    pub fn write_to<W: Write>(&self, lines: &mut Lines<W>) {
        while let Some(entry) = self.next() {
            lines.lost += entry.lost_before;
            lines.write(&entry.line);
            let mut state = self.lock();
            state.writing = false;
            if !entry.line.is_empty() {
                state.bytes -= entry.line.len() + ENTRY_BYTES;
            }
            if state.is_done() {
                self.emptied.notify_all();
            }
        }
    }

    fn next(&self) -> Option<Entry> {
        let state = self.lock();
        let waiting = |state: &mut State| state.is_done() && !state.closed;
        let mut state = self
            .filled
            .wait_while(state, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        let entry = match state.entries.pop_front() {
            Some(entry) => entry,
            None if state.lost > 0 => Entry {
                lost_before: std::mem::take(&mut state.lost),
                ..Entry::default()
            },
            None => return None,
        };
        state.writing = true;
        Some(entry)
    }

    /// Takes no more lines, and waits for those that are in it to be written, but no longer than so long.
    pub fn close(&self, within: Duration) {
        let by = Instant::now() + within;
        let mut state = self.lock();
        state.closed = true;
        self.filled.notify_all();
        while !state.is_done() {
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.emptied.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.entries.is_empty() && self.lost == 0 && !self.writing
    }
}

/// Writes lines, each as a whole, or drops and counts it.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
    /// Says that so many lines could not be written.
    tell: fn(u64) -> String,
    /// Lines that could not be written since the last one that could.
    lost: u64,
    /// Whether the last one was cut off: the next one begins a line of its own.
    cut: bool,
}

impl<W: Write> Lines<W> {
    /// Lines to `out`; `tell` makes the line, with its end, that says how many are missing.
    pub fn new(out: W, tell: fn(u64) -> String) -> Self {
        Self {
            out,
            tell,
            lost: 0,
            cut: false,
        }
    }

    /// Writes a line, with its end; before it, how many are missing there.
    pub fn write(&mut self, line: &[u8]) {
        let told = self.lost == 0 || self.put((self.tell)(self.lost).as_bytes()).is_ok();
        if told {
            self.lost = 0;
        }
        if !told || self.put(line).is_err() {
            self.lost += u64::from(!line.is_empty());
        }
    }

    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        if self.cut {
            self.out.write_all(b"\n")?;
            self.cut = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.cut = !rest.is_empty();
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    fn tell(lines: u64) -> String {
        format!("{lines} lost\n")
    }

    /// A file on a disk that has room for this many bytes.
    struct File<'a> {
        room: usize,
        text: &'a mut Vec<u8>,
    }

    impl Write for File<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(self.room);
            self.room -= count;
            self.text.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_later() {
        let mut text = Vec::new();
        let mut lines = Lines::new(
            File {
                room: 0,
                text: &mut text,
            },
            tell,
        );
        for room in [0, 2, 100, 100] {
            lines.out.room = room;
            lines.write(b"line\n");
        }
        // Of the second notice no more than its beginning was written.
        let expected = "1 \n2 lost\nline\nline\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    /// A pipe whose reader takes a write when it is told to.
    struct Pipe {
        may: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A reader that is gone takes everything.
            let _ = self.may.recv();
            let _ = self.written.send(String::from_utf8(bytes.into()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_whoever_reads_and_what_is_dropped_is_told_in_its_place() {
        let (read, may) = channel();
        let (written, lines) = channel();
        let queue = Queue::new(3 * (ENTRY_BYTES + 2));
        thread::scope(|threads| {
            threads.spawn(|| queue.write_to(&mut Lines::new(Pipe { may, written }, tell)));
            for line in ["1\n", "2\n", "3\n", "4\n", "5\n"] {
                assert!(queue.push(line.as_bytes()));
            }
            read.send(()).unwrap();
            assert_eq!(lines.recv().unwrap(), "1\n");
            // Its room is free a moment after it was written.
            while queue.lock().bytes == queue.max_bytes {
                thread::yield_now();
            }
            assert!(queue.push(b"6\n"));
            assert!(queue.push(b"7\n"));
            // It ends all the same when nothing is read.
            queue.close(Duration::ZERO);
            assert!(!queue.push(b"8\n"));
            drop(read);
            queue.close(Duration::from_secs(60));
        });
        let lines: Vec<_> = lines.try_iter().collect();
        assert_eq!(lines, ["2\n", "3\n", "2 lost\n", "6\n", "1 lost\n"]);
    }
}
