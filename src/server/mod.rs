//! The daemon as a whole: starts its listeners and its store, keeps house, and stops.

mod descriptors;
mod handshakes;
mod hang_ups;
mod listener;
mod proxy;
mod socket_file;

use crate::audit;
use crate::auth::Hasher;
use crate::config::{Address, Config};
use crate::counters::Counters;
use crate::hub::Hub;
use crate::limits::{
    FAILURE_GRACE_MS, HURRY_GRACE_MS, Limits, OPENING_GRACE_MS, OPENING_QUIET_MS,
    SHUTDOWN_GRACE_SECONDS, STORE_CLOSE_SECONDS,
};
use crate::memory::Memory;
use crate::model::{Clock, Company, Event};
use crate::registry::{Access, Registry};
use crate::session::Shared;
use crate::store::{
    self, Amount, Change, Ended, Failure, OnCommit, OpenError, Operation, Principal, Settings,
    Store,
};
use crate::throttle::{FailedLogins, Handshakes, KnownLogins, Rates};
use crate::tls::Tls;
use crate::wire::CloseReason;
use handshakes::HandshakeThread;
use hang_ups::HangUps;
use listener::{BindError, Listener, Serving};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A server that listens, not yet serving.
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    hang_ups: Arc<HangUps>,
    handshakes: HandshakeThread,
}

/// Why a server does not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener cannot be had, and the configuration must be changed first.
    Config(String),
    /// Something cannot be had now, and perhaps later: an address, a descriptor.
    Temporary(String),
    /// The store does not open.
    Store(OpenError),
    /// It was to stop before it had started.
    Stopped,
}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        match error {
            BindError::Config(text) => Self::Config(text),
            BindError::Temporary(text) => Self::Temporary(text),
        }
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Ending {
    /// It was asked to.
    Stopped,
    /// The store failed, and the log says why: the daemon is to be started again.
    Failed,
}

/// Reads the certificates of a running server's listeners again.
#[derive(Clone, Debug)]
pub struct Reloader(Vec<Arc<Tls>>);

impl Reloader {
    /// Reads them; those that cannot be used are logged, and the ones before stay in use.
    pub fn reload(&self) {
        for tls in &self.0 {
            match tls.reload() {
                Ok(()) => tracing::info!("certificates read again"),
                Err(error) => {
                    tracing::error!(
                        error,
                        "certificates not read again; the old ones stay in use"
                    );
                }
            }
        }
    }
}

impl Server {
    /// Binds the listeners, then opens the store, which may take long: then whoever connects is told so.
    /// When `stop` is cancelled meanwhile, that ends soon, and the next start goes on from there.
    pub async fn start(
        config: &Config,
        clock: Clock,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        let mut limits = config.limits.clone();
        descriptors::fit(&mut limits);
        let mut listeners = Vec::new();
        for listen in &config.listen {
            listeners.push(Listener::bind(listen).await?);
        }
        let shared = open(config, limits, clock, &listeners, stop).await?;
        let hang_ups = HangUps::new()
            .map_err(|error| StartError::Temporary(format!("cannot watch connections: {error}")))?;
        let handshakes = HandshakeThread::start()
            .map_err(|error| StartError::Temporary(format!("no thread for handshakes: {error}")))?;
        Ok(Self {
            shared,
            listeners,
            hang_ups: Arc::new(hang_ups),
            handshakes,
        })
    }

    /// Where the server really listens, who may do what there, and whether it speaks TLS.
    pub fn listeners(&self) -> impl Iterator<Item = (&Address, Access, bool)> {
        self.listeners
            .iter()
            .map(|listener| (&listener.address, listener.access, listener.tls.is_some()))
    }

