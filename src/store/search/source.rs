//! Where the candidates of a search come from.

use super::{Candidate, Reader};
use crate::error::Error;
use crate::limits::MEMBER_LISTED_BYTES;
use crate::model::{ConversationId, Field, Id, Kind, MessageId, Search, Test, UserId};
use crate::store::keys::{self, Range};
use crate::store::rules::Circle;
use crate::store::state::{Entry, Scan, State};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

type Candidates<'a> = Box<dyn Iterator<Item = Result<Candidate, Error>> + 'a>;

/// The candidates: in the order of their ids, up or down as the search says, if `ordered`; else in any order.
pub fn candidates<'a>(
    reader: &'a Reader<'a>,
    search: &'a Search,
    ordered: bool,
) -> Result<Candidates<'a>, Error> {
    let bounds = search.id_bounds();
    let descending = search.descending && ordered;
    let state = reader.state;
    if let (Kind::User, Circle::Companions(own)) = (search.kind, reader.circle) {
        let ids = companions(reader, search, own)?;
        return Ok(single(reader, Kind::User, ids, descending));
    }
    if let Some(ids) = search.ids_of(search.kind.id_field()) {
        let (low, high) = bounds;
        let ids: BTreeSet<Id> = ids
            .iter()
            .copied()
            .filter(|id| (low..high).contains(&u128::from(id.0)))
            .collect();
        return Ok(single(reader, search.kind, ids, descending));
    }
    match search.kind {
        Kind::User => {
            if let Some(logins) = logins_of(search) {
                let mut ids = BTreeSet::new();
                for login in logins {
                    ids.extend(
                        state
                            .get(&keys::login(login))?
                            .map(|value| keys::last_id(&value)),
                    );
                }
                return Ok(single(reader, Kind::User, ids, descending));
            }
            let range = keys::ids(b"u", bounds.0, bounds.1);
            Ok(rows(state, &range, descending))
        }
        Kind::Conversation => {
            let named = search.ids_of(Field::UserIds).map(<[Id]>::to_vec);
            let members = match reader.rights.restricted_to() {
                Some(user) => Some(vec![user.0]),
                None => named,
            };
            let Some(members) = members else {
                let range = keys::ids(b"c", bounds.0, bounds.1);
                return Ok(rows(state, &range, descending));
            };
            let mut ids = BTreeSet::new();
            for member in members {
                ids.extend(conversations(state, b'o', UserId(member))?);
            }
            Ok(single(reader, Kind::Conversation, ids, descending))
        }
        Kind::Message => match timelines(reader, search)? {
            Some(timelines) if ordered => Ok(merged(state, timelines, bounds, descending)),
            Some(timelines) => Ok(Box::new(timelines.into_iter().flat_map(
                move |conversation| state.scan(&timeline(conversation, bounds)).map(message),
            ))),
            None if ordered => {
                let range = keys::ids(b"i", bounds.0, bounds.1);
                Ok(Box::new(
                    directed(state.scan(&range), descending)
                        .filter_map(move |entry| by_place(reader, entry)),
                ))
            }
            None => {
                let messages = state.scan(&keys::prefix(b"m")).map(message);
                Ok(Box::new(messages.filter(|candidate| {
                    candidate.as_ref().map_or(true, |found| {
                        !reader
                            .remains
                            .has_conversation(ConversationId(found.conversation))
                    })
                })))
            }
        },
    }
}

/// Whether the candidates are all messages there are.
pub fn is_everything(reader: &Reader<'_>, search: &Search) -> bool {
    search.kind == Kind::Message
        && reader.rights.everything()
        && search.id_bounds() == (0, 1 << 64)
        && search.ids_of(Field::ConversationId).is_none()
        && search.ids_of(Field::UserId).is_none()
}

