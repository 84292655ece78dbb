//! One connection: lines in, answers and events out.
//!
//! The reading half takes requests in order, gives each its place in the outbox, and has it done (`requests.rs`). Changes
//! are handed to the store without waiting for them, so that a client's pipelined changes share rounds; anything else
//! first waits for the changes before it, so that requests take effect in their order (protocol.md, 1). The writing half
//! (`writer.rs`) sends what is ready, and fetches stored events for a stream that fell behind. Who is logged in belongs
//! to the reading half alone (`login.rs`), and so do what passwords there are to be (`passwords.rs`), how fast it reads
//! (`pace.rs`), and what a login waits for (`waiting.rs`). What the audit log tells besides changes is in `auditing.rs`.

mod auditing;
mod listing;
mod login;
mod pace;
mod passwords;
mod requests;
mod subscribing;
mod waiting;
mod writer;

use crate::auth::Hasher;
use crate::config::Registration;
use crate::counters::Counters;
use crate::error::{Code, Error};
use crate::hub::Hub;
use crate::limits::{
    CLOSE_GRACE_MS, IN_FLIGHT_MAX_REQUESTS, LINGER_MAX_BYTES, LINGER_MAX_BYTES_NOT_LOGGED_IN,
    Limits, SHUTDOWN_FLUSH_SECONDS,
};
use crate::memory::Memory;
use crate::model::{Clock, ConversationId};
use crate::registry::{Access, Closer, Registry, Remote, Source, Ticket};
use crate::store::{Principal, Store};
use crate::throttle::{ConnectionRate, FailedLogins, Handshakes, KnownLogins, Rates};
use crate::wire::{
    CloseReason, LineDecoder, LineError, Outbox, looks_like_http, looks_like_proxy, reply_line,
};
use bytes::{Bytes, BytesMut};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;
use waiting::{LoginTime, Told};

/// What all connections share.
pub struct Shared {
    /// The store.
    pub store: Store,
    /// Who is subscribed to what.
    pub hub: Arc<Hub>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// Hashes passwords.
    pub hasher: Hasher,
    /// Who failed to log in.
    pub failed_logins: Arc<FailedLogins>,
    /// Who logged in well, and from where.
    pub known_logins: KnownLogins,
    /// How fast handshakes come on login listeners.
    pub handshakes: Arc<Handshakes>,
    /// What is held for all connections.
    pub memory: Arc<Memory>,
    /// How fast requests come on login listeners.
    pub rates: Arc<Rates>,
    /// The configured limits.
    pub limits: Limits,
    /// Whether a stranger may become a user.
    pub registration: Registration,
    /// Bytes that a password has at least where a user chooses it.
    pub password_min_bytes: usize,
    /// How long a connection of a login listener may stay without a login.
    pub login_time: Duration,
    /// How often something was refused.
    pub counters: Counters,
    /// The time.
    pub clock: Clock,
    /// When the daemon was started.
    pub started: Instant,
    /// Cancelled when the daemon stops.
    pub shutdown: CancellationToken,
}

/// Bytes that a read of an idle connection is ready for; reads that fill their buffer get larger ones.
const READ_BYTES: (usize, usize) = (1024, 64 * 1024);
/// For how long a client must be silent on a connection that is being closed.
const LINGER_SILENCE: Duration = Duration::from_millis(100);

/// Serves a connection until it ends. It was accepted at `accepted`, from when on the time to log in counts.
pub async fn serve<S>(shared: Arc<Shared>, ticket: Ticket, stream: S, accepted: Instant)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut input, mut output) = tokio::io::split(stream);
    let strangers = ticket.access() == Access::Login;
    let outbox = Arc::new(Outbox::new(
        shared.limits.max_pending_bytes,
        IN_FLIGHT_MAX_REQUESTS,
        shared
            .memory
            .connection(strangers.then_some(ticket.source())),
    ));
    let closer = Closer::new(Arc::clone(&outbox), &shared.shutdown);
    ticket.served(closer.clone());
    let id = ticket.id();
    let login_by = strangers.then(|| accepted + shared.login_time);
    let (login_time, login_watch) = LoginTime::new(login_by, accepted);
    let mut session = Session {
        by: if strangers {
            Principal::Nobody
        } else {
            Principal::Trusted
        },
        rate: strangers.then(|| Arc::new(shared.rates.connection(ticket.source()))),
        shared: Arc::clone(&shared),
        ticket,
        outbox: Arc::clone(&outbox),
        closer: closer.clone(),
        behalf: None,
        login_time,
        has_spoken: false,
        told: None,
        reached: None,
        given_out: 0,
    };
    let reading = async {
        match session.read(&mut input).await {
            InputEnd::Lost => return,
            InputEnd::Cut => session.shared.hub.leave(id),
            InputEnd::Closing | InputEnd::Ended => {}
        }
        if session.shared.hub.size(id).count == 0 {
            outbox.end_input();
        } else {
            session.ticket.half_closed();
        }
        // Nothing is read any more that would tell of it.
        session.closer.gone().await;
    };
    let writing = writer::write(&shared, id, &outbox, &mut output);
    // What is read is answered in the same turn, so the writing half comes second.
    let all_sent = tokio::select! {
        biased;
        () = reading => false,
        result = writing => {
            if let Err(error) = &result {
                tracing::debug!(connection = id, %error, "connection lost");
            }
            result.is_ok()
        }
        () = expire(login_watch, &shared, &closer) => false,
        () = cut_off(&shared, &closer) => false,
    };
    session.audit_closing();
    shared.hub.leave(id);
    outbox.abandon();
    let most = match session.by {
        Principal::Nobody => LINGER_MAX_BYTES_NOT_LOGGED_IN,
        _ => LINGER_MAX_BYTES,
    };
    let parting = async {
        let _ = output.shutdown().await;
        if all_sent {
            linger(&mut input, most).await;
        }
    };
    // A peer that takes nothing, or sends on and on, does not keep its place.
    let _ = tokio::time::timeout(Duration::from_millis(CLOSE_GRACE_MS), parting).await;
}

