//! The protocols: what a client says to become a subscriber, how a message is sent, and how what comes back is cut
//! into frames.

use crate::Outcome;
use clap::ValueEnum;
use memchr::{memchr, memmem};

/// The one room that everybody is in.
const ROOM: &str = "room";

/// How chatd's answer begins when all is well.
const OK: &[u8] = b"{\"result\":\"ok\"";

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// nats-server
    Nats,
    /// redis-server
    Redis,
    /// An IRC server
    Irc,
    /// `PostgreSQL`, only for connections that stand idle
    Postgres,
    /// chatd itself, for events that it does not keep
    Chatd,
}

/// What a server sent, cut off from what follows it.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A message to this subscriber, its payload alone.
    Delivery(&'a [u8]),
    /// Another line, without its end.
    Line(&'a [u8]),
}

impl Kind {
    /// What the JSON calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Irc => "irc",
            Self::Postgres => "postgres",
            Self::Chatd => "chatd",
        }
    }

    /// What a new connection says first; its answer is complete with [`Kind::greeted`].
    pub fn hello(self, number: usize) -> Vec<u8> {
        match self {
            Self::Nats => b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n".to_vec(),
            Self::Redis => b"PING\r\n".to_vec(),
            Self::Irc => format!("NICK n{number}\r\nUSER n{number} 0 * :bench\r\n").into_bytes(),
            Self::Postgres => {
                let parameters = b"user\0postgres\0database\0postgres\0\0";
                let length = u32::try_from(parameters.len() + 8).unwrap_or_default();
                let mut startup = length.to_be_bytes().to_vec();
                startup.extend(196_608_u32.to_be_bytes());
                startup.extend(parameters);
                startup
            }
            Self::Chatd => {
                b"{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\"}\n".to_vec()
            }
        }
    }

    /// Whether this line ends the answer to [`Kind::hello`].
    pub fn greeted(self, line: &[u8]) -> bool {
        match self {
            Self::Nats => line == b"PONG",
            Self::Redis => line == b"+PONG",
            // 376 and 422: the end of the message of the day, or that there is none.
            Self::Irc => matches!(word(line, 1), b"376" | b"422"),
            Self::Postgres => line == b"Z",
            Self::Chatd => line.starts_with(OK),
        }
    }

    /// Makes a subscriber of the connection; its answer is complete with [`Kind::subscribed`].
    pub fn subscribe(self) -> Vec<u8> {
        match self {
            Self::Nats => format!("SUB {ROOM} 1\r\nPING\r\n").into_bytes(),
            Self::Redis => format!("SUBSCRIBE {ROOM}\r\n").into_bytes(),
            Self::Irc => format!("JOIN #{ROOM}\r\n").into_bytes(),
            Self::Postgres => Vec::new(),
            Self::Chatd => b"{\"class\":\"chat\",\"subclass\":\"event\",\"cmd\":\"subscribe\",\"data\":{\"type\":\"bench\"}}\n".to_vec(),
        }
    }

    /// Whether this line ends the answer to [`Kind::subscribe`].
    pub fn subscribed(self, line: &[u8]) -> bool {
        match self {
            Self::Nats => line == b"PONG",
            Self::Redis => line == b":1",
            // 366: the end of the list of names.
            Self::Irc => word(line, 1) == b"366",
            Self::Postgres => false,
            Self::Chatd => line.starts_with(OK),
        }
    }

    /// What surrounds a message of `payload` bytes that is sent to the room; chatd's have an id.
    pub fn around(self, payload: usize, conversation_id: &str) -> (Vec<u8>, &'static [u8]) {
        let (before, after) = match self {
            Self::Nats => (format!("PUB {ROOM} {payload}\r\n"), "\r\n"),
            Self::Redis => (
                format!(
                    "*3\r\n$7\r\nPUBLISH\r\n${}\r\n{ROOM}\r\n${payload}\r\n",
                    ROOM.len()
                ),
                "\r\n",
            ),
            Self::Irc => (format!("PRIVMSG #{ROOM} :"), "\r\n"),
            Self::Postgres => (String::new(), ""),
            Self::Chatd => (
                format!(
                    "{{\"class\":\"chat\",\"subclass\":\"event\",\"cmd\":\"send\",\"data\":{{\"type\":\"bench\",\"obj_id\":\"{conversation_id}\",\"body\":{{\"text\":\""
                ),
                "\"}}}\n",
            ),
        };
        (before.into_bytes(), after.as_bytes())
    }

    /// The answer to a message that went to so many subscribers, from a server that answers each.
    pub fn sent(self, subscribers: usize) -> Option<Vec<u8>> {
        match self {
            Self::Redis => Some(format!(":{subscribers}").into_bytes()),
            Self::Chatd => Some(b"{\"result\":\"ok\",\"data\":{}}".to_vec()),
            Self::Nats | Self::Irc | Self::Postgres => None,
        }
    }

    /// What must be said back to a line that asks for it: servers look after idle connections.
    pub fn retort(self, line: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Nats if line == b"PING" => Some(b"PONG\r\n".to_vec()),
            Self::Irc => {
                let token = line.strip_prefix(b"PING ")?;
                Some([b"PONG ", token, b"\r\n"].concat())
            }
            _ => None,
        }
    }

    /// Why a line means that the run has failed, if it does.
    pub fn refusal(self, line: &[u8]) -> Outcome<()> {
        let refused = match self {
            Self::Nats | Self::Redis => line.starts_with(b"-"),
            Self::Irc => {
                line.starts_with(b"ERROR")
                    || matches!(word(line, 1), [b'4' | b'5', ..] if word(line, 1) != b"422")
            }
            Self::Postgres => line == b"E",
            Self::Chatd => line.starts_with(b"{\"result\":\"error\""),
        };
        if refused {
            return Err(format!("refused: {}", String::from_utf8_lossy(line)).into());
        }
        Ok(())
    }

    /// The first frame of `bytes` and its length, or nothing if more bytes are needed.
    pub fn frame(self, bytes: &[u8]) -> Outcome<Option<(Frame<'_>, usize)>> {
        match self {
            Self::Nats => nats_frame(bytes),
            Self::Redis => redis_frame(bytes),
            Self::Irc => Ok(irc_frame(bytes)),
            Self::Postgres => Ok(postgres_frame(bytes)),
            Self::Chatd => Ok(chatd_frame(bytes)),
        }
    }
}

