//! Where the time comes from, and which time is for what.
//!
//! The machine's clock may be set, forwards and back, and may be wrong for a while. So there are three times:
//!
//! | time | what it is | what it is for |
//! |---|---|---|
//! | [`Moment::wall_ms`] | the machine's clock as it stands | the times in objects and events |
//! | [`Moment::held_ms`] | the same, but a jump ahead of more than [`CLOCK_HELD_MS`] is followed only once it has lasted as long | the expiry of tokens |
//! | [`Moment::log_ms`] | never runs backwards: where the clock is set back, it goes on by itself | when a record was made |
//!
//! How long a record is kept is counted back from `log_ms`, without the jumps in which no time is known to have passed
//! ([`Moment::kept_since_ms`]). What expires thus follows the clock only as fast as a monotonic clock goes: a clock that
//! is a year ahead for a moment makes nothing expire, and one that is set back keeps nothing for ever.

use crate::limits::{CLOCK_HELD_MS, CLOCK_LOOK_MS, CLOCK_TOLD_MS};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// Jumps of the clock that are remembered; older ones are put together.
const SKIPS_MAX: usize = 16;

/// A source of the time, in milliseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// From when on there is a log to go on from.
    pace: Arc<Mutex<Option<Pace>>>,
    /// Told when a manual clock is moved.
    moved: Arc<Notify>,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

/// One moment, by the three times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The machine's clock.
    pub wall_ms: u64,
    /// The machine's clock, less a jump ahead that has not lasted yet. Never above `wall_ms`.
    pub held_ms: u64,
    /// A time that never runs backwards. Never below `held_ms`.
    pub log_ms: u64,
    /// What was made before this, by `log_ms`, has been kept for long enough.
    pub kept_since_ms: u64,
}

impl Moment {
    /// A moment at which all is well with the clock, where things are kept for so long.
    #[must_use]
    pub const fn at(ms: u64, keep_ms: u64) -> Self {
        Self {
            wall_ms: ms,
            held_ms: ms,
            log_ms: ms,
            kept_since_ms: ms.saturating_sub(keep_ms),
        }
    }
}

/// What the next start must know of the clock, besides the time of the newest record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct ClockNote {
    /// How far `log_ms` was ahead of `held_ms`.
    #[n(0)]
    pub lead_ms: u64,
    /// The jumps of `log_ms` in which no time is known to have passed, oldest first; at most [`SKIPS_MAX`].
    #[n(1)]
    skips: Vec<Skip>,
    /// Where the jump began that is held.
    #[n(2)]
    jump_from: Option<u64>,
}

impl ClockNote {
    /// Whether another note says the same, but for what may be lost.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        self.lead_ms.abs_diff(other.lead_ms) <= CLOCK_TOLD_MS
            && self.skips == other.skips
            && self.jump_from == other.jump_from
    }
}

