//! How much one connection, one address or one user may ask for on a login listener, and how often it may fail to log in.
//!
//! It knows sources and numbers, no requests.

mod failed_logins;
mod handshakes;
mod known;
mod rates;

pub use failed_logins::{Attempt, BadToken, Caller, FailedLogins, Kind};
pub use handshakes::{Handshake, Handshakes};
pub use known::KnownLogins;
pub use rates::{ChangeUnderWay, ConnectionRate, Cost, Rates};
