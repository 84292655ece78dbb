//! A text in the form in which its words are compared (protocol.md, 5).

use super::characters::{Kind, Page, Role, SMALL_IOTA};
use crate::limits::FOLDED_QUERY_MAX_BYTES;
use unicode_normalization::char::compose;

/// Stands for the `*` of a query: no word holds a control character.
pub const STAR: char = '\u{1}';
/// Stands for a double quote of a query.
pub const QUOTE: char = '\u{2}';

/// A text folded: its words in their order, with spaces between them.
///
/// It can be used again for the next text, and then needs no more memory.
#[derive(Debug, Default)]
pub struct Folded {
    text: String,
    /// Marks that wait until all of their character are there.
    marks: Vec<Waiting>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    class: u8,
    c: char,
    kind: Kind,
}

impl Folded {
    /// Folds a text in which words are looked for.
    pub fn text(&mut self, text: &str) -> &str {
        self.fold(text, false, usize::MAX);
        &self.text
    }

    /// Folds a query, whose stars and quotes mean something. None if its characters decompose into more than
    /// [`FOLDED_QUERY_MAX_BYTES`].
    pub fn query(&mut self, query: &str) -> Option<&str> {
        let is_whole = self.fold(query, true, FOLDED_QUERY_MAX_BYTES);
        is_whole.then_some(&*self.text)
    }

    /// Folds a text, and gives whether all of it: where it decomposes into more than so many bytes, there is no end to it.
    fn fold(&mut self, text: &str, is_query: bool, max_bytes: usize) -> bool {
        self.text.clear();
        self.text.reserve(text.len());
        self.marks.clear();
        let mut folder = Folder {
            out: &mut self.text,
            marks: &mut self.marks,
            is_query,
            word: None,
            tail: Tail::Other,
            starter: 0,
        };
        for (at, c) in text.char_indices() {
            if c.is_ascii_alphanumeric() && folder.is_plain() {
                folder.out.push(c.to_ascii_lowercase());
                folder.tail = Tail::after(c.is_ascii_alphabetic());
                continue;
            }
            let page = Page::of(c);
            match page.role(c) {
                Role::Several {
                    start,
                    count,
                    border,
                } => {
                    if folder.out.len() > max_bytes {
                        return false;
                    }
                    folder.several(page.several(start, count), border);
                }
                Role::Keycap => folder.keycap(c, &text[..at]),
                role => folder.push(role),
            }
        }
        folder.flush();
        true
    }
}

/// Writes words down, a character at a time.
struct Folder<'a> {
    out: &'a mut String,
    marks: &'a mut Vec<Waiting>,
    is_query: bool,
    /// The kind of the word that was written last, if no gap was written after it.
    word: Option<Kind>,
    /// What that word ends with.
    tail: Tail,
    /// Where the character stands that marks may compose with, in a word without spaces.
    starter: usize,
}

/// What the word that was written last ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// A letter, and marks of it.
    Letter,
    /// A letter and an apostrophe, which is part of the word if a letter follows.
    Apostrophe,
    /// An emoji that the next one is joined to.
    Joiner,
    /// The first half of a flag.
    HalfFlag,
    /// It ends here, whatever comes.
    Closed,
    /// Anything else.
    Other,
}

impl Tail {
    fn after(letter: bool) -> Self {
        if letter { Self::Letter } else { Self::Other }
    }
}

