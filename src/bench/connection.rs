//! Connections of which one thread drives many: bytes in, bytes out, and which of them can go on.

use super::arguments::Plan;
use super::{Failure, interrupt};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Descriptors that a run needs besides those of its connections.
const MORE_DESCRIPTORS: u64 = 64;
/// Connections that are opened before the daemon is asked whether it has taken them: fewer than its listener queues.
const OPEN_AT_ONCE: usize = 256;
/// Connections that can be told of as ready at once.
const READY_MAX: usize = 1024;
/// Bytes that are read at once.
const INPUT_BYTES: usize = 256 * 1024;
/// Bytes in a line, after which it is none of the protocol's.
const LINE_MAX_BYTES: usize = 256 * 1024 * 1024;

/// A stream to the daemon.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects to `IP:PORT` or `unix:PATH`.
    pub fn connect(address: &str) -> Result<Self, Failure> {
        let connected = match address.strip_prefix("unix:") {
            Some(path) => UnixStream::connect(path).map(Self::Unix),
            None => TcpStream::connect(address)
                .and_then(|stream| stream.set_nodelay(true).map(|()| Self::Tcp(stream))),
        };
        connected.map_err(|error| Failure::Run(format!("cannot connect to {address}: {error}")))
    }

    /// Sets how long a read may wait.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A request that is not answered yet.
#[derive(Clone, Copy)]
pub struct Sent {
    /// Nanoseconds into the run, at which it was sent or should have been.
    pub at_ns: u64,
    /// Which of the scenario's kinds it is.
    pub kind: usize,
}

/// One connection.
pub struct Connection {
    stream: Stream,
    /// Requests that are not answered yet, in their order.
    pub in_flight: VecDeque<Sent>,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// What the socket did not take yet.
    unsent: Vec<u8>,
}

/// Many connections to one address, and which of them are ready.
pub struct Pool {
    epoll: OwnedFd,
    /// The connections.
    pub connections: Vec<Connection>,
    ready: Vec<epoll::Event>,
    input: Vec<u8>,
}

/// What a connection is ready for.
#[derive(Clone, Copy)]
pub struct Ready {
    /// Which connection.
    pub index: usize,
    /// There is something to read, or the end.
    pub readable: bool,
    /// The socket takes bytes again.
    pub writable: bool,
}

impl Pool {
    /// Opens connections.
    pub fn open(address: &str, count: usize) -> Result<Self, Failure> {
        let mut connections = Vec::with_capacity(count);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        for index in 0..count {
            let mut stream = Stream::connect(address)?;
            if (index + 1) % OPEN_AT_ONCE == 0 {
                interrupt::check()?;
                accepted(&mut stream).map_err(|error| {
                    Failure::Run(format!("connection {} is not served: {error}", index + 1))
                })?;
            }
            stream
                .set_nonblocking()
                .and_then(|()| {
                    let data = EventData::new_u64(index as u64);
                    Ok(epoll::add(&epoll, &stream, data, EventFlags::IN)?)
                })
                .map_err(failed)?;
            connections.push(Connection {
                stream,
                in_flight: VecDeque::new(),
                partial: Vec::new(),
                unsent: Vec::new(),
            });
        }
        Ok(Self {
            epoll,
            connections,
            ready: Vec::with_capacity(READY_MAX),
            input: vec![0; INPUT_BYTES],
        })
    }

    /// Waits until connections are ready or the time is over, to the millisecond; `exact`, to less than a tenth of one.
    pub fn wait(&mut self, time: Duration, exact: bool) -> Result<usize, Failure> {
        self.ready.clear();
        let mut timeout = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        if exact {
            let mut waited_for = [PollFd::new(&self.epoll, PollFlags::IN)];
            uninterrupted(poll(&mut waited_for, Some(&timeout)))?;
            timeout = Timespec::default();
        }
        let buffer = rustix::buffer::spare_capacity(&mut self.ready);
        uninterrupted(epoll::wait(&self.epoll, buffer, Some(&timeout)))
    }

    /// The `number`th of the connections that the last wait found ready.
    pub fn ready(&self, number: usize) -> Option<Ready> {
        let event = self.ready.get(number)?;
        let flags = event.flags;
        Some(Ready {
            index: usize::try_from(event.data.u64()).ok()?,
            readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
            writable: flags.contains(EventFlags::OUT),
        })
    }

