//! What is still to be found.

/// Which of the numbered words have not been found yet. Up to 64 of them need no allocation.
pub struct Missing {
    /// How many are missing.
    pub count: usize,
    first: [bool; 64],
    rest: Vec<bool>,
}

impl Missing {
    /// All of so many are missing.
    pub fn new(count: usize) -> Missing {
        Missing {
            count,
            first: [true; 64],
            rest: vec![true; count.saturating_sub(64)],
        }
    }

    /// Notes that this one was found; whether it was missing until now.
    pub fn take(&mut self, at: usize) -> bool {
        let missing = if at < 64 {
            &mut self.first[at]
        } else {
            &mut self.rest[at - 64]
        };
        let was_missing = std::mem::take(missing);
        self.count -= usize::from(was_missing);
        was_missing
    }
}
