//! chatd.toml: as written, then validated; the command line wins over it.

use crate::limits::{LINE_CEILING_BYTES, Limits, MESSAGE_CEILING_BYTES};
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the data is.
    pub data_dir: PathBuf,
    /// Where to listen.
    pub listen: Vec<Address>,
    /// The limits.
    pub limits: Limits,
    /// Milliseconds for which events are kept.
    pub keep_ms: u64,
    /// The cost of bcrypt.
    pub bcrypt_cost: u32,
    /// How to log.
    pub log: Log,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What `RUST_LOG` would say; that wins.
    pub level: String,
    /// As text, or as JSON lines.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is wrong with a configuration, in one line.
#[derive(Debug)]
pub struct ConfigError(pub String);

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    data_dir: PathBuf,
    listen: Vec<RawListen>,
    limits: Limits,
    events: RawEvents,
    security: RawSecurity,
    log: Log,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListen {
    address: String,
    #[serde(default)]
    access: Option<String>,
    #[serde(default)]
    insecure: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawEvents {
    keep: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSecurity {
    bcrypt_cost: u32,
}

impl Default for Raw {
    fn default() -> Self {
        let listen = RawListen {
            address: "127.0.0.1:24283".to_owned(),
            access: None,
            insecure: false,
        };
        Self {
            data_dir: "chatd-data".into(),
            listen: vec![listen],
            limits: Limits::default(),
            events: RawEvents::default(),
            security: RawSecurity::default(),
            log: Log::default(),
        }
    }
}

impl Default for RawEvents {
    fn default() -> Self {
        Self {
            keep: "7d".to_owned(),
        }
    }
}

impl Default for RawSecurity {
    fn default() -> Self {
        Self { bcrypt_cost: 12 }
    }
}

/// What the command line says over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--listen`, instead of the file's listeners.
    pub listen: Vec<String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
}

impl Config {
    /// Reads and validates a file; without one, the defaults.
    pub fn load(path: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| ConfigError(format!("cannot read {}: {error}", path.display())))?,
            None => String::new(),
        };
        let named = |error: ConfigError| match path {
            Some(path) => ConfigError(format!("{}: {}", path.display(), error.0)),
            None => error,
        };
        Self::parse(&text, overrides).map_err(named)
    }

    /// Validates the text of a file.
    pub fn parse(text: &str, overrides: Overrides) -> Result<Self, ConfigError> {
        let mut raw: Raw = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                1 + text
                    .get(..span.start)
                    .unwrap_or_default()
                    .matches('\n')
                    .count()
            });
            let message = error
                .message()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            ConfigError(format!("line {line}: {message}"))
        })?;
        if !overrides.listen.is_empty() {
            let listener = |address| RawListen {
                address,
                access: None,
                insecure: false,
            };
            raw.listen = overrides.listen.into_iter().map(listener).collect();
        }
        if let Some(data_dir) = overrides.data_dir {
            raw.data_dir = data_dir;
        }
        if raw.listen.is_empty() {
            return Err(ConfigError(
                "there is no [[listen]]: chatd would hear nobody".to_owned(),
            ));
        }
        check_limits(&raw.limits)?;
        if !(4..=31).contains(&raw.security.bcrypt_cost) {
            return Err(ConfigError(
                "security.bcrypt_cost must be 4 to 31".to_owned(),
            ));
        }
        Ok(Self {
            data_dir: raw.data_dir,
            listen: raw.listen.iter().map(address).collect::<Result<_, _>>()?,
            limits: raw.limits,
            keep_ms: duration_ms(&raw.events.keep)?,
            bcrypt_cost: raw.security.bcrypt_cost,
            log: raw.log,
        })
    }
}

