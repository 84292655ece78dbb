//! Ends a connection from outside.

use crate::store::Ended;
use crate::wire::{CloseReason, Outbox};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Ends a connection from outside.
#[derive(Clone, Debug)]
pub struct Closer {
    pub(super) outbox: Arc<Outbox>,
    closing: CancellationToken,
    pub(super) gone: CancellationToken,
    pub(super) session: Ended,
}

impl Closer {
    /// A closer of the connection with this outbox, which is to end too when `shutdown` is cancelled.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>, shutdown: &CancellationToken) -> Self {
        Self {
            outbox,
            // Its own token, because each wake-up of a connection looks at it: they must not share a lock.
            closing: shutdown.child_token(),
            gone: CancellationToken::new(),
            session: Ended::default(),
        }
    }

    /// Sends a last line that says why, and ends the connection soon.
    pub fn close(&self, reason: CloseReason) {
        if reason == CloseReason::SessionEnded {
            self.session.set();
        }
        self.outbox.close(reason);
        self.closing.cancel();
    }

    /// Sends a last line that says why, and ends the connection soon, without the answers that are not there yet.
    pub fn close_unanswered(&self, reason: CloseReason) {
        self.outbox.close_unanswered(reason);
        self.closing.cancel();
    }

    /// Whether the connection's session was ended: nothing is done for it any more, not even what was asked before.
    #[must_use]
    pub fn session(&self) -> &Ended {
        &self.session
    }

    /// Whether the connection is to end.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Waits until the connection is to end.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Waits until the other end of the connection is gone, so that nothing can reach it any more.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }
}
