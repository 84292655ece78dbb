//! Queries beside changes and beside each other: an answer is from one moment, its count fits its rows and its rows the
//! asker's rights; and a long search holds nobody up.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chatd::error::Code;
use chatd::model::{
    Condition, ConversationId, Field, Given, Kind, MessageId, Search, Test, UserId, Words,
};
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

/// How long a search may take below, and how many long ones run into that at the same time.
const SEARCH_TIME: Duration = Duration::from_millis(200);
const LONG_SEARCHES: usize = 6;

#[test]
fn a_long_search_ends_with_timeout_and_holds_nobody_up() {
    let subject = Subject::embedded_with(SEARCH_TIME);
    let ann = subject.create_user("ann");
    let [large, lunch] = ["large", "lunch"].map(|name| subject.create_conversation(name, &[ann]));
    // Texts whose words take their time, many more than a search gets through.
    let text = "\u{e9}\u{df}\u{fb01} ".repeat(2000);
    for _ in 0..1500 {
        subject.create_message(large, ann, &text);
    }
    let hello = subject.create_message(lunch, ann, "hello");
    let words = || Search {
        filter: vec![Condition {
            field: Field::Message,
            tests: vec![Test::Match(Box::new(Words::parse("nowhere").unwrap()))],
        }],
        ..search(Kind::Message)
    };
    let ended = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let rounds = 50;
    std::thread::scope(|scope| {
        let _over = Finally(&over);
        for _ in 0..LONG_SEARCHES {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let answer = subject.query(TRUSTED, Query::Search(words()));
                    assert_eq!(answer, Err(Code::Timeout));
                    ended.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        while ended.load(Ordering::SeqCst) < LONG_SEARCHES {
            std::thread::yield_now();
        }
        let before = ended.load(Ordering::SeqCst);
        for _ in 0..rounds {
            subject.create_message(lunch, ann, "beside");
            let newest = Search {
                descending: true,
                size: 1,
                ..messages_of(lunch)
            };
            assert_eq!(texts(&subject.search(TRUSTED, newest)), ["beside"]);
            subject
                .query(TRUSTED, Query::Message(Given::Id(hello)))
                .unwrap();
            let seq = subject.log_head().seq;
            assert_eq!(subject.events_after(seq - 1).len(), 1);
        }
        // Each of a round's four reads that waited for its turn among the long searches would see two of them end, at least.
        let meanwhile = ended.load(Ordering::SeqCst) - before;
        assert!(
            meanwhile < 6 * rounds,
            "{meanwhile} long searches ended meanwhile"
        );
    });
}
