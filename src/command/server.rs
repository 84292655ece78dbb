//! The commands of subclass `server` (protocol.md, 8).

use super::fields::{Opaque, fields};
use super::reference::describe;
use super::{Access, Action, Command, Context, Step, TABLE, data, find};
use crate::error::{Code, Error, excerpt};
use crate::model::{Id, Seq, Subclass};
use crate::spelling::nearest;
use crate::store::Principal;
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;

/// The version of the protocol.
const PROTOCOL: u32 = 1;

fields! {
    /// `server info`.
    Info {}
}

impl Command for Info {
    const SUBCLASS: Subclass = Subclass::Server;
    const NAME: &'static str = "info";
    const ACCESS: Access = Access::Everyone;
    const HELP: &'static str = "Says what this server is, how much it holds, and its limits.";
    const ANSWER: &'static str = "version, protocol, uptime_seconds, users, conversations, messages, connections, seq, epoch, limits, counters. A user is not told how much there is; a stranger only protocol and limits";
    const EXAMPLE: &'static str = "{}";

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        let limits = context.limits.clone();
        let mut shown = Shown {
            protocol: PROTOCOL,
            limits,
            about: None,
            counts: None,
        };
        if context.by == Principal::Nobody {
            return data(&shown).map(Step::Answer);
        }
        let server = (context.server)();
        shown.about = Some(About {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: server.uptime_seconds,
            epoch: server.epoch,
        });
        let (connections, seq) = (server.connections, server.seq);
        let mut counters: BTreeMap<_, _> = server.counters.all().into_iter().collect();
        counters.insert("memory_bytes_pending", server.memory_bytes_pending);
        Ok(Step::Act(Action::Count(Box::new(move |counts| {
            shown.counts = counts.map(|counts| Counted {
                counts,
                connections,
                seq,
                counters,
            });
            data(&shown).unwrap_or_else(|_| Bytes::from_static(b"{}"))
        }))))
    }
}

/// What `server info` shows: to strangers, to users, and to those who may know everything.
#[derive(Serialize)]
struct Shown {
    protocol: u32,
    #[serde(flatten)]
    about: Option<About>,
    #[serde(flatten)]
    counts: Option<Counted>,
    limits: crate::limits::Limits,
}

#[derive(Serialize)]
struct About {
    version: &'static str,
    uptime_seconds: u64,
    epoch: Id,
}

#[derive(Serialize)]
struct Counted {
    #[serde(flatten)]
    counts: crate::store::Counts,
    connections: usize,
    seq: Seq,
    counters: BTreeMap<&'static str, u64>,
}

fields! {
    /// `server help`.
    Help {
        /// The commands of this subclass only.
        subclass: Option<Opaque>,
        /// The commands of this name only.
        cmd: Option<Opaque>,
    }
}

impl Command for Help {
    const SUBCLASS: Subclass = Subclass::Server;
    const NAME: &'static str = "help";
    const ACCESS: Access = Access::Everyone;
    const HELP: &'static str =
        "Describes the commands: fields, types, limits, who may use them, an example.";
    const ANSWER: &'static str = "commands";
    const EXAMPLE: &'static str = r#"{"subclass":"message","cmd":"create"}"#;
    const ERRORS: &'static [Code] = &[Code::UnknownSubclass, Code::UnknownCommand];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        let subclass = self.subclass.map(|Opaque(name)| name);
        let cmd = self.cmd.map(|Opaque(name)| name);
        if let Some(subclass) = &subclass {
            // The refusal of an unknown name lists those there are.
            let known = TABLE
                .iter()
                .find(|row| row.subclass.as_str() == subclass)
                .map_or("", |row| row.name);
            find(subclass, cmd.as_deref().unwrap_or(known))?;
        }
        let wanted = TABLE.iter().filter(|row| {
            subclass
                .as_deref()
                .is_none_or(|subclass| row.subclass.as_str() == subclass)
                && cmd.as_deref().is_none_or(|cmd| row.name == cmd)
        });
        let commands: Vec<_> = wanted.map(|row| describe(row, context.limits)).collect();
        if commands.is_empty() {
            let name = cmd.as_deref().unwrap_or_default();
            let meant = nearest(name, TABLE.iter().map(|row| row.name));
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            let text = format!("no subclass has the command {}{meant}", excerpt(name));
            return Err(Error::new(Code::UnknownCommand, text).field("cmd"));
        }
        data(&Commands { commands }).map(Step::Answer)
    }
}

#[derive(Serialize)]
struct Commands<T> {
    commands: Vec<T>,
}
