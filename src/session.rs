//! One connection: lines in, answers and events out.
//!
//! The reading half takes requests in order, gives each its place in the outbox, and has it done. Changes are handed to
//! the store without waiting for them, so that a client's pipelined changes share rounds; anything else first waits for
//! the changes before it, so that requests take effect in their order (protocol.md, 1). The writing half sends what is
//! ready, and fetches stored events for a stream that fell behind.

use crate::auth::Hasher;
use crate::command::{self, Access, Context, ServerInfo, SessionInfo, Step, Subscribe};
use crate::error::{Code, Error};
use crate::hub::{Begin, ConnectionId, Hub, matches};
use crate::limits::{IN_FLIGHT_MAX_REQUESTS, Limits, SUBSCRIPTIONS_MAX, WRITE_MAX_BYTES};
use crate::model::{Clock, Seq};
use crate::store::{Answer, Cursor, Operation, Outcome, Principal, Query, Store};
use crate::wire::{
    Batch, CloseReason, LineDecoder, LineError, Outbox, ReplySlot, closed_line, ephemeral_line,
    gap_line, looks_like_http, parse_envelope, reply_line,
};
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;

/// What all connections share.
pub struct Shared {
    /// The store.
    pub store: Store,
    /// Who is subscribed to what.
    pub hub: Arc<Hub>,
    /// Hashes passwords.
    pub hasher: Hasher,
    /// The configured limits.
    pub limits: Limits,
    /// The time.
    pub clock: Clock,
    /// When the daemon was started.
    pub started: Instant,
    /// Open connections.
    pub connections: AtomicUsize,
    /// Cancelled when the daemon stops.
    pub shutdown: CancellationToken,
}

/// Bytes that a read of an idle connection is ready for; reads that fill their buffer get larger ones.
const READ_BYTES: (usize, usize) = (1024, 64 * 1024);

/// Serves a connection until it ends.
pub async fn serve<S>(shared: Arc<Shared>, id: ConnectionId, info: SessionInfo, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut input, mut output) = tokio::io::split(stream);
    let outbox = Arc::new(Outbox::new(
        shared.limits.max_pending_bytes,
        IN_FLIGHT_MAX_REQUESTS,
    ));
    let session = Session {
        shared: Arc::clone(&shared),
        id,
        info,
        outbox: Arc::clone(&outbox),
    };
    let reading = async {
        session.read(&mut input).await;
        if session.shared.hub.subscriptions(id).is_empty() {
            outbox.end_input();
        }
        std::future::pending::<()>().await;
    };
    let writing = write(&shared, id, &outbox, &mut output);
    tokio::select! {
        () = reading => {}
        result = writing => {
            if let Err(error) = result {
                tracing::debug!(connection = id, %error, "connection lost");
            }
        }
    }
    shared.hub.leave(id);
    outbox.abandon();
    let _ = output.shutdown().await;
}

/// The reading half of a connection.
struct Session {
    shared: Arc<Shared>,
    id: ConnectionId,
    info: SessionInfo,
    outbox: Arc<Outbox>,
}

