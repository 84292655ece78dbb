//! A store under test, driven by semantic operations only, one after the other.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use chatd::error::{Code, Error};
use chatd::model::{
    Clock, Condition, ConversationId, Event, Field, Given, Kind, Login, MessageId, MessageText,
    Name, Nonce, PasswordHash, Search, UserId,
};
use chatd::store::{
    Answer, Asker, Change, Counts, Ended, LogHead, Operation, Outcome, Principal, Query, Settings,
    Store, open_embedded, open_memory,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// When the stores' time begins, in milliseconds.
pub const BEGIN_MS: u64 = 1_795_000_000_000;
/// Who reads.
const ASKER: Asker = Asker::Connection(1);
/// For how long they keep events, in milliseconds.
pub const KEEP_MS: u64 = 60_000;
/// How long they may search.
const SEARCH_TIME: Duration = Duration::from_secs(30);

/// An open store, what it has handed on, and its clock.
pub struct Subject {
    runtime: Runtime,
    store: Store,
    pub clock: Clock,
    committed: Arc<Mutex<Vec<Event>>>,
    /// Of a store that can be opened again.
    directory: Option<TempDir>,
}

impl Subject {
    pub fn memory() -> Self {
        Self::open(None, Clock::manual(BEGIN_MS), SEARCH_TIME)
    }

    pub fn embedded() -> Self {
        Self::embedded_with(SEARCH_TIME)
    }

    /// An embedded store whose searches may take this long.
    pub fn embedded_with(search_time: Duration) -> Self {
        let directory = TempDir::new().unwrap();
        Self::open(Some(directory), Clock::manual(BEGIN_MS), search_time)
    }

    fn open(directory: Option<TempDir>, clock: Clock, search_time: Duration) -> Self {
        let committed: Arc<Mutex<Vec<Event>>> = Arc::default();
        let told = Arc::clone(&committed);
        let on_commit = Box::new(move |events: &[Event], _: &_| {
            told.lock().unwrap().extend_from_slice(events);
        });
        let settings = Settings {
            keep_ms: KEEP_MS,
            search_time,
            memory: std::sync::Arc::new(chatd::memory::Memory::new(
                &chatd::limits::Limits::default(),
            )),
            directory: chatd::model::Directory::Everyone,
            quota: chatd::store::Amount::default(),
            max_message_bytes: 16_384,
            must_exist: false,
            upgrade: false,
            clock: clock.clone(),
        };
        let store = match &directory {
            Some(directory) => {
                let stop = CancellationToken::new();
                open_embedded(directory.path(), settings, on_commit, &stop)
            }
            None => open_memory(settings, on_commit),
        };
        let runtime = tokio::runtime::Builder::new_current_thread();
        Self {
            runtime: { runtime }.build().unwrap(),
            store: store.unwrap(),
            clock,
            committed,
            directory,
        }
    }

    /// Stops the store and opens it again where it can be; one in memory just goes on.
    pub fn reopened(self) -> Self {
        if self.directory.is_none() {
            return self;
        }
        self.runtime.block_on(self.store.stop());
        Self::open(self.directory, self.clock, SEARCH_TIME)
    }

    /// Events handed on since the store was opened.
    pub fn committed(&self) -> Vec<Event> {
        self.committed.lock().unwrap().clone()
    }

    pub fn apply(&self, by: Principal, change: Change) -> Result<Outcome, Error> {
        let (send, receive) = oneshot::channel();
        let done = Box::new(move |result| {
            let _ = send.send(result);
        });
        self.runtime.block_on(async {
            self.store
                .apply(Operation { by, change }, Ended::default(), done)
                .await;
            receive.await.unwrap()
        })
    }

    pub fn query(&self, by: Principal, query: Query) -> Result<Value, Code> {
        match self.runtime.block_on(self.store.query(by, ASKER, query)) {
            Ok(Answer::Json(bytes)) => Ok(serde_json::from_slice(&bytes).unwrap()),
            Ok(Answer::Reachable(id)) => Ok(json!(id)),
            Ok(Answer::Counts(counts)) => Ok(json!(counts)),
            Ok(other) => panic!("{other:?} is not for those who store and read"),
            Err(error) => Err(error.code()),
        }
    }

    pub fn counts(&self) -> Counts {
        match self
            .runtime
            .block_on(self.store.query(Principal::Trusted, ASKER, Query::Counts))
        {
            Ok(Answer::Counts(Some(counts))) => counts,
            other => panic!("{other:?}"),
        }
    }

    /// The page of a search.
    pub fn search(&self, by: Principal, search: Search) -> Value {
        self.query(by, Query::Search(search)).unwrap()
    }

    pub fn log_head(&self) -> LogHead {
        self.runtime.block_on(self.store.log_head(ASKER)).unwrap()
    }

    /// Every stored event after a number, read piece by piece.
    pub fn events_after(&self, after: u64) -> Vec<Event> {
        let mut found: Vec<Event> = Vec::new();
        loop {
            let last = found.last().map_or(after, |event| event.seq);
            let page = self
                .runtime
                .block_on(self.store.events_after(last, None, ASKER))
                .unwrap();
            let Some(events) = page.events else {
                return found;
            };
            found.extend_from_slice(&events);
        }
    }

    pub fn create_user(&self, login: &str) -> UserId {
        match self.apply(Principal::Trusted, new_user(login)) {
            Ok(Outcome::User { user_id }) => user_id,
            other => panic!("{other:?}"),
        }
    }

    pub fn create_conversation(&self, name: &str, users: &[UserId]) -> ConversationId {
        match self.apply(Principal::Trusted, new_conversation(name, users)) {
            Ok(Outcome::Conversation { conversation_id }) => conversation_id,
            other => panic!("{other:?}"),
        }
    }

    pub fn create_message(
        &self,
        conversation: ConversationId,
        user: UserId,
        text: &str,
    ) -> MessageId {
        self.try_message(Principal::Trusted, conversation, user, text, None)
            .unwrap()
    }

    pub fn try_message(
        &self,
        by: Principal,
        conversation: ConversationId,
        user: UserId,
        text: &str,
        nonce: Option<&str>,
    ) -> Result<MessageId, Code> {
        match self.apply(by, new_message(conversation, user, text, nonce)) {
            Ok(Outcome::Message { message_id }) => Ok(message_id),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.code()),
        }
    }
}

