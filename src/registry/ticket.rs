//! What a connection holds of the registry: its place, and its session.

use super::strangers::Doing;
use super::{Access, Account, Closer, Handshake, NotBegun, Registry, Remote, Session, Source};
use crate::hub::ConnectionId;
use crate::model::Id;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The place of a connection that is not admitted yet, free again when this is dropped.
#[derive(Debug)]
pub struct Expected {
    pub(super) registry: Arc<Registry>,
    pub(super) access: Access,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.registry.lock().places.met(self.access);
    }
}

/// A login under way on a connection.
#[derive(Debug)]
pub struct LoggingIn {
    registry: Arc<Registry>,
    id: ConnectionId,
}

impl Drop for LoggingIn {
    fn drop(&mut self) {
        self.registry.lock().strangers.set(self.id, Doing::Idle);
    }
}

/// An admitted connection's place, which is free again when the ticket is dropped.
#[derive(Debug)]
pub struct Ticket {
    pub(super) registry: Arc<Registry>,
    pub(super) id: ConnectionId,
    pub(super) access: Access,
    pub(super) remote: Remote,
    pub(super) took_place: bool,
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

    /// What the connection itself is counted by.
    #[must_use]
    pub fn source(&self) -> Source {
        self.remote.source()
    }

    /// Whether another connection gave its place up for this one.
    #[must_use]
    pub const fn took_place(&self) -> bool {
        self.took_place
    }

    /// Ends its session, which has expired.
    pub fn end_session(&self) {
        if let Some(connection) = self.registry.lock().connections.get_mut(&self.id) {
            connection.end();
        }
    }

    /// Says how the connection can be closed; it is at once, if it was to be before.
    pub fn served(&self, closer: Closer) {
        if let Some(connection) = self.registry.lock().connections.get_mut(&self.id) {
            connection.closer = Some(closer);
            connection.handshake = None;
            if connection.displaced {
                connection.displace();
            }
            if connection.ended {
                connection.end();
            }
            if connection.gone {
                connection.hang_up();
            }
        }
    }

    /// Says that a handshake is under way, and gives what tells of the connection's end meanwhile.
    #[must_use]
    pub fn handshake(&self) -> Handshake {
        let mut state = self.registry.lock();
        let Some(connection) = state.connections.get_mut(&self.id) else {
            return Handshake::default();
        };
        let handshake = connection.handshake.get_or_insert_default().clone();
        if connection.displaced {
            handshake.displaced.cancel();
        }
        if connection.gone {
            handshake.gone.cancel();
        }
        handshake
    }

    /// Says that a line has come: whoever says nothing gives its place up first.
    pub fn has_spoken(&self) {
        self.registry.lock().strangers.set(self.id, Doing::Idle);
    }

    /// Says that a login is being looked at, as long as what is given is kept: it gives its place up last.
    #[must_use]
    pub fn logging_in(&self) -> LoggingIn {
        let mut state = self.registry.lock();
        state.strangers.set(self.id, Doing::LoggingIn);
        LoggingIn {
            registry: Arc::clone(&self.registry),
            id: self.id,
        }
    }

    /// Says that the client has ended its input, and that the connection lives on for its subscriptions.
    pub fn half_closed(&self) {
        let mut state = self.registry.lock();
        let connection = state.connections.get(&self.id);
        let counted = connection.and_then(|connection| connection.counted);
        state.places.half_close(self.id, self.access, counted);
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

    /// Begins a new session on the connection, of this account or of nobody, and gives its id.
    pub fn begin_session(
        &self,
        account: Option<Account>,
        ends: Option<u64>,
        now_ms: u64,
    ) -> Result<Id, NotBegun> {
        let mut state = self.registry.lock();
        if ends.is_some_and(|ends| ends != state.ends) {
            return Err(NotBegun::OthersEnded);
        }
        let before = match state.connections.get(&self.id) {
            Some(connection) if !connection.ended && !connection.displaced => connection.counted,
            _ => return Err(NotBegun::Ended),
        };
        let told = account.as_ref().and_then(|account| account.remote.as_ref());
        let remote = told.unwrap_or(&self.remote);
        let counted = (self.access == Access::Login || told.is_some()).then(|| remote.source());
        let most = self.registry.limits.max_sessions_per_user;
        if counted.is_some()
            && let Some(account) = &account
            && !state.make_room(account, self.id, most)
        {
            return Err(NotBegun::PerUser);
        }
        if counted != before {
            let moved = state.places.recount(self.id, self.access, before, counted);
            moved.map_err(|_| NotBegun::PerAddress)?;
        }
        let remote = remote.to_string();
        let session_id = state.ids.next_session(now_ms);
        state.log_out(self.id, self.access);
        let expires_time = account.as_ref().and_then(|account| account.expires_time);
        if let Some(time) = expires_time {
            state.expiring.insert((time, self.id));
            self.registry.expiry.notify_one();
        }
        if let Some(account) = &account {
            let connections = state.by_user.entry(account.user_id).or_default();
            connections.push(self.id);
            state.strangers.remove(self.id);
        }
        if let Some(connection) = state.connections.get_mut(&self.id) {
            connection.session.session_id = session_id;
            connection.session.account = account;
            connection.session.remote = remote;
            connection.counted = counted;
            if let Some(closer) = &connection.closer {
                closer.session.expire_at(expires_time);
            }
        }
        Ok(session_id)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        state.log_out(self.id, self.access);
        let connection = state.connections.remove(&self.id);
        let counted = connection.and_then(|connection| connection.counted);
        state.places.free(self.id, self.access, counted);
        self.registry.open.fetch_sub(1, Ordering::Relaxed);
        state.strangers.remove(self.id);
    }
}
