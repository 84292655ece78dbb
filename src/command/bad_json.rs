//! What is said of a line that is not JSON, beside what is wrong with it.

use super::{Context, find, run};
use crate::error::Error;
use crate::wire::{Mended, mend, parse_envelope};
use std::fmt::Write;

/// The refusal of a line that is not JSON, with the habits that made it so, and with the line mended as its example
/// where that is a request that works.
#[must_use]
pub fn explained(error: Error, line: &[u8], context: &Context<'_>) -> Error {
    let Mended { habits, line } = str::from_utf8(line).map(mend).unwrap_or_default();
    let mut text = String::new();
    for habit in habits {
        // Writing to a String cannot fail.
        let _ = write!(text, "; {}", habit.text());
    }
    match line.map(|line| (refusal(&line, context), line)) {
        Some((None, line)) => error
            .and(&text)
            .and("; example shows the line mended")
            .example(&line),
        Some((Some(next), _)) => error.and(&text).and(&format!(
            "; mended, it would be refused all the same: {next}; a request looks like example"
        )),
        None => error.and(&text).and("; a request looks like example"),
    }
}

/// What a line would be refused with before anything is looked up; nothing is done.
fn refusal(line: &str, context: &Context<'_>) -> Option<Error> {
    let envelope = match parse_envelope(line.as_bytes()) {
        Ok(envelope) => envelope,
        Err(refused) => return Some(refused.error),
    };
    find(&envelope.subclass, &envelope.cmd)
        .and_then(|row| run(row, envelope.data, context))
        .err()
}
