//! The commands of subclass `conversation` (protocol.md, 4 and 8).

use super::fields::fields;
use super::search::search_command;
use super::{Access, Action, Command, Context, Step};
use crate::error::{Code, Error};
use crate::model::{ConversationId, Description, Given, Kind, Name, Subclass, UserId};
use crate::store::{Change, Operation, Patch, Query};

fn apply(context: &Context<'_>, change: Change) -> Step {
    Step::Apply(Operation {
        by: context.by,
        change,
    })
}

fields! {
    /// `conversation create`.
    Create {
        /// A short name.
        name: Name,
        /// What it is about.
        description: Option<Description>,
        /// The first members.
        user_ids: Option<Vec<Given<UserId>>>,
    }
}

impl Command for Create {
    const SUBCLASS: Subclass = Subclass::Conversation;
    const NAME: &'static str = "create";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str =
        "Creates a conversation. A user that creates one is its first member.";
    const ANSWER: &'static str = "conversation_id";
    const EVENT: Option<&'static str> = Some("conversation created, obj_id: the conversation");
    const EXAMPLE: &'static str =
        r#"{"name":"lunch","description":"where to","user_ids":["01k9user00001"]}"#;
    const ERRORS: &'static [Code] = &[Code::UserNotFound];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        let Self {
            name,
            description,
            user_ids,
        } = self;
        Ok(apply(
            context,
            Change::CreateConversation {
                name,
                description,
                users: user_ids.unwrap_or_default(),
            },
        ))
    }
}

fields! {
    /// `conversation get`.
    Get {
        /// The conversation.
        conversation_id: Given<ConversationId>,
    }
}

impl Command for Get {
    const SUBCLASS: Subclass = Subclass::Conversation;
    const NAME: &'static str = "get";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str =
        "Gives a conversation. Over 1000 members are left out: see get_members.";
    const ANSWER: &'static str = "conversation_id, name, description, member_count, user_ids, created_by, created_time, updated_time";
    const EXAMPLE: &'static str = r#"{"conversation_id":"01k9conv00001"}"#;
    const ERRORS: &'static [Code] = &[Code::ConversationNotFound];

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Act(Action::Read(Query::Conversation(
            self.conversation_id,
        ))))
    }
}

fields! {
    /// `conversation update`.
    Update {
        /// The conversation.
        conversation_id: Given<ConversationId>,
        /// The new name.
        name: Option<Name>,
        /// The new description.
        description: Patch<Description>,
    }
}

impl Command for Update {
    const SUBCLASS: Subclass = Subclass::Conversation;
    const NAME: &'static str = "update";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str =
        "Changes the fields of a conversation that are named. Naming none changes nothing.";
    const ANSWER: &'static str = "";
    const EVENT: Option<&'static str> = Some("conversation updated, obj_id: the conversation");
    const EXAMPLE: &'static str = r#"{"conversation_id":"01k9conv00001","name":"dinner"}"#;
    const ERRORS: &'static [Code] = &[Code::ConversationNotFound, Code::Forbidden];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        let Self {
            conversation_id: conversation,
            name,
            description,
        } = self;
        Ok(apply(
            context,
            Change::UpdateConversation {
                conversation,
                name,
                description,
            },
        ))
    }
}

fields! {
    /// `conversation delete`.
    Delete {
        /// The conversation.
        conversation_id: Given<ConversationId>,
    }
}

impl Command for Delete {
    const SUBCLASS: Subclass = Subclass::Conversation;
    const NAME: &'static str = "delete";
    const ACCESS: Access = Access::Users;
    const AUDIT: bool = true;
    const HELP: &'static str = "Deletes a conversation with its messages and memberships.";
    const ANSWER: &'static str = "";
    const EVENT: Option<&'static str> = Some("conversation deleted, obj_id: the conversation");
    const EXAMPLE: &'static str = r#"{"conversation_id":"01k9conv00001"}"#;
    const ERRORS: &'static [Code] = &[Code::ConversationNotFound, Code::Forbidden];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        Ok(apply(
            context,
            Change::DeleteConversation {
                conversation: self.conversation_id,
            },
        ))
    }
}

fields! {
    /// `conversation add_members`.
    AddMembers {
        /// The conversation.
        conversation_id: Given<ConversationId>,
        /// The users to add; those that are members already stay so.
        user_ids: Vec<Given<UserId>>,
    }
}

impl Command for AddMembers {
    const SUBCLASS: Subclass = Subclass::Conversation;
    const NAME: &'static str = "add_members";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str = "Adds members to a conversation.";
    const ANSWER: &'static str = "";
    const EVENT: Option<&'static str> =
        Some("conversation added_memebers, obj_id: the conversation, body: user_ids really added");
    const EXAMPLE: &'static str =
        r#"{"conversation_id":"01k9conv00001","user_ids":["01k9user00002"]}"#;
    const ERRORS: &'static [Code] = &[Code::ConversationNotFound, Code::UserNotFound];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        Ok(apply(
            context,
            Change::AddMembers {
                conversation: self.conversation_id,
                users: self.user_ids,
            },
        ))
    }
}

fields! {
    /// `conversation remove_members`.
    RemoveMembers {
        /// The conversation.
        conversation_id: Given<ConversationId>,
        /// The users to remove; those that are no members stay so.
        user_ids: Vec<Given<UserId>>,
    }
}

impl Command for RemoveMembers {
    const SUBCLASS: Subclass = Subclass::Conversation;
    const NAME: &'static str = "remove_members";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str = "Removes members from a conversation.";
    const ANSWER: &'static str = "";
    const EVENT: Option<&'static str> = Some(
        "conversation removed_memebers, obj_id: the conversation, body: user_ids really removed",
    );
    const EXAMPLE: &'static str =
        r#"{"conversation_id":"01k9conv00001","user_ids":["01k9user00002"]}"#;
    const ERRORS: &'static [Code] = &[
        Code::ConversationNotFound,
        Code::UserNotFound,
        Code::Forbidden,
    ];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        Ok(apply(
            context,
            Change::RemoveMembers {
                conversation: self.conversation_id,
                users: self.user_ids,
            },
        ))
    }
}

fields! {
    /// `conversation get_members`.
    GetMembers {
        /// The conversation.
        conversation_id: Given<ConversationId>,
        /// The most ids to list; all if left out.
        size: Option<u64>,
        /// Ids to skip.
        from: Option<u64>,
    }
}

impl Command for GetMembers {
    const SUBCLASS: Subclass = Subclass::Conversation;
    const NAME: &'static str = "get_members";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str = "Lists the members of a conversation, sorted by id.";
    const ANSWER: &'static str = "user_ids, total";
    const EXAMPLE: &'static str = r#"{"conversation_id":"01k9conv00001","size":100}"#;
    const ERRORS: &'static [Code] = &[Code::ConversationNotFound];

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Ok(Step::Act(Action::Read(Query::Members {
            conversation: self.conversation_id,
            from: self.from.map_or(0, number),
            size: self.size.map(number),
        })))
    }
}

search_command! {
    /// `conversation search`.
    SearchConversations, Kind::Conversation, Subclass::Conversation, "Finds conversations.",
    r#"{"filter":{"user_ids":"01k9user00001"},"fields":"_all","sort_by":"created_time","sort_order":"desc"}"#
}
