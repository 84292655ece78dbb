//! Random searches: every field, operator, order and page, and the mistakes that can be made in them.

use chatd::model::Words;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::model::{Holds, Kind, Model, fields_of, words};

use super::operations::{WORDS, login, pick, sometimes, text};

pub fn search(rng: &mut StdRng, model: &Model, kind: Kind) -> Value {
    let mut data = json!({});
    sometimes(rng, &mut data, "fields", 0.7, |rng| fields(rng, kind));
    sometimes(rng, &mut data, "filter", 0.8, |rng| {
        filter(rng, model, kind)
    });
    sometimes(rng, &mut data, "size", 0.4, |rng| {
        json!([0, 1, 2, 5, 50, 1000, 1001].choose(rng).unwrap())
    });
    sometimes(rng, &mut data, "from", 0.3, |rng| {
        json!([0, 1, 2, 5, 100_000, -1].choose(rng).unwrap())
    });
    sometimes(rng, &mut data, "sort_by", 0.5, |rng| sort_by(rng, kind));
    sometimes(rng, &mut data, "sort_order", 0.5, |rng| {
        json!(["asc", "desc", "desc", "asc", "up"].choose(rng).unwrap())
    });
    sometimes(rng, &mut data, "total", 0.3, |rng| {
        json!(rng.random_bool(0.5))
    });
    data
}

fn fields(rng: &mut StdRng, kind: Kind) -> Value {
    match rng.random_range(0..20) {
        0..8 => json!("_all"),
        8 => json!([]),
        9 => json!("nonsense"),
        10 => json!(["_all", field(rng, kind).0]),
        11..14 => json!(field(rng, kind).0),
        _ => json!([field(rng, kind).0, field(rng, kind).0]),
    }
}

fn sort_by(rng: &mut StdRng, kind: Kind) -> Value {
    match rng.random_range(0..20) {
        0..8 => json!(field(rng, kind).0),
        8 => json!([]),
        9 => json!(["nonsense"]),
        10 => json!("_all "),
        _ => json!([field(rng, kind).0, field(rng, kind).0]),
    }
}

fn field(rng: &mut StdRng, kind: Kind) -> (&'static str, Holds) {
    *fields_of(kind).choose(rng).unwrap()
}

/// A field that can be searched for words.
fn words_field(rng: &mut StdRng, kind: Kind) -> (&'static str, Holds) {
    let fields: Vec<_> = fields_of(kind)
        .iter()
        .filter(|(_, holds)| *holds == Holds::Words)
        .collect();
    **fields.choose(rng).unwrap()
}

fn filter(rng: &mut StdRng, model: &Model, kind: Kind) -> Value {
    let mut filter = json!({});
    for _ in 0..[0, 1, 1, 1, 2, 2, 3].choose(rng).copied().unwrap() {
        let (name, holds) = if rng.random_bool(0.3) {
            words_field(rng, kind)
        } else {
            field(rng, kind)
        };
        filter[name] = condition(rng, model, kind, name, holds);
    }
    match rng.random_range(0..60) {
        0 => filter["nonsense"] = json!("x"),
        1 => filter["password"] = json!("s3cret"),
        2 => return json!([]),
        _ => {}
    }
    filter
}

fn condition(rng: &mut StdRng, model: &Model, kind: Kind, name: &str, holds: Holds) -> Value {
    let mut value = |rng: &mut StdRng| value(rng, model, kind, name, holds);
    if holds == Holds::Words && rng.random_bool(0.5) {
        if rng.random_bool(0.3) {
            let whole = value(rng);
            return json!({"match": phrase(rng, &whole)});
        }
        return json!({"match": query(rng)});
    }
    match rng.random_range(0..24) {
        0..6 => value(rng),
        6 => json!([]),
        7..10 => json!([value(rng), value(rng)]),
        10 => json!({"like": value(rng)}),
        11 => json!(true),
        12 => json!([value(rng), false]),
        // What operators mean for a role or a list of members is nowhere said.
        _ if matches!(holds, Holds::Ids | Holds::Role) => value(rng),
        13..16 if matches!(holds, Holds::Words | Holds::Login) => {
            let whole = value(rng);
            json!({"prefix": prefix(rng, &whole)})
        }
        20 => {
            let operator = ["gt", "prefix", "match"].choose(rng).unwrap();
            json!({ *operator: 1.5 })
        }
        21 if holds == Holds::Login => json!({"match": "ann"}),
        _ => range(rng, &mut value),
    }
}

