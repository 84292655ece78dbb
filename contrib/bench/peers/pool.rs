//! Connections that one thread drives.

use crate::Outcome;
use crate::protocol::{Frame, Kind};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Connections that are opened before the server must have greeted them all: `InspIRCd` does so once a second.
const OPEN_AT_ONCE: usize = 500;
/// Connections that can be told of as ready at once.
const READY_MAX: usize = 1024;
/// Bytes that are read at once.
const INPUT_BYTES: usize = 256 * 1024;
/// How long to wait for a connection to be ready before looking at the clock.
const LOOK: Duration = Duration::from_millis(100);
/// A server that says nothing for so long will not speak any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is done over the connections.
pub trait Work {
    /// Looks at what came; the time is that of the read that brought it.
    fn frame(&mut self, index: usize, frame: Frame<'_>, now_ns: u64) -> Outcome<()>;

    /// Appends what connection `index` may send now. It is asked at the start and after each read of that connection.
    fn send(&mut self, _index: usize, _now_ns: u64, _out: &mut Vec<u8>) {}

    /// A connection that may be able to send when something has come on others: asked when all that came is read.
    fn gated(&self) -> Option<usize> {
        None
    }

    /// Whether everything has come.
    fn is_complete(&self) -> bool;
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
}

/// Many connections to one server.
pub struct Pool {
    kind: Kind,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    input: Vec<u8>,
    began: Instant,
}

impl Pool {
    /// Opens connections that the server has greeted.
    pub fn open(kind: Kind, address: SocketAddr, count: usize) -> Outcome<Self> {
        let mut pool = Self {
            kind,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::with_capacity(count),
            input: vec![0; INPUT_BYTES],
            began: Instant::now(),
        };
        while pool.connections.len() < count {
            let first = pool.connections.len();
            let last = count.min(first + OPEN_AT_ONCE);
            for index in first..last {
                let mut stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.write_all(&kind.hello(index))?;
                stream.set_nonblocking(true)?;
                let data = EventData::new_u64(u64::try_from(index)?);
                epoll::add(&pool.epoll, &stream, data, EventFlags::IN)?;
                pool.connections.push(Connection {
                    stream,
                    partial: Vec::new(),
                });
            }
            let waiting = last - first;
            pool.drive(&mut Awaiting {
                waiting,
                kind,
                wanted: Kind::greeted,
            })?;
        }
        Ok(pool)
    }

    /// Makes subscribers of the first `count` connections.
    pub fn subscribe(&mut self, count: usize) -> Outcome<()> {
        let kind = self.kind;
        for index in 0..count {
            self.write(index, &kind.subscribe())?;
        }
        self.drive(&mut Awaiting {
            waiting: count,
            kind,
            wanted: Kind::subscribed,
        })
    }

    /// Lets every connection send, then reads and sends until the work is complete.
    pub fn drive(&mut self, work: &mut impl Work) -> Outcome<()> {
        let mut out = Vec::new();
        for index in 0..self.connections.len() {
            self.send(work, index, &mut out)?;
        }
        let mut ready: Vec<epoll::Event> = Vec::with_capacity(READY_MAX);
        let look = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(LOOK.subsec_nanos()),
        };
        let mut heard = Instant::now();
        while !work.is_complete() {
            ready.clear();
            let buffer = rustix::buffer::spare_capacity(&mut ready);
            if epoll::wait(&self.epoll, buffer, Some(&look))? > 0 {
                heard = Instant::now();
            } else if heard.elapsed() > PATIENCE {
                return Err("the server says nothing any more, and not all has come".into());
            }
            for event in &ready {
                let index = usize::try_from(event.data.u64())?;
                self.read(work, index, &mut out)?;
                self.send(work, index, &mut out)?;
            }
            if let Some(index) = work.gated() {
                self.send(work, index, &mut out)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, work: &mut impl Work, index: usize, out: &mut Vec<u8>) -> Outcome<()> {
        let connection = &mut self.connections[index];
        let kept = connection.partial.len();
        let Some(room) = self.input.get_mut(kept..).filter(|room| !room.is_empty()) else {
            return Err("a frame is larger than the buffer".into());
        };
        let count = match connection.stream.read(room) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.input[..kept].copy_from_slice(&connection.partial);
        connection.partial.clear();
        let now_ns = u64::try_from(self.began.elapsed().as_nanos())?;
        let mut rest = &self.input[..kept + count];
        out.clear();
        while let Some((frame, length)) = self.kind.frame(rest)? {
            if let Frame::Line(line) = frame {
                self.kind.refusal(line)?;
                out.extend(self.kind.retort(line).unwrap_or_default());
            }
            work.frame(index, frame, now_ns)?;
            rest = &rest[length..];
        }
        connection.partial.extend_from_slice(rest);
        self.write(index, out)
    }

    fn send(&mut self, work: &mut impl Work, index: usize, out: &mut Vec<u8>) -> Outcome<()> {
        out.clear();
        let now_ns = u64::try_from(self.began.elapsed().as_nanos())?;
        work.send(index, now_ns, out);
        self.write(index, out)
    }

    fn write(&mut self, index: usize, mut bytes: &[u8]) -> Outcome<()> {
        let stream = &mut self.connections[index].stream;
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                // What may be in flight is far less than a socket holds, so that this hardly ever waits.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let patience = Timespec {
                        tv_sec: i64::try_from(PATIENCE.as_secs())?,
                        tv_nsec: 0,
                    };
                    if poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&patience))? == 0 {
                        return Err("the server reads nothing any more".into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// When the times that [`Work`] is given began.
    pub const fn began(&self) -> Instant {
        self.began
    }
}

/// Waiting for a line on as many connections.
struct Awaiting {
    waiting: usize,
    kind: Kind,
    wanted: fn(Kind, &[u8]) -> bool,
}

impl Work for Awaiting {
    fn frame(&mut self, _: usize, frame: Frame<'_>, _: u64) -> Outcome<()> {
        if let Frame::Line(line) = frame
            && (self.wanted)(self.kind, line)
        {
            self.waiting = self.waiting.checked_sub(1).ok_or("an answer too many")?;
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.waiting == 0
    }
}
