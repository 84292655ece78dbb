//! How many lines one address has of what may come often, failures and readings: the rest of each second is summed up.

use crate::limits::{AUDITED_LINES_PER_SECOND, AUDITED_MAX_ADDRESSES, AUDITED_MAX_READINGS};
use crate::model::{ConversationId, UserId};
use crate::registry::Source;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// What came in the second that runs.
#[derive(Debug, Default)]
pub struct Frequent {
    since: Option<Instant>,
    /// By where it came from; what came from too many addresses together under none.
    sources: FxHashMap<Option<Source>, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    lines: u32,
    rest: BTreeMap<Kind, Rest>,
}

/// What lines have in common that are summed up in one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// What was tried or done.
    pub event: String,
    /// `ok`, or the code of the refusal.
    pub result: String,
    /// The limit that was reached.
    pub limit: Option<&'static str>,
    /// Who read, and what: a sum of readings tells of each conversation, so that none is hidden among others. None in the
    /// sum of failures.
    pub reading: Option<(Option<UserId>, Option<ConversationId>)>,
}

/// Lines of one kind that are not written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rest {
    remote: String,
    count: u64,
}

/// What came of one kind from one address, together.
#[derive(Debug, PartialEq, Eq)]
pub struct Sum {
    /// What it was.
    pub kind: Kind,
    /// From where the last one came.
    pub remote: String,
    /// How many.
    pub count: u64,
}

impl Frequent {
    /// Counts one of a kind; true if it is to have a line of its own.
    pub fn count(
        &mut self,
        source: Option<Source>,
        kind: Kind,
        remote: &str,
        now: Instant,
    ) -> bool {
        self.since.get_or_insert(now);
        let full = self.sources.len() >= AUDITED_MAX_ADDRESSES;
        let known = !full || self.sources.contains_key(&source);
        let seen = self.sources.entry(source.filter(|_| known)).or_default();
        // There are few kinds of failures, but as many of readings as there are conversations.
        let full = kind.reading.is_some() && seen.rest.len() >= AUDITED_MAX_READINGS;
        if seen.lines < AUDITED_LINES_PER_SECOND || full && !seen.rest.contains_key(&kind) {
            seen.lines += 1;
            return true;
        }
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
        rest.map(|(kind, Rest { remote, count })| Sum {
            kind,
            remote,
            count,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Id;
    use crate::registry::Remote;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    fn from(address: u32) -> Source {
        let address = IpAddr::V4(Ipv4Addr::from_bits(address));
        Remote::Tcp(SocketAddr::new(address, 1)).source()
    }

    fn failed(event: &str) -> Kind {
        Kind {
            event: event.to_owned(),
            result: "forbidden".to_owned(),
            ..Kind::default()
        }
    }

    fn read(conversation: u64) -> Kind {
        let conversation = ConversationId(Id(conversation));
        Kind {
            event: "message search".to_owned(),
            result: "ok".to_owned(),
            reading: Some((None, Some(conversation))),
            ..Kind::default()
        }
    }

    #[test]
    fn failures_beyond_a_hundred_a_second_from_one_address_are_summed_up() {
        let mut frequent = Frequent::default();
        let now = Instant::now();
        for number in 1..=AUDITED_LINES_PER_SECOND + 7 {
            let own = frequent.count(Some(from(1)), failed("login"), "one", now);
            assert_eq!(own, number <= AUDITED_LINES_PER_SECOND, "{number}");
        }
        assert!(!frequent.count(Some(from(1)), failed("user delete"), "one", now));
        assert!(frequent.count(Some(from(2)), failed("login"), "two", now));
        assert_eq!(frequent.sums(now + SECOND / 2), []);
        let sums = frequent.sums(now + SECOND);
        let sums: Vec<_> = sums
            .iter()
            .map(|sum| (sum.kind.event.as_str(), sum.remote.as_str(), sum.count))
            .collect();
        assert_eq!(sums, [("login", "one", 7), ("user delete", "one", 1)]);
        assert!(frequent.count(Some(from(1)), failed("login"), "one", now + SECOND));
        assert_eq!(frequent.all_sums(), []);
    }

    #[test]
    fn failures_from_very_many_addresses_take_bounded_memory_and_are_still_summed_up() {
        let mut frequent = Frequent::default();
        let now = Instant::now();
        let more = 2 * AUDITED_LINES_PER_SECOND;
        let addresses = u32::try_from(AUDITED_MAX_ADDRESSES).unwrap() + more;
        for address in 0..addresses {
            frequent.count(Some(from(address)), failed("login"), "last", now);
        }
        assert_eq!(frequent.sources.len(), AUDITED_MAX_ADDRESSES + 1);
        let sums = frequent.sums(now + SECOND);
        let counts: Vec<_> = sums.iter().map(|sum| sum.count).collect();
        assert_eq!(counts, [u64::from(more - AUDITED_LINES_PER_SECOND)]);
    }

    #[test]
    fn readings_in_quick_succession_hide_no_conversation_and_take_bounded_memory() {
        let mut frequent = Frequent::default();
        let now = Instant::now();
        for _ in 0..AUDITED_LINES_PER_SECOND {
            assert!(frequent.count(Some(from(1)), read(0), "one", now));
        }
        for _ in 0..5 {
            for conversation in [0, 1] {
                assert!(!frequent.count(Some(from(1)), read(conversation), "one", now));
            }
        }
        for conversation in 2..AUDITED_MAX_READINGS as u64 {
            assert!(!frequent.count(Some(from(1)), read(conversation), "one", now));
        }
        // One more is told at once, and one that is there already is counted.
        let next = AUDITED_MAX_READINGS as u64;
        assert!(frequent.count(Some(from(1)), read(next), "one", now));
        assert!(!frequent.count(Some(from(1)), read(1), "one", now));
        let sums = frequent.all_sums();
        assert_eq!(sums.len(), AUDITED_MAX_READINGS);
        let counts: Vec<_> = sums.iter().take(3).map(|sum| sum.count).collect();
        assert_eq!(counts, [5, 6, 1]);
    }
}