impl Folder<'_> {
    /// Whether a letter of ASCII goes on with the word that was written last.
    fn is_plain(&self) -> bool {
        self.word == Some(Kind::Spaced)
            && matches!(self.tail, Tail::Letter | Tail::Other)
            && self.marks.is_empty()
    }

    fn push(&mut self, role: Role) {
        match role {
            Role::Base { c, kind, letter } => self.base(c, kind, letter),
            Role::Gap => {
                self.flush();
                self.gap();
            }
            Role::Sign { c, kind } => self.sign(c, kind),
            Role::Mark { c, kind, class } => {
                self.end_at_apostrophe();
                self.marks.push(Waiting { class, c, kind });
            }
            Role::Apostrophe => {
                self.flush();
                if self.tail == Tail::Letter {
                    self.tail = Tail::Apostrophe;
                } else {
                    self.gap();
                }
            }
            Role::Emoji(c) => self.emoji(c),
            Role::Joiner if self.word == Some(Kind::Emoji) && self.tail == Tail::Other => {
                self.tail = Tail::Joiner;
            }
            Role::Star => self.sign_of_query(STAR),
            Role::Quote => self.sign_of_query(QUOTE),
            // A decomposition holds no other decompositions, and its parts have no text before them.
            Role::Dropped | Role::Joiner | Role::Keycap | Role::Several { .. } => {}
        }
    }

    fn several(&mut self, roles: &[Role], border: bool) {
        if border {
            self.flush();
            self.gap();
        }
        for &role in roles {
            self.push(role);
        }
        if border {
            self.flush();
            self.tail = Tail::Closed;
        }
    }

    fn base(&mut self, c: char, kind: Kind, letter: bool) {
        self.flush();
        if self.tail == Tail::Apostrophe && letter && self.word == Some(kind) {
            self.out.push('\'');
        } else if self.word != Some(kind) || matches!(self.tail, Tail::Apostrophe | Tail::Closed) {
            self.begin(kind);
        }
        self.starter = self.out.len();
        self.out.push(c);
        self.tail = Tail::after(letter);
    }

    fn sign(&mut self, c: char, kind: Kind) {
        self.flush();
        self.end_at_apostrophe();
        if !self.takes_mark(kind) {
            return;
        }
        let mut last = self.out.get(self.starter..).unwrap_or_default().chars();
        let (base, is_next) = (last.next(), last.next().is_none());
        let composed = base.filter(|_| is_next && self.word == Some(Kind::Unspaced));
        if let Some(composed) = composed.and_then(|base| compose(base, c)) {
            self.out.truncate(self.starter);
            self.out.push(composed);
        } else {
            self.starter = self.out.len();
            self.out.push(c);
        }
    }

    /// Writes the marks that wait, in the order of their classes.
    fn flush(&mut self) {
        if self.marks.is_empty() {
            return;
        }
        let mut marks = std::mem::take(self.marks);
        marks.sort_by_key(|mark| mark.class);
        let mut last_class = 0;
        for Waiting { class, c, kind } in marks.drain(..) {
            if !self.takes_mark(kind) {
                if c != SMALL_IOTA {
                    continue;
                }
                self.begin(kind);
            }
            let base = self
                .out
                .get(self.starter..)
                .and_then(|last| last.chars().next());
            let composed = base
                .filter(|_| self.word == Some(Kind::Unspaced) && last_class < class)
                .and_then(|base| Some((base, compose(base, c)?)));
            if let Some((base, composed)) = composed {
                let range = self.starter..self.starter + base.len_utf8();
                self.out
                    .replace_range(range, composed.encode_utf8(&mut [0; 4]));
            } else {
                self.out.push(c);
                last_class = class;
            }
        }
        *self.marks = marks;
    }

    fn emoji(&mut self, c: char) {
        self.flush();
        self.end_at_apostrophe();
        let is_flag = matches!(c, '\u{1f1e6}'..='\u{1f1ff}');
        let is_skin = matches!(c, '\u{1f3fb}'..='\u{1f3ff}');
        let follows = if is_flag {
            self.tail == Tail::HalfFlag
        } else {
            self.tail == Tail::Joiner || is_skin
        };
        let goes_on = follows && self.word == Some(Kind::Emoji);
        if !goes_on {
            self.begin(Kind::Emoji);
        }
        self.tail = if is_flag && !goes_on {
            Tail::HalfFlag
        } else {
            Tail::Other
        };
        self.out.push(c);
    }

    /// A digit with a keycap is the digit, and an emoji behind it; `#` and `*` are the emoji alone.
    fn keycap(&mut self, keycap: char, before: &str) {
        self.flush();
        let base = before.chars().rev().find(|c| *c != '\u{fe0f}');
        let last = self.out.chars().next_back();
        match base {
            Some(digit @ '0'..='9') if last == base => {
                self.out.pop();
                let before = self.out.chars().next_back();
                if before.is_some_and(|c| !matches!(c, ' ' | STAR | QUOTE)) {
                    self.out.push(' ');
                }
                self.out.push(digit);
                self.begin(Kind::Emoji);
                self.out.push(digit);
            }
            Some(sign @ ('#' | '*')) => {
                if self.is_query && sign == '*' && last == Some(STAR) {
                    self.out.pop();
                    self.out.push(' ');
                }
                self.begin(Kind::Emoji);
                self.out.push(sign);
            }
            _ => {
                return self.push(Role::Sign {
                    c: keycap,
                    kind: Kind::Spaced,
                });
            }
        }
        self.out.push(keycap);
    }

    fn sign_of_query(&mut self, sign: char) {
        self.flush();
        self.end_at_apostrophe();
        if !self.is_query {
            return self.gap();
        }
        // Without a space before it, for whether it follows a word directly tells.
        self.out.push(sign);
        self.word = None;
        self.gap();
    }

    fn end_at_apostrophe(&mut self) {
        if self.tail == Tail::Apostrophe {
            self.gap();
        }
    }

    /// Whether a mark is part of a word; one of a script without spaces can begin one. Others that are behind a sign belong to
    /// the sign, as the stroke in `≠`.
    fn takes_mark(&mut self, kind: Kind) -> bool {
        if self.tail == Tail::Closed || !matches!(self.word, Some(Kind::Spaced | Kind::Unspaced)) {
            if kind != Kind::Unspaced {
                return false;
            }
            self.begin(kind);
        }
        true
    }

    fn begin(&mut self, kind: Kind) {
        self.gap();
        self.word = Some(kind);
        self.starter = self.out.len();
    }

    fn gap(&mut self) {
        if self.word.take().is_some() {
            self.out.push(' ');
        }
        self.tail = Tail::Other;
    }
}
