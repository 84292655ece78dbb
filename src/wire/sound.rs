//! What the grammar of JSON lets through, and no line may have: nesting without end, and half a character.
//!
//! Both are checked once for the whole line, wherever they stand in it. So a part that is passed on as it was written
//! needs no reading of its own, and whatever is sent can be read by every client.

use crate::limits::JSON_MAX_DEPTH;
use std::borrow::Cow;

/// Something wrong with a line, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub what: Cow<'static, str>,
    /// How many bytes of the line stand before it.
    pub bytes_before: usize,
}

/// The first fault of a line that is JSON.
#[must_use]
pub fn fault(line: &str) -> Option<Fault> {
    let bytes = line.as_bytes();
    // Hardly a line has so many brackets, or an escaped surrogate: looking for them costs little.
    let deep = memchr::memchr2_iter(b'{', b'[', bytes).count() > JSON_MAX_DEPTH;
    let halves = || {
        memchr::memchr_iter(b'\\', bytes)
            .any(|place| matches!(bytes.get(place + 1..place + 3), Some([b'u', b'd' | b'D'])))
    };
    if deep || halves() { scan(bytes) } else { None }
}

fn scan(bytes: &[u8]) -> Option<Fault> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => match escaped_unit(bytes, at) {
                Some(0xd800..=0xdbff)
                    if matches!(escaped_unit(bytes, at + 6), Some(0xdc00..=0xdfff)) =>
                {
                    at += 11;
                }
                Some(0xd800..=0xdfff) => {
                    return Some(Fault {
                        what: "half of a surrogate pair".into(),
                        bytes_before: at,
                    });
                }
                _ => at += 1,
            },
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > JSON_MAX_DEPTH {
                    return Some(Fault {
                        what: format!("nested deeper than {JSON_MAX_DEPTH} levels").into(),
                        bytes_before: at,
                    });
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The unit of UTF-16 that an escape `\uXXXX` at this place stands for.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_limited_wherever_it_stands_and_brackets_in_strings_are_none() {
        let nested = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        assert_eq!(fault(&nested(JSON_MAX_DEPTH)), None);
        let found = fault(&nested(JSON_MAX_DEPTH + 1)).unwrap();
        assert_eq!(found.bytes_before, JSON_MAX_DEPTH);
        let text = format!("{{\"a\":\"\\\"{}\\\\\"}}", nested(1000));
        assert_eq!(fault(&text), None);
        let flat = format!("[{}{{}}]", "{},[],".repeat(1000));
        assert_eq!(fault(&flat), None);
        let object = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
        assert_eq!(fault(&object).unwrap().bytes_before, 5 * JSON_MAX_DEPTH);
    }

    #[test]
    fn half_a_surrogate_pair_is_a_fault() {
        for (text, before) in [
            (r#""\ud83d\ude00""#, None),
            (r#""\uD83D\uDE00\ud83d\ude00""#, None),
            (r#""\\ud800""#, None),
            (r#""\ud7ff\ue000""#, None),
            (r#""\ud800""#, Some(1)),
            (r#""\udc00""#, Some(1)),
            (r#""\ud800\ud800\udc00""#, Some(1)),
            (r#""\ud800\\udc00""#, Some(1)),
            (r#""\ud83d\ude00\ude00""#, Some(13)),
            (r#"{"\ud800":1}"#, Some(2)),
        ] {
            assert_eq!(
                fault(text).map(|fault| fault.bytes_before),
                before,
                "{text}"
            );
        }
    }
}
