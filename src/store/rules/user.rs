//! Creating, updating and deleting users.

use super::{Rights, deletion, existing_user, forbidden, not_logged_in, token};
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
    let login_key = keys::login(&fold_login(login.as_str()));
    if txn.contains(&login_key)? {
        let text = format!("login {} is already in use", excerpt(login.as_str()));
        return Err(Error::new(Code::LoginTaken, text).field("login"));
    }
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
    txn.put_row(&keys::user(user_id), &row)?;
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

/// What an update changes.
pub struct Update {
    pub name: Option<Name>,
    pub surname: Patch<Surname>,
    pub password: Option<PasswordHash>,
    pub role: Option<Role>,
}

pub fn update(
    txn: &mut Txn<'_>,
    rights: Rights,
    user: &Given<UserId>,
    update: Update,
) -> Result<Outcome, Error> {
    let id = existing_user(txn, user)?;
    if !rights.may_act_for(id) {
        return Err(forbidden(
            "only the user itself, an admin or a trusted connection may update a user",
        ));
    }
    if update.role.is_some() && !rights.everything() {
        return Err(
            forbidden("only an admin or a trusted connection may name a role").field("role"),
        );
    }
    let Some(mut row) = txn.user(id)? else {
        return Err(super::no_user(user));
    };
    let Update {
        name,
        surname,
        password,
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
        row.password_hash = password.reveal().to_owned().into();
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

pub fn delete(txn: &mut Txn<'_>, rights: Rights, user: &Given<UserId>) -> Result<Outcome, Error> {
    let id = existing_user(txn, user)?;
    if !rights.may_act_for(id) {
        return Err(forbidden(
            "only the user itself, an admin or a trusted connection may delete a user",
        ));
    }
    let Some(row) = txn.user(id)? else {
        return Err(super::no_user(user));
    };
    deletion::leave_conversations(txn, rights.user(), id, SLICE_MAX_ROWS)?;
    token::delete_all(txn, id)?;
    txn.remove(&keys::login(&fold_login(&row.login)));
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
