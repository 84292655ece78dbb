//! `chatd bench`: puts load on a chatd and says how many answers and events it gives in a second, and how long they take.
//!
//! It is a client like any other: it knows the wire's lines, and nothing of the store, the hub or the sessions. It shares
//! the machine with the daemon that it measures, so it runs on one thread, keeps no more of an answer than it must, and
//! allocates nothing for a request. Every answer and every event is counted: one that is missing or wrong is an error.
//!
//! - `arguments`: the command line, and what it means for a scenario.
//! - `daemon`: the daemon that a run starts for itself.
//! - `control`: one connection that asks and waits: what a scenario sets up before it measures.
//! - `connection`, `driver`, `schedule`: many connections on one thread, kept busy or on a schedule, and the counting.
//! - `scenario`: what is asked, and what the answers must look like.
//! - `report`: figures for people and for programs.

mod arguments;
mod connection;
mod control;
mod daemon;
mod driver;
mod interrupt;
mod progress;
mod report;
mod scenario;
mod schedule;

pub use arguments::Arguments;

use arguments::Plan;
use control::Control;
use daemon::Daemon;
use progress::Progress;
use report::Report;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// An answer or an event was missing or wrong, or the run could not be done.
const EXIT_FAILED: u8 = 1;
/// The command line asks for what cannot be (`EX_CONFIG`, as the daemon's).
const EXIT_USAGE: u8 = 78;
/// Ended by ctrl-c.
const EXIT_INTERRUPTED: u8 = 130;

/// Why a run ended without a result.
#[derive(Debug)]
enum Failure {
    /// What was asked for cannot be.
    Usage(String),
    /// The run could not be done.
    Run(String),
    /// The user ended it.
    Interrupted,
}

impl Failure {
    fn run(text: impl Into<String>) -> Self {
        Self::Run(text.into())
    }
}

/// The daemon under load.
struct Target {
    /// A trusted listener.
    address: String,
    /// Where clients log in.
    login_address: String,
    /// The daemon's process, where it is known.
    pid: Option<u32>,
    /// The daemon, where this run started it; it ends with it.
    own: Option<Daemon>,
}

/// Runs what the command line asks for, and prints what came of it.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    let outcome = arguments.plans().and_then(|plans| {
        connection::raise_descriptor_limit(&plans)?;
        interrupt::listen()?;
        let mut sound = true;
        for (number, plan) in plans.iter().enumerate() {
            let report = one(arguments, plan)?;
            if let Some(problem) = &report.problem {
                complain(format_args!("{}: {problem}", report.scenario));
                sound = false;
            }
            show(arguments, &report, number == 0);
        }
        Ok(sound)
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILED),
        Err(Failure::Usage(text)) => {
            complain(format_args!("{text}; see chatd bench --help"));
            ExitCode::from(EXIT_USAGE)
        }
        Err(Failure::Run(text)) => {
            complain(text);
            ExitCode::from(EXIT_FAILED)
        }
        Err(Failure::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
    }
}

/// Runs one scenario, on a daemon of its own unless an address was given.
fn one(arguments: &Arguments, plan: &Plan) -> Result<Report, Failure> {
    let target = match &arguments.address {
        Some(address) => Target {
            address: address.clone(),
            login_address: arguments.login_address.as_ref().unwrap_or(address).clone(),
            pid: arguments.pid,
            own: None,
        },
        None => Daemon::start(plan)?,
    };
    let bars = !arguments.json && std::io::stdout().is_terminal();
    let progress = Progress::new(plan.scenario.name(), bars);
    let mut control = Control::open(&target.address, plan.timeout)?;
    let report = scenario::run(plan, &target, &mut control, &progress);
    progress.end();
    if target.own.is_none() {
        let removed = control.remove_all();
        if report.is_ok() {
            removed?;
        }
    }
    match report {
        Err(Failure::Run(text)) => Err(Failure::Run(match &target.own {
            Some(daemon) => daemon.explain(&text),
            None => text,
        })),
        other => other,
    }
}

fn show(arguments: &Arguments, report: &Report, first: bool) {
    let mut out = std::io::stdout().lock();
    let text = if arguments.json {
        report.json()
    } else {
        report.table(first)
    };
    // Whoever reads may have gone away; the exit code says the rest.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "chatd bench: {text}");
}
