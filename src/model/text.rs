//! How chatd compares text: which logins are the same, and which texts hold the words of a `match`.
//!
//! The rules are here and not in a store, so that every store answers alike. This module knows nothing of requests, records or
//! limits: it is given strings, and its time is near-linear in their length whatever they hold.

use std::collections::HashMap;
use std::sync::LazyLock;
use unicase::UniCase;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::decompose_compatible;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};

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

/// The words of a `match` condition, parsed once (protocol.md, 5).
///
/// A word is a run of letters, digits and marks, compared after NFKD, without marks, case-folded. Where a script is written
/// without spaces, a run of the query is found wherever it occurs, and a `*` behind it changes nothing. A run of both kinds
/// (`iPhone手机`) is cut at the border, in query and text alike.
///
/// NFKD comes first, so `＊` is `*`, `ﬁ` is `fi`, and Korean is compared by its jamo: `하*` finds `한국`, whose first syllable is
/// that same syllable typed further. Digits are ordinary wherever they stand: `3章` finds `第3章`, not `第13章`.
#[derive(Debug, Clone)]
pub struct Words {
    spaced: SpacedWords,
    runs: Runs,
}

/// A `match` text without any word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoWords;

impl Words {
    /// Reads the words of `query`, where a mark or a `*` alone is none.
    pub fn parse(query: &str) -> Result<Words, NoWords> {
        let folded = folded(query);
        let mut spaced = Vec::new();
        let mut runs = Vec::new();
        for piece in folded.split_inclusive([' ', '*']) {
            let text = piece.trim_end_matches([' ', '*']);
            match text.chars().next().map(CharKind::of) {
                None => {}
                Some(CharKind::Unspaced) => runs.push(text),
                Some(_) => spaced.push(SpacedWord {
                    text: text.to_owned(),
                    whole: !piece.ends_with('*'),
                }),
            }
        }
        let any = !spaced.is_empty() || !runs.is_empty();
        any.then(|| Words {
            spaced: SpacedWords::new(spaced),
            runs: Runs::new(&runs),
        })
        .ok_or(NoWords)
    }

    /// Whether every word occurs in `text`.
    #[must_use]
    pub fn found_in(&self, text: &str) -> bool {
        // NFKD leaves ASCII alone, and its folding is done while comparing: nothing needs to be written down.
        if text.is_ascii() {
            return self.runs.count == 0 && self.spaced.found_in(text);
        }
        self.found_in_folded(&folded(text))
    }

    fn found_in_folded(&self, folded: &str) -> bool {
        self.spaced.found_in(folded) && self.runs.found_in(folded)
    }
}

/// The text in the form in which words are compared: NFKD without marks, case-folded, words apart, `*` kept for the query.
///
/// Marks are all that NFKD puts in order, so each character can be decomposed by itself.
fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut last = CharKind::Gap;
    for given in text.chars() {
        decompose_compatible(given, |c| {
            let kind = CharKind::of(c);
            if kind == CharKind::Mark {
                return;
            }
            if kind != last && kind != CharKind::Gap && last != CharKind::Gap {
                out.push(' ');
            }
            out.push(if kind == CharKind::Gap && c != '*' {
                ' '
            } else {
                c
            });
            last = kind;
        });
    }
    UniCase::new(out).to_folded_case()
}

/// What a character is to a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CharKind {
    /// Part of no word.
    Gap,
    /// Part of the word it stands in, and dropped from it.
    Mark,
    /// A letter or digit of a script that puts spaces between words.
    Spaced,
    /// A letter or digit of a script that does not.
    Unspaced,
}

/// The kinds up to U+FFFF, looked up once: the tables they come from take a search for each character.
static KINDS: LazyLock<Vec<CharKind>> = LazyLock::new(|| {
    (0..=0xffff)
        .map(|code| char::from_u32(code).map_or(CharKind::Gap, CharKind::look_up))
        .collect()
});

impl CharKind {
    fn of(c: char) -> CharKind {
        KINDS
            .get(c as usize)
            .copied()
            .unwrap_or_else(|| CharKind::look_up(c))
    }

    fn look_up(c: char) -> CharKind {
        match c.general_category_group() {
            GeneralCategoryGroup::Mark => CharKind::Mark,
            GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number if is_unspaced(c) => {
                CharKind::Unspaced
            }
            GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number => CharKind::Spaced,
            _ => CharKind::Gap,
        }
    }
}

