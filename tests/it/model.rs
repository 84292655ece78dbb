//! What chatd should answer and announce, written from the protocol document alone (sections 3 to 8).
//!
//! It is as naive as it can be: objects are JSON values in maps, a search looks at every one of them. It must not share a
//! line with the daemon. Ids and times are the server's to choose, so the model takes them from the daemon's answers; it
//! checks that ids are new and rise, and that times are there when they should be and do not run backwards.

mod commands;
mod events;
mod fields;
mod rights;
mod search;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

pub use events::{Pending, Subscription};
pub use search::{Holds, fields_of};

/// The three kinds of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    User,
    Conversation,
    Message,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::User, Self::Conversation, Self::Message];

    /// The name of its subclass.
    pub fn subclass(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Conversation => "conversation",
            Self::Message => "message",
        }
    }

    /// The name of its id's field.
    pub fn id_field(self) -> &'static str {
        match self {
            Self::User => "user_id",
            Self::Conversation => "conversation_id",
            Self::Message => "message_id",
        }
    }
}

/// What the daemon may answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// `ok` with one of these; more than one only where the protocol leaves the answer open.
    Data(Vec<Value>),
    Refused(Refusal),
}

/// An error that the daemon may answer with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Refusal {
    /// One of these codes; more than one only where the protocol does not say which check comes first.
    pub codes: Vec<&'static str>,
    /// The `field` it names; `None` where several are plausible.
    pub field: Option<String>,
    /// Something that the text must name.
    pub names: Option<String>,
}

impl Refusal {
    pub fn new(code: &'static str, field: &str) -> Self {
        Self {
            codes: vec![code],
            field: Some(field.to_owned()),
            names: None,
        }
    }

    /// One refusal out of several that are equally right.
    pub fn any(refusals: Vec<Self>) -> Option<Self> {
        let mut refusals = refusals.into_iter();
        let first = refusals.next()?;
        Some(refusals.fold(first, |one, other| Self {
            codes: one.codes.into_iter().chain(other.codes).collect(),
            field: if one.field == other.field {
                one.field
            } else {
                None
            },
            names: None,
        }))
    }
}

/// The time of something that has happened, but whose answer did not say when.
const NOT_YET_KNOWN: Value = Value::Null;

/// Everything that a trusted client can find out about a chatd, and whom it shows what.
#[derive(Default)]
pub struct Model {
    /// The user that asks; none where a trusted client does.
    asker: Option<String>,
    /// By user.
    passwords: BTreeMap<String, String>,
    /// By the number of the event that ended a conversation: who was in it.
    last_members: BTreeMap<u64, BTreeSet<String>>,
    /// The objects as `get` gives them, by id.
    objects: BTreeMap<Kind, BTreeMap<String, Value>>,
    /// By conversation, user and nonce: the first message made with it, and its first text. They outlive the message.
    nonces: BTreeMap<(String, String, String), (String, String)>,
    /// The newest id of each kind.
    newest_ids: BTreeMap<Kind, String>,
    /// The latest time seen in an object since the clock was set.
    latest_time: u64,
    /// The clock was set, and no event has come since.
    clock_was_set: bool,
    /// Objects that have a time which is not yet known; see [`Model::learn`].
    pub unread: Vec<(Kind, String)>,
    /// Events that the daemon has yet to send.
    pub pending: Vec<Pending>,
    /// Events that it has sent, whole, in order.
    pub events: Vec<Value>,
    /// Ids that were taken once and are no more.
    pub deleted: BTreeMap<Kind, Vec<String>>,
}

type Answer = Result<Value, Refusal>;

impl Model {
    pub fn objects(&self, kind: Kind) -> impl Iterator<Item = (&String, &Value)> {
        self.objects.get(&kind).into_iter().flatten()
    }

    pub fn ids(&self, kind: Kind) -> Vec<String> {
        self.objects(kind).map(|(id, _)| id.clone()).collect()
    }

    pub fn object(&self, kind: Kind, id: &str) -> Option<&Value> {
        self.objects.get(&kind)?.get(id)
    }

    /// Does the command for a user, or for a trusted client, and says what may be answered. A command that makes an object
    /// takes its id from `answered`.
    pub fn execute(
        &mut self,
        asker: Option<&str>,
        subclass: &str,
        cmd: &str,
        data: &Value,
        answered: &Value,
    ) -> Expected {
        self.asker = asker.map(str::to_owned);
        // Who may use a command is asked before what is in it.
        if (subclass, cmd) == ("user", "create") && !self.may_do_everything() {
            return Expected::Refused(rights::forbidden());
        }
        if let Some(refusal) = fields::check(subclass, cmd, data, asker.is_none()) {
            return Expected::Refused(refusal);
        }
        let answer = match (subclass, cmd) {
            ("user", "search") => return self.search(Kind::User, data),
            ("conversation", "search") => return self.search(Kind::Conversation, data),
            ("message", "search") => return self.search(Kind::Message, data),
            ("user", "get") => self.find(Kind::User, data).cloned(),
            ("conversation", "get") => self.find(Kind::Conversation, data).cloned(),
            ("message", "get") => self.find(Kind::Message, data).cloned(),
            ("user", "create") => self.create_user(data, answered),
            ("user", "update") => self.update_user(data),
            ("user", "delete") => self.delete_user(data),
            ("conversation", "create") => self.create_conversation(data, answered),
            ("conversation", "update") => self.update_conversation(data),
            ("conversation", "delete") => self.delete_conversation(data),
            ("conversation", "add_members") => self.change_members(data, true),
            ("conversation", "remove_members") => self.change_members(data, false),
            ("conversation", "get_members") => self.get_members(data),
            ("message", "create") => self.create_message(data, answered),
            ("message", "update") => self.update_message(data),
            ("message", "delete") => self.delete_message(data),
            _ => panic!("the model knows no {subclass} {cmd}"),
        };
        match answer {
            Ok(data) => Expected::Data(vec![data]),
            Err(refusal) => Expected::Refused(refusal),
        }
    }

