//! Who may see and do what (the protocol's section 7).

use serde_json::Value;

use super::commands::members;
use super::{Kind, Model, Refusal, events, text};

/// Whatever is not allowed; which field is at fault, if one is, is the daemon's to say.
pub fn forbidden() -> Refusal {
    Refusal {
        codes: vec!["forbidden"],
        ..Refusal::default()
    }
}

impl Model {
    /// Whether this user is an admin.
    pub fn is_admin(&self, user: &str) -> bool {
        self.object(Kind::User, user)
            .is_some_and(|user| user.get("role").is_some_and(|role| role == "admin"))
    }

    /// Whether this user is in this conversation.
    pub fn is_member(&self, user: &str, conversation: &str) -> bool {
        self.object(Kind::Conversation, conversation)
            .is_some_and(|conversation| members(conversation).contains(user))
    }

    /// The password that this user logs in with.
    pub fn password(&self, user: &str) -> &str {
        &self.passwords[user]
    }

    pub(super) fn may_do_everything(&self) -> bool {
        self.asker.as_ref().is_none_or(|user| self.is_admin(user))
    }

    pub(super) fn may_act_for(&self, user: &str) -> bool {
        self.may_do_everything() || self.asker.as_deref() == Some(user)
    }

    /// Whether whoever asks may see an object.
    pub(super) fn sees(&self, kind: Kind, object: &Value) -> bool {
        kind == Kind::User
            || self.may_do_everything()
            || self
                .asker
                .as_ref()
                .is_some_and(|user| self.is_member(user, text(object, "conversation_id")))
    }

    /// The id of the conversation that `data` names, if whoever asks created it and is still in it.
    pub(super) fn governed_conversation(&self, data: &Value) -> Result<String, Refusal> {
        let conversation = self.find(Kind::Conversation, data)?;
        let creator = conversation.get("created_by").and_then(Value::as_str);
        if self.may_do_everything() || creator == self.asker.as_deref() {
            Ok(text(conversation, "conversation_id").to_owned())
        } else {
            Err(forbidden())
        }
    }

    /// Whether an event is for this user to see at this moment: it is a member, or the event told it that it is none any more.
    pub(super) fn shows_event(&self, user: &str, event: &Value) -> bool {
        if event["subclass"] != "conversation" || self.is_admin(user) {
            return true;
        }
        let is_removed = event["type"] == "removed_memebers"
            && event["body"]["user_ids"]
                .as_array()
                .is_some_and(|users| users.iter().any(|removed| removed == user));
        let was_last = event["seq"]
            .as_u64()
            .and_then(|seq| self.last_members.get(&seq))
            .is_some_and(|members| members.contains(user));
        is_removed || was_last || self.is_member(user, text(event, "obj_id"))
    }

    pub(super) fn template(
        &self,
        subclass: &str,
        event: &str,
        obj_id: &str,
        body: Option<Value>,
    ) -> Value {
        events::template(self.asker.as_deref(), subclass, event, obj_id, body)
    }
}
