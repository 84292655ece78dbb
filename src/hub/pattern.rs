//! What a subscription says: a subclass, a type and an object, each of which may be left open (protocol.md, 6).

use crate::limits::TYPES_PER_REQUEST;
use crate::model::{EventType, ID_CHARS, Id, Subclass};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::cmp::Ordering;
use std::sync::Arc;

/// What stands for everything in a subscription.
pub const ANY: &str = "*";

/// What a subscription counts besides its texts: its share of the tables in which it is found, and what shows it in an
/// answer beside them.
const ENTRY_BYTES: usize = 192;

/// The object of a subscription. It may be anything, but of what is no id there are no events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// What has this id.
    Id(Id),
    /// What is no id, `"*"` among it.
    Other(Arc<str>),
}

impl Ord for Object {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Id(one), Self::Id(other)) => one.cmp(other),
            (Self::Id(_), Self::Other(_)) => Ordering::Less,
            (Self::Other(_), Self::Id(_)) => Ordering::Greater,
            // Those of one connection share it: mostly it need not be read.
            (Self::Other(one), Self::Other(other)) if Arc::ptr_eq(one, other) => Ordering::Equal,
            (Self::Other(one), Self::Other(other)) => one.cmp(other),
        }
    }
}

impl PartialOrd for Object {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Object {
    /// The object that a text names.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Id::parse(text).map_or_else(|| Self::Other(text.into()), Self::Id)
    }

    /// Whether it stands for every object.
    #[must_use]
    pub fn is_any(&self) -> bool {
        matches!(self, Self::Other(text) if &**text == ANY)
    }

    /// Its id, where it has one.
    #[must_use]
    pub fn id(&self) -> Option<Id> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Other(_) => None,
        }
    }
}

/// The type of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// One of stored events; every type, where there is none.
    Stored(Option<EventType>),
    /// One of an application's own.
    Other(Box<str>),
}

impl Type {
    /// The type that a text names, in either spelling.
    #[must_use]
    pub fn new(text: &str) -> Self {
        if text == ANY {
            return Self::Stored(None);
        }
        let stored = EventType::parse(EventType::canonical(text));
        stored.map_or_else(|| Self::Other(text.into()), |kind| Self::Stored(Some(kind)))
    }

    /// Its name, as the wire spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stored(kind) => kind.map_or(ANY, EventType::as_str),
            Self::Other(text) => text,
        }
    }
}

/// One subscription. Those to one object are neighbours, and those to its stored events come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscription {
    /// The object.
    pub object: Object,
    /// The type.
    pub kind: Type,
    /// The subclass; every one, where there is none.
    pub subclass: Option<Subclass>,
}

impl Subscription {
    /// The bytes that it counts: at least what it takes in memory, and what it takes in an answer that shows it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        common_bytes(self.subclass, &self.object) + shown_bytes(self.kind.as_str())
    }

    /// What it counts.
    #[must_use]
    pub fn size(&self) -> Size {
        Size {
            count: 1,
            bytes: self.bytes(),
        }
    }
}

impl Serialize for Subscription {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = serializer.serialize_struct("Subscription", 3)?;
        shown.serialize_field("subclass", name_of(self.subclass))?;
        shown.serialize_field("type", self.kind.as_str())?;
        match &self.object {
            Object::Id(id) => shown.serialize_field("obj_id", id)?,
            Object::Other(text) => shown.serialize_field("obj_id", &**text)?,
        }
        shown.end()
    }
}

/// Subscriptions to one object that differ in their types alone: a line may name thousands of types, and the object is
/// held once for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The subclass; every one, where there is none.
    pub subclass: Option<Subclass>,
    /// The types.
    pub types: Vec<Type>,
    /// The object.
    pub object: Object,
}

impl Pattern {
    /// The subscription to one of its types.
    #[must_use]
    pub fn subscription(&self, kind: Type) -> Subscription {
        Subscription {
            object: self.object.clone(),
            kind,
            subclass: self.subclass,
        }
    }

    /// Its subscriptions, each with the bytes that it counts.
    pub fn into_subscriptions(mut self) -> impl Iterator<Item = (Subscription, usize)> {
        let types = std::mem::take(&mut self.types);
        let common = common_bytes(self.subclass, &self.object);
        types.into_iter().map(move |kind| {
            let bytes = common + shown_bytes(kind.as_str());
            (self.subscription(kind), bytes)
        })
    }

