//! The pace of a connection of a login listener: one that sends faster than its rate is read more slowly.
//!
//! Nothing is refused and the order is kept: the line that is over the rate waits its time, and what is behind it stays
//! unread (protocol.md, 1). Where nobody is logged in, there is nobody to be patient with.

use super::{InputEnd, Session};
use crate::limits::ANSWER_BYTES_PER_REQUEST;
use crate::store::Principal;
use crate::throttle::{ChangeUnderWay, Cost};
use crate::wire::CloseReason;
use std::sync::Arc;
use std::time::Duration;

impl Session {
    /// Lets a request, or what was skipped of one, of so many bytes wait its time.
    pub(super) async fn pace(&self, requests: usize, bytes: usize) -> Result<(), InputEnd> {
        let Some(rate) = &self.rate else {
            return Ok(());
        };
        if self.by == Principal::Nobody {
            if !rate.take_at_once(bytes) {
                let counters = &self.shared.counters;
                counters.limited_connections.add_from(self.remote());
                self.closer.close(CloseReason::RateLimited);
                return Err(InputEnd::Closing);
            }
            return Ok(());
        }
        let wait = rate.take(Cost {
            requests,
            bytes,
            deliveries: 0,
        });
        if wait.is_zero() {
            return Ok(());
        }
        let counters = &self.shared.counters;
        counters.slowed_requests.add_from(self.remote());
        self.rest(wait).await
    }

    async fn rest(&self, wait: Duration) -> Result<(), InputEnd> {
        tokio::select! {
            biased;
            () = self.closer.closing() => Err(self.close_for_shutdown()),
            () = self.closer.gone() => Err(InputEnd::Lost),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// Charges what a request turned out to be worth besides itself. The next one waits for it.
    pub(super) fn charge(&self, requests: usize) {
        self.charge_cost(Cost {
            requests,
            ..Cost::default()
        });
    }

    /// Charges an answer of so many bytes.
    pub(super) fn charge_answer(&self, bytes: usize) {
        self.charge(bytes / ANSWER_BYTES_PER_REQUEST);
    }

    /// Charges an event that was given to so many connections.
    pub(super) fn charge_deliveries(&self, deliveries: usize) {
        self.charge_cost(Cost {
            deliveries,
            ..Cost::default()
        });
    }

    fn charge_cost(&self, cost: Cost) {
        if let Some(rate) = &self.rate {
            let _paid_by_the_next = rate.take(cost);
        }
    }

    /// Waits until few enough of the user's changes are under way, and begins one more, where there is somebody to pay
    /// for it.
    pub(super) async fn begin_change(&self) -> Option<ChangeUnderWay> {
        match &self.rate {
            Some(rate) => Some(Arc::clone(rate).begin_change().await),
            None => None,
        }
    }
}
