//! Cutting a stream of bytes into lines.

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// Cuts lines ending in `\n`, or at the end of input.
///
/// An over-long line is an item of its own, skipped to its end without being held in memory, and what comes behind it
/// is read as if nothing had happened (protocol.md, 1). A connection whose first line does not begin as a request does is
/// another program's: that line is its last item.
#[derive(Debug)]
pub struct LineDecoder {
    max_bytes: usize,
    start: Start,
    /// Bytes of the buffer that are known to hold no line end.
    searched: usize,
    /// Whether the rest of an over-long line is being thrown away.
    skipping: bool,
    skipped_bytes: usize,
}

/// The character that a client may send before everything else, as it is in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How far a connection's first line has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Nothing has come that is more than the beginning of a byte order mark.
    Mark,
    /// Nothing but blanks has come.
    Blank,
    /// The first line has begun, and not as a request does.
    Foreign,
    /// The first line has begun as a request does.
    Begun,
    /// The first line was foreign, and was told of: nothing behind it is looked at.
    Over,
}

/// What may be cut of a connection that has not begun yet.
enum Beginning {
    /// Whole lines, as everywhere.
    Lines,
    /// Nothing: more has to come first.
    Nothing,
    /// The first line, as far as it has come, which no request can be.
    Foreign(LineError),
}

/// Why a line is no line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineError {
    /// It is longer than the limit.
    TooLong,
    /// It is over-long, or a connection's first, and looks like one of HTTP.
    Http,
    /// It is a connection's first and does not begin as a request does: nothing behind it may be looked at. `None` where
    /// it is over-long.
    Foreign(Option<Bytes>),
}

impl LineDecoder {
    /// A decoder of lines of at most `max_bytes`, their end not counted.
    #[must_use]
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            start: Start::Mark,
            searched: 0,
            skipping: false,
            skipped_bytes: 0,
        }
    }

    /// Bytes of over-long lines that were thrown away since the last time this was asked.
    pub fn take_skipped(&mut self) -> usize {
        std::mem::take(&mut self.skipped_bytes)
    }

    fn finish(&mut self, line: &Bytes) -> Option<Result<Bytes, LineError>> {
        self.searched = 0;
        if std::mem::take(&mut self.skipping) {
            return None;
        }
        let line = line
            .strip_suffix(b"\r")
            .map_or_else(|| line.clone(), |kept| line.slice_ref(kept));
        if line.len() > self.max_bytes {
            return Some(Err(self.over_long(&line)));
        }
        Some(Ok(line))
    }

    fn over_long(&mut self, line: &[u8]) -> LineError {
        // However much of it has come, the same bytes decide.
        let begins = line.get(..=self.max_bytes).unwrap_or(line);
        if looks_like_http(begins) {
            LineError::Http
        } else if self.start == Start::Begun {
            LineError::TooLong
        } else {
            self.start = Start::Over;
            LineError::Foreign(None)
        }
    }

    /// Looks at what a connection begins with. What is foreign is told from a request by its first byte; the rest of a
    /// line that may be a person's is waited for, so that the answer can say what is wrong with it.
    fn begin(&mut self, buffer: &mut BytesMut, at_end: bool) -> Beginning {
        if self.start == Start::Mark {
            if buffer.starts_with(BYTE_ORDER_MARK) {
                buffer.advance(BYTE_ORDER_MARK.len());
            } else if BYTE_ORDER_MARK.starts_with(buffer) && !at_end {
                return Beginning::Nothing;
            }
            self.start = Start::Blank;
        }
        if self.start == Start::Over {
            buffer.clear();
            return Beginning::Nothing;
        }
        let unsearched = buffer.get(self.searched..).unwrap_or_default();
        if self.start == Start::Blank {
            // What begins behind so many blanks is over-long, whatever it is.
            let most = (self.max_bytes + 1).saturating_sub(self.searched);
            let first = unsearched
                .iter()
                .take(most)
                .find(|byte| **byte == b'\n' || !byte.is_ascii_whitespace());
            match first {
                None | Some(b'\n') => return Beginning::Lines,
                Some(b'{') => {
                    self.start = Start::Begun;
                    return Beginning::Lines;
                }
                Some(_) => self.start = Start::Foreign,
            }
        }
        let line = if let Some(place) = memchr::memchr(b'\n', unsearched) {
            buffer.split_to(self.searched + place)
        } else if at_end
            || buffer.len() > self.max_bytes + 1
            || unsearched.iter().any(|&byte| is_in_no_text(byte))
        {
            buffer.split()
        } else {
            self.searched = buffer.len();
            return Beginning::Nothing;
        };
        self.start = Start::Over;
        Beginning::Foreign(match self.finish(&line.freeze()) {
            Some(Ok(line)) if looks_like_http(&line) => LineError::Http,
            Some(Ok(line)) => LineError::Foreign(Some(line)),
            Some(Err(error)) => error,
            None => LineError::Foreign(None),
        })
    }
}

