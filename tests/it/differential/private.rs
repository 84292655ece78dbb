//! The operations that Eve must not notice: Ben's, Cyd's, Dan's and a trusted client's, in conversations of their own.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::harness::{Client, Daemon};
use crate::random::operations::{text, word};

use super::mask::Names;

/// Those who are busy, and what they have made.
pub struct Private {
    clients: Vec<Client>,
    users: Vec<String>,
    /// Users that are deleted now and then.
    pub guests: Vec<String>,
    conversations: Vec<String>,
    messages: Vec<(String, String)>,
    new: Vec<(String, String)>,
    made: usize,
    /// Sent, and not answered yet: by which client, and of which conversation a message is.
    waiting: Vec<(usize, u64, Option<String>)>,
    /// How many operations were done.
    pub done: u64,
}

/// At most so many conversations at the same time, so that they fill.
const MAX_CONVERSATIONS: usize = 6;

impl Private {
    pub fn new(daemon: &Daemon, names: &Names) -> Self {
        let mut clients: Vec<Client> = ["ben", "cyd", "dan"]
            .iter()
            .map(|name| daemon.user(&format!("{name}@example.org")))
            .collect();
        clients.push(daemon.client());
        let users = ["ben", "cyd", "dan"].map(|name| names.id(name));
        Self {
            clients,
            users: users.to_vec(),
            guests: Vec::new(),
            conversations: Vec::new(),
            messages: Vec::new(),
            new: Vec::new(),
            made: 0,
            waiting: Vec::new(),
            done: 0,
        }
    }

    /// Sends some operations, without waiting for their answers.
    pub fn send(&mut self, rng: &mut StdRng) {
        for _ in 0..rng.random_range(0..10) {
            let who = rng.random_range(0..self.clients.len());
            let (subclass, cmd, data) = self.operation(rng);
            let conversation = data.get("conversation_id").and_then(Value::as_str);
            let conversation = conversation
                .filter(|_| subclass == "message")
                .map(str::to_owned);
            let tid = self.clients[who].request(subclass, cmd, data);
            self.waiting.push((who, tid, conversation));
        }
    }

    /// Reads the answers to what was sent.
    pub fn receive(&mut self) {
        for (who, tid, conversation) in std::mem::take(&mut self.waiting) {
            let answer = loop {
                let line = self.clients[who].next_value();
                if line.get("result").is_some() {
                    break line;
                }
            };
            assert_eq!(answer["tid"], tid);
            self.done += u64::from(answer["result"] == "ok");
            let data = &answer["data"];
            if let Some(id) = data["conversation_id"].as_str()
                && data.get("name").is_none()
            {
                self.conversations.push(id.to_owned());
                self.make("p", id);
            }
            if let (Some(id), Some(conversation)) = (data["message_id"].as_str(), conversation)
                && data.get("message").is_none()
                && self.messages.iter().all(|(_, known)| known != id)
            {
                self.messages.push((conversation, id.to_owned()));
                self.make("pm", id);
            }
        }
    }

    fn make(&mut self, prefix: &str, id: &str) {
        self.made += 1;
        self.new
            .push((format!("{prefix}{}", self.made), id.to_owned()));
    }

    /// What was made since the last time, and what it is called.
    pub fn take_new(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.new)
    }

    fn users(&self, rng: &mut StdRng) -> Vec<String> {
        let count = rng.random_range(0..3);
        let mut users: Vec<String> = self.users.choose_multiple(rng, count).cloned().collect();
        users.extend(self.guests.choose(rng).cloned());
        users
    }

    fn operation(&mut self, rng: &mut StdRng) -> (&'static str, &'static str, Value) {
        let user = self.users.choose(rng).unwrap().clone();
        let Some(conversation) = self.conversations.choose(rng).cloned() else {
            let data = json!({"name": text(rng), "user_ids": self.users});
            return ("conversation", "create", data);
        };
        let message = self.messages.choose(rng).cloned();
        let of = |more: Value| {
            let mut data = json!({"conversation_id": conversation});
            data.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            data
        };
        match rng.random_range(0..100) {
            0..5 if self.conversations.len() < MAX_CONVERSATIONS => {
                let data = json!({"name": text(rng), "description": text(rng), "user_ids": self.users(rng)});
                ("conversation", "create", data)
            }
            5 if self.conversations.len() > 2 => {
                self.conversations.retain(|other| *other != conversation);
                ("conversation", "delete", of(json!({})))
            }
            6..12 => ("conversation", "update", of(json!({"name": text(rng)}))),
            12..22 => {
                let data = of(json!({"user_ids": self.users(rng)}));
                ("conversation", "add_members", data)
            }
            22..28 => {
                let data = of(json!({"user_ids": self.users(rng)}));
                ("conversation", "remove_members", data)
            }
            28..60 => {
                let mut data = of(json!({"user_id": user, "message": text(rng)}));
                if rng.random_bool(0.3) {
                    data["nonce"] = json!(format!("nonce {}", rng.random_range(0..5)));
                }
                ("message", "create", data)
            }
            60..80 => {
                let Some((conversation, message)) = message else {
                    return ("message", "search", json!({}));
                };
                let mut data = json!({"conversation_id": conversation, "message_id": message});
                if rng.random_bool(0.6) {
                    data["message"] = json!(text(rng));
                    return ("message", "update", data);
                }
                self.messages.retain(|(_, other)| *other != message);
                ("message", "delete", data)
            }
            80..85 => {
                let data = json!({"type": "typing", "obj_id": conversation, "body": {"by": user}});
                ("event", "send", data)
            }
            85..90 => {
                let filter = json!({"message": {"match": word(rng)}});
                (
                    "message",
                    "search",
                    json!({"filter": filter, "fields": "_all"}),
                )
            }
            90..93 => ("event", "subscribe", json!({"subclass": "conversation"})),
            93..95 => (
                "session",
                "token_create",
                json!({"name": "bot", "user_id": user}),
            ),
            95..97 => ("session", "token_list", json!({"user_id": user})),
            _ => ("conversation", "get", of(json!({}))),
        }
    }
}
