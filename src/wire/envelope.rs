//! The envelope of a request: `class`, `subclass`, `cmd`, `data`, `tid`, taken apart without reading `data` yet.
//!
//! The envelope comes first and on its own, so that the answer to a request with bad fields still carries its `tid`
//! and so that an unknown command is told from a known one with wrong data (protocol.md, 2, the order of checks).

use super::sound::{Fault, fault};
use crate::error::{Code, Error, excerpt};
use crate::spelling::there_are;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The fields of a request.
pub(super) const FIELDS: [&str; 5] = ["class", "subclass", "cmd", "data", "tid"];

/// What a refusal of a line shows as a request that works.
const EXAMPLE: &str = r#"{"class":"chat","subclass":"session","cmd":"ping","tid":1}"#;

/// A request, its `data` not yet read.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// `subclass`, as given.
    pub subclass: Cow<'a, str>,
    /// `cmd`, as given.
    pub cmd: Cow<'a, str>,
    /// `data`, if there is any.
    pub data: Option<&'a RawValue>,
    /// `tid`, to the digit.
    pub tid: Option<&'a RawValue>,
}

/// A refusal of an envelope, with the `tid` that its answer carries, if that much could be read.
#[derive(Debug)]
pub struct EnvelopeError<'a> {
    /// The refusal.
    pub error: Error,
    /// The `tid` of the answer.
    pub tid: Option<&'a RawValue>,
}

/// A JSON object as its entries, in order, values unread; a name that stands twice is kept apart.
#[derive(Debug, Default)]
pub struct Object<'a> {
    /// The entries, each name's first.
    pub entries: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The first name that stands a second time.
    pub repeated: Option<Cow<'a, str>>,
    /// The object as it was written.
    pub text: &'a str,
}

impl<'a> Object<'a> {
    /// The entry of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.entries
            .iter()
            .find(|(candidate, _)| candidate == name)
            .map(|(_, value)| *value)
    }
}

/// A name in an object, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // A request has five fields, and the data of most has fewer.
                const FIELDS: usize = 5;
                let mut object = Object {
                    entries: Vec::with_capacity(FIELDS),
                    ..Object::default()
                };
                let mut names = std::collections::HashSet::new();
                while let Some((Name(name), value)) =
                    map.next_entry::<Name<'de>, &'de RawValue>()?
                {
                    // Few names are found by looking; many, by a table, so that a hostile line costs no more.
                    const FEW: usize = 16;
                    if object.entries.len() == FEW {
                        names.extend(object.entries.iter().map(|(name, _)| name.clone()));
                    }
                    let known = if object.entries.len() < FEW {
                        object.get(&name).is_some()
                    } else {
                        !names.insert(name.clone())
                    };
                    if known {
                        object.repeated.get_or_insert(name);
                    } else {
                        object.entries.push((name, value));
                    }
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Reads an object; a value that is none gives `None`.
pub fn parse_object(json: &str) -> Result<Option<Object<'_>>, serde_json::Error> {
    if !json.trim_start().starts_with('{') {
        // Valid JSON all the same, or the error says why not.
        return serde_json::from_str::<&RawValue>(json).map(|_| None);
    }
    serde_json::from_str(json).map(|object| {
        Some(Object {
            text: json,
            ..object
        })
    })
}

/// A request of the usual kind. Whatever else a line is, serde refuses it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Usual<'a> {
    class: &'a str,
    subclass: &'a str,
    cmd: &'a str,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tid: Option<&'a RawValue>,
}

/// Takes a line apart, checking in the order of protocol.md, 2 up to the wrong types of `subclass` and `cmd`.
pub fn parse_envelope(line: &[u8]) -> Result<Envelope<'_>, EnvelopeError<'_>> {
    let text = str::from_utf8(line).map_err(|error| EnvelopeError {
        error: bad_json(&not_utf8(line, error.valid_up_to())),
        tid: None,
    })?;
    match serde_json::from_str::<Usual<'_>>(text) {
        Ok(usual)
            if usual.class == "chat" && usual.tid.is_none_or(is_tid) && fault(text).is_none() =>
        {
            Ok(Envelope {
                subclass: Cow::Borrowed(usual.subclass),
                cmd: Cow::Borrowed(usual.cmd),
                data: usual.data,
                tid: usual.tid,
            })
        }
        _ => check_envelope(text),
    }
}

