//! How many failures from one address have lines of their own: the rest of each second is summed up.

use crate::limits::{AUDITED_FAILURES_PER_SECOND, AUDITED_MAX_ADDRESSES};
use crate::registry::Source;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// The failures of the second that runs.
#[derive(Debug, Default)]
pub struct Failures {
    since: Option<Instant>,
    /// By where they came from; those of too many addresses together under none.
    sources: FxHashMap<Option<Source>, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    lines: u32,
    /// By event and result.
    rest: BTreeMap<(String, String), Rest>,
}

/// Failures of one kind without lines of their own.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rest {
    remote: String,
    count: u64,
}

/// Failures of one kind from one address, together.
#[derive(Debug, PartialEq, Eq)]
pub struct Sum {
    /// What was tried.
    pub event: String,
    /// The code of the refusal.
    pub result: String,
    /// From where the last one came.
    pub remote: String,
    /// How many.
    pub count: u64,
}

impl Failures {
    /// Counts a failure; true if it is to have a line of its own.
    pub fn count(
        &mut self,
        source: Option<Source>,
        (event, result): (&str, &str),
        remote: &str,
        now: Instant,
    ) -> bool {
        self.since.get_or_insert(now);
        let full = self.sources.len() >= AUDITED_MAX_ADDRESSES;
        let known = !full || self.sources.contains_key(&source);
        let seen = self.sources.entry(source.filter(|_| known)).or_default();
        if seen.lines < AUDITED_FAILURES_PER_SECOND {
            seen.lines += 1;
            return true;
        }
        let kind = (event.to_owned(), result.to_owned());
        let rest = seen.rest.entry(kind).or_default();
        remote.clone_into(&mut rest.remote);
        rest.count += 1;
        false
    }

    /// What had no line of its own in a second that is over.
    pub fn sums(&mut self, now: Instant) -> Vec<Sum> {
        let over = |since: Instant| now.saturating_duration_since(since) >= SECOND;
        if self.since.is_some_and(over) {
            self.all_sums()
        } else {
            Vec::new()
        }
    }

    /// What had no line of its own until now.
    pub fn all_sums(&mut self) -> Vec<Sum> {
        let Self { sources, .. } = std::mem::take(self);
        let rest = sources.into_values().flat_map(|seen| seen.rest);
        rest.map(|((event, result), Rest { remote, count })| Sum {
            event,
            result,
            remote,
            count,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Remote;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    const FAILED: (&str, &str) = ("login", "login_failed");

    fn from(address: u32) -> Source {
        let address = IpAddr::V4(Ipv4Addr::from_bits(address));
        Remote::Tcp(SocketAddr::new(address, 1)).source()
    }

    #[test]
    fn failures_beyond_a_hundred_a_second_from_one_address_are_summed_up() {
        let mut failures = Failures::default();
        let now = Instant::now();
        for number in 1..=AUDITED_FAILURES_PER_SECOND + 7 {
            let own = failures.count(Some(from(1)), FAILED, "one", now);
            assert_eq!(own, number <= AUDITED_FAILURES_PER_SECOND, "{number}");
        }
        let denied = ("user delete", "forbidden");
        assert!(!failures.count(Some(from(1)), denied, "one", now));
        assert!(failures.count(Some(from(2)), FAILED, "two", now));
        assert_eq!(failures.sums(now + SECOND / 2), []);
        let sums = failures.sums(now + SECOND);
        let sums: Vec<_> = sums
            .iter()
            .map(|sum| (sum.event.as_str(), sum.remote.as_str(), sum.count))
            .collect();
        assert_eq!(sums, [("login", "one", 7), ("user delete", "one", 1)]);
        assert!(failures.count(Some(from(1)), FAILED, "one", now + SECOND));
        assert_eq!(failures.all_sums(), []);
    }

    #[test]
    fn failures_from_very_many_addresses_take_bounded_memory_and_are_still_summed_up() {
        let mut failures = Failures::default();
        let now = Instant::now();
        let more = 2 * AUDITED_FAILURES_PER_SECOND;
        let addresses = u32::try_from(AUDITED_MAX_ADDRESSES).unwrap() + more;
        for address in 0..addresses {
            failures.count(Some(from(address)), FAILED, "last", now);
        }
        assert_eq!(failures.sources.len(), AUDITED_MAX_ADDRESSES + 1);
        let sums = failures.sums(now + SECOND);
        let counts: Vec<_> = sums.iter().map(|sum| sum.count).collect();
        assert_eq!(counts, [u64::from(more - AUDITED_FAILURES_PER_SECOND)]);
    }
}
