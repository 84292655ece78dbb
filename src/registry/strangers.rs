//! Connections of login listeners on which nobody is logged in: how many there are, and who gives way where there are too
//! many.
//!
//! The busiest network gives way: few addresses that hold many connections keep no newcomer out. Of its connections those
//! go first that have said nothing yet, which includes those whose handshake is under way, the oldest before the others.

use crate::hub::ConnectionId;
use crate::registry::Network;
use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

/// What a stranger does; who does the least gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Its first line has not come.
    Silent,
    /// It waits for nothing.
    Idle,
    /// It waits for a login.
    LoggingIn,
}

/// The connections on which nobody is logged in.
#[derive(Debug, Default)]
pub struct Strangers {
    strangers: HashMap<ConnectionId, (Network, Doing)>,
    networks: HashMap<Network, OfNetwork>,
    busiest: BTreeSet<Busy>,
    /// Of these, the ones with somebody silent.
    busiest_silent: BTreeSet<Busy>,
}

/// Who is to give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// The connection.
    pub id: ConnectionId,
    /// Whether its network has more strangers than that of the newcomer will have.
    pub is_busier: bool,
}

/// How many strangers a network has, and which is the oldest: among networks with as many, the last one is that which has
/// had its own for longest.
type Busy = (usize, Reverse<ConnectionId>, Network);

#[derive(Debug, Default)]
struct OfNetwork {
    by_doing: [BTreeSet<ConnectionId>; 3],
}

impl OfNetwork {
    fn count(&self) -> usize {
        self.by_doing.iter().map(BTreeSet::len).sum()
    }

    fn ids(&self, doing: Doing) -> &BTreeSet<ConnectionId> {
        &self.by_doing[doing as usize]
    }

    fn busy(&self, network: Network) -> Option<Busy> {
        let oldest = self.by_doing.iter().filter_map(BTreeSet::first).min()?;
        Some((self.count(), Reverse(*oldest), network))
    }

    fn busy_silent(&self, network: Network) -> Option<Busy> {
        let oldest = self.ids(Doing::Silent).first()?;
        Some((self.count(), Reverse(*oldest), network))
    }
}

impl Strangers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.strangers.len()
    }

    /// Counts one more.
    pub fn add(&mut self, id: ConnectionId, network: Network, doing: Doing) {
        self.remove(id);
        self.strangers.insert(id, (network, doing));
        self.change(network, doing, |ids| ids.insert(id));
    }

    /// Says what it does now, if it is a stranger.
    pub fn set(&mut self, id: ConnectionId, doing: Doing) {
        if let Some((network, _)) = self.remove(id) {
            self.add(id, network, doing);
        }
    }

    /// Counts it no more.
    pub fn remove(&mut self, id: ConnectionId) -> Option<(Network, Doing)> {
        let (network, doing) = self.strangers.remove(&id)?;
        self.change(network, doing, |ids| ids.remove(&id));
        Some((network, doing))
    }

    /// Who is to give way to a newcomer from this network, if anybody is. Who has said something gives way only to who
    /// comes from a network that has fewer, and nobody to who comes from one that has more.
    pub fn first_to_go(&self, newcomer: Network) -> Option<First> {
        let own = self.networks.get(&newcomer).map_or(0, OfNetwork::count);
        let (count, _, network) = self.busiest.last()?;
        let busiest = self.networks.get(network)?;
        let is_busier = *count > own + 1;
        let silent = busiest.ids(Doing::Silent).first();
        if silent.is_none() && !is_busier {
            let (count, Reverse(id), _) = self.busiest_silent.last()?;
            return (*count > own).then_some(First {
                id: *id,
                is_busier: false,
            });
        }
        let idle = || busiest.ids(Doing::Idle).first();
        // The first one has waited longest for its turn.
        let logging_in = || busiest.ids(Doing::LoggingIn).last();
        let id = silent.or_else(idle).or_else(logging_in)?;
        Some(First { id: *id, is_busier })
    }

    fn change(
        &mut self,
        network: Network,
        doing: Doing,
        change: impl FnOnce(&mut BTreeSet<ConnectionId>) -> bool,
    ) {
        let mut entry = match self.networks.entry(network) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => entry.insert_entry(OfNetwork::default()),
        };
        let of_network = entry.get_mut();
        if let Some(before) = of_network.busy(network) {
            self.busiest.remove(&before);
        }
        if let Some(before) = of_network.busy_silent(network) {
            self.busiest_silent.remove(&before);
        }
        change(&mut of_network.by_doing[doing as usize]);
        self.busiest.extend(of_network.busy(network));
        self.busiest_silent.extend(of_network.busy_silent(network));
        if of_network.count() == 0 {
            entry.remove();
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.strangers.is_empty()
            && self.networks.is_empty()
            && self.busiest.is_empty()
            && self.busiest_silent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Remote;

    fn network(number: u8) -> Network {
        let remote = Remote::parse(&format!("10.0.{number}.1")).unwrap();
        remote.source().network()
    }

    fn first(strangers: &Strangers, newcomer: u8) -> Option<ConnectionId> {
        let first = strangers.first_to_go(network(newcomer))?;
        Some(first.id)
    }

    #[test]
    fn the_oldest_silent_one_of_the_busiest_network_gives_way() {
        let mut strangers = Strangers::default();
        strangers.add(1, network(1), Doing::Silent);
        for id in 2..6 {
            strangers.add(id, network(2), Doing::Silent);
        }
        for id in 6..9 {
            strangers.add(id, network(3), Doing::Silent);
        }
        for newcomer in [1, 2, 9] {
            assert_eq!(first(&strangers, newcomer), Some(2));
        }
        strangers.set(2, Doing::Idle);
        strangers.set(3, Doing::LoggingIn);
        assert_eq!(first(&strangers, 9), Some(4));
        for id in 1..9 {
            strangers.remove(id);
        }
        assert!(strangers.is_empty());
    }

    #[test]
    fn a_newcomer_that_is_yet_to_speak_gives_way_to_no_busier_network() {
        let mut strangers = Strangers::default();
        for id in 1..5 {
            strangers.add(id, network(1), Doing::Idle);
        }
        strangers.add(5, network(2), Doing::Silent);
        assert_eq!(first(&strangers, 1), None);
        assert_eq!(first(&strangers, 2), Some(1));
        assert_eq!(first(&strangers, 3), Some(1));
        // Where all are as busy, the one that says nothing goes.
        for id in 2..5 {
            strangers.remove(id);
        }
        assert_eq!(first(&strangers, 3), Some(5));
    }

    #[test]
    fn who_has_said_something_gives_way_to_more_modest_networks_only() {
        let mut strangers = Strangers::default();
        for id in 1..5 {
            strangers.add(id, network(1), Doing::LoggingIn);
        }
        for id in 5..9 {
            strangers.add(id, network(2), Doing::LoggingIn);
        }
        assert_eq!(first(&strangers, 1), None);
        assert_eq!(first(&strangers, 9), Some(4));
        strangers.set(2, Doing::Idle);
        strangers.set(3, Doing::Idle);
        assert_eq!(first(&strangers, 9), Some(2));
        // The one that is logged in is no stranger.
        strangers.remove(2);
        strangers.set(2, Doing::Idle);
        assert_eq!(strangers.len(), 7);
    }
}
