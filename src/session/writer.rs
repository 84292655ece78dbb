//! The writing half of a connection: sends what its outbox holds, and fetches stored events for a stream that is behind.

use super::Shared;
use crate::hub::ConnectionId;
use crate::limits::WRITE_MAX_BYTES;
use crate::model::Seq;
use crate::store::Asker;
use crate::wire::{Batch, CloseReason, Outbox};
use bytes::{Buf, Bytes};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Writes until the connection is to end.
pub async fn write(
    shared: &Shared,
    id: ConnectionId,
    outbox: &Outbox,
    output: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let stalled = Duration::from_secs(shared.limits.stalled_seconds);
    loop {
        match outbox.next_batch(WRITE_MAX_BYTES).await {
            Batch::Write(bytes) => {
                let length = bytes.len();
                if !send(outbox, output, bytes, stalled).await? {
                    shared.counters.stalled.add();
                    outbox.close(CloseReason::Stalled);
                    return Err(io::ErrorKind::TimedOut.into());
                }
                outbox.wrote(length);
            }
            Batch::CatchUp(next) => {
                catch_up(shared, id, outbox, next).await;
                // From memory, and to a client that reads fast, a long way would be gone without a pause.
                tokio::task::yield_now().await;
            }
            Batch::Close | Batch::Drained => return Ok(()),
        }
    }
}

/// Sends bytes; false if the client took none of them for as long as `stalled`.
async fn send(
    outbox: &Outbox,
    output: &mut (impl AsyncWrite + Unpin),
    mut bytes: Bytes,
    stalled: Duration,
) -> io::Result<bool> {
    while !bytes.is_empty() {
        let write = poll_fn(|context| Pin::new(&mut *output).poll_write(context, &bytes));
        match unless_stalled(write, stalled, || outbox.stands_still()).await {
            Some(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Some(written) => bytes.advance(written?),
            None => return Ok(false),
        }
    }
    match unless_stalled(output.flush(), stalled, || outbox.stands_still()).await {
        Some(flushed) => flushed.map(|()| true),
        None => Ok(false),
    }
}

/// What `work` gives, or nothing if it waits for longer than `stalled`. Most of it never waits, and then needs no timer.
async fn unless_stalled<T>(
    work: impl Future<Output = T>,
    stalled: Duration,
    waits: impl Fn(),
) -> Option<T> {
    let mut work = pin!(work);
    let mut timer = None;
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        let timer = timer.get_or_insert_with(|| {
            waits();
            Box::pin(tokio::time::sleep(stalled))
        });
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// Hands the next stored events of a stream that is behind to the hub, which knows which of them it may see. Where they
/// cannot be read, the connection is closed, for a stream has no holes.
async fn catch_up(shared: &Shared, id: ConnectionId, outbox: &Outbox, next: Seq) {
    let viewer = shared.hub.viewer(id);
    let asker = viewer.map_or(Asker::Connection(id), Asker::User);
    let page = match shared.store.events_after(next - 1, viewer, asker).await {
        Ok(page) => page,
        Err(error) => {
            tracing::info!(connection = id, %error, "stored events cannot be sent; the connection is closed");
            return outbox.close(CloseReason::EventsUnreadable);
        }
    };
    let events = page.events.as_ref();
    let unnamed = (viewer, &*page.unnamed);
    let now_ms = shared.clock.now_ms();
    shared
        .hub
        .catch_up(id, next, page.oldest, events, unnamed, now_ms);
}
