//! The phrases of a query: words that occur next to each other, in their order.

use super::characters::{Kind, kind_of_word};
use super::spaced::{SpacedWord, ascii_words};
use crate::limits::PHRASE_WORDS_MAX;
use std::collections::HashMap;

/// Numbers of 64 parts each that hold a flag for each part of all phrases.
const NUMBERS: usize = PHRASE_WORDS_MAX.div_ceil(64);

/// A flag for each part of all phrases.
type Flags = [u64; NUMBERS];

/// A word of a phrase.
#[derive(Debug, Clone)]
pub enum PhraseWord {
    /// In a script with spaces, or an emoji.
    Spaced(SpacedWord),
    /// A run in a script without spaces, folded.
    Run(String),
}

/// The phrases to find.
///
/// A part is a word, or a character of a run. All phrases are followed at once, part by part of the text: a flag says that
/// what was read ends with the phrase up to this part. So the time is the product of a text's length and the number of
/// [`Flags`]' numbers, whatever repeats in either.
#[derive(Debug, Clone, Default)]
pub struct Phrases {
    /// The parts so far.
    count: usize,
    /// The first parts.
    starts: Flags,
    /// The last parts.
    ends: Flags,
    /// The parts between which and the one before no gap may be.
    glued: Flags,
    whole: HashMap<Box<[u8]>, Flags>,
    prefixes: HashMap<Box<[u8]>, Flags>,
    /// The lengths of the prefixes.
    prefix_bytes: Vec<usize>,
    characters: HashMap<char, Flags>,
}

/// The phrases of a query have too many parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl Phrases {
    /// Adds a phrase.
    pub fn add(&mut self, words: &[PhraseWord]) -> Result<(), TooLong> {
        let first = self.count;
        for word in words {
            match word {
                PhraseWord::Spaced(SpacedWord { text, whole }) => {
                    let part = self.next()?;
                    let words = if *whole {
                        &mut self.whole
                    } else {
                        self.prefix_bytes.push(text.len());
                        &mut self.prefixes
                    };
                    set(words.entry(text.as_bytes().into()).or_default(), part);
                }
                PhraseWord::Run(run) => {
                    for (at, c) in run.char_indices() {
                        let part = self.next()?;
                        set(self.characters.entry(c).or_default(), part);
                        if at > 0 {
                            set(&mut self.glued, part);
                        }
                    }
                }
            }
        }
        if self.count > first {
            set(&mut self.starts, first);
            set(&mut self.ends, self.count - 1);
        }
        self.prefix_bytes.sort_unstable();
        self.prefix_bytes.dedup();
        Ok(())
    }

    fn next(&mut self) -> Result<usize, TooLong> {
        let part = self.count;
        if part >= PHRASE_WORDS_MAX {
            return Err(TooLong);
        }
        self.count += 1;
        Ok(part)
    }

    /// Whether there are none to find.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether all of them occur in a text of ASCII.
    pub fn found_in_ascii(&self, text: &str) -> bool {
        let mut pass = Pass::new(self);
        ascii_words(text).any(|word| pass.word(&word.to_ascii_lowercase()))
    }

    /// Whether all of them occur in a folded text.
    pub fn found_in_folded(&self, folded: &str) -> bool {
        let mut pass = Pass::new(self);
        folded
            .split(' ')
            .filter(|word| !word.is_empty())
            .any(|word| {
                if word.chars().next().and_then(kind_of_word) == Some(Kind::Unspaced) {
                    word.char_indices().any(|(at, c)| pass.character(c, at > 0))
                } else {
                    pass.word(word.as_bytes())
                }
            })
    }
}

/// One pass over a text.
struct Pass<'a> {
    phrases: &'a Phrases,
    reached: Flags,
    missing: Flags,
}

impl<'a> Pass<'a> {
    fn new(phrases: &'a Phrases) -> Self {
        Self {
            phrases,
            reached: Flags::default(),
            missing: phrases.ends,
        }
    }

    /// Goes on by a word; whether all phrases are found.
    fn word(&mut self, word: &[u8]) -> bool {
        let phrases = self.phrases;
        let mut fits = Flags::default();
        let lengths = phrases.prefix_bytes.iter();
        let prefixes = lengths
            .map_while(|&bytes| word.get(..bytes))
            .filter_map(|beginning| phrases.prefixes.get(beginning));
        for flags in prefixes.chain(phrases.whole.get(word)) {
            for (fits, flags) in fits.iter_mut().zip(flags) {
                *fits |= flags;
            }
        }
        self.go_on(&fits, false)
    }

    /// Goes on by a character of a run; whether all phrases are found.
    fn character(&mut self, c: char, glued: bool) -> bool {
        let none = Flags::default();
        let fits = self.phrases.characters.get(&c).unwrap_or(&none);
        self.go_on(fits, glued)
    }

    fn go_on(&mut self, fits: &Flags, glued: bool) -> bool {
        let (phrases, mut carried, mut missing) = (self.phrases, 0, 0);
        let used = phrases.count.div_ceil(64);
        for (at, reached) in self.reached.iter_mut().enumerate().take(used) {
            let next = *reached << 1 | carried | phrases.starts[at];
            carried = *reached >> 63;
            *reached = next & fits[at];
            if !glued {
                *reached &= !phrases.glued[at];
            }
            self.missing[at] &= !*reached;
            missing |= self.missing[at];
        }
        missing == 0
    }
}

fn set(flags: &mut Flags, part: usize) {
    if let Some(number) = flags.get_mut(part / 64) {
        *number |= 1 << (part % 64);
    }
}
