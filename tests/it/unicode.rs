//! The words of a search beside Unicode's own data files, line by line.
//!
//! They come with Debian's unicode-data. Its version is older than the tables that chatd uses, which only adds characters to
//! it: what a version says of a character stays.

use crate::harness::machine::skipped;
use chatd::model::{Login, Name, Words};
use std::fs;
use std::path::Path;
use std::process::Command;

const FOLDER: &str = "/usr/share/unicode";

/// The lines of a data file without their comments, each cut at `;`, if the file is there.
fn rows(test: &str, file: &str) -> Option<Vec<Vec<String>>> {
    let path = Path::new(FOLDER).join(file);
    let content = if path.extension().is_some_and(|extension| extension == "bz2") {
        let output = Command::new("bzip2").arg("-dc").arg(&path).output();
        output
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8(output.stdout).unwrap())
    } else {
        fs::read_to_string(&path).ok()
    };
    let Some(content) = content else {
        skipped(
            test,
            "there is no unicode-data, or no bzip2 to read it with",
        );
        return None;
    };
    let rows: Vec<Vec<String>> = content
        .lines()
        .filter_map(|line| line.split('#').next())
        .filter(|line| !line.trim().is_empty() && !line.starts_with('@'))
        .map(|line| {
            line.split(';')
                .map(|field| field.trim().to_owned())
                .collect()
        })
        .collect();
    assert!(rows.len() > 100, "{file} has {} lines", rows.len());
    Some(rows)
}

fn code(text: &str) -> u32 {
    u32::from_str_radix(text, 16).unwrap()
}

/// The characters of a field, unless one is a surrogate.
fn characters(field: &str) -> Option<String> {
    field
        .split(' ')
        .map(|hex| char::from_u32(code(hex)))
        .collect()
}

/// Whether the words of `query` are in `text`; a query without words is in any text without words.
fn found(query: &str, text: &str) -> bool {
    match Words::parse(query) {
        Ok(words) => words.found_in(text),
        Err(_) => Words::parse(text).is_err(),
    }
}

fn assert_all(test: &str, checked: usize, at_least: usize, wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "{test}: {} of {checked}, such as\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
    assert!(checked >= at_least, "{test}: only {checked} were checked");
    println!("{test}: {checked} checked");
}

/// A word with the characters of a field of UnicodeData.txt, and what is said of it.
struct Character {
    c: char,
    category: String,
    class: u32,
    decomposition: String,
}

fn all_characters(test: &str) -> Option<Vec<Character>> {
    let rows = rows(test, "UnicodeData.txt")?;
    let characters = rows.into_iter().filter_map(|row| {
        Some(Character {
            c: char::from_u32(code(&row[0]))?,
            category: row[2].clone(),
            class: row[3].parse().unwrap(),
            decomposition: row[5].clone(),
        })
    });
    Some(characters.collect())
}

/// The characters with a property.
fn with(properties: &[Vec<String>], property: &str) -> Vec<char> {
    let rows = properties.iter().filter(|row| row[1] == property);
    rows.flat_map(|row| {
        let (first, last) = row[0].split_once("..").unwrap_or((&row[0], &row[0]));
        code(first)..=code(last)
    })
    .filter_map(char::from_u32)
    .collect()
}

#[test]
fn a_word_finds_its_folded_form() {
    let test = "a_word_finds_its_folded_form";
    let Some(rows) = rows(test, "CaseFolding.txt") else {
        return;
    };
    let mut wrong = Vec::new();
    for row in &rows {
        let (one, folded) = (characters(&row[0]).unwrap(), characters(&row[2]).unwrap());
        for (one, folded) in [
            (one.clone(), folded.clone()),
            (format!("a{one}b"), format!("a{folded}b")),
        ] {
            if !found(&one, &folded) || !found(&folded, &one) {
                wrong.push(format!("{one:?} {folded:?} {row:?}"));
            }
        }
    }
    assert_all(test, rows.len(), 1400, &wrong);
}

