//! What a scenario came to, as a table for people and as JSON for programs.

use super::Failure;
use super::arguments::Plan;
use super::driver::Outcome;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// Latencies in nanoseconds.
pub type Times = Histogram<u64>;

/// Latencies of up to an hour, to three digits. The bounds are fixed: beyond them a value is clamped.
pub fn times() -> Result<Times, Failure> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
        .map_err(|error| Failure::Run(format!("latencies cannot be kept: {error}")))
}

/// Latencies together.
pub fn merged<'a>(all: impl IntoIterator<Item = &'a Times>) -> Result<Times, Failure> {
    let mut sum = times()?;
    for some in all {
        sum.add(some)
            .map_err(|error| Failure::Run(format!("latencies cannot be kept: {error}")))?;
    }
    Ok(sum)
}

/// Quantiles, in microseconds.
#[derive(Serialize)]
pub struct Latency {
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl From<&Times> for Latency {
    fn from(times: &Times) -> Self {
        let micros = |ns: u64| (ns + 500) / 1000;
        let at = |quantile| micros(times.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(times.max()),
        }
    }
}

/// What a scenario came to.
#[derive(Serialize)]
pub struct Report {
    /// Its name.
    pub scenario: &'static str,
    address: String,
    connections: usize,
    pipeline: usize,
    payload_bytes: usize,
    seconds: f64,
    requests: u64,
    events: u64,
    errors: u64,
    per_second: f64,
    latency_us: Latency,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsent: Option<u64>,
    #[serde(flatten)]
    details: Details,
    /// What was missing or wrong.
    #[serde(skip)]
    pub problem: Option<String>,
}

/// What only some scenarios tell.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Details {
    /// Nothing.
    None {},
    /// `fanout`: latencies are those of deliveries, from sending to arrival.
    Fanout {
        /// Connections that are subscribed.
        subscribers: usize,
        /// Events that came.
        deliveries: u64,
        /// Events that came in a second.
        deliveries_per_second: f64,
    },
    /// `history`.
    History {
        /// By length of the conversation.
        pages: Vec<Page>,
    },
    /// `search`, `mixed` and `login`.
    Kinds {
        /// By kind of request.
        kinds: Vec<Kind>,
    },
    /// `idle`.
    Idle {
        /// Memory of the daemon before the connections were opened.
        rss_before_bytes: u64,
        /// Memory of the daemon with all of them.
        rss_after_bytes: u64,
        /// The difference for each.
        bytes_per_connection: u64,
    },
    /// `delete`: latencies are those of the others, while the deletion runs.
    Delete {
        /// Messages in the conversation that was deleted.
        messages: usize,
        /// Until the deletion was answered.
        delete_us: u64,
        /// Latencies of the others before.
        before_latency_us: Latency,
    },
}

/// The newest page of one conversation.
#[derive(Serialize)]
pub struct Page {
    /// Messages in the conversation.
    pub messages: usize,
    /// How long the page took.
    pub latency_us: Latency,
}

/// One kind of request.
#[derive(Serialize)]
pub struct Kind {
    /// Its name.
    pub kind: &'static str,
    /// How many were answered.
    pub requests: u64,
    /// How long they took.
    pub latency_us: Latency,
}

impl Kind {
    /// Kinds from their names and latencies.
    pub fn list(names: &[&'static str], all: &[Times]) -> Vec<Self> {
        let kind = |(kind, times): (&&'static str, &Times)| Self {
            kind,
            requests: times.len(),
            latency_us: times.into(),
        };
        names.iter().zip(all).map(kind).collect()
    }
}

impl Report {
    /// A report with the latencies of the answers.
    pub fn new(
        plan: &Plan,
        address: &str,
        outcome: Outcome,
        details: Details,
    ) -> Result<Self, Failure> {
        let times = outcome.all_times()?;
        Ok(Self::with_times(plan, address, outcome, &times, details))
    }

