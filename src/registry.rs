//! Who is connected: admission within the limits, the sessions, and ending them from outside (protocol.md, 1 and 7).
//!
//! It knows connections by their numbers and can close them; it never reads or writes one.

use crate::hub::ConnectionId;
use crate::limits::Limits;
use crate::model::{Id, IdMaker, TokenId, UserId};
use crate::store::{Ended, Ends};
use crate::wire::{CloseReason, Outbox, closed_line};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

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

/// Where a connection comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Over TCP.
    Tcp(std::net::SocketAddr),
    /// Over a Unix socket, by a process of this user id.
    Unix {
        /// The user id, if the system tells it.
        uid: Option<u32>,
    },
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { uid: Some(uid) } => write!(f, "unix:uid={uid}"),
            Self::Unix { uid: None } => f.write_str("unix"),
        }
    }
}

impl Remote {
    /// What is counted as one source: an IPv4 address, an IPv6 network of 64 bits, or all Unix sockets.
    #[must_use]
    pub fn source(&self) -> Source {
        match self {
            Self::Tcp(address) => match address.ip().to_canonical() {
                IpAddr::V6(address) => {
                    let network = address.to_bits() >> 64 << 64;
                    Source(Some(IpAddr::V6(Ipv6Addr::from_bits(network))))
                }
                address @ IpAddr::V4(_) => Source(Some(address)),
            },
            Self::Unix { .. } => Source(None),
        }
    }
}

/// What connections, requests and failed logins are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(Option<IpAddr>);

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `limits.max_connections` are open.
    Total,
    /// `limits.max_connections_per_address` of this address are open.
    PerAddress,
    /// On `limits.max_connections_not_logged_in` nobody has logged in.
    NotLoggedIn,
}

/// Everything that is connected.
#[derive(Debug)]
pub struct Registry {
    state: Mutex<State>,
    limits: Limits,
    open: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    ids: IdMaker,
    next: ConnectionId,
    connections: HashMap<ConnectionId, Connection>,
    /// Connections of login listeners.
    by_source: HashMap<Source, usize>,
    by_user: HashMap<UserId, Vec<ConnectionId>>,
    /// Connections of login listeners on which nobody is logged in.
    not_logged_in: usize,
    ends: u64,
}

#[derive(Debug)]
struct Connection {
    session: Session,
    source: Source,
    /// There once the connection is served.
    closer: Option<Closer>,
    /// It was to be closed before it was served.
    ended: bool,
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
}

/// Ends a connection from outside.
#[derive(Clone, Debug)]
pub struct Closer {
    outbox: Arc<Outbox>,
    closing: CancellationToken,
    session: Ended,
}

impl Closer {
    /// A closer of the connection with this outbox, which is to end too when `shutdown` is cancelled.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>, shutdown: &CancellationToken) -> Self {
        Self {
            outbox,
            // Its own token, because each wake-up of a connection looks at it: they must not share a lock.
            closing: shutdown.child_token(),
            session: Ended::default(),
        }
    }

    /// Sends a last line that says why, and ends the connection soon.
    pub fn close(&self, reason: CloseReason) {
        if reason == CloseReason::SessionEnded {
            self.session.set();
        }
        self.outbox.close_with(closed_line(reason));
        self.closing.cancel();
    }

    /// Whether the connection's session was ended: nothing is done for it any more, not even what was asked before.
    #[must_use]
    pub fn session(&self) -> &Ended {
        &self.session
    }

    /// Whether the connection is to end.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Waits until the connection is to end.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }
}

impl Registry {
    /// An empty registry with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::default(),
            limits,
            open: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection, as long as the ticket is kept.
    pub fn admit(
        self: &Arc<Self>,
        access: Access,
        remote: &Remote,
        now_ms: u64,
    ) -> Result<Ticket, Refused> {
        let source = remote.source();
        let mut state = self.lock();
        if state.connections.len() >= self.limits.max_connections {
            return Err(Refused::Total);
        }
        if access == Access::Login {
            if state.not_logged_in >= self.limits.max_connections_not_logged_in {
                return Err(Refused::NotLoggedIn);
            }
            let of_source = state.by_source.entry(source).or_default();
            if *of_source >= self.limits.max_connections_per_address {
                return Err(Refused::PerAddress);
            }
            *of_source += 1;
            state.not_logged_in += 1;
        }
        state.next += 1;
        let id = state.next;
        let session = Session {
            session_id: state.ids.next(now_ms),
            account: None,
            access,
            remote: remote.to_string(),
            connected_time: now_ms,
        };
        let connection = Connection {
            session,
            source,
            closer: None,
            ended: false,
        };
        state.connections.insert(id, connection);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Ticket {
            registry: Arc::clone(self),
            id,
            access,
            source,
        })
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

