//! Any text is a configuration or is refused in one line that says what is wrong.
#![no_main]

use chatd::config::{Config, Overrides};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    match Config::parse(text, Path::new("."), Overrides::default()) {
        Ok(config) => assert!(!config.listen.is_empty()),
        Err(error) => assert!(
            !error.0.is_empty() && !error.0.contains('\n'),
            "the refusal {:?}",
            error.0
        ),
    }
});
