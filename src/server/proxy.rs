//! The PROXY header, versions 1 and 2, with which a trusted proxy says for whom its connection comes (protocol.md, 7).
//!
//! Not a byte is read beyond the header: behind it TLS may begin. However few bytes come at a time, the header is looked
//! at as a whole when its end has come.

use crate::limits::PROXY_HEADER_MAX_BYTES;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How a header of version 1 begins.
const TEXT_START: &[u8] = b"PROXY ";
/// What ends it.
const TEXT_END: &[u8] = b"\r\n";
/// The shortest of them.
const TEXT_MIN: &[u8] = b"PROXY UNKNOWN\r\n";
/// Bytes of the longest of them.
const TEXT_MAX_BYTES: usize = 107;
/// How a header of version 2 begins.
const BINARY_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a header of version 2 up to its addresses.
const BINARY_MIN_BYTES: usize = 16;
/// Version 2, and the connection is the proxy's own.
const LOCAL: u8 = 0x20;

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The proxy went without a word, as those do that only look whether somebody listens.
    Silent,
    /// It went in the middle of the header, or the connection broke.
    Cut,
    /// What came is no header.
    Bad,
}

/// Reads the header; gives the address for which the proxy speaks, or none where it speaks for itself or does not know.
pub async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, HeaderError> {
    let mut header = Vec::with_capacity(TEXT_MAX_BYTES);
    loop {
        let missing = missing_bytes(&header)?;
        if missing == 0 {
            return address(&header);
        }
        let mut rest = (&mut *stream).take(missing as u64);
        // A connection that breaks has ended.
        if rest.read_buf(&mut header).await.unwrap_or(0) == 0 {
            return Err(if header.is_empty() {
                HeaderError::Silent
            } else {
                HeaderError::Cut
            });
        }
    }
}

/// How many bytes there are at least before the header is whole; 0 when it is.
fn missing_bytes(header: &[u8]) -> Result<usize, HeaderError> {
    let begins = |start: &[u8]| {
        header
            .iter()
            .zip(start)
            .all(|(byte, expected)| byte == expected)
    };
    let whole = if header.is_empty() {
        TEXT_MIN.len()
    } else if begins(TEXT_START) {
        let is_whole = header.ends_with(TEXT_END);
        let is_bad = header.contains(&b'\n') && !is_whole;
        if is_bad || header.len() > TEXT_MAX_BYTES {
            return Err(HeaderError::Bad);
        }
        if is_whole {
            header.len()
        } else {
            TEXT_MIN.len().max(header.len() + 1)
        }
    } else if begins(BINARY_START) {
        match header.get(BINARY_MIN_BYTES - 2..BINARY_MIN_BYTES) {
            Some(&[high, low]) => BINARY_MIN_BYTES + usize::from(u16::from_be_bytes([high, low])),
            _ => BINARY_MIN_BYTES,
        }
    } else {
        return Err(HeaderError::Bad);
    };
    if whole > PROXY_HEADER_MAX_BYTES {
        return Err(HeaderError::Bad);
    }
    Ok(whole - header.len().min(whole))
}

