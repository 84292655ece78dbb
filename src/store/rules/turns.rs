//! The unfinished deletions take turns: a small one does not wait for a large one, nor any for one that cannot go on.

use super::deletion::{Deletion, continue_deletion, unfinished};
use crate::error::Error;
use crate::limits::SLICE_MAX_ROWS;
use crate::store::backoff::Backoff;
use crate::store::state::{Blob, State};
use crate::store::txn::Txn;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// The unfinished deletions in the order of their turns: each takes a slice and goes behind the others. One that fails
/// rests before it has its turn again.
#[derive(Debug, Default)]
pub struct Deletions {
    turns: VecDeque<Deletion>,
    /// Those that failed when they were tried last: they rest, or have their turn again.
    failing: HashMap<Deletion, Backoff>,
}

/// What the deletions did in one round.
#[derive(Debug, Default)]
pub struct Turn {
    /// Those that took a slice: they were at the front, in this order. They go behind the others when the round is
    /// committed.
    took: Vec<Deletion>,
    /// Those among them that could not go on.
    failed: Vec<Deletion>,
}

impl Deletions {
    /// Those of a state.
    pub fn of(state: &dyn State) -> Result<Self, Error> {
        Ok(Self {
            turns: unfinished(state)?.into(),
            failing: HashMap::new(),
        })
    }

    /// When the next one has its turn: at once, later, or never, since there is none.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Instant> {
        if !self.turns.is_empty() {
            return Some(now);
        }
        self.failing.values().filter_map(Backoff::next).min()
    }

    /// Forgets them: a state that is opened again knows them still.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes slices away, of one deletion after the other, up to [`SLICE_MAX_ROWS`] in all. One that fails is rolled
    /// back, and rests.
    pub fn take_slices(&mut self, txn: &mut Txn<'_>, now: Instant) -> Turn {
        for (&deletion, backoff) in &self.failing {
            if backoff.is_due(now) && !self.turns.contains(&deletion) {
                self.turns.push_back(deletion);
            }
        }
        let mut turn = Turn::default();
        let mut left = SLICE_MAX_ROWS;
        for &deletion in &self.turns {
            if left == 0 {
                break;
            }
            turn.took.push(deletion);
            let taken = if let Ok(rows) = continue_deletion(txn, deletion, left) {
                txn.keep();
                rows
            } else {
                txn.roll_back();
                turn.failed.push(deletion);
                0
            };
            // One that finds nothing left has looked at least.
            left = left.saturating_sub(taken.max(1));
        }
        turn
    }

    /// Takes in what a round, now committed, has changed.
    pub fn note(&mut self, turn: &Turn, changes: &[(Blob, Option<Blob>)], now: Instant) {
        // Nothing was put before them since.
        self.turns
            .rotate_left(turn.took.len().min(self.turns.len()));
        for deletion in &turn.took {
            if turn.failed.contains(deletion) {
                self.rest(*deletion, now);
            } else if self.failing.remove(deletion).is_some() {
                tracing::info!(?deletion, "a deletion that could not go on goes on");
            }
        }
        for (key, value) in changes {
            let Some(deletion) = Deletion::of_key(key) else {
                continue;
            };
            match value {
                None => self.turns.retain(|&other| other != deletion),
                Some(_)
                    if self.turns.contains(&deletion) || self.failing.contains_key(&deletion) => {}
                Some(_) => self.turns.push_back(deletion),
            }
        }
    }

    /// Has those rest whose slices could not be committed: a deletion must not spin on a disk that takes nothing.
    pub fn note_uncommitted(&mut self, turn: &Turn, now: Instant) {
        for &deletion in &turn.took {
            self.rest(deletion, now);
        }
    }

    fn rest(&mut self, deletion: Deletion, now: Instant) {
        self.turns.retain(|&other| other != deletion);
        let backoff = self.failing.entry(deletion).or_default();
        if backoff.failed(now) {
            tracing::error!(
                ?deletion,
                "a deletion cannot go on, for what the lines above say; it is tried again and again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::limits::SLICE_MAX_ROWS;
    use crate::store::keys;
    use crate::store::state::State;
    use crate::store::steps::Steps;
    use std::time::Duration;

    #[test]
    fn a_deletion_that_cannot_read_rests_and_lets_others_go_on() {
        let mut steps = Steps::new();
        let user = steps.create_user("ann");
        let conversations = [(); 2].map(|()| steps.create_conversation(&[user]));
        let [broken, whole] = conversations;
        for conversation in conversations {
            for _ in 0..3 * SLICE_MAX_ROWS {
                steps.create_message(conversation, user);
            }
        }
        let prefix = keys::prefix(&keys::under(b'm', broken.0));
        let last = steps.state.scan(&prefix).next_back();
        let (key, row) = last.unwrap().unwrap();
        steps.state.insert(key.clone(), b"".into());
        for conversation in conversations {
            steps.delete_conversation(conversation);
        }
        let begun = steps.slices_until_rest();
        assert!(begun < 20, "it spins");
        assert_eq!(steps.rows(b'd'), 1, "the other one is finished");
        let left = steps.rows(b'm');
        assert!((1..=SLICE_MAX_ROWS).contains(&left), "{left}");
        assert_eq!(steps.messages_of(whole), 0);
        // It is tried again, and goes on once its rows can be read.
        steps.waited += Duration::from_secs(60);
        assert_eq!(steps.slices_until_rest(), 1);
        steps.state.insert(key, row);
        steps.waited += Duration::from_secs(60);
        assert!(steps.slices_until_rest() > 0);
        assert_eq!((steps.rows(b'd'), steps.rows(b'm')), (0, 0));
    }
}
