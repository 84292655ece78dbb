//! Random requests over small pools, so that they collide: right ones, and ones with something wrong in them.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::model::{Kind, Model};

use super::queries;

/// One request.
#[derive(Debug, Clone)]
pub struct Operation {
    pub subclass: &'static str,
    pub cmd: &'static str,
    pub data: Value,
}

const MAX_USERS: usize = 12;
const MAX_CONVERSATIONS: usize = 8;

/// How often each command is chosen.
const COMMANDS: &[(u32, &str, &str)] = &[
    (7, "user", "create"),
    (3, "user", "get"),
    (6, "user", "update"),
    (2, "user", "delete"),
    (9, "user", "search"),
    (4, "conversation", "create"),
    (3, "conversation", "get"),
    (4, "conversation", "update"),
    (1, "conversation", "delete"),
    (7, "conversation", "add_members"),
    (6, "conversation", "remove_members"),
    (4, "conversation", "get_members"),
    (8, "conversation", "search"),
    (22, "message", "create"),
    (4, "message", "get"),
    (8, "message", "update"),
    (5, "message", "delete"),
    (16, "message", "search"),
];

/// Logins that are one another's variants, and some that are nobody's.
const LOGINS: &[&str] = &[
    "ann@example.org",
    "Ann@Example.org",
    "ANN@EXAMPLE.ORG",
    "élise@example.org",
    "ÉLISE@example.org",
    "e\u{301}lise@example.org",
    "strauß@example.org",
    "STRAUSS@example.org",
    "jürgen@example.org",
    "JU\u{308}RGEN@example.org",
    "ann@example.org ",
    "ann\u{200b}@example.org",
];

/// Words that are equal in ways that a byte comparison does not see, and words in scripts without spaces.
pub const WORDS: &[&str] = &[
    "hello",
    "Hello",
    "héllo",
    "HE\u{301}LLO",
    "help",
    "world",
    "World",
    "straße",
    "STRASSE",
    "ﬁsh",
    "FISH",
    "Σίσυφος",
    "ΣΙΣΥΦΟΣ",
    "Ёлка",
    "елка",
    "Йод",
    "你好世界",
    "世界",
    "好世",
    "ガラス",
    "カラ",
    "สวัสดีครับ",
    "ครับ",
    "น้ำ",
    "２０２６",
    "2026",
    "jo_ann",
    "O'Brien",
    "o’brien",
    "Łódź",
    "lodz",
    "co\u{ad}op",
    "coop",
    "हिन्दी",
    "दिन",
    "दान",
    "محـمد",
    "مُحمد",
    "パン",
    "バン",
    "iPhone手机",
    "手机",
    "Windows™",
    "№12",
    "mc²",
    "1½",
    "party🎉time",
    "🎉",
    "👩‍💻",
    "👩",
    "👍🏽",
    "👍",
    "a",
];

const SEPARATORS: &[&str] = &[
    " ", ", ", "  ", " — ", "! ", "\n", "\t\"", "，", "\u{85}", "\u{2028}", "\u{2029}",
];

pub fn operation(rng: &mut StdRng, model: &Model) -> Operation {
    let (mut subclass, mut cmd) = COMMANDS
        .choose_weighted(rng, |(weight, ..)| *weight)
        .map(|(_, subclass, cmd)| (*subclass, *cmd))
        .unwrap();
    if cmd == "create" {
        let is_full = match subclass {
            "user" => model.objects(Kind::User).count() >= MAX_USERS,
            "conversation" => model.objects(Kind::Conversation).count() >= MAX_CONVERSATIONS,
            _ => false,
        };
        if is_full {
            (subclass, cmd) = if rng.random_bool(0.3) {
                (subclass, "delete")
            } else {
                ("message", "create")
            };
        }
    }
    let mut data = data_for(rng, model, subclass, cmd);
    if rng.random_bool(0.08) {
        spoil(rng, &mut data);
    }
    Operation {
        subclass,
        cmd,
        data,
    }
}

/// An operation of a user: often about itself, and about what it may see.
pub fn operation_of(rng: &mut StdRng, model: &Model, user: &str) -> Operation {
    let mut operation = operation(rng, model);
    let Some(data) = operation
        .data
        .as_object_mut()
        .filter(|_| operation.cmd != "search")
    else {
        return operation;
    };
    if operation.subclass == "user" && operation.cmd == "delete" && rng.random_bool(0.7) {
        // Not too often, for it is gone then.
        operation.cmd = "get";
    } else if operation.subclass == "user" && data.contains_key("user_id") && rng.random_bool(0.5) {
        data.insert("user_id".to_owned(), json!(user));
    }
    if operation.subclass == "message" && operation.cmd == "create" {
        match rng.random_range(0..10) {
            0..3 => drop(data.remove("user_id")),
            3..8 => drop(data.insert("user_id".to_owned(), json!(user))),
            _ => {}
        }
    }
    if operation.cmd == "remove_members" && rng.random_bool(0.3) {
        data.insert("user_ids".to_owned(), json!([user]));
    }
    if data.contains_key("conversation_id") && rng.random_bool(0.6) {
        let own = model.ids(Kind::Conversation);
        let own: Vec<String> = own
            .into_iter()
            .filter(|conversation| model.is_member(user, conversation))
            .collect();
        let Some(conversation) = own.choose(rng) else {
            return operation;
        };
        data.insert("conversation_id".to_owned(), json!(conversation));
        if data.contains_key("message_id") {
            let mut inside = model.objects(Kind::Message).collect::<Vec<_>>();
            inside.retain(|(_, message)| message["conversation_id"] == **conversation);
            if let Some((message, _)) = inside.choose(rng) {
                data.insert("message_id".to_owned(), json!(message));
            }
        }
    }
    operation
}

