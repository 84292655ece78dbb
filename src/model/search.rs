//! A validated search: which objects, in what order, which of their fields (protocol.md, 5).

use crate::model::{Field, FieldKind, FieldValue, Id, Kind, Object, Words, fold_login};
use std::cmp::Ordering;

/// A search over one kind of objects.
#[derive(Debug)]
pub struct Search {
    /// What is searched.
    pub kind: Kind,
    /// The conditions, all of which must hold.
    pub filter: Vec<Condition>,
    /// The fields of a row besides its id.
    pub fields: Vec<Field>,
    /// The most rows to return.
    pub size: usize,
    /// Bytes of rows after which a page ends, though not before its first row.
    pub max_bytes: usize,
    /// The rows to skip first.
    pub from: usize,
    /// The fields to sort by; the id comes after them.
    pub sort_by: Vec<Field>,
    /// Whether the order is descending.
    pub descending: bool,
    /// Whether all that match are counted.
    pub total: bool,
}

/// A condition on one field: every test must hold.
#[derive(Debug)]
pub struct Condition {
    /// The field.
    pub field: Field,
    /// What must hold for its value.
    pub tests: Vec<Test>,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Above.
    Gt,
    /// Above or equal.
    Gte,
    /// Below.
    Lt,
    /// Below or equal.
    Lte,
}

impl Comparison {
    /// Whether a value that stands so to the bound passes.
    #[must_use]
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Gt => ordering.is_gt(),
            Self::Gte => ordering.is_ge(),
            Self::Lt => ordering.is_lt(),
            Self::Lte => ordering.is_le(),
        }
    }
}

/// One test of a value. Values are of the field's kind: the constructors of [`Condition`] see to it.
pub enum Test {
    /// The id is one of these; for a list of ids: contains one of these. Sorted.
    AnyId(Vec<Id>),
    /// The id is at least the first and below the second.
    IdRange(u128, u128),
    /// The integer is one of these. Sorted.
    AnyInteger(Vec<i128>),
    /// The integer compares so.
    Integer(Comparison, i128),
    /// The text is one of these; logins are folded. Sorted.
    AnyText(Vec<String>),
    /// The text compares so; logins are folded.
    Text(Comparison, String),
    /// The text begins so; logins are folded.
    Prefix(String),
    /// The text holds these words.
    Match(Box<Words>),
}

impl std::fmt::Debug for Test {
    /// Shows no values: they may be words of a private message, and a search may be logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AnyId(_) => "AnyId",
            Self::IdRange(..) => "IdRange",
            Self::AnyInteger(_) => "AnyInteger",
            Self::Integer(..) => "Integer",
            Self::AnyText(_) => "AnyText",
            Self::Text(..) => "Text",
            Self::Prefix(_) => "Prefix",
            Self::Match(_) => "Match",
        })
    }
}

impl Search {
    /// Whether the object meets every condition.
    #[must_use]
    pub fn matches<T: Object>(&self, object: &T) -> bool {
        self.filter.iter().all(|condition| condition.holds(object))
    }

    /// How many values the lists of its conditions name.
    #[must_use]
    pub fn listed(&self) -> usize {
        let tests = self.filter.iter().flat_map(|condition| &condition.tests);
        let named = tests.map(|test| match test {
            Test::AnyId(list) => list.len(),
            Test::AnyInteger(list) => list.len(),
            Test::AnyText(list) => list.len(),
            _ => 0,
        });
        named.sum()
    }

    /// The ids that a field must be one of, where a condition says so: what a planner can start from.
    #[must_use]
    pub fn ids_of(&self, wanted: Field) -> Option<&[Id]> {
        self.tests_of(wanted).find_map(|test| match test {
            Test::AnyId(ids) => Some(ids.as_slice()),
            _ => None,
        })
    }

    /// The tests on one field.
    pub fn tests_of(&self, wanted: Field) -> impl Iterator<Item = &Test> {
        self.filter
            .iter()
            .filter(move |condition| condition.field == wanted)
            .flat_map(|condition| &condition.tests)
    }

    /// Whether a field is shown, filtered or sorted by.
    #[must_use]
    pub fn concerns(&self, field: Field) -> bool {
        self.fields.contains(&field)
            || self.sort_by.contains(&field)
            || self.filter.iter().any(|condition| condition.field == field)
    }

    /// The bounds, lower included and upper excluded, within which the object's own id must lie.
    #[must_use]
    pub fn id_bounds(&self) -> (u128, u128) {
        let (mut low, mut high) = (0, 1 << 64);
        for test in self.tests_of(self.kind.id_field()) {
            match test {
                Test::IdRange(from, to) => {
                    low = low.max(*from);
                    high = high.min(*to);
                }
                Test::AnyId(ids) => {
                    low = low.max(ids.first().map_or(1 << 64, |id| u128::from(id.0)));
                    high = high.min(ids.last().map_or(0, |id| u128::from(id.0) + 1));
                }
                _ => {}
            }
        }
        (low, high)
    }
}

impl Condition {
    /// Whether every test holds for the object's field.
    #[must_use]
    pub fn holds<T: Object>(&self, object: &T) -> bool {
        if self.tests.is_empty() {
            return true;
        }
        let value = object.value(self.field);
        if self.field.kind() == FieldKind::Login
            && let FieldValue::Text(login) = value
        {
            let folded = fold_login(login);
            return self
                .tests
                .iter()
                .all(|test| test.holds(&FieldValue::Text(&folded)));
        }
        self.tests.iter().all(|test| test.holds(&value))
    }
}

impl Test {
    /// Whether a value passes. A field that was never set passes no test.
    #[must_use]
    pub fn holds(&self, value: &FieldValue<'_>) -> bool {
        match (self, value) {
            (Self::AnyId(ids), FieldValue::Id(id)) => ids.binary_search(id).is_ok(),
            (Self::AnyId(ids), FieldValue::Ids(members)) => ids
                .iter()
                .any(|id| members.binary_search_by_key(id, |member| member.0).is_ok()),
            (Self::IdRange(low, high), FieldValue::Id(id)) => {
                (*low..*high).contains(&u128::from(id.0))
            }
            (Self::AnyInteger(numbers), FieldValue::Integer(number)) => {
                numbers.binary_search(&i128::from(*number)).is_ok()
            }
            (Self::Integer(comparison, bound), FieldValue::Integer(number)) => {
                comparison.holds(i128::from(*number).cmp(bound))
            }
            (Self::AnyText(texts), FieldValue::Text(text)) => texts
                .binary_search_by(|candidate| candidate.as_str().cmp(text))
                .is_ok(),
            (Self::Text(comparison, bound), FieldValue::Text(text)) => {
                comparison.holds((*text).cmp(bound.as_str()))
            }
            (Self::Prefix(prefix), FieldValue::Text(text)) => text.starts_with(prefix.as_str()),
            (Self::Prefix(prefix), FieldValue::Id(id)) => {
                id.text().as_str().starts_with(prefix.as_str())
            }
            (Self::Match(words), FieldValue::Text(text)) => words.found_in(text),
            _ => false,
        }
    }
}