    /// What reads the certificates again.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader(
            self.listeners
                .iter()
                .filter_map(|listener| listener.tls.clone())
                .collect(),
        )
    }

    /// Serves until `stop` ends; then finishes what was read, and closes the store. Ends by itself, soon, when the store
    /// has failed.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Ending {
        let Self {
            shared,
            listeners,
            hang_ups,
            handshakes,
        } = self;
        let failure = shared.store.failure().clone();
        let handshakes = Arc::new(handshakes);
        let tracker = TaskTracker::new();
        let accepting = TaskTracker::new();
        let serving = Serving {
            shared: Arc::clone(&shared),
            hang_ups: Arc::clone(&hang_ups),
            handshakes,
            tracker: tracker.clone(),
        };
        for listener in listeners {
            let accept = listener.accept(serving.clone());
            accepting.spawn(vital("a listener", failure.clone(), accept));
        }
        drop(serving);
        let watched = Arc::clone(&shared);
        let tell = async move { hang_ups.tell(&watched.registry).await };
        let watching = tokio::spawn(vital("hang-ups", failure.clone(), tell));
        let house = keep_house(Arc::clone(&shared));
        accepting.spawn(vital("housekeeping", failure.clone(), house));
        let expiry = end_expired(Arc::clone(&shared));
        accepting.spawn(vital("expiry", failure.clone(), expiry));
        accepting.close();
        tracker.close();
        let tasks = [accepting, tracker];
        tokio::select! {
            biased;
            () = failure.declared() => {}
            () = stop => {
                shared.shutdown.cancel();
                let grace = Duration::from_secs(SHUTDOWN_GRACE_SECONDS);
                tokio::select! {
                    biased;
                    () = failure.declared() => {}
                    () = drain_or_hurry(&tasks, grace, &shared.store) => {}
                }
            }
        }
        if failure.is_declared() {
            shared.registry.close_unanswered(CloseReason::Unavailable);
            shared.shutdown.cancel();
            drain(&tasks, Duration::from_millis(FAILURE_GRACE_MS)).await;
            audit::sum_all_up();
            return Ending::Failed;
        }
        audit::sum_all_up();
        watching.abort();
        let _ = watching.await;
        if let Ok(shared) = Arc::try_unwrap(shared) {
            let time = Duration::from_secs(STORE_CLOSE_SECONDS);
            if tokio::time::timeout(time, shared.store.stop())
                .await
                .is_err()
            {
                tracing::warn!(
                    "the store is not closed in time; the next start builds what is missing of the state"
                );
            }
        } else {
            // Whoever keeps a handle, what was acknowledged is in the journal all the same.
            tracing::warn!("stopped without closing the store");
        }
        if failure.is_declared() {
            Ending::Failed
        } else {
            Ending::Stopped
        }
    }
}

/// Runs a task that the daemon is nothing without: one that panics ends the daemon, and not itself alone.
async fn vital(name: &str, failure: Failure, task: impl Future<Output = ()>) {
    let mut task = Box::pin(task);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)));
        polled.unwrap_or_else(|_| {
            failure.declare(&format!("the task of {name} has panicked"));
            Poll::Ready(())
        })
    })
    .await;
}

/// Waits for tasks to end. Those that have not when their time is over are waited for a little longer, while the store
/// does nothing more for them.
async fn drain_or_hurry(tasks: &[TaskTracker; 2], grace: Duration, store: &Store) {
    if !drain(tasks, grace).await {
        store.hurry();
        drain(tasks, Duration::from_millis(HURRY_GRACE_MS)).await;
    }
}

/// Waits for tasks to end, but no longer than they are given; false if some have not.
async fn drain(tasks: &[TaskTracker; 2], grace: Duration) -> bool {
    let [accepting, connections] = tasks;
    let ended = async { tokio::join!(accepting.wait(), connections.wait()) };
    let in_time = tokio::time::timeout(grace, ended).await.is_ok();
    if !in_time {
        tracing::warn!(
            connections = connections.len(),
            "some connections did not take their answers in time"
        );
    }
    in_time
}

/// Opens the store. Where that takes long, whoever connects is turned away meanwhile.
async fn open(
    config: &Config,
    limits: Limits,
    clock: Clock,
    listeners: &[Listener],
    stop: &CancellationToken,
) -> Result<Arc<Shared>, StartError> {
    let (data_dir, stopping) = (config.data_dir.clone(), stop.clone());
    let open =
        move |settings, on_commit| store::open_embedded(&data_dir, settings, on_commit, &stopping);
    let config = config.clone();
    let opening = tokio::task::spawn_blocking(move || share(&config, limits, clock, open));
    let refusing = listeners
        .iter()
        .map(|listener| Box::pin(listener.refuse_all(CloseReason::Opening)));
    let mut refusing: Vec<_> = refusing.collect();
    let refusing = async {
        // Mostly it is open before anybody notices; until then connections wait in their queue.
        tokio::time::sleep(Duration::from_millis(OPENING_QUIET_MS)).await;
        poll_fn(|context| {
            for listener in &mut refusing {
                let _ = listener.as_mut().poll(context);
            }
            Poll::<()>::Pending
        })
        .await;
    };
    let too_late = async {
        stop.cancelled().await;
        // What is not over by then ends with the process: as after a crash, what was built is kept.
        tokio::time::sleep(Duration::from_millis(OPENING_GRACE_MS)).await;
    };
    let opened = tokio::select! {
        biased;
        opened = opening => opened,
        () = too_late => return Err(StartError::Stopped),
        () = refusing => return Err(StartError::Stopped),
    };
    let opened =
        opened.unwrap_or_else(|error| Err(OpenError(format!("opening the store failed: {error}"))));
    opened.map_err(|error| {
        if stop.is_cancelled() {
            tracing::info!(%error, "stopped before the store was open");
            StartError::Stopped
        } else {
            StartError::Store(error)
        }
    })
}

