//! Places for connections: how many there may be in total and from one source, and who gives way to whom.
//!
//! Trusted listeners have places of their own: whatever happens on those for logins does not shut the operator out. A
//! connection whose client has ended its input, and which lives on for its subscriptions, gives way when all places
//! are taken, the oldest first: most likely its client is gone, which nothing shows before something is sent to it
//! (protocol.md, 1).

use super::{Access, Refused, Source};
use crate::hub::ConnectionId;
use crate::limits::{LEAVING_MAX_CONNECTIONS, Limits, PROXY_HEADERS_MAX_WAITING};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The places that are taken. Those of trusted listeners are of no source, unless they are had on somebody's behalf.
#[derive(Debug)]
pub struct Places {
    login: Pool,
    trusted: Pool,
    max_per_source: usize,
    by_source: HashMap<Source, OfSource>,
}

/// The places of all listeners with one access.
#[derive(Debug, Default)]
struct Pool {
    max: usize,
    /// Connections, those that leave among them.
    connections: usize,
    /// Connections of proxies that have not said yet for whom they come.
    expected: usize,
    half_closed: BTreeSet<ConnectionId>,
    /// Connections that gave their places up, and are not gone yet.
    leaving: HashSet<ConnectionId>,
}

#[derive(Debug, Default)]
struct OfSource {
    count: usize,
    /// Of those on login listeners.
    half_closed: BTreeSet<ConnectionId>,
}

impl Pool {
    fn is_full(&self) -> bool {
        self.connections + self.expected - self.leaving.len() >= self.max
    }

    /// Whether those that gave their places up hold too many descriptors still.
    fn is_crowded(&self) -> bool {
        let open = self.connections + self.expected;
        open >= self.max && self.leaving.len() >= LEAVING_MAX_CONNECTIONS
    }
}

/// How there is a place for a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// One is free.
    Free,
    /// This connection is to give way, whose client has ended its input.
    HalfClosed(ConnectionId),
    /// There is none, unless somebody else gives way.
    None,
}

impl Places {
    /// Places as these limits say.
    pub fn new(limits: &Limits) -> Self {
        let pool = |max| Pool {
            max,
            ..Pool::default()
        };
        Self {
            login: pool(limits.max_connections),
            trusted: pool(limits.max_connections_trusted),
            max_per_source: limits.max_connections_per_address,
            by_source: HashMap::new(),
        }
    }

    const fn pool(&self, access: Access) -> &Pool {
        match access {
            Access::Login => &self.login,
            Access::Trusted => &self.trusted,
        }
    }

    const fn pool_mut(&mut self, access: Access) -> &mut Pool {
        match access {
            Access::Login => &mut self.login,
            Access::Trusted => &mut self.trusted,
        }
    }

    /// Whether there is a place for one more.
    pub fn room(&self, access: Access, source: Option<Source>) -> Result<Room, Refused> {
        let pool = self.pool(access);
        if pool.is_crowded() {
            return Err(Refused::of_all(access));
        }
        let here = source.and_then(|source| self.by_source.get(&source));
        if let Some(here) = here.filter(|here| here.count >= self.max_per_source) {
            let oldest = here.half_closed.first().ok_or(Refused::PerAddress)?;
            return Ok(Room::HalfClosed(*oldest));
        }
        Ok(match pool.half_closed.first() {
            _ if !pool.is_full() => Room::Free,
            Some(oldest) => Room::HalfClosed(*oldest),
            None => Room::None,
        })
    }

    /// Whether as many of those that gave their places up are not gone yet as may be where there are few descriptors.
    pub fn are_many_leaving(&self, access: Access) -> bool {
        self.pool(access).leaving.len() >= LEAVING_MAX_CONNECTIONS
    }

    /// Takes a place; there must be [room](Self::room) for it.
    pub fn take(&mut self, access: Access, source: Option<Source>) {
        self.pool_mut(access).connections += 1;
        if let Some(source) = source {
            self.by_source.entry(source).or_default().count += 1;
        }
    }

    /// Gives the place of a connection up that is to be closed.
    pub fn leave(&mut self, id: ConnectionId, access: Access, source: Option<Source>) {
        if self.pool_mut(access).leaving.insert(id) {
            self.give_up(id, access, source);
        }
    }

    /// Keeps a place in total for a connection whose source is not known yet.
    pub fn expect(&mut self, access: Access) -> Result<(), Refused> {
        let pool = self.pool_mut(access);
        if pool.is_full() || pool.expected >= PROXY_HEADERS_MAX_WAITING {
            return Err(Refused::of_all(access));
        }
        pool.expected += 1;
        Ok(())
    }

