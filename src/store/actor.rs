//! The store's own thread: it alone changes the state.
//!
//! It takes whatever operations wait, decides them one after the other over one [`Txn`], has the backend write the
//! round as a whole, hands the events on and releases the answers: one sync per round, however many clients (group
//! commit). Queries and event reads run beside it, on a bounded number of blocking threads, for which
//! those who ask take turns.

mod rounds;

use crate::error::{Code, Error};
use crate::limits::{CATCH_UP_MAX_BYTES, MAILBOX_MAX_OPERATIONS, TIME_NOTED_MS};
use crate::memory::Memory;
use crate::model::{Clock, Directory, Events, Id, Seq, UserId};
use crate::store::answer::Terms;
use crate::store::bounded::Bounded;
use crate::store::failure::Failure;
use crate::store::fair::{Asker, Places};
use crate::store::format::Format;
use crate::store::operation::{Answer, Ended, Operation, Principal, Query};
use crate::store::present::Present;
use crate::store::quota::Amount;
use crate::store::room::Space;
use crate::store::rows::Head;
use crate::store::rules::Deletions;
use crate::store::state::State;
use crate::store::txn::Round;
use crate::store::txn::Txn;
use crate::store::{Done, EventPage, LogHead, OnCommit, OpenError};
use crate::store::{answer, moment};
use rounds::Actor;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// What a backend refused a round with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// There is no room; nothing was changed, and it may work later.
    Full,
    /// It could not be written; nothing was changed, and it may work later.
    Unavailable,
    /// Whether it was stored cannot be known, or cannot be shown; the backend's failure is declared.
    InDoubt,
}

/// Where rounds are written and read back: the part that differs between the stores of one machine.
pub trait Backend: Send + Sync + 'static {
    /// Makes a round durable, then visible to readers.
    fn commit(&self, round: &Round) -> Result<(), CommitError>;

    /// Lets rows be written in a format: from now on, a chatd that does not know it refuses the log.
    fn allow_format(&self, format: Format) -> io::Result<()>;

    /// How much room there is for the next round.
    fn space(&self) -> Space {
        Space::Plenty
    }

    /// Goes on with what a large round has left to be written, where it is already stored and seen. True if nothing is
    /// left of it; to be called between rounds.
    fn settle(&self) -> bool {
        true
    }

    /// Runs `read` over the committed state.
    fn read(&self, read: &mut dyn FnMut(&dyn State));

    /// Which log the events count in.
    fn epoch(&self) -> Id;

    /// What tells when the backend has failed for good.
    fn failure(&self) -> &Failure;

    /// The oldest event not older than `since_ms`; one above the newest if there is none.
    fn oldest(&self, since_ms: u64) -> Seq;

    /// Committed events from `seq` on, as many as stand together; none if there are none yet.
    fn events_from(&self, seq: Seq) -> Result<Option<Events>, Error>;

    /// What [`Backend::oldest`] and [`Backend::events_from`] give, where memory alone can tell: the events from `seq` on,
    /// or from the oldest one where that is newer. Neither waits nor reads.
    fn at_hand(&self, since_ms: u64, seq: Seq) -> Option<(Seq, Events)>;
}

impl dyn Backend {
    /// What `read` finds in the committed state.
    pub(super) fn ask<T>(&self, read: impl Fn(&dyn State) -> Result<T, Error>) -> Result<T, Error> {
        let mut found = Err(Error::internal());
        self.read(&mut |state| found = read(state));
        found
    }
}

/// What a store needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Milliseconds for which events are kept.
    pub keep_ms: u64,
    /// How long a read may take.
    pub search_time: Duration,
    /// Which users are shown to a user.
    pub directory: Directory,
    /// What a user may store in a day; 0 is no limit.
    pub quota: Amount,
    /// What all hold, and so what a read may.
    pub memory: Arc<Memory>,
    /// The largest message text, in bytes.
    pub max_message_bytes: usize,
    /// There must be data already: an empty directory is that of a disk that is not mounted.
    pub must_exist: bool,
    /// Rows are to be written in the newest format from now on. An older chatd then refuses the data.
    pub upgrade: bool,
    /// The time.
    pub clock: Clock,
}

/// A store that is open. Dropping the last handle stops it.
pub struct Store {
    mailbox: mpsc::Sender<Job>,
    shared: Arc<Shared>,
    /// Bounds short reads, which every read is at first.
    short_reads: Arc<Places>,
    /// Bounds reads that have turned out to be long, so that nothing else waits for them.
    long_reads: Arc<Places>,
    /// Bounds reads of stored events.
    event_reads: Arc<Places>,
    stopped: Mutex<Option<oneshot::Receiver<()>>>,
}

struct Job {
    operation: Operation,
    session: Ended,
    done: Done,
}

struct Shared {
    backend: Box<dyn Backend>,
    settings: Settings,
    head: RwLock<Head>,
    present: Present,
    /// Reads are to end, and what was not begun is refused.
    stopping: AtomicBool,
}

