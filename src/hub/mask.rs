//! What the subscriptions to one object match, in a word: it is looked at for every event and every subscriber.

use super::pattern::Type;
use crate::model::{EventType, Subclass};

/// A bit for each subclass and type of stored events, and two for the events that are not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask(u64);

const TYPES: u8 = 8;
const _: () = assert!(EventType::ALL.len() <= 8 && Subclass::ALL.len() <= 7);

impl Mask {
    /// Every event of a conversation that is not stored.
    pub const EVERY_OTHER: Self = Self(1 << 62);
    /// Some types of events that are not stored, each named by a subscription of its own.
    pub const SOME_OTHER: Self = Self(1 << 63);

    /// An event that is stored.
    pub fn of_event(subclass: Subclass, kind: EventType) -> Self {
        Self(1 << ((subclass.number() - 1) * TYPES + kind.number() - 1))
    }

    /// What a subscription matches.
    pub fn of_subscription(subclass: Option<Subclass>, kind: &Type) -> Self {
        let fits = |of: Subclass| subclass.is_none_or(|subclass| subclass == of);
        let Type::Stored(kind) = kind else {
            return Self::SOME_OTHER;
        };
        let mut mask = Self::default();
        for &of in Subclass::ALL.iter().filter(|&&of| fits(of)) {
            for &event in EventType::ALL {
                if kind.is_none_or(|kind| kind == event) {
                    mask |= Self::of_event(of, event);
                }
            }
        }
        if kind.is_none() && fits(Subclass::Conversation) {
            mask |= Self::EVERY_OTHER;
        }
        mask
    }

    /// Whether both have something in common.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOrAssign for Mask {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
