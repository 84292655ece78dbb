//! The thread that does TLS handshakes: each signs something, which takes milliseconds, and holds up nobody who is served.

use std::io;
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct HandshakeThread(Option<Runtime>);

impl HandshakeThread {
    /// Starts it.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("handshakes")
            .enable_time()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Does a handshake there. Where nobody waits for it any more, it ends.
    pub async fn run<T: Send + 'static>(
        &self,
        handshake: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let Some(runtime) = &self.0 else {
            return Err(io::Error::other("the thread for handshakes has ended"));
        };
        let done = AbortOnDropHandle::new(runtime.spawn(handshake)).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

impl Drop for HandshakeThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // What is dropped among tasks may not wait for others.
            runtime.shutdown_background();
        }
    }
}
