//! The matcher finds what the plain reading of the rule finds (protocol.md, 5), and nothing else; and any text at all can
//! be asked for and searched.
#![no_main]

use chatd::model::Words;
use libfuzzer_sys::fuzz_target;

#[path = "../../../tests/it/model/words.rs"]
#[allow(dead_code, reason = "it serves the tests too")]
mod plain;

/// What texts are made of, as far as the plain reading knows letters.
const PIECES: &[&str] = &[
    "a",
    "b",
    "A",
    "B",
    "z",
    "0",
    "9",
    " ",
    " ",
    " ",
    "*",
    "\"",
    "\"",
    "'",
    "’",
    "-",
    "_",
    "\n",
    ",",
    "é",
    "É",
    "e\u{301}",
    "ß",
    "SS",
    "ﬁ",
    "fi",
    "Σ",
    "σ",
    "ς",
    "ί",
    "Ё",
    "е",
    "Й",
    "и",
    "ł",
    "l",
    "ø",
    "Ö",
    "o",
    "æ",
    "ae",
    "Ź",
    "２",
    "2",
    "№",
    "no",
    "™",
    "tm",
    "²",
    "½",
    "1",
    "\u{ad}",
    "手",
    "机",
    "カ",
    "ガ",
    "パ",
    "ハ",
    "ー",
    "น",
    "น้ำ",
    "นี",
    "ที่",
    "द",
    "दि",
    "दा",
    "न",
    "म",
    "ـ",
    "م",
    "ح",
    "👩\u{200d}💻",
    "👩",
    "💻",
    "👍🏽",
    "👍",
    "🎉",
];

fuzz_target!(|input: &[u8]| {
    let mut halves = input.splitn(2, |&byte| byte == u8::MAX);
    let mut half = || halves.next().unwrap_or_default();
    let (query, text) = (half(), half());
    let any = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Ok(words) = Words::parse(&any(query)) {
        let _ = words.found_in(&any(text));
    }
    let made = |bytes: &[u8]| -> String {
        let piece = |&byte: &u8| PIECES[usize::from(byte) % PIECES.len()];
        bytes.iter().map(piece).collect()
    };
    // A query that is far longer than people write is refused.
    let (query, text) = (made(&query[..query.len().min(100)]), made(text));
    let found = Words::parse(&query).ok().map(|words| words.found_in(&text));
    assert_eq!(
        found,
        plain::matches(&text, &query),
        "{query:?} in {text:?}"
    );
});
