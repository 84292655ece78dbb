//! Stored events as they are shown later: a text that was deleted or changed since is not in them any more
//! (protocol.md, 6: "A stored event shows the present, not what was taken back").
//!
//! What was found out about an event holds until something is taken back again, so that many who resume over the same
//! events cost one look-up for each.

use crate::error::Error;
use crate::limits::{AUDIENCE_MAX_USERS, VERDICTS_MAX};
use crate::model::{
    ConversationId, Directory, Event, EventType, Events, Id, Seq, Subclass, UserId,
};
use crate::store::remains::Remains;
use crate::store::rows::{self, MessageRow};
use crate::store::state::State;
use crate::store::{keys, rules};
use crate::wire::{stored_text, without_text};
use rustc_hash::FxHashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is known of the texts of stored events, and who may see them.
#[derive(Debug)]
pub struct Present {
    known: Mutex<Known>,
    directory: Directory,
}

#[derive(Debug)]
struct Known {
    /// The newest event that may have taken a text back: the texts of later ones stand.
    taken_back: Seq,
    /// Whether the texts of these events stand, as of then.
    verdicts: FxHashMap<Seq, bool>,
}

impl Present {
    /// Of a log whose newest event is `newest`: nothing is known yet of what was taken back until then.
    #[must_use]
    pub fn new(newest: Seq, directory: Directory) -> Self {
        Self {
            known: Mutex::new(Known {
                taken_back: newest,
                verdicts: FxHashMap::default(),
            }),
            directory,
        }
    }

    /// Takes in committed events, once the state holds their round.
    pub fn note(&self, events: &[Event]) {
        if let Some(last) = events.iter().rev().find(|event| takes_back(event)) {
            let mut known = self.lock();
            known.taken_back = last.seq;
            known.verdicts.clear();
        }
    }

    /// Stored events without the texts that do not stand any more. The state is read for those only of which nothing is
    /// known.
    pub fn show(&self, state: &dyn State, events: &Events) -> Result<Events, Error> {
        let (as_of, mut stand) = {
            let known = self.lock();
            (known.taken_back, known.verdicts_of(events))
        };
        let mut exists = FxHashMap::default();
        let mut found = Vec::new();
        for (event, stands) in events.iter().zip(&mut stand) {
            if stands.is_none() {
                let verdict = reads_as_stored(state, &mut exists, event)?;
                found.push((event.seq, verdict));
                *stands = Some(verdict);
            }
        }
        if !found.is_empty() {
            let mut known = self.lock();
            // What was taken back meanwhile may have been read before or after.
            if known.taken_back == as_of {
                if known.verdicts.len() + found.len() > VERDICTS_MAX {
                    known.verdicts.clear();
                }
                known.verdicts.extend(found);
            }
        }
        Ok(shown(events, &stand))
    }

    /// What [`Present::show`] gives, where everything is known already and [`Present::unnamed`] gives none for `viewer`.
    #[must_use]
    pub fn known(&self, events: &Events, viewer: Option<UserId>) -> Option<Events> {
        if let Some(viewer) = viewer
            && events
                .iter()
                .any(|event| may_be_unnamed(event) || self.may_be_of_companion(event, viewer))
        {
            return None;
        }
        let stand = self.lock().verdicts_of(events);
        let all = stand.iter().all(Option::is_some);
        all.then(|| shown(events, &stand))
    }

    /// What `viewer` may see of events, although their audience does not name it: the deletions of conversations that it
    /// was in, and the events of users with whom it shares a conversation now.
    pub fn unnamed(
        &self,
        state: &dyn State,
        events: &[Event],
        viewer: Option<UserId>,
    ) -> Result<Vec<Seq>, Error> {
        let mut found = Vec::new();
        let Some(viewer) = viewer else {
            return Ok(found);
        };
        let mut remains = None;
        let mut companions: FxHashMap<Id, bool> = FxHashMap::default();
        for event in events {
            let conversation = ConversationId(event.object);
            if may_be_unnamed(event) && rules::was_in_deleted(state, conversation, viewer)? {
                found.push(event.seq);
            }
            if self.may_be_of_companion(event, viewer) {
                let shared = if let Some(&known) = companions.get(&event.object) {
                    known
                } else {
                    let remains = match &remains {
                        Some(remains) => remains,
                        None => remains.insert(Remains::of(state)?),
                    };
                    let shared = rules::share(state, remains, viewer, UserId(event.object))?;
                    companions.insert(event.object, shared);
                    shared
                };
                if shared {
                    found.push(event.seq);
                }
            }
        }
        Ok(found)
    }