/// Ends a connection on which the last word has been said, so that it arrives.
pub(crate) async fn part(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let _ = stream.shutdown().await;
    linger(stream, LINGER_MAX_BYTES_NOT_LOGGED_IN).await;
}

/// Reads on for a moment and drops what comes, up to a bound. A socket that is closed while bytes wait in it resets its connection,
/// which would take away the answers that are still on their way to the client.
async fn linger(input: &mut (impl AsyncRead + Unpin), most: usize) {
    let mut dropped = BytesMut::new();
    let mut left = most;
    while left > 0 {
        dropped.clear();
        dropped.reserve(READ_BYTES.0);
        match tokio::time::timeout(LINGER_SILENCE, input.read_buf(&mut dropped)).await {
            Ok(Ok(count)) if count > 0 => left = left.saturating_sub(count),
            _ => return,
        }
    }
}

/// Closes a connection on which nobody logged in in time.
async fn expire(mut login_by: watch::Receiver<Option<Instant>>, shared: &Shared, closer: &Closer) {
    loop {
        let at = *login_by.borrow_and_update();
        let changed = match at {
            None => Ok(login_by.changed().await),
            Some(at) => tokio::time::timeout_at(at.into(), login_by.changed()).await,
        };
        match changed {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break,
            Err(_) => {
                shared.counters.login_timeouts.add();
                closer.close(CloseReason::LoginTimeout);
                break;
            }
        }
    }
    std::future::pending::<()>().await;
}

/// Ends when a connection that is to be closed has had its time to take what waits for it.
async fn cut_off(shared: &Shared, closer: &Closer) {
    closer.closing().await;
    let grace = if shared.shutdown.is_cancelled() {
        Duration::from_secs(SHUTDOWN_FLUSH_SECONDS)
    } else {
        Duration::from_millis(CLOSE_GRACE_MS)
    };
    tokio::time::sleep(grace).await;
}

/// The reading half of a connection.
struct Session {
    shared: Arc<Shared>,
    ticket: Ticket,
    /// For whom it acts.
    by: Principal,
    outbox: Arc<Outbox>,
    closer: Closer,
    /// How fast requests may come, on a login listener or on behalf of somebody.
    rate: Option<Arc<ConnectionRate>>,
    /// For whom a trusted back end acts, where it said so.
    behalf: Option<Remote>,
    /// By when somebody must have logged in.
    login_time: LoginTime,
    /// Whether a line has come.
    has_spoken: bool,
    /// Until when its last login was told to wait for others.
    told: Option<Told>,
    /// Where its last event of its own went.
    reached: Option<Reached>,
    /// Deliveries of events of its own since others had their turn.
    given_out: usize,
}

/// Why no more requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InputEnd {
    /// The client has ended its input. It may go on to receive.
    Ended,
    /// TLS ended without saying so: what came may have been cut short. What was asked is answered, and no more.
    Cut,
    /// The connection is to be closed.
    Closing,
    /// The other end is gone.
    Lost,
}

/// A conversation that could be seen.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Reached {
    conversation: ConversationId,
    by: Principal,
    /// [`Hub::rights_changes`] before it was looked up.
    rights_changes: u64,
}

impl Session {
    /// Reads requests until the client's end of input, or until the connection is to be closed.
    async fn read(&mut self, input: &mut (impl AsyncRead + Unpin)) -> InputEnd {
        match self.read_all(input).await {
            Ok(()) => InputEnd::Ended,
            Err(end) => end,
        }
    }

