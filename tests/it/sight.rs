//! What a user may not see does not exist for it: in reads, searches and events, live and on resume (the protocol's section 7).

mod events;

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS};

/// A conversation of Ben's that Ann never was in, and one that she left, with something of everything in both.
struct Hidden {
    _daemon: Daemon,
    /// Ann's connection.
    ann: Client,
    /// Ben's.
    ben: Client,
    ann_id: String,
    ben_id: String,
    conversations: [String; 2],
    messages: Vec<String>,
    /// What is Ann's own, and hers to find.
    own: [String; 2],
}

impl Hidden {
    fn new() -> Self {
        let daemon = Daemon::with(LOGINS);
        let mut root = daemon.client();
        let ann_id = root.create_user("ann@example.org");
        let ben_id = root.create_user("ben@example.org");
        let mut ann = daemon.user("ann@example.org");
        let mut ben = daemon.user("ben@example.org");
        let home = ann.create_conversation("home", &[]);
        let note = ann.send_message(&home, &ann_id, "a note");
        let never = ben.create_conversation("hidden place", &[]);
        let left = ben.create_conversation("hidden nook", &[&ann_id]);
        let mut messages = Vec::new();
        for conversation in [&never, &left] {
            let data = json!({"conversation_id": conversation, "description": "hidden indeed"});
            ben.ok("conversation", "update", data);
            for author in [&ann_id, &ben_id] {
                messages.push(root.send_message(conversation, author, "hidden words"));
            }
            let data = json!({"conversation_id": conversation, "message_id": messages.last(), "message": "hidden words too"});
            ben.ok("message", "update", data);
        }
        let leave = json!({"conversation_id": left, "user_ids": [ann_id]});
        ann.ok("conversation", "remove_members", leave);
        Self {
            _daemon: daemon,
            ann,
            ben,
            ann_id,
            ben_id,
            conversations: [never, left],
            messages,
            own: [home, note],
        }
    }

    /// Filters that find something hidden for Ben.
    fn filters(&self) -> Vec<(&'static str, Value)> {
        let Self {
            ann_id,
            ben_id,
            conversations: [never, left],
            messages,
            ..
        } = self;
        let conversation = [
            json!({}),
            json!({"conversation_id": never}),
            json!({"conversation_id": [never, left, never]}),
            json!({"conversation_id": {"gt": "0"}}),
            json!({"conversation_id": {"gte": never, "lte": left}}),
            json!({"user_ids": ben_id}),
            json!({"user_ids": [ann_id, ben_id]}),
            json!({"user_ids": ben_id, "created_by": ben_id}),
            json!({"created_by": ben_id}),
            json!({"created_by": {"gte": ben_id}}),
            json!({"name": "hidden place"}),
            json!({"name": ["hidden place", "hidden nook"]}),
            json!({"name": {"match": "HIDDEN"}}),
            json!({"name": {"match": "hid*"}}),
            json!({"name": {"prefix": "hidden"}}),
            json!({"name": {"gt": "hi", "lt": "hj"}}),
            json!({"description": {"match": "indeed"}}),
            json!({"member_count": 1}),
            json!({"member_count": {"lte": 1}}),
            json!({"created_time": {"gt": 0}}),
            json!({"updated_time": {"gt": 0}}),
        ];
        let message = [
            json!({}),
            json!({"message_id": messages[0]}),
            json!({"message_id": messages}),
            json!({"message_id": {"gt": "0"}}),
            json!({"message_id": {"gte": messages[0]}}),
            json!({"conversation_id": never}),
            json!({"conversation_id": left}),
            json!({"conversation_id": [never, left]}),
            json!({"conversation_id": {"gte": never}}),
            json!({"conversation_id": never, "message_id": {"gt": "0"}}),
            json!({"conversation_id": left, "user_id": ann_id}),
            json!({"user_id": ann_id}),
            json!({"user_id": ben_id}),
            json!({"user_id": [ann_id, ben_id]}),
            json!({"user_id": {"gte": ann_id}}),
            json!({"message": "hidden words"}),
            json!({"message": {"match": "words hidden"}}),
            json!({"message": {"match": "wor*"}}),
            json!({"message": {"prefix": "hidden"}}),
            json!({"message": {"gte": "hidden"}}),
            json!({"created_time": {"gt": 0}}),
            json!({"updated_time": {"gt": 0}}),
        ];
        let kind = |kind: &'static str| move |filter| (kind, filter);
        conversation
            .into_iter()
            .map(kind("conversation"))
            .chain(message.into_iter().map(kind("message")))
            .collect()
    }
}

