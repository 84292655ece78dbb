//! Who is connected: admission within the limits, the sessions, and ending them from outside (protocol.md, 1 and 7).
//!
//! It knows connections by their numbers and can close them; it never reads or writes one.

mod closer;
mod places;
mod refused;
mod source;
mod strangers;
mod ticket;

pub use closer::Closer;
pub use refused::{NotBegun, Refused};
pub use source::{Network, Remote, Source};
pub use ticket::{Expected, Ticket};

use crate::hub::ConnectionId;
use crate::limits::Limits;
use crate::model::{Clock, Id, IdMaker, TokenId, UserId};
use crate::store::Ends;
use crate::wire::CloseReason;
use places::{Places, Room};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use strangers::{Doing, Strangers};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Connections whose sessions are listed before others have the registry.
const SLICE_SESSIONS: usize = 256;

/// Who may do what on a listener's connections (protocol.md, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Every request is allowed, and names the user it acts for.
    Trusted,
    /// A connection logs in, and acts as that user.
    Login,
}

impl Access {
    /// Its name, in chatd.toml and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Login => "login",
        }
    }
}

/// Everything that is connected.
#[derive(Debug)]
pub struct Registry {
    state: Mutex<State>,
    limits: Limits,
    open: AtomicUsize,
    /// Told of each session that ends by itself.
    expiry: Notify,
}

#[derive(Debug)]
struct State {
    ids: IdMaker,
    next: ConnectionId,
    /// In their order, so that they can be listed in slices.
    connections: BTreeMap<ConnectionId, Connection>,
    places: Places,
    by_user: HashMap<UserId, Vec<ConnectionId>>,
    strangers: Strangers,
    /// When sessions end by themselves.
    expiring: BTreeSet<(u64, ConnectionId)>,
    ends: u64,
}

#[derive(Debug)]
struct Connection {
    session: Session,
    /// There once the connection is served.
    closer: Option<Closer>,
    /// Its session was ended: nobody is told of it any more, and no other begins on it.
    ended: bool,
    /// Its other end was gone before it was served.
    gone: bool,
    /// It gave its place up, and no session begins on it.
    displaced: bool,
    /// What happens to it while its handshake is under way.
    handshake: Option<Handshake>,
    /// What it is counted by, if it is.
    counted: Option<Source>,
}

/// What ends a connection before it is served.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    /// It gave its place up.
    pub displaced: CancellationToken,
    /// Its other end is gone.
    pub gone: CancellationToken,
}

/// A session as `session list` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    /// Its id.
    pub session_id: Id,
    /// Who is logged in.
    #[serde(flatten)]
    pub account: Option<Account>,
    /// The listener's access.
    pub access: Access,
    /// Where it comes from.
    pub remote: String,
    /// When the connection was accepted, in milliseconds.
    pub connected_time: u64,
}

/// Who is logged in, and how.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    /// The user.
    pub user_id: UserId,
    /// Its login, as kept.
    pub login: String,
    /// The token that it logged in with.
    #[serde(skip)]
    pub token: Option<TokenId>,
    /// When that token expires, in milliseconds; never, if left out.
    #[serde(skip)]
    pub expires_time: Option<u64>,
    /// For whom it acts, where a trusted back end says so; the connection itself, if left out.
    #[serde(skip)]
    pub remote: Option<Remote>,
}

