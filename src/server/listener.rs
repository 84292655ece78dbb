//! One listener: binds, accepts, admits or refuses, and hands connections on to be served.

use super::descriptors::Spare;
use super::hang_ups::HangUps;
use crate::config::{Address, Allowed, Listen};
use crate::registry::{Access, Refused, Remote, Ticket};
use crate::session::{self, Shared};
use crate::tls::Tls;
use crate::wire::{CloseReason, closed_line};
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::task::TaskTracker;

/// How long a peer may be silent to keepalive probes and unacknowledged data (protocol.md, 1).
const DEAD_PEER: Duration = Duration::from_secs(60);
/// How long accepting rests when there is no descriptor for a connection, not even to refuse it.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A listener that is bound.
pub struct Listener {
    /// Where it really listens.
    pub address: Address,
    /// Who may do what on its connections.
    pub access: Access,
    /// TLS, if it speaks it.
    pub tls: Option<Arc<Tls>>,
    allowed: Option<Allowed>,
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removes the file with the listener.
        _file: SocketFile,
    },
}

/// The file of a Unix socket, removed with its listener.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Reads the certificates and binds; an error says what is wrong.
    pub async fn bind(listen: &Listen) -> Result<Self, String> {
        let tls = match &listen.tls {
            Some(files) => Some(Arc::new(Tls::load(files)?)),
            None => None,
        };
        let refused = |error: io::Error| format!("cannot listen on {}: {error}", listen.address);
        let (socket, address) = match &listen.address {
            Address::Tcp(wanted) => {
                let listener = TcpListener::bind(wanted).await.map_err(refused)?;
                let real = listener.local_addr().map_err(refused)?;
                (Socket::Tcp(listener), Address::Tcp(real))
            }
            Address::Unix(path) => {
                remove_stale(path).map_err(refused)?;
                // The mode is that of the moment the file appears: at no time is it open to others.
                let hidden = rustix::fs::Mode::from_raw_mode(!listen.mode & 0o777);
                let before = rustix::process::umask(hidden);
                let listener = UnixListener::bind(path);
                rustix::process::umask(before);
                let socket = Socket::Unix {
                    listener: listener.map_err(refused)?,
                    _file: SocketFile(path.clone()),
                };
                (socket, listen.address.clone())
            }
        };
        Ok(Self {
            address,
            access: listen.access,
            tls,
            allowed: listen.allowed.clone(),
            socket,
        })
    }

    /// Accepts connections until the daemon stops, and serves each in a task of its own.
    pub async fn accept(self, shared: Arc<Shared>, hang_ups: Arc<HangUps>, tracker: TaskTracker) {
        let mut spare = Spare::take();
        loop {
            let accepted = tokio::select! {
                () = shared.shutdown.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => {
                    self.admit(&shared, &hang_ups, stream, &remote, &tracker);
                }
                Err(error) if no_descriptor(&error) && spare.release() => {
                    // The system says that there is none before it looks whether a connection waits; mostly one does.
                    if let Ok(Ok((stream, _))) =
                        tokio::time::timeout(ACCEPT_REST, self.socket.accept()).await
                    {
                        shared.counters.refused_descriptors.add();
                        self.refuse(&stream, CloseReason::TooManyConnections);
                    }
                    spare.renew();
                }
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                    spare.renew();
                }
            }
        }
    }

    /// Serves a connection, or refuses it at once.
    fn admit(
        &self,
        shared: &Arc<Shared>,
        hang_ups: &HangUps,
        stream: Stream,
        remote: &Remote,
        tracker: &TaskTracker,
    ) {
        let accepted = Instant::now();
        if let Some(allowed) = &self.allowed
            && !stream.peer_is(allowed)
        {
            tracing::debug!(%remote, "peer refused");
            shared.counters.refused_peers.add();
            return self.refuse(&stream, CloseReason::Forbidden);
        }
        let now_ms = shared.clock.now_ms();
        let ticket = match shared.registry.admit(self.access, remote, now_ms) {
            Ok(ticket) => ticket,
            Err(refused) => {
                tracing::debug!(%remote, ?refused, "connection refused");
                let counters = &shared.counters;
                match refused {
                    Refused::Total => counters.refused_max_connections.add(),
                    Refused::PerAddress => counters.refused_max_connections_per_address.add(),
                    Refused::NotLoggedIn => counters.refused_max_connections_not_logged_in.add(),
                }
                return self.refuse(&stream, CloseReason::TooManyConnections);
            }
        };
        if ticket.took_place() {
            shared.counters.displaced_connections.add();
        }
        hang_ups.watch(&stream, ticket.id());
        let shared = Arc::clone(shared);
        match (stream, &self.tls) {
            (Stream::Tcp(stream), Some(tls)) => {
                let tls = Arc::clone(tls);
                tracker.spawn(serve_tls(shared, ticket, stream, tls, accepted));
            }
            (Stream::Tcp(stream), None) => {
                tracker.spawn(session::serve(shared, ticket, stream, accepted));
            }
            (Stream::Unix(stream), _) => {
                tracker.spawn(session::serve(shared, ticket, stream, accepted));
            }
        }
    }

    /// Says why, as far as that goes without waiting, and closes. Over TLS nothing can be said yet.
    fn refuse(&self, stream: &Stream, reason: CloseReason) {
        if self.tls.is_none() {
            let line = closed_line(reason);
            let _ = match stream {
                Stream::Tcp(stream) => stream.try_write(&line),
                Stream::Unix(stream) => stream.try_write(&line),
            };
        }
    }
}

/// Serves a connection once its handshake is done, for which it has the time to log in.
async fn serve_tls(
    shared: Arc<Shared>,
    ticket: Ticket,
    stream: TcpStream,
    tls: Arc<Tls>,
    accepted: Instant,
) {
    let handshake = tokio::time::timeout(shared.login_time, tls.acceptor().accept(stream));
    let handshake = tokio::select! {
        handshake = handshake => handshake,
        () = shared.shutdown.cancelled() => return,
    };
    match handshake {
        Ok(Ok(stream)) => session::serve(shared, ticket, stream, accepted).await,
        Ok(Err(error)) => {
            shared.counters.failed_handshakes.add();
            tracing::debug!(connection = ticket.id(), %error, "TLS handshake failed");
        }
        Err(_) => {
            shared.counters.failed_handshakes.add();
            tracing::debug!(connection = ticket.id(), "TLS handshake took too long");
        }
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<(Stream, Remote)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                if let Err(error) = prepare(&stream) {
                    tracing::debug!(%error, "a connection's options cannot be set");
                }
                Ok((Stream::Tcp(stream), Remote::Tcp(remote)))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                Ok((Stream::Unix(stream), Remote::Unix { uid }))
            }
        }
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

impl Stream {
    fn peer_is(&self, allowed: &Allowed) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Unix(stream) => stream
                .peer_cred()
                .is_ok_and(|peer| allowed.allows(peer.uid(), peer.gid())),
        }
    }
}

fn no_descriptor(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::MFILE.raw_os_error()) || code == Some(Errno::NFILE.raw_os_error())
}

/// Sends small lines at once, and finds dead peers.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let probe = DEAD_PEER / 4;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(DEAD_PEER)
            .with_interval(probe)
            .with_retries(4),
    )?;
    socket.set_tcp_user_timeout(Some(DEAD_PEER))
}

/// Removes the socket of a daemon that is gone; that of a living one is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(about) if !about.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of this name that is no socket",
        )),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)
            }
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process listens there",
            )),
        },
    }
}