fn data_for(rng: &mut StdRng, model: &Model, subclass: &str, cmd: &str) -> Value {
    let user = pick(rng, model, Kind::User);
    let conversation = pick(rng, model, Kind::Conversation);
    match (subclass, cmd) {
        ("user", "search") => queries::search(rng, model, Kind::User),
        ("conversation", "search") => queries::search(rng, model, Kind::Conversation),
        ("message", "search") => queries::search(rng, model, Kind::Message),
        ("user", "create") => {
            let mut data = json!({"login": login(rng), "name": name(rng), "password": "s3cret"});
            sometimes(rng, &mut data, "surname", 0.5, |rng| {
                json!(if rng.random_bool(0.2) {
                    String::new()
                } else {
                    name(rng)
                })
            });
            sometimes(rng, &mut data, "role", 0.3, role);
            data
        }
        ("user", "update") => {
            let mut data = json!({"user_id": user});
            sometimes(rng, &mut data, "name", 0.4, |rng| json!(name(rng)));
            sometimes(rng, &mut data, "surname", 0.4, clearable_text);
            sometimes(rng, &mut data, "role", 0.2, role);
            let mut chance = 0.01;
            if rng.random_bool(0.15) {
                let passwords = ["another", "another one", "yet another one"];
                data["password"] = json!(passwords.choose(rng));
                chance = 0.7;
            }
            sometimes(rng, &mut data, "old_password", chance, |rng| {
                let known = model.object(Kind::User, &user);
                match known {
                    Some(_) if rng.random_bool(0.8) => json!(model.password(&user)),
                    _ => json!("wrong"),
                }
            });
            sometimes(rng, &mut data, "keep_tokens", chance, |rng| {
                json!(rng.random_bool(0.5))
            });
            data
        }
        ("user", _) => json!({"user_id": user}),
        ("conversation", "create") => {
            let mut data = json!({"name": name(rng)});
            sometimes(rng, &mut data, "description", 0.5, optional_text);
            sometimes(rng, &mut data, "user_ids", 0.8, |rng| user_ids(rng, model));
            data
        }
        ("conversation", "update") => {
            let mut data = json!({"conversation_id": conversation});
            sometimes(rng, &mut data, "name", 0.5, |rng| json!(name(rng)));
            sometimes(rng, &mut data, "description", 0.5, clearable_text);
            data
        }
        ("conversation", "add_members" | "remove_members") => {
            json!({"conversation_id": conversation, "user_ids": user_ids(rng, model)})
        }
        ("conversation", "get_members") => {
            let mut data = json!({"conversation_id": conversation});
            sometimes(rng, &mut data, "size", 0.5, |rng| {
                json!(rng.random_range(0..8))
            });
            sometimes(rng, &mut data, "from", 0.5, |rng| {
                json!(rng.random_range(0..8))
            });
            data
        }
        ("conversation", _) => json!({"conversation_id": conversation}),
        ("message", "create") => message(rng, &user, &conversation),
        ("message", "get") => json!({"message_id": pick(rng, model, Kind::Message)}),
        ("message", _) => {
            let message_id = pick(rng, model, Kind::Message);
            let own = model
                .object(Kind::Message, &message_id)
                .map(|message| message["conversation_id"].clone());
            let conversation = own
                .filter(|_| rng.random_bool(0.85))
                .unwrap_or_else(|| json!(conversation));
            let mut data = json!({"conversation_id": conversation, "message_id": message_id});
            if cmd == "update" {
                data["message"] = json!(text(rng));
            }
            data
        }
        _ => panic!("no data for {subclass} {cmd}"),
    }
}

/// A message that often carries a nonce which another carried before, mostly with the same text.
fn message(rng: &mut StdRng, user: &str, conversation: &str) -> Value {
    let mut data = json!({"conversation_id": conversation, "user_id": user, "message": text(rng)});
    if rng.random_bool(0.4) {
        let nonce = rng.random_range(0..3);
        data["nonce"] = json!(format!("nonce {nonce}"));
        if rng.random_bool(0.8) {
            data["message"] = json!(format!("the text of nonce {nonce}"));
        }
    } else if rng.random_bool(0.01) {
        // Exactly as long as it may be.
        data["message"] = json!("é".repeat(8192));
    }
    data
}

