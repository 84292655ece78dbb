//! The best rows seen so far, in an order other than that of the ids.

use super::{Found, Rows, SELECTION_MAX_BYTES};
use crate::error::Error;
use crate::memory::{Memory, Usage};
use crate::model::{Field, FieldKind, FieldValue, Id, Search, fold_login};
use serde_json::value::RawValue;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

/// A bounded selection: as many rows as the page reaches, and no more.
pub struct Selection<'a> {
    search: &'a Search,
    most: usize,
    best: BinaryHeap<Ranked>,
    bytes: usize,
    held: Usage,
}

struct Ranked {
    key: Vec<SortValue>,
    row: Box<RawValue>,
}

/// A value to sort by; what was never set comes last in either order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SortValue {
    Up(Value),
    Down(Reverse<Value>),
    Absent,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Id(Id),
    Integer(u64),
    Text(String),
}

impl<'a> Selection<'a> {
    /// An empty selection for the pages that `search` asks for.
    pub fn new(search: &'a Search, memory: &Arc<Memory>) -> Self {
        let most = if search.size == 0 {
            0
        } else {
            search.from.saturating_add(search.size)
        };
        Self {
            search,
            most,
            best: BinaryHeap::new(),
            bytes: 0,
            held: memory.connection(None),
        }
    }

    /// Keeps an object if it is among the best.
    pub fn add(&mut self, object: &dyn Found) -> Result<(), Error> {
        if self.most == 0 {
            return Ok(());
        }
        let id_field = self.search.kind.id_field();
        let fields = self.search.sort_by.iter().chain(std::iter::once(&id_field));
        let key: Vec<SortValue> = fields
            .map(|&field| {
                // Whatever the clock did, what was created later comes later.
                let field = if field == Field::CreatedTime {
                    id_field
                } else {
                    field
                };
                sort_value(field, &object.value(field), self.search.descending)
            })
            .collect();
        if self.best.len() >= self.most {
            if self.best.peek().is_some_and(|worst| key >= worst.key) {
                return Ok(());
            }
            if let Some(worst) = self.best.pop() {
                self.bytes -= worst.bytes();
            }
        }
        let ranked = Ranked {
            key,
            row: object.row(&self.search.fields)?,
        };
        self.bytes += ranked.bytes();
        if self.bytes > SELECTION_MAX_BYTES {
            let text = "so many rows cannot be sorted; narrow the filter, or page by a filter on the sorted field";
            return Err(Error::invalid("from", text));
        }
        self.held.hold_read(self.bytes)?;
        self.best.push(ranked);
        Ok(())
    }

    /// Puts the rows after the first `from`, best first, on the page.
    pub fn fill(self, page: &mut Rows, from: usize) {
        let best = self.best.into_sorted_vec().into_iter().skip(from);
        for ranked in best {
            if !page.push(ranked.row) {
                return;
            }
        }
    }
}

impl Ranked {
    fn bytes(&self) -> usize {
        let keys: usize =
            self.key
                .iter()
                .map(|value| match value {
                    SortValue::Up(Value::Text(text))
                    | SortValue::Down(Reverse(Value::Text(text))) => text.len(),
                    _ => 0,
                })
                .sum();
        keys + self.key.len() * size_of::<SortValue>() + self.row.get().len() + size_of::<Self>()
    }
}

fn sort_value(field: Field, value: &FieldValue<'_>, descending: bool) -> SortValue {
    let value = match *value {
        FieldValue::Absent | FieldValue::Ids(_) => return SortValue::Absent,
        // An ordinary user's role is left out (protocol.md, 3), so it has none to sort by.
        FieldValue::Text("user") if field == Field::Role => return SortValue::Absent,
        FieldValue::Id(id) => Value::Id(id),
        FieldValue::Integer(number) => Value::Integer(number),
        FieldValue::Text(text) if field.kind() == FieldKind::Login => Value::Text(fold_login(text)),
        FieldValue::Text(text) => Value::Text(text.to_owned()),
    };
    if descending {
        SortValue::Down(Reverse(value))
    } else {
        SortValue::Up(value)
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}
