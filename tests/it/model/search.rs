//! Searches (the protocol's section 5): look at everything, keep what matches, sort it, cut out the page.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::{Expected, Kind, Model, Refusal, number, words};

pub const MAX_PAGE: u64 = 1000;
const DEFAULT_SIZE: usize = 100;

/// What a field holds, as far as a search is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    Id,
    Login,
    Role,
    Words,
    Number,
    Ids,
}

/// Every field of an object of this kind.
pub fn fields_of(kind: Kind) -> &'static [(&'static str, Holds)] {
    match kind {
        Kind::User => &[
            ("user_id", Holds::Id),
            ("login", Holds::Login),
            ("name", Holds::Words),
            ("surname", Holds::Words),
            ("role", Holds::Role),
            ("created_time", Holds::Number),
            ("updated_time", Holds::Number),
        ],
        Kind::Conversation => &[
            ("conversation_id", Holds::Id),
            ("name", Holds::Words),
            ("description", Holds::Words),
            ("member_count", Holds::Number),
            ("user_ids", Holds::Ids),
            ("created_by", Holds::Id),
            ("created_time", Holds::Number),
            ("updated_time", Holds::Number),
        ],
        Kind::Message => &[
            ("message_id", Holds::Id),
            ("conversation_id", Holds::Id),
            ("user_id", Holds::Id),
            ("message", Holds::Words),
            ("created_time", Holds::Number),
            ("updated_time", Holds::Number),
        ],
    }
}

fn holds(kind: Kind, name: &str) -> Option<Holds> {
    fields_of(kind)
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, holds)| *holds)
}

/// Everything that is wrong with a search's fields; the protocol does not say which of it is answered.
pub fn check(kind: Kind, data: &Value) -> Vec<Refusal> {
    let mut wrong = Vec::new();
    let field = |name: &str| data.get(name);
    let invalid = |name: &str| Refusal::new("invalid_field", name);
    for name in ["fields", "sort_by"] {
        match field(name).map(names) {
            None => {}
            Some(None) => wrong.push(invalid(name)),
            Some(Some(names)) => wrong.extend(
                names
                    .into_iter()
                    .filter_map(|listed| check_name(kind, name, listed)),
            ),
        }
    }
    match field("filter") {
        None => {}
        Some(Value::Object(conditions)) => {
            wrong.extend(
                conditions
                    .iter()
                    .filter_map(|(name, condition)| check_condition(kind, name, condition)),
            );
        }
        Some(_) => wrong.push(invalid("filter")),
    }
    if field("size").is_some_and(|size| size.as_u64().is_none_or(|size| size > MAX_PAGE)) {
        wrong.push(invalid("size"));
    }
    if field("from").is_some_and(|from| !from.is_u64()) {
        wrong.push(invalid("from"));
    }
    if field("sort_order").is_some_and(|order| order != "asc" && order != "desc") {
        wrong.push(invalid("sort_order"));
    }
    if field("total").is_some_and(|total| !total.is_boolean()) {
        wrong.push(invalid("total"));
    }
    wrong
}

