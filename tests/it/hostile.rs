//! hostile.txt, played to a daemon: each case has its answer, and a good request behind it works.
//!
//! Beside it every field of every command is given values of every wrong type.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS};

const CASES: &str = include_str!("hostile.txt");

/// One case.
struct Case<'a> {
    name: &'a str,
    /// Whether its line is the first of a connection.
    is_first: bool,
    bytes: Vec<u8>,
    /// The code of its answer, `ok`, or none where no answer is due.
    answer: Option<&'a str>,
    /// With what code the connection is closed.
    closed: Option<&'a str>,
}

#[test]
fn hostile_bytes_are_answered_and_the_next_request_works() {
    let cases = cases();
    assert!(cases.len() >= 300, "only {} cases", cases.len());
    let daemon = Daemon::start();
    let mut kept = None;
    let mut wrong = Vec::new();
    for case in &cases {
        let client = kept.take().filter(|_| !case.is_first);
        let mut client = client.unwrap_or_else(|| daemon.client());
        match play(&mut client, case) {
            Ok(()) if case.closed.is_none() => kept = Some(client),
            Ok(()) => {}
            Err(what) => wrong.push(format!("{}: {what}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let evil = json!({"filter": {"login": "evil"}, "size": 0});
    let found = daemon.client().ok("user", "search", evil);
    assert_eq!(found["total"], 0, "a request was carried in");
}

/// A line of the server's, as far as it matters here. What it passes on may be more than every reader takes.
#[derive(Deserialize)]
struct Line<'a> {
    result: Option<&'a str>,
    #[serde(borrow)]
    tid: Option<&'a RawValue>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    data: Option<&'a RawValue>,
    body: Option<&'a RawValue>,
}

impl Line<'_> {
    /// Whether it is the answer to the good request behind a case.
    fn is_behind(&self) -> bool {
        self.result == Some("ok") && self.tid.is_some_and(|tid| tid.get() == r#""behind""#)
    }
}

fn code_of(data: &RawValue) -> String {
    let data: Value = serde_json::from_str(data.get()).expect("JSON");
    data["code"].as_str().expect("a code").to_owned()
}

/// Sends the bytes of a case and compares what comes back.
fn play(client: &mut Client, case: &Case) -> Result<(), String> {
    if !case.is_first {
        client.ok("session", "ping", json!({}));
    }
    client.send_bytes(&case.bytes);
    client.send_bytes(b"\n");
    if case.closed.is_none() {
        client.send_line(r#"{"class":"chat","subclass":"session","cmd":"ping","tid":"behind"}"#);
    }
    let (mut answer, mut closed) = (None, None);
    while let Some(line) = client.read_line_or_end() {
        let line: Line = serde_json::from_str(&line).expect("JSON");
        if line.is_behind() {
            break;
        }
        let (told, code) = match (line.kind, line.result) {
            (Some("closed"), _) => (&mut closed, line.body.map(code_of)),
            (Some(_), _) => continue,
            (None, Some("ok")) => (&mut answer, Some("ok".to_owned())),
            (None, _) => (&mut answer, line.data.map(code_of)),
        };
        if told.is_some() {
            return Err("there is more than one answer".to_owned());
        }
        *told = code;
    }
    if (answer.as_deref(), closed.as_deref()) == (case.answer, case.closed) {
        Ok(())
    } else {
        Err(format!(
            "answered {answer:?} and closed {closed:?}, not {:?} and {:?}",
            case.answer, case.closed
        ))
    }
}

#[test]
fn a_value_of_a_wrong_type_is_refused_in_every_field() {
    let daemon = Daemon::with(LOGINS);
    let mut client = daemon.client();
    let commands = client.ok("server", "help", json!({}))["commands"].take();
    let mut tried = 0;
    for command in commands.as_array().expect("the commands") {
        let example = &command["example"];
        for field in command["fields"].as_array().expect("the fields") {
            let name = field["name"].as_str().expect("a name");
            for wrong in wrong_values() {
                // What is passed on as it is may be anything of its kind.
                let fits = match name {
                    "body" => wrong.is_object(),
                    "keep_tokens" | "position" | "total" => wrong.is_boolean(),
                    _ => example["cmd"] == "ping",
                };
                if fits {
                    continue;
                }
                let mut request = example.clone();
                if request["data"].is_null() {
                    request["data"] = json!({});
                }
                request["data"][name] = wrong;
                client.send_line(&request.to_string());
                let answer = client.next_value();
                let code = answer["data"]["code"].as_str();
                assert!(
                    matches!(code, Some("invalid_field" | "unknown_field")),
                    "{request} was answered with {answer}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried >= 300, "only {tried} values were tried");
    client.ok("session", "ping", json!({}));
}

/// Values that hardly any field may have.
fn wrong_values() -> [Value; 6] {
    [
        json!(1.5),
        json!(true),
        json!([[]]),
        json!({"no": "way"}),
        json!(-1),
        json!("\0"),
    ]
}

/// The cases of hostile.txt.
fn cases() -> Vec<Case<'static>> {
    let mut templates = Vec::new();
    let mut cases = Vec::new();
    let mut lines = CASES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    while let Some(name) = lines.next() {
        if let Some(template) = name.strip_prefix('@') {
            templates.push(template.split_once(' ').expect("a template"));
            continue;
        }
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("{name} has no bytes"));
        let (is_first, line) = match line.split_at(1) {
            (">", line) => (false, line),
            ("!", line) => (true, line),
            _ => panic!("{name} has no bytes, but {line}"),
        };
        let line = line.strip_prefix(' ').unwrap_or(line);
        let filled = line.strip_prefix('@').and_then(|call| {
            let (template, value) = call.split_once(' ')?;
            let (_, text) = templates.iter().find(|(name, _)| *name == template)?;
            Some(text.replacen('%', value, 1))
        });
        let bytes = unescape(filled.as_deref().unwrap_or(line));
        let expected = lines.next().and_then(|line| line.strip_prefix("< "));
        let expected = expected.unwrap_or_else(|| panic!("{name} expects nothing"));
        let (answer, closed) = match expected.split_once("closed ") {
            Some((answer, closed)) => (answer.trim_end(), Some(closed)),
            None => (expected, None),
        };
        let answer = Some(answer).filter(|answer| !matches!(*answer, "" | "nothing"));
        cases.push(Case {
            name,
            is_first,
            bytes,
            answer,
            closed,
        });
    }
    cases
}

/// The bytes that a text stands for: `\xNN`, `\n`, `\\`, and `\*N{TEXT}`, where TEXT has at least one character.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..place]);
        rest = &rest[place + 1..];
        let kind = rest.chars().next().expect("an escape");
        rest = &rest[1..];
        match kind {
            '\\' => bytes.push(b'\\'),
            'n' => bytes.push(b'\n'),
            'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two digits"));
                rest = &rest[2..];
            }
            '*' => {
                let (count, behind) = rest.split_once('{').expect("a brace");
                let first = behind.chars().next().expect("a text").len_utf8();
                let end = first + behind[first..].find('}').expect("a second brace");
                let once = unescape(&behind[..end]);
                bytes.extend(once.repeat(count.parse().expect("a count")));
                rest = &behind[end + 1..];
            }
            other => panic!("there is no escape \\{other}: {text}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
