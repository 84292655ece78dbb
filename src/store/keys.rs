//! The keys of the state: one leading byte for the kind, then big-endian ids, so that order on disk is order in time.
//!
//! | byte | rest of the key | value |
//! |---|---|---|
//! | `0` | | format version |
//! | `1` | | [`super::rows::Head`] |
//! | `2` | | [`crate::model::ClockNote`] |
//! | `3` | | [`super::rows::CostsRow`] |
//! | `u` | user | user |
//! | `l` | folded login | user id |
//! | `c` | conversation | conversation |
//! | `k` | conversation | its message counters |
//! | `p` | conversation, user | nothing: a membership |
//! | `o` | user, conversation | nothing: the same membership, seen from the user |
//! | `m` | conversation, message | message |
//! | `i` | message | its conversation |
//! | `a` | user, conversation | nothing: the user has written there |
//! | `n` | conversation, user, nonce | the message made with it |
//! | `x` | time, then the rest of an `n` key | nothing: a nonce to forget `events.keep` after this time |
//! | `d` | kind, id | a deletion that is not finished; of a conversation: the last member that its event names, if not all |
//! | `g` | conversation, user | nothing: the user was in it when it was deleted; for those that its event does not name |
//! | `z` | time, conversation | nothing: the `g` keys of the conversation, to forget `events.keep` after this time |
//! | `t` | token | a session token's row |
//! | `h` | SHA-256 of a token | the token's id |
//! | `y` | user, token | nothing: the user's tokens |
//!
//! Bytes are never reused for another kind.

use crate::model::{ConversationId, Id, MessageId, TokenHash, TokenId, UserId};

/// The key of the format version.
pub const FORMAT: &[u8] = b"0";
/// The key of the head.
pub const HEAD: &[u8] = b"1";

/// The key of what is noted of the clock.
pub const CLOCK: &[u8] = b"2";
/// The key of the costs that passwords are hashed with.
pub const COSTS: &[u8] = b"3";

/// A key of a kind byte and one id.
pub type One = [u8; 9];
/// A key of a kind byte and two ids.
pub type Two = [u8; 17];

fn one(kind: u8, id: Id) -> One {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&id.key());
    key
}

fn two(kind: u8, first: Id, second: Id) -> Two {
    let mut key = [kind; 17];
    key[1..9].copy_from_slice(&first.key());
    key[9..].copy_from_slice(&second.key());
    key
}

/// The id that a key ends in.
#[must_use]
pub fn last_id(key: &[u8]) -> Id {
    key.last_chunk()
        .map_or(Id(0), |bytes| Id(u64::from_be_bytes(*bytes)))
}

/// The id that follows a key's kind byte.
#[must_use]
pub fn first_id(key: &[u8]) -> Id {
    key.get(1..9)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(Id(0), |bytes| Id(u64::from_be_bytes(bytes)))
}

/// A user's key.
#[must_use]
pub fn user(id: UserId) -> One {
    one(b'u', id.0)
}

/// The key of a login, folded.
#[must_use]
pub fn login(folded: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + folded.len());
    key.push(b'l');
    key.extend_from_slice(folded.as_bytes());
    key
}

/// A conversation's key.
#[must_use]
pub fn conversation(id: ConversationId) -> One {
    one(b'c', id.0)
}

/// The key of a conversation's message counters.
#[must_use]
pub fn counters(id: ConversationId) -> One {
    one(b'k', id.0)
}

/// A membership's key, seen from the conversation.
#[must_use]
pub fn member(conversation: ConversationId, user: UserId) -> Two {
    two(b'p', conversation.0, user.0)
}

/// A membership's key, seen from the user.
#[must_use]
pub fn membership(user: UserId, conversation: ConversationId) -> Two {
    two(b'o', user.0, conversation.0)
}

/// A message's key.
#[must_use]
pub fn message(conversation: ConversationId, message: MessageId) -> Two {
    two(b'm', conversation.0, message.0)
}

/// The key of a message's conversation.
#[must_use]
pub fn place(message: MessageId) -> One {
    one(b'i', message.0)
}

/// The key that says that a user has written in a conversation.
#[must_use]
pub fn author(user: UserId, conversation: ConversationId) -> Two {
    two(b'a', user.0, conversation.0)
}

/// A nonce's key.
#[must_use]
pub fn nonce(conversation: ConversationId, user: UserId, nonce: &str) -> Vec<u8> {
    let mut key = two(b'n', conversation.0, user.0).to_vec();
    key.extend_from_slice(nonce.as_bytes());
    key
}