    /// Reads once, and hands over the buffer with what the connection has sent, cut after the last whole line; what
    /// follows is kept for the next read. None at the end of the stream. The buffer comes back by [`Pool::give_back`].
    pub fn read(&mut self, index: usize) -> Result<Option<(Vec<u8>, usize)>, Failure> {
        let Some(connection) = self.connections.get_mut(index) else {
            return Ok(None);
        };
        let kept = connection.partial.len();
        if kept + INPUT_BYTES / 2 > self.input.len() {
            if kept > LINE_MAX_BYTES {
                return Err(Failure::run("a line has no end"));
            }
            self.input.resize(kept * 2 + INPUT_BYTES, 0);
        }
        let (front, room) = self.input.split_at_mut(kept);
        front.copy_from_slice(&connection.partial);
        let read = match connection.stream.read(room) {
            Ok(0) => return Ok(None),
            Ok(read) => read,
            Err(error) if would_block(&error) => 0,
            Err(error) => return Err(Failure::Run(format!("a connection broke: {error}"))),
        };
        let filled = kept + read;
        let end = room
            .get(..read)
            .and_then(|fresh| memchr::memrchr(b'\n', fresh))
            .map_or(0, |place| kept + place + 1);
        if end > 0 || read > 0 {
            connection.partial.clear();
            connection
                .partial
                .extend_from_slice(self.input.get(end..filled).unwrap_or_default());
        }
        Ok(Some((std::mem::take(&mut self.input), end)))
    }

    /// Takes the buffer back.
    pub fn give_back(&mut self, input: Vec<u8>) {
        self.input = input;
    }

    /// Sends bytes, in one write if the socket takes them; what it does not take is sent when it does.
    pub fn send(&mut self, index: usize, bytes: &[u8]) -> Result<(), Failure> {
        let Some(connection) = self.connections.get_mut(index) else {
            return Ok(());
        };
        let mut taken = 0;
        if connection.unsent.is_empty() {
            taken = connection.write(bytes)?;
            if taken < bytes.len() {
                let (data, both) = (
                    EventData::new_u64(index as u64),
                    EventFlags::IN | EventFlags::OUT,
                );
                epoll::modify(&self.epoll, &connection.stream, data, both).map_err(failed)?;
            }
        }
        connection
            .unsent
            .extend_from_slice(bytes.get(taken..).unwrap_or_default());
        Ok(())
    }

    /// Sends what the socket did not take before.
    pub fn flush(&mut self, index: usize) -> Result<(), Failure> {
        let Some(connection) = self.connections.get_mut(index) else {
            return Ok(());
        };
        let unsent = std::mem::take(&mut connection.unsent);
        let taken = connection.write(&unsent)?;
        if taken < unsent.len() {
            connection
                .unsent
                .extend_from_slice(unsent.get(taken..).unwrap_or_default());
        } else {
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.stream, data, EventFlags::IN).map_err(failed)?;
        }
        Ok(())
    }
}

impl Connection {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        match self.stream.write(bytes) {
            Ok(taken) => Ok(taken),
            Err(error) if would_block(&error) => Ok(0),
            Err(error) => Err(Failure::Run(format!("a connection broke: {error}"))),
        }
    }
}

/// Lets this process, and the daemon that it may start, have as many descriptors as the plans need.
pub fn raise_descriptor_limit(plans: &[Plan]) -> Result<(), Failure> {
    let connections = plans.iter().map(|plan| plan.connections).max().unwrap_or(0);
    let needed = connections as u64 + MORE_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(most) = limit.maximum
        && most < needed
    {
        return Err(Failure::Usage(format!(
            "{connections} connections need {needed} descriptors, and a process may have {most} here (ulimit -Hn)"
        )));
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(failed)
}

/// Waits for the answer to a ping, which says that this connection and those before it were accepted.
fn accepted(stream: &mut Stream) -> io::Result<()> {
    stream.set_read_timeout(Duration::from_secs(10))?;
    stream.write_all(b"{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\"}\n")?;
    let mut answer = Vec::new();
    let mut bytes = [0; 512];
    while !answer.ends_with(b"\n") {
        let read = stream.read(&mut bytes)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(bytes.get(..read).unwrap_or_default());
    }
    if answer.starts_with(super::driver::OK) {
        Ok(())
    } else {
        Err(io::Error::other(
            String::from_utf8_lossy(&answer).trim_end().to_owned(),
        ))
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn uninterrupted(result: rustix::io::Result<usize>) -> Result<usize, Failure> {
    match result {
        Err(rustix::io::Errno::INTR) => Ok(0),
        other => other.map_err(failed),
    }
}

fn failed(error: impl Into<io::Error>) -> Failure {
    Failure::Run(format!("connections cannot be driven: {}", error.into()))
}
