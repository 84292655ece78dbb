//! Reads a line that is JSON only to a person, and writes it down as JSON.
//!
//! Readers of JSON5 and its kin take a part of what people write, and do not say what of it they took. This one is for
//! the text of a refusal alone: it says which habits it met, keeps numbers and texts as they were written, and hides
//! what is secret. It goes through the line once, without recursion. What it writes must still be read as any line is.

mod habit;
#[cfg(test)]
mod tests;

pub use habit::Habit;

use crate::limits::{JSON_MAX_DEPTH, MENDED_MAX_BYTES};
use serde_json::value::RawValue;
use std::fmt::Write;
use std::str::Chars;

/// What stands for a secret in a line that is shown.
const HIDDEN: &str = "\"…\"";

/// What became of a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// The habits that were met, each once.
    pub habits: Vec<Habit>,
    /// The line as JSON, its secrets hidden; `None` where nobody can say what was meant.
    pub line: Option<String>,
}

/// Reads a line as a person would.
#[must_use]
pub fn mend(line: &str) -> Mended {
    if line.len() > MENDED_MAX_BYTES {
        return Mended::default();
    }
    let mut before = Reader::new(line);
    before.blanks();
    let mut text = before.rest.as_str().trim_end();
    for (open, close) in [('\'', '\''), ('"', '"'), ('`', '`'), ('‘', '’'), ('“', '”')] {
        let inside = text
            .strip_prefix(open)
            .and_then(|text| text.strip_suffix(close));
        if let Some(inside) = inside.filter(|inside| inside.starts_with('{')) {
            before.met(Habit::QuotedLine);
            text = inside;
        }
    }
    let unescaped;
    if text.starts_with("{\\\"") {
        before.met(Habit::EscapedQuotes);
        unescaped = text.replace("\\\"", "\"").replace("\\\\", "\\");
        text = &unescaped;
    }
    let mut reader = Reader::new(text);
    reader.habits = before.habits;
    let mended = if text.starts_with('{') {
        reader.object()
    } else {
        if is_middle(text) {
            reader.met(Habit::Middle);
        }
        None
    };
    Mended {
        line: mended.map(|()| reader.out),
        habits: reader.habits,
    }
}

/// Whether a line looks like the middle, or the end, of an object.
fn is_middle(text: &str) -> bool {
    if text.starts_with(['}', ']']) {
        return true;
    }
    let Some((name, _)) = text.split_once(':') else {
        return false;
    };
    let name = name.trim_end();
    match name.strip_prefix(['"', '\'', '“']) {
        Some(rest) => rest.ends_with(['"', '\'', '”']),
        None => super::envelope::FIELDS.contains(&name),
    }
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    Name,
    Colon,
    CommaOrEnd,
}

