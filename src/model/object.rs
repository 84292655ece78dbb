//! Users, conversations and messages, and their fields as answers, searches and sorting see them (protocol.md, 3).

use crate::model::{ConversationId, Id, MessageId, UserId};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;

/// What a user may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What the table of protocol.md, 7 says.
    #[default]
    User,
    /// Everything.
    Admin,
}

impl Role {
    /// The role's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }
}

/// A user, without its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User<'a> {
    /// Its id.
    pub user_id: UserId,
    /// Its login, as given; none where it may not be seen.
    pub login: Option<Cow<'a, str>>,
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its surname, if it was ever set.
    pub surname: Option<Cow<'a, str>>,
    /// Its role.
    pub role: Role,
    /// When it was created, in milliseconds.
    pub created_time: u64,
    /// When it was last updated, in milliseconds.
    pub updated_time: Option<u64>,
}

/// A conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation<'a> {
    /// Its id.
    pub conversation_id: ConversationId,
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its description, if it was ever set.
    pub description: Option<Cow<'a, str>>,
    /// How many members it has.
    pub member_count: u64,
    /// Its members in the order of their ids; `None` where they are too many or were not asked for.
    pub user_ids: Option<Vec<UserId>>,
    /// The user whose session created it, when there was one.
    pub created_by: Option<UserId>,
    /// When it was created, in milliseconds.
    pub created_time: u64,
    /// When it was last updated, in milliseconds.
    pub updated_time: Option<u64>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its id.
    pub message_id: MessageId,
    /// The conversation it is in.
    pub conversation_id: ConversationId,
    /// Its author.
    pub user_id: UserId,
    /// Its text.
    pub message: Cow<'a, str>,
    /// When it was created, in milliseconds.
    pub created_time: u64,
    /// When it was last updated, in milliseconds.
    pub updated_time: Option<u64>,
}

/// The kinds of objects that can be searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Users.
    User,
    /// Conversations.
    Conversation,
    /// Messages.
    Message,
}

/// A field of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are those of the objects above")]
pub enum Field {
    UserId,
    Login,
    Name,
    Surname,
    Role,
    ConversationId,
    Description,
    MemberCount,
    UserIds,
    CreatedBy,
    MessageId,
    Message,
    CreatedTime,
    UpdatedTime,
}

/// How the values of a field are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// An id.
    Id,
    /// A list of ids.
    Ids,
    /// A text that `match` may search.
    Text,
    /// A login: compared without regard to case.
    Login,
    /// A role's name.
    Role,
    /// An integer.
    Integer,
}

/// The value of a field of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// It was never set.
    Absent,
    /// An id.
    Id(Id),
    /// Ids.
    Ids(&'a [UserId]),
    /// A text.
    Text(&'a str),
    /// An integer.
    Integer(u64),
}

impl Kind {
    /// The kind's fields in the order in which an object lists them, its id first.
    #[must_use]
    pub const fn fields(self) -> &'static [Field] {
        use Field::{
            ConversationId, CreatedBy, CreatedTime, Description, Login, MemberCount, Message,
            MessageId, Name, Role, Surname, UpdatedTime, UserId, UserIds,
        };
        match self {
            Self::User => &[UserId, Login, Name, Surname, Role, CreatedTime, UpdatedTime],
            Self::Conversation => &[
                ConversationId,
                Name,
                Description,
                MemberCount,
                UserIds,
                CreatedBy,
                CreatedTime,
                UpdatedTime,
            ],
            Self::Message => &[
                MessageId,
                ConversationId,
                UserId,
                Message,
                CreatedTime,
                UpdatedTime,
            ],
        }
    }

    /// The field that holds the object's own id.
    #[must_use]
    pub const fn id_field(self) -> Field {
        self.fields()[0]
    }

    /// The kind's field of this name.
    #[must_use]
    pub fn field(self, name: &str) -> Option<Field> {
        self.fields()
            .iter()
            .copied()
            .find(|field| field.name() == name)
    }
}

impl Field {
    /// The field's name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserId => "user_id",
            Self::Login => "login",
            Self::Name => "name",
            Self::Surname => "surname",
            Self::Role => "role",
            Self::ConversationId => "conversation_id",
            Self::Description => "description",
            Self::MemberCount => "member_count",
            Self::UserIds => "user_ids",
            Self::CreatedBy => "created_by",
            Self::MessageId => "message_id",
            Self::Message => "message",
            Self::CreatedTime => "created_time",
            Self::UpdatedTime => "updated_time",
        }
    }

    /// How the field's values are compared.
    #[must_use]
    pub const fn kind(self) -> FieldKind {
        match self {
            Self::UserId | Self::ConversationId | Self::MessageId | Self::CreatedBy => {
                FieldKind::Id
            }
            Self::UserIds => FieldKind::Ids,
            Self::Login => FieldKind::Login,
            Self::Role => FieldKind::Role,
            Self::Name | Self::Surname | Self::Description | Self::Message => FieldKind::Text,
            Self::MemberCount | Self::CreatedTime | Self::UpdatedTime => FieldKind::Integer,
        }
    }
}