    /// Takes some of its types out of it.
    #[must_use]
    pub fn take(&mut self, most: usize) -> Self {
        let from = self.types.len().saturating_sub(most);
        Self {
            subclass: self.subclass,
            types: self.types.split_off(from),
            object: self.object.clone(),
        }
    }

    /// How many requests it counts as: it names one object, and a type costs less than that.
    #[must_use]
    pub fn requests(&self) -> usize {
        1 + self.types.len() / TYPES_PER_REQUEST
    }

    /// What its subscriptions count, where all of them are new.
    #[must_use]
    pub fn size(&self) -> Size {
        let common = common_bytes(self.subclass, &self.object);
        let bytes = |kind: &Type| common + shown_bytes(kind.as_str());
        Size {
            count: self.types.len(),
            bytes: self.types.iter().map(bytes).sum(),
        }
    }

    /// Whether events of conversations match it.
    fn shows_conversations(&self) -> bool {
        self.subclass.is_none_or(|of| of == Subclass::Conversation)
    }
}

/// The conversations whose events match one of these; none if those of all do.
#[must_use]
pub fn subscribed_conversations(patterns: &[Pattern]) -> Option<Vec<Id>> {
    let shown = patterns.iter().filter(|one| one.shows_conversations());
    let objects = shown.map(|one| &one.object);
    if objects.clone().any(Object::is_any) {
        return None;
    }
    // What cannot be an id is that of nothing.
    Some(objects.filter_map(Object::id).collect())
}

/// How many subscriptions there are, and the bytes that they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// How many.
    pub count: usize,
    /// The bytes that they count.
    pub bytes: usize,
}

impl std::ops::Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl std::iter::Sum for Size {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::default(), std::ops::Add::add)
    }
}

fn name_of(subclass: Option<Subclass>) -> &'static str {
    subclass.map_or(ANY, Subclass::as_str)
}

/// What a subscription counts besides its type.
fn common_bytes(subclass: Option<Subclass>, object: &Object) -> usize {
    let object = match object {
        Object::Id(_) => ID_CHARS,
        Object::Other(text) => shown_bytes(text),
    };
    ENTRY_BYTES + name_of(subclass).len() + object
}

/// The most bytes that a text takes in JSON, without its quotes. The lead bytes are those of the characters that are
/// escaped since some readers take them for ends of lines.
fn shown_bytes(text: &str) -> usize {
    let is_escaped = |byte: &u8| matches!(byte, 0..0x20 | b'"' | b'\\' | 0xc2 | 0xe2);
    text.len()
        + 5 * text
            .as_bytes()
            .iter()
            .filter(|&byte| is_escaped(byte))
            .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_bounds_what_is_held_and_what_is_shown() {
        // Its share of the nodes of two trees, the emptiest there may be, and of those above them.
        let in_a_tree = |bytes: usize| (11 * bytes + 16).div_ceil(5) * 5 / 4;
        let route = (Id(1), 1_u64, 1_u64);
        assert!(
            in_a_tree(size_of::<Subscription>()) + in_a_tree(size_of_val(&route))
                <= ENTRY_BYTES + ANY.len() * 2
        );
        let long = "\u{1}\"\u{85}\u{2028}é".repeat(16);
        for (object, kind) in [
            ("*", "*"),
            ("01k9conv00001", "created_message"),
            (&*long, &long),
        ] {
            let one = Subscription {
                object: Object::new(object),
                kind: Type::new(kind),
                subclass: Some(Subclass::Conversation),
            };
            let shown = serde_json::to_vec(&one).unwrap();
            let shown = crate::wire::escape_separators(shown.into());
            assert!(shown.len() < one.bytes(), "{shown:?}");
        }
    }

    #[test]
    fn a_pattern_counts_as_its_subscriptions_do() {
        let pattern = Pattern {
            subclass: None,
            types: ["*", "typing", "added_members"].map(Type::new).into(),
            object: Object::new("anything"),
        };
        let each = pattern.types.iter().cloned();
        let bytes = each.map(|kind| pattern.subscription(kind).bytes()).sum();
        assert_eq!(pattern.size(), Size { count: 3, bytes });
    }
}
