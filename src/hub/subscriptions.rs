//! What a connection is subscribed to.

use std::collections::{BTreeMap, BTreeSet};

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

/// The subscriptions of one connection.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    by_object: BTreeMap<Box<str>, BTreeSet<Subscription>>,
    count: usize,
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

    /// All of them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.by_object.values().flatten()
    }

    /// Adds one; it counts once.
    pub fn insert(&mut self, subscription: Subscription) {
        let added = self
            .by_object
            .entry(subscription.obj_id.clone())
            .or_default()
            .insert(subscription);
        self.count += usize::from(added);
    }

    /// Removes one; true if others of the same object are left.
    pub fn remove(&mut self, subscription: &Subscription) -> bool {
        let Some(patterns) = self.by_object.get_mut(&subscription.obj_id) else {
            return false;
        };
        self.count -= usize::from(patterns.remove(subscription));
        let left = !patterns.is_empty();
        if !left {
            self.by_object.remove(&subscription.obj_id);
        }
        left
    }

    /// The objects that they name, `"*"` among them.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.by_object.keys().map(AsRef::as_ref)
    }

    /// Whether any of them matches an event.
    #[must_use]
    pub fn matches(&self, subclass: &str, kind: &str, object: &str) -> bool {
        [object, ANY].into_iter().any(|object| {
            self.by_object.get(object).is_some_and(|patterns| {
                patterns.iter().any(|pattern| {
                    (&*pattern.subclass == ANY || &*pattern.subclass == subclass)
                        && (&*pattern.r#type == ANY || &*pattern.r#type == kind)
                })
            })
        })
    }
}
