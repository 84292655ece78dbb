//! The steps that both daemons are told: Eve's random requests, and what Ben and the operator do that Eve may know of.
//!
//! Objects stand in them by their names, in angle brackets; each daemon has its own id for each.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::random::operations::{text, word};

/// Who takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Eve,
    Second,
    Ben,
    Root,
}

/// One request.
#[derive(Debug)]
pub struct Step {
    pub who: Who,
    pub subclass: &'static str,
    pub cmd: &'static str,
    pub data: Value,
    /// What the object is called that it makes, if it does.
    pub makes: Option<String>,
}

impl Step {
    pub fn ping() -> Self {
        Self::new(Who::Eve, "session", "ping", json!({}))
    }

    fn new(who: Who, subclass: &'static str, cmd: &'static str, data: Value) -> Self {
        Self {
            who,
            subclass,
            cmd,
            data,
            makes: None,
        }
    }
}

/// What there is, by name.
pub struct Script {
    users: Vec<String>,
    guests: Vec<String>,
    conversations: Vec<String>,
    messages: Vec<(String, String)>,
    tokens: Vec<String>,
    /// What Eve heard of, somehow, and may not see.
    hidden: Vec<String>,
    made: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            users: ["eve", "ben", "cyd", "dan"].map(str::to_owned).to_vec(),
            guests: Vec::new(),
            conversations: Vec::new(),
            messages: Vec::new(),
            tokens: Vec::new(),
            hidden: Vec::new(),
            made: 0,
        }
    }
}

fn named(name: &str) -> String {
    format!("<{name}>")
}

impl Script {
    /// The users that may be deleted.
    pub fn guests(&self) -> impl Iterator<Item = &str> {
        self.guests.iter().map(String::as_str)
    }

    /// Eve learns that there is something of this name.
    pub fn hear_of(&mut self, name: String) {
        self.hidden.push(name);
    }

