//! Creating, updating and deleting users.

use super::{Rights, costs, deletion, existing_user, forbidden, not_logged_in, token};
use crate::error::{Code, Error, excerpt};
use crate::limits::SLICE_MAX_ROWS;
use crate::model::{
    Audience, EventType, Given, Login, Name, PasswordHash, Role, Subclass, Surname, UserId,
    fold_login,
};
use crate::store::keys;
use crate::store::operation::{Outcome, Patch};
use crate::store::rows::UserRow;
use crate::store::state::State;
use crate::store::txn::Txn;

pub fn create(
    txn: &mut Txn<'_>,
    rights: Rights,
    login: &Login,
    name: Name,
    surname: Option<Surname>,
    password: &PasswordHash,
    role: Option<Role>,
) -> Result<Outcome, Error> {
    may_create(txn, rights, login, role)?;
    let user_id = UserId(txn.new_id());
    let row = UserRow {
        login: login.as_str().into(),
        name: name.into_string().into(),
        surname: surname.map(|surname| surname.into_string().into()),
        admin: role == Some(Role::Admin),
        password_hash: password.reveal().into(),
        created_time: txn.now_ms(),
        updated_time: None,
        conversations: 0,
    };
    costs::note(txn, None, Some(password))?;
    txn.put_row(&keys::user(user_id), &row)?;
    let login_key = keys::login(&fold_login(login.as_str()));
    txn.put(&login_key, &user_id.0.key());
    txn.head.users += 1;
    txn.emit(
        rights.user(),
        (Subclass::User, EventType::Created, user_id.0),
        Audience::default(),
        None,
    );
    Ok(Outcome::User { user_id })
}

/// Whether this user may be created: it can be asked before a password is hashed.
pub fn may_create(
    state: &dyn State,
    rights: Rights,
    login: &Login,
    role: Option<Role>,
) -> Result<(), Error> {
    match rights.user() {
        _ if rights.everything() => {}
        // The session lets nobody come here unless registration is open.
        None if role.is_none() => {}
        None => return Err(not_logged_in().field("role")),
        Some(_) => {
            return Err(forbidden(
                "only an admin or a trusted connection may create users",
            ));
        }
    }
    if role == Some(Role::Admin) {
        rights
            .more_than_token()
            .map_err(|error| error.field("role"))?;
    }
    if state.contains(&keys::login(&fold_login(login.as_str())))? {
        let text = format!("login {} is already in use", excerpt(login.as_str()));
        return Err(Error::new(Code::LoginTaken, text).field("login"));
    }
    Ok(())
}

/// What an update changes of that which not everybody may change.
#[derive(Clone, Copy)]
pub struct Wish {
    /// Whether it names a password.
    pub password: bool,
    /// Whether it names a role.
    pub role: bool,
}

/// The user, if it may be updated so: it can be asked before a password is hashed.
pub fn may_update(
    state: &dyn State,
    rights: Rights,
    user: &Given<UserId>,
    wish: Wish,
) -> Result<UserId, Error> {
    let id = existing_user(state, user)?;
    if !rights.may_act_for(id) {
        return Err(forbidden(
            "only the user itself, an admin or a trusted connection may update a user",
        ));
    }
    if wish.role && !rights.everything() {
        return Err(
            forbidden("only an admin or a trusted connection may name a role").field("role"),
        );
    }
    for (named, field) in [(wish.password, "password"), (wish.role, "role")] {
        if named {
            rights
                .more_than_token()
                .map_err(|error| error.field(field))?;
        }
    }
    Ok(id)
}

/// What an update changes.
pub struct Update {
    pub name: Option<Name>,
    pub surname: Patch<Surname>,
    pub password: Option<PasswordHash>,
    pub old_password: Option<PasswordHash>,
    pub keep_tokens: bool,
    pub role: Option<Role>,
}

