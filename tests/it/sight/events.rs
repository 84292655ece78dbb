//! Events reach those who are members when they are delivered, and the one that ends a membership reaches whom it concerns.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Client, Daemon, LOGINS};

/// The events that wait on a connection, as their types, `obj_id` only where it is this conversation's.
fn waiting(client: &mut Client, conversation: &str) -> Vec<String> {
    client.ok("session", "ping", json!({}));
    let mut types = Vec::new();
    while let Some(event) = client.take_kept_event() {
        assert_eq!(event["class"], "chat");
        if event["obj_id"] == conversation {
            types.push(event["type"].as_str().unwrap().to_owned());
        }
    }
    types
}

/// What a new connection of a user is given of a conversation when it resumes from the beginning.
fn resumed(daemon: &Daemon, login: &str, conversation: &str) -> Vec<String> {
    let mut client = daemon.user(login);
    // With a position, which comes behind the stored events, it is known when all have come.
    client.subscribe(json!({"since": 0, "position": true}));
    let mut types = Vec::new();
    loop {
        let event = client.next_event();
        match event["subclass"].as_str() {
            Some("event") => break,
            Some("conversation") => {
                assert_eq!(event["obj_id"], conversation, "{event}");
                types.push(event["type"].as_str().unwrap().to_owned());
            }
            other => assert_eq!(other, Some("user")),
        }
    }
    let subscriptions = client.ok("event", "get_subscriptions", json!({}));
    assert_eq!(subscriptions["subscriptions"].as_array().unwrap().len(), 1);
    types
}

/// Ann and Ben, and their connections; the first of Ann's is subscribed to everything, the second to the conversation.
struct Two {
    daemon: Daemon,
    root: Client,
    ann: String,
    ben: String,
    of_ben: Client,
    everything: Client,
    one: Client,
    conversation: String,
}

impl Two {
    fn new(data_dir: &TempDir) -> Self {
        let daemon = Daemon::on_dir(data_dir.path(), LOGINS);
        let mut root = daemon.client();
        let ann = root.create_user("ann@example.org");
        let ben = root.create_user("ben@example.org");
        let mut of_ben = daemon.user("ben@example.org");
        let mut everything = daemon.user("ann@example.org");
        everything.subscribe(json!({}));
        let conversation = of_ben.create_conversation("lunch", &[]);
        let mut one = daemon.user("ann@example.org");
        one.subscribe(json!({"obj_id": conversation}));
        Self {
            daemon,
            root,
            ann,
            ben,
            of_ben,
            everything,
            one,
            conversation,
        }
    }

    fn change(&mut self, cmd: &str, user: &str) {
        let data = json!({"conversation_id": self.conversation, "user_ids": [user]});
        self.of_ben.ok("conversation", cmd, data);
    }

    /// Something of everything that can happen in a conversation.
    fn stir(&mut self) {
        let message = self
            .of_ben
            .send_message(&self.conversation, &self.ben, "hello");
        let mut data = json!({"conversation_id": self.conversation, "message_id": message, "message": "hello, all"});
        self.of_ben.ok("message", "update", data.clone());
        data.as_object_mut().unwrap().remove("message");
        self.of_ben.ok("message", "delete", data);
        let typing = json!({"type": "typing", "obj_id": self.conversation, "body": {"secret": 1}});
        self.of_ben.ok("event", "send", typing.clone());
        self.root.ok("event", "send", typing);
        let update = json!({"conversation_id": self.conversation, "name": "dinner"});
        self.of_ben.ok("conversation", "update", update);
    }

    /// What waits on the two connections of Ann's, which is the same.
    fn waiting(&mut self) -> Vec<String> {
        let everything = waiting(&mut self.everything, &self.conversation);
        let one = waiting(&mut self.one, &self.conversation);
        assert_eq!(everything, one);
        one
    }

    fn resumed(&self) -> Vec<String> {
        resumed(&self.daemon, "ann@example.org", &self.conversation)
    }
}

const STIRRED: [&str; 6] = [
    "created_message",
    "updated_message",
    "deleted_message",
    "typing",
    "typing",
    "updated",
];
const STORED: [&str; 4] = [
    "created_message",
    "updated_message",
    "deleted_message",
    "updated",
];

