//! The load client for the servers that chatd is compared with: NATS, Redis, an IRC server, `PostgreSQL`.
//!
//! It does with them what `chatd bench` does with chatd, in the same way, so that a delivery costs the client the same:
//! one thread waits for all connections with epoll, reads each through one large buffer, finds the ends of lines with
//! memchr, and reads the clock once for what one read brought. It speaks the servers' own text protocols, counts every
//! delivery and every answer, and fails on any that is missing, wrong, doubled or out of order. It prints the same JSON.

mod fanout;
mod idle;
mod pool;
mod protocol;
mod report;
mod request;

use clap::{Args, Parser, Subcommand};
use protocol::Kind;
use request::What;
use std::error::Error;
use std::net::SocketAddr;

/// What may go wrong is told to a person and ends the run.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Puts load on a server that chatd is compared with.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// One sender, many subscribers of one room
    Fanout(Fanout),
    /// Memory per connection that only stands there
    Idle(Idle),
    /// Requests, each answered: messages stored by `JetStream` or in streams of Redis, pings of Redis
    Request(Request),
}

#[derive(Args)]
struct Server {
    /// Which protocol it speaks
    #[arg(long)]
    kind: Kind,
    /// Where it listens
    #[arg(long)]
    address: SocketAddr,
}

#[derive(Args)]
struct Fanout {
    #[command(flatten)]
    server: Server,
    /// Connections that receive
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Messages that were sent and have not reached every subscriber yet, at most
    #[arg(long, default_value_t = 16)]
    pipeline: usize,
    /// Bytes in a message
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// How long to send
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// chatd: the conversation that is the room
    #[arg(long, default_value = "")]
    conversation_id: String,
}

#[derive(Args)]
struct Idle {
    #[command(flatten)]
    server: Server,
    /// Connections to open
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// The server's process, whose memory (and its children's) is read
    #[arg(long)]
    pid: u32,
}

#[derive(Args)]
struct Request {
    #[command(flatten)]
    server: Server,
    /// What to ask for
    #[arg(long)]
    what: What,
    /// Connections at the same time
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests in flight on each
    #[arg(long, default_value_t = 16)]
    pipeline: usize,
    /// Bytes in a message
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// How long to send
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

fn main() -> Outcome<()> {
    let figures = match Arguments::parse().scenario {
        Scenario::Fanout(arguments) => fanout::run(&arguments)?,
        Scenario::Idle(arguments) => idle::run(&arguments)?,
        Scenario::Request(arguments) => request::run(&arguments)?,
    };
    println!("{figures}");
    Ok(())
}