/// An object whose fields can be read one by one.
pub trait Object {
    /// What it is.
    const KIND: Kind;

    /// The value of a field of its kind.
    fn value(&self, field: Field) -> FieldValue<'_>;
}

fn optional_text<'a>(text: Option<&'a Cow<'_, str>>) -> FieldValue<'a> {
    text.map_or(FieldValue::Absent, |text| FieldValue::Text(text))
}

fn optional_time(time: Option<u64>) -> FieldValue<'static> {
    time.map_or(FieldValue::Absent, FieldValue::Integer)
}

impl Object for User<'_> {
    const KIND: Kind = Kind::User;

    fn value(&self, field: Field) -> FieldValue<'_> {
        match field {
            Field::UserId => FieldValue::Id(self.user_id.0),
            Field::Login => optional_text(self.login.as_ref()),
            Field::Name => FieldValue::Text(&self.name),
            Field::Surname => optional_text(self.surname.as_ref()),
            Field::Role => FieldValue::Text(self.role.as_str()),
            Field::CreatedTime => FieldValue::Integer(self.created_time),
            Field::UpdatedTime => optional_time(self.updated_time),
            _ => FieldValue::Absent,
        }
    }
}

impl Object for Conversation<'_> {
    const KIND: Kind = Kind::Conversation;

    fn value(&self, field: Field) -> FieldValue<'_> {
        match field {
            Field::ConversationId => FieldValue::Id(self.conversation_id.0),
            Field::Name => FieldValue::Text(&self.name),
            Field::Description => optional_text(self.description.as_ref()),
            Field::MemberCount => FieldValue::Integer(self.member_count),
            Field::UserIds => self
                .user_ids
                .as_deref()
                .map_or(FieldValue::Absent, FieldValue::Ids),
            Field::CreatedBy => self
                .created_by
                .map_or(FieldValue::Absent, |user| FieldValue::Id(user.0)),
            Field::CreatedTime => FieldValue::Integer(self.created_time),
            Field::UpdatedTime => optional_time(self.updated_time),
            _ => FieldValue::Absent,
        }
    }
}

impl Object for Message<'_> {
    const KIND: Kind = Kind::Message;

    fn value(&self, field: Field) -> FieldValue<'_> {
        match field {
            Field::MessageId => FieldValue::Id(self.message_id.0),
            Field::ConversationId => FieldValue::Id(self.conversation_id.0),
            Field::UserId => FieldValue::Id(self.user_id.0),
            Field::Message => FieldValue::Text(&self.message),
            Field::CreatedTime => FieldValue::Integer(self.created_time),
            Field::UpdatedTime => optional_time(self.updated_time),
            _ => FieldValue::Absent,
        }
    }
}

/// An object with some of its fields, as an answer shows it: its id first, absent fields left out.
pub struct Projection<'a, T> {
    /// The object.
    pub object: &'a T,
    /// The fields to show besides the id.
    pub fields: &'a [Field],
}

impl<T: Object> Serialize for Projection<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let id_field = T::KIND.id_field();
        let mut map = serializer.serialize_map(None)?;
        for &field in
            std::iter::once(&id_field).chain(self.fields.iter().filter(|&&field| field != id_field))
        {
            let name = field.name();
            match self.object.value(field) {
                FieldValue::Absent => {}
                // "user" is what a role is when nothing is said (protocol.md, 3).
                FieldValue::Text("user") if field == Field::Role => {}
                FieldValue::Id(id) => map.serialize_entry(name, &id)?,
                FieldValue::Ids(ids) => map.serialize_entry(name, ids)?,
                FieldValue::Text(text) => map.serialize_entry(name, text)?,
                FieldValue::Integer(number) => map.serialize_entry(name, &number)?,
            }
        }
        map.end()
    }
}

macro_rules! serialize_whole {
    ($($name:ident)+) => {$(
        impl Serialize for $name<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Projection { object: self, fields: Self::KIND.fields() }.serialize(serializer)
            }
        }
    )+};
}

serialize_whole! { User Conversation Message }