/// What the store needs to know.
fn settings(config: &Config, limits: &Limits, clock: &Clock) -> Settings {
    Settings {
        keep_ms: config.keep_ms,
        search_time: Duration::from_secs(limits.search_seconds),
        memory: Arc::new(Memory::new(limits)),
        directory: config.security.directory(),
        quota: Amount {
            rows: limits.rows_per_day_per_user,
            bytes: limits.bytes_per_day_per_user,
        },
        max_message_bytes: limits.max_message_bytes,
        must_exist: config.must_exist,
        upgrade: false,
        clock: clock.clone(),
    }
}

/// Lets the data be written in this chatd's newest format from now on, and closes them again. An older chatd then refuses
/// them.
pub async fn upgrade(config: &Config, clock: &Clock) -> Result<(), OpenError> {
    let settings = Settings {
        must_exist: true,
        upgrade: true,
        ..settings(config, &config.limits, clock)
    };
    let stop = CancellationToken::new();
    let store = store::open_embedded(&config.data_dir, settings, Box::new(|_, _| {}), &stop)?;
    store.stop().await;
    Ok(())
}

/// What all connections share, over the store that `open` opens: the daemon's own, or one in memory to try the protocol on.
pub fn share(
    config: &Config,
    limits: Limits,
    clock: Clock,
    open: impl FnOnce(Settings, OnCommit) -> Result<Store, OpenError>,
) -> Result<Arc<Shared>, OpenError> {
    let settings = settings(config, &limits, &clock);
    let directory = settings.directory;
    let memory = Arc::clone(&settings.memory);
    // The store reports to the hub, and the hub begins at the store's newest event.
    let hub: Arc<OnceLock<Arc<Hub>>> = Arc::default();
    let (reported, time) = (Arc::clone(&hub), clock.clone());
    let on_commit = Box::new(move |events: &[Event], company: &Company| {
        if let Some(hub) = reported.get() {
            hub.publish(events, company, time.now_ms());
        }
    });
    let store = open(settings, on_commit)?;
    let hub = Arc::clone(hub.get_or_init(|| Arc::new(Hub::new(store.newest(), directory))));
    let security = &config.security;
    Ok(Arc::new(Shared {
        store,
        hub,
        registry: Arc::new(Registry::new(limits.clone())),
        hasher: Hasher::new(security.bcrypt_cost),
        failed_logins: FailedLogins::new(security.failed_logins_per_minute),
        known_logins: KnownLogins::default(),
        handshakes: Handshakes::new(limits.handshakes_per_second_per_address),
        memory,
        rates: Arc::new(Rates::new(&limits)),
        limits,
        registration: security.registration,
        password_min_bytes: security.password_min_bytes,
        login_time: Duration::from_secs(security.login_seconds),
        counters: Counters::default(),
        clock,
        started: Instant::now(),
        shutdown: CancellationToken::new(),
    }))
}

/// Ends the sessions whose tokens expire.
async fn end_expired(shared: Arc<Shared>) {
    tokio::select! {
        () = shared.shutdown.cancelled() => {}
        () = shared.registry.expire(&shared.clock) => {}
    }
}

/// What is to be done every second: positions, and telling of refusals without a line for each.
async fn keep_house(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let counters = shared.counters.each();
    let mut told = vec![0; counters.len()];
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        shared.hub.tell_positions(shared.clock.now_ms());
        if shared.store.is_time_due() {
            let operation = Operation {
                by: Principal::Trusted,
                change: Change::NoteTime,
            };
            let done = Box::new(|_| {});
            shared.store.apply(operation, Ended::default(), done).await;
        }
        for _ in 0..shared.registry.close_largest(shared.memory.excess_bytes()) {
            shared.counters.stalled.add();
        }
        shared.rates.forget_quiet();
        shared.handshakes.forget_quiet();
        audit::sum_up();
        for (told, (name, counter)) in told.iter_mut().zip(&counters) {
            let total = counter.get();
            let count = total - std::mem::replace(told, total);
            let first = counter.take_first();
            // Logins have lines of their own, in the audit log.
            if count > 0 && !name.contains("logins") {
                tracing::info!(event = name, first, count, total, "limited");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_panics_ends_the_daemon() {
        let failure = Failure::default();
        vital("a test", failure.clone(), async {}).await;
        assert!(!failure.is_declared());
        vital("a test", failure.clone(), async { panic!("on purpose") }).await;
        assert!(failure.is_declared());
    }
}