/// The scripts that put no spaces between words.
#[rustfmt::skip]
const UNSPACED: [Script; 22] = [
    Script::Han, Script::Hiragana, Script::Katakana, Script::Bopomofo, Script::Yi, Script::Nushu, Script::Tangut,
    Script::Khitan_Small_Script, Script::Thai, Script::Lao, Script::Khmer, Script::Myanmar, Script::Tibetan, Script::Javanese,
    Script::Balinese, Script::Tai_Le, Script::New_Tai_Lue, Script::Tai_Tham, Script::Tai_Viet, Script::Ahom, Script::Batak,
    Script::Kawi,
];

/// A letter that several scripts share counts as unspaced when all of them are: `ー` is, but `ʼ` (Latin, Thai …) is not.
fn is_unspaced(c: char) -> bool {
    let unspaced = |script| UNSPACED.contains(&script);
    unspaced(c.script()) || c.script_extension().iter().all(unspaced)
}

#[derive(Debug, Clone)]
struct SpacedWord {
    text: String,
    /// Whether it must be a whole word of the text, not only the beginning of one.
    whole: bool,
}

/// The words of the scripts with spaces.
///
/// They are sorted, and a prefix that another word begins with is left out, being found whenever that one is. So a word of the
/// text can satisfy one of them only: the last that does not come after it.
#[derive(Debug, Clone)]
struct SpacedWords {
    words: Vec<SpacedWord>,
    /// The shortest text that could hold them all.
    min_bytes: usize,
    /// By first byte: whether any of them may begin so. It spares most words of a text the search.
    begins: [bool; 256],
}

