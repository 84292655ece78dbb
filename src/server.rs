//! Listeners, admission of connections, and shutdown.

use crate::auth::Hasher;
use crate::command::SessionInfo;
use crate::config::{Address, Config};
use crate::hub::Hub;
use crate::limits::SHUTDOWN_GRACE_SECONDS;
use crate::model::{Clock, Event, IdMaker};
use crate::session::{self, Shared};
use crate::store::{self, OpenError, Settings};
use crate::wire::{CloseReason, closed_line};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a peer may be silent to keepalive probes and unacknowledged data (protocol.md, 1).
const DEAD_PEER: Duration = Duration::from_secs(60);
/// How long accepting rests when there is no descriptor for a connection.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A server that listens, not yet serving.
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<(Listener, Address)>,
    tracker: TaskTracker,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Socket),
}

/// The file of a Unix socket, removed with its listener.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Why a server does not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener cannot be had.
    Listen(String),
    /// The store does not open.
    Store(OpenError),
}

impl Server {
    /// Binds the listeners, then opens the store.
    pub async fn start(config: &Config, clock: Clock) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        for address in &config.listen {
            let bound = bind(address).await;
            let refused =
                |error| StartError::Listen(format!("cannot listen on {address}: {error}"));
            listeners.push(bound.map_err(refused)?);
        }
        let settings = Settings {
            keep_ms: config.keep_ms,
            search_time: Duration::from_secs(config.limits.search_seconds),
            max_message_bytes: config.limits.max_message_bytes,
            clock: clock.clone(),
        };
        // The store reports to the hub, and the hub begins at the store's newest event.
        let hub: Arc<OnceLock<Arc<Hub>>> = Arc::default();
        let (reported, time) = (Arc::clone(&hub), clock.clone());
        let on_commit = Box::new(move |events: &[Event]| {
            if let Some(hub) = reported.get() {
                hub.publish(events, time.now_ms());
            }
        });
        let data_dir = config.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            store::open_embedded(&data_dir, settings, on_commit)
        })
        .await;
        let store = opened
            .map_err(|error| {
                StartError::Store(OpenError(format!("opening the store failed: {error}")))
            })?
            .map_err(StartError::Store)?;
        let hub = Arc::clone(hub.get_or_init(|| Arc::new(Hub::new(store.newest()))));
        let shared = Arc::new(Shared {
            store,
            hub,
            hasher: Hasher::new(config.bcrypt_cost),
            limits: config.limits.clone(),
            clock,
            started: Instant::now(),
            connections: AtomicUsize::new(0),
            shutdown: CancellationToken::new(),
        });
        Ok(Self {
            shared,
            listeners,
            tracker: TaskTracker::new(),
        })
    }

    /// Where the server really listens.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.iter().map(|(_, address)| address)
    }

    /// Serves until `stop` ends; then finishes what was read, and closes the store.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            shared,
            listeners,
            tracker,
        } = self;
        let ids = Arc::new(AtomicU64::new(1));
        let accepting = TaskTracker::new();
        for (listener, address) in listeners {
            accepting.spawn(accept(
                Arc::clone(&shared),
                listener,
                address,
                tracker.clone(),
                Arc::clone(&ids),
            ));
        }
        accepting.spawn(tell_positions(Arc::clone(&shared)));
        stop.await;
        shared.shutdown.cancel();
        accepting.close();
        tracker.close();
        let grace = Duration::from_secs(SHUTDOWN_GRACE_SECONDS);
        if tokio::time::timeout(grace, async {
            tokio::join!(accepting.wait(), tracker.wait())
        })
        .await
        .is_err()
        {
            tracing::warn!(
                connections = tracker.len(),
                "some connections did not take their answers in time"
            );
        }
        if let Ok(shared) = Arc::try_unwrap(shared) {
            shared.store.stop().await;
        } else {
            // A connection that is stuck keeps its handle; what was acknowledged is in the journal all the same.
            tracing::warn!("stopped with connections open");
        }
    }
}

async fn bind(address: &Address) -> io::Result<(Listener, Address)> {
    match address {
        Address::Tcp(wanted) => {
            let listener = TcpListener::bind(wanted).await?;
            let real = listener.local_addr()?;
            Ok((Listener::Tcp(listener), Address::Tcp(real)))
        }
        Address::Unix(path) => {
            remove_stale(path)?;
            // The mode is that of the moment the file appears: at no time is it open to others.
            let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o117));
            let listener = UnixListener::bind(path);
            rustix::process::umask(before);
            Ok((
                Listener::Unix(listener?, Socket(path.clone())),
                address.clone(),
            ))
        }
    }
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

async fn accept(
    shared: Arc<Shared>,
    listener: Listener,
    address: Address,
    tracker: TaskTracker,
    ids: Arc<AtomicU64>,
) {
    let shutdown = shared.shutdown.clone();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = accept_one(&listener) => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%address, %error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let id = ids.fetch_add(1, Ordering::Relaxed);
        let connections = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = Arc::clone(&shared);
        tracker.spawn(async move {
            let counted = Counted(Arc::clone(&shared));
            if connections > shared.limits.max_connections {
                tracing::info!(
                    remote,
                    code = CloseReason::TooManyConnections.as_str(),
                    "connection refused"
                );
                refuse(stream).await;
                return;
            }
            let now = shared.clock.now_ms();
            // Sessions are numbered within this process, and shown like other ids.
            let session_id = IdMaker::after(id).next(now);
            let info = SessionInfo {
                session_id,
                access: "trusted",
                remote,
                connected_time: now,
            };
            match stream {
                Stream::Tcp(stream) => session::serve(shared, id, info, stream).await,
                Stream::Unix(stream) => session::serve(shared, id, info, stream).await,
            }
            drop(counted);
        });
    }
}

/// Counts a connection until it is gone.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn accept_one(listener: &Listener) -> io::Result<(Stream, String)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, remote) = listener.accept().await?;
            if let Err(error) = prepare(&stream) {
                tracing::debug!(%error, "a connection's options cannot be set");
            }
            Ok((Stream::Tcp(stream), remote.to_string()))
        }
        Listener::Unix(listener, Socket(path)) => {
            let (stream, _) = listener.accept().await?;
            Ok((Stream::Unix(stream), format!("unix:{}", path.display())))
        }
    }
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

async fn refuse(stream: Stream) {
    let line = closed_line(CloseReason::TooManyConnections);
    let _ = match stream {
        Stream::Tcp(mut stream) => stream.write_all(&line).await,
        Stream::Unix(mut stream) => stream.write_all(&line).await,
    };
}

async fn tell_positions(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            _ = ticks.tick() => shared.hub.tell_positions(shared.clock.now_ms()),
        }
    }
}
