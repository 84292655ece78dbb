//! Logging in and out, and registering (protocol.md, 7).
//!
//! A session begins only if no other was ended since its credentials were looked at; else they are looked at again. So a
//! change that ends sessions either finds the new one, or is found by that look.

use super::requests::{BUSY, busy, empty, hash_refused};
use super::{Session, rate_limited};
use crate::audit::Record;
use crate::auth::{Busy, HashError, Queue};
use crate::command::Credentials;
use crate::error::{Code, Error};
use crate::limits::{SUSPECT_SECONDS, TOKEN_USE_NOTED_MS};
use crate::model::{
    Id, Password, PasswordHash, TokenHash, TokenId, TriedLogin, UserId, fold_login,
};
use crate::registry::{Access, Account};
use crate::store::{Answer, Change, LoginHolder, Operation, Outcome, Principal, Query, TokenOwner};
use crate::throttle::Attempt;
use crate::wire::data;
use bytes::Bytes;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long an address is suspicious after a login that failed.
const SUSPECT: Duration = Duration::from_secs(SUSPECT_SECONDS);

/// The answer to a login.
#[derive(Serialize)]
struct LoggedIn {
    session_id: Id,
    user_id: UserId,
}

/// Why a session may begin.
enum Proof {
    /// The folded login has this password.
    Password(String, PasswordHash),
    /// The user of this folded login was created just now.
    Created(String),
    /// The token is in use.
    Token(TokenHash),
}

impl Session {
    /// Logs in, in place of whoever was; a refusal leaves things as they were.
    pub(super) async fn log_in(&mut self, credentials: Credentials) -> Result<Bytes, Error> {
        let login = match &credentials {
            Credentials::Password(login, _) => Some(login.clone()),
            Credentials::Token(_) => None,
        };
        let login = login.as_ref().map(TriedLogin::as_str);
        let attempt = match self.attempt(login.unwrap_or_default()) {
            Ok(attempt) => attempt,
            Err(error) => {
                self.audit("login", login, Some(&error));
                return Err(error);
            }
        };
        let proven = self.prove(credentials, attempt.as_ref()).await;
        let answer = match proven {
            Ok(Some(entered)) => {
                self.shared.counters.logins.add();
                self.forgive(attempt.as_ref());
                data(&entered)
            }
            Ok(None) => {
                self.shared.counters.failed_logins.add();
                self.suspect(attempt.as_ref(), SUSPECT);
                Err(Error::new(
                    Code::LoginFailed,
                    "the login and the password, or the token, do not fit",
                ))
            }
            Err(error) => {
                // What was not tried, or went wrong in here, is nobody's failure.
                self.forgive(attempt.as_ref());
                Err(error)
            }
        };
        self.audit("login", login, answer.as_ref().err());
        answer
    }

    /// Ends the session; the connection stays, with nobody logged in.
    pub(super) fn log_out(&mut self) -> Bytes {
        if self.user().is_some() {
            self.audit("logout", None, None);
        }
        let now_ms = self.shared.clock.now_ms();
        let _anonymous = self.ticket.begin_session(None, None, now_ms);
        self.act_as(match self.ticket.access() {
            Access::Trusted => Principal::Trusted,
            Access::Login => Principal::Nobody,
        });
        empty()
    }

    /// Creates a user for whoever is not logged in, and logs it in.
    pub(super) async fn register(
        &mut self,
        password: Password,
        then: Box<dyn FnOnce(PasswordHash) -> Operation + Send>,
    ) -> Result<Bytes, Error> {
        // Each one costs as much as a login that fails, and counts as one.
        let attempt = self.attempt("")?;
        let queue = queue(attempt.as_ref());
        let hash = self.shared.hasher.hash(password, queue).await;
        let lasting = match &hash {
            Err(HashError::Busy) => BUSY,
            _ => SUSPECT,
        };
        self.suspect(attempt.as_ref(), lasting);
        let operation = then(hash.map_err(hash_refused)?);
        let login = match &operation.change {
            Change::CreateUser { login, .. } => login.as_str().to_owned(),
            _ => return Err(Error::internal()),
        };
        let outcome = self.apply_and_wait(operation).await;
        if let Ok(Outcome::User { user_id }) = outcome {
            let account = Account {
                user_id,
                login: login.clone(),
                token: None,
            };
            self.enter(account, &Proof::Created(fold_login(&login)))
                .await?;
        }
        self.audit("user create", Some(&login), outcome.as_ref().err());
        data(&outcome?)
    }

    /// Begins a login attempt, which counts as failed until it is forgiven. Nothing is counted where everybody is trusted.
    fn attempt(&self, login: &str) -> Result<Option<Attempt>, Error> {
        if self.ticket.access() == Access::Trusted {
            return Ok(None);
        }
        let (source, account) = (self.ticket.source(), fold_login(login));
        let begun = self
            .shared
            .failed_logins
            .begin(source, &account, Instant::now());
        begun.map(Some).map_err(|wait| {
            self.shared.counters.limited_logins.add();
            rate_limited(
                "too many logins failed from where you are; try again later",
                wait,
            )
        })
    }

    fn forgive(&self, attempt: Option<&Attempt>) {
        if let Some(attempt) = attempt {
            self.shared.failed_logins.forgive(attempt, Instant::now());
        }
    }

