//! Text comparison as the protocol's section 5 describes it, for the letters that the tests use and no others.
//!
//! A daemon takes this from the Unicode tables; here it is a short list that can be checked by eye.

/// Whether two logins are the same user's.
pub fn same_login(one: &str, other: &str) -> bool {
    fold_login(one) == fold_login(other)
}

/// A login as it is compared: NFC, then case folding.
pub fn fold_login(login: &str) -> String {
    let lower = login.to_lowercase();
    lower
        .replace("e\u{301}", "é")
        .replace("u\u{308}", "ü")
        .replace('ß', "ss")
}

/// Whether every word and phrase of `query` occurs in `text`; `None` if the query has no word.
pub fn matches(text: &str, query: &str) -> Option<bool> {
    let present = words(&pieces(text));
    // A quote without a second one is a sign like any other.
    let pieces = pieces(query);
    let parts: Vec<&[Piece]> = pieces.split(|piece| *piece == Piece::Quote).collect();
    let (mut any, mut all) = (false, true);
    for (number, part) in parts.iter().enumerate() {
        let wanted = words(part);
        any |= !wanted.is_empty();
        let is_phrase = number % 2 == 1 && number + 1 < parts.len();
        all &= if is_phrase {
            wanted.is_empty() || (0..present.len()).any(|at| begins_at(&wanted, &present[at..]))
        } else {
            let mut each = wanted.iter().map(std::slice::from_ref);
            each.all(|word| (0..present.len()).any(|at| begins_at(word, &present[at..])))
        };
    }
    any.then_some(all)
}

/// A word as it is compared.
#[derive(Clone, Debug)]
struct Word {
    text: String,
    /// Whether its script has no spaces.
    is_run: bool,
    /// Whether a `*` follows it directly.
    is_prefix: bool,
}

/// Whether these words, one behind the other, begin in the first of the words that are there: a run anywhere in it.
fn begins_at(wanted: &[Word], present: &[Word]) -> bool {
    let Some(first) = present.first() else {
        return wanted.is_empty();
    };
    if !first.is_run || !wanted[0].is_run {
        return goes_on(wanted, "", present);
    }
    let starts = first
        .text
        .char_indices()
        .map(|(start, _)| &first.text[start..]);
    starts
        .into_iter()
        .any(|rest| goes_on(wanted, rest, &present[1..]))
}

/// Whether these words follow: first in what is left of a run, then in the words behind it.
fn goes_on(wanted: &[Word], rest: &str, present: &[Word]) -> bool {
    let Some((word, others)) = wanted.split_first() else {
        return true;
    };
    if !rest.is_empty() {
        return word.is_run
            && rest
                .strip_prefix(&*word.text)
                .is_some_and(|rest| goes_on(others, rest, present));
    }
    let Some((next, behind)) = present.split_first() else {
        return false;
    };
    match (word.is_run, next.is_run) {
        (true, true) => goes_on(wanted, &next.text, behind),
        (false, false) => {
            let fits =
                word.text == next.text || word.is_prefix && next.text.starts_with(&*word.text);
            fits && goes_on(others, "", behind)
        }
        _ => false,
    }
}

/// What a text is made of.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    /// A letter, digit or mark, as it is compared.
    Letter(char),
    Emoji(String),
    /// A border without a character of its own: beside what a symbol decomposes into.
    Border,
    Star,
    Quote,
    Other,
}

/// Emoji of several characters, and those that can be left of them, longest first.
const EMOJI: &[&str] = &["👩\u{200d}💻", "👍🏽", "👩", "💻", "👍", "🏽", "🎉"];

fn pieces(text: &str) -> Vec<Piece> {
    let visible: String = text
        .chars()
        .filter(|c| {
            !matches!(
                c,
                '\u{ad}' | '\u{fe0f}' | 'ـ' | '\u{64f}' | '\u{300}'..='\u{36f}'
            )
        })
        .collect();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut rest = visible.as_str();
    while let Some(c) = rest.chars().next() {
        let emoji = EMOJI.iter().find(|emoji| rest.starts_with(**emoji));
        rest = &rest[emoji.map_or(c.len_utf8(), |emoji| emoji.len())..];
        match (emoji, c) {
            (Some(emoji), _) => pieces.push(Piece::Emoji(emoji.replace('\u{200d}', ""))),
            (_, '\u{200d}') => {}
            (_, '*') => pieces.push(Piece::Star),
            (_, '"') => pieces.push(Piece::Quote),
            (_, '\'' | '’') => {
                let before = pieces.last().and_then(|piece| match piece {
                    Piece::Letter(c) if c.is_alphabetic() || is_mark(*c) => Some(is_spaceless(*c)),
                    _ => None,
                });
                let after = rest.chars().next().filter(|c| c.is_alphabetic());
                let between = before.is_some() && before == after.map(is_spaceless);
                pieces.push(if between {
                    Piece::Letter('\'')
                } else {
                    Piece::Other
                });
            }
            (_, '№' | '™' | '²' | '½') => {
                let words: &[&str] = match c {
                    '№' => &["no"],
                    '™' => &["tm"],
                    '²' => &["2"],
                    _ => &["1", "2"],
                };
                for word in words {
                    pieces.push(Piece::Border);
                    pieces.extend(word.chars().map(Piece::Letter));
                }
                pieces.push(Piece::Border);
            }
            _ if c.is_alphanumeric() || is_mark(c) => {
                pieces.extend(fold(c).chars().map(Piece::Letter));
            }
            _ => pieces.push(Piece::Other),
        }
    }
    pieces
}

