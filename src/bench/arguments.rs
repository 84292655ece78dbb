//! The command line of `chatd bench`, and what it means for each scenario.

use super::Failure;
use super::scenario::FANOUT_TEXT_MIN_BYTES;
use clap::{Args, ValueEnum, value_parser};
use std::time::Duration;

/// Puts load on a chatd and says how many answers and events it gives, and how long they take.
///
/// Without --rate each connection sends its next requests as soon as earlier ones are answered (a closed loop): it
/// shows what the daemon can do, and its latencies are those of so many requests in flight. A daemon that pauses is
/// then asked less meanwhile, so the pause shows in few of them. With --rate requests are sent on a fixed schedule,
/// whatever the daemon does, and each latency counts from the moment at which the schedule wanted the request sent:
/// it is what clients that come by themselves would see.
///
/// Every answer and event is counted. If one is missing or wrong, that is said on standard error and the exit code is 1.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// What to do; a short tour of the main scenarios, if left out
    scenario: Option<Scenario>,
    /// A trusted listener, IP:PORT or unix:PATH: what the run makes there it removes at the end. If left out, each
    /// scenario starts a daemon of its own on a temporary directory (TMPDIR says where)
    #[arg(long, value_name = "ADDRESS")]
    pub(super) address: Option<String>,
    /// login: where to log in, if not at --address itself
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    pub(super) login_address: Option<String>,
    /// idle: the process of the daemon at --address
    #[arg(long, requires = "address")]
    pub(super) pid: Option<u32>,
    /// Connections at the same time; fanout: subscribers, beside the one that sends
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    connections: Option<u32>,
    /// Requests in flight on each connection; fanout: messages under way, sent and not yet with all subscribers
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=100_000))]
    pipeline: Option<u32>,
    /// How long to send requests; 10, or 3 for each scenario of the tour
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// Bytes in a message's text; ping: in its data, 0 if left out
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u32).range(0..=98_304))]
    payload: Option<u32>,
    /// Requests a second, over all connections, on a fixed schedule
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// history, search, delete: messages in the large conversation
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    messages: Option<u32>,
    /// Seconds without a single answer or event after which what is still awaited counts as missing
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,
    /// For programs: one JSON object for each scenario, on a line of its own
    #[arg(long)]
    pub(super) json: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub enum Scenario {
    /// `session ping`, answered without the store
    Ping,
    /// Durable messages, spread over a quarter as many conversations as connections
    Send,
    /// One sends, all the others are subscribed: deliveries a second, and the time from sending to arrival
    Fanout,
    /// The newest page of 50 of a long conversation and of one with 200 messages, in turns
    History,
    /// Searches in a long conversation: words, a prefix, an author, a time, an older page
    Search,
    /// `session login`, half of the time with a password and half with a token
    Login,
    /// What an idle connection costs the daemon in memory
    Idle,
    /// A chat day: messages, pages, edits, joins, and everybody subscribed to its conversation
    Mixed,
    /// Messages and pings beside the deletion of a large conversation, and before it
    Delete,
}

/// A scenario with its figures.
pub struct Plan {
    /// What to do.
    pub scenario: Scenario,
    /// Connections at the same time.
    pub connections: usize,
    /// Requests in flight on each.
    pub pipeline: usize,
    /// How long to send requests.
    pub duration: Duration,
    /// Bytes in a text.
    pub payload_bytes: usize,
    /// Requests a second, if they follow a schedule.
    pub rate: Option<f64>,
    /// Messages in the large conversation.
    pub messages: usize,
    /// How long anything may be silent while something is awaited.
    pub timeout: Duration,
}

/// The tour, in order.
const TOUR: [Scenario; 7] = [
    Scenario::Ping,
    Scenario::Send,
    Scenario::Fanout,
    Scenario::History,
    Scenario::Search,
    Scenario::Mixed,
    Scenario::Idle,
];

const DURATION: Duration = Duration::from_secs(10);
const TOUR_DURATION: Duration = Duration::from_secs(3);

impl Scenario {
    /// The name on the command line and in the output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Send => "send",
            Self::Fanout => "fanout",
            Self::History => "history",
            Self::Search => "search",
            Self::Login => "login",
            Self::Idle => "idle",
            Self::Mixed => "mixed",
            Self::Delete => "delete",
        }
    }

    /// Connections, requests in flight on each, bytes in a text, and messages, where the command line says nothing.
    const fn defaults(self) -> (u32, u32, u32, u32) {
        match self {
            Self::Ping => (50, 1, 0, 0),
            Self::Send => (64, 16, 200, 0),
            Self::Fanout => (1000, 16, 200, 0),
            Self::History => (1, 1, 200, 40_000),
            Self::Search => (4, 1, 200, 10_000),
            Self::Login => (16, 1, 0, 0),
            Self::Idle => (1000, 1, 0, 0),
            Self::Mixed => (64, 4, 200, 0),
            Self::Delete => (8, 1, 200, 200_000),
        }
    }
}

impl Arguments {
    /// The scenarios that are asked for, in their order.
    pub(super) fn plans(&self) -> Result<Vec<Plan>, Failure> {
        if let Some(scenario) = self.scenario {
            return Ok(vec![self.plan(scenario, DURATION)?]);
        }
        // Memory can only be measured where the process is known.
        let possible = |&scenario: &Scenario| {
            scenario != Scenario::Idle || self.address.is_none() || self.pid.is_some()
        };
        TOUR.into_iter()
            .filter(possible)
            .map(|scenario| self.plan(scenario, TOUR_DURATION))
            .collect()
    }

    fn plan(&self, scenario: Scenario, duration: Duration) -> Result<Plan, Failure> {
        let (connections, pipeline, payload, messages) = scenario.defaults();
        let number = |given: Option<u32>, default| given.unwrap_or(default) as usize;
        let mut plan = Plan {
            scenario,
            connections: number(self.connections, connections),
            pipeline: number(self.pipeline, pipeline),
            duration: self.seconds.unwrap_or(duration),
            payload_bytes: number(self.payload, payload),
            rate: self.rate,
            messages: number(self.messages, messages),
            timeout: self.timeout,
        };
        match scenario {
            Scenario::Idle if self.address.is_some() && self.pid.is_none() => {
                return usage(
                    "idle reads the daemon's memory: beside --address it needs --pid".into(),
                );
            }
            Scenario::Idle => {
                (plan.pipeline, plan.payload_bytes, plan.rate) = (1, 0, None);
            }
            Scenario::Fanout if plan.payload_bytes < FANOUT_TEXT_MIN_BYTES => {
                return usage(format!(
                    "fanout writes a number and a time into each text: --payload must be at least {FANOUT_TEXT_MIN_BYTES}"
                ));
            }
            Scenario::Login => plan.payload_bytes = 0,
            Scenario::Ping | Scenario::Fanout => {}
            _ if plan.payload_bytes == 0 => {
                return usage("a message has a text: --payload must be at least 1".into());
            }
            _ => {}
        }
        Ok(plan)
    }
}

fn usage<T>(text: String) -> Result<T, Failure> {
    Err(Failure::Usage(text))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let most = 86_400.0;
    match text.parse() {
        Ok(seconds) if (0.01..=most).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("not 0.01 to {most} seconds")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let most = 10_000_000.0;
    match text.parse() {
        Ok(rate) if (0.1..=most).contains(&rate) => Ok(rate),
        _ => Err(format!("not 0.1 to {most} a second")),
    }
}
