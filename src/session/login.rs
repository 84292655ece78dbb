//! Logging in and out, and registering (protocol.md, 7).
//!
//! A session begins only if no other was ended since its credentials were looked at; else they are looked at again. So a
//! change that ends sessions either finds the new one, or is found by that look.

use super::Session;
use super::requests::empty;
use crate::audit::Record;
use crate::auth::Kept;
use crate::command::{Credentials, LogIn, NewUser};
use crate::error::{Code, Error};
use crate::limits::TOKEN_USE_NOTED_MS;
use crate::model::{
    Given, Id, Password, PasswordHash, Token, TokenHash, TokenId, TriedLogin, UserId, fold_login,
};
use crate::registry::{Access, Account, NotBegun, Remote};
use crate::store::{
    Answer, Change, Compared, LoginHolder, Operation, Outcome, Principal, Query, TokenOwner,
    no_user, not_logged_in,
};
use crate::throttle::{BadToken, Kind};
use crate::wire::data;
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

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
    /// A trusted back end named the user.
    Named(Given<UserId>),
}

impl Session {
    /// Logs in, in place of whoever was; a refusal leaves things as they were.
    pub(super) async fn log_in(&mut self, asked: LogIn) -> Result<Bytes, Error> {
        let LogIn {
            credentials,
            remote,
        } = asked;
        let (login, named) = match &credentials {
            Credentials::Password(login, _) => (Some(login.clone()), None),
            Credentials::Token(_) => (None, None),
            Credentials::User(user) => (None, Some(user.clone())),
        };
        if self.ticket.access() != Access::Trusted && (named.is_some() || remote.is_some()) {
            let field = if named.is_some() { "user_id" } else { "remote" };
            let text = format!(
                "{field} is for trusted connections; log in with login and password, or with token"
            );
            let error = Error::new(Code::Forbidden, text).field(field);
            self.audit("login", None, Some(&error));
            return Err(error);
        }
        let before = std::mem::replace(&mut self.behalf, remote);
        let _logging_in = self.ticket.logging_in();
        let paused = self.login_time.pause(Instant::now());
        let answer = match self.prove(credentials).await {
            Ok(Some(entered)) => {
                self.shared.counters.logins.add();
                data(&entered)
            }
            Ok(None) => Err(if let Some(user) = &named {
                no_user(user)
            } else {
                self.shared.counters.failed_logins.add();
                let text = "the login and the password, or the token, do not fit";
                Error::new(Code::LoginFailed, text)
            }),
            Err(error) => Err(error),
        };
        if self.by == Principal::Nobody {
            self.login_time.resume(paused, Instant::now());
        }
        let login = login.as_ref().map(TriedLogin::as_str);
        self.audit_of(
            "login",
            login,
            named.as_ref().and_then(Given::id),
            answer.as_ref().err(),
        );
        if answer.is_err() {
            self.behalf = before;
        }
        answer
    }

    /// Ends the session; the connection stays, with nobody logged in.
    pub(super) fn log_out(&mut self) -> Bytes {
        if self.user().is_some() {
            self.audit("logout", None, None);
        }
        self.behalf = None;
        let now_ms = self.shared.clock.now_ms();
        let _anonymous = self.ticket.begin_session(None, None, now_ms);
        self.act_as(match self.ticket.access() {
            Access::Trusted => Principal::Trusted,
            Access::Login => Principal::Nobody,
        });
        empty()
    }

    /// Creates a user for whoever is not logged in, and logs it in.
    pub(super) async fn register(&mut self, asked: NewUser) -> Result<Bytes, Error> {
        let _logging_in = self.ticket.logging_in();
        let paused = self.login_time.pause(Instant::now());
        let login = asked.login.clone();
        let login = login.as_str();
        let outcome = self.create_user(asked).await;
        let mut entered = Ok(None);
        if let Ok(Outcome::User { user_id }) = outcome {
            let account = self.account(user_id, login.to_owned());
            let proof = Proof::Created(fold_login(login));
            entered = self.enter(account, &proof).await;
        }
        if self.by == Principal::Nobody {
            self.login_time.resume(paused, Instant::now());
        }
        self.audit("user create", Some(login), outcome.as_ref().err());
        let answer = data(&outcome?);
        entered.and(answer)
    }

    async fn create_user(&mut self, asked: NewUser) -> Result<Outcome, Error> {
        let caller = (Kind::Registration, fold_login(asked.login.as_str()));
        let caller = self.caller(&caller);
        let attempt = self.attempt(Kind::Registration, caller).await?;
        let NewUser {
            login,
            password,
            role,
            then,
        } = asked;
        let allowed = match self.allow_user(login, role).await {
            Ok(()) => self.check_choice(&password),
            refused => refused,
        };
        if let Err(error) = allowed {
            // It may have told whether the login is taken.
            if let Some(attempt) = &attempt {
                attempt.count(Instant::now());
            }
            return Err(error);
        }
        let thread = self.thread(Some(Kind::Registration), caller).await?;
        if let Some(attempt) = &attempt {
            attempt.count(Instant::now());
        }
        let hash = self.shared.hasher.hash(password, thread).await?;
        drop(attempt);
        self.apply_and_wait(then(hash)).await
    }

