//! A state whose rounds a test makes one by one, so that it can look at it between them.

use crate::error::Error;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::model::{
    ClockNote, ConversationId, Directory, Event, Given, Login, MessageId, MessageText, Moment,
    Name, PasswordHash, UserId,
};
use crate::store::answer::Terms;
use crate::store::bounded::Bounded;
use crate::store::operation::{Answer, Change, Operation, Outcome, Principal, Query};
use crate::store::rows::Head;
use crate::store::rules::{self, Deletions};
use crate::store::state::{Blob, State};
use crate::store::txn::{Round, Txn};
use crate::store::{answer, keys};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// When its time begins, in milliseconds.
const BEGIN_MS: u64 = 1_795_000_000_000;
/// For how long events are kept, in milliseconds.
pub const KEEP_MS: u64 = 60_000;

/// A state in memory.
pub struct Steps {
    pub state: BTreeMap<Blob, Blob>,
    pub head: Head,
    pub events: Vec<Event>,
    pub now_ms: u64,
    began: Instant,
    memory: Arc<Memory>,
    /// Which users are shown to a user.
    pub directory: Directory,
    /// How long after its beginning it is, for deletions that rest.
    pub waited: Duration,
    deletions: Deletions,
}

impl Steps {
    pub fn new() -> Self {
        Self {
            state: BTreeMap::new(),
            head: Head::default(),
            events: Vec::new(),
            now_ms: BEGIN_MS,
            began: Instant::now(),
            directory: Directory::Everyone,
            memory: Arc::new(Memory::new(&Limits::default())),
            waited: Duration::ZERO,
            deletions: Deletions::default(),
        }
    }

    fn moment(&self) -> (Moment, ClockNote) {
        (Moment::at(self.now_ms, KEEP_MS), ClockNote::default())
    }

    /// Makes a change for a trusted client, and nothing else.
    pub fn apply(&mut self, change: Change) -> Outcome {
        let by = Principal::Trusted;
        let mut txn = Txn::new(&self.state, self.head, self.moment());
        let outcome = rules::decide(&mut txn, Operation { by, change }).unwrap();
        let round = txn.finish().unwrap();
        let turn = rules::Turn::default();
        self.commit(round, &turn);
        outcome
    }

    /// Has the deletions take one round's slices. False if there are none, or they rest.
    pub fn take_slices(&mut self) -> bool {
        let now = self.now();
        if self.deletions.next(now).is_none_or(|next| next > now) {
            return false;
        }
        let mut txn = Txn::new(&self.state, self.head, self.moment());
        let turn = self.deletions.take_slices(&mut txn, now);
        let round = txn.finish().unwrap();
        self.commit(round, &turn);
        true
    }

    /// Forgets a slice of what has expired.
    pub fn forget_expired(&mut self) {
        let mut txn = Txn::new(&self.state, self.head, self.moment());
        rules::forget_expired(&mut txn).unwrap();
        let round = txn.finish().unwrap();
        self.commit(round, &rules::Turn::default());
    }

    /// Has the deletions take slices until there are none, or all of them rest; gives in how many rounds.
    pub fn slices_until_rest(&mut self) -> usize {
        let mut rounds = 0;
        while self.take_slices() {
            rounds += 1;
        }
        rounds
    }

    fn now(&self) -> Instant {
        self.began + self.waited
    }

    /// How many messages of a conversation there are.
    pub fn messages_of(&self, id: ConversationId) -> usize {
        self.state
            .scan(&keys::prefix(&keys::under(b'm', id.0)))
            .count()
    }

    /// How many rows of a kind there are.
    pub fn rows(&self, kind: u8) -> usize {
        self.state.scan(&keys::prefix(&[kind])).count()
    }

    /// Forgets everything but the state, as a restart does.
    pub fn restart(&mut self) {
        self.deletions = Deletions::of(&self.state).unwrap();
    }

    fn commit(&mut self, round: Round, turn: &rules::Turn) {
        let now = self.now();
        self.deletions.note(turn, &round.changes, now);
        self.head = round.head;
        for (key, value) in round.changes {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        self.events.extend(round.events);
    }

    /// What a query is answered.
    pub fn query(&self, by: Principal, query: &Query) -> Value {
        match self.counted(by, query).0 {
            Ok(Answer::Json(bytes)) => serde_json::from_slice(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// What a query is answered, and how many rows were looked for.
    pub fn counted(&self, by: Principal, query: &Query) -> (Result<Answer, Error>, u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let stopping = AtomicBool::new(false);
        let state = Bounded::new(&self.state, deadline, &stopping);
        let terms = Terms {
            held_ms: self.now_ms,
            memory: &self.memory,
            directory: self.directory,
        };
        let answer = answer::answer(&state, &self.head, by, query, &terms);
        (answer, state.rows())
    }

    pub fn create_user(&mut self, login: &str) -> UserId {
        let change = Change::CreateUser {
            login: Login::new(login.to_owned()).unwrap(),
            name: Name::new(login.to_owned()).unwrap(),
            surname: None,
            password: PasswordHash::new("hash".to_owned()),
            role: None,
        };
        match self.apply(change) {
            Outcome::User { user_id } => user_id,
            other => panic!("{other:?}"),
        }
    }

    pub fn create_conversation(&mut self, users: &[UserId]) -> ConversationId {
        let change = Change::CreateConversation {
            name: Name::new("lunch".to_owned()).unwrap(),
            description: None,
            users: users.iter().map(|&user| Given::Id(user)).collect(),
        };
        match self.apply(change) {
            Outcome::Conversation { conversation_id } => conversation_id,
            other => panic!("{other:?}"),
        }
    }

    pub fn create_message(&mut self, conversation: ConversationId, user: UserId) -> MessageId {
        let change = Change::CreateMessage {
            conversation: Given::Id(conversation),
            user: Given::Id(user),
            text: MessageText::new("hello".to_owned(), 100).unwrap(),
            nonce: None,
        };
        match self.apply(change) {
            Outcome::Message { message_id } => message_id,
            other => panic!("{other:?}"),
        }
    }

    pub fn delete_user(&mut self, user: UserId) {
        self.apply(Change::DeleteUser {
            user: Given::Id(user),
        });
    }

    pub fn delete_conversation(&mut self, conversation: ConversationId) {
        self.apply(Change::DeleteConversation {
            conversation: Given::Id(conversation),
        });
    }
}