/// Short reads at the same time, and those of one asker.
const SHORT_READS_AT_ONCE: (usize, usize) = (4, 2);
/// Long reads at the same time, and those of one asker.
const LONG_READS_AT_ONCE: (usize, usize) = (2, 1);
/// Reads of stored events at the same time, and those of one asker.
const EVENT_READS_AT_ONCE: (usize, usize) = (2, 1);
/// How long a read may take among the short ones. One that takes longer begins again among the long ones.
const SHORT_READ: Duration = Duration::from_millis(20);

impl Store {
    /// Starts a store over a backend; `on_commit` is given the events of each round.
    pub fn start(
        backend: Box<dyn Backend>,
        settings: Settings,
        on_commit: OnCommit,
    ) -> Result<Self, OpenError> {
        let found = backend.ask(|state| {
            Ok((
                moment::head(state)?,
                Deletions::of(state)?,
                Txn::noted_clock(state)?,
            ))
        });
        let (head, deletions, noted) = found
            .map_err(|_| OpenError("the state cannot be read; the log says why".to_owned()))?;
        settings.clock.go_on_from(head.time, noted);
        let head = in_format(&*backend, &settings, head)?;
        let directory = settings.directory;
        let shared = Arc::new(Shared {
            backend,
            settings,
            head: RwLock::new(head),
            present: Present::new(head.seq, directory),
            stopping: AtomicBool::new(false),
        });
        let places = |(count, each)| Places::new(count, each);
        let (mailbox, jobs) = mpsc::channel(MAILBOX_MAX_OPERATIONS);
        let (stop, stopped) = oneshot::channel();
        let actor = Actor::new(Arc::clone(&shared), jobs, head, deletions, on_commit);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                actor.run_to_end();
                let _ = stop.send(());
            })
            .map_err(|error| OpenError(format!("the store's thread cannot be started: {error}")))?;
        Ok(Self {
            mailbox,
            shared,
            short_reads: places(SHORT_READS_AT_ONCE),
            long_reads: places(LONG_READS_AT_ONCE),
            event_reads: places(EVENT_READS_AT_ONCE),
            stopped: Mutex::new(Some(stopped)),
        })
    }

    /// Hands an operation over; operations take effect in the order of these calls. Waits while the mailbox is full.
    /// One whose session has ended when its turn comes is refused.
    pub async fn apply(&self, operation: Operation, session: Ended, done: Done) {
        let job = Job {
            operation,
            session,
            done,
        };
        if let Err(mpsc::error::SendError(job)) = self.mailbox.send(job).await {
            (job.done)(Err(Error::unavailable()));
        }
    }

    /// Answers a query from the committed state. The time that it may take begins when it does, and those who ask take
    /// turns (protocol.md, 5).
    pub async fn query(&self, by: Principal, asker: Asker, query: Query) -> Result<Answer, Error> {
        let query = Arc::new(query);
        let answer_within = |time: Duration| {
            let query = Arc::clone(&query);
            move |shared: &Shared| shared.answer(by, &query, Instant::now() + time)
        };
        let search_time = self.shared.settings.search_time;
        let short = answer_within(SHORT_READ.min(search_time));
        match self.blocking(&self.short_reads, asker, short).await {
            Err(error) if error.code() == Code::Timeout && search_time > SHORT_READ => {}
            answer => return answer,
        }
        self.blocking(&self.long_reads, asker, answer_within(search_time))
            .await
    }

    /// The newest and the oldest event.
    pub async fn log_head(&self, asker: Asker) -> Result<LogHead, Error> {
        self.blocking(&self.short_reads, asker, |shared| {
            let oldest = shared.backend.oldest(shared.kept_since());
            let seq = shared.head().seq;
            Ok(LogHead {
                seq,
                oldest,
                epoch: shared.backend.epoch(),
            })
        })
        .await
    }

    /// Events after `after`, as many as one read takes. Where they cannot be read: [`Code::Unavailable`].
    /// Tells for which of them `viewer` is in the audience without being named there.
    pub async fn events_after(
        &self,
        after: Seq,
        viewer: Option<UserId>,
        asker: Asker,
    ) -> Result<EventPage, Error> {
        let shared = &self.shared;
        if let Some((oldest, events)) = shared.backend.at_hand(shared.kept_since(), after + 1) {
            let events = events.up_to_bytes(CATCH_UP_MAX_BYTES);
            if let Some(events) = shared.present.known(&events, viewer) {
                return Ok(EventPage {
                    oldest,
                    events: Some(events),
                    unnamed: Vec::new(),
                });
            }
        }
        self.blocking(&self.event_reads, asker, move |shared| {
            let oldest = shared.backend.oldest(shared.kept_since());
            let mut page = EventPage {
                oldest,
                events: None,
                unnamed: Vec::new(),
            };
            if let Some(events) = shared.backend.events_from(oldest.max(after + 1))? {
                let events = events.up_to_bytes(CATCH_UP_MAX_BYTES);
                page.unnamed = shared.unnamed(&events, viewer)?;
                page.events = Some(shared.show_present(&events)?);
            }
            Ok(page)
        })
        .await
    }

    /// The newest committed event's number.
    #[must_use]
    pub fn newest(&self) -> Seq {
        self.shared.head().seq
    }

    /// Whether the newest record is so old that the time is to be noted ([`Change::NoteTime`]).
    #[must_use]
    pub fn is_time_due(&self) -> bool {
        let log_ms = self.shared.settings.clock.moment(0).log_ms;
        log_ms.saturating_sub(self.shared.head().time) >= TIME_NOTED_MS
    }

    /// Which log the events count in.
    #[must_use]
    pub fn epoch(&self) -> Id {
        self.shared.backend.epoch()
    }

    /// What tells when the store has failed for good: then the process is to end.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        self.shared.backend.failure()
    }

    /// Ends the reads that are under way, and refuses what waits and was not begun: nobody waits for it any longer than
    /// this takes.
    pub fn hurry(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    /// Takes no more operations, finishes those that were begun, and closes the backend. Reads end soon.
    pub async fn stop(self) {
        self.hurry();
        let stopped = self
            .stopped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(self.mailbox);
        if let Some(stopped) = stopped {
            let _ = stopped.await;
        }
        // Whoever lets go of the backend last closes it: that is to be here.
        for places in [&self.short_reads, &self.long_reads, &self.event_reads] {
            places.idle().await;
        }
        // What is written for it may take a while.
        let shared = self.shared;
        let _ = tokio::task::spawn_blocking(move || drop(shared)).await;
    }

    async fn blocking<T: Send + 'static>(
        &self,
        places: &Arc<Places>,
        asker: Asker,
        work: impl FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let Some(place) = places.take(asker).await else {
            return Err(Error::internal());
        };
        let shared = Arc::clone(&self.shared);
        let task = tokio::task::spawn_blocking(move || {
            let _place = place;
            // Let go of before the place is.
            let shared = shared;
            work(&shared)
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a read failed");
            Err(Error::internal())
        })
    }
}

