//! chatd inside the test's own process, so that a test can move its clock: days pass at once.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use tokio_util::sync::CancellationToken;

use chatd::config::{Config, Overrides};
use chatd::model::Clock;
use chatd::server::Server;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{Client, PATIENCE};

/// When such a daemon's time begins, in milliseconds.
pub const BEGIN_MS: u64 = 1_795_000_000_000;

/// A server on a thread of its own, which listens on a Unix socket: unlike TCP, it buffers little.
pub struct Clocked {
    /// Its time, which stands still until it is advanced or set.
    pub clock: Clock,
    address: String,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    config_toml: String,
    scratch: Option<TempDir>,
}

impl Clocked {
    /// Starts a server; `config_toml` is what its chatd.toml says besides the listener.
    pub fn with(config_toml: &str) -> Self {
        let scratch = TempDir::new().expect("a temporary directory");
        Self::serve(scratch, config_toml, Clock::manual(BEGIN_MS))
    }

    /// Stops the server, sets its clock, and starts another one on the same data.
    pub fn restarted_at(mut self, wall_ms: u64) -> Self {
        self.stop();
        let scratch = self.scratch.take().expect("a directory");
        self.clock.set(wall_ms);
        Self::serve(scratch, &self.config_toml, self.clock.clone())
    }

    fn serve(scratch: TempDir, config_toml: &str, clock: Clock) -> Self {
        let socket: PathBuf = scratch.path().join("socket");
        let address = format!("unix:{}", socket.display());
        let text =
            format!("{config_toml}\n[[listen]]\naddress = \"{address}\"\naccess = \"trusted\"\n");
        let overrides = Overrides {
            data_dir: Some(scratch.path().join("data")),
            ..Overrides::default()
        };
        let config = Config::parse(&text, Path::new(""), overrides).expect("a valid configuration");
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, ready) = mpsc::channel();
        let time = clock.clone();
        let serving = thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let never = CancellationToken::new();
                let server = Server::start(&config, time, &never).await;
                let server = server.expect("a server");
                let _ = started.send(());
                let _ = server
                    .run(async {
                        let _ = stopped.await;
                    })
                    .await;
            });
        });
        ready.recv_timeout(PATIENCE).expect("a server that listens");
        Self {
            clock,
            address,
            stop: Some(stop),
            serving: Some(serving),
            config_toml: config_toml.to_owned(),
            scratch: Some(scratch),
        }
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Bytes of its journal.
    pub fn journal_bytes(&self) -> u64 {
        let scratch = self.scratch.as_ref().expect("a directory");
        let files = std::fs::read_dir(scratch.path().join("data/journal")).expect("a journal");
        files
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|end| end == "journal"))
            .map(|file| file.metadata().map_or(0, |about| about.len()))
            .sum()
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

impl Drop for Clocked {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A conversation and somebody to write in it: events 1 and 2 of a new server are its user's and its own creation.
pub struct Room {
    pub client: Client,
    pub user: String,
    pub conversation: String,
}

impl Room {
    pub fn new(server: &Clocked) -> Self {
        Self::of(server.client())
    }

    /// One made on this connection.
    pub fn of(mut client: Client) -> Self {
        let user = client.create_user("ann@example.org");
        let conversation = client.create_conversation("lunch", &[&user]);
        Self {
            client,
            user,
            conversation,
        }
    }

    /// The same, with a connection to a server that was started on the same data.
    pub fn on(self, server: &Clocked) -> Self {
        let client = server.client();
        Self { client, ..self }
    }

    /// Sends a message, and gives its id.
    pub fn write(&mut self, text: &str) -> String {
        self.client
            .send_message(&self.conversation, &self.user, text)
    }
}
