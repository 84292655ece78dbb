//! What is said about the commands: the entries of `server help`, and the reference in contrib/protocol.md.

use super::fields::FieldSpec;
use super::{Row, TABLE};
use crate::error::Code;
use crate::limits::Limits;
use crate::wire::CloseReason;
use serde::Serialize;
use serde_json::value::RawValue;
use std::fmt::Write;

/// A command as `server help` describes it.
#[derive(Serialize)]
pub struct Description {
    subclass: &'static str,
    cmd: &'static str,
    help: &'static str,
    access: &'static str,
    fields: Vec<FieldSpec>,
    answer: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    errors: &'static [Code],
    /// The example as a whole request: an object, to be copied as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<Box<RawValue>>,
}

/// Describes a command.
pub fn describe(row: &Row, limits: &Limits) -> Description {
    Description {
        subclass: row.subclass.as_str(),
        cmd: row.name,
        help: row.help,
        access: row.access.as_str(),
        fields: (row.specs)(limits),
        answer: row.answer,
        event: row.event,
        errors: row.errors,
        example: RawValue::from_string(row.example_line()).ok(),
    }
}

/// The reference of every command at the default limits, in Markdown.
#[must_use]
pub fn reference() -> String {
    let limits = Limits::default();
    let mut text = String::from(
        "# The commands of chatd\n\n\
         Made from the command table by `CHATD_WRITE_REFERENCE=1 cargo test reference`; `server help` says the same of a\n\
         running server, with its own limits. Ids in examples stand for those that your server gave.\n\n\
         A request is one line of JSON with `class`, `subclass`, `cmd`, `data` and, if wanted, `tid`; its answer is\n\
         `{\"result\":\"ok\",\"data\":{…},\"tid\":…}` or `{\"result\":\"error\",\"data\":{\"code\":…,\"error\":…,\"field\":…},\"tid\":…}`.\n",
    );
    for row in TABLE {
        let about = describe(row, &limits);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n## {} {}\n\n{} For {}.\n",
            about.subclass, about.cmd, about.help, about.access
        );
        if !about.fields.is_empty() {
            text.push_str("\n| field | type | |\n|---|---|---|\n");
        }
        for field in &about.fields {
            let name = if field.mandatory {
                format!("**{}**", field.name)
            } else {
                field.name.to_owned()
            };
            let _ = writeln!(text, "| {name} | {} | {} |", field.r#type, field.help);
        }
        if !about.answer.is_empty() {
            let _ = write!(text, "\nAnswer: {}.\n", about.answer);
        }
        if let Some(event) = about.event {
            let _ = write!(text, "\nEvent: {event}.\n");
        }
        if !about.errors.is_empty() {
            let codes: Vec<String> = about
                .errors
                .iter()
                .map(|code| format!("`{}`", code.as_str()))
                .collect();
            let _ = write!(text, "\nErrors: {}.\n", codes.join(", "));
        }
        let _ = write!(text, "\n```\n{}\n```\n", row.example_line());
    }
    text.push_str("\n## Error codes\n\n| code | meaning |\n|---|---|\n");
    for code in Code::ALL {
        let _ = writeln!(text, "| `{}` | {} |", code.as_str(), code.meaning());
    }
    text.push_str(
        "\n## Closed connections\n\n\
         Before the server closes a connection of its own accord it sends, where it still can, a line of subclass `session` and\n\
         type `closed`, whose `body` has one of these codes, a text (`error`), and whether to try again (`retry`).\n\n\
         | code | retry | text |\n|---|---|---|\n",
    );
    for reason in CloseReason::ALL {
        let (code, retry) = (reason.as_str(), reason.retry());
        let _ = writeln!(text, "| `{code}` | {retry} | {} |", reason.text());
    }
    text
}
