//! What each command changes, answers and announces (the protocol's sections 4 and 8), searches apart.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Answer, Kind, Model, Pending, Refusal, events, number, rights, text, words};

/// Bytes of a password that a user chooses.
const MIN_PASSWORD: usize = 8;

impl Model {
    pub(super) fn create_user(&mut self, data: &Value, answered: &Value) -> Answer {
        self.login_is_free(text(data, "login"))?;
        let mut user = json!({"login": data["login"], "name": data["name"]});
        if let Some(surname) = data.get("surname") {
            user["surname"] = surname.clone();
        }
        set_role(&mut user, data);
        let id = self.insert(Kind::User, user, answered);
        self.passwords
            .insert(id.clone(), text(data, "password").to_owned());
        self.announce("user", "created", &id, None);
        Ok(json!({"user_id": id}))
    }

    fn login_is_free(&self, login: &str) -> Result<(), Refusal> {
        let mut users = self.objects(Kind::User);
        if users.any(|(_, user)| words::same_login(text(user, "login"), login)) {
            return Err(Refusal::new("login_taken", "login"));
        }
        Ok(())
    }

    pub(super) fn update_user(&mut self, data: &Value) -> Answer {
        let password = data.get("password").and_then(Value::as_str);
        let old_password = data.get("old_password").and_then(Value::as_str);
        if password.is_none() && (old_password.is_some() || data.get("keep_tokens").is_some()) {
            return Err(Refusal::new("missing_field", "password"));
        }
        let id = self.id_of(Kind::User, data)?;
        if !self.may_act_for(&id) || (data.get("role").is_some() && !self.may_do_everything()) {
            return Err(rights::forbidden());
        }
        if let Some(password) = password {
            let is_own = self.asker.as_deref() == Some(id.as_str());
            if is_own && old_password.is_none() {
                return Err(Refusal::new("missing_field", "old_password"));
            }
            if is_own && password.len() < MIN_PASSWORD {
                return Err(Refusal::new("invalid_field", "password"));
            }
            if old_password.is_some_and(|old| old != self.passwords[&id]) {
                return Err(Refusal::new("login_failed", "old_password"));
            }
            self.passwords.insert(id.clone(), password.to_owned());
        }
        if data.as_object().unwrap().len() > 1 {
            let user = self.touch(Kind::User, &id);
            set_texts(user, data, &["name", "surname"]);
            set_role(user, data);
            self.announce("user", "updated", &id, None);
        }
        Ok(json!({}))
    }

    pub(super) fn delete_user(&mut self, data: &Value) -> Answer {
        let id = self.id_of(Kind::User, data)?;
        if !self.may_act_for(&id) {
            return Err(rights::forbidden());
        }
        let by = self.asker.clone();
        let mut group = Vec::new();
        for (conversation_id, conversation) in self.objects.entry(Kind::Conversation).or_default() {
            let mut members = members(conversation);
            if members.remove(&id) {
                set_members(conversation, &members);
                group.push(events::template(
                    by.as_deref(),
                    "conversation",
                    "removed_memebers",
                    conversation_id,
                    Some(json!({"user_ids": [id]})),
                ));
            }
        }
        group.push(self.template("user", "deleted", &id, None));
        self.pending.push(Pending::InAnyOrder(group));
        self.remove(Kind::User, &id);
        Ok(json!({}))
    }

    pub(super) fn create_conversation(&mut self, data: &Value, answered: &Value) -> Answer {
        let mut user_ids = self.existing_users(data)?;
        let mut conversation = json!({"name": data["name"]});
        if let Some(asker) = &self.asker {
            user_ids.insert(asker.clone());
            conversation["created_by"] = json!(asker);
        }
        if let Some(description) = data.get("description") {
            conversation["description"] = description.clone();
        }
        set_members(&mut conversation, &user_ids);
        let id = self.insert(Kind::Conversation, conversation, answered);
        self.announce("conversation", "created", &id, None);
        Ok(json!({"conversation_id": id}))
    }

    pub(super) fn update_conversation(&mut self, data: &Value) -> Answer {
        let id = self.governed_conversation(data)?;
        if data.as_object().unwrap().len() > 1 {
            let conversation = self.touch(Kind::Conversation, &id);
            set_texts(conversation, data, &["name", "description"]);
            self.announce("conversation", "updated", &id, None);
        }
        Ok(json!({}))
    }

    pub(super) fn delete_conversation(&mut self, data: &Value) -> Answer {
        let id = self.governed_conversation(data)?;
        let last_members = members(self.object(Kind::Conversation, &id).unwrap());
        self.remove(Kind::Conversation, &id);
        let orphans: Vec<String> = self
            .objects(Kind::Message)
            .filter(|(_, message)| message["conversation_id"] == id)
            .map(|(id, _)| id.clone())
            .collect();
        for message_id in orphans {
            self.remove(Kind::Message, &message_id);
        }
        let template = self.template("conversation", "deleted", &id, None);
        self.pending.push(Pending::Ending(template, last_members));
        Ok(json!({}))
    }

