//! What is done with a request: who may use its command, then the step that the command asks for.

use super::{Reached, Session};
use crate::audit::{Act, Record};
use crate::command::{self, Access, Action, Context, Row, ServerInfo, Step};
use crate::config::Registration;
use crate::error::{Code, Error};
use crate::limits::TURN_MAX_DELIVERIES;
use crate::model::{ConversationId, CustomType, Given, Id, UserId};
use crate::registry;
use crate::store::{Answer, Asker, Operation, Outcome, Principal, Query, not_logged_in};
use crate::wire::{ReplySlot, data, ephemeral_line, parse_envelope, reply_line};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;

impl Session {
    /// Does what a line asks for.
    pub(super) async fn request(&mut self, line: &Bytes) {
        let (found, tid) = match parse_envelope(line) {
            Ok(envelope) => {
                let tid = envelope.tid.map(|tid| line.slice_ref(tid.get().as_bytes()));
                (self.step(&envelope).await, tid)
            }
            Err(refused) => {
                let tid = refused.tid.map(|tid| line.slice_ref(tid.get().as_bytes()));
                (Err(self.explained(refused.error, line)), tid)
            }
        };
        match found {
            Ok((row, step)) => {
                // The line itself stands for the first of what its lists name.
                self.charge(step.listed().saturating_sub(1));
                self.take(row, step, tid, line.len()).await;
            }
            Err(error) => self.outbox.push(reply_line(&Err(error), tid.as_deref())),
        }
    }

    /// The command of a request, once it is known that it may be used, and what it asks for.
    async fn step(
        &self,
        envelope: &crate::wire::Envelope<'_>,
    ) -> Result<(&'static Row, Step), Error> {
        let row = command::find(&envelope.subclass, &envelope.cmd)?;
        self.permit(row).await?;
        let server = || self.server_info();
        let step = command::run(row, envelope.data, &self.context(&server))?;
        Ok((row, step))
    }

    /// The refusal of a line; that of one which is not JSON says what to write instead.
    fn explained(&self, error: Error, line: &[u8]) -> Error {
        if error.code() == Code::BadJson {
            let server = || self.server_info();
            command::explained(error, line, &self.context(&server))
        } else {
            error
        }
    }