/// Mostly an object that exists; else one that was deleted, one of another kind, or nothing at all.
pub fn pick(rng: &mut StdRng, model: &Model, kind: Kind) -> String {
    let nobody = || "zzzzzzzzzz".to_owned();
    let from = |rng: &mut StdRng, ids: &[String]| ids.choose(rng).cloned().unwrap_or_else(nobody);
    match rng.random_range(0..100) {
        0..91 => from(rng, &model.ids(kind)),
        91..97 => from(rng, model.deleted.get(&kind).map_or(&[], Vec::as_slice)),
        97..99 => {
            let other = Kind::ALL.choose(rng).unwrap();
            from(rng, &model.ids(*other))
        }
        _ => nobody(),
    }
}

/// A list of users with repetitions; now and then it is empty.
fn user_ids(rng: &mut StdRng, model: &Model) -> Value {
    let count = rng.random_range(0..6);
    let mut ids: Vec<String> = (0..count).map(|_| pick(rng, model, Kind::User)).collect();
    if let Some(first) = ids.first().filter(|_| rng.random_bool(0.2)).cloned() {
        ids.push(first);
    }
    json!(ids)
}

pub fn login(rng: &mut StdRng) -> String {
    if rng.random_bool(0.5) {
        return (*LOGINS.choose(rng).unwrap()).to_owned();
    }
    format!("user{}@example.org", rng.random_range(0..30))
}

pub fn text(rng: &mut StdRng) -> String {
    let mut text = (*WORDS.choose(rng).unwrap()).to_owned();
    for _ in 0..rng.random_range(0..4) {
        text.push_str(SEPARATORS.choose(rng).unwrap());
        text.push_str(WORDS.choose(rng).unwrap());
    }
    text
}

/// A text that can be a name; now and then it has something in it that no name has, or nothing to see.
fn name(rng: &mut StdRng) -> String {
    match rng.random_range(0..20) {
        0 => text(rng),
        1 => [" ", "\u{3164}", "\u{200b} ", "\u{202e}evil", "a\u{1b}b"]
            .choose(rng)
            .copied()
            .unwrap()
            .to_owned(),
        _ => text(rng).replace(['\n', '\t', '\u{85}', '\u{2028}', '\u{2029}'], " "),
    }
}

/// One of the words that texts are made of.
pub fn word(rng: &mut StdRng) -> &'static str {
    WORDS.choose(rng).unwrap()
}

fn optional_text(rng: &mut StdRng) -> Value {
    if rng.random_bool(0.2) {
        json!("")
    } else {
        json!(text(rng))
    }
}

fn clearable_text(rng: &mut StdRng) -> Value {
    if rng.random_bool(0.3) {
        Value::Null
    } else {
        optional_text(rng)
    }
}

fn role(rng: &mut StdRng) -> Value {
    json!(
        ["user", "user", "user", "admin", "king"]
            .choose(rng)
            .unwrap()
    )
}

pub fn sometimes(
    rng: &mut StdRng,
    data: &mut Value,
    name: &str,
    chance: f64,
    make: impl FnOnce(&mut StdRng) -> Value,
) {
    if rng.random_bool(chance) {
        data[name] = make(rng);
    }
}

/// Makes one thing wrong. (The model judges the result by itself, so it does no harm where it happens to be right.)
fn spoil(rng: &mut StdRng, data: &mut Value) {
    let fields = data.as_object_mut().unwrap();
    let names: Vec<String> = fields.keys().cloned().collect();
    let Some(name) = names.choose(rng).cloned() else {
        fields.insert("colour".to_owned(), json!("red"));
        return;
    };
    let value = fields[&name].clone();
    let is_free_text = [
        "login",
        "name",
        "surname",
        "description",
        "message",
        "password",
        "old_password",
        "nonce",
    ]
    .contains(&name.as_str());
    match rng.random_range(0..6) {
        0 => drop(fields.remove(&name)),
        1 => drop(fields.insert("colour".to_owned(), json!(1))),
        2 => drop(fields.insert(name, wrong_type(&value))),
        3 if value.is_string() => drop(fields.insert(name, json!(""))),
        4 if value.is_string() => drop(fields.insert(name, json!("nothing\0more"))),
        5 if is_free_text => drop(fields.insert(name, json!("long".repeat(4097)))),
        _ => {
            fields.insert("colour".to_owned(), json!(1));
            fields.remove(&name);
        }
    }
}

fn wrong_type(value: &Value) -> Value {
    match value {
        Value::String(_) => json!(17),
        Value::Number(_) => json!("17"),
        Value::Bool(_) => json!("yes"),
        _ => json!(true),
    }
}