impl Session {
    /// Reads requests until the client's end of input, or until the connection is to be closed.
    async fn read(&self, input: &mut (impl AsyncRead + Unpin)) {
        let mut decoder = LineDecoder::new(self.shared.limits.max_line_bytes);
        let mut buffer = BytesMut::new();
        let mut read_bytes = READ_BYTES.0;
        loop {
            while let Ok(Some(line)) = decoder.decode(&mut buffer) {
                if !self.line(line).await {
                    return;
                }
            }
            if buffer.is_empty() {
                // Between requests a connection holds no more than its smallest buffer.
                buffer = BytesMut::new();
            }
            buffer.reserve(read_bytes);
            let room = buffer.capacity() - buffer.len();
            let read = tokio::select! {
                read = input.read_buf(&mut buffer) => read,
                () = self.shared.shutdown.cancelled() => {
                    self.outbox.close_with(closed_line(CloseReason::Shutdown));
                    return;
                }
            };
            match read {
                Ok(0) | Err(_) => break,
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
            if !self.line(line).await {
                return;
            }
        }
    }

    /// Deals with one line; false when no more is to be read.
    async fn line(&self, line: Result<Bytes, LineError>) -> bool {
        self.outbox.room().await;
        match line {
            Err(LineError::Http) => self.close_http(),
            Ok(line) if looks_like_http(&line) => self.close_http(),
            Err(LineError::TooLong) => {
                let most = self.shared.limits.max_line_bytes;
                let text = format!("a line may have at most {most} bytes; this one was skipped");
                self.outbox
                    .reserve()
                    .fill(reply_line(&Err(Error::new(Code::LineTooLong, text)), None));
                true
            }
            Ok(line) if line.iter().all(u8::is_ascii_whitespace) => true,
            Ok(line) => {
                self.request(&line).await;
                true
            }
        }
    }

    fn close_http(&self) -> bool {
        self.outbox.close_with(closed_line(CloseReason::Http));
        false
    }

    async fn request(&self, line: &Bytes) {
        let slot = self.outbox.reserve();
        let (step, tid) = match parse_envelope(line) {
            Ok(envelope) => {
                let tid = envelope.tid.map(|tid| line.slice_ref(tid.get().as_bytes()));
                let step = command::find(&envelope.subclass, &envelope.cmd).and_then(|row| {
                    // Every listener is a trusted one, which may do everything.
                    debug_assert!(matches!(row.access, Access::Everyone | Access::Users));
                    command::run(row, envelope.data, &self.context())
                });
                (step, tid)
            }
            Err(refused) => {
                let tid = refused.tid.map(|tid| line.slice_ref(tid.get().as_bytes()));
                (Err(refused.error), tid)
            }
        };
        match step {
            Ok(step) => self.take(step, slot, tid).await,
            Err(error) => slot.fill(reply_line(&Err(error), tid.as_deref())),
        }
    }

    fn context(&self) -> Context<'_> {
        let shared = &self.shared;
        Context {
            by: Principal::Trusted,
            limits: &shared.limits,
            session: &self.info,
            server: ServerInfo {
                uptime_seconds: shared.started.elapsed().as_secs(),
                connections: shared.connections.load(Ordering::Relaxed),
                seq: shared.store.newest(),
                epoch: shared.store.epoch(),
            },
        }
    }

    /// Does what a command wants done.
    async fn take(&self, step: Step, slot: ReplySlot, tid: Option<Bytes>) {
        let answer = match step {
            Step::Answer(data) => Ok(data),
            Step::Apply(operation) => return self.apply(operation, slot, tid).await,
            Step::Hash(password, then) => match self.shared.hasher.hash(password).await {
                Ok(hash) => return self.apply(then(hash), slot, tid).await,
                Err(error) => Err(error),
            },
            Step::Read(query) => self.query(query, &slot).await.map(Answer::into_data),
            Step::Count(make) => {
                self.query(Query::Counts, &slot)
                    .await
                    .map(|answer| match answer {
                        Answer::Counts(counts) => make(counts),
                        other => other.into_data(),
                    })
            }
            Step::Subscribe(asked) => self.subscribe(asked, &slot).await,
            Step::Unsubscribe(removed) => {
                self.outbox.answered_before(&slot).await;
                self.shared.hub.unsubscribe(self.id, &removed);
                Ok(Bytes::from_static(b"{}"))
            }
            Step::ListSubscriptions => self.list_subscriptions(),
            Step::Send {
                kind,
                conversation,
                body,
            } => match self.query(Query::Reachable(conversation), &slot).await {
                Ok(Answer::Reachable(object)) => {
                    let now = self.shared.clock.now_ms();
                    let line = ephemeral_line(kind.as_str(), object, body.as_deref(), now, None);
                    self.shared.hub.send(kind.as_str(), object, &line);
                    Ok(Bytes::from_static(b"{}"))
                }
                Ok(other) => Ok(other.into_data()),
                Err(error) if error.field_name().is_some() => Err(error.field("obj_id")),
                Err(error) => Err(error),
            },
        };
        slot.fill(reply_line(&answer, tid.as_deref()));
    }

    async fn apply(&self, operation: Operation, slot: ReplySlot, tid: Option<Bytes>) {
        let done = Box::new(move |outcome: Result<Outcome, Error>| {
            let answer = outcome.and_then(|outcome| {
                serde_json::to_vec(&outcome)
                    .map(Bytes::from)
                    .map_err(|_| Error::internal())
            });
            slot.fill(reply_line(&answer, tid.as_deref()));
        });
        self.shared.store.apply(operation, done).await;
    }

