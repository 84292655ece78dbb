//! Replays `tests/transcripts/*.txt`: conversations with the daemon, written the way they look on the wire.
//!
//! A transcript is lines of text. Blank lines and lines that start with `#` say something to the reader only.
//!
//! ```text
//! > {"class":"chat",…}        send this line
//! < {"result":"ok",…}         read a line, which must be this one
//! ann> {…}                    the same on a second connection, opened when it is first named
//! ann< {…}
//! ann< end                    the daemon must close this connection
//! ```
//!
//! A line that is received must equal the expected JSON, whatever the order of its fields, but for these:
//!
//! - a string `"$name"` stands for any value. Where the name is new it takes the value that came; from then on it must be that
//!   value again, and what is sent has it put in, also inside a longer string;
//! - `"$_"` stands for any value, each time;
//! - in an object, a field `"…": "…"` allows for fields that are not named.
//!
//! At the end no connection may have a line left that was not expected.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Client, Daemon};

macro_rules! transcripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_transcript_is_replayed() {
            let mut files: Vec<String> = fs::read_dir(folder())
                .unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
                .collect();
            files.sort();
            let mut replayed = vec![$(stringify!($name)),*];
            replayed.sort_unstable();
            assert_eq!(files, replayed);
        }
    };
}

transcripts! {
    conversations
    errors
    events
    messages
    search
    send
    sessions
    users
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts"))
}

fn replay(name: &str) {
    let file = format!("{name}.txt");
    let script = fs::read_to_string(folder().join(&file)).unwrap();
    let daemon = Daemon::start();
    let mut clients: BTreeMap<String, Client> = BTreeMap::new();
    let mut ended = Vec::new();
    let mut names = Names::default();
    for (index, line) in script.lines().enumerate() {
        let place = format!("{file}:{}", index + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let direction = line
            .find(['<', '>'])
            .unwrap_or_else(|| panic!("{place}: neither > nor < in {line}"));
        let (connection, content) = (line[..direction].trim(), line[direction + 1..].trim());
        let client = clients
            .entry(connection.to_owned())
            .or_insert_with(|| daemon.client());
        if line[direction..].starts_with('>') {
            client.send_line(&names.put_in(content));
        } else if content == "end" {
            client.expect_end();
            ended.push(connection.to_owned());
        } else {
            let expected =
                serde_json::from_str(content).unwrap_or_else(|error| panic!("{place}: {error}"));
            let actual = client.next_value();
            if let Err(difference) = names.compare(&expected, &actual, "") {
                panic!("{place}: {difference}\n expected {content}\n received {actual}");
            }
        }
    }
    for (connection, client) in &mut clients {
        if !ended.contains(connection) {
            client.no_more_events();
        }
    }
}

/// What the `$names` of a transcript stand for.
#[derive(Default)]
struct Names(BTreeMap<String, Value>);

impl Names {
    /// A line to send, with the values of its names: `"$name"` becomes the value, `$name` in a string its text.
    fn put_in(&self, line: &str) -> String {
        let mut line = line.to_owned();
        // The longest name first, for `$ann` may be the beginning of `$anna`.
        let mut names: Vec<(&String, &Value)> = self.0.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, value) in names {
            line = line.replace(&format!("\"{name}\""), &value.to_string());
            line = line.replace(name.as_str(), value.as_str().unwrap_or(&value.to_string()));
        }
        line
    }

    fn compare(&mut self, expected: &Value, actual: &Value, path: &str) -> Result<(), String> {
        match (expected, actual) {
            (Value::String(name), _) if name == "$_" => Ok(()),
            (Value::String(name), _) if name.starts_with('$') => {
                let known = self.0.entry(name.clone()).or_insert_with(|| actual.clone());
                if known == actual {
                    Ok(())
                } else {
                    Err(format!("{path}: {name} is {known}, not {actual}"))
                }
            }
            (Value::Object(expected), Value::Object(actual)) => {
                for (field, expected) in expected.iter().filter(|(field, _)| *field != "…") {
                    let path = format!("{path}/{field}");
                    let actual = actual
                        .get(field)
                        .ok_or_else(|| format!("{path} is missing"))?;
                    self.compare(expected, actual, &path)?;
                }
                let stranger = actual.keys().find(|field| !expected.contains_key(*field));
                match stranger {
                    Some(stranger) if !expected.contains_key("…") => {
                        Err(format!("{path}/{stranger} was not expected"))
                    }
                    _ => Ok(()),
                }
            }
            (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
                let mut pairs = expected.iter().zip(actual).enumerate();
                pairs.try_for_each(|(index, (expected, actual))| {
                    self.compare(expected, actual, &format!("{path}/{index}"))
                })
            }
            _ if expected == actual => Ok(()),
            _ => Err(format!("{path} is {actual}, not {expected}")),
        }
    }
}

#[test]
fn a_transcript_compares_as_its_format_says() {
    let mut names = Names::default();
    names
        .compare(
            &json!({"id": "$a", "time": "$_", "…": "…"}),
            &json!({"id": 5, "time": 1, "more": 2}),
            "",
        )
        .unwrap();
    assert!(names.compare(&json!(["$a"]), &json!([6]), "").is_err());
    assert!(names.compare(&json!({}), &json!({"more": 1}), "").is_err());
    assert!(
        names
            .compare(&json!({"more": "$_"}), &json!({}), "")
            .is_err()
    );
    assert_eq!(
        names.put_in(r#"{"id":"$a","text":"is $a"}"#),
        r#"{"id":5,"text":"is 5"}"#
    );
}
