//! Fields of commands: declared once with their types, from which parsing and help come.

use crate::error::{Code, Error, excerpt};
use crate::limits::{
    EVENT_TYPE_MAX_BYTES, Limits, OPAQUE_MAX_BYTES, PASSWORD_MAX_BYTES, USER_IDS_MAX,
};
use crate::model::{
    ConversationId, CustomType, Given, Id, MessageId, MessageText, Password, Role, Rule, Text,
    Token, TokenId, UserId,
};
use crate::registry::Remote;
use crate::spelling::{nearest, there_are};
use crate::store::Patch;
use crate::wire::{Object, parse_object, whole_number};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Display;

/// A field, for help.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FieldSpec {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be there.
    pub mandatory: bool,
    /// Its type and limits, in words.
    pub r#type: String,
    /// What it is for.
    pub help: &'static str,
}

/// A type that a field can have.
pub trait FieldType: Sized {
    /// Whether a request without the field is refused.
    const MANDATORY: bool = true;

    /// The type and its limits, in words.
    fn describe(limits: &Limits) -> String;

    /// The value of what was written; the error need not name the field.
    fn parse(raw: &RawValue, limits: &Limits) -> Result<Self, Error>;

    /// The value where the field is left out.
    fn left_out() -> Option<Self> {
        None
    }
}

