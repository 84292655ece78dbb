//! The fields of a search (protocol.md, 5).

use super::fields::{FieldType, list, object, one_of, string, unknown_field, wrong};
use super::{Action, Step};
use crate::error::{Code, Error};
use crate::limits::Limits;
use crate::model::{
    Comparison, Condition, Field, FieldKind, Id, Kind, Search, Test, Words, fold_login,
};
use crate::store::Query;
use crate::wire::whole_number;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The rows of a search that names no `size`.
const SIZE_DEFAULT: usize = 100;

/// Declares the search command of a kind of objects.
macro_rules! search_command {
    ($(#[doc = $doc:literal])+ $name:ident, $kind:expr, $subclass:expr, $help:expr, $example:expr) => {
        crate::command::fields::fields! {
            $(#[doc = $doc])+
            $name {
                /// The fields of each row, which always has its id.
                fields: Option<crate::command::search::Names>,
                /// Conditions, all of which must hold. In a match, word* finds what begins so, and words in double quotes must occur side by side in that order; a quote without a second one means nothing.
                filter: Option<crate::command::search::RawFilter>,
                /// Rows to return; 100 if left out.
                size: Option<crate::command::search::Size>,
                /// Rows to skip.
                from: Option<u64>,
                /// What to sort by; the id, the order of creation, if left out.
                sort_by: Option<crate::command::search::Names>,
                /// "asc" or "desc", for all of them.
                sort_order: Option<crate::command::search::Order>,
                /// Whether to count all that match; true if left out.
                total: Option<bool>,
            }
        }

        impl crate::command::Command for $name {
            const SUBCLASS: Subclass = $subclass;
            const NAME: &'static str = "search";
            const ACCESS: Access = Access::Users;
            const HELP: &'static str = $help;
            const ANSWER: &'static str = "total, data: a list of rows, cut: true if the page ended early since its rows are large (go on from its last row)";
            const EXAMPLE: &'static str = $example;
            const ERRORS: &'static [Code] = &[Code::Timeout];

            fn run(self, context: &Context<'_>) -> Result<Step, Error> {
                let Self { fields, filter, size, from, sort_by, sort_order, total } = self;
                crate::command::search::search(
                    $kind,
                    crate::command::search::Asked { fields, filter, size, from, sort_by, sort_order, total },
                    context.limits,
                )
            }
        }
    };
}
pub(crate) use search_command;

/// The fields of a search as they were asked for.
pub struct Asked {
    pub fields: Option<Names>,
    pub filter: Option<RawFilter>,
    pub size: Option<Size>,
    pub from: Option<u64>,
    pub sort_by: Option<Names>,
    pub sort_order: Option<Order>,
    pub total: Option<bool>,
}

/// One name, or a list of names.
pub struct Names(Vec<String>);

impl FieldType for Names {
    fn describe(_: &Limits) -> String {
        "a field, or a list of fields".to_owned()
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        let raws = if raw.get().starts_with('[') {
            list(raw)?
        } else {
            vec![raw]
        };
        let mut names = Vec::new();
        for raw in raws {
            names.push(
                string(raw)
                    .map_err(|_| wrong("must be a field's name, or a list of names"))?
                    .into_owned(),
            );
        }
        Ok(Self(names))
    }
}

/// A filter, its conditions not yet read.
pub struct RawFilter(Box<RawValue>);

impl FieldType for RawFilter {
    fn describe(_: &Limits) -> String {
        "object: a field's name and a value, a list of values, or an object of gt, gte, lt, lte, prefix, match"
            .to_owned()
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        if raw.get().starts_with('{') {
            Ok(Self(raw.to_owned()))
        } else {
            Err(wrong("must be an object"))
        }
    }
}

/// Rows of a page.
pub struct Size(usize);

impl FieldType for Size {
    fn describe(limits: &Limits) -> String {
        format!("integer, 0 to {}", limits.max_page)
    }

    fn parse(raw: &RawValue, limits: &Limits) -> Result<Self, Error> {
        let size = whole_number(raw)
            .and_then(|size| usize::try_from(size).ok())
            .filter(|&size| size <= limits.max_page);
        size.map(Self)
            .ok_or_else(|| wrong(format!("must be an integer, 0 to {}", limits.max_page)))
    }
}

/// A direction.
pub struct Order {
    descending: bool,
}

impl FieldType for Order {
    fn describe(_: &Limits) -> String {
        r#""asc" or "desc""#.to_owned()
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        let descending = one_of(raw, &[("asc", false), ("desc", true)])?;
        Ok(Self { descending })
    }
}

/// The search that was asked for.
pub fn search(kind: Kind, asked: Asked, limits: &Limits) -> Result<Step, Error> {
    let mut fields = Vec::new();
    for name in asked.fields.map(|Names(names)| names).unwrap_or_default() {
        if name == "_all" {
            fields.extend(kind.fields());
        } else {
            fields.push(known(kind, &name)?);
        }
    }
    dedup(&mut fields);
    let filter = match &asked.filter {
        Some(RawFilter(raw)) => conditions(kind, raw)?,
        None => Vec::new(),
    };
    let mut sort_by = Vec::new();
    for name in asked.sort_by.map(|Names(names)| names).unwrap_or_default() {
        let field = known(kind, &name)?;
        if field.kind() == FieldKind::Ids {
            return Err(Error::invalid(
                "sort_by",
                format!("sort_by cannot be {name}, which is a list"),
            ));
        }
        sort_by.push(field);
    }
    dedup(&mut sort_by);
    Ok(Step::Act(Action::Read(Query::Search(Search {
        kind,
        filter,
        fields,
        size: asked.size.map_or(SIZE_DEFAULT, |Size(size)| size),
        from: asked
            .from
            .map_or(0, |from| usize::try_from(from).unwrap_or(usize::MAX)),
        sort_by,
        max_bytes: limits.max_page_bytes,
        descending: asked.sort_order.is_some_and(|order| order.descending),
        total: asked.total.unwrap_or(true),
    }))))
}

fn known(kind: Kind, name: &str) -> Result<Field, Error> {
    kind.field(name)
        .ok_or_else(|| unknown_field(name, kind.fields().iter().map(|field| field.name())))
}

/// Keeps each field's first place. There are few kinds of fields, so a long list becomes short.
fn dedup(fields: &mut Vec<Field>) {
    let mut seen = std::collections::HashSet::new();
    fields.retain(|&field| seen.insert(field));
}

fn conditions(kind: Kind, raw: &RawValue) -> Result<Vec<Condition>, Error> {
    let mut conditions = Vec::new();
    for (name, value) in entries(raw)? {
        let field = known(kind, &name)?;
        let tests = tests(field, value).map_err(|error| {
            if error.field_name().is_none() && error.code() == Code::InvalidField {
                error.named(field.name())
            } else {
                error
            }
        })?;
        conditions.push(Condition { field, tests });
    }
    Ok(conditions)
}

fn entries(raw: &RawValue) -> Result<Vec<(Cow<'_, str>, &RawValue)>, Error> {
    let object = object(raw, "the filter")?;
    Ok(object.unwrap_or_default().entries)
}

fn tests(field: Field, value: &RawValue) -> Result<Vec<Test>, Error> {
    match value.get().as_bytes().first() {
        Some(b'{') => {
            let mut tests = Vec::new();
            for (name, bound) in entries(value)? {
                let operator = OPERATORS
                    .into_iter()
                    .find(|operator| *operator == name)
                    .ok_or_else(|| unknown_field(&name, OPERATORS.into_iter()))?;
                let test = operator_test(field, operator, bound).map_err(|error| {
                    if error.field_name().is_none() && error.code() == Code::InvalidField {
                        error.named(operator)
                    } else {
                        error
                    }
                })?;
                tests.push(test);
            }
            Ok(tests)
        }
        Some(b'[') => equal_to_one(field, &list(value)?).map(|test| vec![test]),
        _ => equal_to_one(field, &[value]).map(|test| vec![test]),
    }
}

const OPERATORS: [&str; 6] = ["gt", "gte", "lt", "lte", "prefix", "match"];

fn equal_to_one(field: Field, values: &[&RawValue]) -> Result<Test, Error> {
    Ok(match field.kind() {
        FieldKind::Id | FieldKind::Ids => {
            let mut ids = Vec::new();
            for value in values {
                // A text that can be no id is equal to none.
                ids.extend(Id::parse(&text(field, value)?));
            }
            ids.sort_unstable();
            ids.dedup();
            Test::AnyId(ids)
        }
        FieldKind::Integer => {
            let mut numbers = values
                .iter()
                .map(|value| integer(value))
                .collect::<Result<Vec<_>, _>>()?;
            numbers.sort_unstable();
            Test::AnyInteger(numbers)
        }
        FieldKind::Text | FieldKind::Login | FieldKind::Role => {
            let mut texts = Vec::new();
            for value in values {
                texts.push(text(field, value)?.into_owned());
            }
            texts.sort_unstable();
            Test::AnyText(texts)
        }
    })
}

fn operator_test(field: Field, operator: &str, bound: &RawValue) -> Result<Test, Error> {
    let comparison = match operator {
        "gt" => Comparison::Gt,
        "gte" => Comparison::Gte,
        "lt" => Comparison::Lt,
        "lte" => Comparison::Lte,
        "prefix" => return prefix(field, bound),
        _ => return words(field, bound),
    };
    match field.kind() {
        FieldKind::Integer => Ok(Test::Integer(comparison, integer(bound)?)),
        FieldKind::Id => Ok(id_range(comparison, &text(field, bound)?)),
        FieldKind::Ids => Err(wrong(
            "does not go with a list of ids; name an id, or a list of ids",
        )),
        FieldKind::Text | FieldKind::Login | FieldKind::Role => {
            Ok(Test::Text(comparison, text(field, bound)?.into_owned()))
        }
    }
}

/// The ids that compare so with any text, as numbers.
fn id_range(comparison: Comparison, bound: &str) -> Test {
    const END: u128 = 1 << 64;
    let first_not_below = Id::first_not_below(bound);
    let first_above = first_not_below + u128::from(Id::parse(bound).is_some());
    match comparison {
        Comparison::Gt => Test::IdRange(first_above, END),
        Comparison::Gte => Test::IdRange(first_not_below, END),
        Comparison::Lt => Test::IdRange(0, first_not_below),
        Comparison::Lte => Test::IdRange(0, first_above),
    }
}

fn prefix(field: Field, value: &RawValue) -> Result<Test, Error> {
    match field.kind() {
        FieldKind::Integer | FieldKind::Ids => {
            Err(wrong(format!("does not go with {}", field.name())))
        }
        _ => Ok(Test::Prefix(text(field, value)?.into_owned())),
    }
}

fn words(field: Field, value: &RawValue) -> Result<Test, Error> {
    if field.kind() != FieldKind::Text {
        return Err(wrong(format!(
            "does not go with {}: it is for name, surname, description and message",
            field.name()
        )));
    }
    match Words::parse(&text(field, value)?) {
        Ok(words) => Ok(Test::Match(Box::new(words))),
        Err(why) => Err(wrong(why.to_string())),
    }
}

/// A text to compare with the field's; that of a login is folded.
fn text(field: Field, value: &RawValue) -> Result<Cow<'_, str>, Error> {
    let text = string(value)?;
    if text.contains('\0') {
        return Err(wrong("must not contain a NUL character"));
    }
    Ok(if field.kind() == FieldKind::Login {
        Cow::Owned(fold_login(&text))
    } else {
        text
    })
}

fn integer(value: &RawValue) -> Result<i128, Error> {
    whole_number(value).ok_or_else(|| wrong("must be an integer"))
}
