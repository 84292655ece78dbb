//! chatd inside the test's own process, so that a test can move its clock: days pass at once.

use std::path::PathBuf;
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
const BEGIN_MS: u64 = 1_795_000_000_000;

/// A server on a thread of its own, which listens on a Unix socket: unlike TCP, it buffers little.
pub struct Clocked {
    /// Its time, which stands still until it is advanced.
    pub clock: Clock,
    address: String,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    _scratch: TempDir,
}

impl Clocked {
    /// Starts a server; `config_toml` is what its chatd.toml says besides the listener.
    pub fn with(config_toml: &str) -> Self {
        let scratch = TempDir::new().expect("a temporary directory");
        let socket: PathBuf = scratch.path().join("socket");
        let address = format!("unix:{}", socket.display());
        let text =
            format!("{config_toml}\n[[listen]]\naddress = \"{address}\"\naccess = \"trusted\"\n");
        let overrides = Overrides {
            data_dir: Some(scratch.path().join("data")),
            ..Overrides::default()
        };
        let config = Config::parse(&text, overrides).expect("a valid configuration");
        let clock = Clock::manual(BEGIN_MS);
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
            _scratch: scratch,
        }
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(&self.address)
    }
}

impl Drop for Clocked {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}
