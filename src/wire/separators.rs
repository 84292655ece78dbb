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

/// Bytes that are looked at together: a long line with one separator is copied, but for the piece that has it.
const PIECE_BYTES: usize = 4096;

/// The same JSON with the separators escaped. Most has none of them, and stays where it is.
///
/// Outside of strings JSON is ASCII, and within them no `\` stands before these characters: so an escape is the same
/// character wherever one of them stands. However many characters are like them, a line costs no more.
#[must_use]
pub fn escape_separators(json: Bytes) -> Bytes {
    // The quickest look comes first.
    if json.is_ascii() || !may_have_some(&json) {
        return json;
    }
    let mut escaped = Vec::with_capacity(json.len() + 64);
    let mut rest = &json[..];
    while !rest.is_empty() {
        // Two bytes more, since a separator may stand on the border of two pieces.
        let seen = &rest[..rest.len().min(PIECE_BYTES + 2)];
        let piece = rest.len().min(PIECE_BYTES);
        let taken = if may_have_some(seen) {
            escape_piece(rest, piece, &mut escaped)
        } else {
            escaped.extend_from_slice(&rest[..piece]);
            piece
        };
        rest = &rest[taken..];
    }
    escaped.into()
}

/// Whether a separator stands in it: looked for without a branch, many bytes at a time.
fn may_have_some(json: &[u8]) -> bool {
    let is = |byte: u8, wanted: u8| u8::from(byte == wanted);
    let next = json.iter().skip(1);
    let mut found = 0;
    for (&lead, &last) in json.iter().zip(next.clone()) {
        found |= is(lead, 0xc2) & is(last, 0x85);
    }
    for ((&lead, &middle), &last) in json.iter().zip(next).zip(json.iter().skip(2)) {
        found |= is(lead, 0xe2) & is(middle, 0x80) & is(last | 1, 0xa9);
    }
    found != 0
}

/// Escapes the separators that begin in a piece of what is left, and gives how much of it was taken.
fn escape_piece(rest: &[u8], piece: usize, escaped: &mut Vec<u8>) -> usize {
    let mut at = 0;
    while at < piece {
        let found = SEPARATORS
            .iter()
            .find(|separator| rest[at..].starts_with(separator.raw));
        if let Some(separator) = found {
            escaped.extend_from_slice(separator.escape);
            at += separator.raw.len();
        } else {
            escaped.push(rest[at]);
            at += 1;
        }
    }
    at
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
    fn separators_on_the_borders_of_pieces_are_escaped() {
        for before in PIECE_BYTES - 4..=PIECE_BYTES + 1 {
            for separator in SEPARATORS {
                let mut json = vec![b'x'; before];
                let mut expected = json.clone();
                for _ in 0..2 * PIECE_BYTES {
                    json.extend_from_slice(separator.raw);
                    expected.extend_from_slice(separator.escape);
                }
                json.extend_from_slice("é€".as_bytes());
                expected.extend_from_slice("é€".as_bytes());
                assert_eq!(escape_separators(json.into()), expected);
            }
        }
    }

    #[test]
    fn clean_json_is_not_copied() {
        let clean = Bytes::from("{\"message\":\"grüße “hier”\"}");
        assert_eq!(escape_separators(clean.clone()).as_ptr(), clean.as_ptr());
    }
}
