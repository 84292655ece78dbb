//! What a connection is subscribed to.

use crate::limits::TYPES_PER_REQUEST;
use crate::model::{EventType, Id, Subclass};
use std::collections::{BTreeMap, BTreeSet};

/// What stands for everything in a subscription.
pub const ANY: &str = "*";

/// One subscription, with `"*"` for what it leaves open. Types are spelled as the wire spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Subscription<'a> {
    /// The subclass.
    pub subclass: &'a str,
    /// The event's type.
    pub r#type: &'a str,
    /// The object.
    pub obj_id: &'a str,
}

/// Subscriptions to one object that differ in their types alone: a line may name thousands of types, and the object is
/// looked up once for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The subclass, or `"*"`.
    pub subclass: Box<str>,
    /// The types, each of which may be `"*"`.
    pub types: Vec<Box<str>>,
    /// The object, or `"*"`.
    pub obj_id: Box<str>,
}

/// What a subscription counts besides its texts: its share of the tables in which it is found.
const ENTRY_BYTES: usize = 256;

/// The subscriptions of one connection.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    by_object: BTreeMap<Box<str>, Kinds>,
    size: Size,
    /// The stored events that those of an object match.
    masks: BTreeMap<Id, Mask>,
    /// The stored events that those of every object match.
    mask: Mask,
}

/// How many subscriptions there are, and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// How many.
    pub count: usize,
    /// Bytes of memory that they count.
    pub bytes: usize,
}

/// The types of the subscriptions to one object, by subclass: sets, so that neither a change nor an event looks at all
/// of them.
type Kinds = BTreeMap<Box<str>, BTreeSet<Box<str>>>;

/// The stored events that subscriptions match, a bit for each subclass and type: what is looked at for every event and
/// every subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mask(u64);

impl Mask {
    fn of(subclass: Subclass, kind: EventType) -> Self {
        const TYPES: u8 = 8;
        const { assert!(EventType::ALL.len() <= 8 && Subclass::ALL.len() <= 8) };
        Self(1 << ((subclass.number() - 1) * TYPES + kind.number() - 1))
    }

    /// What a subclass and a type match. Of most types that somebody may name there are no stored events.
    fn of_names(subclass: &str, kind: &str) -> Self {
        let mut mask = 0;
        if kind == ANY || EventType::parse(kind).is_some() {
            for &of in Subclass::ALL {
                for &event in EventType::ALL {
                    if fits(subclass, of.as_str()) && fits(kind, event.as_str()) {
                        mask |= Self::of(of, event).0;
                    }
                }
            }
        }
        Self(mask)
    }

    /// What any of an object's subscriptions match. However many they are, few can match an event that is stored.
    fn of_object(kinds: &Kinds) -> Self {
        let mut mask = Self::default();
        for (subclass, names) in kinds {
            let stored = EventType::ALL.iter().map(|kind| kind.as_str());
            for kind in stored.chain([ANY]).filter(|&kind| names.contains(kind)) {
                mask.0 |= Self::of_names(subclass, kind).0;
            }
        }
        mask
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Whether a name, or `"*"`, fits what an event has.
fn fits(name: &str, of_event: &str) -> bool {
    name == ANY || name == of_event
}

impl Pattern {
    /// How many subscriptions it names, whether or not some of them are the same.
    #[must_use]
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// How many requests it counts as: it names one object, and its types cost less.
    #[must_use]
    pub fn requests(&self) -> usize {
        1 + self.types.len() / TYPES_PER_REQUEST
    }

    /// What its subscriptions count, where none of them is there yet.
    #[must_use]
    pub fn size(&self) -> Size {
        let types = self
            .types
            .iter()
            .map(|name| entry_bytes(&self.subclass, name));
        Size {
            count: self.types.len(),
            bytes: self.obj_id.len() + types.sum::<usize>(),
        }
    }
}

/// What a subscription counts beside its object, which is kept once.
fn entry_bytes(subclass: &str, kind: &str) -> usize {
    ENTRY_BYTES + subclass.len() + kind.len()
}

impl Subscriptions {
    /// How many there are, and what they take.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// All of them, sorted by object.
    pub fn iter(&self) -> impl Iterator<Item = Subscription<'_>> {
        self.by_object.iter().flat_map(|(obj_id, kinds)| {
            kinds.iter().flat_map(move |(subclass, names)| {
                names.iter().map(move |name| Subscription {
                    subclass,
                    r#type: name,
                    obj_id,
                })
            })
        })
    }

    /// Adds those of a pattern; each counts once.
    pub fn insert(&mut self, pattern: Pattern) {
        let Pattern {
            subclass,
            types,
            obj_id,
        } = pattern;
        let mut mask = Mask::default();
        for name in &types {
            mask.0 |= Mask::of_names(&subclass, name).0;
        }
        if &*obj_id == ANY {
            self.mask.0 |= mask.0;
        } else if mask != Mask::default()
            && let Some(object) = Id::parse(&obj_id)
        {
            self.masks.entry(object).or_default().0 |= mask.0;
        }
        let object_bytes = obj_id.len();
        let kinds = self.by_object.entry(obj_id).or_default();
        if kinds.is_empty() {
            self.size.bytes += object_bytes;
        }
        let names = kinds.entry(subclass.clone()).or_default();
        for name in types {
            let bytes = entry_bytes(&subclass, &name);
            if names.insert(name) {
                self.size.count += 1;
                self.size.bytes += bytes;
            }
        }
    }

    /// Removes those of a pattern; true if others of the same object are left.
    pub fn remove(&mut self, pattern: &Pattern) -> bool {
        let Some(kinds) = self.by_object.get_mut(&pattern.obj_id) else {
            return false;
        };
        let mut removed = 0;
        if let Some(names) = kinds.get_mut(&pattern.subclass) {
            for name in &pattern.types {
                if names.remove(name) {
                    removed += 1;
                    self.size.bytes -= entry_bytes(&pattern.subclass, name);
                }
            }
            if names.is_empty() {
                kinds.remove(&pattern.subclass);
            }
        }
        self.size.count -= removed;
        let left = !kinds.is_empty();
        if !left {
            self.by_object.remove(&pattern.obj_id);
            self.size.bytes -= pattern.obj_id.len();
        }
        if removed > 0 {
            self.mask_anew(&pattern.obj_id);
        }
        left
    }

    fn mask_anew(&mut self, object: &str) {
        let mask = match self.by_object.get(object) {
            Some(kinds) => Mask::of_object(kinds),
            None => Mask::default(),
        };
        if object == ANY {
            self.mask = mask;
        } else if let Some(object) = Id::parse(object) {
            if mask == Mask::default() {
                self.masks.remove(&object);
            } else {
                self.masks.insert(object, mask);
            }
        }
    }

    /// The objects that they name, `"*"` among them.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.by_object.keys().map(AsRef::as_ref)
    }