    async fn read_all(&mut self, input: &mut (impl AsyncRead + Unpin)) -> Result<(), InputEnd> {
        let mut decoder = LineDecoder::new(self.shared.limits.max_line_bytes);
        let mut buffer = BytesMut::new();
        let mut read_bytes = READ_BYTES.0;
        let closer = self.closer.clone();
        let mut closing = pin!(closer.closing());
        loop {
            while let Ok(Some(line)) = decoder.decode(&mut buffer) {
                self.line(line).await?;
            }
            let skipped = decoder.take_skipped();
            if skipped > 0 {
                self.pace(0, skipped).await?;
            }
            if buffer.is_empty() {
                // Between requests a connection holds no more than its smallest buffer.
                buffer = BytesMut::new();
            }
            buffer.reserve(read_bytes);
            let room = buffer.capacity() - buffer.len();
            let read = tokio::select! {
                biased;
                () = &mut closing => return Err(self.close_for_shutdown()),
                read = input.read_buf(&mut buffer) => read,
            };
            match read {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(InputEnd::Cut);
                }
                Err(error) => {
                    tracing::debug!(connection = self.ticket.id(), %error, "connection lost");
                    return Err(InputEnd::Lost);
                }
                Ok(count) => {
                    read_bytes = if count == room {
                        (read_bytes * 2).min(READ_BYTES.1)
                    } else {
                        READ_BYTES.0
                    };
                }
            }
        }
        while let Ok(Some(line)) = decoder.decode_eof(&mut buffer) {
            self.line(line).await?;
        }
        Ok(())
    }

    /// Deals with one line, once there is room for its answer and it has waited its time.
    async fn line(&mut self, line: Result<Bytes, LineError>) -> Result<(), InputEnd> {
        if !self.outbox.room().await || self.is_over() {
            return Err(InputEnd::Closing);
        }
        if !std::mem::replace(&mut self.has_spoken, true) {
            self.ticket.has_spoken();
        }
        match line {
            Err(LineError::Http) => return Err(self.close_http()),
            Ok(line) if looks_like_http(&line) => return Err(self.close_http()),
            Err(LineError::Foreign(line)) => return Err(self.close_foreign(line).await),
            Err(LineError::TooLong) => {
                self.pace(1, self.shared.limits.max_line_bytes).await?;
                self.refuse_long();
            }
            Ok(line) => {
                self.pace(1, line.len() + 1).await?;
                if !line.iter().all(u8::is_ascii_whitespace) {
                    self.request(&line).await;
                }
            }
        }
        Ok(())
    }

    fn refuse_long(&self) {
        self.shared.counters.long_lines.add();
        let most = self.shared.limits.max_line_bytes;
        let text = format!("a line may have at most {most} bytes; this one was skipped");
        let error = Error::new(Code::LineTooLong, text);
        self.outbox.push(reply_line(&Err(error), None));
    }

    /// Answers a first line that begins as no request does, and closes before anything behind it is looked at: no other
    /// program can be made to carry requests (protocol.md, 1).
    async fn close_foreign(&mut self, line: Option<Bytes>) -> InputEnd {
        let counters = &self.shared.counters;
        match line {
            Some(line) if looks_like_proxy(&line) => {
                let text = "this is a PROXY header, and this listener trusts no proxy where you are; trusted_proxies in chatd.toml names them";
                let error = Error::new(Code::BadJson, text);
                self.outbox.push(reply_line(&Err(error), None));
                let remote = self.remote();
                let what = format_args!("{remote}: it is no trusted proxy");
                counters.bad_proxy_headers.add_from(what);
            }
            Some(line) => {
                counters.other_protocols.add_from(self.remote());
                self.request(&line).await;
            }
            None => {
                counters.other_protocols.add_from(self.remote());
                self.refuse_long();
            }
        }
        self.closer.close(CloseReason::Protocol);
        InputEnd::Closing
    }

    /// Whether everything is allowed that it asks for, as often as it asks.
    fn is_trusted(&self) -> bool {
        self.ticket.access() == Access::Trusted && self.behalf.is_none()
    }

    /// What its logins are counted by.
    fn source(&self) -> Source {
        let behalf = self.behalf.as_ref();
        behalf.map_or_else(|| self.ticket.source(), Remote::source)
    }

    /// Where the connection comes from, for the log.
    fn remote(&self) -> String {
        let session = self.ticket.session();
        session.map_or_else(String::new, |session| session.remote)
    }

    fn close_http(&self) -> InputEnd {
        self.shared.counters.http.add_from(self.remote());
        self.closer.close(CloseReason::Http);
        InputEnd::Closing
    }

    fn close_for_shutdown(&self) -> InputEnd {
        // Changes nothing where it is closed for another reason already.
        self.closer.close(CloseReason::Shutdown);
        InputEnd::Closing
    }
}

/// The refusal of what came too fast.
fn rate_limited(text: &'static str, wait: Duration) -> Error {
    let wait_ms = u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
    Error::new(Code::RateLimited, text).detail("retry_after_ms", wait_ms)
}
