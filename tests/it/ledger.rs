//! What a daemon acknowledged under load, kept outside of it, and whether it is all there afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use serde_json::{Value, json};

use crate::harness::{Client, Daemon};

/// Requests that each connection has under way.
const IN_FLIGHT: usize = 16;

/// Messages that were acknowledged, in conversations of their own.
pub struct Ledger {
    user: String,
    conversations: Vec<String>,
    /// The text of each acknowledged message, by its id.
    known: BTreeMap<String, String>,
}

/// Whether answers still count as acknowledged: not from the moment on at which the fault begins.
pub struct Counting(AtomicBool);

impl Counting {
    /// From here on no answer counts.
    pub fn stop(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn goes_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Ledger {
    /// An empty ledger: a user, and three conversations.
    pub fn new(client: &mut Client) -> Self {
        let user = client.create_user("ann@example.org");
        let conversations = (0..3)
            .map(|number| client.create_conversation(&format!("c{number}"), &[&user]))
            .collect();
        Self {
            user,
            conversations,
            known: BTreeMap::new(),
        }
    }

    /// Messages that were acknowledged.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Writes on one connection per conversation; once `wanted` messages are acknowledged, `fault` ends the daemon.
    pub fn write_until(
        &mut self,
        daemon: &mut Daemon,
        mark: &str,
        wanted: usize,
        fault: impl FnOnce(&mut Daemon, &Counting),
    ) {
        let acknowledged = AtomicUsize::new(0);
        let counting = Counting(AtomicBool::new(true));
        std::thread::scope(|scope| {
            let writers: Vec<_> = self
                .conversations
                .iter()
                .enumerate()
                .map(|(number, conversation)| {
                    let writer = Writer {
                        conversation,
                        user: &self.user,
                        mark: format!("{mark}/{number}"),
                        acknowledged: &acknowledged,
                        counting: &counting,
                    };
                    let client = daemon.client();
                    scope.spawn(move || writer.write(client))
                })
                .collect();
            // A writer that ends before its time has failed, and says so when it is joined.
            while acknowledged.load(Ordering::Relaxed) < wanted
                && !writers.iter().any(ScopedJoinHandle::is_finished)
            {
                std::thread::yield_now();
            }
            fault(daemon, &counting);
            for writer in writers {
                self.known.extend(writer.join().unwrap());
            }
        });
    }

    /// Checks that nothing acknowledged is lost, that counters and timelines agree, and that the events are dense and
    /// tell of exactly what is stored. Gives the numbers of stored messages and of events.
    pub fn check(&self, client: &mut Client) -> (usize, u64) {
        let stored: BTreeMap<String, String> = all(client, "message")
            .iter()
            .map(|row| (text(row, "message_id"), text(row, "message")))
            .collect();
        for (id, text) in &self.known {
            assert_eq!(
                stored.get(id),
                Some(text),
                "an acknowledged message is lost or changed"
            );
        }
        let mut total = |filter: Value| {
            let search = json!({"filter": filter, "size": 0});
            client.ok("message", "search", search)["total"]
                .as_u64()
                .unwrap()
        };
        let mut sum = 0;
        for conversation in &self.conversations {
            let counted = total(json!({"conversation_id": conversation}));
            // A condition on the id too makes the daemon count the rows themselves.
            let walked = json!({"conversation_id": conversation, "message_id": {"gt": "0"}});
            assert_eq!(counted, total(walked));
            sum += counted;
        }
        assert_eq!(sum, stored.len() as u64);
        assert_eq!(client.ok("server", "info", json!({}))["messages"], sum);
        let newest = client.ok("event", "subscribe", json!({"since": 0}))["seq"]
            .as_u64()
            .unwrap();
        let mut told = BTreeSet::new();
        for seq in 1..=newest {
            let event = client.next_event();
            assert_eq!(event["seq"], seq);
            if event["type"] == "created_message" {
                told.insert(text(&event["body"], "message_id"));
            }
        }
        assert_eq!(told, stored.keys().cloned().collect());
        (stored.len(), newest)
    }
}

/// One connection that writes until it breaks.
struct Writer<'a> {
    conversation: &'a str,
    user: &'a str,
    mark: String,
    acknowledged: &'a AtomicUsize,
    counting: &'a Counting,
}

impl Writer<'_> {
    /// Gives the text of each message that was acknowledged, by its id.
    fn write(self, mut client: Client) -> BTreeMap<String, String> {
        let mut sender = client.sender();
        let mut known = BTreeMap::new();
        let (mut sent, mut answered) = (0, 0);
        loop {
            while sent < answered + IN_FLIGHT {
                let request = json!({
                    "class": "chat", "subclass": "message", "cmd": "create", "tid": sent,
                    "data": {
                        "conversation_id": self.conversation,
                        "user_id": self.user,
                        "message": format!("{} {sent}", self.mark),
                    },
                });
                if sender.write_all(format!("{request}\n").as_bytes()).is_err() {
                    return known;
                }
                sent += 1;
            }
            let Some(line) = client.read_line_or_end() else {
                return known;
            };
            let Ok(answer) = serde_json::from_str::<Value>(&line) else {
                return known;
            };
            if answer["type"] == "closed" || !self.counting.goes_on() {
                return known;
            }
            assert_eq!(
                (&answer["result"], &answer["tid"]),
                (&json!("ok"), &json!(answered)),
                "{answer}"
            );
            known.insert(
                text(&answer["data"], "message_id"),
                format!("{} {answered}", self.mark),
            );
            answered += 1;
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Every object of a kind, in order of creation.
pub fn all(client: &mut Client, subclass: &str) -> Vec<Value> {
    let mut rows: Vec<Value> = Vec::new();
    let id = format!("{subclass}_id");
    loop {
        let filter = match rows.last() {
            Some(row) => json!({&id: {"gt": row[&id]}}),
            None => json!({}),
        };
        let search = json!({"fields": "_all", "filter": filter, "size": 1000, "total": false});
        let page = client.ok(subclass, "search", search);
        let page = page["data"].as_array().unwrap().clone();
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap().to_owned()
}
