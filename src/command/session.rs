//! The commands of subclass `session` (protocol.md, 7).

use super::fields::{FieldSpec, Presented, fields};
use super::{Access, Action, Command, Context, Fields, Step};
use crate::error::{Code, Error};
use crate::limits::Limits;
use crate::model::{Given, Id, Name, Password, Subclass, Token, TokenId, TriedLogin, UserId};
use crate::registry::Remote;
use crate::store::{Change, Operation, Query};
use crate::wire::Object;
use bytes::Bytes;

/// A login, validated.
#[derive(Debug)]
pub struct LogIn {
    /// What is presented.
    pub credentials: Credentials,
    /// For whom a trusted back end acts.
    pub remote: Option<Remote>,
}

/// What somebody logs in with.
#[derive(Debug)]
pub enum Credentials {
    /// A login and its password.
    Password(TriedLogin, Password),
    /// A token; one that cannot be a token is none.
    Token(Option<Token>),
    /// Nothing: a trusted back end names the user.
    User(Given<UserId>),
}

fields! {
    /// `session login`.
    Login {
        /// The login, whatever its case.
        login: Option<TriedLogin>,
        /// Its password.
        password: Option<Password>,
        /// A token, instead of login and password.
        token: Option<Presented>,
        /// The user alone, without a password. For trusted connections.
        user_id: Option<Given<UserId>>,
        /// For whom a web back end acts: limits and the audit log then go by this address. For trusted connections.
        remote: Option<Remote>,
    }
}

impl Command for Login {
    const SUBCLASS: Subclass = Subclass::Session;
    const NAME: &'static str = "login";
    const ACCESS: Access = Access::Everyone;
    const HELP: &'static str = "Logs the connection in: from now on it acts as this user, with its rights. Ends the session before, and its subscriptions.";
    const ANSWER: &'static str = "session_id, user_id";
    const EXAMPLE: &'static str = r#"{"login":"ann@example.org","password":"a good s3cret"}"#;
    const ERRORS: &'static [Code] = &[
        Code::LoginFailed,
        Code::RateLimited,
        Code::UserNotFound,
        Code::TooManyConnections,
        Code::Forbidden,
    ];

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        let missing = |field: &'static str| {
            let text = format!("{field} is missing; log in with login and password, or with token");
            Error::new(Code::MissingField, text).field(field)
        };
        let alone = |field: &'static str| {
            let text = format!("{field} stands instead of login and password, not beside them");
            Error::invalid(field, text)
        };
        let credentials = match (self.login, self.password, self.token, self.user_id) {
            (None, None, None, Some(user)) => Credentials::User(user),
            (_, _, _, Some(_)) => return Err(alone("user_id")),
            (None, None, Some(Presented(token)), None) => Credentials::Token(token),
            (_, _, Some(_), None) => return Err(alone("token")),
            (Some(login), Some(password), None, None) => Credentials::Password(login, password),
            (None, _, None, None) => return Err(missing("login")),
            (Some(_), None, None, None) => return Err(missing("password")),
        };
        Ok(Step::Act(Action::Login(LogIn {
            credentials,
            remote: self.remote,
        })))
    }
}

fields! {
    /// `session logout`.
    Logout {}
}

impl Command for Logout {
    const SUBCLASS: Subclass = Subclass::Session;
    const NAME: &'static str = "logout";
    const ACCESS: Access = Access::Everyone;
    const HELP: &'static str = "Ends the session and its subscriptions; the connection stays.";
    const ANSWER: &'static str = "";
    const EXAMPLE: &'static str = "{}";

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Act(Action::Logout))
    }
}

fields! {
    /// `session get`.
    Get {}
}

impl Command for Get {
    const SUBCLASS: Subclass = Subclass::Session;
    const NAME: &'static str = "get";
    const ACCESS: Access = Access::Everyone;
    const HELP: &'static str = "Says who this connection is.";
    const ANSWER: &'static str = "session_id, user_id, login, role, access, remote, connected_time";
    const EXAMPLE: &'static str = "{}";

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Act(Action::ShowSession))
    }
}

/// `session ping`: any data, given back as it was written.
pub struct Ping(Bytes);

impl Fields for Ping {
    fn specs(_: &Limits) -> Vec<FieldSpec> {
        Vec::new()
    }

    fn parse(object: &Object<'_>, _: &Limits) -> Result<Self, Error> {
        let data = if object.text.is_empty() {
            "{}"
        } else {
            object.text
        };
        Ok(Self(Bytes::copy_from_slice(data.as_bytes())))
    }
}