fn range(rng: &mut StdRng, value: &mut impl FnMut(&mut StdRng) -> Value) -> Value {
    let mut range = json!({});
    for _ in 0..rng.random_range(1..3) {
        let operator = ["gt", "gte", "lt", "lte"].choose(rng).unwrap();
        range[*operator] = value(rng);
    }
    range
}

/// A value to compare with: mostly one that some object has.
fn value(rng: &mut StdRng, model: &Model, kind: Kind, name: &str, holds: Holds) -> Value {
    let id_of = match name {
        "user_id" | "user_ids" | "created_by" => Some(Kind::User),
        "conversation_id" => Some(Kind::Conversation),
        "message_id" => Some(Kind::Message),
        _ => None,
    };
    if let Some(kind) = id_of {
        return json!(pick(rng, model, kind));
    }
    if holds == Holds::Role {
        // Whether "user" finds those whose role is left out is nowhere said.
        return json!("admin");
    }
    let present: Vec<&Value> = model
        .objects(kind)
        .filter_map(|(_, object)| object.get(name))
        .collect();
    match (holds, present.choose(rng)) {
        (Holds::Login, Some(Value::String(login))) if rng.random_bool(0.3) => {
            json!(login.to_uppercase())
        }
        (_, Some(value)) if rng.random_bool(0.85) => (*value).clone(),
        (Holds::Login, _) => json!(login(rng)),
        (Holds::Number, _) => json!(rng.random_range(0..10)),
        _ => json!(text(rng)),
    }
}

fn prefix(rng: &mut StdRng, value: &Value) -> String {
    let text = value.as_str().unwrap();
    let length = text.chars().count();
    text.chars()
        .take(rng.random_range(0..=length).max(1))
        .collect()
}

/// A piece of a text, most often in quotes; now and then a quote is missing.
fn phrase(rng: &mut StdRng, value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let skip = rng.random_range(0..=text.chars().count() / 2);
    let piece: String = text
        .chars()
        .skip(skip)
        .take(rng.random_range(1..20))
        .collect();
    let star = ["", "", "*"].choose(rng).unwrap();
    match rng.random_range(0..10) {
        0 => format!("\"{piece}{star}"),
        1 => format!("{piece}{star} \"{}\"", WORDS.choose(rng).unwrap()),
        _ => format!("\"{piece}{star}\""),
    }
}

/// Words to look for; now and then there is none in it.
fn query(rng: &mut StdRng) -> String {
    if rng.random_bool(0.05) {
        return ["", "*", " !? ", "***"]
            .choose(rng)
            .copied()
            .unwrap()
            .to_owned();
    }
    let mut query = String::new();
    for _ in 0..rng.random_range(1..3) {
        let word = WORDS.choose(rng).unwrap();
        match rng.random_range(0..10) {
            0..3 => {
                // The beginning of a word finds it with the star and not without.
                query.extend(word.chars().take(rng.random_range(1..4)));
                query.push_str(["*", "*", ""].choose(rng).unwrap());
            }
            3 => query.push_str(&word.to_uppercase()),
            _ => query.push_str(word),
        }
        query.push_str([" ", ", ", " * "].choose(rng).unwrap());
    }
    query
}

/// The daemon sees few of the pairs of queries and texts that can be made.
#[test]
fn the_matcher_agrees_with_the_model() {
    let seed = super::setting("CHATD_SEED").unwrap_or_else(rand::random);
    eprintln!("CHATD_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut found = [0; 3];
    for _ in 0..40_000 {
        let present = text(&mut rng);
        let query = if rng.random_bool(0.5) {
            let whole = if rng.random_bool(0.8) {
                present.clone()
            } else {
                text(&mut rng)
            };
            phrase(&mut rng, &json!(whole))
        } else {
            query(&mut rng)
        };
        let expected = words::matches(&present, &query);
        let answered = Words::parse(&query).map(|words| words.found_in(&present));
        assert_eq!(answered.ok(), expected, "{query:?} in {present:?}");
        found[expected.map_or(2, usize::from)] += 1;
    }
    println!("not found, found, no word: {found:?}");
    assert!(found.iter().all(|count| *count > 100), "{found:?}");
}
