//! What whoever asks may do (protocol.md, 7).
//!
//! Rights are read from the state in the same step that uses them, so that one that was just taken away is gone.

use crate::error::{Code, Error};
use crate::model::{ConversationId, Id, MessageId, UserId};
use crate::store::keys;
use crate::store::operation::Principal;
use crate::store::rows::{self, UserRow};
use crate::store::state::State;

/// The rights of whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    user: Option<UserId>,
    everything: bool,
}

impl Rights {
    /// The rights of a principal; a user that is gone has none, not even to read.
    pub fn of(state: &dyn State, by: Principal) -> Result<Self, Error> {
        match by {
            Principal::Trusted => Ok(Self {
                user: None,
                everything: true,
            }),
            Principal::Nobody => Ok(Self {
                user: None,
                everything: false,
            }),
            Principal::User(user) => match state.get(&keys::user(user))? {
                Some(row) => Ok(Self {
                    user: Some(user),
                    everything: rows::decode::<UserRow<'_>>(&row)?.admin,
                }),
                None => Err(not_logged_in()),
            },
        }
    }

    /// The user that acts, if one does.
    #[must_use]
    pub const fn user(&self) -> Option<UserId> {
        self.user
    }

    /// Whether everything is allowed: to an admin, and on a trusted connection.
    #[must_use]
    pub const fn everything(&self) -> bool {
        self.everything
    }

    /// The user whose conversations are all that may be seen; none where everything may be.
    #[must_use]
    pub fn restricted_to(&self) -> Option<UserId> {
        self.user.filter(|_| !self.everything)
    }

    /// Whether it is this user that acts.
    #[must_use]
    pub fn is(&self, user: UserId) -> bool {
        self.user == Some(user)
    }

    /// Whether it is this user that acts, or one that may do everything.
    #[must_use]
    pub fn may_act_for(&self, user: UserId) -> bool {
        self.everything || self.is(user)
    }

    /// Whether a conversation that exists may be seen.
    pub fn may_see(&self, state: &dyn State, conversation: ConversationId) -> Result<bool, Error> {
        match self.user {
            _ if self.everything => Ok(true),
            Some(user) => state.contains(&keys::member(conversation, user)),
            None => Ok(false),
        }
    }

    /// The conversation that a message is in, if that may be seen. As much is looked for where there is no such message:
    /// what it costs tells nothing (protocol.md, 7).
    pub fn place_of(
        &self,
        state: &dyn State,
        message: MessageId,
    ) -> Result<Option<ConversationId>, Error> {
        let place = state.get(&keys::place(message))?;
        let conversation =
            ConversationId(place.as_ref().map_or(Id(0), |place| keys::last_id(place)));
        let seen = self.may_see(state, conversation)?;
        Ok((seen && place.is_some()).then_some(conversation))
    }
}

/// The refusal of a command that needs a login first.
#[must_use]
pub fn not_logged_in() -> Error {
    Error::new(
        Code::NotLoggedIn,
        r#"log in first: {"class":"chat","subclass":"session","cmd":"login","data":{"login":"…","password":"…"}}"#,
    )
}
