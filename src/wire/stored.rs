//! The lines of stored events, read again: what text they carry, and the same without it.

use crate::model::{Id, MessageId};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The message that a stored event carries.
#[derive(Debug, PartialEq, Eq)]
pub struct StoredText<'a> {
    /// Which message it is.
    pub message: MessageId,
    /// Its text, as it was then.
    pub text: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    body: Body<'a>,
}

#[derive(Deserialize)]
struct Body<'a> {
    message_id: &'a str,
    #[serde(borrow)]
    message: &'a RawValue,
}

/// The text that the line of an event carries, if it carries one.
#[must_use]
pub fn stored_text(line: &[u8]) -> Option<StoredText<'_>> {
    let body = parse(line)?.body;
    Some(StoredText {
        message: MessageId(Id::parse(body.message_id)?),
        text: serde_json::Deserializer::from_str(body.message.get())
            .into_iter::<Text<'_>>()
            .next()?
            .ok()?
            .0,
    })
}

/// A text that is borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The line without the text that it carries; all else stays as it is, to the byte.
#[must_use]
pub fn without_text(line: &Bytes) -> Bytes {
    const NAME: &[u8] = br#","message":"#;
    let Some(parsed) = parse(line) else {
        return line.clone();
    };
    // The raw value is a part of the line.
    let raw = parsed.body.message.get();
    let begin = raw.as_ptr().addr().wrapping_sub(line.as_ptr().addr());
    let (Some(before), Some(behind)) = (line.get(..begin), line.get(begin + raw.len()..)) else {
        return line.clone();
    };
    let before = before.strip_suffix(NAME).unwrap_or(before);
    [before, behind].concat().into()
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConversationId, EventType, Message, Subclass, UserId};
    use crate::wire::{EventBody, event_line};

    fn line(text: &str, updated_time: Option<u64>) -> Bytes {
        let message = Message {
            message_id: MessageId(Id(7)),
            conversation_id: ConversationId(Id(8)),
            user_id: UserId(Id(9)),
            message: Cow::Borrowed(text),
            created_time: 1,
            updated_time,
        };
        let body = EventBody::Message(&message);
        let kind = EventType::CreatedMessage;
        let by = Some(UserId(Id(9)));
        event_line(Subclass::Conversation, kind, Id(8), Some(&body), 3, 4, by)
    }

    #[test]
    fn a_text_is_found_and_cut_out_whatever_is_in_it() {
        for text in [
            "hello",
            "",
            "\"quoted\\\"",
            r#","message":"nested""#,
            "line\nend\u{2028}\u{1f600}",
        ] {
            for updated_time in [None, Some(5)] {
                let line = line(text, updated_time);
                let stored = stored_text(&line).unwrap();
                assert_eq!((stored.message, &*stored.text), (MessageId(Id(7)), text));
                let mut expected: serde_json::Value = serde_json::from_slice(&line).unwrap();
                let body = expected["body"].as_object_mut().unwrap();
                assert!(body.remove("message").is_some());
                let cut = without_text(&line);
                assert!(cut.ends_with(b"}\n"), "{cut:?}");
                let found: serde_json::Value = serde_json::from_slice(&cut).unwrap();
                assert_eq!(found, expected);
                assert_eq!(stored_text(&cut), None);
            }
        }
    }

    #[test]
    fn a_line_without_a_text_stays_as_it_is() {
        let message_id = MessageId(Id(7));
        let line = event_line(
            Subclass::Conversation,
            EventType::DeletedMessage,
            Id(8),
            Some(&EventBody::MessageId { message_id }),
            3,
            4,
            None,
        );
        assert_eq!(stored_text(&line), None);
        assert_eq!(without_text(&line), line);
    }
}
