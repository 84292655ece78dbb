//! What one connection is subscribed to: a sorted set, in which a change costs what is changed, and no more.

use super::mask::Mask;
use super::pattern::{Object, Pattern, Size, Subscription, Type};
use crate::model::{Id, Subclass};
use std::collections::BTreeSet;
use std::ops::Bound;

/// The subscriptions of one connection.
#[derive(Debug, Default)]
pub struct Subscriptions {
    all: BTreeSet<Subscription>,
    bytes: usize,
}

impl Subscriptions {
    /// How many there are, and the bytes that they count.
    pub fn size(&self) -> Size {
        Size {
            count: self.all.len(),
            bytes: self.bytes,
        }
    }

    /// The object as those to it have it: its text is held once, and is the same at a glance.
    pub fn shared(&self, object: Object) -> Object {
        let first = first_of(&object);
        let found = self.all.range(first..).next();
        let found = found.filter(|found| found.object == object);
        found.map_or(object, |found| found.object.clone())
    }

    /// Adds those of a pattern; each counts once.
    pub fn insert(&mut self, pattern: Pattern) {
        for (one, bytes) in pattern.into_subscriptions() {
            if self.all.insert(one) {
                self.bytes += bytes;
            }
        }
    }

    /// Removes those of a pattern.
    pub fn remove(&mut self, pattern: Pattern) {
        for (one, bytes) in pattern.into_subscriptions() {
            if self.all.remove(&one) {
                self.bytes -= bytes;
            }
        }
    }

    /// Whether it is there.
    pub fn has(&self, subscription: &Subscription) -> bool {
        self.all.contains(subscription)
    }

    /// Those behind one, or all of them, in their order.
    pub fn behind(&self, last: Option<&Subscription>) -> impl Iterator<Item = &Subscription> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.all.range((from, Bound::Unbounded))
    }

    /// What those to an object match; nothing, if there are none. However many they are, few are looked at: those to
    /// stored events come first.
    pub fn mask(&self, object: &Object) -> Option<Mask> {
        let mut mask = None;
        let of_object = self.all.range(first_of(object)..);
        for one in of_object.take_while(|one| one.object == *object) {
            *mask.get_or_insert_default() |= Mask::of_subscription(one.subclass, &one.kind);
            if matches!(one.kind, Type::Other(_)) {
                break;
            }
        }
        mask
    }

    /// The ids of the objects that they name, each once.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        let mut before = None;
        self.all.iter().filter_map(move |one| {
            let id = one.object.id()?;
            (before.replace(id) != Some(id)).then_some(id)
        })
    }
}

/// What stands before all others to an object.
fn first_of(object: &Object) -> Subscription {
    Subscription {
        object: object.clone(),
        kind: Type::Stored(None),
        subclass: None,
    }
}

/// The subscriptions that name the type of an event that is not stored: made once, and looked for with every subscriber.
pub struct Named {
    here: [Subscription; 2],
    anywhere: [Subscription; 2],
}

impl Named {
    /// Those that match an event of this type of a conversation.
    pub fn new(kind: &str, conversation: Id) -> Self {
        let name = |object: Object| {
            [None, Some(Subclass::Conversation)].map(|subclass| Subscription {
                object: object.clone(),
                kind: Type::Other(kind.into()),
                subclass,
            })
        };
        Self {
            here: name(Object::Id(conversation)),
            anywhere: name(Object::new(super::ANY)),
        }
    }

    /// Whether a connection has one of them, or one for every type, to the conversation itself; `mask` is what its
    /// subscriptions to it match.
    pub fn are_here(&self, mask: Mask, all: &Subscriptions) -> bool {
        Self::are_among(&self.here, mask, all)
    }

    /// The same of its subscriptions to every object.
    pub fn are_anywhere(&self, mask: Mask, all: &Subscriptions) -> bool {
        Self::are_among(&self.anywhere, mask, all)
    }

    fn are_among(named: &[Subscription], mask: Mask, all: &Subscriptions) -> bool {
        mask.meets(Mask::EVERY_OTHER)
            || mask.meets(Mask::SOME_OTHER) && named.iter().any(|one| all.has(one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::ANY;
    use crate::model::EventType;

    fn pattern(subclass: Option<Subclass>, kind: &str, object: &str) -> Pattern {
        Pattern {
            subclass,
            types: vec![Type::new(kind)],
            object: Object::new(object),
        }
    }

    fn mask(all: &Subscriptions, object: &str) -> Mask {
        all.mask(&Object::new(object)).unwrap_or_default()
    }

    #[test]
    fn masks_match_what_the_subscriptions_say() {
        let id = Id(9);
        let object = id.to_string();
        let subclasses = [None, Some(Subclass::User), Some(Subclass::Conversation)];
        let kinds = EventType::ALL.iter().map(|kind| kind.as_str());
        let kinds: Vec<&str> = kinds.chain([ANY, "typing", "other"]).collect();
        for subclass in subclasses {
            for &kind in &kinds {
                for named in [&object, ANY, "no id"] {
                    let mut one = Subscriptions::default();
                    let only = pattern(subclass, kind, named);
                    one.insert(only.clone());
                    assert_eq!(one.size(), only.size());
                    for &of in Subclass::ALL {
                        for &event in EventType::ALL {
                            let matches = subclass.is_none_or(|subclass| subclass == of)
                                && [ANY, event.as_str()].contains(&kind);
                            let event = Mask::of_event(of, event);
                            assert_eq!(mask(&one, named).meets(event), matches, "{only:?}");
                        }
                    }
                    let matches =
                        subclass != Some(Subclass::User) && [ANY, "typing"].contains(&kind);
                    let typing = Named::new("typing", id);
                    let here = typing.are_here(mask(&one, &object), &one);
                    let anywhere = typing.are_anywhere(mask(&one, ANY), &one);
                    assert_eq!(here, matches && named == object, "{only:?}");
                    assert_eq!(anywhere, matches && named == ANY, "{only:?}");
                    one.remove(only);
                    assert_eq!(one.mask(&Object::new(named)), None);
                    assert_eq!(one.size(), Size::default());
                }
            }
        }
    }

    #[test]
    fn what_one_of_several_matches_is_left_when_another_goes() {
        let mut some = Subscriptions::default();
        let (id, created) = (Id(9), EventType::CreatedMessage);
        let conversation = Subclass::Conversation;
        let object = id.to_string();
        let all = pattern(Some(conversation), ANY, &object);
        let one = pattern(None, created.as_str(), &object);
        some.insert(pattern(None, "typing", &object));
        some.insert(all.clone());
        some.insert(one.clone());
        some.insert(one);
        assert_eq!(some.size().count, 3);
        some.remove(all.clone());
        some.remove(all);
        let left = mask(&some, &object);
        assert!(left.meets(Mask::of_event(conversation, created)));
        assert!(!left.meets(Mask::of_event(conversation, EventType::Deleted)));
        let other = Named::new("typing", id);
        assert!(other.are_here(left, &some) && !left.meets(Mask::EVERY_OTHER));
        assert_eq!(some.ids().collect::<Vec<_>>(), [id]);
        assert_eq!(some.behind(some.behind(None).next()).count(), 1);
    }
}
