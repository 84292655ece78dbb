//! Ids: 64 bits, made by the server, sorting by time of creation (protocol.md, 3).
//!
//! The upper 48 bits are the milliseconds since the Unix epoch at which the id was made, the lower 16 count within
//! one; where the clock was set back, ids go on from the newest one, ahead of it. On the wire an id is thirteen digits of a base-32 alphabet whose order is that of the numbers, so that texts
//! sort like the ids they stand for. In the store it is eight big-endian bytes.

use serde::{Serialize, Serializer};
use std::fmt;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of an id on the wire.
pub const ID_CHARS: usize = 13;
/// Bits of an id below its milliseconds.
const COUNTER_BITS: u32 = 16;

/// The latest time in an id: a clock that is far beyond leaves a quarter of all ids for those to come.
const TIME_MAX_MS: u64 = (1 << 46) - 1;
/// What is set in the ids of sessions alone.
const SESSION_MARK: u64 = 1 << 63;

/// Any id. 0 is never given to an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub u64);

impl Id {
    /// The id that a text stands for, if it can be one at all.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: &[u8; ID_CHARS] = text.as_bytes().try_into().ok()?;
        let mut number: u128 = 0;
        for byte in bytes {
            let digit = ALPHABET.iter().position(|candidate| candidate == byte)?;
            number = number << 5 | digit as u128;
        }
        u64::try_from(number)
            .ok()
            .filter(|&number| number != 0)
            .map(Self)
    }

    /// The id as it stands on the wire.
    #[must_use]
    pub fn text(self) -> IdText {
        let mut text = [0; ID_CHARS];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        IdText(text)
    }

    /// The id as it stands in the store's keys.
    #[must_use]
    pub const fn key(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// The number of the first id whose text is not below `text`; 2^64 when every id's text is.
    ///
    /// With it a comparison against an arbitrary text, such as a filter's, becomes one against a number.
    #[must_use]
    pub fn first_not_below(text: &str) -> u128 {
        let (mut low, mut high) = (0_u128, 1_u128 << 64);
        while low < high {
            let middle = low.midpoint(high);
            let below =
                u64::try_from(middle).is_ok_and(|number| Self(number).text().as_str() < text);
            if below {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// The wire form of an id, without an allocation.
#[derive(Clone, Copy)]
pub struct IdText([u8; ID_CHARS]);

impl IdText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text().as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

macro_rules! id_types {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub Id);

        impl From<Id> for $name {
            fn from(id: Id) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )+};
}

id_types! {
    /// A user's id.
    UserId;
    /// A conversation's id.
    ConversationId;
    /// A message's id.
    MessageId;
    /// A session token's id.
    TokenId;
}

/// Makes ids that never repeat and never run backwards, whatever the clock does.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdMaker {
    last: u64,
}

impl IdMaker {
    /// Goes on after `last`, the newest id that exists.
    #[must_use]
    pub const fn after(last: u64) -> Self {
        Self { last }
    }

    /// The next id, for an object made at `now_ms`.
    pub fn next(&mut self, now_ms: u64) -> Id {
        self.last = (self.last + 1).max(now_ms.min(TIME_MAX_MS) << COUNTER_BITS);
        Id(self.last)
    }

    /// The next id of a session, which is never that of anything that is stored.
    pub fn next_session(&mut self, now_ms: u64) -> Id {
        Id(self.next(now_ms).0 | SESSION_MARK)
    }

    /// The newest id given.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_sort_like_numbers_and_come_back() {
        let numbers = [
            1,
            31,
            32,
            1 << 20,
            1_795_000_000_000 << 16,
            u64::MAX - 1,
            u64::MAX,
        ];
        for pair in numbers.windows(2) {
            assert!(Id(pair[0]).text().as_str() < Id(pair[1]).text().as_str());
        }
        for number in numbers {
            assert_eq!(Id::parse(Id(number).text().as_str()), Some(Id(number)));
        }
    }

    #[test]
    fn what_is_no_id_is_none() {
        for text in [
            "",
            "0000000000000",
            "abc",
            "zzzzzzzzzzzzz",
            "000000000000i",
            "00000000000000",
            "000000000000é",
        ] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_bound_agrees_with_comparing_texts() {
        let ids: Vec<Id> = [1, 7, 1 << 30, (1_795_000_000_000 << 16) + 5, u64::MAX]
            .map(Id)
            .to_vec();
        for text in [
            "",
            "0",
            "00000000",
            "0zz",
            "0000000000007",
            "zzz",
            "é",
            "000000000000 ",
            "~",
            "02z",
            "0000000000007x",
        ] {
            let bound = Id::first_not_below(text);
            for id in &ids {
                assert_eq!(
                    id.text().as_str() < text,
                    u128::from(id.0) < bound,
                    "{id} {text:?}"
                );
            }
        }
    }

    #[test]
    fn ids_rise_when_the_clock_runs_backwards() {
        let mut maker = IdMaker::default();
        let ids: Vec<Id> = [5, 5, 4, 9, 1]
            .into_iter()
            .map(|now| maker.next(now))
            .collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        assert_eq!(ids[3].0, 9 << COUNTER_BITS);
    }

    #[test]
    fn ids_of_sessions_rise_and_are_those_of_nothing_else() {
        let times = [0, 1, 1_795_000_000_000, TIME_MAX_MS, u64::MAX];
        let (mut stored, mut sessions) = (IdMaker::default(), IdMaker::default());
        let stored = times.map(|now| stored.next(now));
        let sessions = times.map(|now| sessions.next_session(now));
        assert!(sessions.is_sorted_by(|a, b| a.text().as_str() < b.text().as_str()));
        assert!(stored.iter().all(|id| id.0 & SESSION_MARK == 0));
        for id in sessions {
            assert_ne!(id.0 & SESSION_MARK, 0);
            assert_eq!(Id::parse(id.text().as_str()), Some(id));
        }
    }

    #[test]
    fn ids_rise_when_the_clock_is_at_its_end() {
        let mut maker = IdMaker::default();
        let ids: Vec<Id> = [u64::MAX, 1 << 48, 5, u64::MAX]
            .into_iter()
            .map(|now| maker.next(now))
            .collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        assert!(ids[3].0 < u64::MAX / 2 + 10);
    }
}
