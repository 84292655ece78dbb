//! The scenarios: what each sets up, sends, and makes of what comes back.

mod chat;
mod fanout;
mod pages;
mod simple;
mod storage;

pub use fanout::TEXT_MIN_BYTES as FANOUT_TEXT_MIN_BYTES;

use super::arguments::{Plan, Scenario};
use super::connection::Pool;
use super::control::{Control, message};
use super::driver::{Load, Until, Work, drive};
use super::progress::Progress;
use super::report::Report;
use super::{Failure, Target};

/// Connections and requests in flight that fill a conversation before it is measured.
const FILL: (usize, usize) = (16, 64);

/// Where a scenario runs, and with what.
struct Stage<'a> {
    plan: &'a Plan,
    target: &'a Target,
    control: &'a mut Control,
    progress: &'a Progress,
}

/// Runs a scenario.
pub fn run(
    plan: &Plan,
    target: &Target,
    control: &mut Control,
    progress: &Progress,
) -> Result<Report, Failure> {
    let mut stage = Stage {
        plan,
        target,
        control,
        progress,
    };
    match plan.scenario {
        Scenario::Ping => simple::ping(&stage),
        Scenario::Send => simple::send(&mut stage),
        Scenario::Login => simple::login(&mut stage),
        Scenario::Fanout => fanout::run(&mut stage),
        Scenario::History => pages::history(&mut stage),
        Scenario::Search => pages::search(&mut stage),
        Scenario::Mixed => chat::run(&mut stage),
        Scenario::Idle => storage::idle(&stage),
        Scenario::Delete => storage::delete(&mut stage),
    }
}

impl Stage<'_> {
    /// The plan's load, on the first connections.
    fn load(&self, senders: usize, what: &'static str) -> Load {
        Load {
            senders: 0..senders,
            pipeline: self.plan.pipeline,
            until: Until::Time(self.plan.duration),
            rate: self.plan.rate,
            timeout: self.plan.timeout,
            what,
        }
    }

    /// Sends one line on each of the first connections, and waits for all answers.
    fn once(
        &self,
        pool: &mut Pool,
        connections: usize,
        what: &'static str,
        line: &mut dyn FnMut(usize) -> String,
    ) -> Result<(), Failure> {
        let load = Load {
            pipeline: 1,
            until: Until::Count(connections as u64),
            rate: None,
            ..self.load(connections, what)
        };
        let outcome = drive(pool, &mut Once(line), &load, self.progress)?;
        outcome
            .problem
            .map_or(Ok(()), |text| Err(Failure::Run(text)))
    }

    /// Fills a conversation with messages, the `n`th of them with the text that `text` gives for `n`.
    fn fill(
        &self,
        conversation: &str,
        user: &str,
        count: usize,
        text: &mut dyn FnMut(usize) -> String,
    ) -> Result<(), Failure> {
        let (connections, pipeline) = FILL;
        let mut pool = Pool::open(&self.target.address, connections)?;
        let load = Load {
            pipeline,
            until: Until::Count(count as u64),
            rate: None,
            ..self.load(connections, "filling")
        };
        let mut filling = Filling {
            conversation,
            user,
            text,
            next: 0,
        };
        let outcome = drive(&mut pool, &mut filling, &load, self.progress)?;
        outcome
            .problem
            .map_or(Ok(()), |text| Err(Failure::Run(text)))
    }
}

/// One line on each connection.
struct Once<'a>(&'a mut dyn FnMut(usize) -> String);

impl Work for Once<'_> {
    fn request(&mut self, connection: usize, _: u64, out: &mut Vec<u8>) -> Option<usize> {
        out.extend_from_slice((self.0)(connection).as_bytes());
        Some(0)
    }
}

/// Messages that are there before anything is measured.
struct Filling<'a> {
    conversation: &'a str,
    user: &'a str,
    text: &'a mut dyn FnMut(usize) -> String,
    next: usize,
}

impl Work for Filling<'_> {
    fn request(&mut self, _: usize, _: u64, out: &mut Vec<u8>) -> Option<usize> {
        let text = (self.text)(self.next);
        self.next += 1;
        out.extend_from_slice(message(self.conversation, self.user, &text).as_bytes());
        Some(0)
    }
}

/// Words of which texts are made, so that they look like messages and not like one long word.
const WORDS: [&str; 32] = [
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbour", "island", "jetty",
    "kelp", "lagoon", "meadow", "north", "ocean", "pebble", "quarry", "river", "summit", "tundra",
    "upland", "valley", "willow", "yarrow", "zephyr", "brook", "cliff", "dune", "estuary",
    "forest", "glacier", "heath",
];

/// A text of so many bytes, made of words that depend on its number.
fn text(number: usize, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    let mut mixed = number as u64;
    while text.len() < bytes {
        // Knuth's multiplicative generator, whose high bits are mixed best.
        mixed = mixed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let place = usize::try_from(mixed >> 59).unwrap_or(0);
        text.push_str(WORDS.get(place).copied().unwrap_or_default());
        text.push(' ');
    }
    text.truncate(bytes);
    // A cut between two words may leave a space at the end.
    if text.ends_with(' ') {
        text.pop();
        text.push('s');
    }
    text
}