/// A name, or a list of names.
fn names(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(name) => Some(vec![name]),
        Value::Array(names) => names.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn check_name(kind: Kind, list: &str, name: &str) -> Option<Refusal> {
    // Whether `field` names the list or the name in it is left open, and so is what an empty name is.
    let codes = match holds(kind, name) {
        _ if name.is_empty() || name.contains('\0') => vec!["unknown_field", "invalid_field"],
        Some(Holds::Ids) if list == "sort_by" => vec!["invalid_field"],
        None if list == "fields" && name == "_all" => return None,
        None => vec!["unknown_field"],
        Some(_) => return None,
    };
    Some(Refusal {
        codes,
        ..Refusal::default()
    })
}

fn check_condition(kind: Kind, name: &str, condition: &Value) -> Option<Refusal> {
    let Some(holds) = holds(kind, name) else {
        return Some(Refusal::new("unknown_field", name));
    };
    match condition {
        Value::Array(values) => values
            .iter()
            .any(|value| !is_value_of(holds, value))
            .then(|| Refusal::new("invalid_field", name)),
        Value::Object(operators) => Refusal::any(
            operators
                .iter()
                .filter_map(|(operator, value)| check_operator(holds, operator, value))
                .collect(),
        ),
        value => (!is_value_of(holds, value)).then(|| Refusal::new("invalid_field", name)),
    }
}

fn check_operator(holds: Holds, operator: &str, value: &Value) -> Option<Refusal> {
    // The innermost may be the operator or the field that it stands under, so only the codes are compared.
    let is_right = match operator {
        "gt" | "gte" | "lt" | "lte" => is_value_of(holds, value),
        "prefix" => value.is_string(),
        "match" if holds == Holds::Words => value
            .as_str()
            .is_some_and(|query| words::matches("", query).is_some()),
        "match" => {
            return Some(Refusal {
                codes: vec!["invalid_field", "unknown_field"],
                ..Refusal::default()
            });
        }
        _ => {
            return Some(Refusal {
                codes: vec!["unknown_field"],
                ..Refusal::default()
            });
        }
    };
    (!is_right).then(|| Refusal {
        codes: vec!["invalid_field"],
        ..Refusal::default()
    })
}

fn is_value_of(holds: Holds, value: &Value) -> bool {
    if holds == Holds::Number {
        value.is_u64()
    } else {
        value.is_string()
    }
}

impl Model {
    pub(super) fn search(&self, kind: Kind, data: &Value) -> Expected {
        // A login is equal without regard to case; whether it also sorts and ranges so is left open.
        let mut answers = vec![self.answer(kind, data, false)];
        let folded = self.answer(kind, data, true);
        if !answers.contains(&folded) {
            answers.push(folded);
        }
        Expected::Data(answers)
    }

    fn answer(&self, kind: Kind, data: &Value, fold_logins: bool) -> Value {
        let filter = data
            .get("filter")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let mut found: Vec<&Value> = self
            .objects(kind)
            .map(|(_, object)| object)
            .filter(|object| self.sees(kind, object))
            .filter(|object| {
                filter
                    .iter()
                    .all(|(name, condition)| satisfies(kind, object, name, condition, fold_logins))
            })
            .collect();
        let sort_by = data.get("sort_by").and_then(names).unwrap_or_default();
        let descending = data.get("sort_order").is_some_and(|order| order == "desc");
        found.sort_by(|one, other| compare(kind, one, other, &sort_by, descending, fold_logins));
        let total = found.len();
        let rows = found
            .into_iter()
            .skip(number(data, "from").unwrap_or(0))
            .take(number(data, "size").unwrap_or(DEFAULT_SIZE));
        let rows: Vec<Value> = rows.map(|object| row(kind, object, data)).collect();
        if data.get("total") == Some(&Value::Bool(false)) {
            return json!({"data": rows});
        }
        json!({"data": rows, "total": total})
    }
}

fn row(kind: Kind, object: &Value, data: &Value) -> Value {
    let wanted = data.get("fields").and_then(names).unwrap_or_default();
    let mut row = object.clone();
    if !wanted.contains(&"_all") {
        row.as_object_mut()
            .unwrap()
            .retain(|name, _| name == kind.id_field() || wanted.contains(&name.as_str()));
    }
    row
}

fn compare(
    kind: Kind,
    one: &Value,
    other: &Value,
    sort_by: &[&str],
    descending: bool,
    fold_logins: bool,
) -> Ordering {
    let turn = |ordering: Ordering| {
        if descending {
            ordering.reverse()
        } else {
            ordering
        }
    };
    for name in sort_by {
        // Times may be set back; the order of creation is that of ids.
        let name = if *name == "created_time" {
            kind.id_field()
        } else {
            name
        };
        let ordering = match (one.get(name), other.get(name)) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(other)) => turn(order(
                &folded(name, one, fold_logins),
                &folded(name, other, fold_logins),
            )),
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
    turn(order(&one[kind.id_field()], &other[kind.id_field()]))
}

fn folded(name: &str, value: &Value, fold_logins: bool) -> Value {
    if name == "login" && fold_logins {
        json!(words::fold_login(value.as_str().unwrap()))
    } else {
        value.clone()
    }
}

/// Numbers by size, texts by their bytes.
fn order(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_u64().cmp(&other.as_u64()),
        (Value::String(one), Value::String(other)) => one.cmp(other),
        _ => panic!("{one} and {other} cannot be compared"),
    }
}

fn satisfies(kind: Kind, object: &Value, name: &str, condition: &Value, fold_logins: bool) -> bool {
    match condition {
        Value::Array(values) => values.iter().any(|value| equals(kind, object, name, value)),
        Value::Object(operators) => {
            let Some(actual) = object.get(name) else {
                return false;
            };
            let actual = folded(name, actual, fold_logins);
            operators
                .iter()
                .all(|(operator, value)| match operator.as_str() {
                    "match" => {
                        words::matches(actual.as_str().unwrap(), value.as_str().unwrap()).unwrap()
                    }
                    "prefix" => {
                        let prefix = folded(name, value, fold_logins);
                        actual
                            .as_str()
                            .unwrap()
                            .starts_with(prefix.as_str().unwrap())
                    }
                    range => {
                        let ordering = order(&actual, &folded(name, value, fold_logins));
                        match range {
                            "gt" => ordering.is_gt(),
                            "gte" => ordering.is_ge(),
                            "lt" => ordering.is_lt(),
                            "lte" => ordering.is_le(),
                            _ => panic!("the model knows no operator {range}"),
                        }
                    }
                })
        }
        value => equals(kind, object, name, value),
    }
}

fn equals(kind: Kind, object: &Value, name: &str, value: &Value) -> bool {
    let Some(actual) = object.get(name) else {
        return false;
    };
    match holds(kind, name) {
        Some(Holds::Ids) => actual.as_array().unwrap().contains(value),
        Some(Holds::Login) => words::same_login(actual.as_str().unwrap(), value.as_str().unwrap()),
        _ => actual == value,
    }
}