    /// Every session, in the order of their ids.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        let mut sessions: Vec<Session> = self
            .lock()
            .connections
            .values()
            .map(|connection| connection.session.clone())
            .collect();
        sessions.sort_unstable_by_key(|session| session.session_id);
        sessions
    }

    /// Closes the connection of a session; false if there is none.
    #[must_use]
    pub fn stop(&self, session_id: Id) -> bool {
        let mut state = self.lock();
        let found = state
            .connections
            .values_mut()
            .find(|connection| connection.session.session_id == session_id);
        let Some(connection) = found else {
            return false;
        };
        connection.end();
        true
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
        match &self.closer {
            Some(closer) => closer.close(CloseReason::SessionEnded),
            None => self.ended = true,
        }
    }
}

/// An admitted connection's place, which is free again when the ticket is dropped.
#[derive(Debug)]
pub struct Ticket {
    registry: Arc<Registry>,
    id: ConnectionId,
    access: Access,
    source: Source,
}

impl Ticket {
    /// The connection's number.
    #[must_use]
    pub const fn id(&self) -> ConnectionId {
        self.id
    }

    /// The listener's access.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// What the connection is counted by.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Says how the connection can be closed; it is at once, if it was to be before.
    pub fn served(&self, closer: Closer) {
        if let Some(connection) = self.registry.lock().connections.get_mut(&self.id) {
            connection.closer = Some(closer);
            if connection.ended {
                connection.end();
            }
        }
    }

    /// The connection's session.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        let state = self.registry.lock();
        state
            .connections
            .get(&self.id)
            .map(|connection| connection.session.clone())
    }

    /// Begins a new session on the connection, of this account or of nobody, and gives its id; none if sessions were
    /// ended meanwhile, that is, if [`Registry::ends`] no longer says `ends`.
    #[must_use]
    pub fn begin_session(
        &self,
        account: Option<Account>,
        ends: Option<u64>,
        now_ms: u64,
    ) -> Option<Id> {
        let mut state = self.registry.lock();
        if ends.is_some_and(|ends| ends != state.ends) {
            return None;
        }
        let session_id = state.ids.next(now_ms);
        state.log_out(self.id, self.access);
        if let Some(account) = &account {
            let connections = state.by_user.entry(account.user_id).or_default();
            connections.push(self.id);
            if self.access == Access::Login {
                state.not_logged_in -= 1;
            }
        }
        if let Some(connection) = state.connections.get_mut(&self.id) {
            connection.session.session_id = session_id;
            connection.session.account = account;
        }
        Some(session_id)
    }
}

impl State {
    /// Takes the account off a connection, which then counts as not logged in.
    fn log_out(&mut self, id: ConnectionId, access: Access) {
        let before = self
            .connections
            .get_mut(&id)
            .and_then(|connection| connection.session.account.take());
        let Some(account) = before else {
            return;
        };
        if access == Access::Login {
            self.not_logged_in += 1;
        }
        if let Some(connections) = self.by_user.get_mut(&account.user_id) {
            connections.retain(|&other| other != id);
            if connections.is_empty() {
                self.by_user.remove(&account.user_id);
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        state.log_out(self.id, self.access);
        let Some(connection) = state.connections.remove(&self.id) else {
            return;
        };
        self.registry.open.fetch_sub(1, Ordering::Relaxed);
        if self.access == Access::Login {
            state.not_logged_in -= 1;
            if let Some(count) = state.by_source.get_mut(&connection.source) {
                *count -= 1;
                if *count == 0 {
                    state.by_source.remove(&connection.source);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