    pub(super) fn change_members(&mut self, data: &Value, add: bool) -> Answer {
        let (id, user_ids) = match (
            self.id_of(Kind::Conversation, data),
            self.existing_users(data),
        ) {
            (Ok(id), Ok(user_ids)) => (id, user_ids),
            (id, user_ids) => {
                let refusals = id.err().into_iter().chain(user_ids.err()).collect();
                return Err(Refusal::any(refusals).unwrap());
            }
        };
        let others = user_ids.iter().any(|user| !self.may_act_for(user));
        if !add && others {
            self.governed_conversation(data)?;
        }
        let conversation = self
            .objects
            .get_mut(&Kind::Conversation)
            .unwrap()
            .get_mut(&id)
            .unwrap();
        let mut members = members(conversation);
        let changed: BTreeSet<String> = user_ids
            .into_iter()
            .filter(|user_id| members.contains(user_id) != add)
            .collect();
        for user_id in &changed {
            if add {
                members.insert(user_id.clone());
            } else {
                members.remove(user_id);
            }
        }
        set_members(conversation, &members);
        if !changed.is_empty() {
            let event = if add {
                "added_memebers"
            } else {
                "removed_memebers"
            };
            self.announce(
                "conversation",
                event,
                &id,
                Some(json!({"user_ids": changed})),
            );
        }
        Ok(json!({}))
    }

    pub(super) fn get_members(&self, data: &Value) -> Answer {
        let conversation = self.find(Kind::Conversation, data)?;
        let all: Vec<String> = members(conversation).into_iter().collect();
        let from = number(data, "from").unwrap_or(0);
        let size = number(data, "size").unwrap_or(all.len());
        let page: Vec<&String> = all.iter().skip(from).take(size).collect();
        Ok(json!({"user_ids": page, "total": all.len()}))
    }

    pub(super) fn create_message(&mut self, data: &Value, answered: &Value) -> Answer {
        let mut data = data.clone();
        if let (None, Some(asker)) = (data.get("user_id"), &self.asker) {
            data["user_id"] = json!(asker);
        }
        let data = &data;
        let author = self.id_of(Kind::User, data);
        let conversation = self.id_of(Kind::Conversation, data);
        let refusals: Vec<Refusal> = conversation.err().into_iter().chain(author.err()).collect();
        if let Some(refusal) = Refusal::any(refusals) {
            return Err(refusal);
        }
        if !self.may_act_for(text(data, "user_id")) {
            return Err(rights::forbidden());
        }
        let nonce = data.get("nonce").map(|_| {
            let [conversation, user, nonce] =
                ["conversation_id", "user_id", "nonce"].map(|field| text(data, field).to_owned());
            (conversation, user, nonce)
        });
        if let Some((first_id, first_text)) =
            nonce.as_ref().and_then(|nonce| self.nonces.get(nonce))
        {
            if first_text != text(data, "message") {
                return Err(Refusal::new("nonce_reused", "nonce"));
            }
            return Ok(json!({"message_id": first_id}));
        }
        let message = json!({
            "conversation_id": data["conversation_id"], "user_id": data["user_id"], "message": data["message"],
        });
        let id = self.insert(Kind::Message, message, answered);
        if let Some(nonce) = nonce {
            self.nonces
                .insert(nonce, (id.clone(), text(data, "message").to_owned()));
        }
        self.pending.push(Pending::OfMessage {
            event: "created_message",
            message_id: id.clone(),
            by: self.asker.clone(),
        });
        Ok(json!({"message_id": id}))
    }

    pub(super) fn update_message(&mut self, data: &Value) -> Answer {
        let id = self.message_in_conversation(data)?;
        let author = text(self.object(Kind::Message, &id).unwrap(), "user_id");
        if !self.may_act_for(author) {
            return Err(rights::forbidden());
        }
        self.touch(Kind::Message, &id)["message"] = data["message"].clone();
        self.pending.push(Pending::OfMessage {
            event: "updated_message",
            message_id: id,
            by: self.asker.clone(),
        });
        Ok(json!({}))
    }

    pub(super) fn delete_message(&mut self, data: &Value) -> Answer {
        let id = self.message_in_conversation(data)?;
        let author = text(self.object(Kind::Message, &id).unwrap(), "user_id");
        if !self.may_act_for(author) {
            self.governed_conversation(data)?;
        }
        self.remove(Kind::Message, &id);
        self.announce(
            "conversation",
            "deleted_message",
            text(data, "conversation_id"),
            Some(json!({"message_id": id})),
        );
        Ok(json!({}))
    }
}

fn set_texts(object: &mut Value, data: &Value, names: &[&str]) {
    for name in names {
        match data.get(name) {
            None => {}
            Some(Value::Null) => drop(object.as_object_mut().unwrap().remove(*name)),
            Some(value) => object[*name] = value.clone(),
        }
    }
}

/// `role` is left out for an ordinary user.
fn set_role(user: &mut Value, data: &Value) {
    match data.get("role").and_then(Value::as_str) {
        Some("admin") => user["role"] = json!("admin"),
        Some(_) => drop(user.as_object_mut().unwrap().remove("role")),
        None => {}
    }
}

pub(super) fn members(conversation: &Value) -> BTreeSet<String> {
    conversation["user_ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect()
}

fn set_members(conversation: &mut Value, user_ids: &BTreeSet<String>) {
    conversation["user_ids"] = json!(user_ids);
    conversation["member_count"] = json!(user_ids.len());
}
