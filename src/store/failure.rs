//! What ends a store before its time: said once, whoever notices it first.

use tokio_util::sync::CancellationToken;

/// Whether the store, or what serves it, has failed for good. Then nothing more is written, and the process is to end, so that whoever
/// watches over it starts it again.
#[derive(Clone, Debug, Default)]
pub struct Failure(CancellationToken);

impl Failure {
    /// Says that it has failed, and in the log why.
    pub fn declare(&self, why: &str) {
        if !self.0.is_cancelled() {
            tracing::error!(why, "failed; chatd ends, and is to be started again");
        }
        self.0.cancel();
    }

    /// Whether it has failed.
    #[must_use]
    pub fn is_declared(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it has failed.
    pub async fn declared(&self) {
        self.0.cancelled().await;
    }
}
