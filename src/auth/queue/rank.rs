//! The order of those who wait.

use super::shares::Asker;
use std::cmp::Ordering;

/// Where one stands among the others: the first has had, or asks for, the least.
#[derive(Clone, Copy, Debug)]
pub struct Rank {
    turns: f64,
    is_unknown: bool,
    /// The order of first asking.
    pub number: u64,
}

impl Rank {
    pub const fn new(turns: f64, asker: &Asker, number: u64) -> Self {
        Self {
            turns,
            is_unknown: !asker.known,
            number,
        }
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_turns = self.turns.total_cmp(&other.turns);
        let rest = (self.is_unknown, self.number).cmp(&(other.is_unknown, other.number));
        by_turns.then(rest)
    }
}
