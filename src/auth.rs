//! Password hashing: the only file that knows bcrypt.
//!
//! Hashing is slow by design, so it runs on blocking threads, few at a time, and never on those that serve connections.
//! Strangers share threads and a short queue of their own, so that they hold up neither the trusted nor each other for
//! long; whoever has failed lately waits in a shorter one.

use crate::error::Error;
use crate::limits::{LOGINS_MAX_WAITING_PER_THREAD, SUSPICIOUS_LOGINS_MAX_WAITING};
use crate::model::{Password, PasswordHash};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hashes and verifies passwords, a bounded number at the same time.
#[derive(Clone, Debug)]
pub struct Hasher {
    cost: u32,
    /// What is verified where there is no such user, so that it takes as long.
    dummy: PasswordHash,
    trusted: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    /// How many strangers may be served or wait.
    max_waiting: usize,
    waiting: Arc<AtomicUsize>,
    suspicious: Arc<AtomicUsize>,
}

/// For whom a password is hashed or verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// For a trusted connection, or a user that is logged in: it waits as long as it takes.
    Trusted,
    /// For a stranger.
    Stranger,
    /// For a stranger whose address has failed lately.
    Suspicious,
}

/// There is no place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// Why a password was not hashed.
#[derive(Debug)]
pub enum HashError {
    /// There is no place in the queue.
    Busy,
    /// It failed.
    Failed(Error),
}

impl Hasher {
    /// A hasher of this bcrypt cost (4 to 31; 12 takes about 300 ms of a core).
    #[must_use]
    pub fn new(cost: u32) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = (cores / 2).max(1);
        let threads = || Arc::new(Semaphore::new(count));
        // Well-formed, with the right cost, and the hash of no password that anyone knows.
        let dummy = format!(
            "$2b${cost:02}${}",
            "abcdefghijklmnopqrstuu".to_owned() + &"a".repeat(31)
        );
        Self {
            cost,
            dummy: PasswordHash::new(dummy),
            trusted: threads(),
            strangers: threads(),
            max_waiting: count * LOGINS_MAX_WAITING_PER_THREAD,
            waiting: Arc::default(),
            suspicious: Arc::default(),
        }
    }

    /// The hash of a password.
    pub async fn hash(&self, password: Password, queue: Queue) -> Result<PasswordHash, HashError> {
        let Ok(turn) = self.turn(queue).await else {
            return Err(HashError::Busy);
        };
        let cost = self.cost;
        let hashed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            bcrypt::hash(password.reveal(), cost).map_err(|error| error.to_string())
        });
        match hashed.await.map_err(|error| error.to_string()) {
            Ok(Ok(hash)) => Ok(PasswordHash::new(hash)),
            Ok(Err(error)) | Err(error) => {
                tracing::error!(error, "a password could not be hashed");
                Err(HashError::Failed(Error::internal()))
            }
        }
    }

    /// Whether this is the password of the hash; without one, no, after the same time.
    pub async fn verify(
        &self,
        password: Password,
        hash: Option<PasswordHash>,
        queue: Queue,
    ) -> Result<bool, Busy> {
        let turn = self.turn(queue).await?;
        let exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.dummy.clone());
        let verified = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            bcrypt::verify(password.reveal(), hash.reveal()).map_err(|error| error.to_string())
        });
        match verified.await.map_err(|error| error.to_string()) {
            Ok(Ok(right)) => Ok(right && exists),
            Ok(Err(error)) | Err(error) => {
                tracing::error!(error, "a password could not be verified");
                Ok(false)
            }
        }
    }

    /// Waits for a thread, in the queue that this is for.
    async fn turn(&self, queue: Queue) -> Result<Turn, Busy> {
        let (threads, waiting) = match queue {
            Queue::Trusted => (&self.trusted, None),
            Queue::Stranger => (&self.strangers, Some((&self.waiting, self.max_waiting))),
            Queue::Suspicious => (
                &self.strangers,
                Some((&self.suspicious, SUSPICIOUS_LOGINS_MAX_WAITING)),
            ),
        };
        let place = match waiting {
            Some((count, most)) => Some(Place::take(count, most).ok_or(Busy)?),
            None => None,
        };
        let permit = Arc::clone(threads)
            .acquire_owned()
            .await
            .map_err(|_| Busy)?;
        Ok(Turn {
            _permit: permit,
            _place: place,
        })
    }
}

/// A thread to hash on, and the place in the queue, until both are dropped.
struct Turn {
    _permit: OwnedSemaphorePermit,
    _place: Option<Place>,
}

/// A place in a queue of bounded length, those being served included.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(count: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < most).then_some(taken + 1)
            })
            .ok()
            .map(|_| Self(Arc::clone(count)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_user_is_right() {
        let hasher = Hasher::new(4);
        let hash = hasher
            .hash(password("s3cret"), Queue::Trusted)
            .await
            .unwrap();
        let verify = async |text, hash| hasher.verify(password(text), hash, Queue::Stranger).await;
        assert_eq!(verify("s3cret", Some(hash.clone())).await, Ok(true));
        assert_eq!(verify("S3cret", Some(hash)).await, Ok(false));
        assert_eq!(verify("s3cret", None).await, Ok(false));
        let broken = PasswordHash::new("no hash".to_owned());
        assert_eq!(verify("s3cret", Some(broken)).await, Ok(false));
    }

    #[test]
    fn the_dummy_hash_is_one_of_the_configured_cost() {
        for cost in [4, 12] {
            let dummy = Hasher::new(cost).dummy;
            let parts: bcrypt::HashParts = dummy.reveal().parse().unwrap();
            assert_eq!(parts.get_cost(), cost);
        }
    }

    #[tokio::test]
    async fn the_suspicious_find_a_short_queue_and_do_not_fill_that_of_others() {
        let hasher = Hasher::new(4);
        let held = Arc::clone(&hasher.strangers)
            .acquire_many_owned(u32::try_from(hasher.strangers.available_permits()).unwrap())
            .await
            .unwrap();
        let verify = |queue| {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.verify(password("x"), None, queue).await })
        };
        let waiting: Vec<_> = (0..SUSPICIOUS_LOGINS_MAX_WAITING)
            .map(|_| verify(Queue::Suspicious))
            .collect();
        while hasher.suspicious.load(Ordering::Relaxed) < SUSPICIOUS_LOGINS_MAX_WAITING {
            tokio::task::yield_now().await;
        }
        assert_eq!(verify(Queue::Suspicious).await.unwrap(), Err(Busy));
        let other = verify(Queue::Stranger);
        while hasher.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        drop(held);
        assert_eq!(other.await.unwrap(), Ok(false));
        for one in waiting {
            assert_eq!(one.await.unwrap(), Ok(false));
        }
    }
}