    fn context<'a>(&'a self, server: &'a dyn Fn() -> ServerInfo<'a>) -> Context<'a> {
        Context {
            by: self.by,
            limits: &self.shared.limits,
            server,
        }
    }

    /// Refuses a command to those who may not use it at all (protocol.md, 7).
    async fn permit(&self, row: &Row) -> Result<(), Error> {
        let open = self.shared.registration == Registration::Open;
        match (row.access, self.by) {
            (Access::Everyone, _)
            | (_, Principal::Trusted)
            | (Access::Users, Principal::User(_) | Principal::Token(_)) => Ok(()),
            (Access::Registration, Principal::Nobody) if open => Ok(()),
            (_, Principal::Nobody) => Err(not_logged_in()),
            (Access::Admins | Access::Registration, Principal::User(_) | Principal::Token(_)) => {
                // What was sent before may have changed it.
                self.outbox.all_answered().await;
                if self.has_power().await? {
                    Ok(())
                } else {
                    let text = format!(
                        "{} {} is for {}",
                        row.subclass.as_str(),
                        row.name,
                        Access::Admins.as_str()
                    );
                    Err(Error::new(Code::Forbidden, text))
                }
            }
        }
    }

    async fn has_power(&self) -> Result<bool, Error> {
        let answer = self.query(Query::Power).await?;
        Ok(matches!(answer, Answer::Power(true)))
    }

    fn server_info(&self) -> ServerInfo<'_> {
        let shared = &self.shared;
        ServerInfo {
            uptime_seconds: shared.started.elapsed().as_secs(),
            connections: shared.registry.len(),
            seq: shared.store.newest(),
            epoch: shared.store.epoch(),
            counters: &shared.counters,
            memory_bytes_pending: shared.memory.bytes() as u64,
        }
    }

    /// Does what a command wants done, and answers. What is rare and has much to remember is boxed: every connection has
    /// room for the largest of the rest, idle or not.
    async fn take(&mut self, row: &'static Row, step: Step, tid: Option<Bytes>, bytes: usize) {
        match step {
            Step::Answer(data) => {
                self.charge_answer(data.len());
                self.outbox.push(reply_line(&Ok(data), tid.as_deref()));
            }
            Step::Apply(operation) => {
                let ends_sessions = operation.change.ends().is_some();
                let slot = self.outbox.reserve(tid, bytes);
                self.apply(row, operation, slot).await;
                if ends_sessions {
                    // It may end this one, and with it what was sent behind.
                    self.outbox.all_answered().await;
                }
            }
            Step::CreateUser(asked) if self.by == Principal::Nobody => {
                self.outbox.all_answered().await;
                let slot = self.outbox.reserve(tid, bytes);
                let answer = Box::pin(self.register(asked)).await;
                slot.fill(&answer);
            }
            Step::CreateUser(asked) => {
                let slot = self.outbox.reserve(tid, bytes);
                let login = asked.login.clone();
                match Box::pin(self.new_user(asked)).await {
                    Ok(operation) => self.apply(row, operation, slot).await,
                    Err(error) => {
                        self.audit(&row.event(), Some(login.as_str()), Some(&error));
                        slot.fill(&Err(error));
                    }
                }
            }
            Step::ChangePassword(asked) => {
                if self.by != Principal::Trusted || asked.old_password.is_some() {
                    // What was sent before may have changed who may do it, and the password.
                    self.outbox.all_answered().await;
                }
                let slot = self.outbox.reserve(tid, bytes);
                let user = asked.user.id();
                match Box::pin(self.new_password(asked)).await {
                    Ok(operation) => self.apply(row, operation, slot).await,
                    Err(error) => {
                        self.audit_of(&row.event(), None, user, Some(&error));
                        slot.fill(&Err(error));
                    }
                }
            }
            Step::Act(action) => {
                self.outbox.all_answered().await;
                let slot = self.outbox.reserve(tid, bytes);
                let answer = self.act(row, action).await;
                if let Ok(data) = &answer {
                    self.charge_answer(data.len());
                }
                slot.fill(&answer);
                self.outbox.keep_no_room();
            }
        }
    }

    async fn act(&mut self, row: &Row, action: Action) -> Result<Bytes, Error> {
        match action {
            Action::Read(query) => {
                if matches!(query, Query::Search(_) | Query::Members { .. }) {
                    self.keep_room(self.shared.limits.max_page_bytes).await?;
                }
                let message = match &query {
                    Query::Message(message) => message.id(),
                    _ => None,
                };
                let answer = self.query(query).await?;
                if let Answer::OutsideJson(_, read) = &answer {
                    self.audit_reading(row, message, read);
                }
                Ok(answer.into_data())
            }
            Action::Count(make) => match self.query(Query::Counts).await? {
                Answer::Counts(counts) => Ok(make(counts)),
                _ => Ok(make(None)),
            },
            Action::Login(login) => Box::pin(self.log_in(login)).await,
            Action::Logout => Ok(self.log_out()),
            Action::ShowSession => self.show_session().await,
            Action::ListSessions => self.list_sessions().await,
            Action::StopSession(given) => self.stop_session(&given, row),
            Action::Subscribe(wanted) => Box::pin(self.subscribe(wanted, row)).await,
            Action::Unsubscribe(removed) => {
                let left = self.shared.hub.unsubscribe(self.ticket.id(), removed);
                self.outbox.hold(left.bytes);
                Ok(empty())
            }
            Action::ListSubscriptions => self.list_subscriptions().await,
            Action::Send {
                kind,
                conversation,
                body,
            } => self.send(&kind, conversation, body.as_deref()).await,
        }
    }

    /// Waits until there is memory for an answer of so many bytes; for no more than a page, as there is not always more.
    pub(super) async fn keep_room(&self, bytes: usize) -> Result<(), Error> {
        let kept = tokio::select! {
            kept = self.outbox.keep_room(bytes.min(self.shared.limits.max_page_bytes)) => kept,
            () = self.closer.gone() => false,
        };
        if kept {
            return Ok(());
        }
        let text = "the connection is being closed, and nothing was read; ask again on a new one";
        Err(Error::new(Code::Unavailable, text))
    }

    /// Hands a change to the store, which answers once it is stored.
    async fn apply(&self, row: &Row, operation: Operation, slot: ReplySlot) {
        let always = row.audit;
        let audited = always || Act::may_be_outside(&operation);
        let audit = audited.then(|| (row.event(), Act::of(&operation), self.ticket.session()));
        let ends = operation.change.ends().map(|ends| {
            let registry = Arc::clone(&self.shared.registry);
            (ends, registry, self.ticket.id())
        });
        let under_way = self.begin_change().await;
        let hub = Arc::clone(&self.shared.hub);
        let concerned = operation.change.concerns();
        let done = Box::new(move |outcome: Result<Outcome, Error>| {
            if let (Ok(outcome), Some(under_way)) = (&outcome, under_way)
                && let Some(object) = concerned.or(outcome.id())
            {
                under_way.pay(hub.delivered(object));
            }
            if let Some((event, act, session)) = audit {
                let result = outcome
                    .as_ref()
                    .map_or_else(|e| e.code().as_str(), |_| "ok");
                let record = Record::of(session.as_ref(), &event, result);
                let record = record.with(&act, outcome.as_ref().ok());
                if always || record.outside {
                    record.write();
                }
            }
            if let (Ok(_), Some((ends, registry, by))) = (&outcome, ends) {
                registry.end(ends, by);
            }
            slot.fill(&outcome.and_then(|outcome| data(&outcome)));
        });
        let session = self.closer.session().clone();
        self.shared.store.apply(operation, session, done).await;
    }

    /// Hands a change to the store and waits until it is stored.
    pub(super) async fn apply_and_wait(&self, operation: Operation) -> Result<Outcome, Error> {
        let (send, receive) = tokio::sync::oneshot::channel();
        let done = Box::new(move |outcome| {
            // Nobody waits any more where the connection is gone.
            let _ = send.send(outcome);
        });
        let session = self.closer.session().clone();
        self.shared.store.apply(operation, session, done).await;
        receive.await.unwrap_or_else(|_| Err(Error::internal()))
    }

    /// Whether its session has ended: nothing is done for it any more.
    pub(super) fn is_over(&self) -> bool {
        let held_ms = || self.shared.clock.moment(0).held_ms;
        let over = self.closer.session().is_over(held_ms);
        if over {
            // One that has expired just now is ended here, however late its timer is.
            self.ticket.end_session();
        }
        over
    }

    pub(super) async fn query(&self, query: Query) -> Result<Answer, Error> {
        if self.is_over() {
            return Err(not_logged_in());
        }
        let store = &self.shared.store;
        store.query(self.by, self.asker(), query).await
    }

    /// In whose turn its reads are made.
    pub(super) fn asker(&self) -> Asker {
        match self.by {
            Principal::User(user) | Principal::Token(user) => Asker::User(user),
            Principal::Trusted => Asker::Connection(self.ticket.id()),
            Principal::Nobody => Asker::Address(self.source().address()),
        }
    }

    async fn show_session(&self) -> Result<Bytes, Error> {
        #[derive(Serialize)]
        struct Shown {
            #[serde(flatten)]
            session: registry::Session,
            #[serde(skip_serializing_if = "Option::is_none")]
            role: Option<&'static str>,
        }
        let admin = self.user().is_some() && self.has_power().await?;
        let session = self.ticket.session().ok_or_else(Error::internal)?;
        data(&Shown {
            session,
            role: admin.then_some("admin"),
        })
    }

    fn stop_session(&self, given: &Given<Id>, row: &Row) -> Result<Bytes, Error> {
        let found = given
            .id()
            .is_some_and(|session| self.shared.registry.stop(session));
        let result = if found {
            "ok"
        } else {
            Code::SessionNotFound.as_str()
        };
        Record {
            object: given.id(),
            ..Record::of(self.ticket.session().as_ref(), &row.event(), result)
        }
        .write();
        if found {
            Ok(empty())
        } else {
            let text = format!("there is no session {given}");
            Err(Error::new(Code::SessionNotFound, text).field("session_id"))
        }
    }

    async fn send(
        &mut self,
        kind: &CustomType,
        given: Given<ConversationId>,
        body: Option<&RawValue>,
    ) -> Result<Bytes, Error> {
        let object = match self.reach(given).await {
            Err(error) if error.field_name().is_some() => return Err(error.field("obj_id")),
            found => found?.0,
        };
        let now_ms = self.shared.clock.now_ms();
        let line = ephemeral_line(kind.as_str(), object, body, now_ms, self.user());
        let deliveries = self.shared.hub.send(kind.as_str(), object, &line);
        self.charge_deliveries(deliveries);
        self.given_out += deliveries;
        if self.given_out > TURN_MAX_DELIVERIES {
            self.given_out = 0;
            tokio::task::yield_now().await;
        }
        Ok(empty())
    }

    /// The conversation that an event goes to, if it may be seen. Events of its own come in rows to the same one: it is
    /// looked up again only when that may have changed, so that those sent together go out together.
    async fn reach(&mut self, given: Given<ConversationId>) -> Result<ConversationId, Error> {
        let (by, rights_changes) = (self.by, self.shared.hub.rights_changes());
        let reached = |conversation| {
            Some(Reached {
                conversation,
                by,
                rights_changes,
            })
        };
        if let Some(conversation) = given.id()
            && self.reached == reached(conversation)
            && !self.is_over()
        {
            return Ok(conversation);
        }
        let Answer::Reachable(conversation) = self.query(Query::Reachable(given)).await? else {
            return Err(Error::internal());
        };
        self.reached = reached(conversation);
        Ok(conversation)
    }

    /// The user that it acts as, if it does.
    pub(super) fn user(&self) -> Option<UserId> {
        self.by.user()
    }
}

/// The data of an answer that has nothing to say.
pub(super) fn empty() -> Bytes {
    Bytes::from_static(b"{}")
}