/// A jump of `log_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
struct Skip {
    #[n(0)]
    at_ms: u64,
    #[n(1)]
    by_ms: u64,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self {
            source: Source::System,
            pace: Arc::default(),
            moved: Arc::default(),
        }
    }

    /// A clock that stands still until [`Clock::advance`] or [`Clock::set`] moves it.
    #[must_use]
    pub fn manual(start_ms: u64) -> Self {
        Self {
            source: Source::Manual(Arc::new(Manual {
                wall_ms: AtomicU64::new(start_ms),
                monotonic_ms: AtomicU64::new(0),
            })),
            pace: Arc::default(),
            moved: Arc::default(),
        }
    }

    /// Begins to go on from a log: the time of its newest record, 0 if there is none, and what was noted there.
    pub fn go_on_from(&self, log_ms: u64, note: ClockNote) {
        let mut pace = self.lock();
        let (wall_ms, monotonic_ms) = self.source.read();
        *pace = Some(if log_ms == 0 {
            Pace::new(wall_ms, monotonic_ms)
        } else {
            Pace::after(log_ms, note, wall_ms, monotonic_ms)
        });
        drop(pace);
        // What there is to tell is told now.
        let _ = self.look(0);
    }

    /// This moment, where things are kept for so long.
    #[must_use]
    pub fn moment(&self, keep_ms: u64) -> Moment {
        self.look(keep_ms).0
    }

    /// This moment, and what the next start must know of it.
    #[must_use]
    pub fn look(&self, keep_ms: u64) -> (Moment, ClockNote) {
        let mut pace = self.lock();
        // Under the lock, so that no moment is seen after a later one.
        let (wall_ms, monotonic_ms) = self.source.read();
        let Some(pace) = &mut *pace else {
            return (Moment::at(wall_ms, keep_ms), ClockNote::default());
        };
        if let Some(notice) = pace.observe(wall_ms, monotonic_ms) {
            notice.log();
        }
        let moment = Moment {
            wall_ms,
            held_ms: pace.held_ms,
            log_ms: pace.log_ms,
            kept_since_ms: pace.kept_since(keep_ms),
        };
        (moment, pace.note())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pace>> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time by the machine's clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.source.read().0
    }

    /// Waits until [`Moment::held_ms`] is there.
    pub async fn reach(&self, held_ms: u64) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            let left_ms = held_ms.saturating_sub(self.moment(0).held_ms);
            if left_ms == 0 {
                return;
            }
            match &self.source {
                // The clock may be set meanwhile, and is looked at again.
                Source::System => {
                    let wait_ms = left_ms.min(CLOCK_LOOK_MS);
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
                Source::Manual(_) => moved.await,
            }
        }
    }

    /// Lets time pass on a manual clock; that of the machine cannot be moved.
    pub fn advance(&self, ms: u64) {
        if let Source::Manual(manual) = &self.source {
            manual.wall_ms.fetch_add(ms, Ordering::Relaxed);
            manual.monotonic_ms.fetch_add(ms, Ordering::Relaxed);
            self.moved.notify_waiters();
        }
    }

    /// Sets a manual clock, as an operator or a time server does: no time passes.
    pub fn set(&self, wall_ms: u64) {
        if let Source::Manual(manual) = &self.source {
            manual.wall_ms.store(wall_ms, Ordering::Relaxed);
            self.moved.notify_waiters();
        }
    }
}

impl Source {
    /// The clock and the monotonic clock, in milliseconds.
    fn read(&self) -> (u64, u64) {
        match self {
            Self::System => {
                let wall = SystemTime::now().duration_since(UNIX_EPOCH);
                let wall_ms = wall.map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                });
                // The one that goes on while the machine sleeps.
                let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                let whole = u64::try_from(boot.tv_sec).unwrap_or_default();
                let part = u64::try_from(boot.tv_nsec).unwrap_or_default();
                (wall_ms, whole * 1000 + part / 1_000_000)
            }
            Self::Manual(manual) => (
                manual.wall_ms.load(Ordering::Relaxed),
                manual.monotonic_ms.load(Ordering::Relaxed),
            ),
        }
    }
}

/// How the times go on from one look at the clocks to the next. It reads no clock itself.
#[derive(Clone, Debug)]
struct Pace {
    held_ms: u64,
    log_ms: u64,
    monotonic_ms: u64,
    skips: Vec<Skip>,
    jump: Option<Jump>,
}

/// A clock that is ahead of where it should be, and is not followed yet.
#[derive(Clone, Copy, Debug)]
struct Jump {
    since_monotonic_ms: u64,
    /// The clock, less the monotonic clock: the same as long as the clock goes on as it should.
    offset: i128,
    /// Where `log_ms` was when it began.
    from_ms: u64,
}

/// What an operator should know of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    /// It is ahead by so many milliseconds.
    Ahead(u64),
    /// It was ahead, and is no more.
    Returned,
    /// It has been ahead for so long that it is followed.
    Followed(u64),
    /// It was set back by so many milliseconds.
    Behind(u64),
}

impl Pace {
    fn new(wall_ms: u64, monotonic_ms: u64) -> Self {
        Self {
            held_ms: wall_ms,
            log_ms: wall_ms,
            monotonic_ms,
            skips: Vec::new(),
            jump: None,
        }
    }

    /// After a stop. For how long it was is known where the clock says that it was short.
    fn after(log_ms: u64, note: ClockNote, wall_ms: u64, monotonic_ms: u64) -> Self {
        let held_ms = log_ms.saturating_sub(note.lead_ms);
        let off = wall_ms.saturating_sub(held_ms);
        let off = if off > CLOCK_HELD_MS { 0 } else { off };
        // A jump that was being held is so again, if it is still there.
        let jump = note.jump_from.map(|from_ms| Jump {
            since_monotonic_ms: monotonic_ms,
            offset: i128::from(wall_ms) - i128::from(monotonic_ms),
            from_ms,
        });
        Self {
            held_ms: held_ms + off,
            log_ms: log_ms.saturating_add(off),
            monotonic_ms,
            skips: note.skips,
            jump,
        }
    }