/// `MSG room 1 200\r\n…\r\n`, or a line.
fn nats_frame(bytes: &[u8]) -> Outcome<Option<(Frame<'_>, usize)>> {
    let Some((line, start)) = line(bytes) else {
        return Ok(None);
    };
    if !line.starts_with(b"MSG ") {
        return Ok(Some((Frame::Line(line), start)));
    }
    let digits = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    payload(bytes, start, number(digits)?)
}

/// `*3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$200\r\n…\r\n`, or a line. Other answers are read as their lines.
fn redis_frame(bytes: &[u8]) -> Outcome<Option<(Frame<'_>, usize)>> {
    const PREFIX: &[u8] = b"*3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$";
    let Some(rest) = bytes.strip_prefix(PREFIX) else {
        if PREFIX.starts_with(bytes) {
            return Ok(None);
        }
        return Ok(line(bytes).map(|(line, length)| (Frame::Line(line), length)));
    };
    let Some((digits, length)) = line(rest) else {
        return Ok(None);
    };
    payload(bytes, PREFIX.len() + length, number(digits)?)
}

/// `:nick!user@host PRIVMSG #room :…\r\n`, or a line.
fn irc_frame(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    const COMMAND: &[u8] = b" PRIVMSG #room :";
    let (line, length) = line(bytes)?;
    let payload = memchr(b' ', line)
        .and_then(|space| line.get(space..))
        .and_then(|rest| rest.strip_prefix(COMMAND));
    Some((payload.map_or(Frame::Line(line), Frame::Delivery), length))
}

/// `{"class":"chat","subclass":"conversation",…,"body":{"text":"…"},…}\n`, or another line.
fn chatd_frame(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    const TEXT: &[u8] = b"\"body\":{\"text\":\"";
    let (line, length) = line(bytes)?;
    if !line.starts_with(b"{\"class\"") {
        return Some((Frame::Line(line), length));
    }
    let payload = memmem::find(line, TEXT)
        .and_then(|place| line.get(place + TEXT.len()..))
        .and_then(|rest| rest.split(|byte| *byte == b'"').next());
    Some((payload.map_or(Frame::Line(line), Frame::Delivery), length))
}

/// One byte for the kind, four for the length; the kind alone is of interest.
fn postgres_frame(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?);
    let end = 1 + usize::try_from(length).ok()?;
    (bytes.len() >= end).then(|| (Frame::Line(&bytes[..1]), end))
}

fn payload(bytes: &[u8], start: usize, length: usize) -> Outcome<Option<(Frame<'_>, usize)>> {
    let end = start + length;
    match bytes.get(start..end + 2) {
        None => Ok(None),
        Some(whole) if whole.ends_with(b"\r\n") => {
            Ok(Some((Frame::Delivery(&whole[..length]), end + 2)))
        }
        Some(_) => Err("a payload does not end where its length says".into()),
    }
}

/// The first line without its end, and where the next one starts.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr(b'\n', bytes)?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

/// A word of a line, words being separated by single spaces.
fn word(line: &[u8], number: usize) -> &[u8] {
    line.split(|byte| *byte == b' ')
        .nth(number)
        .unwrap_or_default()
}

/// A decimal number.
pub fn number(digits: &[u8]) -> Outcome<usize> {
    Ok(str::from_utf8(digits)?.parse()?)
}