/// The head in the format in which rows are to be written, which a log that is new has anyway.
fn in_format(backend: &dyn Backend, settings: &Settings, head: Head) -> Result<Head, OpenError> {
    let raised = settings.upgrade && head.format < Format::NEWEST;
    let before = head.format;
    let format = if raised { Format::NEWEST } else { before };
    // Nobody who does not know the format may take the log for one that it knows.
    backend
        .allow_format(format)
        .map_err(|error| OpenError(format!("the data's format cannot be noted: {error}")))?;
    if !raised {
        if format < Format::NEWEST {
            tracing::info!(
                format = format.number(),
                newest = Format::NEWEST.number(),
                "the data are in an older format, which chatd {} and later read; chatd --upgrade lets them be written in the newest",
                format.since()
            );
        }
        return Ok(head);
    }
    let round = backend.ask(|state| {
        let moment = settings.clock.look(settings.keep_ms);
        Txn::new(state, Head { format, ..head }, moment).finish()
    });
    let written = round.map_err(|error| error.to_string()).and_then(|round| {
        let written = backend.commit(&round).map(|()| round.head);
        written.map_err(|error| format!("{error:?}"))
    });
    let head =
        written.map_err(|why| OpenError(format!("the data's format cannot be raised: {why}")))?;
    tracing::info!(
        before = before.number(),
        format = format.number(),
        "the data's format was raised: chatd {} and later read it",
        format.since()
    );
    Ok(head)
}

impl Shared {
    fn head(&self) -> Head {
        *self.head.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn show_present(&self, events: &Events) -> Result<Events, Error> {
        self.backend.ask(|state| self.present.show(state, events))
    }

    /// Those that `viewer` may see although their audience does not name it.
    fn unnamed(&self, events: &Events, viewer: Option<UserId>) -> Result<Vec<Seq>, Error> {
        self.backend
            .ask(|state| self.present.unnamed(state, events, viewer))
    }

    /// From which time on events are kept, in milliseconds.
    fn kept_since(&self) -> u64 {
        let now = self.settings.clock.moment(self.settings.keep_ms);
        now.kept_since_ms
    }

    fn answer(&self, by: Principal, query: &Query, deadline: Instant) -> Result<Answer, Error> {
        let long = matches!(query, Query::Search(_));
        let terms = Terms {
            held_ms: self.settings.clock.moment(0).held_ms,
            memory: &self.settings.memory,
            directory: self.settings.directory,
        };
        self.backend.ask(|state| {
            let state = Bounded::new(state, deadline, &self.stopping);
            moment::settled(&state, by, long, deadline, |head| {
                answer::answer(&state, head, by, query, &terms)
            })
        })
    }
}

#[cfg(test)]
mod tests;
