//! How chatd compares text: which logins are the same, and which texts hold the words of a `match`.
//!
//! The rules are here and not in a store, so that every store answers alike. This module knows nothing of requests, records or
//! limits: it is given strings, and its time is near-linear in their length whatever they hold.

mod characters;
mod folding;
mod missing;
mod phrases;
mod runs;
mod spaced;
mod visible;
mod words;

pub use visible::{acts_on_text, is_control, is_default_ignorable, is_invisible, is_visible};
pub use words::{Unmatchable, Words};

use unicase::UniCase;
use unicode_normalization::UnicodeNormalization;

/// The key under which a login is unique: NFC, then Unicode full case folding (protocol.md, 4).
///
/// The result is brought to NFC again, since folding can leave a letter next to an accent it composes with (`ß` and an acute
/// fold to `s`, `s`, acute): so a key is its own key. Folding is that of no language in particular: `I` is `i`, never `ı`.
#[must_use]
pub fn fold_login(login: &str) -> String {
    UniCase::new(login.nfc().collect::<String>())
        .to_folded_case()
        .nfc()
        .collect()
}

#[cfg(test)]
mod tests;
