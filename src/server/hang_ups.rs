//! Tells of connections whose other end is gone: reset, dead, or a Unix socket that was closed.
//!
//! A connection that reads finds out by itself. One that has read its input to the end, or that lets its client wait,
//! does not read; the system tells of it here. Nothing but hang-ups and errors is asked for, so bytes that come wake
//! nobody. A socket that is closed is forgotten by itself.

use crate::hub::ConnectionId;
use crate::registry::Registry;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Hang-ups that are taken at once.
const TAKEN_AT_ONCE: usize = 256;

/// What tells of hang-ups.
#[derive(Debug)]
pub struct HangUps {
    epoll: AsyncFd<OwnedFd>,
}

impl HangUps {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "what stands instead of it is unsafe; a descriptor that is owned is what it asks for"
        )]
        let epoll = AsyncFd::with_interest(epoll, Interest::READABLE)?;
        Ok(Self { epoll })
    }

    /// Watches the socket of a connection. One that cannot be watched is noticed later: by the next byte that is sent to it.
    pub fn watch(&self, socket: impl AsFd, connection: ConnectionId) {
        let data = EventData::new_u64(connection);
        // Hang-ups and errors are told of whatever is asked for.
        if let Err(error) = epoll::add(&self.epoll, socket, data, EventFlags::ONESHOT) {
            tracing::warn!(connection, %error, "a connection cannot be watched");
        }
    }

    /// Tells the registry of every hang-up.
    pub async fn tell(&self, registry: &Registry) {
        loop {
            match self.next().await {
                Ok(connections) => connections.iter().for_each(|&id| registry.hung_up(id)),
                Err(error) => {
                    tracing::error!(%error, "connections are not watched any more");
                    return;
                }
            }
        }
    }

    async fn next(&self) -> io::Result<Vec<ConnectionId>> {
        loop {
            let mut ready = self.epoll.readable().await?;
            let taken = ready.try_io(|epoll| {
                let mut events = Vec::with_capacity(TAKEN_AT_ONCE);
                let buffer = rustix::buffer::spare_capacity(&mut events);
                match epoll::wait(epoll, buffer, Some(&Timespec::default())) {
                    Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                    Ok(_) => Ok(events),
                    Err(error) => Err(error.into()),
                }
            });
            match taken {
                Ok(Ok(events)) => return Ok(events.iter().map(|event| event.data.u64()).collect()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}
