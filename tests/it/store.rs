//! One conformance suite for every store: the same functions run over the one in memory and the embedded one.
//!
//! Unlike the rest of these tests it calls the library, since a store has no socket; it knows no more of a store than its
//! semantic operations.

#![allow(
    clippy::needless_pass_by_value,
    reason = "every test of the suite takes its subject alike; most reopen it"
)]

mod agree;
mod moments;
mod subject;

use chatd::error::Code;
use chatd::model::{Comparison, Condition, Event, Field, Given, Kind, Search, Test, UserId};
use chatd::store::{Change, Outcome, Patch, Principal, Query};
use serde_json::{Value, json};

use subject::{
    KEEP_MS, Subject, given, messages_of, new_conversation, new_message, new_user, search,
};

use moments::{counts_fit_rows, who_is_removed_sees_nothing_later};

const TRUSTED: Principal = Principal::Trusted;

macro_rules! conformance {
    ($($test:ident,)+) => {
        mod memory {
            $(#[test] fn $test() { super::$test(super::Subject::memory()); })+
        }
        mod embedded {
            $(#[test] fn $test() { super::$test(super::Subject::embedded()); })+
        }
    };
}

conformance! {
    what_was_applied_is_found_again,
    a_login_is_unique_until_its_user_is_gone,
    a_refusal_changes_nothing,
    events_are_dense_and_handed_on_before_the_answer,
    events_are_read_in_pieces_without_loss_or_doubling,
    old_events_are_expired,
    a_nonce_is_kept_as_long_as_its_message_and_the_events,
    members_see_and_others_do_not,
    deleting_a_user_takes_it_out_of_every_conversation,
    a_deleted_conversation_is_gone_at_once,
    searches_page_sort_and_count,
    counts_fit_rows,
    who_is_removed_sees_nothing_later,
}

/// Objects as they are read, and how many there are.
fn everything(subject: &Subject) -> Vec<Value> {
    let mut found: Vec<Value> = [Kind::User, Kind::Conversation, Kind::Message]
        .map(|kind| subject.search(TRUSTED, search(kind)))
        .into();
    found.push(json!(subject.counts()));
    found
}

fn what_was_applied_is_found_again(subject: Subject) {
    let ann = subject.create_user("ann");
    let lunch = subject.create_conversation("lunch", &[ann]);
    let hello = subject.create_message(lunch, ann, "hello");
    subject.clock.advance(5);
    let update = Change::UpdateMessage {
        conversation: Given::Id(lunch),
        message: Given::Id(hello),
        text: chatd::model::MessageText::new("hello there".to_owned(), 100).unwrap(),
    };
    assert_eq!(subject.apply(TRUSTED, update), Ok(Outcome::Done {}));
    let rename = Change::UpdateConversation {
        conversation: Given::Id(lunch),
        name: None,
        description: Patch::Set(chatd::model::Description::new(String::new()).unwrap()),
    };
    assert_eq!(subject.apply(TRUSTED, rename), Ok(Outcome::Done {}));
    let message = subject
        .query(TRUSTED, Query::Message(Given::Id(hello)))
        .unwrap();
    assert_eq!(message["message"], "hello there");
    assert_eq!(
        message["updated_time"],
        message["created_time"].as_u64().unwrap() + 5
    );
    let conversation = subject
        .query(TRUSTED, Query::Conversation(Given::Id(lunch)))
        .unwrap();
    assert_eq!(conversation["description"], "");
    assert_eq!(conversation["user_ids"], json!([ann]));
    let user = subject.query(TRUSTED, Query::User(Given::Id(ann))).unwrap();
    assert_eq!(
        (&user["login"], user.get("role")),
        (&json!("ann"), None),
        "{user}"
    );
    let before = (everything(&subject), subject.log_head());
    let subject = subject.reopened();
    assert_eq!((everything(&subject), subject.log_head()), before);
    // What is made after a restart sorts behind what was there, although the clock stood still.
    assert!(subject.create_message(lunch, ann, "again") > hello);
}

fn a_login_is_unique_until_its_user_is_gone(subject: Subject) {
    let ann = subject.create_user("Ann@Example.org");
    let taken = subject.apply(TRUSTED, new_user("aNN@eXAMPLE.ORG"));
    assert_eq!(taken.unwrap_err().code(), Code::LoginTaken);
    let subject = subject.reopened();
    let taken = subject.apply(TRUSTED, new_user("ANN@EXAMPLE.ORG"));
    assert_eq!(taken.unwrap_err().code(), Code::LoginTaken);
    let delete = || Change::DeleteUser {
        user: Given::Id(ann),
    };
    assert_eq!(subject.apply(TRUSTED, delete()), Ok(Outcome::Done {}));
    let again = subject.apply(TRUSTED, delete()).unwrap_err();
    assert_eq!(again.code(), Code::UserNotFound);
    assert!(subject.create_user("ann@example.org") > ann);
    assert_eq!(subject.counts().users, 1);
}

fn a_refusal_changes_nothing(subject: Subject) {
    let ann = subject.create_user("ann");
    let gone = UserId(chatd::model::Id(1));
    let lunch = subject.create_conversation("lunch", &[ann]);
    let before = (
        everything(&subject),
        subject.log_head(),
        subject.committed(),
    );
    let refused = [
        (new_user("ANN"), Code::LoginTaken),
        (new_conversation("x", &[ann, gone]), Code::UserNotFound),
        (
            Change::AddMembers {
                conversation: Given::Id(lunch),
                users: given(&[ann, gone]),
            },
            Code::UserNotFound,
        ),
        (new_message(lunch, gone, "x", None), Code::UserNotFound),
        (
            Change::DeleteConversation {
                conversation: Given::new("no id at all"),
            },
            Code::ConversationNotFound,
        ),
    ];
    for (change, code) in refused {
        assert_eq!(subject.apply(TRUSTED, change).unwrap_err().code(), code);
    }
    // Adding a member again, and removing nobody, is done, and changes nothing either.
    let again = Change::AddMembers {
        conversation: Given::Id(lunch),
        users: given(&[ann, ann]),
    };
    assert_eq!(subject.apply(TRUSTED, again), Ok(Outcome::Done {}));
    let after = (
        everything(&subject),
        subject.log_head(),
        subject.committed(),
    );
    assert_eq!(after, before);
}

fn events_are_dense_and_handed_on_before_the_answer(subject: Subject) {
    let ann = subject.create_user("ann");
    assert_eq!(subject.committed().len(), 1);
    let lunch = subject.create_conversation("lunch", &[ann]);
    assert_eq!(subject.committed().len(), 2);
    for number in 0..20 {
        subject.create_message(lunch, ann, &number.to_string());
        assert_eq!(subject.committed().len(), 3 + number);
    }
    let leave = Change::RemoveMembers {
        conversation: Given::Id(lunch),
        users: given(&[ann]),
    };
    subject.apply(TRUSTED, leave).unwrap();
    let events = subject.committed();
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=23).collect::<Vec<_>>());
    assert_eq!(events[1].audience.added, [ann]);
    assert_eq!(events[22].audience.removed, [ann]);
    assert_eq!(subject.events_after(0), events);
    assert_eq!(subject.log_head().seq, 23);
    let subject = subject.reopened();
    assert_eq!(subject.events_after(0), events);
}

