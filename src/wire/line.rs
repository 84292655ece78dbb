//! Cutting a stream of bytes into lines.

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// Cuts lines ending in `\n`, or at the end of input.
///
/// An over-long line is an item of its own, skipped to its end without being held in memory, and what comes behind it
/// is read as if nothing had happened (protocol.md, 1).
#[derive(Debug)]
pub struct LineDecoder {
    max_bytes: usize,
    /// Bytes of the buffer that are known to hold no line end.
    searched: usize,
    /// Whether the rest of an over-long line is being thrown away.
    skipping: bool,
    skipped_bytes: usize,
}

/// Why a line is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// It is longer than the limit.
    TooLong,
    /// It is over-long, and begins like a request of HTTP.
    Http,
}

impl LineDecoder {
    /// A decoder of lines of at most `max_bytes`, their end not counted.
    #[must_use]
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
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
            return Some(Err(over_long(&line)));
        }
        Some(Ok(line))
    }
}

impl Decoder for LineDecoder {
    type Item = Result<Bytes, LineError>;
    type Error = std::io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Self::Item>, Self::Error> {
        loop {
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
                let error = over_long(buffer);
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
        if buffer.is_empty() {
            return Ok(None);
        }
        let last = buffer.split().freeze();
        Ok(self.finish(&last))
    }
}

fn over_long(line: &[u8]) -> LineError {
    if looks_like_http(line) {
        LineError::Http
    } else {
        LineError::TooLong
    }
}

/// Whether a line is one of HTTP: a browser that a web page sends here must not be answered (protocol.md, 1).
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
    METHODS.iter().any(|method| line.starts_with(method))
        || line
            .get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"host:"))
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
        let stream = b"one\r\n\n12345678\n12345678\r\n123456789\nGET / HTTP/1.1\nsix\r\r\nlast\xff";
        let whole = all(&mut LineDecoder::new(8), &[stream]);
        assert_eq!(whole.len(), 8);
        assert_eq!(whole[0], Ok(b"one".to_vec()));
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
            all(&mut LineDecoder::new(3), &[b"abcdefgh", b"ijkl"]),
            [Err(LineError::TooLong)]
        );
        assert_eq!(
            all(&mut LineDecoder::new(3), &[b"abcd"]),
            [Err(LineError::TooLong)]
        );
    }

    #[test]
    fn requests_of_http_are_told_apart() {
        for line in [
            "GET / HTTP/1.1",
            "POST /x",
            "host: a",
            "Host:b",
            "PRI * HTTP/2.0",
        ] {
            assert!(looks_like_http(line.as_bytes()), "{line}");
        }
        for line in ["{\"class\":\"chat\"}", "GETTING", "hos", ""] {
            assert!(!looks_like_http(line.as_bytes()), "{line}");
        }
    }
}