pub fn update(
    txn: &mut Txn<'_>,
    rights: Rights,
    user: &Given<UserId>,
    update: Update,
) -> Result<Outcome, Error> {
    let wish = Wish {
        password: update.password.is_some(),
        role: update.role.is_some(),
    };
    let id = may_update(txn, rights, user, wish)?;
    let Some(mut row) = txn.user(id)? else {
        return Err(super::no_user(user));
    };
    let Update {
        name,
        surname,
        password,
        old_password,
        keep_tokens,
        role,
    } = update;
    if name.is_none() && surname == Patch::Keep && password.is_none() && role.is_none() {
        return Ok(Outcome::Done {});
    }
    if let Some(name) = name {
        row.name = name.into_string().into();
    }
    match surname {
        Patch::Keep => {}
        Patch::Clear => row.surname = None,
        Patch::Set(surname) => row.surname = Some(surname.into_string().into()),
    }
    if let Some(password) = password {
        let kept = row.hash();
        may_replace(rights.is(id), old_password.as_ref(), &kept)?;
        costs::note(txn, Some(&kept), Some(&password))?;
        row.password_hash = password.reveal().to_owned().into();
        if !keep_tokens {
            token::delete_all(txn, id)?;
        }
    }
    let mut audience = Audience::default();
    if let Some(role) = role {
        let admin = role == Role::Admin;
        match (row.admin, admin) {
            (false, true) => audience.added.push(id),
            (true, false) => audience.removed.push(id),
            _ => {}
        }
        row.admin = admin;
    }
    row.updated_time = Some(txn.now_ms());
    txn.put_row(&keys::user(id), &row)?;
    txn.emit(
        rights.user(),
        (Subclass::User, EventType::Updated, id.0),
        audience,
        None,
    );
    Ok(Outcome::Done {})
}

/// Whether a password may be replaced by one who knew `old`, the hash that the old password fitted. A user must know its
/// own, and nobody replaces another password than the one it knew.
fn may_replace(own: bool, old: Option<&PasswordHash>, kept: &PasswordHash) -> Result<(), Error> {
    match old {
        None if own => Err(no_old_password()),
        Some(old) if old != kept => Err(Error::new(
            Code::LoginFailed,
            "the password was changed by somebody else just now; if old_password still is right, ask again",
        )
        .field("old_password")),
        _ => Ok(()),
    }
}

/// Has the same password hashed with another cost from now on. One that was changed meanwhile stays as it is; there is
/// nothing to tell anyone of.
pub fn renew_hash(
    txn: &mut Txn<'_>,
    id: UserId,
    known: &PasswordHash,
    hash: &PasswordHash,
) -> Result<Outcome, Error> {
    if let Some(mut row) = txn.user(id)?
        && row.hash() == *known
    {
        costs::note(txn, Some(known), Some(hash))?;
        row.password_hash = hash.reveal().to_owned().into();
        txn.put_row(&keys::user(id), &row)?;
    }
    Ok(Outcome::Done {})
}

/// The refusal of a user that changes its password without the old one.
#[must_use]
pub fn no_old_password() -> Error {
    let text = "old_password is missing: whoever changes its own password must know the old one";
    Error::new(Code::MissingField, text).field("old_password")
}

pub fn delete(txn: &mut Txn<'_>, rights: Rights, user: &Given<UserId>) -> Result<Outcome, Error> {
    let id = existing_user(txn, user)?;
    if !rights.may_act_for(id) {
        return Err(forbidden(
            "only the user itself, an admin or a trusted connection may delete a user",
        ));
    }
    if rights.is(id) {
        rights.more_than_token()?;
    }
    let Some(row) = txn.user(id)? else {
        return Err(super::no_user(user));
    };
    deletion::leave_conversations(txn, rights.user(), id, SLICE_MAX_ROWS)?;
    token::delete_all(txn, id)?;
    txn.remove(&keys::login(&fold_login(&row.login)));
    costs::note(txn, Some(&row.hash()), None)?;
    txn.remove(&keys::user(id));
    txn.head.users -= 1;
    txn.emit(
        rights.user(),
        (Subclass::User, EventType::Deleted, id.0),
        Audience::default(),
        None,
    );
    Ok(Outcome::Done {})
}