/// The address in a whole header.
fn address(header: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    // Of these nothing further is looked at, as their specification has it.
    let unknown = header
        .strip_prefix(b"PROXY UNKNOWN")
        .is_some_and(|rest| rest.starts_with(b" ") || rest == TEXT_END);
    let is_text = header.starts_with(TEXT_START);
    if unknown || !is_text && header.get(BINARY_START.len()) == Some(&LOCAL) {
        return Ok(None);
    }
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    let (parsed, length) = ProxyHeader::parse(header, config).map_err(|_| HeaderError::Bad)?;
    match parsed.proxied_address() {
        _ if length != header.len() => Err(HeaderError::Bad),
        None if is_text => Err(HeaderError::Bad),
        // The proxy's client came over a Unix socket, or it does not know.
        None => Ok(None),
        Some(pair) if pair.protocol == Protocol::Datagram => Err(HeaderError::Bad),
        Some(pair) => {
            let (ip, port) = (pair.source.ip().to_canonical(), pair.source.port());
            Ok(Some(SocketAddr::new(ip, port)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// What is read of these bytes, which come so many at a time, and how many are left.
    async fn read(
        bytes: &[u8],
        at_once: usize,
    ) -> (Result<Option<SocketAddr>, HeaderError>, usize) {
        let (mut near, mut far) = tokio::io::duplex(at_once);
        let bytes = bytes.to_vec();
        let writing = tokio::spawn(async move { far.write_all(&bytes).await });
        let header = read_header(&mut near).await;
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        writing.await.unwrap().unwrap();
        (header, rest.len())
    }

    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut header = BINARY_START.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
        header.extend(block);
        header
    }

    #[tokio::test]
    async fn headers_are_read_to_their_end_however_they_come() {
        const V4: &[u8] = &[192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        v6[33] = 9;
        let mut mapped = v6;
        mapped[..16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 9]);
        let with_values = [V4, &[3, 0, 4, 1, 2, 3, 4], &[5, 0, 2, 7, 7]].concat();
        let text = |text: &str| text.as_bytes().to_vec();
        let long = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let cases = [
            (
                text("PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n"),
                "192.0.2.1:4660",
            ),
            (text("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"), "1.1.1.1:1"),
            (
                text("PROXY TCP6 2001:db8::7 ::1 9 80\r\n"),
                "[2001:db8::7]:9",
            ),
            (
                text("PROXY TCP6 ::ffff:192.0.2.9 ::1 9 80\r\n"),
                "192.0.2.9:9",
            ),
            (text("PROXY UNKNOWN\r\n"), ""),
            (
                text(&format!("PROXY UNKNOWN {long} {long} 65535 65535\r\n")),
                "",
            ),
            (
                text("PROXY UNKNOWN what ever it may be, with many words\r\n"),
                "",
            ),
            (binary(0x21, 0x11, V4), "192.0.2.1:4660"),
            (binary(0x21, 0x11, &with_values), "192.0.2.1:4660"),
            (
                binary(0x21, 0x11, &[V4, &[4, 15, 160], &[0; 4000]].concat()),
                "192.0.2.1:4660",
            ),
            (binary(0x21, 0x21, &v6), "[2001:db8::7]:9"),
            (binary(0x21, 0x21, &mapped), "192.0.2.9:9"),
            (binary(0x21, 0x31, &[0; 216]), ""),
            (binary(0x21, 0x00, &[]), ""),
            (binary(0x20, 0x00, &[]), ""),
            (binary(0x20, 0x11, V4), ""),
            (binary(0x20, 0x77, &[1, 2, 3]), ""),
        ];
        let next = b"{\"class\":\"chat\"}\n";
        for (header, expected) in &cases {
            for at_once in [1, 2, 7, 16, 8192] {
                let (read, left) = read(&[header, &next[..]].concat(), at_once).await;
                let read = read.unwrap().map(|address| address.to_string());
                assert_eq!(read.unwrap_or_default(), *expected, "{at_once}, {header:?}");
                assert_eq!(left, next.len(), "{at_once}, {header:?}");
            }
            // Cut anywhere, it is no header.
            for length in 0..header.len() {
                let expected = if length == 0 {
                    HeaderError::Silent
                } else {
                    HeaderError::Cut
                };
                let (read, _) = read(&header[..length], 8192).await;
                assert_eq!(read, Err(expected), "{length} bytes of {header:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_known_as_soon_as_it_can_be() {
        let text = |text: &str| text.as_bytes().to_vec();
        let cases = [
            text("{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\"}\n"),
            text("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            text("\n"),
            text("\r\n\r\n{"),
            text("PROXX TCP4 1.1.1.1 1.1.1.1 1 1\r\n"),
            text("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n{}\n"),
            text("PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n"),
            text("PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n"),
            text("PROXY TCP4 ::1 ::1 1 1\r\n      "),
            text("PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n"),
            text("PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n"),
            text("PROXY UNKNOWNS\r\n"),
            text("PROXY X\r\n"),
            text(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(100))),
            text(&format!("PROXY {}", "x".repeat(200))),
            binary(0x21, 0x12, &[0; 12]),
            binary(0x21, 0x11, &[0; 11]),
            binary(0x21, 0x51, &[0; 12]),
            binary(0x22, 0x11, &[0; 12]),
            binary(0x11, 0x11, &[0; 12]),
            binary(0x20, 0x00, &[0; 4081]),
        ];
        for case in &cases {
            for at_once in [1, 5, 8192] {
                let (read, _) = read(case, at_once).await;
                assert_eq!(read, Err(HeaderError::Bad), "{at_once}, {case:?}");
            }
        }
    }

    #[tokio::test]
    async fn bytes_without_sense_are_no_header_and_do_no_harm() {
        use rand::{Rng, SeedableRng};
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        for _ in 0..2000 {
            let mut bytes = match random.random_range(0..3) {
                0 => b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(),
                1 => binary(0x21, 0x11, &[9; 40]),
                _ => vec![0; random.random_range(0..60)],
            };
            for _ in 0..random.random_range(1..4) {
                let length = bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(random.random_range(0..length)) {
                    *byte = random.random();
                }
            }
            let (_, left) = read(&bytes, 8192).await;
            assert!(left <= bytes.len());
        }
    }
}
