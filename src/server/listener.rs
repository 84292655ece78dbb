//! One listener: binds, accepts, admits or refuses, and hands connections on to be served.

use super::descriptors::Spare;
use super::handshakes::HandshakeThread;
use super::hang_ups::HangUps;
use super::proxy::{HeaderError, read_header};
use super::socket_file::SocketFile;
use crate::audit::Record;
use crate::config::{Address, Allowed, Listen, Proxies};
use crate::limits::{
    CLOSE_GRACE_MS, HANDSHAKE_SECONDS, PARTING_MAX_CONNECTIONS, PROXY_HEADER_SECONDS,
    RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES, UNSENT_MAX_BYTES,
};
use crate::registry::{Access, Refused, Remote, Ticket};
use crate::session::{self, Shared};
use crate::throttle::Handshake;
use crate::tls::Tls;
use crate::wire::{CloseReason, closed_line};
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// How long a peer may be silent to keepalive probes and unacknowledged data (protocol.md, 1).
const DEAD_PEER: Duration = Duration::from_secs(60);
/// Why a connection ended whose TLS handshake failed or took too long, for the audit log.
const HANDSHAKE_FAILED: &str = "handshake_failed";
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
    proxies: Proxies,
    socket: Socket,
}

/// What serves the connections of all listeners.
#[derive(Clone)]
pub struct Serving {
    /// What connections share.
    pub shared: Arc<Shared>,
    /// What tells of those that are gone.
    pub hang_ups: Arc<HangUps>,
    /// What does their handshakes.
    pub handshakes: Arc<HandshakeThread>,
    /// The tasks of connections.
    pub tracker: TaskTracker,
}

/// Why a listener cannot be had, in one line.
#[derive(Debug)]
pub enum BindError {
    /// The configuration must be changed first.
    Config(String),
    /// It may be had later: an address that is taken, or not there yet.
    Temporary(String),
}

impl BindError {
    fn of(address: &Address, error: &io::Error) -> Self {
        let text = format!("cannot listen on {address}: {error}");
        match error.kind() {
            // A file that is no socket, and what the system will refuse again.
            io::ErrorKind::AlreadyExists
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::Unsupported => Self::Config(text),
            _ => Self::Temporary(text),
        }
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removes the file with the listener.
        _file: SocketFile,
    },
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Reads the certificates and binds.
    pub async fn bind(listen: &Listen) -> Result<Self, BindError> {
        let tls = match &listen.tls {
            Some(files) => Some(Arc::new(Tls::load(files).map_err(BindError::Config)?)),
            None => None,
        };
        let refused = |error: io::Error| BindError::of(&listen.address, &error);
        let (socket, address) = match &listen.address {
            Address::Tcp(wanted) => {
                let listener = TcpListener::bind(wanted).await.map_err(refused)?;
                if listen.access == Access::Login {
                    bound_buffers(&listener).map_err(refused)?;
                }
                let real = listener.local_addr().map_err(refused)?;
                (Socket::Tcp(listener), Address::Tcp(real))
            }
            Address::Unix(path) => {
                let (listener, file) = SocketFile::bind(path, listen.mode).map_err(refused)?;
                if let Some(allowed) = &listen.allowed {
                    file.open_to(allowed, listen.mode)
                        .map_err(|why| BindError::Config(format!("{}: {why}", listen.address)))?;
                }
                let socket = Socket::Unix {
                    listener,
                    _file: file,
                };
                (socket, listen.address.clone())
            }
        };
        Ok(Self {
            address,
            access: listen.access,
            tls,
            allowed: listen.allowed.clone(),
            proxies: listen.proxies.clone(),
            socket,
        })
    }

    /// Accepts connections and tells each why it is closed, until this is dropped.
    pub async fn refuse_all(&self, reason: CloseReason) {
        let parting = Arc::new(Semaphore::new(PARTING_MAX_CONNECTIONS));
        loop {
            let Ok((mut stream, remote)) = self.socket.accept().await else {
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            };
            self.refuse(&stream, &remote, reason);
            if let Ok(place) = Arc::clone(&parting).try_acquire_owned() {
                tokio::spawn(async move {
                    stream.part().await;
                    drop(place);
                });
            }
        }
    }

