//! Habits that make a line JSON to a person only.

/// What somebody wrote that JSON does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// `{class: …}`.
    BareName,
    /// `{"class": chat}`.
    BareText,
    /// `{'class': …}`.
    SingleQuotes,
    /// `{“class”: …}`.
    CurlyQuotes,
    /// `{\"class\": …}`.
    EscapedQuotes,
    /// `'{"class": …}'`.
    QuotedLine,
    /// `{"a": 1,}`.
    TrailingComma,
    /// `{"a": 1 "b": 2}`.
    MissingComma,
    /// `{"a" => 1}`.
    EqualsSign,
    /// `// …`, `# …`, `/* … */`.
    Comment,
    /// `True`, `None`, `undefined`.
    OtherWord,
    /// `+5`, `.5`, `0x10`.
    OtherNumber,
    /// A tab inside a string.
    ControlCharacter,
    /// `"C:\data"`.
    Backslash,
    /// A no-break space, or another blank that JSON does not have, between the parts.
    NoBreakSpace,
    /// A byte order mark anywhere but before the first line of a connection.
    ByteOrderMark,
    /// The object goes on in the next line.
    Unfinished,
    /// The middle or the end of an object that began in an earlier line.
    Middle,
    /// Something stands behind the object.
    Behind,
}

impl Habit {
    /// What to do about it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::BareName => "names stand in double quotes",
            Self::BareText => "texts stand in double quotes",
            Self::SingleQuotes => "names and texts stand in double quotes, not in single quotes",
            Self::CurlyQuotes => "quotes are straight, not curly: an editor or a chat turned them",
            Self::EscapedQuotes => "the quotes around names and texts have no backslash",
            Self::QuotedLine => "a request has no quotes around it",
            Self::TrailingComma => "there is a trailing comma too many",
            Self::MissingComma => "a comma is missing",
            Self::EqualsSign => "between a name and its value stands a colon",
            Self::Comment => "JSON has no comments",
            Self::OtherWord => "the words of JSON are true, false and null, in small letters",
            Self::OtherNumber => {
                "a number is written in decimal, without a plus sign or leading zeros"
            }
            Self::ControlCharacter => {
                "a tab or other control character in a string is escaped, such as \\t"
            }
            Self::Backslash => "a backslash in a string is written twice",
            Self::NoBreakSpace => {
                "there is a no-break space, or another character that only looks like a blank"
            }
            Self::ByteOrderMark => {
                "there is a byte order mark, which only a connection's first line may begin with"
            }
            Self::Unfinished => {
                "a request is one line, and this line begins an object and does not end it"
            }
            Self::Middle => {
                "a request is one line, and this looks like the middle of one over several lines"
            }
            Self::Behind => "one line is one request, and something stands behind it",
        }
    }
}
