//! Password hashing: the only file that knows bcrypt.
//!
//! Hashing is slow by design, so it runs on blocking threads, few at a time, and never on those that serve connections.
//! Strangers share threads of their own, and wait for them in a queue (`queue.rs`), so that they hold up neither the
//! trusted nor each other for long.

mod queue;

pub use queue::{Busy, Repute, Turn};

use crate::error::Error;
use crate::model::{Password, PasswordHash};
use crate::throttle::Caller;
use queue::Queue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Microseconds that a hash of cost 0 would take on a common machine; each cost more takes twice as long.
const COST_0_US: u64 = 73;

/// Hashes and verifies passwords, a bounded number at the same time.
#[derive(Clone, Debug)]
pub struct Hasher {
    cost: u32,
    trusted: Arc<Semaphore>,
    strangers: Arc<Queue>,
}

/// What a password is compared with.
#[derive(Clone, Debug)]
pub enum Kept {
    /// The hash of the user's password.
    Hash(PasswordHash),
    /// There is no such user: it is to take as long as for most of those there are.
    Nothing {
        /// The cost that most hashes have; none if there are none.
        usual_cost: Option<u32>,
    },
}

/// A password that was verified and is right.
#[derive(Debug)]
pub struct Right {
    /// What is to be kept instead of its hash: that of the password that is to follow it, or its own at the cost of new
    /// ones, if it had another.
    pub hash: Option<PasswordHash>,
}

/// A thread to hash on, until it is dropped.
#[derive(Debug)]
pub enum Thread {
    /// One of those for the trusted.
    Trusted(OwnedSemaphorePermit),
    /// One of those for strangers.
    Stranger(Turn),
}

impl Hasher {
    /// A hasher of this bcrypt cost (4 to 31; 12 takes about 300 ms of a core).
    #[must_use]
    pub fn new(cost: u32) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / 2).max(1);
        Self {
            cost,
            trusted: Arc::new(Semaphore::new(threads)),
            strangers: Queue::new(threads, Duration::from_micros(COST_0_US << cost)),
        }
    }

    /// Waits for a thread for a trusted connection, as long as it takes.
    pub async fn trusted(&self) -> Result<Thread, Error> {
        let permit = Arc::clone(&self.trusted).acquire_owned().await;
        permit.map(Thread::Trusted).map_err(|_| Error::internal())
    }

    /// Waits for a thread for anybody else; an error says when to come back.
    pub async fn stranger(&self, caller: Caller, repute: Repute) -> Result<Thread, Busy> {
        let turn = self.strangers.turn(caller, repute).await;
        turn.map(Thread::Stranger)
    }

    /// Forgets that a stranger was told to come back, since it did not wait.
    pub fn forget(&self, caller: Caller) {
        self.strangers.forget(caller);
    }

    /// The hash of a password.
    pub async fn hash(&self, password: Password, thread: Thread) -> Result<PasswordHash, Error> {
        let cost = self.cost;
        let hashed = work(thread, move |_| {
            bcrypt::hash(password.reveal(), cost).map_err(|error| error.to_string())
        });
        match hashed.await {
            Ok(hash) => Ok(PasswordHash::new(hash)),
            Err(error) => {
                tracing::error!(error, "a password could not be hashed");
                Err(Error::internal())
            }
        }
    }

    /// Whether this is the password of the hash; without one, no, after the same time. Where it is, and a new one is to
    /// follow it, that is hashed in the same turn; else itself, if its hash has another cost than new ones. `verdict` is
    /// told, even where nobody waits for the answer any more.
    pub async fn verify(
        &self,
        password: Password,
        kept: Kept,
        new: Option<Password>,
        thread: Thread,
        verdict: impl FnOnce(bool) + Send + 'static,
    ) -> Result<Option<Right>, Error> {
        let (hash, exists) = self.compared(kept);
        let cost = self.cost;
        let verified = work(thread, move |thread| {
            let right = bcrypt::verify(password.reveal(), hash.reveal()).unwrap_or_else(|error| {
                tracing::error!(%error, "a password could not be verified");
                false
            });
            verdict(exists && right);
            if !(exists && right) {
                return Ok(None);
            }
            if let Thread::Stranger(turn) = thread {
                turn.is_of_account();
            }
            let renewed = (hash.cost() != Some(cost)).then_some(password);
            let next = new.or(renewed);
            let hash = next.map(|next| bcrypt::hash(next.reveal(), cost).map(PasswordHash::new));
            let hash = hash.transpose().map_err(|error| error.to_string())?;
            Ok(Some(Right { hash }))
        });
        verified.await.map_err(|error| {
            tracing::error!(error, "a password could not be verified");
            Error::internal()
        })
    }
}