    /// Accepts connections until the daemon stops, and serves each in a task of its own.
    pub async fn accept(self, serving: Serving) {
        let listener = Arc::new(self);
        let mut spare = Spare::take();
        loop {
            let accepted = tokio::select! {
                () = serving.shared.shutdown.cancelled() => return,
                accepted = listener.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => listener.receive(&serving, stream, &remote),
                Err(error) if no_descriptor(&error) && spare.release() => {
                    // The system says that there is none before it looks whether a connection waits; mostly one does.
                    if let Ok(Ok((stream, remote))) =
                        tokio::time::timeout(ACCEPT_REST, listener.socket.accept()).await
                    {
                        let counters = &serving.shared.counters;
                        counters.refused_descriptors.add_from(&remote);
                        listener.refuse(&stream, &remote, CloseReason::TooManyConnections);
                    }
                    spare.renew();
                }
                Err(error) => {
                    tracing::warn!(address = %listener.address, %error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                    spare.renew();
                }
            }
        }
    }

    /// Has a connection served: at once, or when its proxy has said for whom it comes.
    fn receive(self: &Arc<Self>, serving: &Serving, stream: Stream, remote: &Remote) {
        let shared = &serving.shared;
        let accepted = Instant::now();
        if let Some(allowed) = &self.allowed
            && !stream.peer_is(allowed)
        {
            shared.counters.refused_peers.add_from(remote);
            return self.refuse(&stream, remote, CloseReason::Forbidden);
        }
        if !self.proxies.trust(remote) {
            return self.admit(serving, stream, remote, accepted);
        }
        let place = match shared.registry.expect(self.access) {
            Ok(place) => place,
            Err(refused) => return self.turn_away(shared, &stream, remote, refused),
        };
        let (listener, serving, proxy) = (Arc::clone(self), serving.clone(), remote.clone());
        let tracker = serving.tracker.clone();
        tracker.spawn(async move {
            let mut stream = stream;
            let introduced = listener.introduced(&serving.shared, &mut stream, proxy);
            let Some(remote) = introduced.await else {
                return;
            };
            drop(place);
            listener.admit(&serving, stream, &remote, accepted);
        });
    }

    /// For whom a proxy's connection comes; none if it is to be served no further.
    async fn introduced(
        &self,
        shared: &Shared,
        stream: &mut Stream,
        proxy: Remote,
    ) -> Option<Remote> {
        let header = async {
            match stream {
                Stream::Tcp(stream) => read_header(stream).await,
                Stream::Unix(stream) => read_header(stream).await,
            }
        };
        let time = Duration::from_secs(PROXY_HEADER_SECONDS);
        let header = tokio::select! {
            header = tokio::time::timeout(time, header) => header,
            () = shared.shutdown.cancelled() => {
                self.refuse(stream, &proxy, CloseReason::Shutdown);
                return None;
            }
        };
        let why = match header {
            Ok(Ok(Some(address))) => return Some(Remote::Tcp(address)),
            Ok(Ok(None)) => return Some(proxy),
            // Whoever only looks whether somebody listens is no news.
            Ok(Err(HeaderError::Silent)) => return None,
            Ok(Err(HeaderError::Cut)) => "it ended within its PROXY header",
            Ok(Err(HeaderError::Bad)) => "it did not begin with a PROXY header",
            Err(_) => "its PROXY header did not come in time",
        };
        let counter = &shared.counters.bad_proxy_headers;
        counter.add_from(format_args!("{proxy}: {why}"));
        self.refuse(stream, &proxy, CloseReason::NoProxyHeader);
        if self.tls.is_none() {
            stream.part().await;
        }
        None
    }

    /// Serves a connection, or refuses it at once.
    fn admit(&self, serving: &Serving, stream: Stream, remote: &Remote, accepted: Instant) {
        let (shared, tracker) = (&serving.shared, &serving.tracker);
        let now_ms = shared.clock.now_ms();
        let ticket = match shared.registry.admit(self.access, remote, now_ms) {
            Ok(ticket) => ticket,
            Err(refused) => return self.turn_away(shared, &stream, remote, refused),
        };
        if ticket.took_place() {
            shared.counters.displaced_connections.add();
        }
        serving.hang_ups.watch(&stream, ticket.id());
        let shared = Arc::clone(shared);
        match (stream, &self.tls) {
            (Stream::Tcp(stream), Some(tls)) => {
                let tls = Arc::clone(tls);
                let thread = Arc::clone(&serving.handshakes);
                tracker.spawn(serve_tls(shared, ticket, stream, tls, thread, accepted));
            }
            (Stream::Tcp(stream), None) => {
                tracker.spawn(session::serve(shared, ticket, stream, accepted));
            }
            (Stream::Unix(stream), _) => {
                tracker.spawn(session::serve(shared, ticket, stream, accepted));
            }
        }
    }

    /// Refuses a connection for which there is no place.
    fn turn_away(&self, shared: &Shared, stream: &Stream, remote: &Remote, refused: Refused) {
        let counters = &shared.counters;
        let counter = match refused {
            Refused::Total => &counters.refused_max_connections,
            Refused::Trusted => &counters.refused_max_connections_trusted,
            Refused::PerAddress => &counters.refused_max_connections_per_address,
            Refused::NotLoggedIn => &counters.refused_max_connections_not_logged_in,
        };
        counter.add_from(remote);
        let reason = CloseReason::TooManyConnections;
        Record {
            limit: Some(refused.limit()),
            ..Record::of_closing(None, &remote.to_string(), reason.as_str())
        }
        .write();
        self.say(stream, reason);
    }

    /// Closes a connection, and says and notes why.
    fn refuse(&self, stream: &Stream, remote: &Remote, reason: CloseReason) {
        if reason.is_abuse() {
            Record::of_closing(None, &remote.to_string(), reason.as_str()).write();
        }
        self.say(stream, reason);
    }

    /// Says why a connection is closed, as far as that goes without waiting. Over TLS nothing can be said yet.
    fn say(&self, stream: &Stream, reason: CloseReason) {
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
    thread: Arc<HandshakeThread>,
    accepted: Instant,
) {
    let deadline = tokio::time::Instant::from_std(accepted + shared.login_time);
    let ends = ticket.handshake();
    let handshake = async {
        // Whoever goes without a byte only looked whether somebody listens.
        if stream.peek(&mut [0]).await.unwrap_or(0) == 0 {
            return None;
        }
        let turn = match ticket.access() {
            Access::Trusted => None,
            Access::Login => tokio::select! {
                turn = shared.handshakes.turn(ticket.source(), ends.displaced.clone()) => Some(turn),
                () = ends.gone.cancelled() => {
                    return Some(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            },
        };
        if turn.as_ref().is_some_and(Handshake::has_waited) {
            shared.counters.slowed_handshakes.add();
        }
        let accepting = tls.acceptor().accept(stream);
        let done = thread.run(async move {
            let time = Duration::from_secs(HANDSHAKE_SECONDS);
            let done = tokio::time::timeout(time, accepting).await;
            drop(turn);
            done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        });
        Some(done.await)
    };
    let handshake = tokio::select! {
        handshake = tokio::time::timeout_at(deadline, handshake) => handshake,
        () = shared.shutdown.cancelled() => return,
        () = ends.displaced.cancelled() => return,
    };
    let why = match handshake {
        Ok(None) => return,
        Ok(Some(Ok(stream))) => return session::serve(shared, ticket, stream, accepted).await,
        Ok(Some(Err(error))) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    let remote = ticket
        .session()
        .map_or_else(String::new, |session| session.remote);
    let counter = &shared.counters.failed_handshakes;
    counter.add_from(format_args!("{remote}: {why}"));
    Record::of_closing(None, &remote, HANDSHAKE_FAILED).write();
}

impl Socket {
    async fn accept(&self) -> io::Result<(Stream, Remote)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                if let Err(error) = prepare(&stream) {
                    tracing::debug!(%error, "a connection's options cannot be set");
                }
                let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
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
    /// Ends it so that what was said last arrives, also where the peer has sent something meanwhile.
    async fn part(&mut self) {
        let parting = async {
            match self {
                Self::Tcp(stream) => session::part(stream).await,
                Self::Unix(stream) => session::part(stream).await,
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(CLOSE_GRACE_MS), parting).await;
    }

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

/// Bounds what the system holds for each connection of a listener: it would take 6 MB from a client before the first byte
/// is read, and hold 4 MB of answers for one that does not read.
fn bound_buffers(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    // What is not taken then waits where it is counted.
    socket.set_tcp_notsent_lowat(UNSENT_MAX_BYTES)
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
