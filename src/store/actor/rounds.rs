//! What the store's own thread does: one round after the other.

use super::{CommitError, Job, Shared};
use crate::error::Error;
use crate::limits::{ROUND_MAX_BYTES, ROUND_MAX_OPERATIONS, SLOW_ROUND_MS};
use crate::model::{Company, Directory, UserId};
use crate::store::backoff::Backoff;
use crate::store::operation::{Operation, Outcome, Principal};
use crate::store::quota::{Amount, Quotas, rows_of};
use crate::store::room::Space;
use crate::store::rows::Head;
use crate::store::rules::{self, Deletions, Rights, Turn};
use crate::store::txn::{Round, Txn};
use crate::store::{Done, OnCommit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;
use tokio::sync::mpsc;

/// What the store's thread has waited for.
enum Waited {
    /// An operation.
    Job(Job),
    /// A deletion, or a large round, may go on.
    Turn,
    /// The last handle of the store was dropped.
    End,
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What the store's thread works with.
pub(super) struct Actor {
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
    head: Head,
    deletions: Deletions,
    /// Forgetting what has expired.
    expiry: Backoff,
    on_commit: OnCommit,
    quotas: Quotas,
    /// The operations of the round that is being made, and how they ended.
    under_way: Vec<(Done, Result<Outcome, Error>)>,
    /// Nothing is left to be written of a large round.
    settled: bool,
    /// The round under way was handed to the backend.
    written: bool,
    /// What must not be answered, since nobody knows the answer. It waits here for the end of the process: the server
    /// closes the connections.
    in_doubt: Vec<Done>,
}

impl Actor {
    /// One that goes on from `head`, with these deletions unfinished.
    pub(super) fn new(
        shared: Arc<Shared>,
        jobs: mpsc::Receiver<Job>,
        head: Head,
        deletions: Deletions,
        on_commit: OnCommit,
    ) -> Self {
        let quotas = Quotas::new(shared.settings.quota);
        Self {
            shared,
            jobs,
            head,
            deletions,
            expiry: Backoff::default(),
            on_commit,
            quotas,
            under_way: Vec::with_capacity(ROUND_MAX_OPERATIONS),
            settled: true,
            written: false,
            in_doubt: Vec::new(),
        }
    }

    /// Runs until there is no more to do. A panic is a failure of the store: without its thread it would answer reads
    /// and nothing else for ever.
    pub(super) fn run_to_end(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.run()));
        if ended.is_err() {
            self.park();
            let failure = self.shared.backend.failure();
            failure.declare("the store's thread has panicked");
            // What waits was not begun; refused, it changes nothing.
            self.jobs.close();
            while let Some(job) = self.jobs.blocking_recv() {
                (job.done)(Err(Error::unavailable()));
            }
            // The process is about to end. Until then nobody is told what nobody knows.
            std::mem::forget(self.in_doubt);
        }
    }

    /// Leaves the operations under way without an answer, if they may have been stored.
    fn park(&mut self) {
        if self.written {
            let under_way = self.under_way.drain(..);
            // What was refused is not in doubt; but its place in the order of answers comes after those that are.
            self.in_doubt.extend(under_way.map(|(done, _)| done));
        }
    }

    fn run(&mut self) {
        let wake = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut batch = Vec::with_capacity(ROUND_MAX_OPERATIONS);
        loop {
            match self.wait(&wake) {
                Waited::Job(job) => batch.push(job),
                Waited::Turn => {}
                Waited::End => break,
            }
            while batch.len() < ROUND_MAX_OPERATIONS {
                match self.jobs.try_recv() {
                    Ok(job) => batch.push(job),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    // An unfinished deletion goes on after the next start.
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        self.deletions.clear();
                        break;
                    }
                }
            }
            if self.shared.backend.failure().is_declared()
                || self.shared.stopping.load(Ordering::Relaxed)
            {
                // Every change is refused from now on: a deletion would go on for ever.
                self.deletions.clear();
            }
            let began = Instant::now();
            let operations = batch.len();
            let mut jobs = batch.drain(..).collect::<std::collections::VecDeque<_>>();
            loop {
                self.round(&mut jobs);
                self.settled = self.shared.backend.settle();
                if jobs.is_empty() {
                    break;
                }
            }
            let took = began.elapsed();
            if took.as_millis() > SLOW_ROUND_MS {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(operations, took_ms, "slow round");
            }
        }
    }

    /// Waits for an operation, or until something else goes on.
    fn wait(&mut self, wake: &Waker) -> Waited {
        let mut context = Context::from_waker(wake);
        loop {
            let now = Instant::now();
            let next = self.deletions.next(now);
            if !self.settled || next.is_some_and(|next| next <= now) {
                return Waited::Turn;
            }
            match (self.jobs.poll_recv(&mut context), next) {
                (Poll::Ready(Some(job)), _) => return Waited::Job(job),
                (Poll::Ready(None), _) => return Waited::End,
                (Poll::Pending, Some(next)) => std::thread::park_timeout(next - now),
                (Poll::Pending, None) => std::thread::park(),
            }
        }
    }

    /// Decides, commits and answers one round.
    fn round(&mut self, jobs: &mut std::collections::VecDeque<Job>) {
        let shared = Arc::clone(&self.shared);
        let now_and_clock = shared.settings.clock.look(shared.settings.keep_ms);
        let now = Instant::now();
        let space = shared.backend.space();
        self.written = false;
        // Whether it is a round of deletions that a full disk has room for. It is of one kind where room is short.
        let mut deletes = None;
        let mut round = None;
        let mut charged = Vec::new();
        let mut turn = Turn::default();
        shared.backend.read(&mut |state| {
            let mut txn = Txn::new(state, self.head, now_and_clock.clone());
            while let Some(job) = jobs.pop_front() {
                let job_deletes = space != Space::Plenty && may_delete(&txn, &job.operation);
                if space == Space::Short && *deletes.get_or_insert(job_deletes) != job_deletes {
                    jobs.push_front(job);
                    break;
                }
                let ends_sessions = job.operation.change.ends().is_some();
                let result = if shared.stopping.load(Ordering::Relaxed) {
                    // It was not begun, and nobody waits for its answer.
                    Err(Error::unavailable())
                } else if job.session.is_over(|| txn.held_ms()) {
                    Err(rules::not_logged_in())
                } else {
                    let (by, rows) = (job.operation.by, rows_of(&job.operation.change));
                    decide(&mut txn, job.operation).and_then(|outcome| {
                        if space == Space::Full && !job_deletes && txn.added_bytes() > 0 {
                            return Err(Error::storage_full());
                        }
                        charged.extend(charge(&mut self.quotas, &txn, by, rows)?);
                        Ok(outcome)
                    })
                };
                let ends_sessions = ends_sessions && result.is_ok();
                if result.is_ok() {
                    txn.keep();
                } else {
                    txn.roll_back();
                }
                self.under_way.push((job.done, result));
                // What ends sessions is the last of its round: what they ask for behind it finds them ended.
                if ends_sessions || txn.bytes() > ROUND_MAX_BYTES || txn.has_large_change() {
                    break;
                }
            }
            if space != Space::Full && self.expiry.is_due(now) {
                if rules::forget_expired(&mut txn).is_ok() {
                    txn.keep();
                    self.expiry.succeeded();
                } else {
                    txn.roll_back();
                    if self.expiry.failed(now) {
                        tracing::error!("what has expired cannot be forgotten, for what the lines above say; it is tried again and again");
                    }
                }
            }
            turn = self.deletions.take_slices(&mut txn, now);
            round = if txn.is_empty() {
                None
            } else {
                let deletes = deletes.unwrap_or(space == Space::Full || self.under_way.is_empty());
                Some(txn.finish().map(|round| Round { deletes, ..round }))
            };
        });
        let committed = match round {
            None => {
                self.deletions.note(&turn, &[], now);
                Ok(())
            }
            Some(Err(error)) => Err(error),
            Some(Ok(round)) => match self.commit(&round, &turn) {
                Ok(()) => Ok(()),
                Err(CommitError::Full) => Err(Error::storage_full()),
                Err(CommitError::Unavailable) => Err(Error::unavailable()),
                Err(CommitError::InDoubt) => {
                    self.park();
                    return;
                }
            },
        };
        if committed.is_err() {
            for (user, stored) in charged {
                self.quotas.give_back(user, stored);
            }
            self.deletions.note_uncommitted(&turn, now);
        }
        for (done, result) in self.under_way.drain(..) {
            let result = match (&committed, result) {
                // A refusal needs no storage, and a repeated nonce is answered only from what is stored.
                (Err(error), Ok(_)) => Err(error.clone()),
                (_, result) => result,
            };
            // A panic is in the log, and its own answer is lost; the others are not.
            let _ = catch_unwind(AssertUnwindSafe(|| done(result)));
        }
    }

    fn commit(&mut self, round: &Round, turn: &Turn) -> Result<(), CommitError> {
        self.written = true;
        let committed = self.shared.backend.commit(round);
        self.written = !matches!(committed, Err(CommitError::Full | CommitError::Unavailable));
        committed?;
        self.head = round.head;
        *self
            .shared
            .head
            .write()
            .unwrap_or_else(PoisonError::into_inner) = round.head;
        self.deletions.note(turn, &round.changes, Instant::now());
        self.shared.present.note(&round.events);
        let company = self.company(round);
        (self.on_commit)(&round.events, &company);
        Ok(())
    }

    /// Where the companions of the users are whose events these are.
    fn company(&self, round: &Round) -> Company {
        if self.shared.settings.directory != Directory::Companions
            || !round.events.iter().any(rules::reaches_companions)
        {
            return Company::default();
        }
        let company = self
            .shared
            .backend
            .ask(|state| rules::company_of(state, &round.events));
        // What cannot be read is in the log; nobody is shown what it may not see.
        company.unwrap_or_default()
    }
}

