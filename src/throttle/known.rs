//! Which accounts and tokens logged in well from where: each has a place of its own in a crowd (protocol.md, 7).
//!
//! What is remembered is for one account at one address, and for few addresses of an account: whoever has an account
//! gains nothing for another one by it, and pushes out nobody else's. It lives in memory, and ends with the daemon.

use super::Caller;
use crate::limits::{KNOWN_LOGINS_MAX, KNOWN_LOGINS_MAX_PER_ACCOUNT};
use crate::registry::Source;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The accounts and tokens that logged in lately, with their addresses.
#[derive(Debug, Default)]
pub struct KnownLogins(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The addresses of an account or token, each with the number of its last login there.
    by_name: HashMap<u64, Vec<(Source, u64)>>,
    in_order: BTreeMap<u64, Caller>,
    logins: u64,
}

impl KnownLogins {
    /// Whether this account, or this token, logged in from there before.
    pub fn know(&self, caller: Caller) -> bool {
        let state = self.lock();
        let here = state.by_name.get(&caller.name());
        here.is_some_and(|here| here.iter().any(|(source, _)| *source == caller.source()))
    }

    /// Remembers that it logged in, in place of what is longest ago where there is no room.
    pub fn remember(&self, caller: Caller) {
        let mut state = self.lock();
        state.forget(caller);
        let here = state.by_name.get(&caller.name());
        if let Some(here) = here.filter(|here| here.len() >= KNOWN_LOGINS_MAX_PER_ACCOUNT) {
            let oldest = here.iter().min_by_key(|(_, number)| *number);
            let oldest = oldest.and_then(|(_, number)| state.in_order.get(number));
            if let Some(&oldest) = oldest {
                state.forget(oldest);
            }
        }
        if state.in_order.len() >= KNOWN_LOGINS_MAX
            && let Some((_, &oldest)) = state.in_order.first_key_value()
        {
            state.forget(oldest);
        }
        state.logins += 1;
        let number = state.logins;
        let here = state.by_name.entry(caller.name()).or_default();
        here.push((caller.source(), number));
        state.in_order.insert(number, caller);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, caller: Caller) {
        let Some(here) = self.by_name.get_mut(&caller.name()) else {
            return;
        };
        let found = here
            .iter()
            .position(|(source, _)| *source == caller.source());
        if let Some(found) = found {
            let (_, number) = here.swap_remove(found);
            self.in_order.remove(&number);
        }
        if here.is_empty() {
            self.by_name.remove(&caller.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Remote;
    use crate::throttle::FailedLogins;

    #[test]
    fn few_addresses_of_an_account_are_known_and_those_of_others_stay() {
        let callers = FailedLogins::new(1);
        let caller = |network: usize, name: &str| {
            let address = format!("10.0.{network}.1:1").parse().unwrap();
            callers.caller(Remote::Tcp(address).source(), name)
        };
        let known = KnownLogins::default();
        known.remember(caller(0, "ann"));
        assert!(known.know(caller(0, "ann")));
        assert!(!known.know(caller(0, "eve")), "it is for one account");
        assert!(!known.know(caller(1, "ann")), "it is for one address");
        for network in 0..100 {
            known.remember(caller(network, "eve"));
            // One that comes again and again is not the oldest.
            known.remember(caller(0, "eve"));
        }
        let of_eve = (0..100).filter(|&network| known.know(caller(network, "eve")));
        assert_eq!(of_eve.count(), KNOWN_LOGINS_MAX_PER_ACCOUNT);
        assert!(known.know(caller(0, "eve")) && known.know(caller(99, "eve")));
        assert!(known.know(caller(0, "ann")));
    }

    #[test]
    fn what_is_known_is_bounded_and_the_oldest_goes() {
        let callers = FailedLogins::new(1);
        let address = "10.0.0.1:1".parse().unwrap();
        let caller = |name: usize| callers.caller(Remote::Tcp(address).source(), name);
        let known = KnownLogins::default();
        for name in 0..=KNOWN_LOGINS_MAX {
            known.remember(caller(name));
        }
        assert!(!known.know(caller(0)) && known.know(caller(1)));
        let state = known.lock();
        assert_eq!(state.in_order.len(), KNOWN_LOGINS_MAX);
        assert_eq!(state.by_name.len(), KNOWN_LOGINS_MAX);
    }
}
