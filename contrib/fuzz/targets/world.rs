//! A chatd in memory, with connections that are pipes: what the targets that speak the protocol share.

use chatd::config::{Config, Overrides};
use chatd::model::Clock;
use chatd::registry::{Access, Remote};
use chatd::server::share;
use chatd::session::{Shared, serve};
use chatd::store::open_memory;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::runtime::{Builder, Runtime};

/// The time of every world: ids hold it, so that the same requests make the same ids.
const START_MS: u64 = 1_750_000_000_000;
/// Bytes that a pipe holds: so few that most reads are partial.
const PIPE_BYTES: usize = 64;
/// Hashing as quick as it can be, registration open, and rates that a fuzzer does not reach.
const CONFIG: &str = r#"
[limits]
requests_per_second = 1000000
requests_per_second_per_address = 1000000
requests_per_second_per_user = 1000000
[security]
registration = "open"
bcrypt_cost = 4
failed_logins_per_minute = 1000000
"#;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
}

/// Runs `test` in a world of its own.
pub fn world<T>(test: impl AsyncFnOnce(&World) -> T) -> T {
    let config =
        Config::parse(CONFIG, Path::new("."), Overrides::default()).expect("the configuration");
    let clock = Clock::manual(START_MS);
    let shared = share(&config, config.limits.clone(), clock, open_memory).expect("a store");
    RUNTIME.with(|runtime| {
        runtime.block_on(async move {
            let world = World { shared };
            let result = test(&world).await;
            world.shared.shutdown.cancel();
            result
        })
    })
}

/// A chatd in memory.
pub struct World {
    shared: Arc<Shared>,
}

impl World {
    /// A connection of a listener with this access.
    pub fn connect(&self, access: Access) -> DuplexStream {
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        let remote = Remote::Unix { uid: None };
        let ticket = self
            .shared
            .registry
            .admit(access, &remote, START_MS)
            .expect("a place");
        tokio::spawn(serve(
            Arc::clone(&self.shared),
            ticket,
            server,
            Instant::now(),
        ));
        client
    }

    /// Sends all of it and a ping behind it, and gives every line that came back before the ping's answer, or before the
    /// server closed the connection.
    pub async fn exchange(&self, access: Access, input: &[u8]) -> Exchanged {
        let (reading, mut writing) = tokio::io::split(self.connect(access));
        let mut reading = BufReader::new(reading);
        let write = async {
            // The server may close before it has read everything.
            let _ = writing.write_all(input).await;
            let _ = writing.write_all(PING.as_bytes()).await;
        };
        let read = async {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                reading
                    .read_line(&mut line)
                    .await
                    .expect("the server sends UTF-8");
                if line.is_empty() {
                    return Exchanged {
                        lines,
                        closed: true,
                    };
                }
                assert!(line.ends_with('\n'), "half a line: {line:?}");
                let line: Value = serde_json::from_str(&line).expect("the server sends JSON");
                if line["tid"] == PING_TID {
                    assert_eq!(line["result"], "ok", "{line}");
                    return Exchanged {
                        lines,
                        closed: false,
                    };
                }
                lines.push(line);
            }
        };
        tokio::join!(write, read).1
    }
}

/// What came back.
pub struct Exchanged {
    /// The lines.
    pub lines: Vec<Value>,
    /// Whether the server closed the connection.
    pub closed: bool,
}

const PING_TID: &str = "the last one";
const PING: &str = concat!(
    "\n",
    r#"{"class":"chat","subclass":"session","cmd":"ping","tid":"the last one"}"#,
    "\n"
);
