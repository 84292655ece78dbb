//! The dearest lines there are within the limits, one at a time: what each costs the thread that serves everybody.
//!
//! A line is cut, taken apart and read; a change of subscriptions is made; an answer that is there at once, or a refusal,
//! is encoded. What a query reads is read by threads of its own.

use super::{Connection, Done};
use bytes::{Bytes, BytesMut};
use chatd::command::{Action, Step};
use chatd::hub::{Begin, Hub, Wish};
use chatd::limits::Limits;
use chatd::memory::Memory;
use chatd::wire::{self, LineDecoder, Outbox};
use std::hint::black_box;
use std::sync::Arc;
use tokio_util::codec::Decoder;

/// Bytes of each line: as many as there may be.
const LINE_BYTES: usize = 65_536;
/// The connection whose subscriptions change.
const CONNECTION: u64 = 1;

/// A name, which says what there is so much of, and the line, behind those that come before it.
type Line = (&'static str, Vec<String>);

fn lines() -> Vec<Line> {
    [subscriptions(), lists(), texts(), json()].concat()
}

/// Lines that change subscriptions.
fn subscriptions() -> Vec<Line> {
    let object = "x".repeat(240);
    let types = |from: usize| {
        let types = (from..from + 3000).map(|number| format!("\"t{number:04}\""));
        let types = types.collect::<Vec<_>>().join(",");
        let data = format!(r#""obj_id":"{object}","type":[{types}]"#);
        request("event", "subscribe", &data)
    };
    let objects = |from| {
        let objects = numbered(r#"{"obj_id":"01k9c0#"}"#, from);
        let data = format!(r#""subscriptions":[{objects}]"#);
        request("event", "subscribe", &data)
    };
    let same = |cmd: &str, count: usize| {
        let types = many(r#""a""#, count * 4);
        request(
            "event",
            cmd,
            &format!(r#""obj_id":"{object}","type":[{types}]"#),
        )
    };
    let before = || vec![types(0), types(3000), types(6000)];
    vec![
        ("types", before()),
        ("types, the same ones", vec![same("subscribe", 9000)]),
        (
            "types that are not there",
            [before(), vec![same("unsubscribe", 16_000)]].concat(),
        ),
        ("objects", vec![objects(0), objects(3000), objects(6000)]),
    ]
}

/// Lines with long lists.
fn lists() -> Vec<Line> {
    let search = |subclass, field: &str, values: &str| {
        let data = format!(r#""filter":{{"{field}":[{values}]}}"#);
        request(subclass, "search", &data)
    };
    let ids = numbered(r#""01k9m0#""#, 0);
    let members = (0..1000).map(|number| format!(r#""01k9u0{number:07}""#));
    let members = members.collect::<Vec<_>>().join(",");
    let create = format!(r#""name":"x","user_ids":[{members}]"#);
    vec![
        ("ids", vec![search("message", "message_id", &ids)]),
        (
            "logins",
            vec![search("user", "login", &numbered("\"İß#\"", 0))],
        ),
        (
            "names",
            vec![search("user", "name", &numbered("\"ﬃ#\"", 0))],
        ),
        (
            "times",
            vec![search("user", "created_time", &many("1", 64_000))],
        ),
        ("members", vec![request("conversation", "create", &create)]),
    ]
}

/// Lines with texts that are looked for.
fn texts() -> Vec<Line> {
    let search = |text: &str| {
        let data = format!(r#""filter":{{"message":{{"match":"{text}"}}}}"#);
        vec![request("message", "search", &data)]
    };
    let words = |listed: String| listed.replace(',', " ");
    vec![
        (
            "characters",
            search(&('\u{4e00}'..).take(21_000).collect::<String>()),
        ),
        ("words", search(&words(numbered("#", 0)))),
        ("words that begin", search(&words(numbered("#*", 0)))),
        ("phrases", search(&words(many(r#"\"a b\""#, 64_000)))),
        ("marks", search(&"\u{301}\u{323}".repeat(16_000))),
        ("ligatures", search(&"\u{fdfa}".repeat(21_000))),
        ("syllables", search(&"\u{d55c}".repeat(21_000))),
    ]
}

/// Lines of odd JSON, and of none.
fn json() -> Vec<Line> {
    let ping = |x: &str| request("session", "ping", &format!(r#""x":{x}"#));
    let text = |text: &str, count| ping(&format!("\"{}\"", text.repeat(count)));
    let nested = ["[".repeat(100), "]".repeat(100)].concat();
    let fields = numbered("\"f#\":1", 0);
    let digits = format!("\"size\":1.{}1e64000", "0".repeat(64_000));
    let single = request("session", "ping", &numbered("a#:'1'", 0)).replace('"', "'");
    let curly = numbered("a#:“1”", 0);
    vec![
        (
            "unknown fields",
            vec![request("message", "search", &fields)],
        ),
        (
            "names in what is passed on",
            vec![ping(&format!("{{{fields}}}"))],
        ),
        ("separators", vec![text("\u{2028}", 21_000)]),
        ("what is like separators", vec![text("\u{b2}", 32_000)]),
        ("escapes", vec![text("\\ud83d\\ude00", 5400)]),
        (
            "brackets",
            vec![ping(&format!("[{}]", many(&nested, 64_000)))],
        ),
        ("digits", vec![request("user", "search", &digits)]),
        ("single quotes", vec![single]),
        ("curly quotes", vec![request("session", "ping", &curly)]),
        ("commas", vec![ping(&format!("[{}]", many("[1,]", 64_000)))]),
        ("quotes", vec![format!("{{\"a\":{}", "'".repeat(65_000))]),
        (
            "words that are no JSON",
            vec![format!("{{{}", "a ".repeat(32_000))],
        ),
        ("help", vec![request("server", "help", "")]),
    ]
}

fn request(subclass: &str, cmd: &str, data: &str) -> String {
    format!(r#"{{"class":"chat","subclass":"{subclass}","cmd":"{cmd}","data":{{{data}}}}}"#)
}

/// As many of these as fit into so many bytes.
fn list(items: impl Iterator<Item = String>, bytes: usize) -> String {
    let mut listed = String::new();
    for item in items {
        if listed.len() + item.len() >= bytes {
            break;
        }
        if !listed.is_empty() {
            listed.push(',');
        }
        listed.push_str(&item);
    }
    listed
}

/// As many of this item as fit into a line, with a number in each.
fn numbered(text: &str, from: usize) -> String {
    let item = |number| text.replace('#', &format!("{:07}", from + number));
    list((0..).map(item), 64_000)
}

fn many(item: &str, bytes: usize) -> String {
    list(std::iter::repeat(item.to_owned()), bytes)
}

/// The names of the lines.
pub fn names() -> Vec<&'static str> {
    lines().into_iter().map(|(name, _)| name).collect()
}

/// Does the line of this name so often.
pub fn run(name: &str, count: usize) -> Done<()> {
    let found = lines().into_iter().find(|(known, _)| *known == name);
    let (_, lines) = found.ok_or("there is no such line")?;
    let (line, before) = lines.split_last().ok_or("there is no line")?;
    let served = Served::new();
    for line in before {
        served.line(line)?;
    }
    for _ in 0..count {
        served.line(line)?;
    }
    Ok(())
}

/// What a connection is served with.
struct Served {
    connection: Connection,
    hub: Hub,
    outbox: Arc<Outbox>,
}

impl Served {
    fn new() -> Self {
        let memory = Arc::new(Memory::new(&Limits::default()));
        let outbox = Outbox::new(1 << 20, 1024, memory.connection(None));
        Self {
            connection: Connection::new(),
            hub: Hub::new(0, chatd::model::Directory::Everyone),
            outbox: Arc::new(outbox),
        }
    }

    fn line(&self, line: &str) -> Done<()> {
        if line.len() > LINE_BYTES {
            return Err(format!("{} bytes are no line within the limits", line.len()).into());
        }
        let mut buffer = BytesMut::from(format!("{line}\n").as_bytes());
        let mut decoder = LineDecoder::new(LINE_BYTES);
        let line = decoder.decode(&mut buffer)?.ok_or("no line")?;
        let line = line.map_err(|error| format!("no line: {error:?}"))?;
        let answer = match self.connection.answer(&line) {
            Ok(Step::Answer(data)) => Ok(data),
            Ok(Step::Act(action)) => Ok(self.act(action)),
            Ok(step) => {
                black_box(step.listed());
                Ok(Bytes::new())
            }
            Err(error) => Err(error),
        };
        black_box(wire::reply_line(&answer, None));
        Ok(())
    }

    fn act(&self, action: Action) -> Bytes {
        match action {
            Action::Subscribe(asked) => {
                black_box(self.hub.new_of(CONNECTION, &asked.subscriptions));
                let wish = Wish {
                    added: asked.subscriptions,
                    begin: Begin::Now,
                    position: false,
                    viewer: None,
                };
                black_box(self.hub.subscribe(CONNECTION, &self.outbox, wish, 0));
            }
            Action::Unsubscribe(removed) => {
                black_box(self.hub.unsubscribe(CONNECTION, removed));
            }
            _ => {}
        }
        Bytes::new()
    }
}