fn words(pieces: &[Piece]) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    // Whether the next letter may go on with the last word, and whether a star would be directly behind it.
    let (mut open, mut direct) = (false, false);
    for piece in pieces {
        let mut add = |text: String, is_run| {
            words.push(Word {
                text,
                is_run,
                is_prefix: false,
            });
        };
        match piece {
            Piece::Emoji(emoji) => {
                add(emoji.clone(), false);
                (open, direct) = (false, true);
            }
            Piece::Border => open = false,
            Piece::Star => {
                if direct {
                    words.last_mut().unwrap().is_prefix = true;
                }
                (open, direct) = (false, false);
            }
            Piece::Quote | Piece::Other => (open, direct) = (false, false),
            Piece::Letter(c) => {
                let is_run = is_spaceless(*c);
                let joins =
                    |word: &&mut Word| open && (word.is_run == is_run || is_mark(*c) || *c == '\'');
                match words.last_mut().filter(joins) {
                    Some(word) => word.text.push(*c),
                    // A mark without a letter is none of a word's, but of a run's.
                    None if is_mark(*c) && !is_run => continue,
                    None => words.push(Word {
                        text: c.to_string(),
                        is_run,
                        is_prefix: false,
                    }),
                }
                (open, direct) = (true, true);
            }
        }
    }
    words
}

/// One letter after NFKD, without accents, case-folded.
fn fold(letter: char) -> String {
    match letter {
        'à'..='å' | 'À'..='Å' => "a".to_owned(),
        'è'..='ë' | 'È'..='Ë' => "e".to_owned(),
        'ò'..='ö' | 'Ò'..='Ö' | 'ø' | 'Ø' => "o".to_owned(),
        'ù'..='ü' | 'Ù'..='Ü' => "u".to_owned(),
        'ź' | 'Ź' => "z".to_owned(),
        'ł' | 'Ł' => "l".to_owned(),
        'æ' | 'Æ' => "ae".to_owned(),
        'ß' => "ss".to_owned(),
        'ﬁ' => "fi".to_owned(),
        'Σ' | 'σ' | 'ς' => "σ".to_owned(),
        'Ί' | 'ί' => "ι".to_owned(),
        'Ё' | 'ё' => "е".to_owned(),
        'Й' | 'й' => "и".to_owned(),
        'ำ' => "\u{e4d}า".to_owned(),
        '０'..='９' => char::from_digit(u32::from(letter) - u32::from('０'), 10)
            .unwrap()
            .to_string(),
        other => other.to_lowercase().to_string(),
    }
}

/// Vowel signs, tone marks and the like, which stay: of Thai, and of Hindi.
fn is_mark(letter: char) -> bool {
    matches!(letter, '\u{e31}' | '\u{e34}'..='\u{e3a}' | '\u{e47}'..='\u{e4e}'
        | '\u{900}'..='\u{903}' | '\u{93c}' | '\u{93e}'..='\u{94d}')
}

/// Chinese, Japanese and Thai, which are written without spaces between words.
fn is_spaceless(letter: char) -> bool {
    matches!(letter, '\u{e00}'..='\u{e7f}' | '\u{3040}'..='\u{30ff}' | '\u{4e00}'..='\u{9fff}')
}

#[test]
fn words_are_compared_as_the_protocol_says() {
    for (text, query, expected) in [
        ("Hello, world", "WORLD hello", Some(true)),
        ("Hello, world", "hell", Some(false)),
        ("Hello, world", "hell*", Some(true)),
        ("Hello, world", "hell *", Some(false)),
        ("he\u{301}llo", "HÉLLO", Some(true)),
        ("Straße", "STRASSE", Some(true)),
        ("Σίσυφος", "ΣΙΣΥΦΟΣ", Some(true)),
        ("你好世界", "世界", Some(true)),
        ("你好，世界", "好世", Some(false)),
        ("สวัสดีครับ", "ครับ", Some(true)),
        ("２０２６", "2026", Some(true)),
        ("anything", " *!\u{93f}", None),
        ("iPhone手机", "手机 iphone", Some(true)),
        ("バンに", "パン", Some(false)),
        ("दान", "दिन", Some(false)),
        ("Windows™ №12", "windows tm 12", Some(true)),
        ("mc² 1½", "mc 1", Some(true)),
        ("Łódź co\u{ad}op", "lodz COOP", Some(true)),
        ("don’t", "don't", Some(true)),
        ("don’t", "don", Some(false)),
        ("party🎉time", "🎉", Some(true)),
        ("👍🏽", "👍", Some(false)),
        ("👍🏽", "👍*", Some(true)),
        ("one, two three", "\"one two\"", Some(true)),
        ("one, two three", "\"two one\"", Some(false)),
        ("one, two three", "\"two one", Some(true)),
        ("one, two three", "\"on* tw*\" three", Some(true)),
        ("我的手机坏了", "\"手机 坏\"", Some(true)),
        ("我的手机坏了", "\"坏 手机\"", Some(false)),
        ("新iPhone手机", "\"iphone 手\"", Some(true)),
    ] {
        assert_eq!(matches(text, query), expected, "{query:?} in {text:?}");
    }
    assert!(same_login("E\u{301}lise@example.org", "élise@EXAMPLE.org"));
}