fn events_are_read_in_pieces_without_loss_or_doubling(subject: Subject) {
    let ann = subject.create_user("ann");
    let lunch = subject.create_conversation("lunch", &[ann]);
    // Several reads' worth.
    let text = "x".repeat(10_000);
    for _ in 0..100 {
        subject.create_message(lunch, ann, &text);
    }
    let all = subject.committed();
    for after in [0, 1, 50, 101, 102] {
        let expected: Vec<Event> = all.iter().skip(after).cloned().collect();
        assert!(
            subject.events_after(after as u64) == expected,
            "after {after}"
        );
    }
    assert_eq!(subject.events_after(1000), []);
}

fn old_events_are_expired(subject: Subject) {
    let ann = subject.create_user("ann");
    subject.create_user("bob");
    subject.clock.advance(KEEP_MS);
    let lunch = subject.create_conversation("lunch", &[ann]);
    let epoch = subject.log_head().epoch;
    assert_eq!((subject.log_head().oldest, subject.log_head().seq), (1, 3));
    subject.clock.advance(1);
    assert_eq!((subject.log_head().oldest, subject.log_head().seq), (3, 3));
    // A reader that stands before the oldest goes on with it.
    let kept = subject.events_after(0);
    assert_eq!(kept.iter().map(|event| event.seq).collect::<Vec<_>>(), [3]);
    let subject = subject.reopened();
    assert_eq!(subject.log_head().oldest, 3);
    subject.clock.advance(KEEP_MS);
    assert_eq!((subject.log_head().oldest, subject.log_head().seq), (4, 3));
    assert_eq!(subject.events_after(0), []);
    subject.create_message(lunch, ann, "hello");
    assert_eq!((subject.log_head().oldest, subject.log_head().seq), (4, 4));
    assert_eq!(subject.log_head().epoch, epoch);
}

