//! Events as the protocol's section 6 describes them: what is expected next, and who would receive it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Kind, Model};

/// Events that the daemon has yet to send. Templates have no `seq` and no `time`.
#[derive(Debug, Clone)]
pub enum Pending {
    One(Value),
    /// The end of a conversation, which those who were in it are told of.
    Ending(Value, BTreeSet<String>),
    /// Events of one change, whose order among themselves the protocol leaves open.
    InAnyOrder(Vec<Value>),
    /// An event whose body is the message, once its times are known.
    OfMessage {
        event: &'static str,
        message_id: String,
        by: Option<String>,
    },
}

pub(super) fn template(
    by: Option<&str>,
    subclass: &str,
    event: &str,
    obj_id: &str,
    body: Option<Value>,
) -> Value {
    let mut template =
        json!({"class": "chat", "subclass": subclass, "type": event, "obj_id": obj_id});
    if let Some(body) = body {
        template["body"] = body;
    }
    if let Some(by) = by {
        template["by"] = json!(by);
    }
    template
}

/// Checks an event against a template and the one before it. Lists of members are compared as sets, for their order is open.
fn check_event(event: &Value, template: &Value, previous: Option<&Value>, clock_was_set: bool) {
    assert!(
        matches(event, template),
        "the event {event} came where {template} was expected"
    );
    let time = event["time"]
        .as_u64()
        .unwrap_or_else(|| panic!("no time in the event {event}"));
    if let Some(previous) = previous {
        assert_eq!(
            event["seq"].as_u64(),
            previous["seq"].as_u64().map(|seq| seq + 1),
            "{event} after {previous}"
        );
        assert!(
            clock_was_set || time >= previous["time"].as_u64().unwrap(),
            "time runs backwards: {event} after {previous}"
        );
    }
    assert!(event["seq"].is_u64(), "no seq in the event {event}");
}

fn matches(event: &Value, template: &Value) -> bool {
    let mut bare = event.clone();
    let Some(fields) = bare.as_object_mut() else {
        return false;
    };
    fields.remove("seq");
    fields.remove("time");
    if let Some(user_ids) = bare
        .pointer_mut("/body/user_ids")
        .and_then(Value::as_array_mut)
    {
        user_ids.sort_by_key(Value::to_string);
    }
    bare == *template
}

impl Model {
    /// How many events the daemon has yet to send.
    pub fn pending_count(&self) -> usize {
        self.pending
            .iter()
            .map(|pending| {
                if let Pending::InAnyOrder(group) = pending {
                    group.len()
                } else {
                    1
                }
            })
            .sum()
    }

    /// Takes the daemon's next event, which must be one that is due.
    pub fn take_event(&mut self, event: Value) {
        assert!(
            !self.pending.is_empty(),
            "an event that nothing caused: {event}"
        );
        let expected = match &mut self.pending[0] {
            Pending::One(template) => template.clone(),
            Pending::Ending(template, members) => {
                let seq = event["seq"].as_u64().expect("the number of an event");
                self.last_members.insert(seq, members.clone());
                template.clone()
            }
            Pending::InAnyOrder(group) => {
                let found = group.iter().position(|template| matches(&event, template));
                let found =
                    found.unwrap_or_else(|| panic!("the event {event} is none of {group:?}"));
                group.remove(found)
            }
            Pending::OfMessage {
                event,
                message_id,
                by,
            } => {
                let (event, message_id, by) = (*event, message_id.clone(), by.clone());
                let message = self
                    .object(Kind::Message, &message_id)
                    .expect("the message of an event");
                template(
                    by.as_deref(),
                    "conversation",
                    event,
                    message["conversation_id"].as_str().unwrap(),
                    Some(message.clone()),
                )
            }
        };
        if !matches!(&self.pending[0], Pending::InAnyOrder(group) if !group.is_empty()) {
            self.pending.remove(0);
        }
        let clock_was_set = std::mem::take(&mut self.clock_was_set);
        check_event(&event, &expected, self.events.last(), clock_was_set);
        self.events.push(event);
    }

    /// The number of the newest event.
    pub fn seq(&self) -> Option<u64> {
        self.events
            .last()
            .map(|event| event["seq"].as_u64().unwrap())
    }

    /// The same events as they come on a resume: without the texts that were deleted or changed since.
    pub fn stored_events_after(
        &self,
        viewer: Option<&str>,
        since: u64,
        subscriptions: &[Subscription],
    ) -> Vec<Value> {
        let mut events = self.events_after(viewer, since, subscriptions);
        for event in &mut events {
            let Some(body) = event.get_mut("body").and_then(Value::as_object_mut) else {
                continue;
            };
            let Some(text) = body.get("message") else {
                continue;
            };
            let id = body["message_id"].as_str().unwrap();
            let now = self.object(Kind::Message, id);
            if now.is_none_or(|message| message["message"] != *text) {
                body.remove("message");
            }
        }
        events
    }

    /// The events after number `since` that one of these subscriptions asks for, as far as this user, or a trusted client,
    /// may see them at this moment.
    pub fn events_after(
        &self,
        viewer: Option<&str>,
        since: u64,
        subscriptions: &[Subscription],
    ) -> Vec<Value> {
        let after = self
            .events
            .iter()
            .filter(|event| event["seq"].as_u64().unwrap() > since);
        after
            .filter(|event| {
                subscriptions
                    .iter()
                    .any(|subscription| subscription.wants(event))
            })
            .filter(|event| viewer.is_none_or(|user| self.shows_event(user, event)))
            .cloned()
            .collect()
    }
}

/// One subscription: the fields of a `subscribe`, where nothing or `"*"` matches everything.
#[derive(Debug, Clone)]
pub struct Subscription(pub Value);

impl Subscription {
    pub fn wants(&self, event: &Value) -> bool {
        ["class", "subclass", "type", "obj_id"]
            .iter()
            .all(|field| match self.0.get(field) {
                None => true,
                Some(Value::Array(any)) => any.iter().any(|wanted| same(wanted, &event[*field])),
                Some(wanted) => same(wanted, &event[*field]),
            })
    }
}

/// The wire spells two types as the founding document does; a subscription may spell them right.
fn same(wanted: &Value, actual: &Value) -> bool {
    match wanted.as_str() {
        Some("*") => true,
        Some("added_members") => actual == "added_memebers",
        Some("removed_members") => actual == "removed_memebers",
        _ => wanted == actual,
    }
}
