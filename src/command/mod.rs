//! The commands: one type and one row in [`TABLE`] each.
//!
//! A command declares its name, who may use it, its fields with their limits, its help, its example and its errors
//! once; the parser, `server help` and contrib/protocol.md come from that. Where a new command goes: a type in the file
//! of its subclass, and a row here.
//!
//! A command returns a [`Step`], a value that says what is to be done; it never touches a socket or the store.

mod bad_json;
mod conversation;
mod event;
mod fields;
mod message;
mod reference;
mod search;
mod server;
mod session;
mod user;

pub use bad_json::explained;
pub use event::too_many_subscriptions;
pub use reference::reference;
pub use session::{Credentials, LogIn};

use crate::counters::Counters;
use crate::error::{Code, Error, excerpt};
use crate::hub::Pattern;
use crate::limits::Limits;
use crate::model::{
    ConversationId, CustomType, Given, Id, Login, Password, PasswordHash, Role, Seq, Subclass,
    UserId,
};
use crate::spelling::there_are;
use crate::store::{Answer, Counts, Operation, Principal, Query};
use crate::wire::{Object, data};
use bytes::Bytes;
use fields::FieldSpec;
use rustc_hash::FxHashMap;
use serde_json::value::RawValue;
use std::sync::LazyLock;

/// Who may use a command at all (protocol.md, 7); rights to one object are decided where it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone, logged in or not.
    Everyone,
    /// Users that logged in, and trusted connections.
    Users,
    /// Admins that logged in, and trusted connections.
    Admins,
    /// Admins and trusted connections; and, where `registration` is open, whoever is not logged in.
    Registration,
}

impl Access {
    /// The access in words, for help.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::Users => "users and trusted connections",
            Self::Admins => "admins and trusted connections",
            Self::Registration => {
                "admins and trusted connections, and before a login where registration is open"
            }
        }
    }
}

/// What a command sees of the connection and the server.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// For whom.
    pub by: Principal,
    /// The configured limits.
    pub limits: &'a Limits,
    /// The server, as `server info` shows it.
    pub server: &'a dyn Fn() -> ServerInfo<'a>,
}

/// The server as `server info` shows it.
#[derive(Clone, Debug)]
pub struct ServerInfo<'a> {
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// Open connections.
    pub connections: usize,
    /// The newest event's number.
    pub seq: Seq,
    /// Which log it counts in.
    pub epoch: Id,
    /// How often something was refused.
    pub counters: &'a Counters,
    /// Bytes held for connections.
    pub memory_bytes_pending: u64,
}

/// What a command wants done; the session does it.
pub enum Step {
    /// Answer with this data.
    Answer(Bytes),
    /// Apply a change, and answer with its outcome.
    Apply(Operation),
    /// Create a user, once its password is hashed.
    CreateUser(NewUser),
    /// Change a user's password, once the old one is verified and the new one hashed.
    ChangePassword(NewPassword),
    /// Do this once the changes that were sent before are stored, and before anything else is read.
    Act(Action),
}

/// A user to create.
pub struct NewUser {
    /// Its login.
    pub login: Login,
    /// Its password.
    pub password: Password,
    /// Its role, if one is named.
    pub role: Option<Role>,
    /// The change, which holds the hash of the password.
    pub then: Box<dyn FnOnce(PasswordHash) -> Operation + Send>,
}

/// A password to change.
pub struct NewPassword {
    /// Whose it is.
    pub user: Given<UserId>,
    /// The new password.
    pub password: Password,
    /// The old one, where whoever asks knows it.
    pub old_password: Option<Password>,
    /// Whether the role is to change with it.
    pub names_role: bool,
    /// The change, which holds the hash of the new password, and the hash that the old one was found to fit.
    pub then: Box<dyn FnOnce(PasswordHash, Option<PasswordHash>) -> Operation + Send>,
}