#[test]
fn forms_of_normalization_find_each_other() {
    let test = "forms_of_normalization_find_each_other";
    let Some(rows) = rows(test, "NormalizationTest.txt.bz2") else {
        return;
    };
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for row in &rows {
        let forms: Vec<String> = row[..5]
            .iter()
            .map(|field| characters(field).unwrap())
            .collect();
        // An emoji is a word, and its compatible form, two signs, is none.
        if forms[0] == "‼" || forms[0] == "⁉" {
            continue;
        }
        checked += 1;
        for one in &forms {
            for other in &forms {
                let has_words = Words::parse(one).is_ok();
                if !found(one, other)
                    || has_words && !found(&format!("{one}."), &format!("x {other} y"))
                {
                    wrong.push(format!("{one:?} {other:?}"));
                }
            }
        }
    }
    assert_all(test, checked, 18_000, &wrong);
}

#[test]
fn an_emoji_is_found_however_it_is_written() {
    let test = "an_emoji_is_found_however_it_is_written";
    let Some(rows) = rows(test, "emoji/emoji-test.txt") else {
        return;
    };
    let mut wrong = Vec::new();
    let mut qualified = String::new();
    for row in &rows {
        let emoji = characters(&row[0]).unwrap();
        let is_qualified = matches!(&*row[1], "fully-qualified" | "component");
        for text in [
            emoji.clone(),
            format!("party{emoji}time"),
            format!("🎉{emoji}🎉"),
        ] {
            // A skin tone behind an emoji is part of it.
            let is_part = row[1] == "component" && text.starts_with('🎉');
            if Words::parse(&emoji).is_err() || !found(&emoji, &text) && !is_part {
                wrong.push(format!("{emoji} is not found in {text}"));
            }
        }
        if is_qualified {
            // The flags of England, Scotland and Wales differ in what is invisible alone.
            if emoji != qualified && found(&emoji, &qualified) && !emoji.contains('\u{e007f}') {
                wrong.push(format!("{emoji} is found in {qualified}"));
            }
            qualified = emoji;
        } else if !found(&emoji, &qualified) || !found(&qualified, &emoji) {
            wrong.push(format!("{emoji:?} and {qualified:?}"));
        }
    }
    assert_all(test, rows.len(), 4_500, &wrong);
}

#[test]
fn a_symbol_that_decomposes_hides_no_word_beside_it() {
    let test = "a_symbol_that_decomposes_hides_no_word_beside_it";
    let Some(all) = all_characters(test) else {
        return;
    };
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for Character {
        c,
        category,
        decomposition,
        ..
    } in all
    {
        let is_symbol = !matches!(&category[..1], "L" | "N" | "M");
        let is_raised = category == "No"
            && ["<super>", "<fraction>"]
                .iter()
                .any(|kind| decomposition.starts_with(kind));
        if decomposition.is_empty() || !(is_symbol || is_raised) {
            continue;
        }
        checked += 1;
        for query in ["12345", "windows", "windows 12345"] {
            for text in [format!("12345{c}windows"), format!("windows{c}12345")] {
                if !found(query, &text) {
                    wrong.push(format!("{query:?} in {text:?}"));
                }
            }
        }
        if !found(&c.to_string(), &format!("windows{c}12345"))
            && Words::parse(&c.to_string()).is_ok()
        {
            wrong.push(format!("{c} beside words"));
        }
    }
    assert_all(test, checked, 900, &wrong);
}

#[test]
fn accents_are_dropped_and_other_marks_are_not() {
    let test = "accents_are_dropped_and_other_marks_are_not";
    let Some(all) = all_characters(test) else {
        return;
    };
    let Some(properties) = rows(test, "DerivedCoreProperties.txt") else {
        return;
    };
    let mut wrong = Vec::new();
    let ignorable = with(&properties, "Default_Ignorable_Code_Point");
    for c in &ignorable {
        if !found("hello", &format!("hel{c}lo")) || !found(&format!("hel{c}lo"), "hello") {
            wrong.push(format!("{c:?} is invisible"));
        }
    }
    let mut checked = ignorable.len();
    for Character {
        c, category, class, ..
    } in all
    {
        if !category.starts_with('M') || ignorable.contains(&c) {
            continue;
        }
        checked += 1;
        // U+0345 folds to a letter.
        let is_dropped = matches!(class, 10..=36 | 200..=240) && c != '\u{345}';
        if found("hello", &format!("hel{c}lo")) != is_dropped {
            wrong.push(format!("{c:?} of class {class}"));
        }
    }
    assert_all(test, checked, 6_000, &wrong);
}