impl Decoder for LineDecoder {
    type Item = Result<Bytes, LineError>;
    type Error = std::io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Self::Item>, Self::Error> {
        loop {
            if self.start != Start::Begun {
                match self.begin(buffer, false) {
                    Beginning::Lines => {}
                    Beginning::Nothing => return Ok(None),
                    Beginning::Foreign(error) => return Ok(Some(Err(error))),
                }
            }
            let unsearched = buffer.get(self.searched..).unwrap_or_default();
            if let Some(place) = memchr::memchr(b'\n', unsearched) {
                let mut line = buffer.split_to(self.searched + place + 1);
                line.truncate(line.len() - 1);
                if let Some(item) = self.finish(&line.freeze()) {
                    return Ok(Some(item));
                }
                continue;
            }
            self.searched = buffer.len();
            if self.skipping {
                self.skipped_bytes += buffer.len();
                buffer.clear();
                self.searched = 0;
            } else if buffer.len() > self.max_bytes + 1 {
                // One byte more than the limit may still be the `\r` before an end of line.
                let error = self.over_long(buffer);
                buffer.advance(buffer.len());
                self.searched = 0;
                self.skipping = true;
                return Ok(Some(Err(error)));
            }
            return Ok(None);
        }
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Self::Item>, Self::Error> {
        if let Some(item) = self.decode(buffer)? {
            return Ok(Some(item));
        }
        if self.start != Start::Begun
            && let Beginning::Foreign(error) = self.begin(buffer, true)
        {
            return Ok(Some(Err(error)));
        }
        if buffer.is_empty() {
            return Ok(None);
        }
        let last = buffer.split().freeze();
        Ok(self.finish(&last))
    }
}

/// Whether a byte is in no line that a person writes: a control character, or one that UTF-8 never has.
fn is_in_no_text(byte: u8) -> bool {
    matches!(byte, 0..=8 | 14..=31 | 127 | 0xc0 | 0xc1 | 0xf5..)
}

/// Whether a line is one of HTTP: a browser that a web page sends here must not be answered (protocol.md, 1).
///
/// It is, too, where its method is none that is known, or in small letters: what a path or an address follows.
#[must_use]
pub fn looks_like_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 10] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
        b"CONNECT ",
        b"TRACE ",
        b"PRI ",
    ];
    const TARGETS: [&[u8]; 4] = [b"/", b"* HTTP/", b"http://", b"https://"];
    let line = line.trim_ascii_start();
    let method_bytes = line
        .iter()
        .take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'-')
        .count();
    let (method, rest) = line.split_at(method_bytes);
    let target = rest.trim_ascii_start();
    METHODS.iter().any(|method| line.starts_with(method))
        || method.eq_ignore_ascii_case(b"host") && rest.starts_with(b":")
        || !method.is_empty()
            && target.len() < rest.len()
            && TARGETS.iter().any(|start| target.starts_with(start))
}