    /// Times may be any from here on; ids still rise.
    pub fn clock_is_set(&mut self) {
        self.latest_time = 0;
        self.clock_was_set = true;
    }

    /// Takes an object's times from what `get` gave, and checks everything else of it.
    pub fn learn(&mut self, kind: Kind, id: &str, got: &Value) {
        let latest_time = &mut self.latest_time;
        let object = self
            .objects
            .get_mut(&kind)
            .and_then(|objects| objects.get_mut(id))
            .expect("an object to learn of");
        for field in ["created_time", "updated_time"] {
            if object.get(field) == Some(&NOT_YET_KNOWN) {
                let time = got[field]
                    .as_u64()
                    .unwrap_or_else(|| panic!("no {field} in {got}"));
                assert!(
                    time >= *latest_time,
                    "{field} runs backwards: {got} after {latest_time}"
                );
                *latest_time = time;
                object[field] = json!(time);
            }
        }
        assert_eq!(got, &*object, "get gave the left, the model has the right");
    }

    /// The message that `data` names, if it is in the conversation that `data` names.
    fn message_in_conversation(&self, data: &Value) -> Result<String, Refusal> {
        // Whether the message or its conversation is at fault is the daemon's to say.
        let refusal = Refusal {
            field: None,
            ..Refusal::new("message_not_found", "")
        };
        let message = self
            .find(Kind::Message, data)
            .map_err(|_| refusal.clone())?;
        if message["conversation_id"] != data["conversation_id"] {
            return Err(refusal);
        }
        Ok(text(data, "message_id").to_owned())
    }

    fn find(&self, kind: Kind, data: &Value) -> Result<&Value, Refusal> {
        let code = match kind {
            Kind::User => "user_not_found",
            Kind::Conversation => "conversation_not_found",
            Kind::Message => "message_not_found",
        };
        let id = text(data, kind.id_field());
        self.object(kind, id)
            .filter(|object| self.sees(kind, object))
            .ok_or_else(|| Refusal::new(code, kind.id_field()))
    }

    fn id_of(&self, kind: Kind, data: &Value) -> Result<String, Refusal> {
        self.find(kind, data)
            .map(|object| text(object, kind.id_field()).to_owned())
    }

    /// The users that `user_ids` lists, each once; an error names the first that does not exist.
    fn existing_users(&self, data: &Value) -> Result<BTreeSet<String>, Refusal> {
        let listed = data
            .get("user_ids")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let listed: Vec<&str> = listed.iter().map(|id| id.as_str().unwrap()).collect();
        match listed
            .iter()
            .find(|id| self.object(Kind::User, id).is_none())
        {
            Some(stranger) => Err(Refusal {
                names: Some((*stranger).to_owned()),
                ..Refusal::new("user_not_found", "user_ids")
            }),
            None => Ok(listed.into_iter().map(str::to_owned).collect()),
        }
    }

    fn insert(&mut self, kind: Kind, mut object: Value, answered: &Value) -> String {
        let id = answered[kind.id_field()].as_str();
        let id = id
            .unwrap_or_else(|| panic!("expected a new {}, got {answered}", kind.id_field()))
            .to_owned();
        assert!(
            !id.is_empty()
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()),
            "the id {id}"
        );
        let newest = self.newest_ids.insert(kind, id.clone());
        assert!(
            newest.as_ref() < Some(&id),
            "the id {id} of a new {kind:?} does not sort after {newest:?}"
        );
        object[kind.id_field()] = json!(id);
        object["created_time"] = NOT_YET_KNOWN;
        self.objects
            .entry(kind)
            .or_default()
            .insert(id.clone(), object);
        self.unread.push((kind, id.clone()));
        id
    }

    fn remove(&mut self, kind: Kind, id: &str) {
        self.objects
            .entry(kind)
            .or_default()
            .remove(id)
            .expect("an object to remove");
        self.deleted.entry(kind).or_default().push(id.to_owned());
    }

    /// An object that is being updated.
    fn touch(&mut self, kind: Kind, id: &str) -> &mut Value {
        self.unread.push((kind, id.to_owned()));
        let object = self
            .objects
            .entry(kind)
            .or_default()
            .get_mut(id)
            .expect("an object to update");
        object["updated_time"] = NOT_YET_KNOWN;
        object
    }

    fn announce(&mut self, subclass: &str, event: &str, obj_id: &str, body: Option<Value>) {
        let template = self.template(subclass, event, obj_id, body);
        self.pending.push(Pending::One(template));
    }
}

fn text<'object>(object: &'object Value, field: &str) -> &'object str {
    object[field]
        .as_str()
        .unwrap_or_else(|| panic!("no text {field} in {object}"))
}

fn number(data: &Value, field: &str) -> Option<usize> {
    data.get(field)
        .map(|value| usize::try_from(value.as_u64().unwrap()).unwrap())
}