/// Declares a command's fields: a struct, its parser, and its help.
macro_rules! fields {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $help:literal])+ $field:ident: $type:ty,)* }) => {
        $(#[doc = $doc])+
        pub struct $name { $($(#[doc = $help])+ pub $field: $type,)* }

        impl crate::command::Fields for $name {
            fn specs(limits: &crate::limits::Limits) -> Vec<crate::command::fields::FieldSpec> {
                let _ = limits;
                vec![$(crate::command::fields::FieldSpec {
                    name: crate::command::fields::wire_name(stringify!($field)),
                    mandatory: <$type as crate::command::fields::FieldType>::MANDATORY,
                    r#type: <$type as crate::command::fields::FieldType>::describe(limits),
                    help: concat!($($help),+).trim_ascii(),
                },)*]
            }

            fn parse(
                object: &crate::wire::Object<'_>,
                limits: &crate::limits::Limits,
            ) -> Result<Self, crate::error::Error> {
                let _ = limits;
                crate::command::fields::check_names(object, &[$((
                    crate::command::fields::wire_name(stringify!($field)),
                    <$type as crate::command::fields::FieldType>::MANDATORY,
                ),)*])?;
                Ok(Self { $($field: crate::command::fields::field(
                    object,
                    crate::command::fields::wire_name(stringify!($field)),
                    limits,
                )?,)* })
            }
        }
    };
}
pub(crate) use fields;

/// A field's name on the wire, where Rust would take it for a keyword.
pub const fn wire_name(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// Refuses unknown fields, then missing ones.
pub fn check_names(
    object: &crate::wire::Object<'_>,
    known: &[(&'static str, bool)],
) -> Result<(), Error> {
    for (name, _) in &object.entries {
        if !known.iter().any(|(candidate, _)| candidate == name) {
            return Err(unknown_field(name, known.iter().map(|(name, _)| *name)));
        }
    }
    for &(name, mandatory) in known {
        if mandatory && object.get(name).is_none() {
            return Err(Error::new(Code::MissingField, format!("{name} is missing")).field(name));
        }
    }
    Ok(())
}

/// The refusal of an unknown field, naming those there are.
pub fn unknown_field(name: &str, known: impl Iterator<Item = &'static str>) -> Error {
    let known: Vec<&str> = known.collect();
    let there_are = if known.is_empty() {
        "there are none here".to_owned()
    } else {
        there_are(name, &known)
    };
    let text = format!("unknown field {}; {there_are}", excerpt(name));
    Error::new(Code::UnknownField, text).field(name.to_owned())
}

/// A field's value.
pub fn field<T: FieldType>(
    object: &crate::wire::Object<'_>,
    name: &'static str,
    limits: &Limits,
) -> Result<T, Error> {
    match object.get(name) {
        Some(raw) => T::parse(raw, limits).map_err(|error| {
            if error.field_name().is_none() && error.code() == Code::InvalidField {
                error.named(name)
            } else {
                error
            }
        }),
        None => T::left_out().ok_or_else(|| {
            Error::new(Code::MissingField, format!("{name} is missing")).field(name)
        }),
    }
}

/// A wrong value, its field not yet named.
pub fn wrong(text: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Code::InvalidField, text)
}

/// A string, borrowed where it has no escapes.
pub fn string(raw: &RawValue) -> Result<Cow<'_, str>, Error> {
    if !raw.get().starts_with('"') {
        return Err(wrong("must be a string"));
    }
    // The line was found sound, so that there is no string in it that cannot be read.
    crate::wire::text(raw).ok_or_else(|| wrong("must be a string"))
}

/// One of a few words; the refusal names the nearest one.
pub fn one_of<T: Copy>(raw: &RawValue, words: &[(&'static str, T)]) -> Result<T, Error> {
    let text = string(raw)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let listed: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    let meant = nearest(&text, words.iter().map(|(word, _)| *word));
    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant:?}?"));
    Err(wrong(format!("must be {}{meant}", listed.join(" or "))))
}

/// An object, none of whose fields stands twice; `None` for anything else.
pub fn object<'a>(raw: &'a RawValue, place: &str) -> Result<Option<Object<'a>>, Error> {
    let object = parse_object(raw.get()).map_err(|_| wrong("must be an object"))?;
    if let Some(name) = object.as_ref().and_then(|object| object.repeated.as_ref()) {
        let text = format!("the field {} stands twice in {place}", excerpt(name));
        return Err(Error::new(Code::BadRequest, text).field(name.clone().into_owned()));
    }
    Ok(object)
}

/// The elements of a list.
pub fn list(raw: &RawValue) -> Result<Vec<&RawValue>, Error> {
    if !raw.get().starts_with('[') {
        return Err(wrong("must be a list"));
    }
    serde_json::from_str(raw.get()).map_err(|_| wrong("must be a list"))
}

impl<T: FieldType> FieldType for Option<T> {
    const MANDATORY: bool = false;

    fn describe(limits: &Limits) -> String {
        T::describe(limits)
    }

    fn parse(raw: &RawValue, limits: &Limits) -> Result<Self, Error> {
        T::parse(raw, limits).map(Some)
    }

    fn left_out() -> Option<Self> {
        Some(None)
    }
}

impl<T: FieldType> FieldType for Patch<T> {
    const MANDATORY: bool = false;

    fn describe(limits: &Limits) -> String {
        format!("{}, or null to clear it", T::describe(limits))
    }

    fn parse(raw: &RawValue, limits: &Limits) -> Result<Self, Error> {
        if raw.get() == "null" {
            Ok(Self::Clear)
        } else {
            T::parse(raw, limits).map(Self::Set)
        }
    }

    fn left_out() -> Option<Self> {
        Some(Self::Keep)
    }
}

impl<const MIN: usize, const MAX: usize, Kept: Rule> FieldType for Text<MIN, MAX, Kept> {
    fn describe(_: &Limits) -> String {
        format!("string of {MIN} to {MAX} bytes{}", Kept::DESCRIPTION)
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        Self::new(string(raw)?.into_owned()).map_err(wrong)
    }
}

impl FieldType for MessageText {
    fn describe(limits: &Limits) -> String {
        format!("string of 1 to {} bytes", limits.max_message_bytes)
    }

    fn parse(raw: &RawValue, limits: &Limits) -> Result<Self, Error> {
        Self::new(string(raw)?.into_owned(), limits.max_message_bytes).map_err(wrong)
    }
}

impl FieldType for Password {
    fn describe(_: &Limits) -> String {
        format!("string of 1 to {PASSWORD_MAX_BYTES} bytes")
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        Self::new(string(raw)?.into_owned()).map_err(wrong)
    }
}

/// The address of somebody for whom a back end acts.
impl FieldType for Remote {
    fn describe(_: &Limits) -> String {
        "an IP address, with or without a port".to_owned()
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        Self::parse(&string(raw)?).ok_or_else(|| {
            wrong("must be one IP address, such as 203.0.113.7 or 2001:db8::7, with or without a port")
        })
    }
}

/// A token as it was presented; one that cannot be a token is a wrong one.
pub struct Presented(pub Option<Token>);

impl FieldType for Presented {
    fn describe(_: &Limits) -> String {
        "a token, cht_…".to_owned()
    }

    fn parse(raw: &RawValue, limits: &Limits) -> Result<Self, Error> {
        let Opaque(text) = Opaque::parse(raw, limits)?;
        Ok(Self(Token::parse(&text)))
    }
}

impl FieldType for CustomType {
    fn describe(_: &Limits) -> String {
        format!(
            "string of 1 to {EVENT_TYPE_MAX_BYTES} of a-z 0-9 _ . -, none of the server's own types"
        )
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        Self::new(string(raw)?.into_owned()).map_err(wrong)
    }
}

impl FieldType for Role {
    fn describe(_: &Limits) -> String {
        r#""user" or "admin""#.to_owned()
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        one_of(raw, &[("user", Self::User), ("admin", Self::Admin)])
    }
}

/// An id as a client names it: any text but an empty one.
fn given<T: From<Id> + Copy + Display>(raw: &RawValue) -> Result<Given<T>, Error> {
    let text = string(raw)?;
    if text.is_empty() || text.contains('\0') {
        return Err(wrong("must be an id"));
    }
    Ok(Given::new(&text))
}

macro_rules! id_fields {
    ($($name:ident)+) => {$(
        impl FieldType for Given<$name> {
            fn describe(_: &Limits) -> String {
                "id".to_owned()
            }

            fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
                given(raw)
            }
        }
    )+};
}

id_fields! { UserId ConversationId MessageId TokenId Id }

impl FieldType for Vec<Given<UserId>> {
    fn describe(_: &Limits) -> String {
        format!("list of at most {USER_IDS_MAX} ids")
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        let ids = list(raw)?;
        if ids.len() > USER_IDS_MAX {
            return Err(wrong(format!(
                "has {} ids, and at most {USER_IDS_MAX} are allowed",
                ids.len()
            )));
        }
        ids.into_iter().map(given).collect()
    }
}

impl FieldType for bool {
    fn describe(_: &Limits) -> String {
        "true or false".to_owned()
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        match raw.get() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(wrong("must be true or false")),
        }
    }
}

impl FieldType for u64 {
    fn describe(_: &Limits) -> String {
        "integer, 0 or more".to_owned()
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        let number = whole_number(raw).and_then(|number| Self::try_from(number).ok());
        number.ok_or_else(|| wrong("must be an integer, 0 or more"))
    }
}

/// A text that means something to the application only, such as an `epoch`.
pub struct Opaque(pub String);

impl FieldType for Opaque {
    fn describe(_: &Limits) -> String {
        format!("string of 1 to {OPAQUE_MAX_BYTES} bytes")
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        Text::<1, { OPAQUE_MAX_BYTES }>::new(string(raw)?.into_owned())
            .map(|text| Self(text.into_string()))
            .map_err(wrong)
    }
}

/// A JSON object that is passed on as it was written.
pub struct Body(pub Box<RawValue>);

impl FieldType for Body {
    fn describe(_: &Limits) -> String {
        "object".to_owned()
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        // The line was found sound, this part of it too: nothing in it needs to be read.
        if raw.get().starts_with('{') {
            Ok(Self(raw.to_owned()))
        } else {
            Err(wrong("must be an object"))
        }
    }
}
