//! Answering searches (protocol.md, 5): a source of candidates in the cheapest useful order, the filter over them, and
//! a bounded selection of the page.
//!
//! | source | when |
//! |---|---|
//! | single rows | the filter names ids, or logins |
//! | members of a user's conversations | users, where the asker sees its companions alone |
//! | a user's conversations | `user_ids` names members, or the asker is no admin |
//! | timelines, merged by id | `conversation_id` names conversations, `user_id` names authors, or the asker is no admin |
//! | all of a kind, by id | otherwise |
//! | all messages, as they lie | where all must be counted anyway |
//!
//! In id order a page ends the search as soon as nothing is left to count; any other order keeps the best rows seen so
//! far, as many as the page reaches, and no more memory than [`SELECTION_MAX_BYTES`].

mod select;
mod source;

use crate::error::Error;
use crate::limits::MEMBERS_SHOWN_MAX;
use crate::memory::Memory;
use crate::model::{
    ConversationId, Field, FieldValue, Id, Kind, MessageId, Object, Projection, Search, Test,
    UserId,
};
use crate::store::keys;
use crate::store::remains::Remains;
use crate::store::rows::{self, ConversationRow, CountersRow, Head, MessageRow, UserRow};
use crate::store::rules::{Circle, Rights};
use crate::store::state::{Blob, State};
use select::Selection;
use serde_json::value::RawValue;
use std::sync::Arc;

/// Bytes of sort keys and rows that one search may hold.
pub const SELECTION_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Rows up to which the page of a search over all messages is selected from a scan instead of walked to by id.
const SCAN_MAX_ROWS: usize = 10_000;
/// Candidates between two looks at the clock: few, since the words of one long text take a millisecond.
const CANDIDATES_PER_LOOK: u32 = 16;

/// A page of a search.
#[derive(Debug)]
pub struct Page {
    /// How many match, if that was asked for.
    pub total: Option<u64>,
    /// The rows, as JSON.
    pub rows: Vec<Box<RawValue>>,
    /// Whether rows are missing that there was no room for.
    pub cut: bool,
}

/// The rows of a page, bounded in bytes.
struct Rows {
    rows: Vec<Box<RawValue>>,
    bytes: usize,
    max_bytes: usize,
    cut: bool,
}

impl Rows {
    /// Adds a row; false if it, and so whatever comes after it, has no room. The first one always has.
    fn push(&mut self, row: Box<RawValue>) -> bool {
        // With the comma behind it.
        self.bytes += row.get().len() + 1;
        self.cut |= self.bytes > self.max_bytes && !self.rows.is_empty();
        if !self.cut {
            self.rows.push(row);
        }
        !self.cut
    }
}

/// What a search reads.
pub struct Reader<'a> {
    /// The committed state.
    pub state: &'a dyn State,
    /// Its numbers.
    pub head: Head,
    /// What is gone, although some of its rows are still there.
    pub remains: Remains,
    /// The rights of whoever asks.
    pub rights: Rights,
    /// The users that it may see.
    pub circle: Circle,
    /// Where what it holds is counted.
    pub memory: &'a Arc<Memory>,
}

/// A candidate: its id, the conversation it is in (a message's), its row.
struct Candidate {
    id: Id,
    conversation: Id,
    row: Blob,
}

/// Runs a search.
pub fn run(reader: &Reader<'_>, search: &Search) -> Result<Page, Error> {
    let counted = if search.total {
        counted_total(reader, search)?
    } else {
        Some(0)
    };
    let by_id = search
        .sort_by
        .first()
        .is_none_or(|&first| first == search.kind.id_field() || first == Field::CreatedTime);
    let needed = search.from.saturating_add(search.size);
    // Where every message must be looked at anyway, it is quicker to take them as they lie, and to keep the page's rows.
    let by_id = by_id
        && !(counted.is_none() && needed <= SCAN_MAX_ROWS && source::is_everything(reader, search));
    let mut selection = Selection::new(search, reader.memory);
    let mut page = Rows {
        rows: Vec::new(),
        bytes: 0,
        max_bytes: search.max_bytes,
        cut: false,
    };
    let mut found: usize = 0;
    if let Some(counted) = counted
        && search.size == 0
    {
        return Ok(Page {
            total: search.total.then_some(counted),
            rows: Vec::new(),
            cut: false,
        });
    }
    for (number, candidate) in (0_u32..).zip(source::candidates(reader, search, by_id)?) {
        if number % CANDIDATES_PER_LOOK == CANDIDATES_PER_LOOK - 1 {
            reader.state.look()?;
        }
        use_matching(reader, search, &candidate?, &mut |object| {
            found += 1;
            if !by_id {
                return selection.add(object);
            }
            if found > search.from && page.rows.len() < search.size && !page.cut {
                page.push(object.row(&search.fields)?);
            }
            Ok(())
        })?;
        if by_id && counted.is_some() && (found >= needed || page.cut) {
            break;
        }
    }
    if !by_id {
        selection.fill(&mut page, search.from);
    }
    Ok(Page {
        total: search.total.then(|| counted.unwrap_or(found as u64)),
        rows: page.rows,
        cut: page.cut,
    })
}