#[test]
fn words_end_where_unicode_ends_them() {
    let test = "words_end_where_unicode_ends_them";
    let Some(rows) = rows(test, "auxiliary/WordBreakTest.txt") else {
        return;
    };
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for row in &rows {
        let hex: String = row[0].replace(['÷', '×'], " ");
        let line = hex
            .split_whitespace()
            .map(|hex| char::from_u32(code(hex)).unwrap())
            .collect::<String>();
        // Unicode keeps 3.14, example.org and snake_case together, and Hebrew abbreviations; here they are words apart.
        if line
            .chars()
            .any(|c| ".:,;_\"·'\u{5d0}\u{3031}".contains(c) && !line.contains("can't"))
        {
            continue;
        }
        for segment in row[0].split('÷') {
            let segment = segment.replace('×', " ");
            let segment: String = segment
                .split_whitespace()
                .map(|hex| char::from_u32(code(hex)).unwrap())
                .collect();
            if Words::parse(&segment).is_err() {
                continue;
            }
            checked += 1;
            if !found(&segment, &line) {
                wrong.push(format!("{segment:?} in {line:?}"));
            }
            let letters: Vec<char> = segment.chars().filter(|c| c.is_alphanumeric()).collect();
            if letters.len() > 1 && found(&letters[0].to_string(), &segment) {
                wrong.push(format!("{segment:?} is cut"));
            }
        }
    }
    assert_all(test, checked, 250, &wrong);
}

#[test]
fn what_unicode_calls_invisible_is_in_no_login() {
    let test = "what_unicode_calls_invisible_is_in_no_login";
    let Some(mut properties) = rows(test, "PropList.txt") else {
        return;
    };
    let Some(core) = rows(test, "DerivedCoreProperties.txt") else {
        return;
    };
    let Some(all) = all_characters(test) else {
        return;
    };
    properties.extend(core);
    let mut wrong = Vec::new();
    let of_category = |wanted: &[&str]| -> Vec<char> {
        let such = all.iter().filter(|one| wanted.contains(&&*one.category));
        such.map(|one| one.c).collect()
    };
    let mut invisible = of_category(&["Cc", "Cf", "Zs", "Zl", "Zp"]);
    for property in [
        "White_Space",
        "Default_Ignorable_Code_Point",
        "Bidi_Control",
    ] {
        invisible.extend(with(&properties, property));
    }
    for c in &invisible {
        if Login::new(format!("a{c}b")).is_ok() || Name::new(format!(" {c}")).is_ok() {
            wrong.push(format!("{c:?} is invisible"));
        }
    }
    let mut controls = of_category(&["Cc", "Zl", "Zp"]);
    controls.extend(with(&properties, "Bidi_Control"));
    for c in &controls {
        if Name::new(format!("a{c}b")).is_ok() {
            wrong.push(format!("{c:?} in a name"));
        }
    }
    let letters = of_category(&["Lu", "Ll", "Lt", "Lo", "Nd", "Sm", "So", "Po"]);
    for c in letters.iter().filter(|c| !invisible.contains(c)) {
        let is_blank = matches!(c, '\u{2800}' | '\u{1d159}');
        if Login::new(c.to_string()).is_ok() == is_blank
            || Name::new(c.to_string()).is_ok() == is_blank
        {
            wrong.push(format!("{c:?} is visible"));
        }
    }
    let checked = invisible.len() + controls.len() + letters.len();
    assert_all(test, checked, 30_000, &wrong);
}