/// Takes a line apart entry by entry: what is unusual is either written with escapes, or refused for the first of the
/// reasons there are.
fn check_envelope(text: &str) -> Result<Envelope<'_>, EnvelopeError<'_>> {
    let bare = |error| EnvelopeError { error, tid: None };
    let object = parse_object(text).map_err(|error| bare(bad_json(&describe(text, &error))))?;
    if let Some(Fault { what, bytes_before }) = fault(text) {
        return Err(bare(bad_json(&at(text, &what, bytes_before))));
    }
    let object = object.ok_or_else(|| {
        let error = Error::new(
            Code::BadRequest,
            "a request is a JSON object, as in example",
        );
        bare(error.example(EXAMPLE))
    })?;

    let given_tid = object.get("tid").filter(|tid| !is_null(tid));
    let tid = given_tid.filter(|tid| is_tid(tid));
    let refuse = |error| EnvelopeError { error, tid };
    if let Some(name) = &object.repeated {
        let error = Error::new(
            Code::BadRequest,
            format!("the field {} stands twice", excerpt(name)),
        );
        return Err(refuse(error.field(name.clone().into_owned())));
    }
    for (name, _) in &object.entries {
        if !FIELDS.contains(&name.as_ref()) {
            let text = format!(
                "unknown field {} of a request; {}; a command's own fields stand in data",
                excerpt(name),
                there_are(name, &FIELDS)
            );
            let error = Error::new(Code::UnknownField, text).field(name.clone().into_owned());
            return Err(refuse(error.example(EXAMPLE)));
        }
    }
    if let Some(tid) = given_tid
        && !is_tid(tid)
    {
        return Err(bare(Error::invalid(
            "tid",
            "tid must be a string or a number",
        )));
    }
    let class = text_of(&object, "class", Code::UnknownClass).map_err(refuse)?;
    if class != "chat" {
        let text = format!("unknown class {}; it is always \"chat\"", excerpt(&class));
        return Err(refuse(Error::new(Code::UnknownClass, text).field("class")));
    }
    let subclass = text_of(&object, "subclass", Code::UnknownSubclass).map_err(refuse)?;
    let cmd = text_of(&object, "cmd", Code::UnknownCommand);
    // An unknown subclass is found before a missing cmd, and only the table knows the subclasses.
    let cmd = match cmd {
        Ok(cmd) => cmd,
        Err(_) if crate::model::Subclass::parse(&subclass).is_none() => Cow::Borrowed(""),
        Err(error) => return Err(refuse(error)),
    };
    Ok(Envelope {
        subclass,
        cmd,
        data: object.get("data").filter(|data| !is_null(data)),
        tid,
    })
}

/// A `null` stands for what was left out.
fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

fn is_tid(raw: &RawValue) -> bool {
    raw.get()
        .starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

fn text_of<'a>(
    object: &Object<'a>,
    name: &'static str,
    otherwise: Code,
) -> Result<Cow<'a, str>, Error> {
    let Some(raw) = object.get(name) else {
        let text = format!("{name} is missing; a request looks like example");
        let error = Error::new(Code::MissingField, text).field(name);
        return Err(error.example(EXAMPLE));
    };
    text(raw).ok_or_else(|| Error::new(otherwise, format!("{name} must be a string")).field(name))
}

/// The string that a value is; borrowed as it stands where it has no escapes, which most have not.
#[must_use]
pub fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<Name<'_>>(raw.get())
        .map(|Name(text)| text)
        .ok()
}

fn bad_json(what: &str) -> Error {
    Error::new(Code::BadJson, format!("this line is not JSON: {what}")).example(EXAMPLE)
}

/// What is wrong, and at which character, counted from 1.
fn at(text: &str, what: &str, bytes_before: usize) -> String {
    format!("{what} at character {}", characters(text, bytes_before + 1))
}

/// The characters that begin within so many bytes.
fn characters(text: &str, bytes: usize) -> usize {
    text.bytes()
        .take(bytes)
        .filter(|byte| !matches!(byte, 0x80..=0xbf))
        .count()
}

/// The parser's own words, with the place as a person counts: a request is one line.
fn describe(text: &str, error: &serde_json::Error) -> String {
    let said = error.to_string();
    let what = said.split(" at line ").next().unwrap_or_default();
    let place = error.column().saturating_sub(1);
    match what {
        "trailing comma" => format!(
            "trailing comma before character {}",
            characters(text, place + 1)
        ),
        "EOF while parsing a value" => {
            let last = characters(text, text.len());
            format!("it ends where a value should stand, behind character {last}")
        }
        _ => match what.strip_prefix("EOF while parsing ") {
            Some(part) => format!(
                "it ends inside {part}, behind character {}",
                characters(text, text.len())
            ),
            None => at(text, what, place),
        },
    }
}

