//! What the daemon holds and throws away: `idle` and `delete`.

use super::{Stage, text};
use crate::bench::Failure;
use crate::bench::connection::Pool;
use crate::bench::control::{message, request};
use crate::bench::daemon::resident_bytes;
use crate::bench::driver::{Load, Until, Work, drive};
use crate::bench::report::{Details, Report};
use serde_json::json;
use std::time::{Duration, Instant};

/// `idle`: every connection makes one request, so that the daemon has really taken it, and then none.
pub fn idle(stage: &Stage<'_>) -> Result<Report, Failure> {
    let Some(pid) = stage.target.pid else {
        return Err(Failure::Usage("idle needs --pid".to_owned()));
    };
    let connections = stage.plan.connections;
    let before = resident_bytes(pid)?;
    let mut pool = Pool::open(&stage.target.address, connections)?;
    let load = Load {
        until: Until::Count(connections as u64),
        ..stage.load(connections, "")
    };
    let outcome = drive(&mut pool, &mut Ping, &load, stage.progress)?;
    let after = resident_bytes(pid)?;
    let details = Details::Idle {
        rss_before_bytes: before,
        rss_after_bytes: after,
        bytes_per_connection: after.saturating_sub(before) / connections as u64,
    };
    Report::new(stage.plan, &stage.target.address, outcome, details)
}

struct Ping;

impl Work for Ping {
    fn request(&mut self, _: usize, _: u64, out: &mut Vec<u8>) -> Option<usize> {
        out.extend_from_slice(request("session", "ping", &json!({})).as_bytes());
        Some(0)
    }
}

/// `delete`: half of the time before the deletion, half beside it.
pub fn delete(stage: &mut Stage<'_>) -> Result<Report, Failure> {
    let user = stage.control.user()?;
    let large = stage.control.conversation(&user)?;
    let other = stage.control.conversation(&user)?;
    let payload = stage.plan.payload_bytes;
    stage.fill(&large, &user, stage.plan.messages, &mut |number| {
        text(number, payload)
    })?;
    let address = &stage.target.address;
    let mut pool = Pool::open(address, stage.plan.connections)?;
    let mut work = Alternating {
        lines: [
            message(&other, &user, &text(0, payload)),
            request("session", "ping", &json!({})),
        ],
        next: vec![0; stage.plan.connections],
    };
    let half = |what| Load {
        until: Until::Time(stage.plan.duration / 2),
        ..stage.load(stage.plan.connections, what)
    };
    let load = (half("before the deletion"), half("beside the deletion"));
    let before = drive(&mut pool, &mut work, &load.0, stage.progress)?;
    let (control, progress) = (&mut *stage.control, stage.progress);
    let (outcome, deleted) = std::thread::scope(|scope| {
        let deleting = scope.spawn(|| -> Result<Duration, Failure> {
            let began = Instant::now();
            control.call("conversation", "delete", &json!({"conversation_id": large}))?;
            control.forget_conversation(&large);
            Ok(began.elapsed())
        });
        let outcome = drive(&mut pool, &mut work, &load.1, progress);
        (outcome, deleting.join())
    });
    let delete = deleted.map_err(|_| Failure::run("the deletion could not be asked for"))??;
    let (mut outcome, times) = (outcome?, before.all_times()?);
    outcome.errors += before.errors;
    outcome.problem = before.problem.or(outcome.problem);
    let details = Details::Delete {
        messages: stage.plan.messages,
        delete_us: u64::try_from(delete.as_micros()).unwrap_or(u64::MAX),
        before_latency_us: (&times).into(),
    };
    Report::new(stage.plan, address, outcome, details)
}

/// A message and a ping, in turns.
struct Alternating {
    lines: [String; 2],
    next: Vec<usize>,
}

impl Work for Alternating {
    fn request(&mut self, connection: usize, _: u64, out: &mut Vec<u8>) -> Option<usize> {
        let next = self.next.get_mut(connection)?;
        out.extend_from_slice(self.lines.get(*next)?.as_bytes());
        *next = 1 - *next;
        Some(0)
    }
}