impl SpacedWords {
    fn new(mut words: Vec<SpacedWord>) -> SpacedWords {
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

    /// `text` is either folded or ASCII; what it has left of case is ASCII.
    fn found_in(&self, text: &str) -> bool {
        let mut missing = Missing::new(self.words.len());
        let mut words = text
            .as_bytes()
            .split(|byte| byte.is_ascii() && !byte.is_ascii_alphanumeric());
        let found_last = |word| {
            self.position(word)
                .is_some_and(|at| missing.take(at) && missing.count == 0)
        };
        self.words.is_empty() || text.len() >= self.min_bytes && words.any(found_last)
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

/// The runs of the scripts without spaces, as an automaton (Aho and Corasick) that finds all of them in one pass.
///
/// Searching for one after the other would cost the product of both lengths.
#[derive(Debug, Clone)]
struct Runs {
    count: usize,
    states: Vec<State>,
    next: HashMap<(usize, char), usize>,
}

/// What has been read: the beginning of a run. State 0 is nothing.
#[derive(Debug, Clone, Default)]
struct State {
    /// The run that ends here, by number.
    run: Option<usize>,
    /// The longest proper ending of what has been read that is a state, too.
    shorter: usize,
    /// The longest ending that is a whole run: this state, a shorter one, or 0 for none.
    ending: usize,
}

impl Runs {
    fn new(runs: &[&str]) -> Runs {
        let mut built = Runs {
            count: 0,
            states: vec![State::default()],
            next: HashMap::new(),
        };
        // All runs grow by a character at a time, since a state needs every shorter one.
        let mut growing: Vec<_> = runs.iter().map(|run| (0, run.chars())).collect();
        while !growing.is_empty() {
            growing.retain_mut(|(state, rest)| {
                let Some(c) = rest.next() else { return false };
                *state = built.grow(*state, c);
                let grown = &mut built.states[*state];
                if rest.as_str().is_empty() && grown.run.is_none() {
                    (grown.run, grown.ending) = (Some(built.count), *state);
                    built.count += 1;
                }
                true
            });
        }
        built
    }

    /// The state after `state` and `c`, added where there is none.
    fn grow(&mut self, state: usize, c: char) -> usize {
        if let Some(&next) = self.next.get(&(state, c)) {
            return next;
        }
        let shorter = if state == 0 {
            0
        } else {
            self.step(self.states[state].shorter, c)
        };
        let next = self.states.len();
        self.states.push(State {
            run: None,
            shorter,
            ending: self.states[shorter].ending,
        });
        self.next.insert((state, c), next);
        next
    }

    /// The longest state that what has been read and `c` end with.
    fn step(&self, mut state: usize, c: char) -> usize {
        while state != 0 && !self.next.contains_key(&(state, c)) {
            state = self.states[state].shorter;
        }
        self.next.get(&(state, c)).copied().unwrap_or(0)
    }

    fn found_in(&self, folded: &str) -> bool {
        let mut missing = Missing::new(self.count);
        let mut state = 0;
        missing.count == 0
            || folded.chars().any(|c| {
                state = if c.is_ascii() { 0 } else { self.step(state, c) };
                let mut ending = self.states[state].ending;
                // Where a run was found before, so were the shorter ones that it ends with.
                while self.states[ending].run.is_some_and(|run| missing.take(run)) {
                    ending = self.states[self.states[ending].shorter].ending;
                }
                missing.count == 0
            })
    }
}

/// Which of the numbered words have not been found yet. Up to 64 of them need no allocation.
struct Missing {
    count: usize,
    first: [bool; 64],
    rest: Vec<bool>,
}

impl Missing {
    fn new(count: usize) -> Missing {
        Missing {
            count,
            first: [true; 64],
            rest: vec![true; count.saturating_sub(64)],
        }
    }

    /// Notes that this one was found; whether it was missing until now.
    fn take(&mut self, at: usize) -> bool {
        let missing = if at < 64 {
            &mut self.first[at]
        } else {
            &mut self.rest[at - 64]
        };
        let was_missing = std::mem::take(missing);
        self.count -= usize::from(was_missing);
        was_missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn found(query: &str, text: &str) -> bool {
        Words::parse(query).unwrap().found_in(text)
    }

    #[test]
    #[rustfmt::skip]
    fn examples_in_many_languages() {
        let found_in = [
            ("hello", "Well, HELLO there"), ("there hello", "hello there"), ("hel* the*", "hello there"), ("a*b", "abc b"),
            ("jo**", "Jones"), ("x x", "x"), ("foo foo*", "foo"), ("don't", "I don't"), ("v2*", "v2024"), ("_a_", "a"),
            ("strasse", "Hauptstraße, STRASSE"), ("straße", "STRASSE"), ("GROẞ", "gross"), ("cafe", "Café"), ("CAFÉ", "cafe"),
            ("cafe\u{301}", "café"), ("vie*", "tiếng Việt"), ("istanbul", "İSTANBUL"), ("İstanbul", "istanbul"), ("file", "ﬁle"),
            ("oʼzbek", "OʼZBEK tili"), ("ΟΔΟΣ", "οδος"), ("οδος", "ΟΔΌΣ"), ("ёлка", "ЕЛКА"), ("прив*", "Привет, мир"),
            ("եւ", "ԵՒ"), ("שלום", "שָׁלוֹם"), ("محمد", "مُحَمَّد"), ("हिन्दी", "यह हिन्दी है"), ("ꭰ", "Ꭰ"), ("𐐀", "𐐨"), ("٣", "سنة ٣"),
            ("한국", "나는 한국 사람"), ("한*", "한국어"), ("하*", "한국어"), ("ﾾ*", "한국어"), ("韓國*", "大韓民國 韓國"), ("1", "1️⃣"),
            ("手机", "我的手机坏了"), ("坏 手机", "手机坏了"), ("手机*", "旧手机"), ("iPhone手机", "新手机和 IPHONE"), ("iph*", "我的iPhone手机"),
            ("手a机", "手机a"), ("3章", "第3章"), ("２０２４", "2024年1月"), ("々", "人々"), ("〇", "二〇二四"), ("株式", "㍿"), ("ㄇㄚˇ", "ㄇㄚˇ"),
            ("ーメ", "塩ラーメン屋"), ("ﾗｰﾒﾝ", "ラーメン"), ("ｶﾞ", "ガ"), ("か", "がっこう"), ("カード", "IDカード"), ("jo＊", "Jones"),
            ("ไทย", "ภาษาไทยง่าย"), ("น้ำ", "ดื่มน้ำ"), ("ລາວ", "ພາສາລາວ"), ("ខ្មែរ", "ភាសាខ្មែរ"), ("မြန်မာ", "မြန်မာဘာသာ"), ("ཡིག", "བོད་ཡིག"),
            ("ꦗꦮ", "ꦧꦱꦗꦮ"), ("၁", "၂၁"), ("jo\u{301}*", "Jones"), ("手手 手 手手手", "手手手"), ("机手 手", "手机手"),
        ];
        let not_found_in = [
            ("hell", "hello"), ("hello", "hell"), ("ello*", "hello"), ("foo bar", "foo"), ("foo foo*", "food"), ("jo *", "Jones"),
            ("*nes", "Jones"), ("a", ""), ("é", "🙂"), ("ısparta", "ISPARTA"), ("o", "ø"), ("привет", "приветы"), ("국*", "한국"),
            ("한국", "한국어"), ("手机", "手 机"), ("手机", "机手"), ("3章", "第13章"), ("手a机", "手机"), ("カ", "か"), ("手机", "phone"),
            ("手机 新", "手机"), ("sho", "手shop机"),
        ];
        for (pairs, expected) in [(&found_in[..], true), (&not_found_in, false)] {
            for (query, text) in pairs {
                assert_eq!(found(query, text), expected, "{query:?} in {text:?}");
            }
        }
    }

    #[test]
    fn a_query_of_gaps_marks_and_stars_has_no_word() {
        for query in [
            "",
            " ",
            "*",
            "＊ *",
            "-- !?",
            "\u{301}",
            " \u{301}*\u{20dd} ",
            "☺️",
            "´",
            "ﾞ",
            "_",
            "\u{200d}",
        ] {
            assert_eq!(Words::parse(query).unwrap_err(), NoWords, "{query:?}");
        }
    }

    #[test]
    fn folding_twice_changes_nothing_for_any_character() {
        for c in '\0'..='\u{1ffff}' {
            let ordered = unicode_normalization::char::canonical_combining_class(c) != 0;
            assert!(
                !ordered || CharKind::of(c) == CharKind::Mark,
                "{c:?} is put in order by NFKD, but is no mark"
            );
            let text = folded(&String::from(c));
            assert_eq!(folded(&text), text, "{c:?}");
            for login in [
                String::from(c),
                format!("{c}\u{301}"),
                format!("{c}\u{345}\u{308}"),
            ] {
                let key = fold_login(&login);
                assert_eq!(fold_login(&key), key, "{login:?}");
            }
        }
    }

    #[test]
    #[rustfmt::skip]
    fn logins_are_the_same_without_regard_to_case_and_composition() {
        for (a, b, same) in [
            ("Ann@Example.org", "ann@example.ORG", true), ("JOSÉ", "jose\u{301}", true), ("straße", "STRASSE", true),
            ("ΣΊΣΥΦΟΣ", "σίσυφος", true), ("ß\u{301}", "SŚ", true), ("İ", "i\u{307}", true), ("ǰ", "J\u{30c}", true),
            ("ᾳ", "ΑΙ", true), ("jose", "josé", false), ("ı", "I", false), ("ａ", "a", false), ("a", "a ", false),
        ] {
            assert_eq!(fold_login(a) == fold_login(b), same, "{a:?} and {b:?}");
        }
    }

    /// The words of a text in the plainest way, and whether a `*` follows.
    fn plain_words(text: &str) -> Vec<(CharKind, String, bool)> {
        let chars: Vec<char> = text
            .nfkd()
            .filter(|c| CharKind::of(*c) != CharKind::Mark)
            .collect();
        let runs: Vec<&[char]> = chars
            .chunk_by(|a, b| CharKind::of(*a) == CharKind::of(*b))
            .collect();
        let fold = |run: &[char]| UniCase::unicode(run.iter().collect::<String>()).to_folded_case();
        let star = |at: usize| runs.get(at + 1).is_some_and(|next| next[0] == '*');
        let words = runs
            .iter()
            .enumerate()
            .map(|(at, run)| (CharKind::of(run[0]), fold(run), star(at)));
        words.filter(|(kind, ..)| *kind != CharKind::Gap).collect()
    }

    #[test]
    fn both_ways_of_searching_agree_with_the_plain_rules() {
        let mut random = StdRng::seed_from_u64(0x5eed);
        for alphabet in [
            "aAbBzZ09 -*_\n\u{7f}",
            "aAé ß*手机ーﾞ가각\u{301}",
            "手机 机*",
            "ab *ä",
        ] {
            let alphabet: Vec<char> = alphabet.chars().collect();
            let mut text = |max_chars: usize| -> String {
                let chars = random.random_range(0..=max_chars);
                (0..chars)
                    .map(|_| alphabet[random.random_range(0..alphabet.len())])
                    .collect()
            };
            for _ in 0..20_000 {
                let (query, text) = (text(10), text(30));
                let (wanted, present) = (plain_words(&query), plain_words(&text));
                let parsed = Words::parse(&query);
                assert_eq!(parsed.is_err(), wanted.is_empty(), "{query:?}");
                let Ok(words) = parsed else { continue };
                let plain = wanted.iter().all(|(kind, word, star)| {
                    present.iter().any(|(_, other, _)| match kind {
                        CharKind::Unspaced => other.contains(&**word),
                        _ => other == word || *star && other.starts_with(&**word),
                    })
                });
                let both = (words.found_in(&text), words.found_in_folded(&folded(&text)));
                assert_eq!(both, (plain, plain), "{query:?} in {text:?}");
            }
        }
    }

    #[test]
    fn huge_queries_and_texts_do_not_multiply() {
        let numbers = |count: usize| {
            (0..count)
                .map(|n| format!("{n:x}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert!(found(&numbers(30_000), &numbers(30_000).to_uppercase()));
        assert!(!found(&numbers(30_001), &numbers(30_000)));
        let nested = |count: usize| (1..count).map(|n| "手".repeat(n) + " ").collect::<String>();
        assert!(found(&nested(200), &"手".repeat(5_461)));
        assert!(!found(&(nested(200) + "机"), &"手".repeat(5_461)));
    }
}