    /// Whether any of them matches a stored event.
    #[must_use]
    pub fn match_event(&self, subclass: Subclass, kind: EventType, object: Id) -> bool {
        let event = Mask::of(subclass, kind);
        self.mask.has(event) || self.masks.get(&object).is_some_and(|mask| mask.has(event))
    }

    /// Whether any of them matches an event of a conversation that is not stored.
    #[must_use]
    pub fn match_ephemeral(&self, kind: &str, conversation: &str) -> bool {
        [conversation, ANY].into_iter().any(|object| {
            self.by_object.get(object).is_some_and(|kinds| {
                [Subclass::Conversation.as_str(), ANY]
                    .into_iter()
                    .filter_map(|subclass| kinds.get(subclass))
                    .any(|names| names.contains(kind) || names.contains(ANY))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(subclass: &str, kinds: &[&str], object: &str) -> Pattern {
        Pattern {
            subclass: subclass.into(),
            types: kinds.iter().map(|&kind| kind.into()).collect(),
            obj_id: object.into(),
        }
    }

    #[test]
    fn masks_match_what_the_patterns_say() {
        let id = Id(9);
        let object = id.to_string();
        let words = |names: Vec<&'static str>| names.into_iter().chain([ANY, "other"]);
        let subclasses = Subclass::ALL.iter().map(|subclass| subclass.as_str());
        let kinds = EventType::ALL.iter().map(|kind| kind.as_str());
        let (subclasses, kinds): (Vec<_>, Vec<_>) = (subclasses.collect(), kinds.collect());
        for subclass in words(subclasses) {
            for kind in words(kinds.clone()) {
                for named in [&object, ANY, "no id"] {
                    let mut one = Subscriptions::default();
                    let pattern = pattern(subclass, &[kind], named);
                    one.insert(pattern.clone());
                    assert_eq!(one.size(), pattern.size());
                    for &of in Subclass::ALL {
                        for &event in EventType::ALL {
                            let expected = named != "no id"
                                && fits(subclass, of.as_str())
                                && fits(kind, event.as_str());
                            assert_eq!(one.match_event(of, event, id), expected, "{pattern:?}");
                            let elsewhere = one.match_event(of, event, Id(8));
                            assert_eq!(elsewhere, expected && named == ANY);
                        }
                    }
                    assert!(!one.remove(&pattern));
                    assert_eq!((one.masks.len(), one.mask), (0, Mask::default()));
                    assert_eq!(one.size(), Size::default());
                }
            }
        }
    }

    #[test]
    fn what_one_of_several_matches_is_left_when_another_goes() {
        let mut some = Subscriptions::default();
        let (id, created) = (Id(9), EventType::CreatedMessage);
        let object = id.to_string();
        let all = pattern("conversation", &[ANY, "typing"], &object);
        let one = pattern(ANY, &[created.as_str()], &object);
        some.insert(all.clone());
        some.insert(one.clone());
        some.insert(one);
        assert_eq!(some.size().count, 3);
        assert!(some.match_ephemeral("typing", &object));
        assert!(some.remove(&all));
        assert!(!some.match_ephemeral("typing", &object));
        let conversation = Subclass::Conversation;
        assert!(some.match_event(conversation, created, id));
        assert!(!some.match_event(conversation, EventType::Deleted, id));
    }
}