pub fn new_user(login: &str) -> Change {
    Change::CreateUser {
        login: Login::new(login.to_owned()).unwrap(),
        name: Name::new(login.to_owned()).unwrap(),
        surname: None,
        password: PasswordHash::new("hash".to_owned()),
        role: None,
    }
}

pub fn new_conversation(name: &str, users: &[UserId]) -> Change {
    Change::CreateConversation {
        name: Name::new(name.to_owned()).unwrap(),
        description: None,
        users: given(users),
    }
}

pub fn new_message(
    conversation: ConversationId,
    user: UserId,
    text: &str,
    nonce: Option<&str>,
) -> Change {
    Change::CreateMessage {
        conversation: Given::Id(conversation),
        user: Given::Id(user),
        text: MessageText::new(text.to_owned(), 16_384).unwrap(),
        nonce: nonce.map(|nonce| Nonce::new(nonce.to_owned()).unwrap()),
    }
}

pub fn given(users: &[UserId]) -> Vec<Given<UserId>> {
    users.iter().map(|&user| Given::Id(user)).collect()
}

/// A search for everything of a kind, with all fields, in the order of ids.
pub fn search(kind: Kind) -> Search {
    Search {
        kind,
        filter: Vec::new(),
        fields: kind.fields().to_vec(),
        size: 1000,
        max_bytes: usize::MAX,
        from: 0,
        sort_by: Vec::new(),
        descending: false,
        total: true,
    }
}

/// A search for the messages of a conversation.
pub fn messages_of(conversation: ConversationId) -> Search {
    Search {
        filter: vec![Condition {
            field: Field::ConversationId,
            tests: vec![chatd::model::Test::AnyId(vec![conversation.0])],
        }],
        ..search(Kind::Message)
    }
}
