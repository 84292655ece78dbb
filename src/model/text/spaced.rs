//! The words that a query holds in scripts with spaces, and emoji.

use super::missing::Missing;

/// A word to find.
#[derive(Debug, Clone)]
pub struct SpacedWord {
    /// The word, folded.
    pub text: String,
    /// Whether it must be a whole word of the text, not only the beginning of one.
    pub whole: bool,
}

/// The words to find, in any order.
///
/// They are sorted, and a prefix that another word begins with is left out, being found whenever that one is. So a word of the
/// text can satisfy one of them only: the last that does not come after it.
#[derive(Debug, Clone)]
pub struct SpacedWords {
    words: Vec<SpacedWord>,
    /// The shortest text that could hold them all.
    min_bytes: usize,
    /// By first byte: whether any of them may begin so. It spares most words of a text the search.
    begins: [bool; 256],
}

impl SpacedWords {
    /// Prepares the search for all of these.
    pub fn new(mut words: Vec<SpacedWord>) -> SpacedWords {
        words.sort_unstable_by(|a, b| (&b.text, b.whole).cmp(&(&a.text, a.whole)));
        words.dedup_by(|word, next| {
            word.text == next.text || (!word.whole && next.text.starts_with(&word.text))
        });
        words.reverse();
        let min_bytes = words
            .iter()
            .map(|word| word.text.len() + 1)
            .sum::<usize>()
            .saturating_sub(1);
        let mut begins = [false; 256];
        for first in words.iter().filter_map(|word| word.text.bytes().next()) {
            begins[usize::from(first)] = true;
            begins[usize::from(first.to_ascii_uppercase())] = true;
        }
        SpacedWords {
            words,
            min_bytes,
            begins,
        }
    }

    /// Whether a text of so many bytes may hold all of them.
    pub fn fit(&self, bytes: usize) -> bool {
        bytes >= self.min_bytes
    }

    /// Whether all of them are among the words of a text, which are either folded or ASCII.
    pub fn found_among<'a>(&self, mut words: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut missing = Missing::new(self.words.len());
        let found_last = |word| {
            self.position(word)
                .is_some_and(|at| missing.take(at) && missing.count == 0)
        };
        self.words.is_empty() || words.any(found_last)
    }

    /// Which of the words this one satisfies.
    fn position(&self, word: &[u8]) -> Option<usize> {
        if !self.begins[usize::from(*word.first()?)] {
            return None;
        }
        let after = self
            .words
            .partition_point(|own| own.text.bytes().le(word.iter().map(u8::to_ascii_lowercase)));
        let at = after.checked_sub(1)?;
        let own = &self.words[at];
        let beginning = if own.whole {
            word
        } else {
            word.get(..own.text.len())?
        };
        beginning
            .eq_ignore_ascii_case(own.text.as_bytes())
            .then_some(at)
    }
}

/// The words of a text of ASCII, their case as it is: runs of letters and digits, with apostrophes between letters.
pub fn ascii_words(text: &str) -> impl Iterator<Item = &[u8]> {
    let bytes = text.as_bytes();
    let is_word = |at: usize| {
        bytes
            .get(at)
            .is_some_and(|byte| IN_WORD[usize::from(*byte)])
    };
    let is_letter = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphabetic);
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && !is_word(at) {
            at += 1;
        }
        let start = at;
        loop {
            while is_word(at) {
                at += 1;
            }
            let is_apostrophe = bytes.get(at) == Some(&b'\'') && at > start;
            if !(is_apostrophe && is_letter(at - 1) && is_letter(at + 1)) {
                break;
            }
            at += 1;
        }
        bytes.get(start..at).filter(|word| !word.is_empty())
    })
}

/// Which bytes are letters and digits.
const IN_WORD: [bool; 256] = {
    let mut in_word = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        in_word[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    in_word
};