impl Step {
    /// How many requests the lists of a request count as: one for each id or value, and for the object of each
    /// subscription; types cost less (protocol.md, 1).
    #[must_use]
    pub fn listed(&self) -> usize {
        match self {
            Self::Apply(operation) => operation.change.listed(),
            Self::Act(Action::Read(Query::Search(search))) => search.listed(),
            Self::Act(Action::Subscribe(asked)) => {
                asked.subscriptions.iter().map(Pattern::requests).sum()
            }
            Self::Act(Action::Unsubscribe(removed)) => removed.requests(),
            Self::Answer(_) | Self::CreateUser(_) | Self::ChangePassword(_) | Self::Act(_) => 0,
        }
    }
}

/// What is done between the changes sent before it and whatever is sent behind it.
pub enum Action {
    /// Answer with what a query finds.
    Read(Query),
    /// Answer with the counts, made into data; there are none for those who may not know them.
    Count(Box<dyn FnOnce(Option<Counts>) -> Bytes + Send>),
    /// Log in.
    Login(LogIn),
    /// Log out.
    Logout,
    /// Answer with the connection's session.
    ShowSession,
    /// Answer with every session.
    ListSessions,
    /// Close the connection of a session.
    StopSession(Given<Id>),
    /// Subscribe.
    Subscribe(Subscribe),
    /// Unsubscribe.
    Unsubscribe(Pattern),
    /// Answer with the subscriptions.
    ListSubscriptions,
    /// Give an event that is not stored to those subscribed now.
    Send {
        /// Its type.
        kind: CustomType,
        /// The conversation it is about.
        conversation: Given<ConversationId>,
        /// Its body, as it was written.
        body: Option<Box<RawValue>>,
    },
}

/// A request to subscribe, validated.
#[derive(Debug)]
pub struct Subscribe {
    /// The subscriptions to add.
    pub subscriptions: Vec<Pattern>,
    /// After which event to begin; now, if left out.
    pub since: Option<Seq>,
    /// Which log `since` counts in, as the client believes.
    pub epoch: Option<String>,
    /// Whether positions are asked for.
    pub position: bool,
}

/// Fields that were declared with the `fields!` macro.
pub trait Fields: Sized {
    /// What the fields are, for help.
    fn specs(limits: &Limits) -> Vec<FieldSpec>;

    /// Reads the fields: unknown ones are refused first, then missing ones, then wrong ones.
    fn parse(object: &Object<'_>, limits: &Limits) -> Result<Self, Error>;
}

/// A command.
pub trait Command: Fields {
    /// The subclass it belongs to.
    const SUBCLASS: Subclass;
    /// Its name, the request's `cmd`.
    const NAME: &'static str;
    /// Who may use it.
    const ACCESS: Access;
    /// What it does, in a sentence or two.
    const HELP: &'static str;
    /// The fields of its answer.
    const ANSWER: &'static str;
    /// Whether each use of it has a line in the audit log.
    const AUDIT: bool = false;
    /// The event that it causes, if any: subclass, type, body.
    const EVENT: Option<&'static str> = None;
    /// An example of its `data`.
    const EXAMPLE: &'static str;
    /// What it can be refused with, besides what every request can.
    const ERRORS: &'static [Code] = &[];

