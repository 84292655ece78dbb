//! What a login waits for: others of the same account, a thread to hash on, and the time that it was told (protocol.md, 7).

use super::{Session, rate_limited};
use crate::auth::{Busy, Repute, Thread};
use crate::error::Error;
use crate::limits::LOGIN_EXCUSED_MAX_SECONDS;
use crate::throttle::{Attempt, Caller, Kind};
use std::hash::Hash;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Until when a client was told to wait, as whom it asked, and whether it ever asked before its time.
#[derive(Clone, Copy)]
pub struct Told {
    until: Instant,
    caller: Caller,
    hasty: bool,
}

/// By when somebody must have logged in. The time in which the server itself makes a login wait does not count.
pub struct LoginTime {
    by: watch::Sender<Option<Instant>>,
    /// Until when a login is to wait.
    told_until: Instant,
    /// Up to when the time is given back already.
    excused_until: Instant,
    excused: Duration,
}

/// The time to log in while it does not run.
#[derive(Clone, Copy)]
pub struct Paused {
    by: Option<Instant>,
    since: Instant,
}

impl LoginTime {
    /// The time of a connection that was accepted at `now`; none if it may stay without a login. What is given with it
    /// tells of each change.
    pub fn new(by: Option<Instant>, now: Instant) -> (Self, watch::Receiver<Option<Instant>>) {
        let (by, changes) = watch::channel(by);
        let time = Self {
            by,
            told_until: now,
            excused_until: now,
            excused: Duration::ZERO,
        };
        (time, changes)
    }

    /// Begins anew, as after a logout; none if somebody is logged in.
    pub fn restart(&mut self, by: Option<Instant>) {
        self.by.send_replace(by);
    }

    /// Stops the time, since a login is being looked at.
    pub fn pause(&mut self, now: Instant) -> Paused {
        Paused {
            by: self.by.send_replace(None),
            since: now.max(self.excused_until),
        }
    }

    /// Says that the client was told to wait.
    fn tell(&mut self, until: Instant) {
        self.told_until = self.told_until.max(until);
    }

    /// Lets the time run again, once the client has waited as it was told.
    pub fn resume(&mut self, paused: Paused, now: Instant) {
        let until = now.max(self.told_until);
        let left = Duration::from_secs(LOGIN_EXCUSED_MAX_SECONDS).saturating_sub(self.excused);
        let excused = until.saturating_duration_since(paused.since).min(left);
        self.excused += excused;
        self.excused_until = until.max(self.excused_until);
        self.by.send_replace(paused.by.map(|by| by + excused));
    }
}

impl Session {
    /// Who asks here, under this name.
    pub(super) fn caller(&self, name: &impl Hash) -> Caller {
        let failed_logins = &self.shared.failed_logins;
        failed_logins.caller(self.source(), name)
    }

    /// Begins an attempt, which counts as soon as it fails. Nothing is counted where everybody is trusted.
    pub(super) async fn attempt(
        &mut self,
        kind: Kind,
        caller: Caller,
    ) -> Result<Option<Attempt>, Error> {
        if self.is_trusted() {
            return Ok(None);
        }
        let begun = self.shared.failed_logins.attempt(kind, caller).await;
        begun.map(Some).map_err(|wait| {
            let text = match kind {
                Kind::Registration => {
                    "too many users were registered from where you are; try again later"
                }
                Kind::Password | Kind::Token => {
                    "too many logins failed from where you are; try again later"
                }
            };
            self.told_to_wait(text, wait)
        })
    }

    /// Waits for a thread to hash a password on. What is of no kind is asked by a user that is logged in.
    pub(super) async fn thread(
        &mut self,
        kind: Option<Kind>,
        caller: Caller,
    ) -> Result<Thread, Error> {
        const BUSY: &str =
            "many passwords are being verified; ask again after retry_after_ms to keep your place";
        if self.is_trusted() {
            return self.shared.hasher.trusted().await;
        }
        let now = Instant::now();
        if let Some(told) = self.told.as_mut().filter(|told| now < told.until) {
            // Whoever asks before its time gives up its place, and comes behind those who wait as they are told.
            told.hasty = true;
            let told = *told;
            self.shared.hasher.forget(told.caller);
            return Err(self.told_to_wait(BUSY, told.until - now));
        }
        let hasty = self.told.is_some_and(|told| told.hasty);
        let mut repute = self.repute(kind, caller, hasty);
        loop {
            match self.shared.hasher.stranger(caller, repute).await {
                Ok(thread) => {
                    let before = std::mem::replace(&mut repute, self.repute(kind, caller, hasty));
                    if before == Repute::Suspicious || repute != Repute::Suspicious {
                        return Ok(thread);
                    }
                    // Its address has failed while it waited: it waits again, behind those whose addresses have not.
                }
                Err(Busy(wait)) => {
                    let until = Instant::now() + wait * 9 / 10;
                    self.told = Some(Told {
                        until,
                        caller,
                        hasty,
                    });
                    return Err(self.told_to_wait(BUSY, wait));
                }
            }
        }
    }

    /// What is known of who asks here. Who logged in well before is not held to account for others at the same address.
    fn repute(&self, kind: Option<Kind>, caller: Caller, hasty: bool) -> Repute {
        let shared = &self.shared;
        let suspects = |kind| {
            let now = Instant::now();
            shared.failed_logins.suspects(kind, caller.source(), now)
        };
        match kind {
            _ if hasty => Repute::Suspicious,
            None => Repute::Known,
            Some(_) if shared.known_logins.know(caller) => Repute::Known,
            Some(kind) if suspects(kind) => Repute::Suspicious,
            Some(_) => Repute::Unknown,
        }
    }

    /// The refusal of what is to wait; that time does not count as the client's own.
    pub(super) fn told_to_wait(&mut self, text: &'static str, wait: Duration) -> Error {
        self.shared.counters.limited_logins.add();
        self.login_time.tell(Instant::now() + wait);
        rate_limited(text, wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_time_in_which_a_login_is_made_to_wait_does_not_count() {
        let start = Instant::now();
        let (mut time, changes) = LoginTime::new(Some(start + seconds(10)), start);
        let by = || changes.borrow().map(|by| by - start);
        // Asked after 4 s, verified for 3 s, and told to wait for 20 s.
        let paused = time.pause(start + seconds(4));
        assert_eq!(by(), None);
        time.tell(start + seconds(27));
        time.resume(paused, start + seconds(7));
        assert_eq!(by(), Some(seconds(33)));
        // Whoever asks before its time gets nothing for it twice.
        let paused = time.pause(start + seconds(8));
        time.tell(start + seconds(27));
        time.resume(paused, start + seconds(9));
        assert_eq!(by(), Some(seconds(33)));
        // A second verification, which fails at once.
        let paused = time.pause(start + seconds(30));
        time.resume(paused, start + seconds(31));
        assert_eq!(by(), Some(seconds(34)));
    }

    #[test]
    fn nobody_is_excused_for_ever() {
        let start = Instant::now();
        let (mut time, changes) = LoginTime::new(Some(start + seconds(10)), start);
        let mut now = start;
        for _ in 0..10_000 {
            let paused = time.pause(now);
            now += seconds(60);
            time.tell(now);
            time.resume(paused, now);
        }
        let most = seconds(10 + LOGIN_EXCUSED_MAX_SECONDS);
        assert_eq!(*changes.borrow(), Some(start + most));
    }
}
