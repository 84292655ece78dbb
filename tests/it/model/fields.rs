//! Which fields a command takes, and what is wrong with those that it was given (the protocol's sections 2, 4 and 8).

use serde_json::Value;

use super::{Kind, Refusal, search};

/// What a field may hold.
#[derive(Clone, Copy)]
enum Shape {
    /// Not empty, of at most so many bytes.
    Text(usize),
    Login,
    Name,
    OptionalName,
    ClearableName,
    /// May be empty, of at most so many bytes.
    Optional(usize),
    /// The same, or `null` to clear it.
    Clearable(usize),
    Id,
    Ids,
    Role,
    Flag,
    /// A whole number up to this.
    Number(u64),
    /// Checked where searches are.
    OfSearch,
}

type Field = (&'static str, bool, Shape);

const MANDATORY: bool = true;
const LEFT_OUT: bool = false;
const MAX_LOGIN: usize = 254;
const MAX_NAME: usize = 256;
const MAX_DESCRIPTION: usize = 4096;
const MAX_MESSAGE: usize = 16384;
const MAX_NONCE: usize = 64;
const MAX_PASSWORD: usize = 72;

const USER: Field = ("user_id", MANDATORY, Shape::Id);
const CONVERSATION: Field = ("conversation_id", MANDATORY, Shape::Id);
const MESSAGE: Field = ("message_id", MANDATORY, Shape::Id);
const ROLE: Field = ("role", LEFT_OUT, Shape::Role);

fn fields_of(subclass: &str, cmd: &str, is_trusted: bool) -> Vec<Field> {
    match (subclass, cmd) {
        ("user", "create") => vec![
            ("login", MANDATORY, Shape::Login),
            ("name", MANDATORY, Shape::Name),
            ("surname", LEFT_OUT, Shape::OptionalName),
            ("password", MANDATORY, Shape::Text(MAX_PASSWORD)),
            ROLE,
        ],
        ("user", "update") => vec![
            USER,
            ("name", LEFT_OUT, Shape::Name),
            ("surname", LEFT_OUT, Shape::ClearableName),
            ("password", LEFT_OUT, Shape::Text(MAX_PASSWORD)),
            ("old_password", LEFT_OUT, Shape::Text(MAX_PASSWORD)),
            ("keep_tokens", LEFT_OUT, Shape::Flag),
            ROLE,
        ],
        ("user", "get" | "delete") => vec![USER],
        ("conversation", "create") => vec![
            ("name", MANDATORY, Shape::Name),
            ("description", LEFT_OUT, Shape::Optional(MAX_DESCRIPTION)),
            ("user_ids", LEFT_OUT, Shape::Ids),
        ],
        ("conversation", "update") => vec![
            CONVERSATION,
            ("name", LEFT_OUT, Shape::Name),
            ("description", LEFT_OUT, Shape::Clearable(MAX_DESCRIPTION)),
        ],
        ("conversation", "get" | "delete") => vec![CONVERSATION],
        ("conversation", "add_members" | "remove_members") => {
            vec![CONVERSATION, ("user_ids", MANDATORY, Shape::Ids)]
        }
        ("conversation", "get_members") => vec![
            CONVERSATION,
            ("size", LEFT_OUT, Shape::Number(search::MAX_PAGE)),
            ("from", LEFT_OUT, Shape::Number(u64::MAX)),
        ],
        ("message", "create") => vec![
            CONVERSATION,
            // A user that writes need not say who it is.
            ("user_id", is_trusted, Shape::Id),
            ("message", MANDATORY, Shape::Text(MAX_MESSAGE)),
            ("nonce", LEFT_OUT, Shape::Text(MAX_NONCE)),
        ],
        ("message", "get") => vec![MESSAGE],
        ("message", "update") => vec![
            CONVERSATION,
            MESSAGE,
            ("message", MANDATORY, Shape::Text(MAX_MESSAGE)),
        ],
        ("message", "delete") => vec![CONVERSATION, MESSAGE],
        (_, "search") => [
            "fields",
            "filter",
            "size",
            "from",
            "sort_by",
            "sort_order",
            "total",
        ]
        .map(|name| (name, LEFT_OUT, Shape::OfSearch))
        .to_vec(),
        _ => panic!("the model knows no {subclass} {cmd}"),
    }
}

/// What is wrong with the fields: unknown ones first, then missing ones, then wrong ones.
pub fn check(subclass: &str, cmd: &str, data: &Value, is_trusted: bool) -> Option<Refusal> {
    let fields = fields_of(subclass, cmd, is_trusted);
    let given = data.as_object().expect("data is an object");
    let unknown = given
        .keys()
        .filter(|name| !fields.iter().any(|(known, _, _)| known == name));
    let missing = fields
        .iter()
        .filter(|(name, mandatory, _)| *mandatory && !given.contains_key(*name));
    let wrong = fields
        .iter()
        .filter(|(name, _, shape)| given.get(*name).is_some_and(|value| !fits(*shape, value)));
    Refusal::any(
        unknown
            .map(|name| Refusal::new("unknown_field", name))
            .collect(),
    )
    .or_else(|| {
        Refusal::any(
            missing
                .map(|(name, ..)| Refusal::new("missing_field", name))
                .collect(),
        )
    })
    .or_else(|| {
        Refusal::any(
            wrong
                .map(|(name, ..)| Refusal::new("invalid_field", name))
                .collect(),
        )
    })
    .or_else(|| {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.subclass() == subclass)?;
        if cmd == "search" {
            Refusal::any(search::check(kind, data))
        } else {
            None
        }
    })
}

fn fits(shape: Shape, value: &Value) -> bool {
    match (shape, value) {
        (Shape::OfSearch, _)
        | (Shape::Flag, Value::Bool(_))
        | (Shape::Clearable(_) | Shape::ClearableName, Value::Null) => true,
        (Shape::Text(max), Value::String(text)) => !text.is_empty() && is_text(text, max),
        (Shape::Optional(max) | Shape::Clearable(max), Value::String(text)) => is_text(text, max),
        (Shape::Login, Value::String(login)) => {
            !login.is_empty() && is_text(login, MAX_LOGIN) && !login.contains(is_unseen)
        }
        (Shape::Name, Value::String(name)) => !name.is_empty() && is_name(name),
        (Shape::OptionalName | Shape::ClearableName, Value::String(name)) => is_name(name),
        (Shape::Id, Value::String(id)) => !id.is_empty() && is_text(id, usize::MAX),
        (Shape::Ids, Value::Array(ids)) => ids.iter().all(|id| fits(Shape::Id, id)),
        (Shape::Role, Value::String(role)) => role == "user" || role == "admin",
        (Shape::Number(max), Value::Number(number)) => {
            number.as_u64().is_some_and(|number| number <= max)
        }
        _ => false,
    }
}

fn is_text(text: &str, max_bytes: usize) -> bool {
    text.len() <= max_bytes && !text.contains('\0')
}

/// A name has something to see, and nothing that acts on what is around it.
fn is_name(name: &str) -> bool {
    let acts = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202e}');
    let is_shown = name.is_empty() || !name.chars().all(is_unseen);
    is_text(name, MAX_NAME) && !name.contains(acts) && is_shown
}

/// What cannot be seen, of the characters that the tests use.
fn is_unseen(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{200b}' | '\u{200d}' | '\u{202e}' | '\u{3164}'
        )
}
