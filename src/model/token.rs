//! Session tokens: what bots and scripts log in with instead of a password (protocol.md, 7).

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt;

/// How a token begins, so that people and scanners for leaked secrets know it.
const PREFIX: &str = "cht_";
/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;

/// A token: `cht_` and 64 hexadecimal digits, 256 random bits. It shows itself nowhere but in the answer that gives it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; TOKEN_BYTES]);

/// SHA-256 of a token's bytes: all that is stored of it. 256 random bits need no slow hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl Token {
    /// A new one from the system's random numbers; an error says that there are none.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The token that a text stands for, if it can be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        hex::decode_to_slice(text.strip_prefix(PREFIX)?, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0).into())
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = format!("{PREFIX}{}", hex::encode(self.0));
        serializer.serialize_str(&text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_what_it_shows_and_nothing_else() {
        let token = Token::random().unwrap();
        let text = serde_json::to_value(token).unwrap();
        let text = text.as_str().unwrap();
        assert_eq!(text.len(), 68);
        assert_eq!(Token::parse(text), Some(token));
        assert_ne!(Token::random().unwrap(), token);
        for wrong in [
            "",
            "cht_",
            &text[4..],
            &text[..67],
            &format!("{text}0"),
            &text.replace("cht_", "xyz_"),
        ] {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
        assert_eq!(
            format!("{token:?}{:?}", token.hash()),
            "Token(…)TokenHash(…)"
        );
    }
}
