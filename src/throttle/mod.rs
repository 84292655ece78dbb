//! How much one connection or one address may ask for on a login listener, and how often it may fail to log in.
//!
//! It knows sources and numbers, no requests.

mod failed_logins;
mod rates;

pub use failed_logins::{Attempt, BadToken, Caller, FailedLogins, Kind};
pub use rates::{ConnectionRate, Rates};