    fn name(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}{}", self.made)
    }

    fn one_of(rng: &mut StdRng, names: &[String]) -> String {
        names
            .choose(rng)
            .map_or_else(|| "nothing".to_owned(), |name| named(name))
    }

    /// A conversation: one that Eve knows, or, now and then, one that is hidden.
    fn conversation(&self, rng: &mut StdRng) -> String {
        let hidden: Vec<String> = self.hidden_of(|name| !name.starts_with("pm"));
        if rng.random_bool(0.3) && !hidden.is_empty() {
            return Self::one_of(rng, &hidden);
        }
        Self::one_of(rng, &self.conversations)
    }

    /// A message and its conversation, hidden ones as above.
    fn message(&self, rng: &mut StdRng) -> (String, String) {
        let hidden: Vec<String> = self.hidden_of(|name| name.starts_with("pm"));
        if rng.random_bool(0.3) && !hidden.is_empty() {
            return (self.conversation(rng), Self::one_of(rng, &hidden));
        }
        let message = self.messages.choose(rng);
        message.map_or_else(
            || (self.conversation(rng), "nothing".to_owned()),
            |(conversation, message)| (named(conversation), named(message)),
        )
    }

    fn hidden_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let hidden = self.hidden.iter().filter(|name| wanted(name));
        hidden.cloned().collect()
    }

    /// The next step.
    pub fn step(&mut self, rng: &mut StdRng) -> Step {
        match rng.random_range(0..100) {
            0..25 => self.shared(rng),
            25..40 => self.of_second(rng),
            40..70 => {
                let (subclass, data) = self.search(rng);
                Step::new(Who::Eve, subclass, "search", data)
            }
            _ => self.of_eve(rng),
        }
    }

    /// What a step made is there from now on.
    pub fn done(&mut self, step: &Step, done: bool) {
        let Some(name) = step.makes.clone().filter(|_| done) else {
            return;
        };
        match step.subclass {
            "user" => self.guests.push(name),
            "conversation" => self.conversations.push(name),
            "message" => {
                let conversation = step.data["conversation_id"].as_str().unwrap();
                let conversation = conversation.trim_matches(['<', '>']).to_owned();
                self.messages.push((conversation, name));
            }
            _ => self.tokens.push(name),
        }
    }

    /// What Ben does where Eve is, and what is done to users.
    fn shared(&mut self, rng: &mut StdRng) -> Step {
        let conversation = Self::one_of(rng, &self.conversations);
        let (place, message) = self.message(rng);
        let step = |subclass, cmd, data| Step::new(Who::Ben, subclass, cmd, data);
        match rng.random_range(0..20) {
            0..3 => {
                let data = json!({"name": text(rng), "user_ids": ["<eve>", "<cyd>"]});
                Step {
                    makes: Some(self.name("c")),
                    ..step("conversation", "create", data)
                }
            }
            3..8 => {
                let data = json!({"conversation_id": conversation, "message": text(rng)});
                Step {
                    makes: Some(self.name("m")),
                    ..step("message", "create", data)
                }
            }
            8 | 9 => {
                let data =
                    json!({"conversation_id": place, "message_id": message, "message": text(rng)});
                step("message", "update", data)
            }
            10..12 => {
                let data = json!({"conversation_id": conversation, "user_ids": ["<eve>"]});
                step("conversation", "remove_members", data)
            }
            12..14 => {
                let data = json!({"conversation_id": conversation, "user_ids": ["<eve>"]});
                step("conversation", "add_members", data)
            }
            14 => step(
                "event",
                "send",
                json!({"type": "typing", "obj_id": conversation}),
            ),
            15 => step(
                "conversation",
                "update",
                json!({"conversation_id": conversation, "name": text(rng)}),
            ),
            16 => step(
                "user",
                "update",
                json!({"user_id": "<ben>", "surname": text(rng)}),
            ),
            17 => {
                let name = self.name("guest");
                let data = json!({"login": format!("{name}@example.org"), "name": text(rng), "password": "p"});
                Step {
                    who: Who::Root,
                    makes: Some(name),
                    ..step("user", "create", data)
                }
            }
            18 if !self.guests.is_empty() => {
                let guest = self
                    .guests
                    .swap_remove(rng.random_range(0..self.guests.len()));
                let data = json!({"user_id": named(&guest)});
                Step {
                    who: Who::Root,
                    ..step("user", "delete", data)
                }
            }
            _ => step(
                "conversation",
                "get",
                json!({"conversation_id": conversation}),
            ),
        }
    }

    /// What Eve does on the connection that is subscribed to what is hidden.
    fn of_second(&mut self, rng: &mut StdRng) -> Step {
        let conversation = self.conversation(rng);
        let step = |subclass, cmd, data| Step::new(Who::Second, subclass, cmd, data);
        match rng.random_range(0..10) {
            0..4 => step("event", "subscribe", json!({"obj_id": conversation})),
            4 => step("event", "unsubscribe", json!({"obj_id": conversation})),
            5 => step("event", "get_subscriptions", json!({})),
            6 => step("session", "get", json!({})),
            7 => {
                let data = json!({"login": "eve@example.org", "password": "s3cret"});
                step("session", "login", data)
            }
            _ => step(
                "event",
                "send",
                json!({"type": "call", "obj_id": conversation}),
            ),
        }
    }

    fn of_eve(&mut self, rng: &mut StdRng) -> Step {
        let conversation = self.conversation(rng);
        let (place, message) = self.message(rng);
        let user = Self::one_of(rng, &self.users);
        let at = json!({"conversation_id": conversation});
        let step = |subclass, cmd, data| Step::new(Who::Eve, subclass, cmd, data);
        match rng.random_range(0..24) {
            0 => {
                let data = json!({"name": text(rng), "user_ids": [user]});
                Step {
                    makes: Some(self.name("c")),
                    ..step("conversation", "create", data)
                }
            }
            1..6 => {
                let mut data = json!({"conversation_id": conversation, "message": text(rng)});
                if rng.random_bool(0.3) {
                    data["nonce"] = json!(format!("nonce {}", rng.random_range(0..5)));
                }
                Step {
                    makes: Some(self.name("m")),
                    ..step("message", "create", data)
                }
            }
            6 | 7 => step("message", "get", json!({"message_id": message})),
            8 => {
                let data =
                    json!({"conversation_id": place, "message_id": message, "message": text(rng)});
                step("message", "update", data)
            }
            9 => step(
                "message",
                "delete",
                json!({"conversation_id": place, "message_id": message}),
            ),
            10 | 11 => step("conversation", "get", at),
            12 | 13 => step("conversation", "get_members", at),
            14 => step(
                "conversation",
                "update",
                json!({"conversation_id": conversation, "description": text(rng)}),
            ),
            15 if rng.random_bool(0.3) => step("conversation", "delete", at),
            16 => step(
                "conversation",
                "add_members",
                json!({"conversation_id": conversation, "user_ids": [user]}),
            ),
            17 => step(
                "conversation",
                "remove_members",
                json!({"conversation_id": conversation, "user_ids": [user]}),
            ),
            18 => step(
                "event",
                "send",
                json!({"type": "typing", "obj_id": conversation, "body": {"n": 1}}),
            ),
            19 => step("server", "info", json!({})),
            20 => {
                let data = json!({"name": text(rng)});
                Step {
                    makes: Some(self.name("token")),
                    ..step("session", "token_create", data)
                }
            }
            21 => step("session", "token_list", json!({})),
            22 => step(
                "session",
                "token_delete",
                json!({"token_id": Self::one_of(rng, &self.tokens)}),
            ),
            _ => step("user", "get", json!({"user_id": user})),
        }
    }

    /// A search that two daemons can agree on: none by the time of an update, which may or may not be that of another.
    fn search(&self, rng: &mut StdRng) -> (&'static str, Value) {
        let subclass = *["user", "conversation", "message", "message"]
            .choose(rng)
            .unwrap();
        let user = Self::one_of(rng, &self.users);
        let conversation = self.conversation(rng);
        let (_, message) = self.message(rng);
        let filters = match subclass {
            "user" => vec![json!({}), json!({"name": {"match": word(rng)}})],
            "conversation" => vec![
                json!({}),
                json!({"conversation_id": conversation}),
                json!({"conversation_id": [conversation, self.conversation(rng)]}),
                json!({"user_ids": user}),
                json!({"user_ids": [user, "<cyd>"]}),
                json!({"created_by": user}),
                json!({"name": {"match": word(rng)}}),
                json!({"name": {"prefix": "h"}}),
                json!({"member_count": {"gte": rng.random_range(0..4)}}),
                json!({"created_time": {"gt": 0}}),
            ],
            _ => vec![
                json!({}),
                json!({"conversation_id": conversation}),
                json!({"conversation_id": [conversation, self.conversation(rng)]}),
                json!({"message_id": [message, "nothing"]}),
                json!({"user_id": user}),
                json!({"user_id": user, "conversation_id": conversation}),
                json!({"message": {"match": word(rng)}}),
                json!({"message": {"prefix": "h"}}),
                json!({"created_time": {"gt": 0}}),
            ],
        };
        let mut data = json!({"filter": filters.choose(rng).unwrap(), "fields": "_all"});
        if rng.random_bool(0.5) {
            let sort_by = match subclass {
                "message" => ["created_time", "message"],
                _ => ["created_time", "name"],
            };
            data["sort_by"] = json!(sort_by.choose(rng).unwrap());
        }
        if rng.random_bool(0.5) {
            data["sort_order"] = json!("desc");
        }
        if rng.random_bool(0.3) {
            data["total"] = json!(false);
        }
        if rng.random_bool(0.5) {
            data["size"] = json!(rng.random_range(0..5));
            data["from"] = json!(rng.random_range(0..5));
        }
        (subclass, data)
    }

    /// What to resume with.
    pub fn subscription(&self, rng: &mut StdRng) -> Value {
        let conversation = self.conversation(rng);
        [
            json!({}),
            json!({"subclass": "conversation"}),
            json!({"obj_id": conversation}),
            json!({"type": ["created_message", "removed_members"]}),
        ]
        .choose(rng)
        .unwrap()
        .clone()
    }
}
