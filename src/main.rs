//! The command line of chatd.

use chatd::bench;
use chatd::config::{Address, Config, Overrides};
use chatd::log;
use chatd::model::Clock;
use chatd::server::{Ending, Server, StartError};
use chatd::tls::Tls;
use clap::{Parser, Subcommand};
use nix::unistd::{Uid, User};
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// sled makes a new node for each key that it takes, and the C library's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration cannot be used (`EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;
/// What chatd needs is not there now, and may be later (`EX_TEMPFAIL`).
const EXIT_TEMPORARY: u8 = 75;
/// The storage cannot be opened, or failed (`EX_IOERR`).
const EXIT_STORAGE: u8 = 74;
/// The file that is read when none is named and it is there.
const CONFIG_FILE: &str = "chatd.toml";

/// A chat back end: newline-delimited JSON over TCP.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    instead: Option<Instead>,
    /// The configuration file; chatd.toml, if there is one here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen on IP:PORT or unix:PATH, instead of where the file says; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Where the data is, instead of where the file says
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long)]
    check_config: bool,
    /// Let the data be written in this version's format from now on, and exit; older versions then refuse them
    #[arg(long, conflicts_with = "check_config")]
    upgrade: bool,
}

/// What the program does instead of being the daemon.
#[derive(Subcommand)]
enum Instead {
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    forbid_core_dumps();
    let _flush = log::Flush;
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            // What is wrong comes before the first blank line, on one line or several.
            let said: Vec<&str> = text
                .lines()
                .map(str::trim)
                .take_while(|line| !line.is_empty())
                .collect();
            let said = said.join(" ");
            let bench = std::env::args_os().any(|argument| argument == "bench");
            let help = if bench { "chatd bench" } else { "chatd" };
            return fail(
                EXIT_CONFIG,
                format!("{}; see {help} --help", said.trim_start_matches("error: ")),
            );
        }
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match arguments.instead {
        Some(Instead::Bench(arguments)) => return bench::run(&arguments),
        None => {}
    }
    // Whatever chatd makes is for its own user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let path = arguments
        .config
        .or_else(|| Some(PathBuf::from(CONFIG_FILE)).filter(|path| path.exists()));
    // Under systemd the unit says where the data is: in the first of its state directories.
    let data_dir = arguments.data_dir.or_else(|| {
        let directories = std::env::var_os("STATE_DIRECTORY")?;
        let mut directories = directories.as_bytes().split(|byte| *byte == b':');
        let first = directories.find(|path| !path.is_empty())?;
        Some(PathBuf::from(OsStr::from_bytes(first)))
    });
    let overrides = Overrides {
        listen: arguments.listen,
        data_dir,
    };
    let config = match Config::load(path.as_deref(), overrides) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_CONFIG, error.0),
    };
    if let Err(error) = log::start(&config.log) {
        return fail(EXIT_CONFIG, error);
    }
    if let Err(error) = config
        .listen
        .iter()
        .flat_map(|listen| &listen.tls)
        .try_for_each(|files| Tls::load(files).map(drop))
    {
        return fail(EXIT_CONFIG, error);
    }
    if arguments.check_config {
        let name = path
            .as_deref()
            .unwrap_or(Path::new("the default configuration"));
        let has_keys = config.listen.iter().any(|listen| listen.tls.is_some());
        // The daemon may run as somebody else, who cannot read them.
        let read_by = if has_keys {
            format!("; its keys and certificates were read as {}", own_name())
        } else {
            String::new()
        };
        say(format_args!("{} is in order{read_by}", name.display()));
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(
                EXIT_TEMPORARY,
                format!("the runtime cannot be started: {error}"),
            );
        }
    };
    if arguments.upgrade {
        return runtime.block_on(upgrade(&config));
    }
    let code = runtime.block_on(run(&config));
    // A search that is still under way is not waited for.
    runtime.shutdown_background();
    code
}

