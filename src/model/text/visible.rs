//! Which characters can be seen, and which only do something to the text around them (protocol.md, 4 and 5).

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Whether a character is ignored where it is not supported, so that it is invisible: Unicode's
/// `Default_Ignorable_Code_Point`. It includes code points that are kept for more of the kind.
#[must_use]
pub fn is_default_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a character shows nothing by itself: white space, controls, formats, fillers and blanks.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    c.is_whitespace() || acts_on_text(c) || is_default_ignorable(c) || is_blank(c)
}

/// Whether a character can be seen without another one: no mark can.
#[must_use]
pub fn is_visible(c: char) -> bool {
    !is_invisible(c) && c.general_category_group() != GeneralCategoryGroup::Mark
}

/// Whether a character is a control or an end of line, or turns the direction of text around.
#[must_use]
pub fn is_control(c: char) -> bool {
    c.is_control() || is_line_end(c) || is_bidirectional_control(c)
}

/// Whether a line of a log may not hold a character as it is: it would end the line, or show it other than it is.
#[must_use]
pub fn acts_on_text(c: char) -> bool {
    c.is_control() || is_line_end(c) || c.general_category() == GeneralCategory::Format
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// Unicode's `Bidi_Control`.
fn is_bidirectional_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Symbols and marks whose picture is empty, and code points that are no characters.
fn is_blank(c: char) -> bool {
    matches!(
        c,
        '\u{2800}' | '\u{1d159}' | '\u{16fe4}' | '\u{fdd0}'..='\u{fdef}'
    ) || c as u32 & 0xfffe == 0xfffe
}
