//! Password hashing: the only file that knows bcrypt.
//!
//! Hashing is slow by design, so it runs on blocking threads, few at a time, and never on those that serve connections.

use crate::error::Error;
use crate::model::{Password, PasswordHash};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Hashes passwords, a bounded number at the same time.
#[derive(Clone, Debug)]
pub struct Hasher {
    cost: u32,
    threads: Arc<Semaphore>,
}

impl Hasher {
    /// A hasher of this bcrypt cost (4 to 31; 12 takes about 300 ms of a core).
    #[must_use]
    pub fn new(cost: u32) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cost,
            threads: Arc::new(Semaphore::new((cores / 2).max(1))),
        }
    }

    /// The hash of a password.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, Error> {
        let Ok(permit) = Arc::clone(&self.threads).acquire_owned().await else {
            return Err(Error::internal());
        };
        let cost = self.cost;
        let hashed = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            bcrypt::hash(password.reveal(), cost)
        });
        match hashed.await {
            Ok(Ok(hash)) => Ok(PasswordHash::new(hash)),
            Ok(Err(error)) => {
                tracing::error!(%error, "a password could not be hashed");
                Err(Error::internal())
            }
            Err(error) => {
                tracing::error!(%error, "a password could not be hashed");
                Err(Error::internal())
            }
        }
    }
}