fn a_nonce_is_kept_as_long_as_its_message_and_the_events(subject: Subject) {
    let ann = subject.create_user("ann");
    let lunch = subject.create_conversation("lunch", &[ann]);
    let send = |subject: &Subject, text| subject.try_message(TRUSTED, lunch, ann, text, Some("n"));
    let first = send(&subject, "one").unwrap();
    subject.clock.advance(10 * KEEP_MS);
    assert_eq!(send(&subject, "one"), Ok(first));
    assert_eq!(send(&subject, "two"), Err(Code::NonceReused));
    let delete = Change::DeleteMessage {
        conversation: Given::Id(lunch),
        message: Given::Id(first),
    };
    subject.apply(TRUSTED, delete).unwrap();
    let subject = subject.reopened();
    subject.clock.advance(KEEP_MS);
    // Other changes go on, so that the store has had every occasion to forget.
    subject.create_message(lunch, ann, "other");
    assert_eq!(send(&subject, "one"), Ok(first));
    assert_eq!(send(&subject, "two"), Err(Code::NonceReused));
    subject.clock.advance(1);
    subject.create_message(lunch, ann, "other");
    let second = send(&subject, "two").unwrap();
    assert!(second > first);
    assert_eq!(send(&subject, "two"), Ok(second));
    assert_eq!(subject.counts().messages, 3);
}

fn members_see_and_others_do_not(subject: Subject) {
    let [ann, bob] = ["ann", "bob"].map(|login| subject.create_user(login));
    let lunch = subject.create_conversation("lunch", &[ann]);
    let hello = subject.create_message(lunch, ann, "hello");
    let get = || Query::Message(Given::Id(hello));
    let all = || subject::search(Kind::Message);
    let sees = |user| {
        let by = Principal::User(user);
        let page = subject.search(by, all());
        let found = page["total"].as_u64().unwrap();
        assert_eq!(page["data"].as_array().unwrap().len() as u64, found);
        assert_eq!(subject.query(by, get()).is_ok(), found == 1);
        assert_eq!(
            subject.search(by, messages_of(lunch))["total"],
            page["total"]
        );
        let reachable = subject.query(by, Query::Reachable(Given::Id(lunch)));
        assert_eq!(reachable.is_ok(), found == 1);
        found == 1
    };
    assert_eq!((sees(ann), sees(bob)), (true, false));
    let write = |user| subject.try_message(Principal::User(user), lunch, user, "x", None);
    assert_eq!(write(bob), Err(Code::ConversationNotFound));
    let by_bob = subject.try_message(Principal::User(ann), lunch, bob, "x", None);
    assert_eq!(by_bob, Err(Code::Forbidden));
    let move_on = |add: &[UserId], remove: &[UserId]| {
        let conversation = Given::Id(lunch);
        let add = Change::AddMembers {
            conversation: conversation.clone(),
            users: given(add),
        };
        subject.apply(TRUSTED, add).unwrap();
        let remove = Change::RemoveMembers {
            conversation,
            users: given(remove),
        };
        subject.apply(TRUSTED, remove).unwrap();
    };
    move_on(&[bob], &[ann]);
    assert_eq!((sees(ann), sees(bob)), (false, true));
}

fn deleting_a_user_takes_it_out_of_every_conversation(subject: Subject) {
    let [ann, bob] = ["ann", "bob"].map(|login| subject.create_user(login));
    // More than one slice of a deletion.
    let conversations: Vec<_> = (0..600)
        .map(|number| subject.create_conversation(&number.to_string(), &[ann, bob]))
        .collect();
    let hello = subject.create_message(conversations[0], ann, "hello");
    let delete = Change::DeleteUser {
        user: Given::Id(ann),
    };
    subject.apply(TRUSTED, delete).unwrap();
    let subject = subject.reopened();
    // The rest goes slice by slice; every conversation tells of it in an event of its own.
    let told = || {
        let events = subject.events_after(0);
        events
            .iter()
            .filter(|event| event.audience.removed == [ann])
            .count()
    };
    let patience = std::time::Instant::now() + crate::harness::PATIENCE;
    while told() < conversations.len() {
        assert!(std::time::Instant::now() < patience, "{} told", told());
        std::thread::yield_now();
    }
    for &conversation in &conversations {
        let members = Query::Members {
            conversation: Given::Id(conversation),
            from: 0,
            size: None,
        };
        let members = subject.query(TRUSTED, members).unwrap();
        assert_eq!(members, json!({"user_ids": [bob], "total": 1}));
    }
    assert_eq!(told(), conversations.len());
    let message = subject.query(TRUSTED, Query::Message(Given::Id(hello)));
    assert_eq!(message.unwrap()["user_id"], json!(ann));
}

