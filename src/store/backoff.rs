//! When to try again what has failed: soon at first, then less and less often, and not each time with a line in the log.

use std::time::{Duration, Instant};

/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// How often the log is told that it still fails.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The tries of one thing. The time is an argument, so that a test need not wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    /// When the next try may be, if the last one failed.
    next: Option<Instant>,
    pause: Duration,
    told: Option<Instant>,
}

impl Backoff {
    /// When the next try may be; none if the last one did not fail.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether it may be tried now.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// Notes that it failed; true if the log is to be told.
    pub fn failed(&mut self, now: Instant) -> bool {
        self.pause = (self.pause * 2).clamp(PAUSES.0, PAUSES.1);
        self.next = Some(now + self.pause);
        let tell = self
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= TOLD_EVERY);
        if tell {
            self.told = Some(now);
        }
        tell
    }

    /// Notes that it did not fail; true if it had before.
    pub fn succeeded(&mut self) -> bool {
        let had_failed = self.next.is_some();
        *self = Self::default();
        had_failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_minute_and_the_log_is_told_once_a_minute() {
        let began = Instant::now();
        let mut now = began;
        let mut backoff = Backoff::default();
        let (mut tries, mut told) = (0, 0);
        while now < began + Duration::from_secs(3600) {
            assert!(backoff.is_due(now));
            tries += 1;
            told += u32::from(backoff.failed(now));
            assert!(!backoff.is_due(now));
            now = backoff.next().unwrap();
        }
        assert!((60..80).contains(&tries), "{tries}");
        assert!((50..=60).contains(&told), "{told}");
        assert!(backoff.succeeded() && !backoff.succeeded());
        assert!(backoff.is_due(now));
    }
}