#[test]
fn no_search_finds_what_may_not_be_seen() {
    let mut hidden = Hidden::new();
    let ways = [
        json!({}),
        json!({"fields": "_all"}),
        json!({"total": false}),
        json!({"size": 0}),
        json!({"size": 1, "from": 1}),
        json!({"sort_order": "desc"}),
        json!({"sort_by": "created_time", "sort_order": "desc", "fields": "_all"}),
        json!({"sort_by": ["updated_time", "conversation_id"]}),
        json!({"sort_by": "created_time", "total": false, "size": 1}),
    ];
    for (subclass, filter) in hidden.filters() {
        for way in &ways {
            let mut data = way.clone();
            data["filter"] = filter.clone();
            let found = hidden.ann.ok(subclass, "search", data.clone());
            let text = found.to_string();
            let hers = hidden.conversations.iter().chain(&hidden.messages);
            for secret in hers.map(String::as_str).chain(["hidden"]) {
                assert!(!text.contains(secret), "{subclass} search {data}: {found}");
            }
            // What is found and counted is her own; and there is one object of each kind that is.
            let rows = found["data"].as_array().unwrap();
            let own = &hidden.own[usize::from(subclass == "message")];
            for row in rows {
                assert_eq!(row[format!("{subclass}_id")], **own, "{data}");
            }
            let mut counting = json!({"filter": filter});
            counting["fields"] = json!([]);
            let whole = hidden.ann.ok(subclass, "search", counting);
            let matching = whole["data"].as_array().unwrap().len();
            assert!(matching <= 1, "{data}: {whole}");
            if way.get("total") == Some(&json!(false)) {
                assert_eq!(found.get("total"), None, "{data}");
            } else {
                assert_eq!(
                    found["total"], matching,
                    "{subclass} search {data}: {found}"
                );
            }
            // Ben finds something, so that the filter is one that could show it.
            let control = hidden.ben.ok(subclass, "search", json!({"filter": filter}));
            let seen = control.to_string();
            let ids = hidden.conversations.iter().chain(&hidden.messages);
            assert!(ids.into_iter().any(|id| seen.contains(id)), "{filter}");
        }
    }
}

#[test]
fn no_read_gives_what_may_not_be_seen() {
    let mut hidden = Hidden::new();
    for conversation in &hidden.conversations {
        let data = json!({"conversation_id": conversation});
        for cmd in ["get", "get_members"] {
            assert_eq!(
                hidden.ann.code("conversation", cmd, data.clone()),
                "conversation_not_found"
            );
            hidden.ben.ok("conversation", cmd, data.clone());
        }
    }
    for message in &hidden.messages {
        let data = json!({"message_id": message});
        assert_eq!(
            hidden.ann.code("message", "get", data.clone()),
            "message_not_found"
        );
        hidden.ben.ok("message", "get", data);
    }
    // The members of a conversation of her own say nothing of where else they are.
    let own = json!({"conversation_id": hidden.own[0]});
    let shown = hidden.ann.ok("conversation", "get", own).to_string();
    assert!(!shown.contains(&hidden.ben_id), "{shown}");
    // Back in, everything is there again, what was written meanwhile too.
    let [never, left] = &hidden.conversations;
    let add = |conversation| json!({"conversation_id": conversation, "user_ids": [hidden.ann_id]});
    hidden.ben.ok("conversation", "add_members", add(never));
    hidden.ben.ok("conversation", "add_members", add(left));
    let found = hidden.ann.ok("message", "search", json!({}));
    assert_eq!(found["total"], 5);
    // And gone at once when taken out again.
    for conversation in [never, left] {
        hidden
            .ben
            .ok("conversation", "remove_members", add(conversation));
    }
    let found = hidden.ann.ok("message", "search", json!({}));
    assert_eq!(found["total"], 1);
    assert_eq!(found["data"][0]["message_id"], hidden.own[1]);
}