impl Command for Ping {
    const SUBCLASS: Subclass = Subclass::Session;
    const NAME: &'static str = "ping";
    const ACCESS: Access = Access::Everyone;
    const HELP: &'static str = "Answers with the same data, whatever its fields.";
    const ANSWER: &'static str = "the same data";
    const EXAMPLE: &'static str = r#"{"n":1}"#;

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Answer(self.0))
    }
}

fields! {
    /// `session token_create`.
    TokenCreate {
        /// What it is for.
        name: Name,
        /// When it expires, in milliseconds since the Unix epoch; never, if left out.
        expires_time: Option<u64>,
        /// Whose it is to be; an admin's or a trusted connection's to say.
        user_id: Option<Given<UserId>>,
    }
}

impl Command for TokenCreate {
    const SUBCLASS: Subclass = Subclass::Session;
    const NAME: &'static str = "token_create";
    const ACCESS: Access = Access::Users;
    const AUDIT: bool = true;
    const HELP: &'static str = "Creates a token that a bot or script logs in with instead of a password. It is shown in this answer and never again. Sessions that logged in with it end when it expires, and create no tokens.";
    const ANSWER: &'static str = "token_id, token";
    const EXAMPLE: &'static str = r#"{"name":"backup","user_id":"01k9user00001"}"#;
    const ERRORS: &'static [Code] = &[Code::UserNotFound, Code::Forbidden];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        let token = Token::random().map_err(|error| {
            tracing::error!(%error, "there are no random numbers");
            Error::internal()
        })?;
        Ok(Step::Apply(Operation {
            by: context.by,
            change: Change::CreateToken {
                user: self.user_id,
                name: self.name,
                expires_time: self.expires_time,
                token,
            },
        }))
    }
}

fields! {
    /// `session token_list`.
    TokenList {
        /// Whose; an admin's or a trusted connection's to say.
        user_id: Option<Given<UserId>>,
    }
}

impl Command for TokenList {
    const SUBCLASS: Subclass = Subclass::Session;
    const NAME: &'static str = "token_list";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str = "Lists the tokens of a user, without the tokens themselves.";
    const ANSWER: &'static str = "tokens: a list of token_id, name, created_time, expires_time, last_used_time (noted once a minute)";
    const EXAMPLE: &'static str = r#"{"user_id":"01k9user00001"}"#;
    const ERRORS: &'static [Code] = &[Code::UserNotFound, Code::Forbidden];

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Act(Action::Read(Query::Tokens(self.user_id))))
    }
}

fields! {
    /// `session token_delete`.
    TokenDelete {
        /// The token.
        token_id: Given<TokenId>,
    }
}

impl Command for TokenDelete {
    const SUBCLASS: Subclass = Subclass::Session;
    const NAME: &'static str = "token_delete";
    const ACCESS: Access = Access::Users;
    const AUDIT: bool = true;
    const HELP: &'static str = "Deletes a token, and ends the sessions that logged in with it. A session that logged in with a token deletes none.";
    const ANSWER: &'static str = "";
    const EXAMPLE: &'static str = r#"{"token_id":"01k9token0001"}"#;
    const ERRORS: &'static [Code] = &[Code::TokenNotFound, Code::Forbidden];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Apply(Operation {
            by: context.by,
            change: Change::DeleteToken {
                token: self.token_id,
            },
        }))
    }
}

fields! {
    /// `session list`.
    List {}
}

impl Command for List {
    const SUBCLASS: Subclass = Subclass::Session;
    const NAME: &'static str = "list";
    const ACCESS: Access = Access::Admins;
    const HELP: &'static str = "Lists the sessions: every connection, and who is logged in on it.";
    const ANSWER: &'static str =
        "sessions: a list of session_id, user_id, login, access, remote, connected_time";
    const EXAMPLE: &'static str = "{}";

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Act(Action::ListSessions))
    }
}

fields! {
    /// `session stop`.
    Stop {
        /// The session.
        session_id: Given<Id>,
    }
}

impl Command for Stop {
    const SUBCLASS: Subclass = Subclass::Session;
    const NAME: &'static str = "stop";
    const ACCESS: Access = Access::Admins;
    const AUDIT: bool = true;
    const HELP: &'static str = "Ends a session and closes its connection.";
    const ANSWER: &'static str = "";
    const EXAMPLE: &'static str = r#"{"session_id":"81k9sess00001"}"#;
    const ERRORS: &'static [Code] = &[Code::SessionNotFound];

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Act(Action::StopSession(self.session_id)))
    }
}
