//! The names by which both daemons' ids are known, and lines with everything masked that two daemons cannot agree on.

use std::collections::HashMap;

use serde_json::Value;

/// Ids are strings of so many letters and digits; nothing else that is sent is one.
const ID_LENGTH: usize = 13;

/// The fields that hold times, and numbers that count across the whole server.
const MASKED: [&str; 7] = [
    "seq",
    "time",
    "created_time",
    "updated_time",
    "connected_time",
    "uptime_seconds",
    "oldest",
];
/// The fields that hold texts of one daemon alone.
const MASKED_TEXTS: [&str; 4] = ["remote", "epoch", "token", "session_id"];

/// What the ids of one daemon are called.
#[derive(Default)]
pub struct Names {
    ids: HashMap<String, String>,
    names: HashMap<String, String>,
}

impl Names {
    pub fn insert(&mut self, name: &str, id: &str) {
        assert_eq!(id.len(), ID_LENGTH, "{id}");
        self.ids.insert(name.to_owned(), id.to_owned());
        self.names.insert(id.to_owned(), name.to_owned());
    }

    /// The id that a name stands for.
    pub fn id(&self, name: &str) -> String {
        self.ids[name].clone()
    }

    /// A name for what does not exist here: an id of the same form, which is nobody's.
    pub fn invent(&mut self, name: &str, elsewhere: &str) {
        let mut id = elsewhere.to_owned();
        id.replace_range(..2, "00");
        self.insert(name, &id);
    }

    /// Puts ids in the place of names, which stand in angle brackets.
    pub fn resolve(&self, data: &Value) -> Value {
        match data {
            Value::String(text) => {
                let name = text
                    .strip_prefix('<')
                    .and_then(|text| text.strip_suffix('>'));
                name.map_or_else(|| data.clone(), |name| self.ids[name].clone().into())
            }
            Value::Array(values) => values.iter().map(|value| self.resolve(value)).collect(),
            Value::Object(fields) => {
                let fields = fields.iter();
                fields
                    .map(|(key, value)| (key.clone(), self.resolve(value)))
                    .collect()
            }
            other => other.clone(),
        }
    }

    /// Learns the id of what a request made.
    pub fn learn(&mut self, makes: Option<&str>, answer: &Value) {
        let Some(name) = makes else { return };
        let ids = ["user_id", "conversation_id", "message_id", "token_id"];
        let made = ids.iter().find_map(|field| answer["data"][field].as_str());
        match made {
            // What a nonce found is known already, and has one more name.
            Some(id) if self.names.contains_key(id) => {
                self.ids.insert(name.to_owned(), id.to_owned());
            }
            Some(id) => self.insert(name, id),
            None => {}
        }
    }

    /// A line as it was sent, with ids replaced by names, and numbers and texts of one daemon alone left out.
    pub fn mask(&self, line: &str) -> String {
        let mut masked = String::with_capacity(line.len());
        let mut rest = line;
        let mut key = "";
        while let Some(start) = rest.find('"') {
            masked.push_str(&rest[..start]);
            let (text, behind) = string(&rest[start..]);
            let is_key = behind.starts_with(':');
            let inner = &text[1..text.len() - 1];
            if is_key {
                masked.push_str(text);
            } else if MASKED_TEXTS.contains(&key) {
                masked.push('*');
            } else {
                masked.push_str(&self.masked_text(text, line));
            }
            rest = behind;
            key = if is_key { inner } else { "" };
            if is_key && MASKED.contains(&key) {
                let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
                assert!(digits > 0, "{line}");
                masked.push_str(":*");
                rest = &rest[1 + digits..];
            }
        }
        masked.push_str(rest);
        masked
    }

    /// A string with the ids in it replaced by their names.
    fn masked_text(&self, text: &str, line: &str) -> String {
        let mut masked = String::new();
        let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        let mut rest = text;
        while let Some(start) = rest.find(is_letter) {
            let length = rest[start..].find(|letter| !is_letter(letter));
            let (word, behind) = rest[start..].split_at(length.unwrap_or(rest.len() - start));
            masked.push_str(&rest[..start]);
            let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
            if word.len() == ID_LENGTH && has_digit {
                let name = self.names.get(word);
                let name = name.unwrap_or_else(|| panic!("the id {word}, never heard of: {line}"));
                masked.push_str(name);
            } else {
                masked.push_str(word);
            }
            rest = behind;
        }
        masked + rest
    }
}

/// The string that a text begins with, quotes included, and the rest.
fn string(text: &str) -> (&str, &str) {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return text.split_at(index + 1),
            _ => {}
        }
    }
    panic!("a string without an end: {text}");
}
