//! The characters at which many line readers cut a line that does not end there: Node's readline and Python's
//! `splitlines` do. They stand in no line that is sent, but are escaped in it (protocol.md, 1).

use bytes::Bytes;

struct Separator {
    /// In UTF-8.
    raw: &'static [u8],
    /// As JSON escapes it.
    escape: &'static [u8],
}

/// U+0085, U+2028 and U+2029.
const SEPARATORS: [Separator; 3] = [
    Separator {
        raw: b"\xc2\x85",
        escape: b"\\u0085",
    },
    Separator {
        raw: b"\xe2\x80\xa8",
        escape: b"\\u2028",
    },
    Separator {
        raw: b"\xe2\x80\xa9",
        escape: b"\\u2029",
    },
];

/// The same JSON with the separators escaped. Most has none of them, and stays where it is.
///
/// Outside of strings JSON is ASCII, and within them no `\` stands before these characters: so an escape is the same
/// character wherever one of them stands.
#[must_use]
pub fn escape_separators(json: Bytes) -> Bytes {
    // The quickest look comes first.
    if json.is_ascii() || find(&json).is_none() {
        return json;
    }
    let mut escaped = Vec::with_capacity(json.len() + 64);
    let mut rest = &json[..];
    while let Some((at, separator)) = find(rest) {
        escaped.extend_from_slice(&rest[..at]);
        escaped.extend_from_slice(separator.escape);
        rest = &rest[at + separator.raw.len()..];
    }
    escaped.extend_from_slice(rest);
    escaped.into()
}

/// Where the first separator is, and which it is.
fn find(json: &[u8]) -> Option<(usize, &'static Separator)> {
    memchr::memchr2_iter(0xc2, 0xe2, json).find_map(|at| {
        let found = SEPARATORS
            .iter()
            .find(|separator| json[at..].starts_with(separator.raw))?;
        Some((at, found))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_escaped_and_all_else_stays() {
        for (raw, escaped) in [
            ("{}", "{}"),
            ("\"\u{2028}\"", r#""\u2028""#),
            ("\"a\u{2029}\u{85}\u{2028}b\"", r#""a\u2029\u0085\u2028b""#),
            ("\"\\\\\u{2028}\"", r#""\\\u2028""#),
            (
                "\"\u{80}\u{84}\u{86}\u{2027}\u{202a}é“”…🙂\"",
                "\"\u{80}\u{84}\u{86}\u{2027}\u{202a}é“”…🙂\"",
            ),
        ] {
            let made = escape_separators(Bytes::copy_from_slice(raw.as_bytes()));
            assert_eq!(made, escaped.as_bytes(), "{raw:?}");
            let values: [serde_json::Value; 2] =
                [raw.as_bytes(), &made].map(|json| serde_json::from_slice(json).unwrap());
            assert_eq!(values[0], values[1]);
        }
    }

    #[test]
    fn clean_json_is_not_copied() {
        let clean = Bytes::from("{\"message\":\"grüße “hier”\"}");
        assert_eq!(escape_separators(clean.clone()).as_ptr(), clean.as_ptr());
    }
}
