//! What is found in what, in many languages, and in random texts by a second way of looking.

use super::characters::{Page, Role};
use super::folding::Folded;
use super::{Unmatchable, Words, fold_login};
use rand::{Rng, SeedableRng, rngs::StdRng};
use unicode_normalization::UnicodeNormalization;

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
        ("ーメ", "塩ラーメン屋"), ("ﾗｰﾒﾝ", "ラーメン"), ("ｶﾞ", "ガ"), ("カード", "IDカード"), ("jo＊", "Jones"),
        ("ไทย", "ภาษาไทยง่าย"), ("น้ำ", "ดื่มน้ำ"), ("ລາວ", "ພາສາລາວ"), ("ខ្មែរ", "ភាសាខ្មែរ"), ("မြန်မာ", "မြန်မာဘာသာ"), ("ཡིག", "བོད་ཡིག"),
        ("ꦗꦮ", "ꦧꦱꦗꦮ"), ("၁", "၂၁"), ("jo\u{301}*", "Jones"), ("手手 手 手手手", "手手手"), ("机手 手", "手机手"),
        ("ısparta", "ISPARTA"), ("lodz", "Łódź"), ("sorensen", "Sørensen"), ("dordevic", "Đorđević"), ("halal", "ħalal"), ("tegn", "ŧegn"),
        ("aether", "æther"), ("oeuvre", "ŒUVRE"), ("ǿ", "O"), ("cooperate", "co\u{ad}operate"), ("hello", "he\u{200b}l\u{200d}l\u{2060}o"),
        ("میخواهم", "می\u{200c}خواهم"), ("محمد", "محـــمد"), ("hawai'i", "Hawaiʻi"), ("l’eau", "de l'eau"), ("'okina", "ʻokina"), ("rock", "'rock'"),
        ("12345", "№12345"), ("no 12345", "№12345"), ("windows", "Windows™"), ("tm", "Windows™"), ("1", "1½"), ("mc", "E=mc²"), ("2", "mc²"),
        ("h2o", "H₂O"), ("1", "1º"), ("🎉", "party🎉time"), ("❤", "❤️"), ("❤️", "❤"), ("👩‍💻", "x👩‍💻y"), ("👍*", "👍🏽"), ("🇩🇪", "🇫🇷🇩🇪"), ("1️⃣", "1️⃣"),
        ("#️⃣", "a#️⃣"), ("a*️⃣", "a *️⃣"), ("👁‍🗨", "👁️‍🗨️"), ("™️", "™"), ("㊗️", "㊗"), ("ガ", "カ\u{3099}"), ("ਕ਼", "ਕ\u{a3c}"), ("\u{e35}", "ดี"),
        ("\"hello there\"", "well, HELLO -- there"), ("\"hel* the*\" x", "x hello there"), ("“hello there”", "hello there"), ("\"hello", "hello"),
        ("say \"a b\" \"c d\"", "c d, say a b"), ("\"手机 坏\"", "我的手机坏了"), ("\"手机 坏\"", "手机，坏"), ("\"iphone 手机\"", "新iPhone手机"),
        ("\"db.json\"", "open db.json"), ("\"don't go\"", "don’t go"), ("\"party 🎉 time\"", "party🎉time"), ("\"\" a", "a"), ("a\"b c\"d", "d b c a"),
        ("\"größere pläne\"", "grössere Pläne"), ("\"a a b\"", "a a a b"), ("ᾳ", "αι"), ("ΤΩΙ", "τῷ"),
    ];
    let not_found_in = [
        ("hell", "hello"), ("hello", "hell"), ("ello*", "hello"), ("foo bar", "foo"), ("foo foo*", "food"), ("jo *", "Jones"),
        ("*nes", "Jones"), ("a", ""), ("é", "🙂"), ("привет", "приветы"), ("국*", "한국"),
        ("한국", "한국어"), ("手机", "手 机"), ("手机", "机手"), ("3章", "第13章"), ("手a机", "手机"), ("カ", "か"), ("手机", "phone"), ("か", "がっこう"), ("パン", "バンに乗る"), ("はし", "ばしょ"), ("ガ", "カ゛ッ"),
        ("माँ", "मैं घर में हूँ"), ("दिन", "दान दो"), ("कि", "का"), ("கல்", "காலை"), ("கல்", "கலை"), ("দিন", "দান"), ("ดี", "เด็ก"),
        ("ไม้", "ไม่"), ("ที่", "ทำ"), ("កុន", "កូន"), ("👍", "👍🏽"), ("👩", "👩‍💻"), ("🇪🇩", "🇩🇪"), ("*️⃣", "#️⃣ 1️⃣"), ("2️⃣", "2 1️⃣"),
        ("don", "I don't"), ("™", "t-shirt m"), ("\"there hello\"", "hello there"), ("\"a c\"", "a b c"), ("\"手机 坏\"", "坏手机"),
        ("\"机手\"", "机 手"), ("\"hell there\"", "hello there"), ("\"a 👍 b\"", "a b 👍"), ("\"a\" \"b c\"", "a b d c"),
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
        " \u{301}* ",
        "[]",
        "\"\"",
        "ʼ ' ’",
        "\u{640}",
        "$",
        "´",
        "_",
        "\u{200d}",
    ] {
        assert_eq!(
            Words::parse(query).unwrap_err(),
            Unmatchable::NoWord,
            "{query:?}"
        );
    }
}

