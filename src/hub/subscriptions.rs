//! What a connection is subscribed to.

use crate::model::{EventType, Id, Subclass};
use std::collections::BTreeMap;

/// What stands for everything in a subscription.
pub const ANY: &str = "*";

/// One subscription, with `"*"` for what it leaves open. Types are spelled as the wire spells them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Subscription {
    /// The subclass.
    pub subclass: Box<str>,
    /// The event's type.
    pub r#type: Box<str>,
    /// The object.
    pub obj_id: Box<str>,
}

/// The conversations whose events match one of these; none if those of all do.
#[must_use]
pub fn subscribed_conversations(subscriptions: &[Subscription]) -> Option<Vec<Id>> {
    let subclasses = [ANY, Subclass::Conversation.as_str()];
    let shown = |wanted: &&Subscription| subclasses.contains(&&*wanted.subclass);
    let mut named = Vec::new();
    for wanted in subscriptions.iter().filter(shown) {
        if &*wanted.obj_id == ANY {
            return None;
        }
        // What cannot be an id is that of nothing.
        named.extend(Id::parse(&wanted.obj_id));
    }
    Some(named)
}

/// What a subscription counts besides its texts: its share of the tables in which it is found.
const ENTRY_BYTES: usize = 256;

/// The subscriptions of one connection.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    by_object: BTreeMap<Box<str>, Patterns>,
    count: usize,
    bytes: usize,
    /// The stored events that those of an object match.
    masks: BTreeMap<Id, Mask>,
    /// The stored events that those of every object match.
    mask: Mask,
}

/// Subclass and type of the subscriptions to one object, sorted.
type Patterns = Vec<(Box<str>, Box<str>)>;

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

    /// What a pattern matches.
    fn of_pattern(pattern: (&str, &str)) -> Self {
        let mut mask = 0;
        for &subclass in Subclass::ALL {
            for &kind in EventType::ALL {
                if fits(pattern, subclass.as_str(), kind.as_str()) {
                    mask |= Self::of(subclass, kind).0;
                }
            }
        }
        Self(mask)
    }

    /// What any of an object's patterns match. However many they are, few can match an event that is stored.
    fn of_object(patterns: &Patterns) -> Self {
        let subclasses = Subclass::ALL.iter().map(|subclass| subclass.as_str());
        let mut mask = Self::default();
        for subclass in subclasses.chain([ANY]) {
            let kinds = EventType::ALL.iter().map(|kind| kind.as_str());
            for kind in kinds.chain([ANY]) {
                if place(patterns, (subclass, kind)).is_ok() {
                    mask.0 |= Self::of_pattern((subclass, kind)).0;
                }
            }
        }
        mask
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Whether a pattern of subclass and type fits an event of these.
fn fits(pattern: (&str, &str), subclass: &str, kind: &str) -> bool {
    (pattern.0 == ANY || pattern.0 == subclass) && (pattern.1 == ANY || pattern.1 == kind)
}

/// Where a pattern is, or would be.
fn place(patterns: &Patterns, pattern: (&str, &str)) -> Result<usize, usize> {
    patterns.binary_search_by(|(subclass, kind)| (&**subclass, &**kind).cmp(&pattern))
}

impl Subscription {
    fn pattern(&self) -> (&str, &str) {
        (&self.subclass, &self.r#type)
    }

    /// Bytes of memory that it counts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        ENTRY_BYTES + self.subclass.len() + self.r#type.len() + self.obj_id.len()
    }
}

impl Subscriptions {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of memory that they count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of them, sorted by object.
    pub fn iter(&self) -> impl Iterator<Item = Subscription> {
        self.by_object.iter().flat_map(|(object, patterns)| {
            patterns.iter().map(|(subclass, kind)| Subscription {
                subclass: subclass.clone(),
                r#type: kind.clone(),
                obj_id: object.clone(),
            })
        })
    }

    /// Adds one; it counts once.
    pub fn insert(&mut self, subscription: Subscription) {
        let mask = Mask::of_pattern(subscription.pattern());
        let object = &subscription.obj_id;
        if &**object == ANY {
            self.mask.0 |= mask.0;
        } else if let Some(object) = Id::parse(object)
            && mask != Mask::default()
        {
            self.masks.entry(object).or_default().0 |= mask.0;
        }
        let bytes = subscription.bytes();
        let Subscription {
            subclass,
            r#type,
            obj_id,
        } = subscription;
        let patterns = self.by_object.entry(obj_id).or_default();
        if let Err(place) = place(patterns, (&subclass, &r#type)) {
            patterns.insert(place, (subclass, r#type));
            self.count += 1;
            self.bytes += bytes;
        }
    }

    /// Removes one; true if others of the same object are left.
    pub fn remove(&mut self, subscription: &Subscription) -> bool {
        let Some(patterns) = self.by_object.get_mut(&subscription.obj_id) else {
            return false;
        };
        if let Ok(place) = place(patterns, subscription.pattern()) {
            patterns.remove(place);
            self.count -= 1;
            self.bytes -= subscription.bytes();
        }
        let left = !patterns.is_empty();
        if !left {
            self.by_object.remove(&subscription.obj_id);
        }
        self.mask_anew(&subscription.obj_id);
        left
    }

    fn mask_anew(&mut self, object: &str) {
        let mask = match self.by_object.get(object) {
            Some(patterns) => Mask::of_object(patterns),
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
            self.by_object.get(object).is_some_and(|patterns| {
                patterns.iter().any(|(subclass, r#type)| {
                    fits((subclass, r#type), Subclass::Conversation.as_str(), kind)
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(subclass: &str, kind: &str, object: &str) -> Subscription {
        Subscription {
            subclass: subclass.into(),
            r#type: kind.into(),
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
                    let pattern = subscription(subclass, kind, named);
                    one.insert(pattern.clone());
                    for &of in Subclass::ALL {
                        for &event in EventType::ALL {
                            let expected = named != "no id"
                                && fits(pattern.pattern(), of.as_str(), event.as_str());
                            assert_eq!(one.match_event(of, event, id), expected, "{pattern:?}");
                            let elsewhere = one.match_event(of, event, Id(8));
                            assert_eq!(elsewhere, expected && named == ANY);
                        }
                    }
                    assert!(!one.remove(&pattern));
                    assert_eq!((one.masks.len(), one.mask), (0, Mask::default()));
                }
            }
        }
    }

    #[test]
    fn what_one_of_several_matches_is_left_when_another_goes() {
        let mut some = Subscriptions::default();
        let (id, created) = (Id(9), EventType::CreatedMessage);
        let all = subscription("conversation", ANY, &id.to_string());
        let one = subscription(ANY, created.as_str(), &id.to_string());
        some.insert(all.clone());
        some.insert(one.clone());
        some.insert(one);
        assert_eq!(some.len(), 2);
        assert!(some.remove(&all));
        let conversation = Subclass::Conversation;
        assert!(some.match_event(conversation, created, id));
        assert!(!some.match_event(conversation, EventType::Deleted, id));
    }
}
