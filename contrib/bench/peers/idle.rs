//! Connections that only stand there: how much of the server's memory each takes.
//!
//! The proportional set size is read, over the server's process and its children, so that a server with a process for
//! each connection is not charged many times for the pages that they share. For a single process it is its resident
//! set. What the kernel holds for sockets is the same for all and is not in it.

use crate::pool::Pool;
use crate::report;
use crate::{Idle, Outcome, Server};
use serde_json::{Value, json};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A server may put off work for new connections; a reading is taken when two of them, so far apart, are alike.
const SETTLING: Duration = Duration::from_secs(1);
/// Readings that are this close are alike.
const ALIKE_BYTES: u64 = 64 * 1024;
/// Readings to take before a server that never settles is taken as it is.
const MAX_READINGS: usize = 15;

/// Runs it.
pub fn run(arguments: &Idle) -> Outcome<Value> {
    let before = settled_bytes(arguments.pid)?;
    let began = Instant::now();
    let Server { kind, address } = arguments.server;
    let pool = Pool::open(kind, address, arguments.connections)?;
    let took = began.elapsed();
    let after = settled_bytes(arguments.pid)?;
    drop(pool);
    let count = arguments.connections;
    let mut figures = report::figures("idle", &arguments.server, took, count, None);
    figures["connections"] = json!(count);
    figures["rss_before_bytes"] = json!(before);
    figures["rss_after_bytes"] = json!(after);
    figures["bytes_per_connection"] = json!(after.saturating_sub(before) / count.max(1) as u64);
    Ok(figures)
}

fn settled_bytes(pid: u32) -> Outcome<u64> {
    let mut last = family_bytes(pid)?;
    for _ in 0..MAX_READINGS {
        sleep(SETTLING);
        let now = family_bytes(pid)?;
        if now.abs_diff(last) <= ALIKE_BYTES {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

/// The proportional set size of a process and of all that descend from it.
fn family_bytes(pid: u32) -> Outcome<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kibibytes: u64 = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"))
        .ok_or("no Pss in smaps_rollup")?
        .parse()?;
    let mut bytes = kibibytes * 1024;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children"))?;
        for child in children.split_whitespace() {
            bytes += family_bytes(child.parse()?)?;
        }
    }
    Ok(bytes)
}