fn a_deleted_conversation_is_gone_at_once(subject: Subject) {
    let ann = subject.create_user("ann");
    let [large, other] = ["large", "other"].map(|name| subject.create_conversation(name, &[ann]));
    let first = subject.create_message(large, ann, "0");
    for number in 1..1500 {
        subject.create_message(large, ann, &number.to_string());
    }
    let kept = subject.create_message(other, ann, "kept");
    let delete = Change::DeleteConversation {
        conversation: Given::Id(large),
    };
    subject.apply(TRUSTED, delete).unwrap();
    let check = |subject: &Subject| {
        let counts = subject.counts();
        assert_eq!((counts.conversations, counts.messages), (1, 1));
        for by in [TRUSTED, Principal::User(ann)] {
            let get = subject.query(by, Query::Message(Given::Id(first)));
            assert_eq!(get, Err(Code::MessageNotFound));
            let get = subject.query(by, Query::Conversation(Given::Id(large)));
            assert_eq!(get, Err(Code::ConversationNotFound));
            let messages = subject.search(by, search(Kind::Message));
            assert_eq!(messages["total"], 1);
            assert_eq!(messages["data"][0]["message_id"], json!(kept));
            assert_eq!(subject.search(by, messages_of(large))["total"], 0);
            let sorted = Search {
                sort_by: vec![Field::Message],
                ..search(Kind::Message)
            };
            assert_eq!(subject.search(by, sorted)["total"], 1);
            let conversations = subject.search(by, search(Kind::Conversation));
            assert_eq!(conversations["total"], 1);
            assert_eq!(conversations["data"].as_array().unwrap().len(), 1);
        }
        let write = subject.try_message(TRUSTED, large, ann, "x", None);
        assert_eq!(write, Err(Code::ConversationNotFound));
    };
    check(&subject);
    check(&subject.reopened());
}

fn searches_page_sort_and_count(subject: Subject) {
    let ann = subject.create_user("ann");
    let [one, two] = ["one", "two"].map(|name| subject.create_conversation(name, &[ann]));
    let mut ids = Vec::new();
    for number in 0..30 {
        let conversation = if number % 3 == 0 { two } else { one };
        ids.push(subject.create_message(conversation, ann, &format!("{:02}", number * 7 % 30)));
    }
    let column = |page: &Value, field: &str| -> Vec<Value> {
        let rows = page["data"].as_array().unwrap();
        rows.iter().map(|row| row[field].clone()).collect()
    };
    for descending in [false, true] {
        let by_id = Search {
            from: 4,
            size: 6,
            descending,
            ..search(Kind::Message)
        };
        let page = subject.search(TRUSTED, by_id);
        let mut expected: Vec<Value> = ids.iter().map(|id| json!(id)).collect();
        if descending {
            expected.reverse();
        }
        assert_eq!(column(&page, "message_id"), expected[4..10]);
        assert_eq!(page["total"], 30);
        let by_text = Search {
            from: 4,
            size: 6,
            descending,
            sort_by: vec![Field::Message],
            ..search(Kind::Message)
        };
        let page = subject.search(TRUSTED, by_text);
        let mut expected: Vec<Value> = (0..30).map(|n| json!(format!("{n:02}"))).collect();
        if descending {
            expected.reverse();
        }
        assert_eq!(column(&page, "message"), expected[4..10]);
    }
    let mut narrow = messages_of(one);
    narrow.filter.push(Condition {
        field: Field::Message,
        tests: vec![Test::Text(Comparison::Lt, "10".to_owned())],
    });
    let page = subject.search(TRUSTED, narrow);
    assert_eq!(page["total"], column(&page, "message").len());
    assert!(
        column(&page, "message")
            .iter()
            .all(|text| text.as_str().unwrap() < "10")
    );
    assert!(
        column(&page, "conversation_id")
            .iter()
            .all(|id| *id == json!(one))
    );
}