/// The users within a search's bounds that one who sees its companions alone may see. Some that are being deleted may be
/// among them, but no row of theirs. What that costs tells nothing of the others.
fn companions(reader: &Reader<'_>, search: &Search, own: UserId) -> Result<BTreeSet<Id>, Error> {
    let (low, high) = search.id_bounds();
    let within = |id: &Id| (low..high).contains(&u128::from(id.0));
    let mut found = BTreeSet::new();
    found.extend(Some(own.0).filter(within));
    if search.tests_of(Field::Login).next().is_some() {
        // The others have none that it can see.
        return Ok(found);
    }
    if let Some(ids) = search.ids_of(Field::UserId) {
        let sees = |&id: &Id| {
            let circle = reader.circle;
            circle.may_see(reader.state, &reader.remains, UserId(id))
        };
        let named = ids.iter().copied().filter(within).collect();
        return Ok(filtered(named, sees)?.into_iter().collect());
    }
    let mut held = reader.memory.connection(None);
    for conversation in conversations(reader.state, b'o', own)? {
        if reader
            .remains
            .has_conversation(ConversationId(conversation))
        {
            continue;
        }
        let members = keys::ids(&keys::under(b'p', conversation), low, high);
        for entry in reader.state.scan(&members) {
            found.insert(keys::last_id(&entry?.0));
        }
        held.hold_read(found.len().saturating_mul(MEMBER_LISTED_BYTES))?;
    }
    Ok(found)
}

fn logins_of(search: &Search) -> Option<&[String]> {
    search.tests_of(Field::Login).find_map(|test| match test {
        Test::AnyText(logins) => Some(logins.as_slice()),
        _ => None,
    })
}

/// Rows whose keys are a kind byte and the object's id.
fn rows<'a>(state: &'a dyn State, range: &Range, descending: bool) -> Candidates<'a> {
    Box::new(directed(state.scan(range), descending).map(|entry| {
        let (key, row) = entry?;
        Ok(Candidate {
            id: keys::last_id(&key),
            conversation: Id(0),
            row,
        })
    }))
}

/// The objects with these ids that exist and may be seen.
fn single<'a>(
    reader: &'a Reader<'a>,
    kind: Kind,
    ids: BTreeSet<Id>,
    descending: bool,
) -> Candidates<'a> {
    let found = move |id: Id| -> Result<Option<Candidate>, Error> {
        let state = reader.state;
        let sees = |id| reader.rights.may_see(state, ConversationId(id));
        let (conversation, row) = match kind {
            Kind::User => (Id(0), state.get(&keys::user(UserId(id)))?),
            Kind::Conversation if !sees(id)? => return Ok(None),
            Kind::Conversation => (Id(0), state.get(&keys::conversation(ConversationId(id)))?),
            Kind::Message => {
                let Some(conversation) = reader.rights.place_of(state, MessageId(id))? else {
                    return Ok(None);
                };
                if reader.remains.has_conversation(conversation) {
                    return Ok(None);
                }
                (
                    conversation.0,
                    state.get(&keys::message(conversation, MessageId(id)))?,
                )
            }
        };
        Ok(row.map(|row| Candidate {
            id,
            conversation,
            row,
        }))
    };
    let ids: Box<dyn Iterator<Item = Id>> = if descending {
        Box::new(ids.into_iter().rev())
    } else {
        Box::new(ids.into_iter())
    };
    Box::new(ids.filter_map(move |id| found(id).transpose()))
}

/// The conversations of a user: those it is in (`o`), or those it has written in (`a`).
fn conversations(state: &dyn State, kind: u8, user: UserId) -> Result<Vec<Id>, Error> {
    state
        .scan(&keys::prefix(&keys::under(kind, user.0)))
        .map(|entry| Ok(keys::last_id(&entry?.0)))
        .collect()
}

/// The timelines that hold every message that can match; `None` for all of them.
fn timelines(
    reader: &Reader<'_>,
    search: &Search,
) -> Result<Option<BTreeSet<ConversationId>>, Error> {
    let state = reader.state;
    let named = search.ids_of(Field::ConversationId);
    let visible = match (named, reader.rights.restricted_to()) {
        (Some(ids), _) => {
            let sees = |&id: &Id| reader.rights.may_see(state, ConversationId(id));
            Some(filtered(ids.to_vec(), sees)?)
        }
        (None, Some(user)) => Some(conversations(state, b'o', user)?),
        (None, None) => None,
    };
    let visible = visible.map(|ids| {
        let stays = |&id: &Id| !reader.remains.has_conversation(ConversationId(id));
        ids.into_iter().filter(stays).collect::<Vec<_>>()
    });
    let found = match (search.ids_of(Field::UserId), visible) {
        (None, None) => return Ok(None),
        (None, Some(visible)) => visible,
        // Where the authors have written besides is not looked at: what that costs would tell of it.
        (Some(authors), Some(visible)) => filtered(visible, |&id| {
            let wrote = |&author: &Id| {
                let key = keys::author(UserId(author), ConversationId(id));
                state.contains(&key)
            };
            any(authors, wrote)
        })?,
        (Some(authors), None) => {
            let mut written = Vec::new();
            for &author in authors {
                let in_all = conversations(state, b'a', UserId(author))?;
                let stays = |&id: &Id| !reader.remains.has_conversation(ConversationId(id));
                written.extend(in_all.into_iter().filter(stays));
            }
            written
        }
    };
    Ok(Some(found.into_iter().map(ConversationId).collect()))
}

