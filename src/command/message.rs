//! The commands of subclass `message` (protocol.md, 4).

use super::fields::fields;
use super::search::search_command;
use super::{Access, Action, Command, Context, Step};
use crate::error::{Code, Error};
use crate::model::{ConversationId, Given, Kind, MessageId, MessageText, Nonce, Subclass, UserId};
use crate::store::{Change, Operation, Principal, Query};

fields! {
    /// `message create`.
    Create {
        /// The conversation to write in.
        conversation_id: Given<ConversationId>,
        /// The author; a user that logged in may leave it out.
        user_id: Option<Given<UserId>>,
        /// The text.
        message: MessageText,
        /// What makes it safe to send the request again: the same nonce makes no second message.
        nonce: Option<Nonce>,
    }
}

impl Command for Create {
    const SUBCLASS: Subclass = Subclass::Message;
    const NAME: &'static str = "create";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str =
        "Writes a message. On a trusted connection user_id is mandatory, and need not be a member.";
    const ANSWER: &'static str = "message_id";
    const EVENT: Option<&'static str> =
        Some("conversation created_message, obj_id: the conversation, body: the message");
    const EXAMPLE: &'static str =
        r#"{"conversation_id":"01k9conv00001","user_id":"01k9user00001","message":"hello"}"#;
    const ERRORS: &'static [Code] = &[
        Code::ConversationNotFound,
        Code::UserNotFound,
        Code::NonceReused,
        Code::Forbidden,
    ];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        let user = match (self.user_id, context.by) {
            (Some(user), _) => user,
            (None, Principal::User(user) | Principal::Token(user)) => Given::Id(user),
            (None, Principal::Trusted | Principal::Nobody) => {
                return Err(
                    Error::new(Code::MissingField, "user_id is missing: who writes this?")
                        .field("user_id"),
                );
            }
        };
        let change = Change::CreateMessage {
            conversation: self.conversation_id,
            user,
            text: self.message,
            nonce: self.nonce,
        };
        Ok(Step::Apply(Operation {
            by: context.by,
            change,
        }))
    }
}

fields! {
    /// `message get`.
    Get {
        /// The message.
        message_id: Given<MessageId>,
    }
}

impl Command for Get {
    const SUBCLASS: Subclass = Subclass::Message;
    const NAME: &'static str = "get";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str = "Gives a message.";
    const ANSWER: &'static str =
        "message_id, conversation_id, user_id, message, created_time, updated_time";
    const EXAMPLE: &'static str = r#"{"message_id":"01k9mess00001"}"#;
    const ERRORS: &'static [Code] = &[Code::MessageNotFound];

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Act(Action::Read(Query::Message(self.message_id))))
    }
}

fields! {
    /// `message update`.
    Update {
        /// The message's conversation.
        conversation_id: Given<ConversationId>,
        /// The message.
        message_id: Given<MessageId>,
        /// The new text.
        message: MessageText,
    }
}

impl Command for Update {
    const SUBCLASS: Subclass = Subclass::Message;
    const NAME: &'static str = "update";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str = "Changes the text of a message.";
    const ANSWER: &'static str = "";
    const EVENT: Option<&'static str> =
        Some("conversation updated_message, obj_id: the conversation, body: the message");
    const EXAMPLE: &'static str = r#"{"conversation_id":"01k9conv00001","message_id":"01k9mess00001","message":"hello, all"}"#;
    const ERRORS: &'static [Code] = &[Code::MessageNotFound, Code::Forbidden];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        let Self {
            conversation_id: conversation,
            message_id: message,
            message: text,
        } = self;
        Ok(Step::Apply(Operation {
            by: context.by,
            change: Change::UpdateMessage {
                conversation,
                message,
                text,
            },
        }))
    }
}

fields! {
    /// `message delete`.
    Delete {
        /// The message's conversation.
        conversation_id: Given<ConversationId>,
        /// The message.
        message_id: Given<MessageId>,
    }
}

impl Command for Delete {
    const SUBCLASS: Subclass = Subclass::Message;
    const NAME: &'static str = "delete";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str = "Deletes a message.";
    const ANSWER: &'static str = "";
    const EVENT: Option<&'static str> =
        Some("conversation deleted_message, obj_id: the conversation, body: message_id");
    const EXAMPLE: &'static str =
        r#"{"conversation_id":"01k9conv00001","message_id":"01k9mess00001"}"#;
    const ERRORS: &'static [Code] = &[Code::MessageNotFound, Code::Forbidden];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        let Self {
            conversation_id: conversation,
            message_id: message,
        } = self;
        Ok(Step::Apply(Operation {
            by: context.by,
            change: Change::DeleteMessage {
                conversation,
                message,
            },
        }))
    }
}

search_command! {
    /// `message search`.
    SearchMessages, Kind::Message, Subclass::Message,
    "Finds messages. The newest page of a conversation: filter on conversation_id, sort_order desc.",
    r#"{"filter":{"conversation_id":"01k9conv00001"},"fields":["message","user_id"],"sort_order":"desc","size":50}"#
}
