//! The words of a `match` condition, and whether a text holds them.

use super::characters::{Kind, kind_of_word};
use super::folding::{Folded, QUOTE, STAR};
use super::phrases::{PhraseWord, Phrases, TooLong};
use super::runs::Runs;
use super::spaced::{SpacedWord, SpacedWords, ascii_words};
use crate::limits::{FOLDED_QUERY_MAX_BYTES, PHRASE_WORDS_MAX};
use std::cell::RefCell;
use std::fmt;

/// The words of a `match` condition, parsed once (protocol.md, 5).
///
/// A word is a run of letters, digits and marks, with apostrophes between letters, or an emoji. What a symbol, a superscript
/// or a fraction decomposes into is a word of its own. Words are compared after NFKD and case folding, without accents and
/// what is invisible. Where a script is written without spaces, a run of the query is found wherever it occurs, and a `*`
/// behind it changes nothing. A run of both kinds (`iPhone手机`) is cut at the border, in query and text alike.
///
/// NFKD comes first, so `＊` is `*`, `ﬁ` is `fi`, and Korean is compared by its jamo: `하*` finds `한국`, whose first syllable is
/// that same syllable typed further. Digits are ordinary wherever they stand: `3章` finds `第3章`, not `第13章`.
///
/// An emoji is all of its sequence, without what is invisible in it: `👍*` finds `👍🏽`, `👍` does not.
#[derive(Debug, Clone)]
pub struct Words {
    spaced: SpacedWords,
    runs: Runs,
    phrases: Phrases,
}

/// Why a text is no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatchable {
    /// It has no word.
    NoWord,
    /// Its phrases have more than [`PHRASE_WORDS_MAX`] words and characters.
    PhrasesTooLong,
    /// Its characters decompose into more than [`FOLDED_QUERY_MAX_BYTES`].
    TooLong,
}

impl fmt::Display for Unmatchable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWord => f.write_str("must hold at least one word"),
            Self::PhrasesTooLong => write!(
                f,
                "holds more than {PHRASE_WORDS_MAX} words in double quotes; leave some words or the quotes out"
            ),
            Self::TooLong => write!(
                f,
                "decomposes into more than {FOLDED_QUERY_MAX_BYTES} bytes; leave some words out"
            ),
        }
    }
}

thread_local! {
    /// Where texts are folded, so that a search through many of them takes memory once.
    static FOLDED: RefCell<Folded> = RefCell::default();
}

impl Words {
    /// Reads the words of `query`. A double quote without a second one is a gap like any other sign.
    pub fn parse(query: &str) -> Result<Words, Unmatchable> {
        let mut folded = Folded::default();
        let folded = folded.query(query).ok_or(Unmatchable::TooLong)?;
        let quotes = folded.matches(QUOTE).count();
        let mut spaced = Vec::new();
        let mut runs = Vec::new();
        let mut phrases = Phrases::default();
        for (number, part) in folded.split(QUOTE).enumerate() {
            let words: Vec<PhraseWord> = words_of(part).collect();
            let is_quoted = number % 2 == 1 && number < quotes;
            if is_quoted && words.len() > 1 {
                phrases
                    .add(&words)
                    .map_err(|TooLong| Unmatchable::PhrasesTooLong)?;
            }
            // The words of a phrase are looked for like all others first: most texts lack one of them.
            for word in words {
                match word {
                    PhraseWord::Spaced(word) => spaced.push(word),
                    PhraseWord::Run(run) => runs.push(run),
                }
            }
        }
        if spaced.is_empty() && runs.is_empty() {
            return Err(Unmatchable::NoWord);
        }
        let runs: Vec<&str> = runs.iter().map(String::as_str).collect();
        Ok(Words {
            spaced: SpacedWords::new(spaced),
            runs: Runs::new(&runs),
            phrases,
        })
    }

    /// Whether every word, and every phrase, occurs in `text`.
    #[must_use]
    pub fn found_in(&self, text: &str) -> bool {
        // NFKD leaves ASCII alone, and its folding is done while comparing: nothing needs to be written down.
        if text.is_ascii() {
            return self.runs.is_empty()
                && self.spaced.fit(text.len())
                && self.spaced.found_among(ascii_words(text))
                && (self.phrases.is_empty() || self.phrases.found_in_ascii(text));
        }
        FOLDED.with_borrow_mut(|folded| self.found_in_folded(folded.text(text)))
    }

    pub(super) fn found_in_folded(&self, folded: &str) -> bool {
        self.spaced.fit(folded.len())
            && self.runs.found_in(folded)
            && self
                .spaced
                .found_among(folded.as_bytes().split(|byte| *byte == b' '))
            && (self.phrases.is_empty() || self.phrases.found_in_folded(folded))
    }
}

/// The words of a part of a folded query.
fn words_of(part: &str) -> impl Iterator<Item = PhraseWord> {
    part.split_inclusive([' ', STAR]).filter_map(|piece| {
        let text = piece.trim_end_matches([' ', STAR]);
        let kind = text.chars().next().map(kind_of_word)?;
        Some(if kind == Some(Kind::Unspaced) {
            PhraseWord::Run(text.to_owned())
        } else {
            PhraseWord::Spaced(SpacedWord {
                text: text.to_owned(),
                whole: !piece.ends_with(STAR),
            })
        })
    })
}
