//! `log.level`, and `RUST_LOG`: a level, or directives for parts of chatd.

use super::ConfigError;

/// The levels that there are, the quietest first.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Refuses what is neither a level nor a directive. `name` is where it was written. A word alone that is no level would
/// be taken for the name of a part, and all others would be silent.
pub fn check(name: &str, text: &str) -> Result<(), ConfigError> {
    match directives(text).find(|directive| !is_level(level_of(directive))) {
        None => Ok(()),
        Some(_) => Err(ConfigError(format!(
            "{name} = {text:?} is no level; there are {}, and directives such as \"chatd=debug,warn\"",
            LEVELS.join(", ")
        ))),
    }
}

/// Whether a level is named for what no directive names.
pub fn names_a_level_for_the_rest(text: &str) -> bool {
    directives(text).any(is_level)
}

fn directives(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// The level in a directive, which is what follows its last equals sign; all of it, if there is none.
fn level_of(directive: &str) -> &str {
    directive
        .rsplit_once('=')
        .map_or(directive, |(_, level)| level)
}

fn is_level(text: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_with_those_that_are() {
        for text in [
            "warning",
            "verbose",
            "information",
            "err",
            "none",
            "",
            "info,",
            "info debug",
            "3",
            "chatd",
            "chatd=",
            "chatd=warning",
            "info,chatd=loud",
            "warn, quiet",
        ] {
            let refused = check("log.level", text).unwrap_err().0;
            assert!(refused.contains(&format!("{text:?}")), "{refused}");
            for level in LEVELS {
                assert!(refused.contains(level), "{text}: {refused}");
            }
        }
        for text in [
            "off",
            "error",
            "warn",
            "info",
            "debug",
            "trace",
            "WARN",
            "chatd=trace,warn",
            "warn, chatd::store=debug",
            "chatd[login{remote}]=info",
        ] {
            check("log.level", text).unwrap_or_else(|error| panic!("{text}: {}", error.0));
        }
    }
}
