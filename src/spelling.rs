//! The word that somebody meant.

use std::fmt::Write;

/// Bytes of a word for which the nearest one is looked for; nobody mistypes a longer one.
const WORD_MAX_BYTES: usize = 64;
/// Letters with which a word may be cut short, or go on.
const PREFIX_MIN_CHARS: usize = 3;

/// The known word that is nearest to this one, where one is near enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_MAX_BYTES {
        return None;
    }
    let word = plain(word);
    let found = known.into_iter().filter_map(|candidate| {
        let plain_candidate = plain(candidate);
        let (shorter, longer) = if word.len() < plain_candidate.len() {
            (&word, &plain_candidate)
        } else {
            (&plain_candidate, &word)
        };
        let shorter_chars = shorter.chars().count();
        let begins = longer.starts_with(shorter.as_str());
        let distance = strsim::osa_distance(shorter, longer);
        let near = distance <= (shorter_chars / 3).max(1) && distance < shorter_chars.max(1);
        let cut_short = begins && shorter_chars >= PREFIX_MIN_CHARS;
        // Of two that are as near, the one that only has letters more or less.
        let mut letters = longer.chars();
        let left_out = shorter
            .chars()
            .all(|letter| letters.any(|other| other == letter));
        (near || cut_short).then_some(((!near, distance, !left_out), candidate))
    });
    found
        .min_by_key(|&(how_far, _)| how_far)
        .map(|(_, candidate)| candidate)
}

/// A word as it is compared: `userId`, `user-id` and `USER_ID` are `user_id`.
fn plain(word: &str) -> String {
    word.chars()
        .filter(|letter| letter.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// What a refusal says of an unknown word behind its name: which word may have been meant, and which there are.
#[must_use]
pub fn there_are(word: &str, known: &[&str]) -> String {
    let mut text = String::new();
    if let Some(meant) = nearest(word, known.iter().copied()) {
        // Writing to a String cannot fail.
        let _ = write!(text, "did you mean {meant}? ");
    }
    let _ = write!(text, "there are {}", known.join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_where_one_is_near_enough() {
        let commands = [
            "create",
            "get",
            "update",
            "delete",
            "search",
            "add_members",
            "mark_read",
        ];
        for (word, meant) in [
            ("craete", Some("create")),
            ("Create", Some("create")),
            ("updte", Some("update")),
            ("addMembers", Some("add_members")),
            ("add-member", Some("add_members")),
            ("del", Some("delete")),
            ("searching", Some("search")),
            ("got", Some("get")),
            ("promote", None),
            ("x", None),
            ("", None),
            ("ping", None),
        ] {
            assert_eq!(nearest(word, commands), meant, "{word}");
        }
        let operators = ["gt", "gte", "lt", "lte", "prefix", "match"];
        for (word, meant) in [
            ("$gt", Some("gt")),
            ("ge", Some("gte")),
            ("LTE", Some("lte")),
            ("matches", Some("match")),
            ("contains", None),
        ] {
            assert_eq!(nearest(word, operators), meant, "{word}");
        }
        assert_eq!(nearest(&"create".repeat(100), commands), None);
    }
}