#[test]
fn folding_twice_changes_nothing_for_any_character() {
    let (mut once, mut twice) = (Folded::default(), Folded::default());
    for c in '\0'..='\u{1ffff}' {
        let folded = once.text(c.encode_utf8(&mut [0; 4]));
        assert_eq!(twice.text(folded), folded, "{c:?}");
        let page = Page::of(c);
        if let Role::Several { start, count, .. } = page.role(c) {
            let parts = page.several(start, count);
            assert!(!parts.is_empty(), "{c:?}");
            for part in parts {
                assert!(
                    !matches!(part, Role::Several { .. } | Role::Keycap),
                    "{c:?}: {part:?}"
                );
            }
        }
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

/// The words of a text in the plainest way: whether it is of a script without spaces, and whether a `*` follows.
fn plain_words(text: &str) -> Vec<(bool, String, bool)> {
    let apart: String = text
        .chars()
        .filter(|c| *c != '\u{ad}')
        .map(|c| match c {
            '™' | '½' | '²' => format!("\u{2}{}\u{2}", c.nfkd().collect::<String>()),
            'ß' => "ss".to_owned(),
            'ø' | 'Ø' => "o".to_owned(),
            c => c.to_string(),
        })
        .collect();
    let is_letter = |c: &char| c.is_alphabetic();
    let is_unspaced = |c: char| "手机ーハバパ".contains(c);
    let chars: Vec<char> = apart
        .nfkd()
        .filter(|c| !matches!(c, '\u{300}'..='\u{36f}'))
        .flat_map(char::to_lowercase)
        .nfc()
        .flat_map(|c| {
            if is_unspaced(c) {
                vec![c]
            } else {
                c.nfd().collect()
            }
        })
        .collect();
    let kind = |at: usize| match chars.get(at)? {
        '\'' => {
            let before = at.checked_sub(1).and_then(|at| chars.get(at));
            let (before, after) = (
                before.filter(|c| is_letter(c))?,
                chars.get(at + 1).filter(|c| is_letter(c))?,
            );
            (is_unspaced(*before) == is_unspaced(*after)).then(|| is_unspaced(*before))
        }
        c => c.is_alphanumeric().then(|| is_unspaced(*c)),
    };
    let mut words: Vec<(bool, String, bool)> = Vec::new();
    let mut last = None;
    for (at, &c) in chars.iter().enumerate() {
        let kind = kind(at);
        match (kind, words.last_mut()) {
            (Some(_), Some((_, word, _))) if kind == last => word.push(c),
            (Some(unspaced), _) => words.push((unspaced, c.to_string(), false)),
            (None, Some((.., star))) if c == '*' && last.is_some() => *star = true,
            _ => {}
        }
        last = kind.or((c == '\u{2}')
            .then_some(last)
            .flatten()
            .filter(|_| chars.get(at + 1) == Some(&'*')));
    }
    words
}

#[test]
fn both_ways_of_searching_agree_with_the_plain_rules() {
    let mut random = StdRng::seed_from_u64(0x5eed);
    for alphabet in [
        "aAbBzZ09' -*_\n\u{7f}",
        "aAé ß*手机ーハバパ가각\u{301}'’ʻʼ",
        "手机 机*",
        "ab *ä",
        "aø1™²½\u{ad} '*",
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
            let (query, text) = (query.replace(['’', 'ʻ', 'ʼ'], "'"), text);
            let (wanted, present) = (
                plain_words(&query),
                plain_words(&text.replace(['’', 'ʻ', 'ʼ'], "'")),
            );
            let parsed = Words::parse(&query);
            assert_eq!(parsed.is_err(), wanted.is_empty(), "{query:?}");
            let Ok(words) = parsed else { continue };
            let plain = wanted.iter().all(|(unspaced, word, star)| {
                present.iter().any(|(_, other, _)| match unspaced {
                    true => other.contains(&**word),
                    false => other == word || *star && other.starts_with(&**word),
                })
            });
            let mut folded = Folded::default();
            let both = (
                words.found_in(&text),
                words.found_in_folded(folded.text(&text)),
            );
            assert_eq!(both, (plain, plain), "{query:?} in {text:?}");
        }
    }
}

/// Phrases in the plainest way: at each word of the text it is tried whether the phrase begins there.
#[test]
fn phrases_agree_with_trying_at_every_word() {
    let mut random = StdRng::seed_from_u64(0x5eed);
    let vocabulary = ["a", "ab", "abc", "b", "é", "ba"];
    for _ in 0..20_000 {
        let mut words = |max: usize| -> Vec<&str> {
            (0..random.random_range(1..=max))
                .map(|_| vocabulary[random.random_range(0..vocabulary.len())])
                .collect()
        };
        let (text, phrases) = (words(9), [words(4), words(2)]);
        let stars: Vec<bool> = (0..4).map(|_| random.random_bool(0.3)).collect();
        let query: Vec<String> = phrases
            .iter()
            .map(|phrase| {
                let words = phrase.iter().zip(&stars);
                let words: Vec<String> = words
                    .map(|(word, star)| format!("{word}{}", if *star { "*" } else { "" }))
                    .collect();
                format!("\"{}\"", words.join(" "))
            })
            .collect();
        let fits = |(word, (wanted, star)): (&&str, (&&str, &bool))| {
            let (word, wanted) = (word.replace('é', "e"), wanted.replace('é', "e"));
            word == wanted || *star && word.starts_with(&wanted)
        };
        let plain = phrases.iter().all(|phrase| {
            text.windows(phrase.len())
                .any(|window| window.iter().zip(phrase.iter().zip(&stars)).all(fits))
        });
        let (query, text) = (query.join(" "), text.join(", "));
        assert_eq!(found(&query, &text), plain, "{query:?} in {text:?}");
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
    let phrase = format!("\"{}b\"", "a ".repeat(1_000));
    assert!(!found(&phrase, &("b ".to_owned() + &"a ".repeat(8_000))));
    assert!(found(&phrase, &("a ".repeat(8_000) + "b")));
    let too_long = format!("\"{}\"", "a ".repeat(1_025));
    assert_eq!(
        Words::parse(&too_long).unwrap_err(),
        Unmatchable::PhrasesTooLong
    );
    let one_run = format!("\"{}\"", "手".repeat(5_000));
    assert!(found(&one_run, &"手".repeat(5_461)));
    let marks = "\u{334}\u{3099}\u{e38}".repeat(2_700);
    assert!(found(
        &("手".to_owned() + &marks),
        &("手".to_owned() + &marks)
    ));
}

#[test]
fn a_query_that_decomposes_into_very_much_is_refused_before_it_has_cost_much() {
    // One character that is eighteen, four words of them.
    let parse = |count: usize| Words::parse(&"\u{fdfa}".repeat(count)).map(|_| ());
    assert_eq!(parse(5000), Ok(()));
    assert_eq!(parse(21_000), Err(Unmatchable::TooLong));
    for usual in ["\u{d55c}", "\u{4e00}", "\u{fb03}", "\u{1e69}"] {
        assert!(Words::parse(&usual.repeat(21_000)).is_ok(), "{usual}");
    }
}