/// Whether an operation deletes, for whoever may do everything: there is room for that on a full disk.
fn may_delete(txn: &Txn<'_>, operation: &Operation) -> bool {
    let all = || Rights::of(txn, operation.by).is_ok_and(|rights| rights.everything());
    operation.change.deletes() && all()
}

/// Counts what the operation stores for the user that acts, if one does. Whatever that does, a change that is made on
/// a trusted connection itself is not counted.
fn charge(
    quotas: &mut Quotas,
    txn: &Txn<'_>,
    by: Principal,
    rows: Option<u64>,
) -> Result<Option<(UserId, Amount)>, Error> {
    let (Some(user), Some(rows), bytes @ 1..) = (by.user(), rows, txn.added_bytes()) else {
        return Ok(None);
    };
    let stored = Amount {
        rows,
        bytes: bytes as u64,
    };
    let is_admin = || Ok(Rights::of(txn, by)?.everything());
    quotas.charge(user, stored, txn.now_ms(), is_admin)?;
    Ok(Some((user, stored)))
}

/// Decides one operation. A panic is in the log, and a refusal of this one alone.
fn decide(txn: &mut Txn<'_>, operation: Operation) -> Result<Outcome, Error> {
    let decided = catch_unwind(AssertUnwindSafe(|| rules::decide(txn, operation)));
    decided.unwrap_or_else(|_| Err(Error::internal()))
}
