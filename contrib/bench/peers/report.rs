//! The figures, as `chatd bench` prints them.

use crate::{Outcome, Server};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

/// How long everything took, in nanoseconds.
pub struct Times(Histogram<u64>);

impl Times {
    /// Up to an hour, to three digits. The bounds are fixed: beyond them a value is clamped.
    pub fn new() -> Outcome<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 3_600_000_000_000, 3)?))
    }

    /// Takes one down.
    pub fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }
}

/// What every scenario prints.
pub fn figures(
    scenario: &str,
    server: &Server,
    took: Duration,
    requests: usize,
    times: Option<&Times>,
) -> Value {
    let mut figures = json!({
        "scenario": scenario,
        "server": server.kind.name(),
        "address": server.address.to_string(),
        "seconds": took.as_secs_f64(),
        "requests": requests,
        "events": 0,
        "errors": 0,
        "per_second": per_second(requests, took),
    });
    if let Some(Times(times)) = times {
        let micros = |quantile| times.value_at_quantile(quantile).div_ceil(1000);
        figures["latency_us"] = json!({
            "p50": micros(0.5), "p90": micros(0.9), "p99": micros(0.99), "p999": micros(0.999),
            "max": times.max().div_ceil(1000),
        });
    }
    figures
}

/// So many in that time.
pub fn per_second(count: usize, took: Duration) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let rate = count as f64 / took.as_secs_f64();
    json!(rate)
}