/// Those for which a look into the state says yes.
fn filtered(ids: Vec<Id>, keep: impl Fn(&Id) -> Result<bool, Error>) -> Result<Vec<Id>, Error> {
    let kept = ids.into_iter().map(|id| Ok(keep(&id)?.then_some(id)));
    kept.filter_map(Result::transpose).collect()
}

/// Whether a look into the state says yes for any of them.
fn any(ids: &[Id], found: impl Fn(&Id) -> Result<bool, Error>) -> Result<bool, Error> {
    for id in ids {
        if found(id)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn timeline(conversation: ConversationId, (low, high): (u128, u128)) -> Range {
    keys::ids(&keys::under(b'm', conversation.0), low, high)
}

/// Several timelines as one, in the order of the ids.
fn merged<'a>(
    state: &'a dyn State,
    timelines: BTreeSet<ConversationId>,
    bounds: (u128, u128),
    descending: bool,
) -> Candidates<'a> {
    let mut scans: Vec<Box<dyn Iterator<Item = Entry> + 'a>> = timelines
        .into_iter()
        .map(|conversation| directed(state.scan(&timeline(conversation, bounds)), descending))
        .collect();
    if scans.len() == 1
        && let Some(only) = scans.pop()
    {
        return Box::new(only.map(message));
    }
    // The heap gives its greatest: the newest id when descending, the oldest when not.
    let rank = move |id: Id| if descending { id.0 } else { !id.0 };
    let mut heads = BinaryHeap::new();
    let mut waiting: Vec<Option<Candidate>> = Vec::new();
    let mut failure = None;
    for (index, scan) in scans.iter_mut().enumerate() {
        let next = scan.next().map(message).transpose();
        waiting.push(None);
        match next {
            Ok(Some(candidate)) => {
                heads.push((rank(candidate.id), Reverse(index)));
                waiting[index] = Some(candidate);
            }
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    Box::new(std::iter::from_fn(move || {
        if let Some(error) = failure.take() {
            heads.clear();
            return Some(Err(error));
        }
        let (_, Reverse(index)) = heads.pop()?;
        let candidate = waiting.get_mut(index)?.take()?;
        match scans.get_mut(index)?.next().map(message) {
            Some(Ok(next)) => {
                heads.push((rank(next.id), Reverse(index)));
                *waiting.get_mut(index)? = Some(next);
            }
            Some(Err(error)) => failure = Some(error),
            None => {}
        }
        Some(Ok(candidate))
    }))
}

fn by_place(reader: &Reader<'_>, entry: Entry) -> Option<Result<Candidate, Error>> {
    let find = || -> Result<Option<Candidate>, Error> {
        let (key, place) = entry?;
        let (id, conversation) = (keys::last_id(&key), keys::last_id(&place));
        if reader
            .remains
            .has_conversation(ConversationId(conversation))
        {
            return Ok(None);
        }
        let row = reader
            .state
            .get(&keys::message(ConversationId(conversation), MessageId(id)))?;
        Ok(row.map(|row| Candidate {
            id,
            conversation,
            row,
        }))
    };
    find().transpose()
}

fn message(entry: Entry) -> Result<Candidate, Error> {
    let (key, row) = entry?;
    Ok(Candidate {
        id: keys::last_id(&key),
        conversation: keys::first_id(&key),
        row,
    })
}

fn directed(scan: Scan<'_>, descending: bool) -> Box<dyn Iterator<Item = Entry> + '_> {
    if descending {
        Box::new(scan.rev())
    } else {
        Box::new(scan)
    }
}
