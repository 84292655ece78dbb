//! Session tokens: making, listing, using and deleting them (protocol.md, 7).

use super::{Rights, existing_user, forbidden, no_token, not_logged_in};
use crate::error::{Code, Error};
use crate::limits::TOKENS_MAX;
use crate::model::{Given, Id, Name, Token, TokenHash, TokenId, UserId};
use crate::store::keys;
use crate::store::operation::{Outcome, TokenOwner};
use crate::store::rows::{self, TokenRow, UserRow};
use crate::store::state::State;
use crate::store::txn::Txn;
use serde::Serialize;

pub fn create(
    txn: &mut Txn<'_>,
    rights: Rights,
    user: Option<&Given<UserId>>,
    name: Name,
    expires_time: Option<u64>,
    token: Token,
) -> Result<Outcome, Error> {
    rights.more_than_token()?;
    let user = whose(txn, rights, user)?;
    if expires_time.is_some_and(|time| time <= txn.held_ms()) {
        return Err(Error::invalid("expires_time", "expires_time has passed"));
    }
    let existing = txn
        .scan(&keys::prefix(&keys::under(b'y', user.0)))
        .take(TOKENS_MAX)
        .count();
    if existing >= TOKENS_MAX {
        let text = format!("a user may have at most {TOKENS_MAX} tokens; delete one first");
        return Err(Error::new(Code::Forbidden, text));
    }
    let token_id = TokenId(txn.new_id());
    let hash = token.hash();
    let row = TokenRow {
        user: user.0.0,
        hash: hash.0,
        name: name.into_string().into(),
        created_time: txn.now_ms(),
        expires_time,
        last_used_time: None,
    };
    txn.put_row(&keys::token(token_id), &row)?;
    txn.put(&keys::token_hash(&hash), &token_id.0.key());
    txn.put(&keys::token_of(user, token_id), &[]);
    Ok(Outcome::Token { token_id, token })
}

pub fn delete(txn: &mut Txn<'_>, rights: Rights, given: &Given<TokenId>) -> Result<Outcome, Error> {
    rights.more_than_token()?;
    let Some(id) = given.id() else {
        return Err(no_token(given));
    };
    match row(txn, id)? {
        Some(row) if rights.may_act_for(UserId(Id(row.user))) => {
            remove(txn, id, &row);
            Ok(Outcome::Done {})
        }
        _ => Err(no_token(given)),
    }
}

/// Deletes every token of a user; there are at most [`TOKENS_MAX`].
pub fn delete_all(txn: &mut Txn<'_>, user: UserId) -> Result<(), Error> {
    for id in ids_of(txn, user)? {
        if let Some(row) = row(txn, id)? {
            remove(txn, id, &row);
        }
    }
    Ok(())
}

/// Notes that a token was used just now; one that is gone meanwhile is not missed.
pub fn note_use(txn: &mut Txn<'_>, id: TokenId) -> Result<Outcome, Error> {
    if let Some(mut row) = row(txn, id)? {
        row.last_used_time = Some(txn.now_ms());
        txn.put_row(&keys::token(id), &row)?;
    }
    Ok(Outcome::Done {})
}

/// Whose token this is, if it has not expired.
pub fn owner(
    state: &dyn State,
    hash: &TokenHash,
    held_ms: u64,
) -> Result<Option<TokenOwner>, Error> {
    let Some(id) = state.get(&keys::token_hash(hash))? else {
        return Ok(None);
    };
    let token = TokenId(keys::last_id(&id));
    let valid = row(state, token)?.filter(|row| row.expires_time.is_none_or(|time| held_ms < time));
    let Some(row) = valid else {
        return Ok(None);
    };
    let user = UserId(Id(row.user));
    let owner = state.get(&keys::user(user))?;
    owner
        .map(|owner| {
            Ok(TokenOwner {
                token,
                user,
                login: rows::decode::<UserRow<'_>>(&owner)?.login.into_owned(),
                expires_time: row.expires_time,
                last_used_time: row.last_used_time,
            })
        })
        .transpose()
}

/// The tokens of a user, as `token_list` shows them.
#[derive(Debug, Serialize)]
pub struct Tokens {
    tokens: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Shown {
    token_id: TokenId,
    name: String,
    created_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_time: Option<u64>,
}

/// The tokens of a user, oldest first; the asker's own, if none is named.
pub fn tokens_of(
    state: &dyn State,
    rights: Rights,
    user: Option<&Given<UserId>>,
) -> Result<Tokens, Error> {
    let user = whose(state, rights, user)?;
    let mut tokens = Vec::new();
    for token_id in ids_of(state, user)? {
        if let Some(row) = row(state, token_id)? {
            tokens.push(Shown {
                token_id,
                name: row.name.into_owned(),
                created_time: row.created_time,
                expires_time: row.expires_time,
                last_used_time: row.last_used_time,
            });
        }
    }
    Ok(Tokens { tokens })
}

/// The user that a command about tokens is for: the asker, or another one for those who may do everything.
fn whose(
    state: &dyn State,
    rights: Rights,
    given: Option<&Given<UserId>>,
) -> Result<UserId, Error> {
    match (given, rights.user()) {
        (Some(given), _) => {
            let user = existing_user(state, given)?;
            if rights.may_act_for(user) {
                Ok(user)
            } else {
                Err(
                    forbidden("only an admin or a trusted connection may name another user")
                        .field("user_id"),
                )
            }
        }
        (None, Some(user)) => Ok(user),
        (None, None) if rights.everything() => Err(Error::new(
            Code::MissingField,
            "user_id is missing: whose tokens?",
        )
        .field("user_id")),
        (None, None) => Err(not_logged_in()),
    }
}

fn ids_of(state: &dyn State, user: UserId) -> Result<Vec<TokenId>, Error> {
    state
        .scan(&keys::prefix(&keys::under(b'y', user.0)))
        .map(|entry| Ok(TokenId(keys::last_id(&entry?.0))))
        .collect()
}

/// Whose token this is, expired or not.
pub fn user_of(state: &dyn State, id: TokenId) -> Result<Option<UserId>, Error> {
    Ok(row(state, id)?.map(|row| UserId(Id(row.user))))
}

fn row(state: &dyn State, id: TokenId) -> Result<Option<TokenRow<'static>>, Error> {
    state
        .get(&keys::token(id))?
        .map(|bytes| rows::decode(&bytes).map(TokenRow::into_owned))
        .transpose()
}

fn remove(txn: &mut Txn<'_>, id: TokenId, row: &TokenRow<'_>) {
    txn.remove(&keys::token(id));
    txn.remove(&keys::token_hash(&TokenHash(row.hash)));
    txn.remove(&keys::token_of(UserId(Id(row.user)), id));
}
