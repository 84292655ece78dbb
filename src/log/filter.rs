//! What is logged.

use crate::audit;
use crate::config::{self, level};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What `RUST_LOG` says, or `log.level`. Audit lines are always logged and, where the text speaks of parts alone, errors
/// of the others too.
pub fn filter(config: &config::Log) -> Result<EnvFilter, String> {
    match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => parse("RUST_LOG", &text),
        _ => parse("log.level", &config.level),
    }
}

fn parse(name: &str, text: &str) -> Result<EnvFilter, String> {
    level::check(name, text).map_err(|error| error.0)?;
    let filter = EnvFilter::try_new(text)
        .map_err(|error| format!("{name} = {text:?} cannot be used: {error}"))?;
    let filter = if level::names_a_level_for_the_rest(text) {
        filter
    } else {
        filter.add_directive(LevelFilter::ERROR.into())
    };
    let always = format!("{}=info", audit::TARGET);
    let always = always
        .parse()
        .map_err(|error| format!("{always:?} cannot be used: {error}"))?;
    Ok(filter.add_directive(always))
}