    /// Says what is to be done.
    fn run(self, context: &Context<'_>) -> Result<Step, Error>;
}

/// A row of the table: a command without its type.
pub struct Row {
    /// The subclass.
    pub subclass: Subclass,
    /// The name.
    pub name: &'static str,
    /// Who may use it.
    pub access: Access,
    /// Whether each use of it has a line in the audit log.
    pub audit: bool,
    help: &'static str,
    answer: &'static str,
    event: Option<&'static str>,
    example: &'static str,
    errors: &'static [Code],
    specs: fn(&Limits) -> Vec<FieldSpec>,
    run: fn(&Object<'_>, &Context<'_>) -> Result<Step, Error>,
}

const fn row<C: Command>() -> Row {
    Row {
        subclass: C::SUBCLASS,
        name: C::NAME,
        access: C::ACCESS,
        audit: C::AUDIT,
        help: C::HELP,
        answer: C::ANSWER,
        event: C::EVENT,
        example: C::EXAMPLE,
        errors: C::ERRORS,
        specs: C::specs,
        run: |object, context| C::parse(object, context.limits)?.run(context),
    }
}

/// Every command, in the order of the reference.
pub static TABLE: &[Row] = &[
    row::<user::Create>(),
    row::<user::Get>(),
    row::<user::Update>(),
    row::<user::Delete>(),
    row::<user::SearchUsers>(),
    row::<conversation::Create>(),
    row::<conversation::Get>(),
    row::<conversation::Update>(),
    row::<conversation::Delete>(),
    row::<conversation::AddMembers>(),
    row::<conversation::RemoveMembers>(),
    row::<conversation::GetMembers>(),
    row::<conversation::SearchConversations>(),
    row::<message::Create>(),
    row::<message::Get>(),
    row::<message::Update>(),
    row::<message::Delete>(),
    row::<message::SearchMessages>(),
    row::<event::SubscribeCommand>(),
    row::<event::Unsubscribe>(),
    row::<event::GetSubscriptions>(),
    row::<event::Send>(),
    row::<session::Login>(),
    row::<session::Logout>(),
    row::<session::Get>(),
    row::<session::Ping>(),
    row::<session::TokenCreate>(),
    row::<session::TokenList>(),
    row::<session::TokenDelete>(),
    row::<session::List>(),
    row::<session::Stop>(),
    row::<server::Info>(),
    row::<server::Help>(),
];

/// [`TABLE`] by subclass and name.
static BY_NAME: LazyLock<FxHashMap<(Subclass, &str), &Row>> = LazyLock::new(|| {
    TABLE
        .iter()
        .map(|row| ((row.subclass, row.name), row))
        .collect()
});

impl Row {
    /// Subclass and name, as the audit log names what was done.
    #[must_use]
    pub fn event(&self) -> String {
        format!("{} {}", self.subclass.as_str(), self.name)
    }

    /// The example as a whole request.
    #[must_use]
    pub fn example_line(&self) -> String {
        let (subclass, name) = (self.subclass.as_str(), self.name);
        format!(
            r#"{{"class":"chat","subclass":"{subclass}","cmd":"{name}","data":{},"tid":1}}"#,
            self.example
        )
    }
}

/// The command of this name, or the refusal that names those there are.
pub fn find(subclass: &str, name: &str) -> Result<&'static Row, Error> {
    let Some(subclass) = Subclass::parse(subclass) else {
        let known: Vec<&str> = Subclass::ALL
            .iter()
            .map(|subclass| subclass.as_str())
            .collect();
        let text = format!(
            "unknown subclass {}; {}",
            excerpt(subclass),
            there_are(subclass, &known)
        );
        return Err(Error::new(Code::UnknownSubclass, text).field("subclass"));
    };
    BY_NAME.get(&(subclass, name)).copied().ok_or_else(|| {
        let known: Vec<&str> = TABLE
            .iter()
            .filter(|row| row.subclass == subclass)
            .map(|row| row.name)
            .collect();
        let text = format!(
            "unknown command {} of {}; {}{}",
            excerpt(name),
            subclass.as_str(),
            elsewhere(name),
            there_are(name, &known)
        );
        Error::new(Code::UnknownCommand, text).field("cmd")
    })
}

/// Which subclasses have the command that this one has not.
fn elsewhere(name: &str) -> String {
    let rows = TABLE.iter().filter(|row| row.name == name);
    let others: Vec<&str> = rows.map(|row| row.subclass.as_str()).collect();
    if others.is_empty() {
        String::new()
    } else {
        format!("it is a command of {}; ", others.join(", "))
    }
}

/// Reads a command's `data` and says what is to be done.
pub fn run(row: &Row, data: Option<&RawValue>, context: &Context<'_>) -> Result<Step, Error> {
    let object = match data {
        None => Object::default(),
        Some(data) => fields::object(data, "data")?
            .ok_or_else(|| Error::invalid("data", "data must be an object"))?,
    };
    (row.run)(&object, context)
}

impl Answer {
    /// The answer's data, where it is that of a plain query.
    #[must_use]
    pub fn into_data(self) -> Bytes {
        match self {
            Self::Json(json) | Self::OutsideJson(json, _) => json,
            _ => Bytes::from_static(b"{}"),
        }
    }
}