    /// A report with other latencies.
    pub fn with_times(
        plan: &Plan,
        address: &str,
        outcome: Outcome,
        times: &Times,
        details: Details,
    ) -> Self {
        let errors = outcome.errors;
        Self {
            scenario: plan.scenario.name(),
            address: address.to_owned(),
            connections: plan.connections,
            pipeline: plan.pipeline,
            payload_bytes: plan.payload_bytes,
            seconds: rounded(outcome.took.as_secs_f64(), 1e6),
            requests: outcome.answers,
            events: outcome.events,
            errors,
            per_second: per_second(outcome.answers, outcome.took),
            latency_us: times.into(),
            rate: plan.rate,
            unsent: outcome.unsent,
            details,
            problem: outcome
                .problem
                .map(|first| format!("{errors} missing or wrong; the first: {first}")),
        }
    }

    /// The report as a line of JSON.
    pub fn json(&self) -> String {
        // It is made of numbers, strings and lists of them: nothing that cannot be written.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// The report as rows of a table, below its head if it is the `first`.
    pub fn table(&self, first: bool) -> String {
        let mut table = String::new();
        if first {
            let _ = writeln!(
                table,
                "{:<26} {:>11} {:>12} {:>12} {:>9} {:>9} {:>9} {:>9} {:>9}",
                "scenario",
                "connections",
                "requests/s",
                "events/s",
                "p50 ms",
                "p90",
                "p99",
                "p99.9",
                "max"
            );
        }
        let size = format!("{} x {}", self.connections, self.pipeline);
        let events = if self.events == 0 {
            "-".to_owned()
        } else {
            grouped(whole(rounded(
                count(self.events) / self.seconds.max(0.001),
                1.0,
            )))
        };
        let requests = grouped(whole(self.per_second));
        row(
            &mut table,
            self.scenario,
            [&size, &requests, &events],
            &self.latency_us,
        );
        let mut more = |name: &str, requests: &str, latency: &Latency| {
            row(
                &mut table,
                &format!("  {name}"),
                ["", requests, ""],
                latency,
            );
        };
        match &self.details {
            Details::None {} | Details::Fanout { .. } => {}
            Details::History { pages } => pages.iter().for_each(|page| {
                let name = format!("newest 50 of {}", grouped(page.messages as u64));
                more(&name, "", &page.latency_us);
            }),
            Details::Kinds { kinds } => kinds.iter().for_each(|kind| {
                let share = rounded(count(kind.requests) / self.seconds.max(0.001), 1.0);
                more(kind.kind, &grouped(whole(share)), &kind.latency_us);
            }),
            Details::Idle {
                rss_before_bytes,
                rss_after_bytes,
                bytes_per_connection,
            } => {
                let _ = writeln!(
                    table,
                    "  {} bytes before, {} with the connections: {} for each",
                    grouped(*rss_before_bytes),
                    grouped(*rss_after_bytes),
                    grouped(*bytes_per_connection)
                );
            }
            Details::Delete {
                messages,
                delete_us,
                before_latency_us,
            } => {
                more("before the deletion", "", before_latency_us);
                let _ = writeln!(
                    table,
                    "  {} messages deleted; answered after {} ms",
                    grouped(*messages as u64),
                    millis(*delete_us)
                );
            }
        }
        if let Some(unsent) = self.unsent.filter(|&unsent| unsent > 0) {
            let _ = writeln!(
                table,
                "  {} requests of the schedule could not be sent in its time",
                grouped(unsent)
            );
        }
        if self.errors > 0 {
            let _ = writeln!(table, "  {} MISSING OR WRONG", grouped(self.errors));
        }
        table
    }
}

/// How many a second.
pub fn per_second(number: u64, took: Duration) -> f64 {
    if took.is_zero() {
        return 0.0;
    }
    rounded(count(number) / took.as_secs_f64(), 10.0)
}

fn row(table: &mut String, name: &str, [size, requests, events]: [&str; 3], latency: &Latency) {
    let _ = writeln!(
        table,
        "{name:<26} {size:>11} {requests:>12} {events:>12} {:>9} {:>9} {:>9} {:>9} {:>9}",
        millis(latency.p50),
        millis(latency.p90),
        millis(latency.p99),
        millis(latency.p999),
        millis(latency.max)
    );
}

fn millis(micros: u64) -> String {
    format!("{}.{:03}", grouped(micros / 1000), micros % 1000)
}

/// A number with commas between its thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn count(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people, never negative"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown = [0, 7, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "7", "999", "1,000", "123,456", "1,234,567"]);
        assert_eq!(millis(1_234_005), "1,234.005");
    }
}
