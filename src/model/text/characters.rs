//! What each character is to a word (protocol.md, 5).
//!
//! It follows from the Unicode tables, which take several searches for each character. So it is worked out once for
//! each page of 256 characters, when the first of them is met.

use super::visible::is_default_ignorable;
use std::sync::OnceLock;
use unicase::UniCase;
use unicode_normalization::char::{canonical_combining_class, compose, decompose_compatible};
use unicode_properties::{GeneralCategoryGroup, UnicodeEmoji, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};

/// The two ways of writing words, and the words that are pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With spaces between words.
    Spaced,
    /// Without.
    Unspaced,
    /// An emoji is a word of its own.
    Emoji,
}

/// What a character is to a word, with the form in which it is compared: after NFKD and case folding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Part of no word.
    Gap,
    /// Left out where words are compared: an accent, a point, tatweel, what is invisible.
    Dropped,
    /// U+200D: left out, but it makes one emoji of two.
    Joiner,
    /// Part of a word between two letters.
    Apostrophe,
    /// The `*` of a query; in a text a gap.
    Star,
    /// A double quote of a query; in a text a gap.
    Quote,
    /// A letter or digit.
    Base {
        /// As it is compared.
        c: char,
        /// How its script is written.
        kind: Kind,
        /// Whether it is a letter.
        letter: bool,
    },
    /// A mark that stays and is never put in another order, as most vowel signs.
    Sign {
        /// As it is compared.
        c: char,
        /// How its script is written.
        kind: Kind,
    },
    /// A mark that stays, and is put in order by its combining class.
    Mark {
        /// As it is compared.
        c: char,
        /// How its script is written.
        kind: Kind,
        /// Its combining class.
        class: u8,
    },
    /// An emoji, or a part of one.
    Emoji(char),
    /// U+20E3, which makes an emoji of the digit, `#` or `*` before it.
    Keycap,
    /// It decomposes into several.
    Several {
        /// The first of them, in [`Page::several`].
        start: u16,
        /// How many there are.
        count: u8,
        /// Whether they are a word of their own: those of a symbol, superscript or fraction.
        border: bool,
    },
}

/// The roles of 256 characters.
pub struct Page {
    roles: [Role; 256],
    several: Vec<Role>,
}

/// What the mark U+0345 folds to.
pub const SMALL_IOTA: char = 'ι';

static PAGES: [OnceLock<Box<Page>>; 0x1100] = [const { OnceLock::new() }; 0x1100];

impl Page {
    /// The page on which a character is.
    pub fn of(c: char) -> &'static Page {
        let number = c as u32 >> 8;
        PAGES[number as usize].get_or_init(|| Box::new(Page::new(number)))
    }

    /// The role of a character that is on this page.
    pub fn role(&self, c: char) -> Role {
        self.roles[c as usize & 0xff]
    }

    /// What a character decomposes into, as its role says.
    pub fn several(&self, start: u16, count: u8) -> &[Role] {
        let start = usize::from(start);
        &self.several[start..start + usize::from(count)]
    }

    fn new(number: u32) -> Page {
        let mut several = Vec::new();
        let roles = std::array::from_fn(|low| {
            u32::try_from(low)
                .ok()
                .and_then(|low| char::from_u32(number << 8 | low))
                .map_or(Role::Gap, |c| work_out(c, &mut several))
        });
        Page { roles, several }
    }
}

/// How the word that begins with this character is written, where it can begin one.
pub fn kind_of_word(first: char) -> Option<Kind> {
    match Page::of(first).role(first) {
        Role::Base { kind, .. } | Role::Sign { kind, .. } | Role::Mark { kind, .. } => Some(kind),
        Role::Emoji(_) => Some(Kind::Emoji),
        _ => None,
    }
}

