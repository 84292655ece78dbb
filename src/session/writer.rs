//! The writing half of a connection: sends what its outbox holds, and fetches stored events for a stream that is behind.

use super::Shared;
use crate::hub::ConnectionId;
use crate::limits::WRITE_MAX_BYTES;
use crate::model::Seq;
use crate::store::Cursor;
use crate::wire::{Batch, CloseReason, Outbox};
use bytes::BytesMut;
use std::io;
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
    let mut cursor = Cursor::default();
    loop {
        match outbox.next_batch(WRITE_MAX_BYTES).await {
            Batch::Write(bytes) => {
                let length = bytes.len();
                if !send(output, bytes, stalled).await? {
                    shared.counters.stalled.add();
                    let code = CloseReason::Stalled.as_str();
                    tracing::info!(connection = id, code, "connection closed");
                    return Err(io::ErrorKind::TimedOut.into());
                }
                outbox.wrote(length);
            }
            Batch::CatchUp(next) => cursor = catch_up(shared, id, next, cursor).await?,
            Batch::Close | Batch::Drained => return Ok(()),
        }
    }
}

/// Sends bytes; false if the client took none of them for as long as `stalled`.
async fn send(
    output: &mut (impl AsyncWrite + Unpin),
    mut bytes: BytesMut,
    stalled: Duration,
) -> io::Result<bool> {
    while !bytes.is_empty() {
        match tokio::time::timeout(stalled, output.write_buf(&mut bytes)).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(result) => result?,
            Err(_) => return Ok(false),
        };
    }
    match tokio::time::timeout(stalled, output.flush()).await {
        Ok(result) => result.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Hands the next stored events of a stream that is behind to the hub, which knows which of them it may see.
async fn catch_up(
    shared: &Shared,
    id: ConnectionId,
    next: Seq,
    cursor: Cursor,
) -> io::Result<Cursor> {
    let page = shared
        .store
        .events_after(next - 1, cursor)
        .await
        .map_err(io::Error::other)?;
    let now_ms = shared.clock.now_ms();
    shared
        .hub
        .catch_up(id, next, page.oldest, &page.events, now_ms);
    Ok(page.cursor)
}