    async fn query(&self, query: Query, slot: &ReplySlot) -> Result<Answer, Error> {
        self.outbox.answered_before(slot).await;
        self.shared.store.query(Principal::Trusted, query).await
    }

    async fn subscribe(&self, asked: Subscribe, slot: &ReplySlot) -> Result<Bytes, Error> {
        self.outbox.answered_before(slot).await;
        let Shared {
            store, hub, clock, ..
        } = self.shared.as_ref();
        let existing = hub.subscriptions(self.id);
        if existing.len() + asked.subscriptions.len() > SUBSCRIPTIONS_MAX {
            return Err(command::too_many_subscriptions());
        }
        let mut begin = Begin::Now;
        if let Some(since) = asked.since {
            if !existing.is_empty() {
                let text = "since goes with a connection's first subscription only; resume on a new connection";
                return Err(Error::new(Code::BadRequest, text).field("since"));
            }
            let head = store.log_head().await?;
            let epoch = head.epoch.to_string();
            let other_log = asked.epoch.is_some_and(|asked| asked != epoch);
            if other_log || since > head.seq || since + 1 < head.oldest {
                let text = "the events after since are not stored here; read the present state, then subscribe without since";
                return Err(Error::new(Code::EventsExpired, text)
                    .detail("oldest", head.oldest)
                    .detail("seq", head.seq)
                    .detail("epoch", epoch));
            }
            begin = Begin::After(since);
        }
        let seq = hub.subscribe(
            self.id,
            &self.outbox,
            asked.subscriptions,
            begin,
            asked.position,
            clock.now_ms(),
        );
        let epoch = store.epoch();
        Ok(Bytes::from(format!(r#"{{"seq":{seq},"epoch":"{epoch}"}}"#)))
    }

    fn list_subscriptions(&self) -> Result<Bytes, Error> {
        #[derive(serde::Serialize)]
        struct Shown<'a> {
            subscriptions: Vec<&'a crate::hub::Subscription>,
        }
        let subscriptions = self.shared.hub.subscriptions(self.id);
        let shown = Shown {
            subscriptions: subscriptions.iter().collect(),
        };
        serde_json::to_vec(&shown)
            .map(Bytes::from)
            .map_err(|_| Error::internal())
    }
}

/// The writing half of a connection: ends when the connection is to end.
async fn write(
    shared: &Shared,
    id: ConnectionId,
    outbox: &Outbox,
    output: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let stalled = Duration::from_secs(shared.limits.stalled_seconds);
    let mut cursor = Cursor::default();
    loop {
        match outbox.next_batch(WRITE_MAX_BYTES).await {
            Batch::Write(mut bytes) => {
                let length = bytes.len();
                while !bytes.is_empty() {
                    match tokio::time::timeout(stalled, output.write_buf(&mut bytes)).await {
                        Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(result) => result?,
                        Err(_) => {
                            tracing::info!(
                                connection = id,
                                code = CloseReason::Stalled.as_str(),
                                "connection closed"
                            );
                            return Ok(());
                        }
                    };
                }
                output.flush().await?;
                outbox.wrote(length);
            }
            Batch::CatchUp(next) => cursor = catch_up(shared, id, outbox, next, cursor).await?,
            Batch::Close | Batch::Drained => return Ok(()),
        }
    }
}

/// Pushes the next stored events of a stream that is behind.
async fn catch_up(
    shared: &Shared,
    id: ConnectionId,
    outbox: &Outbox,
    next: Seq,
    cursor: Cursor,
) -> io::Result<Cursor> {
    let page = shared
        .store
        .events_after(next - 1, cursor)
        .await
        .map_err(io::Error::other)?;
    let now = shared.clock.now_ms();
    if page.oldest > next {
        outbox.push(gap_line(next, page.oldest - 1, now));
    }
    let subscriptions = shared.hub.subscriptions(id);
    let mut reached = page.oldest.max(next) - 1;
    for event in page.events {
        reached = event.seq;
        if matches(&subscriptions, &event) {
            outbox.push(event.line);
        }
    }
    shared.hub.caught_up(id, reached, now);
    Ok(page.cursor)
}
