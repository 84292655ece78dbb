//! The commands of subclass `user` (protocol.md, 4 and 8).

use super::fields::fields;
use super::search::search_command;
use super::{Access, Action, Command, Context, NewPassword, NewUser, Step};
use crate::error::{Code, Error};
use crate::model::{Given, Kind, Login, Name, Password, Role, Subclass, Surname, UserId};
use crate::store::{Change, Operation, Patch, Query};

fields! {
    /// `user create`.
    Create {
        /// The login, unique without regard to case.
        login: Login,
        /// The name.
        name: Name,
        /// The surname.
        surname: Option<Surname>,
        /// The password; only a bcrypt hash of it is kept. Whoever registers chooses one of at least `security.password_min_bytes` (8).
        password: Password,
        /// What the user may do; "user" if left out.
        role: Option<Role>,
    }
}

impl Command for Create {
    const SUBCLASS: Subclass = Subclass::User;
    const NAME: &'static str = "create";
    const ACCESS: Access = Access::Registration;
    const AUDIT: bool = true;
    const HELP: &'static str = "Creates a user. Before a login it logs the connection in as the new user; a role cannot be named there. A session that logged in with a token creates no admins.";
    const ANSWER: &'static str = "user_id";
    const EVENT: Option<&'static str> =
        Some("user created, obj_id: the user; to those to whom user get shows it");
    const EXAMPLE: &'static str =
        r#"{"login":"ann@example.org","name":"Ann","password":"a good s3cret"}"#;
    const ERRORS: &'static [Code] = &[Code::LoginTaken, Code::RateLimited];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        let by = context.by;
        let Self {
            login,
            name,
            surname,
            password,
            role,
        } = self;
        let named = login.clone();
        let then = move |password| Operation {
            by,
            change: Change::CreateUser {
                login,
                name,
                surname,
                password,
                role,
            },
        };
        Ok(Step::CreateUser(NewUser {
            login: named,
            password,
            role,
            then: Box::new(then),
        }))
    }
}

fields! {
    /// `user get`.
    Get {
        /// The user.
        user_id: Given<UserId>,
    }
}

impl Command for Get {
    const SUBCLASS: Subclass = Subclass::User;
    const NAME: &'static str = "get";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str = "Gives a user. Where `security.directory` is \"companions\", a user sees itself and those with whom it shares a conversation, and no login but its own.";
    const ANSWER: &'static str = "user_id, login, name, surname, role, created_time, updated_time";
    const EXAMPLE: &'static str = r#"{"user_id":"01k9user00001"}"#;
    const ERRORS: &'static [Code] = &[Code::UserNotFound];

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Act(Action::Read(Query::User(self.user_id))))
    }
}

fields! {
    /// `user update`.
    Update {
        /// The user.
        user_id: Given<UserId>,
        /// The new name.
        name: Option<Name>,
        /// The new surname.
        surname: Patch<Surname>,
        /// The new password. Users choose theirs with at least `security.password_min_bytes` (8).
        password: Option<Password>,
        /// The old password, without which no user changes its own. It is verified as in a login.
        old_password: Option<Password>,
        /// Whether the user's tokens stay although its password changes; false if left out.
        keep_tokens: Option<bool>,
        /// The new role.
        role: Option<Role>,
    }
}

impl Command for Update {
    const SUBCLASS: Subclass = Subclass::User;
    const NAME: &'static str = "update";
    const ACCESS: Access = Access::Users;
    const AUDIT: bool = true;
    const HELP: &'static str = "Changes the fields of a user that are named. Naming none changes nothing. A new password ends the user's other sessions and deletes its tokens. A session that logged in with a token changes no password and no role.";
    const ANSWER: &'static str = "";
    const EVENT: Option<&'static str> =
        Some("user updated, obj_id: the user; to those to whom user get shows it");
    const EXAMPLE: &'static str = r#"{"user_id":"01k9user00001","surname":"Archer"}"#;
    const ERRORS: &'static [Code] = &[
        Code::UserNotFound,
        Code::Forbidden,
        Code::LoginFailed,
        Code::RateLimited,
    ];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        let by = context.by;
        let Self {
            user_id: user,
            name,
            surname,
            password,
            old_password,
            keep_tokens,
            role,
        } = self;
        let whose = user.clone();
        let change = move |password, old_password| Operation {
            by,
            change: Change::UpdateUser {
                user,
                name,
                surname,
                password,
                old_password,
                keep_tokens: keep_tokens.unwrap_or(false),
                role,
            },
        };
        let beside = [
            ("old_password", old_password.is_some()),
            ("keep_tokens", keep_tokens.is_some()),
        ];
        match (password, beside.iter().find(|(_, named)| *named)) {
            (Some(password), _) => Ok(Step::ChangePassword(NewPassword {
                user: whose,
                password,
                old_password,
                names_role: role.is_some(),
                then: Box::new(move |hash, old| change(Some(hash), old)),
            })),
            (None, Some((field, _))) => {
                let text = format!("password is missing; {field} stands beside a new password");
                Err(Error::new(Code::MissingField, text).field("password"))
            }
            (None, None) => Ok(Step::Apply(change(None, None))),
        }
    }
}

fields! {
    /// `user delete`.
    Delete {
        /// The user.
        user_id: Given<UserId>,
    }
}

impl Command for Delete {
    const SUBCLASS: Subclass = Subclass::User;
    const NAME: &'static str = "delete";
    const ACCESS: Access = Access::Users;
    const AUDIT: bool = true;
    const HELP: &'static str = "Deletes a user: takes it out of every conversation and frees its login, deletes its tokens and ends its sessions. Its messages stay. A session that logged in with a token does not delete its own user.";
    const ANSWER: &'static str = "";
    const EVENT: Option<&'static str> = Some(
        "user deleted, obj_id: the user; where `security.directory` is \"companions\", for admins and trusted connections alone; before it, conversation removed_memebers for each of its conversations",
    );
    const EXAMPLE: &'static str = r#"{"user_id":"01k9user00001"}"#;
    const ERRORS: &'static [Code] = &[Code::UserNotFound, Code::Forbidden];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Apply(Operation {
            by: context.by,
            change: Change::DeleteUser { user: self.user_id },
        }))
    }
}

search_command! {
    /// `user search`.
    SearchUsers, Kind::User, Subclass::User, "Finds users, of those whom user get shows. A user whose login may not be seen is found as one that has none.",
    r#"{"filter":{"name":{"prefix":"A"}},"fields":["login","name"],"sort_by":"name"}"#
}