    /// Whether it depends on the conversations that they share whether `viewer` may see an event of another user.
    fn may_be_of_companion(&self, event: &Event, viewer: UserId) -> bool {
        self.directory == Directory::Companions
            && rules::reaches_companions(event)
            && event.object != viewer.0
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events without the texts that do not stand. Where all do they are shared as they are.
fn shown(events: &Events, stand: &[Option<bool>]) -> Events {
    if stand.iter().all(|&stands| stands == Some(true)) {
        return events.clone();
    }
    let shown = events.iter().zip(stand).map(|(event, &stands)| {
        let mut event = event.clone();
        if stands != Some(true) {
            event.line = without_text(&event.line);
        }
        event
    });
    Events::new(&shown.collect::<Vec<_>>())
}

impl Known {
    fn verdicts_of(&self, events: &[Event]) -> Vec<Option<bool>> {
        events.iter().map(|event| self.stands(event)).collect()
    }

    /// Whether an event may be shown as it is, as far as that is known.
    fn stands(&self, event: &Event) -> Option<bool> {
        if !carries_text(event) || event.seq > self.taken_back {
            return Some(true);
        }
        self.verdicts.get(&event.seq).copied()
    }
}

fn carries_text(event: &Event) -> bool {
    matches!(
        event.kind,
        EventType::CreatedMessage | EventType::UpdatedMessage
    )
}

/// Whether the texts of events before this one may stand no more.
fn takes_back(event: &Event) -> bool {
    matches!(
        (event.subclass, event.kind),
        (
            Subclass::Conversation,
            EventType::UpdatedMessage | EventType::DeletedMessage | EventType::Deleted
        )
    )
}

/// Whether the text of an event is that of its message now. `exists` remembers which conversations do.
fn reads_as_stored(
    state: &dyn State,
    exists: &mut FxHashMap<Id, bool>,
    event: &Event,
) -> Result<bool, Error> {
    let Some(stored) = stored_text(&event.line) else {
        return Ok(true);
    };
    let conversation = ConversationId(event.object);
    // The messages of a deleted conversation go in slices, after it is gone.
    let conversation_exists = if let Some(&known) = exists.get(&event.object) {
        known
    } else {
        let found = state.contains(&keys::conversation(conversation))?;
        exists.insert(event.object, found);
        found
    };
    if !conversation_exists {
        return Ok(false);
    }
    match state.get(&keys::message(conversation, stored.message))? {
        Some(row) => Ok(rows::decode::<MessageRow<'_>>(&row)?.text == stored.text),
        None => Ok(false),
    }
}

/// Whether an event concerns users whom its audience does not name.
fn may_be_unnamed(event: &Event) -> bool {
    (event.subclass, event.kind) == (Subclass::Conversation, EventType::Deleted)
        && event.audience.removed.len() >= AUDIENCE_MAX_USERS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SLICE_MAX_ROWS;
    use crate::model::Given;
    use crate::store::operation::Change;
    use crate::store::steps::{KEEP_MS, Steps};

    /// Members of whom the event says nothing: more than a slice takes.
    const UNNAMED: usize = SLICE_MAX_ROWS + 3;

    #[test]
    fn all_members_of_a_deleted_conversation_learn_of_it_on_resume() {
        let mut steps = Steps::new();
        let outsider = steps.create_user("outsider");
        let users: Vec<UserId> = (0..AUDIENCE_MAX_USERS + UNNAMED)
            .map(|number| steps.create_user(&number.to_string()))
            .collect();
        let late = steps.create_user("late");
        let large = steps.create_conversation(&[]);
        for some in users.chunks(500) {
            steps.apply(Change::AddMembers {
                conversation: Given::Id(large),
                users: some.iter().map(|&user| Given::Id(user)).collect(),
            });
        }
        steps.delete_conversation(large);
        let deleted = steps.events.last().unwrap().clone();
        let (named, others) = users.split_at(AUDIENCE_MAX_USERS);
        assert_eq!(deleted.audience.removed, named);
        let present = Present::new(0, Directory::Everyone);
        let mut slices = 0;
        loop {
            for &user in others {
                let found = present
                    .unnamed(&steps.state, &steps.events, Some(user))
                    .unwrap();
                assert_eq!(found, [deleted.seq], "after {slices} slices");
            }
            for viewer in [Some(outsider), Some(late), None] {
                let found = present
                    .unnamed(&steps.state, &steps.events, viewer)
                    .unwrap();
                assert!(found.is_empty(), "after {slices} slices");
            }
            steps.restart();
            steps.forget_expired();
            if !steps.take_slices() {
                break;
            }
            slices += 1;
        }
        assert!(slices > AUDIENCE_MAX_USERS / SLICE_MAX_ROWS);
        assert_eq!((steps.rows(b'p'), steps.rows(b'g')), (0, UNNAMED));
        // They are kept as long as the event.
        steps.now_ms += KEEP_MS;
        steps.forget_expired();
        assert_eq!((steps.rows(b'g'), steps.rows(b'z')), (UNNAMED, 1));
        steps.now_ms += 1;
        steps.forget_expired();
        assert_eq!((steps.rows(b'g'), steps.rows(b'z')), (3, 1));
        steps.forget_expired();
        assert_eq!((steps.rows(b'g'), steps.rows(b'z')), (0, 0));
    }
}