    /// Has the next attempts from this address wait in the queue of the suspicious for a while.
    fn suspect(&self, attempt: Option<&Attempt>, lasting: Duration) {
        if let Some(attempt) = attempt {
            let now = Instant::now();
            self.shared.failed_logins.suspect(attempt, lasting, now);
        }
    }

    /// What a login with these credentials comes to; none if they do not fit.
    async fn prove(
        &mut self,
        credentials: Credentials,
        attempt: Option<&Attempt>,
    ) -> Result<Option<LoggedIn>, Error> {
        match credentials {
            Credentials::Password(login, password) => {
                let folded = fold_login(login.as_str());
                let found = self.holder(&folded).await?;
                let hash = found.as_ref().map(|holder| holder.password_hash.clone());
                let queue = match self.ticket.access() {
                    Access::Trusted => Queue::Trusted,
                    Access::Login => queue(attempt),
                };
                let verified = self.shared.hasher.verify(password, hash, queue).await;
                let right = verified.map_err(|Busy| {
                    self.shared.counters.limited_logins.add();
                    self.suspect(attempt, BUSY);
                    busy()
                })?;
                match found.filter(|_| right) {
                    Some(holder) => {
                        let account = Account {
                            user_id: holder.user,
                            login: holder.login,
                            token: None,
                        };
                        let proof = Proof::Password(folded, holder.password_hash);
                        self.enter(account, &proof).await
                    }
                    None => Ok(None),
                }
            }
            Credentials::Token(None) => Ok(None),
            Credentials::Token(Some(token)) => {
                let hash = token.hash();
                let Some(owner) = self.token_owner(hash).await? else {
                    return Ok(None);
                };
                let account = Account {
                    user_id: owner.user,
                    login: owner.login,
                    token: Some(owner.token),
                };
                let entered = self.enter(account, &Proof::Token(hash)).await?;
                if entered.is_some() {
                    self.note_use(owner.token, owner.last_used_time).await;
                }
                Ok(entered)
            }
        }
    }

    /// Begins a session of this account, if the proof still holds.
    async fn enter(&mut self, account: Account, proof: &Proof) -> Result<Option<LoggedIn>, Error> {
        loop {
            let ends = self.shared.registry.ends();
            let user_id = account.user_id;
            let holds = match proof {
                Proof::Password(folded, hash) => {
                    let found = self.holder(folded).await?;
                    found.is_some_and(|found| found.user == user_id && found.password_hash == *hash)
                }
                Proof::Created(folded) => {
                    let found = self.holder(folded).await?;
                    found.is_some_and(|found| found.user == user_id)
                }
                Proof::Token(hash) => self.token_owner(*hash).await?.is_some(),
            };
            if !holds {
                return Ok(None);
            }
            let now_ms = self.shared.clock.now_ms();
            let begun = self
                .ticket
                .begin_session(Some(account.clone()), Some(ends), now_ms);
            if let Some(session_id) = begun {
                self.act_as(Principal::User(user_id));
                return Ok(Some(LoggedIn {
                    session_id,
                    user_id,
                }));
            }
        }
    }

    /// Goes on as somebody else, who has subscribed to nothing yet.
    fn act_as(&mut self, by: Principal) {
        self.by = by;
        self.shared.hub.leave(self.ticket.id());
        self.outbox.hold(0);
        let login_by = (by == Principal::Nobody).then(|| Instant::now() + self.shared.login_time);
        self.login_by.send_replace(login_by);
    }

    /// Notes that a token was used, once a minute at most.
    async fn note_use(&self, token: TokenId, last_used_time: Option<u64>) {
        let now_ms = self.shared.clock.now_ms();
        let noted = last_used_time.is_some_and(|time| now_ms.abs_diff(time) < TOKEN_USE_NOTED_MS);
        if !noted {
            let operation = Operation {
                by: Principal::Trusted,
                change: Change::UseToken { token },
            };
            // A store that takes no changes still lets people in.
            let session = self.closer.session().clone();
            self.shared
                .store
                .apply(operation, session, Box::new(|_| {}))
                .await;
        }
    }

    async fn holder(&self, folded: &str) -> Result<Option<LoginHolder>, Error> {
        let query = Query::LoginHolder(folded.to_owned());
        match self.shared.store.query(Principal::Trusted, query).await? {
            Answer::LoginHolder(found) => Ok(found),
            _ => Ok(None),
        }
    }

    async fn token_owner(&self, hash: TokenHash) -> Result<Option<TokenOwner>, Error> {
        let query = Query::TokenOwner(hash);
        match self.shared.store.query(Principal::Trusted, query).await? {
            Answer::TokenOwner(found) => Ok(found),
            _ => Ok(None),
        }
    }

    fn audit(&self, event: &str, login: Option<&str>, refused: Option<&Error>) {
        let session = self.ticket.session();
        let result = refused.map_or("ok", |error| error.code().as_str());
        Record {
            login,
            ..Record::of(session.as_ref(), event, result)
        }
        .write();
    }
}

/// Where a stranger waits for its password to be looked at.
fn queue(attempt: Option<&Attempt>) -> Queue {
    match attempt {
        Some(attempt) if attempt.suspicious => Queue::Suspicious,
        _ => Queue::Stranger,
    }
}