#[test]
fn membership_at_the_moment_of_delivery_decides() {
    let data_dir = TempDir::new().unwrap();
    let mut two = Two::new(&data_dir);
    let ann = two.ann.clone();
    // Never a member.
    two.stir();
    assert_eq!(two.waiting(), [""; 0]);
    assert_eq!(two.resumed(), [""; 0]);
    // A member: told so, live; on resume there is the history too.
    two.change("add_members", &ann);
    two.stir();
    assert_eq!(two.waiting(), [&["added_memebers"], &STIRRED[..]].concat());
    let history = [&["created"], &STORED[..], &["added_memebers"], &STORED].concat();
    assert_eq!(two.resumed(), history);
    // A member no more: that is the last of it, and all that is left of it.
    two.change("remove_members", &ann);
    two.stir();
    assert_eq!(two.waiting(), ["removed_memebers"]);
    assert_eq!(two.resumed(), ["removed_memebers"]);
    // It is so after a restart.
    drop((two.everything, two.one, two.of_ben));
    two.daemon.terminate();
    two.daemon = Daemon::on_dir(data_dir.path(), LOGINS);
    two.root = two.daemon.client();
    two.of_ben = two.daemon.user("ben@example.org");
    two.everything = two.daemon.user("ann@example.org");
    two.everything.subscribe(json!({}));
    two.one = two.daemon.user("ann@example.org");
    two.one.subscribe(json!({"obj_id": two.conversation}));
    assert_eq!(two.resumed(), ["removed_memebers"]);
    // In again.
    two.change("add_members", &ann);
    assert_eq!(two.waiting(), ["added_memebers"]);
    let whole = [
        &history[..],
        &["removed_memebers"],
        &STORED,
        &["added_memebers"],
    ]
    .concat();
    assert_eq!(two.resumed(), whole);
    // Leaving by oneself is the same.
    let leave = json!({"conversation_id": two.conversation, "user_ids": [ann]});
    two.one.ok("conversation", "remove_members", leave);
    two.stir();
    assert_eq!(two.waiting(), ["removed_memebers"]);
    assert_eq!(two.resumed(), ["removed_memebers", "removed_memebers"]);
}

#[test]
fn the_end_of_a_conversation_reaches_its_members_alone() {
    let data_dir = TempDir::new().unwrap();
    let mut two = Two::new(&data_dir);
    let ann = two.ann.clone();
    let cyd = two.root.create_user("cyd@example.org");
    let mut of_cyd = two.daemon.user("cyd@example.org");
    of_cyd.subscribe(json!({}));
    two.change("add_members", &cyd);
    two.change("remove_members", &cyd);
    two.change("add_members", &ann);
    let first = waiting(&mut of_cyd, &two.conversation);
    assert_eq!(first, ["added_memebers", "removed_memebers"]);
    two.stir();
    two.waiting();
    let delete = json!({"conversation_id": two.conversation});
    two.of_ben.ok("conversation", "delete", delete);
    assert_eq!(two.waiting(), ["deleted"]);
    assert_eq!(waiting(&mut of_cyd, &two.conversation), [""; 0]);
    assert_eq!(two.resumed(), ["deleted"]);
    let of_cyd = resumed(&two.daemon, "cyd@example.org", &two.conversation);
    assert_eq!(of_cyd, ["removed_memebers"]);
}

#[test]
fn a_conversation_that_is_being_deleted_is_gone_for_who_resumes() {
    // So many members that taking them out is not done when the deletion is answered; the last of them resumes then.
    const MEMBERS: usize = 900;
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let users: Vec<String> = (0..MEMBERS)
        .map(|number| root.create_user(&format!("user{number}@example.org")))
        .collect();
    let mut client = daemon.user(&format!("user{}@example.org", MEMBERS - 1));
    let others: Vec<&str> = users.iter().map(String::as_str).collect();
    for _ in 0..3 {
        let conversation = client.create_conversation("everyone", &others);
        let author = users.last().unwrap();
        for number in 0..20 {
            client.send_message(&conversation, author, &format!("message {number}"));
        }
        let (seq, _) = root_seq(&mut root);
        client.request(
            "conversation",
            "delete",
            json!({"conversation_id": conversation}),
        );
        let data = json!({"subclass": "conversation", "obj_id": conversation, "since": 0, "position": true});
        let tid = client.request("event", "subscribe", data);
        assert_eq!(client.next_value()["result"], "ok");
        let subscribed = client.next_value();
        assert_eq!(subscribed["tid"], tid, "{subscribed}");
        assert_eq!(subscribed["result"], "ok", "{subscribed}");
        let event = client.next_event();
        assert_eq!(
            (&event["type"], &event["seq"]),
            (&json!("deleted"), &json!(seq + 1)),
            "what was there before is still shown"
        );
        assert_eq!(client.next_event()["type"], "position");
        client = daemon.user(&format!("user{}@example.org", MEMBERS - 1));
    }
}