async fn upgrade(config: &Config) -> ExitCode {
    match chatd::server::upgrade(config, &Clock::system()).await {
        Ok(()) => {
            let data_dir = config.data_dir.display();
            say(format_args!(
                "the data in {data_dir} are written in the format of chatd {} from now on",
                env!("CARGO_PKG_VERSION")
            ));
            ExitCode::SUCCESS
        }
        Err(error) => fail(EXIT_STORAGE, error),
    }
}

/// How many threads serve connections: one core is left to the store's own thread. With as many as cores, they wake each
/// other more than they help: two on two cores answer a quarter fewer pings that come one at a time.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

async fn run(config: &Config) -> ExitCode {
    let stop = CancellationToken::new();
    let Ok(mut signals) = Signals::hear() else {
        return fail(EXIT_TEMPORARY, "signals cannot be heard");
    };
    let starting = Server::start(config, Clock::system(), &stop);
    let mut starting = pin!(starting);
    let started = loop {
        tokio::select! {
            started = &mut starting => break started,
            heard = signals.next() => match heard {
                Heard::Stop => stop.cancel(),
                // What is read at a start is new anyway.
                Heard::Reload => {}
            }
        }
    };
    let server = match started {
        Ok(server) => server,
        Err(StartError::Config(text)) => return fail(EXIT_CONFIG, text),
        Err(StartError::Temporary(text)) => return fail(EXIT_TEMPORARY, text),
        Err(StartError::Store(error)) => return fail(EXIT_STORAGE, error),
        Err(StartError::Stopped) => {
            tracing::info!("stopped");
            return ExitCode::SUCCESS;
        }
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data_dir = %config.data_dir.display(), "started");
    say(format_args!(
        "chatd {} opened {}",
        env!("CARGO_PKG_VERSION"),
        config.data_dir.display()
    ));
    for (address, access, _) in server.listeners() {
        say(format_args!(
            "listening on {address} access={}",
            access.as_str()
        ));
    }
    if let Some((address, _, tls)) = server.listeners().next() {
        let request = r#"echo '{"class":"chat","subclass":"server","cmd":"info","tid":1}'"#;
        match address {
            // At the end of its input openssl goes, answered or not.
            Address::Tcp(address) if tls => say(format_args!(
                "try: ({request}; sleep 1) | openssl s_client -quiet -no_ign_eof -connect {address}"
            )),
            Address::Tcp(address) => say(format_args!(
                "try: {request} | nc -N {} {}",
                address.ip(),
                address.port()
            )),
            Address::Unix(path) => {
                say(format_args!("try: {request} | nc -N -U {}", path.display()));
            }
        }
    }
    let reloader = server.reloader();
    let ending = server
        .run(async {
            while !stop.is_cancelled() {
                match signals.next().await {
                    Heard::Stop => stop.cancel(),
                    Heard::Reload => reloader.reload(),
                }
            }
            tracing::info!("stopping");
        })
        .await;
    match ending {
        Ending::Stopped => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Ending::Failed => fail(EXIT_STORAGE, "it has failed; the log says why"),
    }
}

/// The signals that the daemon listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
enum Heard {
    Stop,
    Reload,
}

impl Signals {
    fn hear() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.interrupt.recv() => Heard::Stop,
            _ = self.hang_up.recv() => Heard::Reload,
        }
    }
}

/// The user that this process runs as.
fn own_name() -> String {
    let uid = Uid::effective();
    match User::from_uid(uid) {
        Ok(Some(user)) => format!("{} (user id {uid})", user.name),
        _ => format!("user id {uid}"),
    }
}

/// Keeps passwords and hashes that are in memory from reaching a core dump, or another process of the same user.
fn forbid_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Says something on standard output, whether or not anyone listens there.
fn say(text: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn fail(code: u8, text: impl Display) -> ExitCode {
    log::say(text);
    ExitCode::from(code)
}