/// A line that is being read, and what is written of it.
struct Reader<'a> {
    rest: Chars<'a>,
    out: String,
    /// The brackets that close what is open.
    open: Vec<char>,
    /// How many brackets are open around the value that is hidden, if one is.
    hidden: Option<usize>,
    habits: Vec<Habit>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text.chars(),
            out: String::new(),
            open: Vec::new(),
            hidden: None,
            habits: Vec::new(),
        }
    }

    fn met(&mut self, habit: Habit) {
        if !self.habits.contains(&habit) {
            self.habits.push(habit);
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn take(&mut self, text: &str) -> bool {
        let Some(rest) = self.rest.as_str().strip_prefix(text) else {
            return false;
        };
        self.rest = rest.chars();
        true
    }

    /// Takes characters as long as they are such.
    fn take_while(&mut self, such: impl Fn(char) -> bool) -> &'a str {
        let text = self.rest.as_str();
        let end = text.find(|letter| !such(letter)).unwrap_or(text.len());
        let (taken, rest) = text.split_at(end);
        self.rest = rest.chars();
        taken
    }

    /// Skips blanks and comments.
    fn blanks(&mut self) {
        loop {
            if self.take("//") || self.take("#") {
                self.met(Habit::Comment);
                self.rest = "".chars();
            } else if self.take("/*") {
                self.met(Habit::Comment);
                let rest = self.rest.as_str();
                self.rest = rest.split_once("*/").map_or("", |(_, rest)| rest).chars();
            } else {
                match self.peek() {
                    Some(' ' | '\t' | '\r' | '\n') => {}
                    Some('\u{feff}') => self.met(Habit::ByteOrderMark),
                    Some(letter) if looks_blank(letter) => self.met(Habit::NoBreakSpace),
                    _ => return,
                }
                self.rest.next();
            }
        }
    }

    /// Reads the object that the line is; `None` where it cannot be understood.
    fn object(&mut self) -> Option<()> {
        let mut expect = Expect::Value;
        loop {
            self.blanks();
            let Some(next) = self.peek() else {
                return self.unfinished(expect);
            };
            expect = match expect {
                Expect::Value => self.value(next)?,
                Expect::Name => self.name(next)?,
                Expect::Colon => self.colon()?,
                Expect::CommaOrEnd => self.comma_or_end(next)?,
            };
            if self.open.is_empty() {
                return self.behind();
            }
        }
    }

    /// What is left out at the end of the line, if only brackets are.
    fn unfinished(&mut self, expect: Expect) -> Option<()> {
        self.met(Habit::Unfinished);
        if expect != Expect::CommaOrEnd && !self.out.ends_with(',') {
            return None;
        }
        self.drop_comma();
        self.out.extend(self.open.iter().rev());
        Some(())
    }

    /// What stands behind the object: nothing but a stray comma or semicolon may.
    fn behind(&mut self) -> Option<()> {
        if self.take(",") || self.take(";") {
            self.met(Habit::TrailingComma);
        }
        self.blanks();
        if self.peek().is_some() {
            self.met(Habit::Behind);
            return None;
        }
        Some(())
    }

    fn value(&mut self, next: char) -> Option<Expect> {
        match next {
            '{' | '[' => {
                self.rest.next();
                if self.open.len() == JSON_MAX_DEPTH {
                    return None;
                }
                self.out.push(next);
                let (close, expect) = if next == '{' {
                    ('}', Expect::Name)
                } else {
                    (']', Expect::Value)
                };
                self.open.push(close);
                return Some(expect);
            }
            // A list without elements, or one with a comma too many.
            ']' if self.open.last() == Some(&']') && !self.out.ends_with(':') => {
                return self.close(next);
            }
            ',' if self.out.ends_with([',', '[']) => {
                self.rest.next();
                self.met(Habit::TrailingComma);
                return Some(Expect::Value);
            }
            _ => {}
        }
        let value = if is_quote(next) {
            self.string()?
        } else {
            self.bare_value()?
        };
        if self.hidden.is_some() {
            self.out.push_str(HIDDEN);
        } else {
            self.out.push_str(&value);
        }
        self.value_ends();
        Some(Expect::CommaOrEnd)
    }

    /// A value is at its end; if it was what is hidden, what comes next is not.
    fn value_ends(&mut self) {
        if self.hidden == Some(self.open.len()) {
            self.hidden = None;
        }
    }

    fn name(&mut self, next: char) -> Option<Expect> {
        match next {
            '}' => return self.close(next),
            ',' => {
                self.rest.next();
                self.met(Habit::TrailingComma);
                return Some(Expect::Name);
            }
            _ => {}
        }
        let name = if is_quote(next) {
            self.string()?
        } else {
            let bare =
                self.take_while(|letter| letter.is_alphanumeric() || "_$-.".contains(letter));
            if bare.is_empty() {
                return None;
            }
            self.met(Habit::BareName);
            format!("\"{bare}\"")
        };
        if self.hidden.is_none() && is_secret(&name) {
            self.hidden = Some(self.open.len());
        }
        self.out.push_str(&name);
        Some(Expect::Colon)
    }

    fn colon(&mut self) -> Option<Expect> {
        if !self.take(":") {
            if !self.take("=>") && !self.take("=") {
                return None;
            }
            self.met(Habit::EqualsSign);
        }
        self.out.push(':');
        Some(Expect::Value)
    }

    fn comma_or_end(&mut self, next: char) -> Option<Expect> {
        if next == '}' || next == ']' {
            return self.close(next);
        }
        if next == ',' || next == ';' {
            self.rest.next();
        }
        if next != ',' {
            self.met(Habit::MissingComma);
        }
        self.out.push(',');
        Some(if self.open.last() == Some(&'}') {
            Expect::Name
        } else {
            Expect::Value
        })
    }

    fn close(&mut self, bracket: char) -> Option<Expect> {
        self.rest.next();
        if self.open.pop() != Some(bracket) {
            return None;
        }
        self.drop_comma();
        self.out.push(bracket);
        self.value_ends();
        Some(Expect::CommaOrEnd)
    }

    fn drop_comma(&mut self) {
        if self.out.ends_with(',') {
            self.out.pop();
            self.met(Habit::TrailingComma);
        }
    }

    /// Reads a string, whatever its quotes, and gives it as JSON.
    fn string(&mut self) -> Option<String> {
        let quote = self.rest.next()?;
        let closing = match quote {
            '"' => "\"",
            '\'' | '`' => {
                self.met(Habit::SingleQuotes);
                if quote == '\'' { "'" } else { "`" }
            }
            '‘' | '’' | '‚' | '‹' | '›' => {
                self.met(Habit::CurlyQuotes);
                "‘’‹›'"
            }
            _ => {
                self.met(Habit::CurlyQuotes);
                "“”„«»″\""
            }
        };
        let mut text = String::from('"');
        loop {
            let letter = self.rest.next()?;
            match letter {
                // An apostrophe, or a quote within a text, has more text behind it.
                _ if closing.contains(letter) && (quote == '"' || self.ends_here()) => {
                    text.push('"');
                    return Some(text);
                }
                '\\' => self.escape(&mut text)?,
                '"' => text.push_str("\\\""),
                control if control < ' ' => {
                    self.met(Habit::ControlCharacter);
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\\u{:04x}", u32::from(control));
                }
                letter => text.push(letter),
            }
        }
    }

    /// Whether what comes next may stand behind a string.
    fn ends_here(&self) -> bool {
        let mut rest = self.rest.clone();
        let next = rest.find(|letter| !letter.is_whitespace() && !looks_blank(*letter));
        next.is_none_or(|next| ",:}]=;".contains(next))
    }

    /// Reads what stands behind a backslash.
    fn escape(&mut self, text: &mut String) -> Option<()> {
        let letter = self.rest.next()?;
        match letter {
            '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => text.extend(['\\', letter]),
            'u' if self.is_hex(4) => text.push_str("\\u"),
            'x' if self.is_hex(2) => {
                self.met(Habit::Backslash);
                text.push_str("\\u00");
            }
            letter if is_quote(letter) => text.push(letter),
            letter => {
                self.met(Habit::Backslash);
                text.push_str("\\\\");
                text.push(letter);
            }
        }
        Some(())
    }

    fn is_hex(&self, digits: usize) -> bool {
        let text = self.rest.as_str().as_bytes().get(..digits);
        text.is_some_and(|text| text.iter().all(u8::is_ascii_hexdigit))
    }

    /// Reads a value without quotes: a word of JSON or of another language, a number, or a text.
    fn bare_value(&mut self) -> Option<String> {
        let text = self.take_while(|letter| !",}]".contains(letter)).trim_end();
        match text {
            "" => return None,
            "true" | "false" | "null" => return Some(text.to_owned()),
            "True" | "TRUE" => {
                self.met(Habit::OtherWord);
                return Some("true".to_owned());
            }
            "False" | "FALSE" => {
                self.met(Habit::OtherWord);
                return Some("false".to_owned());
            }
            "None" | "Null" | "NULL" | "nil" | "undefined" => {
                self.met(Habit::OtherWord);
                return Some("null".to_owned());
            }
            "NaN" | "Infinity" | "-Infinity" => {
                self.met(Habit::OtherNumber);
                return None;
            }
            _ => {}
        }
        if is_number(text) {
            return Some(text.to_owned());
        }
        if let Some(number) = number(text) {
            self.met(Habit::OtherNumber);
            return Some(number);
        }
        self.met(Habit::BareText);
        serde_json::to_string(text).ok()
    }
}

fn is_quote(letter: char) -> bool {
    "\"'`“”„«»″‘’‚‹›".contains(letter)
}

/// Whether a character looks like a blank, and is none to JSON.
fn looks_blank(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}')
}

/// Whether what has this name, a string of JSON, must not be shown.
fn is_secret(name: &str) -> bool {
    let name: String = serde_json::from_str(name).unwrap_or_default();
    let name = name.to_lowercase();
    name == "token"
        || ["password", "passwd", "secret"]
            .iter()
            .any(|part| name.contains(part))
}

fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && serde_json::from_str::<&RawValue>(text).is_ok()
}

/// A number as JSON writes it, where another language writes it so.
fn number(text: &str) -> Option<String> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    if let Some(hex) = digits.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16)
            .ok()
            .map(|number| format!("{sign}{number}"));
    }
    let digits = digits
        .strip_suffix('.')
        .unwrap_or(digits)
        .trim_start_matches('0');
    let zero = if digits.starts_with(|first: char| first.is_ascii_digit()) {
        ""
    } else {
        "0"
    };
    let number = [sign, zero, digits].concat();
    is_number(&number).then_some(number)
}
