//! When each request of a run with `--rate` is to be sent, whatever the daemon does meanwhile.

/// A fixed schedule: request `n` of all is due at `n` intervals, on sender `n` modulo their number.
pub struct Schedule {
    interval_ns: f64,
    senders: u64,
    /// The first request that was not due yet when last looked.
    next: u64,
    /// Requests sent, by sender.
    sent: Vec<u64>,
}

impl Schedule {
    /// A schedule of so many requests a second in total.
    pub fn new(senders: usize, rate: f64) -> Self {
        Self {
            interval_ns: 1e9 / rate,
            senders: senders as u64,
            next: 0,
            sent: vec![0; senders],
        }
    }

    /// The sender whose request has become due, one after the other; none, if no more are due.
    pub fn become_due(&mut self, now_ns: u64) -> Option<usize> {
        if self.next_ns() > now_ns {
            return None;
        }
        let sender = self.next % self.senders;
        self.next += 1;
        usize::try_from(sender).ok()
    }

    /// When the next request becomes due.
    pub fn next_ns(&self) -> u64 {
        self.due_ns(self.next)
    }

    /// When the request is or was due that a sender is to send next.
    pub fn next_of_ns(&self, sender: usize) -> u64 {
        let sent = self.sent.get(sender).copied().unwrap_or(0);
        self.due_ns(sent * self.senders + sender as u64)
    }

    /// Says that a sender has sent a request.
    pub fn sent(&mut self, sender: usize) {
        if let Some(sent) = self.sent.get_mut(sender) {
            *sent += 1;
        }
    }

    /// Gives up a sender's next request if it was due before a moment, and says when that was.
    pub fn overdue(&mut self, sender: usize, before_ns: u64) -> Option<u64> {
        let due_ns = Some(self.next_of_ns(sender)).filter(|&due_ns| due_ns < before_ns)?;
        self.sent(sender);
        Some(due_ns)
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "nanoseconds of a run of at most a day"
    )]
    fn due_ns(&self, number: u64) -> u64 {
        (number as f64 * self.interval_ns) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_in_turns_and_stay_due_until_they_are_sent() {
        let mut schedule = Schedule::new(2, 1000.0);
        let due: Vec<usize> = std::iter::from_fn(|| schedule.become_due(3_000_000)).collect();
        assert_eq!(due, [0, 1, 0, 1]);
        assert_eq!(schedule.next_ns(), 4_000_000);
        schedule.sent(0);
        assert_eq!(schedule.next_of_ns(0), 2_000_000);
        assert_eq!(schedule.next_of_ns(1), 1_000_000);
        assert_eq!(schedule.overdue(0, 4_000_000), Some(2_000_000));
        assert_eq!(schedule.overdue(0, 4_000_000), None);
        assert_eq!(schedule.overdue(1, 4_000_000), Some(1_000_000));
    }
}