    /// What a login with these credentials comes to; none if they do not fit.
    async fn prove(&mut self, credentials: Credentials) -> Result<Option<LoggedIn>, Error> {
        match credentials {
            Credentials::Password(login, password) => self.prove_password(&login, password).await,
            Credentials::Token(token) => self.prove_token(token.as_ref()).await,
            Credentials::User(user) => match self.named(&user).await? {
                Some(holder) => {
                    let account = self.account(holder.user, holder.login);
                    self.enter(account, &Proof::Named(user)).await
                }
                None => Ok(None),
            },
        }
    }

    async fn prove_password(
        &mut self,
        login: &TriedLogin,
        password: Password,
    ) -> Result<Option<LoggedIn>, Error> {
        let folded = fold_login(login.as_str());
        // Another login may renew the hash meanwhile; then the password is compared with that.
        for _ in 0..2 {
            let verified = self.verify(&folded, password.clone(), None).await?;
            let Some((holder, renewed)) = verified else {
                return Ok(None);
            };
            let account = self.account(holder.user, holder.login);
            let proof = Proof::Password(folded.clone(), holder.password_hash.clone());
            let entered = self.enter(account, &proof).await?;
            if entered.is_none() {
                continue;
            }
            if let Some(hash) = renewed {
                let (user, known) = (holder.user, holder.password_hash);
                self.note(Change::RenewHash { user, known, hash }).await;
            }
            if !self.is_trusted() {
                let caller = self.caller(&folded);
                self.shared.known_logins.remember(caller);
            }
            return Ok(entered);
        }
        Ok(None)
    }

    /// Whose folded login this is, if this is its password; and the hash to keep instead of its own, if there is one.
    pub(super) async fn verify(
        &mut self,
        folded: &str,
        password: Password,
        new: Option<Password>,
    ) -> Result<Option<(LoginHolder, Option<PasswordHash>)>, Error> {
        let caller = self.caller(&folded);
        let attempt = self.attempt(Kind::Password, caller).await?;
        let Compared { holder, usual_cost } = self.compared(folded).await?;
        let kept = match &holder {
            Some(holder) => Kept::Hash(holder.password_hash.clone()),
            None => Kept::Nothing { usual_cost },
        };
        let thread = self.thread(Some(Kind::Password), caller).await?;
        let verdict = move |right: bool| {
            if let Some(attempt) = attempt
                && !right
            {
                attempt.count(Instant::now());
            }
        };
        let hasher = &self.shared.hasher;
        let verified = hasher.verify(password, kept, new, thread, verdict).await?;
        Ok(holder
            .zip(verified)
            .map(|(holder, right)| (holder, right.hash)))
    }

    /// One that cannot be a token is none.
    async fn prove_token(&mut self, token: Option<&Token>) -> Result<Option<LoggedIn>, Error> {
        let shared = Arc::clone(&self.shared);
        let hash = token.map(Token::hash);
        let caller = self.caller(&hash.map(|hash| hash.0));
        let is_stranger = !self.is_trusted();
        let mut alone = None;
        if is_stranger {
            let known = shared.known_logins.know(caller);
            let looked_up = shared.failed_logins.look_up(caller, known, Instant::now());
            let allowed = looked_up.await;
            alone = allowed.map_err(|wait| {
                let text = "this token failed too often from where you are; try again later";
                self.told_to_wait(text, wait)
            })?;
        }
        let owner = match hash {
            Some(hash) => self.token_owner(hash).await?.map(|owner| (owner, hash)),
            None => None,
        };
        drop(alone);
        let Some((owner, hash)) = owner else {
            if is_stranger
                && let BadToken::TooMany(wait) =
                    shared.failed_logins.bad_token(caller, Instant::now())
            {
                let text =
                    "this token does not fit, as too many from where you are; try again later";
                return Err(self.told_to_wait(text, wait));
            }
            return Ok(None);
        };
        let by_password = self.caller(&fold_login(&owner.login));
        let account = Account {
            token: Some(owner.token),
            expires_time: owner.expires_time,
            ..self.account(owner.user, owner.login)
        };
        let entered = self.enter(account, &Proof::Token(hash)).await?;
        if entered.is_some() {
            if is_stranger {
                shared.known_logins.remember(caller);
                shared.known_logins.remember(by_password);
            }
            self.note_use(owner.token, owner.last_used_time).await;
        }
        Ok(entered)
    }

