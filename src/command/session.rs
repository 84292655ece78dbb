//! The commands of subclass `session` (protocol.md, 7).

use super::fields::{FieldSpec, fields};
use super::{Access, Command, Context, Fields, Step, data};
use crate::error::Error;
use crate::limits::Limits;
use crate::model::Subclass;
use crate::wire::Object;
use bytes::Bytes;

fields! {
    /// `session get`.
    Get {}
}

impl Command for Get {
    const SUBCLASS: Subclass = Subclass::Session;
    const NAME: &'static str = "get";
    const ACCESS: Access = Access::Everyone;
    const HELP: &'static str = "Says who this connection is.";
    const ANSWER: &'static str = "session_id, user_id, login, role, access, remote, connected_time";
    const EXAMPLE: &'static str = "{}";

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        data(context.session).map(Step::Answer)
    }
}

/// `session ping`: any data, given back as it was written.
pub struct Ping(Bytes);

impl Fields for Ping {
    fn specs(_: &Limits) -> Vec<FieldSpec> {
        Vec::new()
    }

    fn parse(object: &Object<'_>, _: &Limits) -> Result<Self, Error> {
        let data = if object.text.is_empty() {
            "{}"
        } else {
            object.text
        };
        Ok(Self(Bytes::copy_from_slice(data.as_bytes())))
    }
}

impl Command for Ping {
    const SUBCLASS: Subclass = Subclass::Session;
    const NAME: &'static str = "ping";
    const ACCESS: Access = Access::Everyone;
    const HELP: &'static str = "Answers with the same data, whatever its fields.";
    const ANSWER: &'static str = "the same data";
    const EXAMPLE: &'static str = r#"{"n":1}"#;

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Answer(self.0))
    }
}