fn root_seq(root: &mut Client) -> (u64, Value) {
    let info = root.ok("server", "info", json!({}));
    (info["seq"].as_u64().unwrap(), info)
}

#[test]
fn an_admin_sees_everything_for_as_long_as_it_is_one() {
    let data_dir = TempDir::new().unwrap();
    let mut two = Two::new(&data_dir);
    let role = |user: &str, role: &str| json!({"user_id": user, "role": role});
    two.root.ok("user", "update", role(&two.ann, "admin"));
    two.stir();
    assert_eq!(two.waiting(), STIRRED);
    assert_eq!(two.resumed(), [&["created"], &STORED[..]].concat());
    two.root.ok("user", "update", role(&two.ann, "user"));
    two.stir();
    assert_eq!(two.waiting(), [""; 0]);
    assert_eq!(two.resumed(), [""; 0]);
    // A membership that began meanwhile is there when the role is gone.
    two.root.ok("user", "update", role(&two.ann, "admin"));
    let ann = two.ann.clone();
    two.change("add_members", &ann);
    two.root.ok("user", "update", role(&two.ann, "user"));
    two.stir();
    assert_eq!(two.waiting(), [&["added_memebers"], &STIRRED[..]].concat());
}

#[test]
fn a_slow_reader_is_given_nothing_from_before_it_was_taken_out() {
    let data_dir = TempDir::new().unwrap();
    let mut two = Two::new(&data_dir);
    let ann = two.ann.clone();
    two.change("add_members", &ann);
    // More than the server keeps for one that does not read, and than the sockets between hold.
    let text = "x".repeat(16_000);
    for _ in 0..800 {
        let data =
            json!({"conversation_id": two.conversation, "user_id": two.ben, "message": text});
        two.of_ben.request("message", "create", data);
    }
    for _ in 0..800 {
        assert_eq!(two.of_ben.next_value()["result"], "ok");
    }
    let (before, _) = root_seq(&mut two.root);
    two.change("remove_members", &ann);
    two.stir();
    let mut last = Value::Null;
    let mut messages = 0;
    two.everything.request("session", "ping", json!({}));
    let mut pinged = false;
    loop {
        let line = two.everything.next_value();
        if line.get("result").is_some() {
            pinged = true;
        } else if line["type"] == "created_message" {
            messages += 1;
            last = line["seq"].clone();
        } else if line["type"] == "removed_memebers" {
            assert_eq!(line["seq"], before + 1);
            break;
        }
    }
    // It was behind, so that some of it was fetched when she was out already; what she took before she has.
    assert!(messages < 800, "the reader was not slow");
    assert!(last.as_u64().unwrap() < before, "{last}");
    if !pinged {
        two.everything.next_value();
    }
    two.everything.no_more_events();
}

#[test]
fn a_position_is_all_that_an_outsider_is_told() {
    let data_dir = TempDir::new().unwrap();
    let mut two = Two::new(&data_dir);
    two.stir();
    let (seq, _) = root_seq(&mut two.root);
    let mut client = two.daemon.user("ann@example.org");
    let data = json!({"subclass": "conversation", "since": 0, "position": true});
    client.subscribe(data);
    let mut position = client.next_event();
    assert!(position["time"].is_u64());
    position.as_object_mut().unwrap().remove("time");
    let expected = json!({"class": "chat", "subclass": "event", "type": "position", "seq": seq});
    assert_eq!(position, expected);
    client.no_more_events();
}

#[test]
fn every_event_of_ones_own_goes_only_where_one_may_still_see() {
    let data_dir = TempDir::new().unwrap();
    let mut two = Two::new(&data_dir);
    let (ann, conversation) = (two.ann.clone(), two.conversation.clone());
    let mut of_ann = two.daemon.user("ann@example.org");
    let mut send = move || {
        let typing = json!({"type": "typing", "obj_id": conversation});
        let answer = of_ann.call("event", "send", typing);
        answer["data"]["code"].as_str().unwrap_or("ok").to_owned()
    };
    assert_eq!(send(), "conversation_not_found");
    for _ in 0..3 {
        two.change("add_members", &ann);
        assert_eq!([send(), send()], ["ok", "ok"]);
        // What changes nobody's rights, and what does.
        two.stir();
        assert_eq!(send(), "ok");
        two.change("remove_members", &ann);
        assert_eq!(
            [send(), send()],
            ["conversation_not_found", "conversation_not_found"]
        );
    }
    two.change("add_members", &ann);
    assert_eq!(send(), "ok");
    let conversation = json!({"conversation_id": two.conversation});
    two.of_ben.ok("conversation", "delete", conversation);
    assert_eq!(send(), "conversation_not_found");
}
