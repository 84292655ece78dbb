//! The runs of characters that a query holds in scripts without spaces.

use super::missing::Missing;
use memchr::memmem::Finder;
use std::collections::HashMap;

/// Runs up to which each is searched for by itself, the quickest way for the few that a person types.
const FEW: usize = 4;

/// The runs to find, wherever they occur in a folded text.
#[derive(Debug, Clone)]
pub enum Runs {
    /// Each by itself.
    Few(Vec<Finder<'static>>),
    /// All in one pass.
    Many(Automaton),
}

impl Runs {
    /// Prepares the search for all of these.
    pub fn new(runs: &[&str]) -> Runs {
        if runs.len() <= FEW {
            let finder = |run: &&str| Finder::new(run.as_bytes()).into_owned();
            Runs::Few(runs.iter().map(finder).collect())
        } else {
            Runs::Many(Automaton::new(runs))
        }
    }

    /// Whether there are none to find.
    pub fn is_empty(&self) -> bool {
        matches!(self, Runs::Few(runs) if runs.is_empty())
    }

    /// Whether all of them occur.
    pub fn found_in(&self, folded: &str) -> bool {
        match self {
            Runs::Few(runs) => runs.iter().all(|run| run.find(folded.as_bytes()).is_some()),
            Runs::Many(runs) => runs.found_in(folded),
        }
    }
}

/// The runs as an automaton (Aho and Corasick) that finds all of them in one pass.
///
/// Searching for one after the other would cost the product of both lengths.
#[derive(Debug, Clone)]
pub struct Automaton {
    count: usize,
    states: Vec<State>,
    next: HashMap<(usize, char), usize>,
}

/// What has been read: the beginning of a run. State 0 is nothing.
#[derive(Debug, Clone, Default)]
struct State {
    /// The run that ends here, by number.
    run: Option<usize>,
    /// The longest proper ending of what has been read that is a state, too.
    shorter: usize,
    /// The longest ending that is a whole run: this state, a shorter one, or 0 for none.
    ending: usize,
}

impl Automaton {
    pub fn new(runs: &[&str]) -> Automaton {
        let mut built = Automaton {
            count: 0,
            states: vec![State::default()],
            next: HashMap::new(),
        };
        // All runs grow by a character at a time, since a state needs every shorter one.
        let mut growing: Vec<_> = runs.iter().map(|run| (0, run.chars())).collect();
        while !growing.is_empty() {
            growing.retain_mut(|(state, rest)| {
                let Some(c) = rest.next() else { return false };
                *state = built.grow(*state, c);
                let grown = &mut built.states[*state];
                if rest.as_str().is_empty() && grown.run.is_none() {
                    (grown.run, grown.ending) = (Some(built.count), *state);
                    built.count += 1;
                }
                true
            });
        }
        built
    }

    /// The state after `state` and `c`, added where there is none.
    fn grow(&mut self, state: usize, c: char) -> usize {
        if let Some(&next) = self.next.get(&(state, c)) {
            return next;
        }
        let shorter = if state == 0 {
            0
        } else {
            self.step(self.states[state].shorter, c)
        };
        let next = self.states.len();
        self.states.push(State {
            run: None,
            shorter,
            ending: self.states[shorter].ending,
        });
        self.next.insert((state, c), next);
        next
    }

    /// The longest state that what has been read and `c` end with.
    fn step(&self, mut state: usize, c: char) -> usize {
        while state != 0 && !self.next.contains_key(&(state, c)) {
            state = self.states[state].shorter;
        }
        self.next.get(&(state, c)).copied().unwrap_or(0)
    }

    pub fn found_in(&self, folded: &str) -> bool {
        let mut missing = Missing::new(self.count);
        let mut state = 0;
        missing.count == 0
            || folded.chars().any(|c| {
                state = if c == ' ' { 0 } else { self.step(state, c) };
                let mut ending = self.states[state].ending;
                // Where a run was found before, so were the shorter ones that it ends with.
                while self.states[ending].run.is_some_and(|run| missing.take(run)) {
                    ending = self.states[self.states[ending].shorter].ending;
                }
                missing.count == 0
            })
    }
}
