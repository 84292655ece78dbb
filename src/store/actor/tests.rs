//! What only the rows themselves show: that a large deletion leaves nothing behind, wherever it is interrupted.

use super::{Backend, CommitError, Settings, Store};
use crate::error::{Code, Error};
use crate::model::{
    Clock, ConversationId, Event, Events, Given, Id, Login, MessageText, Name, Nonce, PasswordHash,
    Seq,
};
use crate::store::Failure;
use crate::store::format::Format;
use crate::store::memory::Memory;
use crate::store::operation::{Change, Ended, Operation, Outcome, Principal};
use crate::store::state::{Blob, Scan, State};
use crate::store::txn::Round;
use crate::store::{keys, open_embedded, open_memory};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Enough that a stop right after the deletion's answer finds most of them still there.
const MESSAGES: usize = 20_000;

fn settings() -> Settings {
    Settings {
        keep_ms: 60_000,
        search_time: Duration::from_secs(2),
        memory: Arc::new(crate::memory::Memory::new(&crate::limits::Limits::default())),
        directory: crate::model::Directory::Everyone,
        quota: crate::store::Amount::default(),
        max_message_bytes: 16_384,
        must_exist: false,
        upgrade: false,
        clock: Clock::manual(1_795_000_000_000),
    }
}

fn embedded(directory: &Path) -> Store {
    let stop = CancellationToken::new();
    open_embedded(directory, settings(), Box::new(|_, _| {}), &stop).unwrap()
}

async fn apply(store: &Store, changes: impl IntoIterator<Item = Change>) -> Vec<Outcome> {
    let (send, outcomes) = mpsc::channel();
    for change in changes {
        let (by, send) = (Principal::Trusted, send.clone());
        let done = Box::new(move |outcome| send.send(outcome).unwrap());
        store
            .apply(Operation { by, change }, Ended::default(), done)
            .await;
    }
    drop(send);
    outcomes.into_iter().map(Result::unwrap).collect()
}

/// Makes a conversation of many messages.
async fn fill(store: &Store) -> ConversationId {
    let user = Change::CreateUser {
        login: Login::new("ann".to_owned()).unwrap(),
        name: Name::new("Ann".to_owned()).unwrap(),
        surname: None,
        password: PasswordHash::new(String::new()),
        role: None,
    };
    let [Outcome::User { user_id }] = apply(store, [user]).await[..] else {
        panic!("no user");
    };
    let conversation = Change::CreateConversation {
        name: Name::new("large".to_owned()).unwrap(),
        description: None,
        users: vec![Given::Id(user_id)],
    };
    let [Outcome::Conversation { conversation_id }] = apply(store, [conversation]).await[..] else {
        panic!("no conversation");
    };
    let message = |number: usize| Change::CreateMessage {
        conversation: Given::Id(conversation_id),
        user: Given::Id(user_id),
        text: MessageText::new("hello".to_owned(), 100).unwrap(),
        nonce: Some(Nonce::new(number.to_string()).unwrap()),
    };
    apply(store, (0..MESSAGES).map(message)).await;
    conversation_id
}

fn delete(id: ConversationId) -> Change {
    Change::DeleteConversation {
        conversation: Given::Id(id),
    }
}

/// How many rows of each of these kinds there are.
fn rows(store: &Store, kinds: &[u8]) -> Vec<usize> {
    let mut counts = Vec::new();
    store.shared.backend.read(&mut |state| {
        let count = |&kind| state.scan(&keys::prefix(&[kind])).count();
        counts = kinds.iter().map(count).collect();
    });
    counts
}

/// Waits until the deletion is finished: then nothing of the conversation may be left.
fn finished(store: &Store) {
    let patience = Instant::now() + Duration::from_secs(60);
    while rows(store, b"d") != [0] {
        assert!(Instant::now() < patience, "the deletion does not end");
        std::thread::yield_now();
    }
    assert_eq!(rows(store, b"cknmiapox"), [0; 9]);
    assert_eq!(rows(store, b"ul"), [1, 1]);
}

#[tokio::test]
async fn a_deletion_leaves_nothing_behind_in_memory() {
    let store = open_memory(settings(), Box::new(|_, _| {})).unwrap();
    let id = fill(&store).await;
    assert_eq!(rows(&store, b"dmin"), [0, MESSAGES, MESSAGES, MESSAGES]);
    apply(&store, [delete(id)]).await;
    finished(&store);
}

#[tokio::test]
async fn a_deletion_that_was_interrupted_is_finished_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let store = embedded(directory.path());
    let id = fill(&store).await;
    apply(&store, [delete(id)]).await;
    assert_eq!(
        rows(&store, b"d"),
        [1],
        "it was over before it could be interrupted"
    );
    store.stop().await;
    // Once with the state as it was left, once with the journal alone.
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("journal")).unwrap();
    for entry in std::fs::read_dir(directory.path().join("journal")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        std::fs::copy(&path, copy.path().join("journal").join(name)).unwrap();
    }
    for directory in [directory, copy] {
        let store = embedded(directory.path());
        finished(&store);
        store.stop().await;
    }
}