impl Registry {
    /// An empty registry with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::new(State {
                ids: IdMaker::default(),
                next: 0,
                connections: BTreeMap::new(),
                places: Places::new(&limits),
                by_user: HashMap::new(),
                strangers: Strangers::default(),
                expiring: BTreeSet::new(),
                ends: 0,
            }),
            limits,
            open: AtomicUsize::new(0),
            expiry: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection, as long as the ticket is kept. Where there is no place, the oldest connection whose client
    /// has ended its input gives up its own: most likely that client is gone (protocol.md, 1). Else it is one on which
    /// nobody is logged in, of the network that has most of them.
    pub fn admit(
        self: &Arc<Self>,
        access: Access,
        remote: &Remote,
        now_ms: u64,
    ) -> Result<Ticket, Refused> {
        let source = remote.source();
        let mut state = self.lock();
        let login = access == Access::Login;
        let counted = login.then_some(source);
        let room = state.places.room(access, counted)?;
        let too_many = state.strangers.len() >= self.limits.max_connections_not_logged_in;
        let stranger = match room {
            Room::None => Some(Refused::of_all(access)),
            _ if login && too_many => Some(Refused::NotLoggedIn),
            Room::Free | Room::HalfClosed(_) => None,
        };
        let stranger = match stranger {
            Some(refused) if login => {
                let first = state.strangers.first_to_go(source.network());
                let first = first.ok_or(refused)?;
                // Whoever is as busy itself does not fill the daemon with those that are still closing.
                if !first.is_busier && state.places.are_many_leaving(access) {
                    return Err(refused);
                }
                Some(first.id)
            }
            Some(refused) => return Err(refused),
            None => None,
        };
        let half_closed = match room {
            Room::HalfClosed(id) => Some(id),
            Room::Free | Room::None => None,
        };
        for id in half_closed.into_iter().chain(stranger) {
            state.displace(id);
        }
        state.places.take(access, counted);
        state.next += 1;
        let id = state.next;
        if login {
            state.strangers.add(id, source.network(), Doing::Silent);
        }
        let session = Session {
            session_id: state.ids.next_session(now_ms),
            account: None,
            access,
            remote: remote.to_string(),
            connected_time: now_ms,
        };
        let connection = Connection {
            session,
            closer: None,
            ended: false,
            gone: false,
            displaced: false,
            handshake: None,
            counted,
        };
        state.connections.insert(id, connection);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Ticket {
            registry: Arc::clone(self),
            id,
            access,
            remote: remote.clone(),
            took_place: half_closed.or(stranger).is_some(),
        })
    }

    /// Keeps a place for a connection of a proxy that is yet to say for whom it comes.
    pub fn expect(self: &Arc<Self>, access: Access) -> Result<Expected, Refused> {
        self.lock().places.expect(access)?;
        Ok(Expected {
            registry: Arc::clone(self),
            access,
        })
    }

    /// Says that the other end of a connection is gone.
    pub fn hung_up(&self, id: ConnectionId) {
        if let Some(connection) = self.lock().connections.get_mut(&id) {
            connection.hang_up();
        }
    }

    /// How many connections are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of the sessions that have not ended: those of the connections behind `last`, which is then the last of them.
    /// None once there are no more.
    pub fn next_sessions(&self, last: &mut ConnectionId) -> Option<Vec<Session>> {
        let state = self.lock();
        let mut some = state.connections.range(*last + 1..).peekable();
        some.peek()?;
        let some = some.take(SLICE_SESSIONS).inspect(|&(&id, _)| *last = id);
        let some = some.filter(|(_, connection)| !connection.ended);
        Some(
            some.map(|(_, connection)| connection.session.clone())
                .collect(),
        )
    }

    /// Closes the connection of a session; false if there is none, or if it has ended before.
    #[must_use]
    pub fn stop(&self, session_id: Id) -> bool {
        let mut state = self.lock();
        let found = state
            .connections
            .values_mut()
            .find(|connection| !connection.ended && connection.session.session_id == session_id);
        let Some(connection) = found else {
            return false;
        };
        connection.end();
        true
    }

    /// Closes every connection, without the answers that are not there yet.
    pub fn close_unanswered(&self, reason: CloseReason) {
        for connection in self.lock().connections.values() {
            if let Some(closer) = &connection.closer {
                closer.close_unanswered(reason);
            }
        }
    }

    /// Closes connections whose clients take nothing at the moment, those that hold most first, until so many bytes will be
    /// given back. Gives how many those are.
    #[must_use]
    pub fn close_largest(&self, excess_bytes: usize) -> usize {
        if excess_bytes == 0 {
            return 0;
        }
        let state = self.lock();
        let closers = state.connections.values().filter_map(|c| c.closer.as_ref());
        let mut standing: Vec<(usize, &Closer)> = closers
            .filter_map(|closer| Some((closer.outbox.standing_bytes()?, closer)))
            .collect();
        standing.sort_unstable_by_key(|&(bytes, _)| Reverse(bytes));
        let mut left = excess_bytes;
        let closed = standing.iter().take_while(|(bytes, closer)| {
            let goes = left > 0;
            if goes {
                left = left.saturating_sub(*bytes);
                closer.close(CloseReason::Stalled);
            }
            goes
        });
        closed.count()
    }

    /// Closes the connections whose sessions end by themselves, each in its time; runs for ever.
    pub async fn expire(&self, clock: &Clock) {
        loop {
            let added = self.expiry.notified();
            let next = self.end_expired(clock.moment(0).held_ms);
            match next {
                None => added.await,
                Some(time) => tokio::select! {
                    () = added => {}
                    () = clock.reach(time) => {}
                },
            }
        }
    }

    /// Closes the connections whose sessions have expired by now, and says when the next one does.
    fn end_expired(&self, held_ms: u64) -> Option<u64> {
        let mut state = self.lock();
        while let Some(&(time, id)) = state.expiring.first() {
            if time > held_ms {
                return Some(time);
            }
            state.expiring.pop_first();
            if let Some(connection) = state.connections.get_mut(&id) {
                connection.end();
            }
        }
        None
    }

    /// How many times sessions were ended by a change.
    #[must_use]
    pub fn ends(&self) -> u64 {
        self.lock().ends
    }

    /// Closes the connections whose sessions a change ended; `by` is the one that made it.
    pub fn end(&self, ends: Ends, by: ConnectionId) {
        let mut state = self.lock();
        state.ends += 1;
        let of_user = |user| state.by_user.get(&user).into_iter().flatten();
        let ended: Vec<ConnectionId> = match ends {
            Ends::All(user) => of_user(user).copied().collect(),
            Ends::Others(user) => of_user(user).copied().filter(|&id| id != by).collect(),
            Ends::Token(token) => state
                .connections
                .iter()
                .filter(|(_, connection)| connection.session.token() == Some(token))
                .map(|(&id, _)| id)
                .collect(),
        };
        for id in ended {
            if let Some(connection) = state.connections.get_mut(&id) {
                connection.end();
            }
        }
    }
}