    fn note(&self) -> ClockNote {
        ClockNote {
            lead_ms: self.log_ms - self.held_ms,
            skips: self.skips.clone(),
            jump_from: self.jump.map(|jump| jump.from_ms),
        }
    }

    fn observe(&mut self, wall_ms: u64, monotonic_ms: u64) -> Option<Notice> {
        let passed = monotonic_ms.saturating_sub(self.monotonic_ms);
        self.monotonic_ms += passed;
        // Where the clock should be, and the log with it.
        let due = self.held_ms.saturating_add(passed);
        let log_due = self.log_ms.saturating_add(passed);
        self.log_ms = log_due.max(wall_ms);
        let ahead = wall_ms.saturating_sub(due);
        if ahead <= CLOCK_HELD_MS {
            self.held_ms = wall_ms;
            let behind = due.saturating_sub(wall_ms);
            return match self.jump.take() {
                Some(_) => Some(Notice::Returned),
                None if behind > CLOCK_TOLD_MS => Some(Notice::Behind(behind)),
                None => None,
            };
        }
        let offset = i128::from(wall_ms) - i128::from(self.monotonic_ms);
        let lasts = self
            .jump
            .filter(|jump| jump.offset.abs_diff(offset) <= u128::from(CLOCK_HELD_MS));
        let Some(jump) = lasts else {
            self.skip(log_due);
            self.jump = Some(Jump {
                since_monotonic_ms: self.monotonic_ms,
                offset,
                from_ms: self.jump.map_or(log_due, |jump| jump.from_ms),
            });
            self.held_ms = due;
            return Some(Notice::Ahead(ahead));
        };
        if self.monotonic_ms - jump.since_monotonic_ms < CLOCK_HELD_MS {
            // After a stop a jump is held on whose size is not known: it may have grown meanwhile.
            if self.log_ms - log_due > CLOCK_TOLD_MS {
                self.skip(log_due);
            }
            self.held_ms = due;
            return None;
        }
        self.held_ms = wall_ms;
        self.jump = None;
        self.believe(jump.from_ms, ahead);
        Some(Notice::Followed(ahead))
    }

    /// Notes that the log has gone on from `at_ms` without time.
    fn skip(&mut self, at_ms: u64) {
        let by_ms = self.log_ms - at_ms;
        if by_ms > 0 {
            self.skips.push(Skip { at_ms, by_ms });
        }
        if self.skips.len() > SKIPS_MAX {
            // What lies between the two oldest is kept as long as what lies before them.
            let oldest = self.skips.remove(0);
            if let Some(next) = self.skips.first_mut() {
                next.by_ms += next.at_ms - oldest.at_ms;
                next.at_ms = oldest.at_ms;
            }
        }
    }

    /// Counts the jump that began at `from_ms` as time that has passed, if it is as large as what is `ahead` now.
    fn believe(&mut self, from_ms: u64, ahead: u64) {
        let of_jump = self.skips.partition_point(|skip| skip.at_ms < from_ms);
        let skipped: u64 = self.skips[of_jump..].iter().map(|skip| skip.by_ms).sum();
        if skipped <= ahead.saturating_add(CLOCK_HELD_MS) {
            self.skips.truncate(of_jump);
        }
    }

    /// Where the log was when `keep_ms` less had passed.
    fn kept_since(&self, keep_ms: u64) -> u64 {
        let mut left = keep_ms;
        let mut at = self.log_ms;
        for skip in self.skips.iter().rev() {
            let behind = at.saturating_sub(skip.at_ms + skip.by_ms);
            if left < behind {
                break;
            }
            left -= behind;
            at = skip.at_ms;
        }
        at.saturating_sub(left)
    }
}

impl Notice {
    fn log(self) {
        match self {
            Self::Ahead(ahead_ms) => tracing::warn!(
                ahead_ms,
                "the clock has jumped ahead, or chatd was off for long; what expires follows it once that has lasted an hour"
            ),
            Self::Returned => tracing::info!("the clock is right again; nothing has expired by it"),
            Self::Followed(ahead_ms) => tracing::warn!(
                ahead_ms,
                "the clock has been ahead for an hour; what expires follows it now"
            ),
            Self::Behind(behind_ms) => tracing::warn!(
                behind_ms,
                "the clock is behind the newest record of the log: it was ahead before, or is wrong now; \
                 new times are as it says, and the order of ids stays"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
