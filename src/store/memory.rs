//! A store that keeps everything in memory: the model that tests compare the embedded one with.

use crate::error::Error;
use crate::model::{Clock, Event, Events, Id, IdMaker, Seq};
use crate::store::actor::{Backend, CommitError};
use crate::store::failure::Failure;
use crate::store::format::Format;
use crate::store::state::{Blob, State};
use crate::store::txn::Round;
use crate::store::{OnCommit, OpenError, Settings, Store};
use std::collections::BTreeMap;
use std::io;
use std::sync::{PoisonError, RwLock};

/// Events that are read at once.
const EVENTS_AT_ONCE: usize = 1000;

/// Opens an empty store in memory.
pub fn open(settings: Settings, on_commit: OnCommit) -> Result<Store, OpenError> {
    let backend = Memory::new(&settings.clock);
    Store::start(Box::new(backend), settings, on_commit)
}

/// Everything, in memory.
pub struct Memory {
    epoch: Id,
    failure: Failure,
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    state: BTreeMap<Blob, Blob>,
    /// Every event, with the time of its round.
    events: Vec<(u64, Event)>,
}

impl Memory {
    /// Nothing yet.
    pub fn new(clock: &Clock) -> Self {
        Self {
            epoch: IdMaker::default().next(clock.now_ms()),
            failure: Failure::default(),
            kept: RwLock::default(),
        }
    }
}

impl Backend for Memory {
    fn commit(&self, round: &Round) -> Result<(), CommitError> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in &round.changes {
            match value {
                Some(value) => kept.state.insert(key.clone(), value.clone()),
                None => kept.state.remove(key),
            };
        }
        kept.events.extend(
            round
                .events
                .iter()
                .map(|event| (round.head.time, event.clone())),
        );
        Ok(())
    }

    fn allow_format(&self, _: Format) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, read: &mut dyn FnMut(&dyn State)) {
        read(
            &self
                .kept
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .state,
        );
    }

    fn epoch(&self) -> Id {
        self.epoch
    }

    fn failure(&self) -> &Failure {
        &self.failure
    }

    fn oldest(&self, since_ms: u64) -> Seq {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.events.partition_point(|(time, _)| *time < since_ms) as Seq + 1
    }

    fn events_from(&self, seq: Seq) -> Result<Option<Events>, Error> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let skip = usize::try_from(seq.saturating_sub(1)).unwrap_or(usize::MAX);
        let events = kept.events.iter().skip(skip).map(|(_, event)| event);
        let events: Vec<Event> = events.take(EVENTS_AT_ONCE).cloned().collect();
        Ok((!events.is_empty()).then(|| Events::new(&events)))
    }

    fn at_hand(&self, _: u64, _: Seq) -> Option<(Seq, Events)> {
        None
    }
}