impl Session {
    fn token(&self) -> Option<TokenId> {
        self.account.as_ref().and_then(|account| account.token)
    }
}

impl Connection {
    fn end(&mut self) {
        self.ended = true;
        if let Some(closer) = &self.closer {
            closer.close(CloseReason::SessionEnded);
        }
    }

    fn hang_up(&mut self) {
        if let Some(handshake) = &self.handshake {
            handshake.gone.cancel();
        }
        match &self.closer {
            Some(closer) => closer.gone.cancel(),
            None => self.gone = true,
        }
    }

    /// Closes it, as it gave its place up.
    fn displace(&mut self) {
        self.displaced = true;
        if let Some(handshake) = &self.handshake {
            handshake.displaced.cancel();
        }
        if let Some(closer) = &self.closer {
            closer.close(CloseReason::TooManyConnections);
        }
    }
}

impl State {
    /// Has a connection give its place up for another one.
    fn displace(&mut self, id: ConnectionId) {
        self.strangers.remove(id);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.displace();
            let access = connection.session.access;
            self.places.leave(id, access, connection.counted);
        }
    }

    /// Makes sure that a user has a place for one more session. Where there is none, a login by password takes that of
    /// the oldest session by token: a token that was stolen must not keep out whoever comes to delete it. What is counted
    /// by no source is the operator's own.
    fn make_room(&mut self, account: &Account, id: ConnectionId, most: usize) -> bool {
        let others = self.by_user.get(&account.user_id).into_iter().flatten();
        let counted: Vec<ConnectionId> = others
            .copied()
            .filter(|other| {
                let connection = self.connections.get(other).filter(|_| *other != id);
                connection.is_some_and(|other| {
                    other.counted.is_some() && !other.ended && !other.displaced
                })
            })
            .collect();
        if counted.len() < most {
            return true;
        }
        let by_token = counted.iter().find_map(|other| {
            let connection = self.connections.get(other)?;
            connection.session.token().map(|_| *other)
        });
        match by_token.and_then(|oldest| self.connections.get_mut(&oldest)) {
            Some(oldest) if account.token.is_none() => {
                oldest.end();
                true
            }
            _ => false,
        }
    }

    /// Takes the account off a connection, which then counts as not logged in.
    fn log_out(&mut self, id: ConnectionId, access: Access) {
        let before = self
            .connections
            .get_mut(&id)
            .and_then(|connection| connection.session.account.take());
        let Some(account) = before else {
            return;
        };
        if let Some(time) = account.expires_time {
            self.expiring.remove(&(time, id));
        }
        let connection = self.connections.get(&id);
        let counted = connection.and_then(|connection| connection.counted);
        if let Some(source) = counted.filter(|_| access == Access::Login) {
            self.strangers.add(id, source.network(), Doing::Idle);
        }
        if let Some(connections) = self.by_user.get_mut(&account.user_id) {
            connections.retain(|&other| other != id);
            if connections.is_empty() {
                self.by_user.remove(&account.user_id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