/// The key that says when the message of a nonce was deleted.
#[must_use]
pub fn nonce_expiry(deleted_ms: u64, nonce_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + nonce_key.len());
    key.push(b'x');
    key.extend_from_slice(&deleted_ms.to_be_bytes());
    key.extend_from_slice(nonce_key.get(1..).unwrap_or_default());
    key
}

/// The nonce's key in an expiry key.
#[must_use]
pub fn nonce_of_expiry(expiry_key: &[u8]) -> Vec<u8> {
    let mut key = vec![b'n'];
    key.extend_from_slice(expiry_key.get(9..).unwrap_or_default());
    key
}

/// The key that says that a user was in a conversation when it was deleted.
#[must_use]
pub fn last_member(conversation: ConversationId, user: UserId) -> Two {
    two(b'g', conversation.0, user.0)
}

/// The key that says when a conversation with such keys was deleted.
#[must_use]
pub fn last_members_expiry(deleted_ms: u64, conversation: ConversationId) -> Two {
    two(b'z', Id(deleted_ms), conversation.0)
}

/// The key of an unfinished deletion of a conversation.
#[must_use]
pub fn conversation_deletion(id: ConversationId) -> [u8; 10] {
    deletion(b'c', id.0)
}

/// The key of an unfinished deletion of a user.
#[must_use]
pub fn user_deletion(id: UserId) -> [u8; 10] {
    deletion(b'u', id.0)
}

fn deletion(kind: u8, id: Id) -> [u8; 10] {
    let mut key = [b'd'; 10];
    key[1] = kind;
    key[2..].copy_from_slice(&id.key());
    key
}

/// A session token's key.
#[must_use]
pub fn token(id: TokenId) -> One {
    one(b't', id.0)
}

/// The key of a token's hash.
#[must_use]
pub fn token_hash(hash: &TokenHash) -> [u8; 33] {
    let mut key = [b'h'; 33];
    key[1..].copy_from_slice(&hash.0);
    key
}

/// The key that says whose a token is.
#[must_use]
pub fn token_of(user: UserId, token: TokenId) -> Two {
    two(b'y', user.0, token.0)
}

/// A range of keys, lower bound included, upper excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The lower bound.
    pub low: Vec<u8>,
    /// The upper bound.
    pub high: Vec<u8>,
}

/// All keys that begin so.
#[must_use]
pub fn prefix(prefix: &[u8]) -> Range {
    let mut high = prefix.to_vec();
    while let Some(last) = high.pop() {
        if last < u8::MAX {
            high.push(last + 1);
            break;
        }
    }
    if high.is_empty() {
        // No kind byte is 0xff, so that this is above every key.
        high.push(u8::MAX);
    }
    Range {
        low: prefix.to_vec(),
        high,
    }
}

/// The keys that begin so and end in an id from `low` on and below `high` (2^64: no upper bound).
#[must_use]
pub fn ids(prefix_bytes: &[u8], low: u128, high: u128) -> Range {
    let mut range = prefix(prefix_bytes);
    if let Ok(low) = u64::try_from(low) {
        range.low.extend_from_slice(&low.to_be_bytes());
    } else {
        range.low.clone_from(&range.high);
    }
    if let Ok(high) = u64::try_from(high) {
        range.high = prefix_bytes.to_vec();
        range.high.extend_from_slice(&high.to_be_bytes());
    }
    range
}

/// The prefix of a kind's keys that begin with this id.
#[must_use]
pub fn under(kind: u8, id: Id) -> One {
    one(kind, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_range_ends_where_the_next_begins() {
        assert_eq!(prefix(b"m").high, b"n");
        assert_eq!(prefix(&[b'm', 0xff, 0xff]).high, b"n");
        assert_eq!(prefix(&[0xff]).high, [0xff]);
    }

    #[test]
    fn an_id_range_without_upper_bound_ends_with_its_prefix() {
        let range = ids(b"i", 5, 1 << 64);
        assert_eq!(
            (range.low.as_slice(), range.high.as_slice()),
            (&one(b'i', Id(5))[..], &b"j"[..])
        );
        let empty = ids(b"i", 1 << 64, 1 << 64);
        assert!(empty.low >= empty.high);
    }

    #[test]
    fn an_expiry_key_holds_its_nonce() {
        let key = nonce(ConversationId(Id(1)), UserId(Id(2)), "n");
        assert_eq!(nonce_of_expiry(&nonce_expiry(9, &key)), key);
    }
}
