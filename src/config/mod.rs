//! chatd.toml: as written, then validated; the command line wins over it.

pub mod level;
mod listen;
mod proxies;

pub use listen::{Address, Allowed, Listen, TlsFiles};
pub use proxies::Proxies;

use crate::limits::{BURST_SECONDS, LINE_CEILING_BYTES, Limits, MESSAGE_CEILING_BYTES};
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
    /// The cost of bcrypt.
    pub bcrypt_cost: u32,
    /// Seconds to log in, and to finish a TLS handshake, before the connection is closed.
    pub login_seconds: u64,
    /// Failed logins a minute of one account or token from one address, and users that one address registers.
    pub failed_logins_per_minute: u32,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            registration: Registration::Closed,
            bcrypt_cost: 12,
            login_seconds: 60,
            failed_logins_per_minute: 10,
        }
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
            let listeners = overrides.listen.iter();
            raw.listen = listeners.map(|address| RawListen::at(address)).collect();
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
        check_security(&raw.security)?;
        level::check("log.level", &raw.log.level)?;
        Ok(Self {
            data_dir: raw.data_dir,
            must_exist: raw.must_exist,
            listen: raw
                .listen
                .iter()
                .map(RawListen::check)
                .collect::<Result<_, _>>()?,
            limits: raw.limits,
            keep_ms: duration_ms(&raw.events.keep)?,
            security: raw.security,
            log: raw.log,
        })
    }
}

fn check_limits(limits: &Limits) -> Result<(), ConfigError> {
    let bytes = |bytes: usize| bytes as u64;
    let most = u64::from(u32::MAX);
    let per_second = [
        ("requests_per_second", limits.requests_per_second),
        (
            "requests_per_second_per_address",
            limits.requests_per_second_per_address,
        ),
        ("bytes_per_second", limits.bytes_per_second),
        (
            "bytes_per_second_per_address",
            limits.bytes_per_second_per_address,
        ),
    ];
    for (name, value) in per_second {
        within("limits", name, value.into(), 1, most)?;
    }
    for (name, value, low, high) in [
        (
            "max_line_bytes",
            bytes(limits.max_line_bytes),
            1024,
            bytes(LINE_CEILING_BYTES),
        ),
        (
            "max_message_bytes",
            bytes(limits.max_message_bytes),
            1,
            bytes(MESSAGE_CEILING_BYTES),
        ),
        ("max_page", bytes(limits.max_page), 1, 100_000),
        (
            "max_page_bytes",
            bytes(limits.max_page_bytes),
            1024,
            1 << 30,
        ),
        (
            "max_pending_bytes",
            bytes(limits.max_pending_bytes),
            4096,
            1 << 30,
        ),
        (
            "max_memory_bytes_pending",
            bytes(limits.max_memory_bytes_pending),
            // There is always room for a page in the end.
            bytes(limits.max_page_bytes) * 4,
            1 << 40,
        ),
        (
            "max_memory_bytes_pending_per_address",
            bytes(limits.max_memory_bytes_pending_per_address),
            bytes(limits.max_page_bytes) * 4,
            1 << 40,
        ),
        ("stalled_seconds", limits.stalled_seconds, 1, 86_400),
        (
            "max_connections",
            bytes(limits.max_connections),
            1,
            1_000_000,
        ),
        (
            "max_connections_per_address",
            bytes(limits.max_connections_per_address),
            1,
            1_000_000,
        ),
        (
            "max_connections_not_logged_in",
            bytes(limits.max_connections_not_logged_in),
            1,
            1_000_000,
        ),
        (
            "max_subscriptions",
            bytes(limits.max_subscriptions),
            1,
            100_000,
        ),
        (
            "max_subscription_bytes",
            bytes(limits.max_subscription_bytes),
            1024,
            1 << 30,
        ),
        ("search_seconds", limits.search_seconds, 1, 3600),
    ] {
        within("limits", name, value, low, high)?;
    }
    check_burst(limits)
}

/// What the rates allow at once must hold the largest request.
fn check_burst(limits: &Limits) -> Result<(), ConfigError> {
    let bytes = |bytes: usize| bytes as u64;
    let burst = u64::from(
        limits
            .bytes_per_second
            .min(limits.bytes_per_second_per_address),
    ) * u64::from(BURST_SECONDS);
    if burst < bytes(limits.max_line_bytes) {
        return Err(ConfigError(format!(
            "limits.bytes_per_second and bytes_per_second_per_address must be at least {}, for a line of limits.max_line_bytes",
            bytes(limits.max_line_bytes).div_ceil(u64::from(BURST_SECONDS))
        )));
    }
    Ok(())
}

