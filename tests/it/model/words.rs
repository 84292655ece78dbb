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

/// Whether every word of `query` occurs in `text`; `None` if the query has no word.
pub fn matches(text: &str, query: &str) -> Option<bool> {
    let wanted = words(query);
    if wanted.is_empty() {
        return None;
    }
    let present = words(text);
    Some(wanted.iter().all(|(wanted, is_prefix)| {
        present.iter().any(|(word, _)| {
            if wanted.chars().any(is_spaceless) {
                word.contains(wanted.as_str())
            } else if *is_prefix {
                word.starts_with(wanted.as_str())
            } else {
                word == wanted
            }
        })
    }))
}

/// The words of a text as they are compared, each with whether a `*` follows it directly.
fn words(text: &str) -> Vec<(String, bool)> {
    let mut words = Vec::new();
    let mut word = String::new();
    for letter in text.chars().chain([' ']) {
        if letter.is_alphanumeric() || is_mark(letter) {
            word.push_str(&fold(letter));
        } else if !word.is_empty() {
            words.push((std::mem::take(&mut word), letter == '*'));
        }
    }
    words
}

/// One letter after NFKD, without marks, case-folded.
fn fold(letter: char) -> String {
    match letter {
        _ if is_mark(letter) => String::new(),
        'à'..='å' | 'À'..='Å' => "a".to_owned(),
        'è'..='ë' | 'È'..='Ë' => "e".to_owned(),
        'ù'..='ü' | 'Ù'..='Ü' => "u".to_owned(),
        'ß' => "ss".to_owned(),
        'ﬁ' => "fi".to_owned(),
        'Σ' | 'σ' | 'ς' => "σ".to_owned(),
        'Ί' | 'ί' => "ι".to_owned(),
        'Ё' | 'ё' => "е".to_owned(),
        'Й' | 'й' => "и".to_owned(),
        'ガ' => "カ".to_owned(),
        'ำ' => "า".to_owned(),
        '０'..='９' => char::from_digit(u32::from(letter) - u32::from('０'), 10)
            .unwrap()
            .to_string(),
        other => other.to_lowercase().to_string(),
    }
}

fn is_mark(letter: char) -> bool {
    matches!(letter, '\u{300}'..='\u{36f}' | '\u{e31}' | '\u{e34}'..='\u{e3a}' | '\u{e47}'..='\u{e4e}')
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
        ("anything", " *!", None),
    ] {
        assert_eq!(matches(text, query), expected, "{query:?} in {text:?}");
    }
    assert!(same_login("E\u{301}lise@example.org", "élise@EXAMPLE.org"));
}
