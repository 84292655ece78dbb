//! A user's row.

use super::owned;
use crate::model::{PasswordHash, Role, User, UserId};
use crate::store::rules::Circle;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A stored user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct UserRow<'a> {
    /// The login as given.
    #[serde(borrow)]
    #[b(0)]
    pub login: Cow<'a, str>,
    /// The name.
    #[serde(borrow)]
    #[b(1)]
    pub name: Cow<'a, str>,
    /// The surname.
    #[serde(borrow)]
    #[b(2)]
    pub surname: Option<Cow<'a, str>>,
    /// Whether the role is admin.
    #[n(3)]
    pub admin: bool,
    /// The bcrypt hash.
    #[serde(borrow)]
    #[b(4)]
    pub password_hash: Cow<'a, str>,
    /// When it was created.
    #[n(5)]
    pub created_time: u64,
    /// When it was last updated.
    #[n(6)]
    pub updated_time: Option<u64>,
    /// The conversations it is a member of, those being deleted counted until they are gone.
    #[n(7)]
    pub conversations: u64,
}

impl UserRow<'_> {
    /// The hash of the password.
    #[must_use]
    pub fn hash(&self) -> PasswordHash {
        PasswordHash::new(self.password_hash.clone().into_owned())
    }

    /// The row, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> UserRow<'static> {
        UserRow {
            login: owned(self.login),
            name: owned(self.name),
            surname: self.surname.map(owned),
            password_hash: owned(self.password_hash),
            ..self
        }
    }

    /// The user as an object, as this circle may see it.
    #[must_use]
    pub fn shown(&self, user_id: UserId, circle: Circle) -> User<'_> {
        let mut object = self.object(user_id);
        if !circle.shows_login(user_id) {
            object.login = None;
        }
        object
    }

    /// The user as an object.
    #[must_use]
    pub fn object(&self, user_id: UserId) -> User<'_> {
        User {
            user_id,
            login: Some(Cow::Borrowed(&self.login)),
            name: Cow::Borrowed(&self.name),
            surname: self.surname.as_deref().map(Cow::Borrowed),
            role: if self.admin { Role::Admin } else { Role::User },
            created_time: self.created_time,
            updated_time: self.updated_time,
        }
    }
}
