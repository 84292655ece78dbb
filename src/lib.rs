//! chatd: a chat back end in one small binary, newline-delimited JSON over TCP and Unix sockets.
//!
//! One process, four stations, one direction:
//!
//! ```text
//!   socket ──lines──▶ session ──request──▶ command table ──operation──▶ store actor ──▶ journal (fdatasync) ──▶ sled
//!      ▲                                                                    │
//!      └────── outbox ◀── replies, in request order ◀───────────────────────┤
//!      └────── outbox ◀── events, by subscription ◀── hub ◀── committed ────┘
//! ```
//!
//! - [`session`]: one per connection. Cuts lines, keeps the order of answers, owns the outbox, and knows who is logged in.
//! - [`command`]: one type and one row per command; parser, help and reference come from it.
//! - [`store`]: one thread that decides, writes and syncs rounds of operations; reads run beside it.
//! - [`hub`]: who is subscribed to what, and may see it; gives each committed event to those it concerns, encoded once.
//!
//! Before a connection is served, [`server`] has it admitted by the [`registry`], which knows who is connected and can
//! close each of them. Who may use a command is decided before it is read (its row in the table), rights to an object
//! where the object is read (`store/rules/`), the sight of an event when it is delivered ([`hub`]). [`throttle`] bounds
//! what strangers may ask for, [`auth`] what their passwords may cost; [`audit`] writes down what they and the admins do.
//!
//! Beside it stands [`bench`], the load tool: a client that happens to be in the same binary, and uses none of the above.
//!
//! **Invariants.** Identity comes from the connection; a `user_id` in a request is data. No layer calls back up. A command never touches a socket. Only `store/` knows sled, only `auth.rs`
//! knows bcrypt. Nothing is answered `ok` before it is on stable storage. Every queue has a bound, named in `limits.rs`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod audit;
pub mod auth;
pub mod bench;
pub mod command;
pub mod config;
pub mod counters;
pub mod error;
pub mod hub;
pub mod limits;
pub mod log;
pub mod memory;
pub mod model;
pub mod registry;
pub mod server;
pub mod session;
pub mod spelling;
pub mod store;
pub mod throttle;
pub mod tls;
pub mod wire;