fn not_utf8(line: &[u8], valid_bytes: usize) -> String {
    let place = format!("not UTF-8 at byte {}", valid_bytes + 1);
    let utf16 = line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff");
    if utf16 {
        place + "; this is UTF-16: send UTF-8"
    } else {
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> (&'static str, Option<String>, Option<String>) {
        let refused = parse_envelope(line.as_bytes()).expect_err(line);
        let field = refused.error.field_name().map(str::to_owned);
        (
            refused.error.code().as_str(),
            field,
            refused.tid.map(|tid| tid.get().to_owned()),
        )
    }

    #[test]
    fn a_request_is_taken_apart_to_the_digit() {
        let line =
            r#" {"tid": 1.50 ,"data":{"a": [1]},"cmd":"x","subclass":"user","class":"chat"} "#;
        let envelope = parse_envelope(line.as_bytes()).unwrap();
        assert_eq!(
            (envelope.subclass.as_ref(), envelope.cmd.as_ref()),
            ("user", "x")
        );
        assert_eq!(envelope.tid.unwrap().get(), "1.50");
        assert_eq!(envelope.data.unwrap().get(), r#"{"a": [1]}"#);
    }

    #[test]
    fn usual_requests_are_read_as_unusual_ones_are() {
        let values = [
            "\"chat\"",
            "\"user\"",
            "\"\\u0063hat\"",
            "1",
            "null",
            "{}",
            "[1]",
            "\"\\ud800\"",
            "",
        ];
        let names = ["class", "subclass", "cmd", "data", "tid", "x", "\\u0074id"];
        let mut read = 0;
        for &(name, value) in &names.map(|name| values.map(|value| (name, value))).concat() {
            for left_out in ["", "class", "subclass", "cmd", "data", "tid"] {
                let usual = [
                    ("class", "\"chat\""),
                    ("subclass", "\"user\""),
                    ("cmd", "\"get\""),
                    ("data", "{\"a\":1}"),
                    ("tid", "7"),
                ];
                let mut entries = Vec::from(usual);
                entries.retain(|(name, _)| *name != left_out);
                entries.push((name, value));
                let entries: Vec<String> = entries
                    .iter()
                    .map(|(name, value)| format!("\"{name}\": {value}"))
                    .collect();
                let line = format!("{{{}}}", entries.join(","));
                let (one, other) = (parse_envelope(line.as_bytes()), check_envelope(&line));
                assert_eq!(format!("{one:?}"), format!("{other:?}"), "{line}");
                read += usize::from(one.is_ok());
            }
        }
        assert!(read > 20, "{read}");
    }

    #[test]
    fn the_first_failing_check_is_the_answer() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(refusal("hello"), ("bad_json", None, None));
        assert_eq!(refusal("[1]"), ("bad_request", None, None));
        assert_eq!(
            refusal(r#"{"x":1,"tid":1,"tid":2}"#),
            ("bad_request", some("tid"), some("1"))
        );
        assert_eq!(
            refusal(r#"{"x":1,"tid":7}"#),
            ("unknown_field", some("x"), some("7"))
        );
        assert_eq!(
            refusal(r#"{"tid":[],"class":"x"}"#),
            ("invalid_field", some("tid"), None)
        );
        assert_eq!(
            refusal(r#"{"tid":null,"class":"x"}"#),
            ("unknown_class", some("class"), None)
        );
        assert_eq!(refusal(r#"{"tid":"\ud800"}"#), ("bad_json", None, None));
        assert_eq!(
            refusal(r#"{"tid":"a"}"#),
            ("missing_field", some("class"), some("\"a\""))
        );
        assert_eq!(
            refusal(r#"{"class":5}"#),
            ("unknown_class", some("class"), None)
        );
        assert_eq!(
            refusal(r#"{"class":"chat","subclass":1}"#),
            ("unknown_subclass", some("subclass"), None)
        );
        assert_eq!(
            refusal(r#"{"class":"chat","subclass":"user"}"#),
            ("missing_field", some("cmd"), None)
        );
        assert_eq!(
            refusal(r#"{"class":"chat","subclass":"user","cmd":{}}"#),
            ("unknown_command", some("cmd"), None)
        );
    }

    #[test]
    fn many_names_are_still_compared_with_each_other() {
        let mut line = String::from("{");
        for number in 0..40 {
            line += &["\"n", &number.to_string(), "\":1,"].concat();
        }
        line.push_str("\"n3\":2}");
        let object = parse_object(&line).unwrap().unwrap();
        assert_eq!(object.repeated.as_deref(), Some("n3"));
        assert_eq!(object.entries.len(), 40);
    }
}
