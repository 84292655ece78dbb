//! Reading beside the rounds: an answer is from one moment.
//!
//! A query reads many rows, and rounds are applied between its reads. Each round is applied whole and changes the head,
//! so that a head that is the same before and after says that nothing changed; else the query is asked again. A long
//! search would never end so: it may tell of rows from several moments, but only if its asker may see at its end what it
//! could see at its beginning.

use crate::error::{Code, Error};
use crate::limits::SETTLE_MAX_ROWS;
use crate::model::Id;
use crate::store::bounded::Bounded;
use crate::store::keys;
use crate::store::operation::Principal;
use crate::store::rows::Head;
use crate::store::rules::Rights;
use crate::store::state::State;
use std::time::Instant;

/// Asks `read` until its answer is from one moment, or is as good as a long search's can be. `long` says that it may
/// take long at its first attempt already.
pub fn settled<T>(
    state: &Bounded<'_>,
    by: Principal,
    long: bool,
    deadline: Instant,
    read: impl Fn(&Head) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut sight = long.then(|| Sight::of(state, by)).transpose()?;
    loop {
        let before = head(state)?;
        let answer = read(&before);
        if head(state)?.record == before.record {
            return answer;
        }
        let after = Sight::of(state, by)?;
        if state.rows() > SETTLE_MAX_ROWS && sight.as_ref() == Some(&after) {
            return answer;
        }
        if Instant::now() > deadline {
            let text = "what may be seen changed while the search ran; try again";
            return Err(Error::new(Code::Timeout, text));
        }
        sight = Some(after);
    }
}

/// The head of a state. A round that is being applied is waited for.
pub fn head(state: &dyn State) -> Result<Head, Error> {
    let row = state.get(keys::HEAD)?;
    row.map_or(Ok(Head::default()), |row| Head::from_row(&row))
}

/// What somebody may see.
#[derive(PartialEq, Eq)]
enum Sight {
    Everything,
    /// What is in these conversations.
    Conversations(Vec<Id>),
}

impl Sight {
    fn of(state: &dyn State, by: Principal) -> Result<Self, Error> {
        let Some(user) = Rights::of(state, by)?.restricted_to() else {
            return Ok(Self::Everything);
        };
        let memberships = state.scan(&keys::prefix(&keys::under(b'o', user.0)));
        memberships
            .map(|entry| Ok(keys::last_id(&entry?.0)))
            .collect::<Result<_, Error>>()
            .map(Self::Conversations)
    }
}
