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
    by_token: bool,
}

impl Rights {
    /// The rights of a principal; a user that is gone has none, not even to read.
    pub fn of(state: &dyn State, by: Principal) -> Result<Self, Error> {
        match by {
            Principal::Trusted => Ok(Self {
                user: None,
                everything: true,
                by_token: false,
            }),
            Principal::Nobody => Ok(Self {
                user: None,
                everything: false,
                by_token: false,
            }),
            Principal::User(user) | Principal::Token(user) => match state.get(&keys::user(user))? {
                Some(row) => Ok(Self {
                    user: Some(user),
                    everything: rows::decode::<UserRow<'_>>(&row)?.admin,
                    by_token: matches!(by, Principal::Token(_)),
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

    /// Refuses what needs more than a token, to an admin too: whoever finds one must not be able to stay, or to shut its
    /// user out.
    pub fn more_than_token(&self) -> Result<(), Error> {
        if self.by_token {
            let text = "a session that logged in with a token may not do this; log in with login and password";
            Err(Error::new(Code::Forbidden, text))
        } else {
            Ok(())
        }
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