    /// Somebody who logs in here, without a token.
    fn account(&self, user_id: UserId, login: String) -> Account {
        Account {
            user_id,
            login,
            token: None,
            expires_time: None,
            remote: self.behalf.clone(),
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
                Proof::Named(user) => self.named(user).await?.is_some(),
            };
            if !holds {
                return Ok(None);
            }
            let now_ms = self.shared.clock.now_ms();
            let begun = self
                .ticket
                .begin_session(Some(account.clone()), Some(ends), now_ms);
            match begun {
                Ok(session_id) => {
                    self.act_as(match proof {
                        Proof::Token(_) => Principal::Token(user_id),
                        _ => Principal::User(user_id),
                    });
                    return Ok(Some(LoggedIn {
                        session_id,
                        user_id,
                    }));
                }
                Err(NotBegun::OthersEnded) => {}
                Err(NotBegun::Ended) => return Err(not_logged_in()),
                Err(NotBegun::PerUser) => {
                    let most = self.shared.limits.max_sessions_per_user;
                    let text = format!(
                        "this user has {most} sessions, as many as one may have; log out or close one of them, or have an admin stop one (session list, session stop), then log in again"
                    );
                    self.shared.counters.refused_max_sessions_per_user.add();
                    return Err(Error::new(Code::TooManyConnections, text));
                }
                Err(NotBegun::PerAddress) => {
                    let text =
                        "remote has as many connections as one address may; it is to end one first";
                    let counters = &self.shared.counters;
                    counters.refused_max_connections_per_address.add();
                    return Err(Error::new(Code::TooManyConnections, text).field("remote"));
                }
            }
        }
    }

    /// Goes on as somebody else, who has subscribed to nothing yet.
    fn act_as(&mut self, by: Principal) {
        self.by = by;
        if self.ticket.access() == Access::Trusted {
            let rates = &self.shared.rates;
            let source = self.behalf.as_ref().map(Remote::source);
            self.rate = source.map(|source| Arc::new(rates.connection(source)));
        }
        let user = self.user();
        let rate = self.rate.as_ref();
        self.rate = rate.map(|rate| Arc::new(rate.acting_as(user)));
        self.shared.hub.leave(self.ticket.id());
        self.outbox.hold(0);
        let login_by = (by == Principal::Nobody).then(|| Instant::now() + self.shared.login_time);
        self.login_time.restart(login_by);
    }

    /// Notes that a token was used, once a minute at most.
    async fn note_use(&self, token: TokenId, last_used_time: Option<u64>) {
        let now_ms = self.shared.clock.now_ms();
        let noted = last_used_time.is_some_and(|time| now_ms.abs_diff(time) < TOKEN_USE_NOTED_MS);
        if !noted {
            self.note(Change::UseToken { token }).await;
        }
    }

    /// Makes a change that nobody waits for: a store that takes no changes still lets people in.
    async fn note(&self, change: Change) {
        let operation = Operation {
            by: Principal::Trusted,
            change,
        };
        let session = self.closer.session().clone();
        let store = &self.shared.store;
        store.apply(operation, session, Box::new(|_| {})).await;
    }

    /// Asks what is asked for the login itself, whoever logs in.
    async fn look_up(&self, query: Query) -> Result<Answer, Error> {
        let store = &self.shared.store;
        store.query(Principal::Trusted, self.asker(), query).await
    }

    async fn holder(&self, folded: &str) -> Result<Option<LoginHolder>, Error> {
        Ok(self.compared(folded).await?.holder)
    }

    /// What a login is compared with.
    async fn compared(&self, folded: &str) -> Result<Compared, Error> {
        let query = Query::LoginHolder(folded.to_owned());
        match self.look_up(query).await? {
            Answer::Login(compared) => Ok(compared),
            _ => Err(Error::internal()),
        }
    }

    async fn named(&self, user: &Given<UserId>) -> Result<Option<LoginHolder>, Error> {
        let query = Query::Holder(user.clone());
        match self.look_up(query).await? {
            Answer::LoginHolder(found) => Ok(found),
            _ => Ok(None),
        }
    }

    async fn token_owner(&self, hash: TokenHash) -> Result<Option<TokenOwner>, Error> {
        let query = Query::TokenOwner(hash);
        match self.look_up(query).await? {
            Answer::TokenOwner(found) => Ok(found),
            _ => Ok(None),
        }
    }

    pub(super) fn audit(&self, event: &str, login: Option<&str>, refused: Option<&Error>) {
        self.audit_of(event, login, None, refused);
    }

    pub(super) fn audit_of(
        &self,
        event: &str,
        login: Option<&str>,
        object: Option<UserId>,
        refused: Option<&Error>,
    ) {
        let session = self.ticket.session();
        let result = refused.map_or("ok", |error| error.code().as_str());
        let behalf = self.behalf.as_ref().map(Remote::to_string);
        let record = Record::of(session.as_ref(), event, result);
        Record {
            login,
            object: object.map(|user| user.0),
            remote: behalf.as_deref().unwrap_or(record.remote),
            ..record
        }
        .write();
    }
}