/// Hands a candidate's object over if it meets the filter.
fn use_matching(
    reader: &Reader<'_>,
    search: &Search,
    candidate: &Candidate,
    use_it: &mut dyn FnMut(&dyn Found) -> Result<(), Error>,
) -> Result<(), Error> {
    match search.kind {
        Kind::User => {
            let row: UserRow<'_> = rows::decode(&candidate.row)?;
            let object = row.shown(UserId(candidate.id), reader.circle);
            if search.matches(&object) {
                use_it(&object)
            } else {
                Ok(())
            }
        }
        Kind::Message => {
            let row: MessageRow<'_> = rows::decode(&candidate.row)?;
            let object = row.object(
                ConversationId(candidate.conversation),
                MessageId(candidate.id),
            );
            if search.matches(&object) {
                use_it(&object)
            } else {
                Ok(())
            }
        }
        Kind::Conversation => {
            let mut row: ConversationRow<'_> = rows::decode(&candidate.row)?;
            let id = ConversationId(candidate.id);
            if search.concerns(Field::MemberCount) || search.concerns(Field::UserIds) {
                row.members = reader.remains.member_count(reader.state, id, row.members)?;
            }
            let mut object = row.object(id, None);
            for condition in &search.filter {
                let holds = if condition.field == Field::UserIds {
                    has_members(reader, id, &condition.tests)?
                } else {
                    condition.holds(&object)
                };
                if !holds {
                    return Ok(());
                }
            }
            if search.fields.contains(&Field::UserIds) && row.members <= MEMBERS_SHOWN_MAX {
                object.user_ids = Some(reader.remains.members(reader.state, id, 0, usize::MAX)?);
            }
            use_it(&object)
        }
    }
}

/// An object that a search found.
pub trait Found {
    /// Its row of the page.
    fn row(&self, fields: &[Field]) -> Result<Box<RawValue>, Error>;
    /// A value to sort by.
    fn value(&self, field: Field) -> FieldValue<'_>;
}

impl<T: Object> Found for T {
    fn row(&self, fields: &[Field]) -> Result<Box<RawValue>, Error> {
        serde_json::value::to_raw_value(&Projection {
            object: self,
            fields,
        })
        .map_err(|error| {
            tracing::error!(%error, "a row of a page cannot be encoded");
            Error::internal()
        })
    }

    fn value(&self, field: Field) -> FieldValue<'_> {
        Object::value(self, field)
    }
}

fn has_members(
    reader: &Reader<'_>,
    conversation: ConversationId,
    tests: &[Test],
) -> Result<bool, Error> {
    for test in tests {
        let Test::AnyId(ids) = test else {
            return Ok(false);
        };
        let mut any = false;
        for &id in ids {
            any = any
                || reader
                    .remains
                    .is_member(reader.state, conversation, UserId(id))?;
        }
        if !any {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The total where a counter knows it: for everything, for one conversation's messages, for one member's conversations.
fn counted_total(reader: &Reader<'_>, search: &Search) -> Result<Option<u64>, Error> {
    let filter: Vec<_> = search
        .filter
        .iter()
        .filter(|condition| !condition.tests.is_empty())
        .collect();
    let state = reader.state;
    match (search.kind, filter.as_slice()) {
        (Kind::User, []) if reader.circle == Circle::Everyone => Ok(Some(reader.head.users)),
        (Kind::Conversation, []) if reader.rights.everything() => {
            Ok(Some(reader.head.conversations))
        }
        (Kind::Message, []) if reader.rights.everything() => Ok(Some(reader.head.messages)),
        (Kind::Conversation, []) => match reader.rights.user() {
            Some(user) => memberships(reader, user).map(Some),
            None => Ok(None),
        },
        (Kind::Conversation, [only]) if only.field == Field::UserIds => match only.tests.as_slice()
        {
            [Test::AnyId(ids)] => match (ids.as_slice(), reader.rights.everything()) {
                (&[user], true) => memberships(reader, UserId(user)).map(Some),
                _ => Ok(None),
            },
            _ => Ok(None),
        },
        (Kind::Message, [only]) if only.field == Field::ConversationId => {
            match only.tests.as_slice() {
                [Test::AnyId(ids)] => {
                    let &[id] = ids.as_slice() else {
                        return Ok(None);
                    };
                    let id = ConversationId(id);
                    if !reader.rights.may_see(state, id)? {
                        return Ok(Some(0));
                    }
                    let row = state.get(&keys::counters(id))?;
                    row.map_or(Ok(Some(0)), |row| {
                        Ok(Some(rows::decode::<CountersRow>(&row)?.messages))
                    })
                }
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// How many conversations a user is in: its count, less those that are gone but not yet taken off it.
fn memberships(reader: &Reader<'_>, user: UserId) -> Result<u64, Error> {
    let Some(row) = reader.state.get(&keys::user(user))? else {
        return Ok(0);
    };
    let mut count = rows::decode::<UserRow<'_>>(&row)?.conversations;
    for &conversation in reader.remains.conversations() {
        if reader
            .state
            .contains(&keys::membership(user, conversation))?
        {
            count = count.saturating_sub(1);
        }
    }
    Ok(count)
}