fn work_out(c: char, several: &mut Vec<Role>) -> Role {
    let mut roles = Vec::new();
    decompose_compatible(c, |part| add_folded(part, &mut roles));
    if roles.iter().all(|role| *role == Role::Dropped) {
        return Role::Dropped;
    }
    if roles.len() > 1 {
        roles.retain(|role| *role != Role::Dropped);
    }
    let is_symbol = !matches!(
        c.general_category_group(),
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number | GeneralCategoryGroup::Mark
    );
    let has_base = roles.iter().any(|role| matches!(role, Role::Base { .. }));
    if is_symbol && is_emoji(c) && !has_base {
        return Role::Emoji(c);
    }
    if roles.iter().all(|role| *role == Role::Gap) {
        return Role::Gap;
    }
    // ℹ is an emoji, and a letter by its category.
    let is_word = is_symbol || is_superscript(c) || is_fraction(c) || c == 'ℹ';
    let border = has_base && is_word;
    match *roles.as_slice() {
        [role] if !border => return role,
        // What a script without spaces has as one character is one: so a run does not end inside it (か is not が).
        [
            Role::Base {
                c,
                kind: Kind::Unspaced,
                letter,
            },
            Role::Sign { c: mark, .. } | Role::Mark { c: mark, .. },
        ] if !border => {
            if let Some(c) = compose(c, mark) {
                let kind = Kind::Unspaced;
                return Role::Base { c, kind, letter };
            }
        }
        _ => {}
    }
    let (Ok(start), Ok(count)) = (u16::try_from(several.len()), u8::try_from(roles.len())) else {
        // The longest decomposition has 18 characters.
        return Role::Gap;
    };
    several.append(&mut roles);
    Role::Several {
        start,
        count,
        border,
    }
}

/// Adds the roles of one character of a decomposition, which folding may make several characters.
fn add_folded(part: char, roles: &mut Vec<Role>) {
    // It folds to a letter, but is put in order with the marks before that.
    if part == '\u{345}' {
        roles.push(Role::Mark {
            c: SMALL_IOTA,
            kind: Kind::Spaced,
            class: canonical_combining_class(part),
        });
        return;
    }
    let folded = UniCase::unicode(part.encode_utf8(&mut [0; 4])).to_folded_case();
    for c in folded.chars() {
        match c {
            'ł' => roles.push(plain('l')),
            'ø' => roles.push(plain('o')),
            'đ' => roles.push(plain('d')),
            'ħ' => roles.push(plain('h')),
            'ŧ' => roles.push(plain('t')),
            'ı' => roles.push(plain('i')),
            'æ' => roles.extend(['a', 'e'].map(plain)),
            'œ' => roles.extend(['o', 'e'].map(plain)),
            c => roles.push(plain(c)),
        }
    }
}

/// The role of a character that is decomposed and folded already.
fn plain(c: char) -> Role {
    let kind = if is_unspaced(c) {
        Kind::Unspaced
    } else {
        Kind::Spaced
    };
    match c {
        '\u{200d}' => return Role::Joiner,
        '\u{640}' => return Role::Dropped,
        '\u{20e3}' => return Role::Keycap,
        '\'' | '’' | 'ʻ' | 'ʼ' => return Role::Apostrophe,
        '*' => return Role::Star,
        '"' | '“' | '”' | '„' | '‟' => return Role::Quote,
        _ if is_default_ignorable(c) => return Role::Dropped,
        _ => {}
    }
    match c.general_category_group() {
        GeneralCategoryGroup::Letter => Role::Base {
            c,
            kind,
            letter: true,
        },
        GeneralCategoryGroup::Number => Role::Base {
            c,
            kind,
            letter: false,
        },
        GeneralCategoryGroup::Mark => match canonical_combining_class(c) {
            0 => Role::Sign { c, kind },
            10..=36 | 200..=240 => Role::Dropped,
            class => Role::Mark { c, kind, class },
        },
        _ if is_emoji(c) => Role::Emoji(c),
        _ => Role::Gap,
    }
}

/// Whether it is an emoji by itself, and not only with a keycap.
fn is_emoji(c: char) -> bool {
    c.is_emoji_char() && !c.is_ascii()
}

/// The superscripts that are no symbols: digits, ordinals, and the two letters between the digits. The raised letters of
/// phonetic and other alphabets are letters like any other.
fn is_superscript(c: char) -> bool {
    matches!(c, 'ª' | '²' | '³' | '¹' | 'º' | '\u{2070}'..='\u{207f}')
}

fn is_fraction(c: char) -> bool {
    matches!(c, '¼'..='¾' | '\u{2150}'..='\u{215f}' | '\u{2189}')
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