/// Whether a line belongs to a PROXY header: of version 1, or the third line of version 2, behind two empty ones.
#[must_use]
pub fn looks_like_proxy(line: &[u8]) -> bool {
    line.starts_with(b"PROXY ") || line == b"\0"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut LineDecoder, pieces: &[&[u8]]) -> Vec<Result<Vec<u8>, LineError>> {
        let mut buffer = BytesMut::new();
        let mut items = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(item) = decoder.decode(&mut buffer).unwrap() {
                items.push(item.map(|line| line.to_vec()));
            }
            if matches!(items.last(), Some(Err(LineError::Foreign(_)))) {
                return items;
            }
            assert!(
                buffer.len() <= decoder.max_bytes + 1,
                "an over-long line is not held"
            );
        }
        while let Some(item) = decoder.decode_eof(&mut buffer).unwrap() {
            items.push(item.map(|line| line.to_vec()));
        }
        items
    }

    #[test]
    fn the_cut_between_reads_changes_nothing() {
        let stream =
            b"{one\r\n\n12345678\n12345678\r\n123456789\nGET / HTTP/1.1\nsix\r\r\nlast\xff";
        let whole = all(&mut LineDecoder::new(8), &[stream]);
        assert_eq!(whole.len(), 8);
        assert_eq!(whole[0], Ok(b"{one".to_vec()));
        assert_eq!(whole[3], Ok(b"12345678".to_vec()));
        assert_eq!(whole[4], Err(LineError::TooLong));
        assert_eq!(whole[5], Err(LineError::Http));
        assert_eq!(whole[7], Ok(b"last\xff".to_vec()));
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(
                    all(&mut LineDecoder::new(8), &pieces),
                    whole,
                    "cut at {first} and {second}"
                );
            }
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(all(&mut LineDecoder::new(8), &single), whole);
    }

    #[test]
    fn an_over_long_last_line_is_reported_once() {
        assert_eq!(
            all(&mut LineDecoder::new(3), &[b"{abcdefg", b"hijk"]),
            [Err(LineError::TooLong)]
        );
        assert_eq!(
            all(&mut LineDecoder::new(3), &[b"{abc"]),
            [Err(LineError::TooLong)]
        );
    }

    #[test]
    fn a_byte_order_mark_is_skipped_before_the_first_line_alone() {
        let stream = b"\xef\xbb\xbf\r\n{a\n\xef\xbb\xbf{b\n";
        let expected = [
            Ok(Vec::new()),
            Ok(b"{a".to_vec()),
            Ok(b"\xef\xbb\xbf{b".to_vec()),
        ];
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(all(&mut LineDecoder::new(8), &single), expected);
        for cut in 0..=stream.len() {
            let pieces = [&stream[..cut], &stream[cut..]];
            assert_eq!(all(&mut LineDecoder::new(8), &pieces), expected, "{cut}");
        }
        // It does not count to the line's length.
        let whole = all(&mut LineDecoder::new(2), &[b"\xef\xbb\xbf{a\n"]);
        assert_eq!(whole, [Ok(b"{a".to_vec())]);
        for part in [&b"\xef"[..], b"\xef\xbb", b"\xef\xbb{\n"] {
            let items = all(&mut LineDecoder::new(8), &[part]);
            let line = part.trim_ascii_end();
            assert_eq!(items, [Err(foreign(line))], "{part:?}");
        }
        assert_eq!(all(&mut LineDecoder::new(8), &[b"\xef\xbb\xbf"]), []);
    }

    fn foreign(line: &[u8]) -> LineError {
        LineError::Foreign(Some(Bytes::copy_from_slice(line)))
    }

    #[test]
    fn what_does_not_begin_as_a_request_is_the_last_item() {
        for (stream, error) in [
            (&b"hello\r\n{a\n"[..], foreign(b"hello")),
            (b"\n \r\n  hello\n{a\n", foreign(b"  hello")),
            (b"hello", foreign(b"hello")),
            (b"[1]\n{a\n", foreign(b"[1]")),
            (b"hello world\n{a\n", LineError::Foreign(None)),
            (b"           \n{a\n", LineError::Foreign(None)),
            (b"GET / HTTP/1.1\n{a\n", LineError::Http),
            (b"foo /\n{a\n", LineError::Http),
        ] {
            let single: Vec<&[u8]> = stream.chunks(1).collect();
            for pieces in [single, vec![stream]] {
                let items = all(&mut LineDecoder::new(8), &pieces);
                let item = items.into_iter().find(Result::is_err);
                assert_eq!(item, Some(Err(error.clone())), "{stream:?}");
            }
        }
    }

    #[test]
    fn an_over_long_line_is_of_http_or_not_however_much_of_it_has_come() {
        for (begin, error) in [
            (&b""[..], LineError::Foreign(None)),
            (b"{a\n", LineError::TooLong),
        ] {
            let stream = [begin, b"iiiiiiiiiiiiii /\n"].concat();
            for cut in begin.len()..stream.len() {
                let pieces = [&stream[..cut], &stream[cut..]];
                let items = all(&mut LineDecoder::new(8), &pieces);
                assert_eq!(items.last(), Some(&Err(error.clone())), "{cut}");
            }
        }
    }

    #[test]
    fn binary_bytes_are_not_waited_for_to_end_in_a_line() {
        for stream in [&b"\x16\x03\x01"[..], b"\0\0\0\x08", b"\n:\0", b"a\xff"] {
            let mut decoder = LineDecoder::new(8);
            let mut buffer = BytesMut::from(stream);
            let mut item = decoder.decode(&mut buffer).unwrap();
            if item == Some(Ok(Bytes::new())) {
                item = decoder.decode(&mut buffer).unwrap();
            }
            assert_eq!(item, Some(Err(foreign(stream.trim_ascii_start()))));
        }
    }

    #[test]
    fn requests_of_http_are_told_apart() {
        for line in [
            "GET / HTTP/1.1",
            "POST /x",
            "host: a",
            "Host:b",
            "PRI * HTTP/2.0",
            "post / HTTP/1.1",
            " POST / HTTP/1.1",
            "POST\t/ HTTP/1.1",
            "PROPFIND /x",
            "M-SEARCH * HTTP/1.1",
            "foo http://127.0.0.1/",
        ] {
            assert!(looks_like_http(line.as_bytes()), "{line}");
        }
        for line in [
            "{\"class\":\"chat\"}",
            "GETTING",
            "hos",
            "",
            "help",
            "a b",
            "/ x",
            "help *",
            "a/b",
        ] {
            assert!(!looks_like_http(line.as_bytes()), "{line}");
        }
    }
}