impl Hasher {
    /// The hash that a password is compared with, and whether it is somebody's.
    fn compared(&self, kept: Kept) -> (PasswordHash, bool) {
        match kept {
            Kept::Hash(hash) => (hash, true),
            Kept::Nothing { usual_cost } => {
                let cost = usual_cost.unwrap_or(self.cost);
                // Well-formed, and the hash of no password that anyone knows.
                let dummy = format!("$2b${cost:02}$abcdefghijklmnopqrstuu{}", "a".repeat(31));
                (PasswordHash::new(dummy), false)
            }
        }
    }
}

/// Does slow work, with the thread that it has its turn on.
async fn work<T: Send + 'static>(
    mut thread: Thread,
    work: impl FnOnce(&Thread) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(move || {
        if let Thread::Stranger(turn) = &mut thread {
            turn.begin();
        }
        work(&thread)
    });
    done.await
        .unwrap_or_else(|error| Err(format!("the thread failed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn password(text: &str) -> Password {
        Password::new(text.to_owned()).unwrap()
    }

    const NOTHING: Kept = Kept::Nothing { usual_cost: None };

    #[tokio::test]
    async fn only_the_right_password_of_a_user_is_right() {
        let hasher = Hasher::new(4);
        let thread = async || hasher.trusted().await.unwrap();
        let hash = hasher
            .hash(password("s3cret"), thread().await)
            .await
            .unwrap();
        let verify = async |text, kept| {
            let (send, told) = mpsc::channel();
            let verdict = move |right| send.send(right).unwrap();
            let right = hasher
                .verify(password(text), kept, None, thread().await, verdict)
                .await
                .unwrap()
                .is_some();
            assert_eq!(told.recv(), Ok(right));
            right
        };
        assert!(verify("s3cret", Kept::Hash(hash.clone())).await);
        assert!(!verify("S3cret", Kept::Hash(hash)).await);
        assert!(!verify("s3cret", NOTHING).await);
        let broken = PasswordHash::new("no hash".to_owned());
        assert!(!verify("s3cret", Kept::Hash(broken)).await);
    }

    #[test]
    fn what_is_compared_where_there_is_no_user_has_the_cost_that_most_have() {
        let hasher = Hasher::new(12);
        for usual_cost in [None, Some(4), Some(12), Some(13)] {
            let (dummy, exists) = hasher.compared(Kept::Nothing { usual_cost });
            let parts: bcrypt::HashParts = dummy.reveal().parse().unwrap();
            assert_eq!(parts.get_cost(), usual_cost.unwrap_or(12));
            assert_eq!(dummy.cost(), Some(parts.get_cost()));
            assert!(!exists);
        }
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_is_renewed_if_its_password_is_right() {
        let trusted = async |hasher: &Hasher| hasher.trusted().await.unwrap();
        for (before, now) in [(4, 5), (5, 4), (5, 5)] {
            let old = Hasher::new(before);
            let hash = old.hash(password("s3cret"), trusted(&old).await).await;
            let hash = hash.unwrap();
            assert_eq!(hash.cost(), Some(before));
            let hasher = Hasher::new(now);
            let verify = async |text, new| {
                let kept = Kept::Hash(hash.clone());
                let thread = trusted(&hasher).await;
                let verified = hasher
                    .verify(password(text), kept, new, thread, |_| {})
                    .await;
                verified.unwrap()
            };
            assert!(verify("S3cret", None).await.is_none());
            let renewed = verify("s3cret", None).await.unwrap().hash;
            assert_eq!(renewed.is_some(), before != now);
            if let Some(renewed) = renewed {
                assert_eq!(renewed.cost(), Some(now));
                assert_eq!(bcrypt::verify("s3cret", renewed.reveal()).ok(), Some(true));
            }
            // A new password stands in place of the old one, whatever their costs.
            let replaced = verify("s3cret", Some(password("another"))).await.unwrap();
            let replaced = replaced.hash.unwrap();
            assert_eq!(replaced.cost(), Some(now));
            assert_eq!(
                bcrypt::verify("another", replaced.reveal()).ok(),
                Some(true)
            );
        }
    }
}