    /// Frees a place that was kept.
    pub fn met(&mut self, access: Access) {
        self.pool_mut(access).expected -= 1;
    }

    /// Says that the client of a connection has ended its input, and that the connection lives on for its subscriptions.
    pub fn half_close(&mut self, id: ConnectionId, access: Access, source: Option<Source>) {
        let pool = self.pool_mut(access);
        if pool.leaving.contains(&id) {
            return;
        }
        pool.half_closed.insert(id);
        if access == Access::Login
            && let Some(here) = source.and_then(|source| self.by_source.get_mut(&source))
        {
            here.half_closed.insert(id);
        }
    }

    /// Counts a connection by another source than before; where there is no place for that, nothing changes.
    pub fn recount(
        &mut self,
        id: ConnectionId,
        access: Access,
        before: Option<Source>,
        source: Option<Source>,
    ) -> Result<(), Refused> {
        // One that gave its place up is counted no more.
        if self.pool(access).leaving.contains(&id) {
            return Ok(());
        }
        if let Some(source) = source {
            let here = self.by_source.entry(source).or_default();
            if here.count >= self.max_per_source {
                return Err(Refused::PerAddress);
            }
            here.count += 1;
        }
        self.give_up(id, access, before);
        Ok(())
    }

    /// Frees the place of a connection that is gone.
    pub fn free(&mut self, id: ConnectionId, access: Access, source: Option<Source>) {
        let pool = self.pool_mut(access);
        pool.connections -= 1;
        if !pool.leaving.remove(&id) {
            self.give_up(id, access, source);
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let is_empty = |pool: &Pool| {
            pool.connections == 0 && pool.half_closed.is_empty() && pool.leaving.is_empty()
        };
        is_empty(&self.login) && is_empty(&self.trusted) && self.by_source.is_empty()
    }

    fn give_up(&mut self, id: ConnectionId, access: Access, source: Option<Source>) {
        self.pool_mut(access).half_closed.remove(&id);
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

    const LOGIN: Access = Access::Login;

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

    /// Takes a place, and gives who gave way for it; what it was counted by is `of`.
    fn take(
        places: &mut Places,
        source: Option<Source>,
        of: Option<Source>,
    ) -> Result<Option<ConnectionId>, Refused> {
        let displaced = match places.room(LOGIN, source)? {
            Room::Free => None,
            Room::HalfClosed(id) => {
                places.leave(id, LOGIN, of);
                Some(id)
            }
            Room::None => return Err(Refused::Total),
        };
        places.take(LOGIN, source);
        Ok(displaced)
    }

    #[test]
    fn the_oldest_half_closed_connection_of_an_address_gives_way_there() {
        let mut places = places(100, 3);
        let (here, there) = (Some(source("10.0.0.1:1")), Some(source("10.0.0.2:1")));
        assert_eq!(take(&mut places, there, None), Ok(None));
        places.half_close(1, LOGIN, there);
        for _ in 2..=4 {
            assert_eq!(take(&mut places, here, None), Ok(None));
        }
        assert_eq!(take(&mut places, here, None), Err(Refused::PerAddress));
        places.half_close(4, LOGIN, here);
        places.half_close(3, LOGIN, here);
        assert_eq!(take(&mut places, here, here), Ok(Some(3)));
        assert_eq!(take(&mut places, here, here), Ok(Some(4)));
        assert_eq!(take(&mut places, here, None), Err(Refused::PerAddress));
        // One that gave its place up frees none when it is gone.
        places.free(3, LOGIN, here);
        assert_eq!(take(&mut places, here, None), Err(Refused::PerAddress));
        places.free(2, LOGIN, here);
        assert_eq!(take(&mut places, here, None), Ok(None));
        for id in [1, 4, 5, 6, 7] {
            places.free(id, LOGIN, if id == 1 { there } else { here });
        }
        assert!(places.is_empty());
    }

    #[test]
    fn in_total_any_half_closed_connection_gives_way_but_few_at_a_time() {
        let max = LEAVING_MAX_CONNECTIONS + 2;
        let mut places = places(max, 1000);
        let here = Some(source("10.0.0.1:1"));
        for id in 1..=max as u64 {
            assert_eq!(take(&mut places, None, None), Ok(None));
            places.half_close(id, LOGIN, None);
        }
        for id in 1..=LEAVING_MAX_CONNECTIONS as u64 {
            assert_eq!(take(&mut places, here, None), Ok(Some(id)));
        }
        assert_eq!(take(&mut places, here, None), Err(Refused::Total));
        places.free(1, LOGIN, None);
        assert_eq!(take(&mut places, None, None), Ok(Some(max as u64 - 1)));
    }
}
