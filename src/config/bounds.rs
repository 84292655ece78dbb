//! What numbers and durations in chatd.toml may be.

use super::{ConfigError, Security};
use crate::limits::{
    BURST_SECONDS, LINE_CEILING_BYTES, Limits, MESSAGE_CEILING_BYTES, PASSWORD_MAX_BYTES,
};

/// Whether the limits are within theirs.
pub fn check_limits(limits: &Limits) -> Result<(), ConfigError> {
    let bytes = |bytes: usize| bytes as u64;
    check_rates(limits)?;
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
            "max_connections_trusted",
            bytes(limits.max_connections_trusted),
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
            "max_sessions_per_user",
            bytes(limits.max_sessions_per_user),
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
        (
            "rows_per_day_per_user",
            limits.rows_per_day_per_user,
            0,
            1 << 50,
        ),
        (
            "bytes_per_day_per_user",
            limits.bytes_per_day_per_user,
            0,
            1 << 50,
        ),
        ("search_seconds", limits.search_seconds, 1, 3600),
    ] {
        within("limits", name, value, low, high)?;
    }
    Ok(())
}

fn check_rates(limits: &Limits) -> Result<(), ConfigError> {
    let most = u64::from(u32::MAX);
    let per_second = [
        (
            "handshakes_per_second_per_address",
            limits.handshakes_per_second_per_address,
        ),
        ("requests_per_second", limits.requests_per_second),
        (
            "requests_per_second_per_address",
            limits.requests_per_second_per_address,
        ),
        (
            "requests_per_second_per_user",
            limits.requests_per_second_per_user,
        ),
        ("bytes_per_second", limits.bytes_per_second),
        (
            "bytes_per_second_per_address",
            limits.bytes_per_second_per_address,
        ),
        (
            "bytes_per_second_per_user",
            limits.bytes_per_second_per_user,
        ),
        ("deliveries_per_second", limits.deliveries_per_second),
    ];
    for (name, value) in per_second {
        within("limits", name, value.into(), 1, most)?;
    }
    check_burst(limits)
}

/// What the rates allow at once must hold the largest request.
fn check_burst(limits: &Limits) -> Result<(), ConfigError> {
    let bytes = |bytes: usize| bytes as u64;
    let burst = u64::from(
        limits
            .bytes_per_second
            .min(limits.bytes_per_second_per_address)
            .min(limits.bytes_per_second_per_user),
    ) * u64::from(BURST_SECONDS);
    if burst < bytes(limits.max_line_bytes) {
        return Err(ConfigError(format!(
            "limits.bytes_per_second, bytes_per_second_per_address and bytes_per_second_per_user must be at least {}, for a line of limits.max_line_bytes",
            bytes(limits.max_line_bytes).div_ceil(u64::from(BURST_SECONDS))
        )));
    }
    Ok(())
}

/// Whether `[security]` is within its limits.
pub fn check_security(security: &Security) -> Result<(), ConfigError> {
    for (name, value, low, high) in [
        ("bcrypt_cost", u64::from(security.bcrypt_cost), 4, 31),
        (
            "password_min_bytes",
            security.password_min_bytes as u64,
            1,
            PASSWORD_MAX_BYTES as u64,
        ),
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
pub fn duration_ms(text: &str) -> Result<u64, ConfigError> {
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