#[tokio::test]
async fn a_panic_on_the_stores_thread_is_a_failure_and_leaves_what_was_stored_without_a_refusal() {
    let on_commit = Box::new(|_: &[Event], _: &_| panic!("on purpose"));
    let store = open_memory(settings(), on_commit).unwrap();
    let create = || Operation {
        by: Principal::Trusted,
        change: Change::CreateConversation {
            name: Name::new("lunch".to_owned()).unwrap(),
            description: None,
            users: Vec::new(),
        },
    };
    let (send, outcomes) = mpsc::channel();
    let done = Box::new(move |outcome| send.send(outcome).unwrap());
    store.apply(create(), Ended::default(), done).await;
    store.failure().declared().await;
    assert_eq!(store.newest(), 1, "it was stored");
    assert!(outcomes.try_recv().is_err(), "nobody knows what to answer");
    // What comes later is refused, and changes nothing.
    let (send, outcomes) = mpsc::channel();
    let done = Box::new(move |outcome| send.send(outcome).unwrap());
    store.apply(create(), Ended::default(), done).await;
    let refused = outcomes.recv().unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(store.newest(), 1);
}

/// A store in memory whose messages cannot be read while it is broken.
struct Faulty {
    memory: Memory,
    broken: Arc<AtomicBool>,
    /// How often they were asked for in vain.
    tries: Arc<AtomicUsize>,
}

struct FaultyState<'a>(&'a dyn State, &'a Faulty);

impl State for FaultyState<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Blob>, Error> {
        // sled panics on some kinds of damage.
        let damaged = key.starts_with(b"l") && self.1.broken.load(Ordering::Relaxed);
        assert!(!damaged, "on purpose");
        self.0.get(key)
    }

    fn scan(&self, range: &keys::Range) -> Scan<'_> {
        if range.low.starts_with(b"m") && self.1.broken.load(Ordering::Relaxed) {
            self.1.tries.fetch_add(1, Ordering::Relaxed);
            return Box::new([Err(Error::unavailable())].into_iter());
        }
        self.0.scan(range)
    }
}

impl Backend for Faulty {
    fn allow_format(&self, format: Format) -> io::Result<()> {
        self.memory.allow_format(format)
    }

    fn commit(&self, round: &Round) -> Result<(), CommitError> {
        self.memory.commit(round)
    }

    fn read(&self, read: &mut dyn FnMut(&dyn State)) {
        self.memory
            .read(&mut |state| read(&FaultyState(state, self)));
    }

    fn epoch(&self) -> Id {
        self.memory.epoch()
    }

    fn failure(&self) -> &Failure {
        self.memory.failure()
    }

    fn oldest(&self, since_ms: u64) -> Seq {
        self.memory.oldest(since_ms)
    }

    fn events_from(&self, seq: Seq) -> Result<Option<Events>, Error> {
        self.memory.events_from(seq)
    }

    fn at_hand(&self, since_ms: u64, seq: Seq) -> Option<(Seq, Events)> {
        self.memory.at_hand(since_ms, seq)
    }
}

/// A faulty store, what breaks it, and how often that was noticed.
fn faulty() -> (Store, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (broken, tries) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let backend = Faulty {
        memory: Memory::new(&settings().clock),
        broken: Arc::clone(&broken),
        tries: Arc::clone(&tries),
    };
    let store = Store::start(Box::new(backend), settings(), Box::new(|_, _| {})).unwrap();
    (store, broken, tries)
}

#[tokio::test]
async fn a_panic_in_one_operation_or_its_answer_leaves_the_others_as_they_are() {
    let (store, broken, _) = faulty();
    broken.store(true, Ordering::Relaxed);
    let (send, outcomes) = mpsc::channel();
    let user = Change::CreateUser {
        login: Login::new("ann".to_owned()).unwrap(),
        name: Name::new("Ann".to_owned()).unwrap(),
        surname: None,
        password: PasswordHash::new(String::new()),
        role: None,
    };
    let conversation = || Change::CreateConversation {
        name: Name::new("lunch".to_owned()).unwrap(),
        description: None,
        users: Vec::new(),
    };
    for change in [user, conversation(), conversation()] {
        let (by, send) = (Principal::Trusted, send.clone());
        let done = Box::new(move |outcome: Result<Outcome, Error>| {
            let code = outcome.as_ref().err().map(Error::code);
            send.send(code).unwrap();
            assert!(outcome.is_err(), "on purpose");
        });
        let operation = Operation { by, change };
        store.apply(operation, Ended::default(), done).await;
    }
    let codes: Vec<_> = outcomes.iter().take(3).collect();
    assert_eq!(codes, [Some(Code::Internal), None, None]);
    assert!(!store.failure().is_declared());
    apply(&store, [conversation()]).await;
    assert_eq!(store.newest(), 3);
}

#[tokio::test]
async fn a_large_deletion_that_meets_a_read_error_does_not_spin() {
    let (store, broken, tries) = faulty();
    let id = fill(&store).await;
    broken.store(true, Ordering::Relaxed);
    apply(&store, [delete(id)]).await;
    // Others go on meanwhile, and it is tried again all the same.
    let (began, mut rounds) = (Instant::now(), 0);
    while tries.load(Ordering::Relaxed) < 3 {
        let name = Name::new("another".to_owned()).unwrap();
        let create = Change::CreateConversation {
            name,
            description: None,
            users: Vec::new(),
        };
        apply(&store, [create]).await;
        rounds += 1;
        assert!(began.elapsed() < Duration::from_secs(60), "it gave up");
    }
    assert!(rounds > 10, "{rounds} rounds while it rested");
    // Nothing else happens: it must be woken by the time alone.
    broken.store(false, Ordering::Relaxed);
    while rows(&store, b"dm") != [0, 0] {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it does not go on"
        );
        std::thread::yield_now();
    }
    // Its pauses double from 100 ms on: the time that it took allows for no more tries.
    let paused_ms = u32::try_from(began.elapsed().as_millis()).unwrap();
    let allowed = 2 + (paused_ms / 100 + 1).ilog2();
    let tries = tries.load(Ordering::Relaxed);
    assert!(tries <= allowed as usize, "{tries} tries in {paused_ms} ms");
}
