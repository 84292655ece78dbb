//! A query beside changes answers from one moment: its count fits its rows, and its rows fit the asker's rights.

use std::sync::atomic::{AtomicBool, Ordering};

use chatd::error::Code;
use chatd::model::{ConversationId, Given, Kind, MessageId, UserId};
use chatd::store::{Change, Principal, Query};
use serde_json::Value;

use super::TRUSTED;
use super::subject::{Subject, given, messages_of, search};

/// Changes that are made beside the queries.
const TURNS: usize = 400;

/// Sets a flag when it goes away, so that those who wait for it end with a failing test too.
struct Finally<'a>(&'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Makes changes on one thread while another asks, until the changes are made.
fn beside(changes: impl Fn() + Sync, ask: impl Fn() + Sync) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _over = Finally(&over);
            changes();
        });
        while !over.load(Ordering::SeqCst) {
            ask();
        }
    });
}

fn texts(page: &Value) -> Vec<&str> {
    let rows = page["data"].as_array().unwrap();
    rows.iter()
        .map(|row| row["message"].as_str().unwrap())
        .collect()
}

pub fn counts_fit_rows(subject: Subject) {
    let ann = subject.create_user("ann");
    let lunch = subject.create_conversation("lunch", &[ann]);
    let first: Vec<MessageId> = (0..20)
        .map(|number| subject.create_message(lunch, ann, &number.to_string()))
        .collect();
    let changes = || {
        let mut kept: std::collections::VecDeque<_> = first.iter().copied().collect();
        for turn in 0..TURNS {
            if turn % 2 == 0 {
                kept.push_back(subject.create_message(lunch, ann, "new"));
            } else if let Some(oldest) = kept.pop_front() {
                let delete = Change::DeleteMessage {
                    conversation: Given::Id(lunch),
                    message: Given::Id(oldest),
                };
                subject.apply(TRUSTED, delete).unwrap();
            }
        }
    };
    let ask = || {
        for by in [TRUSTED, Principal::User(ann)] {
            for asked in [messages_of(lunch), search(Kind::Message)] {
                let page = subject.search(by, asked);
                assert_eq!(page["total"], texts(&page).len());
            }
        }
    };
    beside(changes, ask);
}

fn membership(subject: &Subject, conversation: ConversationId, user: UserId, member: bool) {
    let (conversation, users) = (Given::Id(conversation), given(&[user]));
    let change = if member {
        Change::AddMembers {
            conversation,
            users,
        }
    } else {
        Change::RemoveMembers {
            conversation,
            users,
        }
    };
    subject.apply(TRUSTED, change).unwrap();
}

pub fn who_is_removed_sees_nothing_later(subject: Subject) {
    let [ann, bob] = ["ann", "bob"].map(|login| subject.create_user(login));
    let lunch = subject.create_conversation("lunch", &[ann, bob]);
    let open = subject.create_message(lunch, ann, "open");
    let update = |text: &str| {
        let update = Change::UpdateMessage {
            conversation: Given::Id(lunch),
            message: Given::Id(open),
            text: chatd::model::MessageText::new(text.to_owned(), 100).unwrap(),
        };
        subject.apply(TRUSTED, update).unwrap();
    };
    let changes = || {
        for _ in 0..TURNS / 4 {
            membership(&subject, lunch, bob, false);
            update("secret");
            let secret = subject.create_message(lunch, ann, "secret");
            update("open");
            let delete = Change::DeleteMessage {
                conversation: Given::Id(lunch),
                message: Given::Id(secret),
            };
            subject.apply(TRUSTED, delete).unwrap();
            membership(&subject, lunch, bob, true);
        }
    };
    let by = Principal::User(bob);
    let ask = || {
        match subject.query(by, Query::Message(Given::Id(open))) {
            Ok(message) => assert_eq!(message["message"], "open"),
            Err(code) => assert_eq!(code, Code::MessageNotFound),
        }
        for asked in [messages_of(lunch), search(Kind::Message)] {
            let page = subject.search(by, asked);
            assert!(texts(&page).iter().all(|&text| text == "open"), "{page}");
            assert_eq!(page["total"], texts(&page).len());
        }
    };
    beside(changes, ask);
}
