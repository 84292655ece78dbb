//! Places for connections: how many there may be in total and from one source, and who gives way to whom.
//!
//! A connection whose client has ended its input, and which lives on for its subscriptions, gives way when all places
//! are taken, the oldest first: most likely its client is gone, which nothing shows before something is sent to it
//! (protocol.md, 1).

use super::{Refused, Source};
use crate::hub::ConnectionId;
use crate::limits::{LEAVING_MAX_CONNECTIONS, Limits, PROXY_HEADERS_MAX_WAITING};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The places that are taken. Those of trusted listeners are of no source.
#[derive(Debug)]
pub struct Places {
    max: usize,
    max_per_source: usize,
    /// Connections, those that leave among them.
    connections: usize,
    /// Connections of proxies that have not said yet for whom they come.
    expected: usize,
    by_source: HashMap<Source, OfSource>,
    half_closed: BTreeMap<ConnectionId, Option<Source>>,
    /// Connections that gave their places up, and are not gone yet.
    leaving: HashSet<ConnectionId>,
}

#[derive(Debug, Default)]
struct OfSource {
    count: usize,
    half_closed: BTreeSet<ConnectionId>,
}

impl Places {
    /// Places as these limits say.
    pub fn new(limits: &Limits) -> Self {
        Self {
            max: limits.max_connections,
            max_per_source: limits.max_connections_per_address,
            connections: 0,
            expected: 0,
            by_source: HashMap::new(),
            half_closed: BTreeMap::new(),
            leaving: HashSet::new(),
        }
    }

    /// Refuses where there is no place, and nobody who would give way.
    pub fn check(&self) -> Result<(), Refused> {
        // Those that leave still have their descriptors.
        let open = self.connections + self.expected;
        let crowded = open >= self.max && self.leaving.len() >= LEAVING_MAX_CONNECTIONS;
        if crowded || self.is_full() && self.half_closed.is_empty() {
            return Err(Refused::Total);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.connections + self.expected - self.leaving.len() >= self.max
    }

    /// Takes a place. Gives the connection that gave up its own for it, which is to be closed.
    pub fn take(&mut self, source: Option<Source>) -> Result<Option<ConnectionId>, Refused> {
        self.check()?;
        let here = source.and_then(|source| self.by_source.get(&source));
        let displaced = if here.is_some_and(|here| here.count >= self.max_per_source) {
            let oldest = here.and_then(|here| here.half_closed.first());
            Some(*oldest.ok_or(Refused::PerAddress)?)
        } else if self.is_full() {
            let oldest = self.half_closed.first_key_value();
            Some(*oldest.ok_or(Refused::Total)?.0)
        } else {
            None
        };
        if let Some(id) = displaced {
            let source = self.half_closed.get(&id).copied().flatten();
            self.give_up(id, source);
            self.leaving.insert(id);
        }
        self.connections += 1;
        if let Some(source) = source {
            self.by_source.entry(source).or_default().count += 1;
        }
        Ok(displaced)
    }

    /// Keeps a place in total for a connection whose source is not known yet.
    pub fn expect(&mut self) -> Result<(), Refused> {
        if self.is_full() || self.expected >= PROXY_HEADERS_MAX_WAITING {
            return Err(Refused::Total);
        }
        self.expected += 1;
        Ok(())
    }

    /// Frees a place that was kept.
    pub fn met(&mut self) {
        self.expected -= 1;
    }

    /// Says that the client of a connection has ended its input, and that the connection lives on for its subscriptions.
    pub fn half_close(&mut self, id: ConnectionId, source: Option<Source>) {
        if self.leaving.contains(&id) {
            return;
        }
        self.half_closed.insert(id, source);
        if let Some(here) = source.and_then(|source| self.by_source.get_mut(&source)) {
            here.half_closed.insert(id);
        }
    }

    /// Counts a connection by another source than before; where there is no place for that, nothing changes.
    pub fn recount(
        &mut self,
        id: ConnectionId,
        before: Option<Source>,
        source: Option<Source>,
    ) -> Result<(), Refused> {
        // One that gave its place up is counted no more.
        if self.leaving.contains(&id) {
            return Ok(());
        }
        if let Some(source) = source {
            let here = self.by_source.entry(source).or_default();
            if here.count >= self.max_per_source {
                return Err(Refused::PerAddress);
            }
            here.count += 1;
        }
        self.give_up(id, before);
        Ok(())
    }

    /// Frees the place of a connection that is gone.
    pub fn free(&mut self, id: ConnectionId, source: Option<Source>) {
        self.connections -= 1;
        if !self.leaving.remove(&id) {
            self.give_up(id, source);
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.connections == 0
            && self.by_source.is_empty()
            && self.half_closed.is_empty()
            && self.leaving.is_empty()
    }

    fn give_up(&mut self, id: ConnectionId, source: Option<Source>) {
        self.half_closed.remove(&id);
        if let Some(source) = source
            && let Entry::Occupied(mut here) = self.by_source.entry(source)
        {
            here.get_mut().half_closed.remove(&id);
            here.get_mut().count -= 1;
            if here.get().count == 0 {
                here.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Remote;

    fn places(max: usize, max_per_source: usize) -> Places {
        Places::new(&Limits {
            max_connections: max,
            max_connections_per_address: max_per_source,
            ..Limits::default()
        })
    }

    fn source(address: &str) -> Source {
        Remote::Tcp(address.parse().unwrap()).source()
    }

    #[test]
    fn the_oldest_half_closed_connection_of_an_address_gives_way_there() {
        let mut places = places(100, 3);
        let (here, there) = (Some(source("10.0.0.1:1")), Some(source("10.0.0.2:1")));
        assert_eq!(places.take(there), Ok(None));
        places.half_close(1, there);
        for _ in 2..=4 {
            assert_eq!(places.take(here), Ok(None));
        }
        assert_eq!(places.take(here), Err(Refused::PerAddress));
        places.half_close(4, here);
        places.half_close(3, here);
        assert_eq!(places.take(here), Ok(Some(3)));
        assert_eq!(places.take(here), Ok(Some(4)));
        assert_eq!(places.take(here), Err(Refused::PerAddress));
        // One that gave its place up frees none when it is gone.
        places.free(3, here);
        assert_eq!(places.take(here), Err(Refused::PerAddress));
        places.free(2, here);
        assert_eq!(places.take(here), Ok(None));
        for id in [1, 4, 5, 6, 7] {
            places.free(id, if id == 1 { there } else { here });
        }
        assert!(places.is_empty());
    }

    #[test]
    fn in_total_any_half_closed_connection_gives_way_but_few_at_a_time() {
        let max = LEAVING_MAX_CONNECTIONS + 2;
        let mut places = places(max, 1000);
        let here = Some(source("10.0.0.1:1"));
        for id in 1..=max as u64 {
            assert_eq!(places.take(None), Ok(None));
            places.half_close(id, None);
        }
        for id in 1..=LEAVING_MAX_CONNECTIONS as u64 {
            assert_eq!(places.take(here), Ok(Some(id)));
        }
        assert_eq!(places.take(here), Err(Refused::Total));
        places.free(1, None);
        assert_eq!(places.take(None), Ok(Some(max as u64 - 1)));
    }
}