fn check_limits(limits: &Limits) -> Result<(), ConfigError> {
    let within = |name: &str, value: usize, low: usize, high: usize| {
        if (low..=high).contains(&value) {
            Ok(())
        } else {
            Err(ConfigError(format!(
                "limits.{name} is {value}, and must be {low} to {high}"
            )))
        }
    };
    let seconds = |seconds: u64| usize::try_from(seconds).unwrap_or(usize::MAX);
    within(
        "max_line_bytes",
        limits.max_line_bytes,
        1024,
        LINE_CEILING_BYTES,
    )?;
    within(
        "max_message_bytes",
        limits.max_message_bytes,
        1,
        MESSAGE_CEILING_BYTES,
    )?;
    within("max_page", limits.max_page, 1, 100_000)?;
    within("max_pending_bytes", limits.max_pending_bytes, 4096, 1 << 30)?;
    within(
        "stalled_seconds",
        seconds(limits.stalled_seconds),
        1,
        86_400,
    )?;
    within("max_connections", limits.max_connections, 1, 1_000_000)?;
    within("search_seconds", seconds(limits.search_seconds), 1, 3600)
}

fn address(raw: &RawListen) -> Result<Address, ConfigError> {
    match raw.access.as_deref() {
        None | Some("trusted") => {}
        Some(other) => {
            return Err(ConfigError(format!(
                "access = {other:?} is not known: this version knows \"trusted\""
            )));
        }
    }
    if let Some(path) = raw.address.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(ConfigError("address = \"unix:\" names no path".to_owned()));
        }
        return Ok(Address::Unix(path.into()));
    }
    let address: SocketAddr = raw.address.parse().map_err(|_| {
        ConfigError(format!(
            "address = {:?} is neither IP:PORT, such as 127.0.0.1:24283, nor unix:PATH",
            raw.address
        ))
    })?;
    if !address.ip().is_loopback() && !raw.insecure {
        return Err(ConfigError(format!(
            "address = \"{address}\" is reachable from other machines, and whoever connects may do everything; \
             listen on 127.0.0.1 or a Unix socket, or write insecure = true beside it"
        )));
    }
    Ok(Address::Tcp(address))
}

/// A duration such as `7d`, `12h`, `30m`, `45s`, in milliseconds.
fn duration_ms(text: &str) -> Result<u64, ConfigError> {
    let wrong = || {
        ConfigError(format!(
            "events.keep = {text:?} is no duration, such as 7d, 12h, 30m or 45s"
        ))
    };
    let split = text
        .len()
        .checked_sub(1)
        .filter(|&split| text.is_char_boundary(split))
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(seconds * 1000)
        .filter(|&ms| ms > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Config::parse(text, Overrides::default()).unwrap_err().0
    }

    #[test]
    fn the_shipped_file_has_every_key_at_its_default() {
        let shipped = include_str!("../chatd.toml");
        let config = Config::parse(shipped, Overrides::default()).unwrap();
        let plain = Config::parse("", Overrides::default()).unwrap();
        assert_eq!(format!("{config:?}"), format!("{plain:?}"));
        let limits = serde_json::to_value(Limits::default()).unwrap();
        for key in limits
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .chain(["data_dir", "keep", "bcrypt_cost", "level", "format"])
        {
            assert!(
                shipped.lines().any(|line| line
                    .trim_start_matches("# ")
                    .starts_with(&format!("{key} = "))),
                "{key}"
            );
        }
    }

    #[test]
    fn refusals_say_where_and_what_to_do() {
        assert_eq!(
            refusal("\n[limits]\nmax_lines = 3\n").split(':').next(),
            Some("line 3")
        );
        assert!(refusal("[[listen]]\naddress = \"0.0.0.0:1\"").contains("insecure = true"));
        assert!(refusal("[[listen]]\naddress = \"here\"").contains("127.0.0.1:24283"));
        assert!(refusal("listen = []").contains("[[listen]]"));
        assert!(refusal("[events]\nkeep = \"7 days\"").contains("7d"));
        assert!(refusal("[events]\nkeep = \"\"").contains("7d"));
        assert!(refusal("[limits]\nmax_message_bytes = 1000000").contains("max_message_bytes"));
    }
}
