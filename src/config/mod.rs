//! chatd.toml: as written, then validated; the command line wins over it.

mod bounds;
pub mod level;
mod listen;
mod proxies;

pub use listen::{Address, Allowed, Listen, TlsFiles};
pub use proxies::Proxies;

use crate::limits::Limits;
use crate::model::Directory;
use bounds::{check_limits, check_security, duration_ms};
use listen::RawListen;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the data is.
    pub data_dir: PathBuf,
    /// There must be data already; without it chatd does not start.
    pub must_exist: bool,
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// The limits.
    pub limits: Limits,
    /// Milliseconds for which events are kept.
    pub keep_ms: u64,
    /// Who may become a user, and how passwords and logins are treated.
    pub security: Security,
    /// How to log.
    pub log: Log,
}

/// `[security]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Whether a stranger on a login listener may create a user, and so become one.
    pub registration: Registration,
    /// Whom users see, if that is said; else as [`Security::directory`] has it.
    directory: Option<Directory>,
    /// The cost of bcrypt.
    pub bcrypt_cost: u32,
    /// Bytes that a password has at least where a user chooses it; admins choose freely for others, trusted connections
    /// for all.
    pub password_min_bytes: usize,
    /// Seconds to log in, and to finish a TLS handshake, before the connection is closed.
    pub login_seconds: u64,
    /// Failed logins a minute of one account or token from one address, and users that one address registers.
    pub failed_logins_per_minute: u32,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            registration: Registration::Closed,
            directory: None,
            bcrypt_cost: 12,
            password_min_bytes: 8,
            login_seconds: 60,
            failed_logins_per_minute: 10,
        }
    }
}

impl Security {
    /// Whom users see. Where anybody may become a user, that is not everybody, unless it is said.
    #[must_use]
    pub fn directory(&self) -> Directory {
        self.directory.unwrap_or(match self.registration {
            Registration::Closed => Directory::Everyone,
            Registration::Open => Directory::Companions,
        })
    }
}

/// Whether a stranger may become a user.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Only an admin or a trusted connection creates users.
    Closed,
    /// Whoever connects to a login listener may create one.
    Open,
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A level, or directives as in `RUST_LOG`, which wins.
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
    must_exist: bool,
    listen: Vec<RawListen>,
    limits: Limits,
    events: RawEvents,
    security: Security,
    log: Log,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawEvents {
    keep: String,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            data_dir: "chatd-data".into(),
            must_exist: false,
            listen: vec![RawListen::at("127.0.0.1:24283")],
            limits: Limits::default(),
            events: RawEvents::default(),
            security: Security::default(),
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
        let folder = path.and_then(Path::parent).unwrap_or(Path::new(""));
        Self::parse(&text, folder, overrides).map_err(named)
    }

    /// Validates the text of a file. Relative paths in it begin at `folder`, where the file is; those of the command line
    /// at the current directory.
    pub fn parse(text: &str, folder: &Path, overrides: Overrides) -> Result<Self, ConfigError> {
        let raw = read(text)?;
        if raw.listen.is_empty() && overrides.listen.is_empty() {
            return Err(ConfigError(
                "there is no [[listen]]: chatd would hear nobody".to_owned(),
            ));
        }
        check_limits(&raw.limits)?;
        check_security(&raw.security)?;
        level::check("log.level", &raw.log.level)?;
        let listen = if overrides.listen.is_empty() {
            let place = |listen: &RawListen| match listen.offset() {
                Some(offset) => format!("[[listen]] at line {}", line(text, offset)),
                None => "the default [[listen]]".to_owned(),
            };
            listeners(&raw.listen, folder, place)?
        } else {
            let named = overrides.listen.iter();
            let named: Vec<RawListen> = named.map(|address| RawListen::at(address)).collect();
            let place = |listen: &RawListen| format!("--listen {}", listen.address());
            listeners(&named, Path::new(""), place)?
        };
        Ok(Self {
            data_dir: overrides
                .data_dir
                .unwrap_or_else(|| folder.join(raw.data_dir)),
            must_exist: raw.must_exist,
            listen,
            limits: raw.limits,
            keep_ms: duration_ms(&raw.events.keep)?,
            security: raw.security,
            log: raw.log,
        })
    }
}

/// Validates listeners, each for itself and beside the others.
fn listeners(
    written: &[RawListen],
    folder: &Path,
    place: impl Fn(&RawListen) -> String,
) -> Result<Vec<Listen>, ConfigError> {
    let mut listeners: Vec<Listen> = Vec::new();
    for raw in written {
        let wrong = |error: ConfigError| ConfigError(format!("{}: {}", place(raw), error.0));
        let listen = raw.check(folder).map_err(wrong)?;
        let same = listeners.iter().zip(written);
        let mut same = same.filter(|(other, _)| other.address.takes(&listen.address));
        if let Some((other, first)) = same.next() {
            return Err(wrong(ConfigError(format!(
                "{} is listened on already, as {} by {}",
                listen.address,
                other.address,
                place(first)
            ))));
        }
        listeners.push(listen);
    }
    Ok(listeners)
}

/// The line of a text that this byte is in.
fn line(text: &str, offset: usize) -> usize {
    1 + text.get(..offset).unwrap_or_default().matches('\n').count()
}

/// Reads a text.
fn read(text: &str) -> Result<Raw, ConfigError> {
    check_brackets(text)?;
    toml::from_str(text).map_err(|error| {
        let at = line(text, error.span().map_or(0, |span| span.start));
        let message: Vec<&str> = error.message().split_whitespace().collect();
        ConfigError(format!("line {at}: {}", message.join(" ")))
    })
}

/// Refuses a table where there may be several, and several where there is one: what the reader says of it, or makes of
/// it, helps nobody.
fn check_brackets(text: &str) -> Result<(), ConfigError> {
    let Ok(table) = text.parse::<toml::Table>() else {
        // The reader says what is wrong.
        return Ok(());
    };
    for (name, value) in &table {
        let (written, meant, why) = match (name.as_str(), value) {
            ("listen", toml::Value::Table(_)) => {
                ("[listen]", "[[listen]]".to_owned(), "there may be several")
            }
            ("limits" | "events" | "security" | "log", toml::Value::Array(_)) => {
                (&*format!("[[{name}]]"), format!("[{name}]"), "there is one")
            }
            _ => continue,
        };
        let is_there = |line: &str| line.replace([' ', '\t'], "").starts_with(written);
        let at = text.lines().position(is_there).map_or(1, |index| index + 1);
        return Err(ConfigError(format!(
            "line {at}: {written} is to be {meant}: {why}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
