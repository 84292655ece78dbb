//! Black-box tests: every one starts the real chatd and talks to it the way a client does.
//!
//! Nothing here knows how the daemon is built; what may be expected of it stands in the protocol document alone. The one
//! exception is `store`, which drives the library's stores.
//! No test sleeps, uses a fixed port, or depends on another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod auditing;
mod bench;
mod clock;
mod crash;
mod data_dir;
mod deletions;
mod differential;
mod directory;
mod disk;
mod endings;
mod envelope;
mod fail2ban;
mod formats;
mod gone;
mod habits;
mod harness;
mod hostile;
mod journal;
mod ledger;
mod lifecycle;
mod limits;
mod lines;
mod listeners;
mod logging;
mod memberships;
mod memory;
mod model;
mod opening;
mod operation;
mod passwords;
mod power;
mod proxies;
mod quotas;
mod random;
mod reference;
mod retention;
mod rights;
mod secrets;
mod service;
mod siege;
mod sight;
mod slow;
mod store;
mod subscriptions;
mod taken_back;
mod threats;
mod timing;
mod tls;
mod transcripts;
mod unicode;
mod values;
mod visible;