fn check_security(security: &Security) -> Result<(), ConfigError> {
    for (name, value, low, high) in [
        ("bcrypt_cost", u64::from(security.bcrypt_cost), 4, 31),
        ("login_seconds", security.login_seconds, 1, 3600),
        (
            "failed_logins_per_minute",
            security.failed_logins_per_minute.into(),
            1,
            1_000_000,
        ),
    ] {
        within("security", name, value, low, high)?;
    }
    Ok(())
}

fn within(table: &str, name: &str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError(format!(
            "{table}.{name} is {value}, and must be {low} to {high}"
        )))
    }
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
    use crate::registry::Access;

    fn refusal(text: &str) -> String {
        Config::parse(text, Overrides::default()).unwrap_err().0
    }

    #[test]
    fn the_shipped_file_has_every_key_at_its_default() {
        let shipped = include_str!("../../chatd.toml");
        let config = Config::parse(shipped, Overrides::default()).unwrap();
        let plain = Config::parse("", Overrides::default()).unwrap();
        assert_eq!(format!("{config:?}"), format!("{plain:?}"));
        let limits = serde_json::to_value(Limits::default()).unwrap();
        for key in limits
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .chain([
                "data_dir",
                "keep",
                "registration",
                "bcrypt_cost",
                "login_seconds",
                "failed_logins_per_minute",
                "level",
                "format",
            ])
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
        for access in ["trusted", "login"] {
            let text = refusal(&format!(
                "[[listen]]\naddress = \"0.0.0.0:1\"\naccess = \"{access}\""
            ));
            assert!(text.contains("insecure = true"), "{text}");
        }
        let here = "[[listen]]\naddress = \"127.0.0.1:1\"\n";
        assert!(refusal(&format!("{here}mode = \"0600\"")).contains("Unix socket"));
        assert!(refusal(&format!("{here}access = \"none\"")).contains("trusted"));
        let socket = "[[listen]]\naddress = \"unix:/run/x\"\n";
        assert!(refusal(&format!("{socket}mode = \"999\"")).contains("0660"));
        assert!(refusal(&format!("{socket}tls = {{ cert = \"c\", key = \"k\" }}")).contains("TCP"));
        assert!(
            refusal(&format!("{socket}allow_groups = [\"no such group\"]"))
                .contains("no such group")
        );
        assert!(refusal("[limits]\nbytes_per_second = 100").contains("13108"));
        assert!(refusal("[security]\nbcrypt_cost = 99").contains("4 to 31"));
        assert!(refusal("[[listen]]\naddress = \"here\"").contains("127.0.0.1:24283"));
        assert!(refusal("listen = []").contains("[[listen]]"));
        assert!(refusal("[events]\nkeep = \"7 days\"").contains("7d"));
        assert!(refusal("[events]\nkeep = \"\"").contains("7d"));
        assert!(refusal("[limits]\nmax_message_bytes = 1000000").contains("max_message_bytes"));
    }

    #[test]
    fn access_is_trusted_on_this_machine_and_login_elsewhere() {
        let listen = |text: &str| {
            let config = Config::parse(text, Overrides::default()).unwrap();
            config.listen.into_iter().next().unwrap()
        };
        let access = |address: &str| {
            listen(&format!(
                "[[listen]]\naddress = \"{address}\"\ninsecure = true"
            ))
            .access
        };
        assert_eq!(access("127.0.0.1:0"), Access::Trusted);
        assert_eq!(access("[::1]:0"), Access::Trusted);
        assert_eq!(access("unix:/run/x"), Access::Trusted);
        assert_eq!(access("0.0.0.0:0"), Access::Login);
        let tls = listen(
            "[[listen]]\naddress = \"0.0.0.0:0\"\ntls = { cert = \"c\", key = \"k\", client_ca = \"a\" }",
        );
        assert_eq!(tls.tls.unwrap().client_ca, Some("a".into()));
        let socket = listen(
            "[[listen]]\naddress = \"unix:/run/x\"\nmode = \"0600\"\nallow_uids = [7]\nallow_groups = [\"root\"]",
        );
        assert_eq!(socket.mode, 0o600);
        let allowed = socket.allowed.unwrap();
        assert!(allowed.allows(7, 99) && allowed.allows(8, 0) && !allowed.allows(8, 99));
    }
}
