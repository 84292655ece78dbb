//! What a read costs whoever may see nothing: the same, whether there is something or not (protocol.md, 7). It is
//! counted in rows that are looked for, which is what takes the time.

use super::*;
use crate::error::Code;
use crate::limits::COMPANY_MAX_CONVERSATIONS;
use crate::model::{Condition, Field, Given, Kind, Search, Test};
use crate::store::steps::Steps;

/// Somebody who is in one conversation, beside others who have much that it may not see.
struct Scene {
    steps: Steps,
    outsider: UserId,
    authors: Vec<UserId>,
    /// The others' conversation, and one that never was.
    conversations: [ConversationId; 2],
    /// A message in it, and one that never was.
    messages: [MessageId; 2],
}

fn scene() -> Scene {
    let mut steps = Steps::new();
    let outsider = steps.create_user("outsider");
    let authors: Vec<UserId> = (0..20)
        .map(|number| steps.create_user(&number.to_string()))
        .collect();
    let own = steps.create_conversation(&[outsider]);
    steps.create_message(own, outsider);
    let mut hidden = None;
    for _ in 0..50 {
        let conversation = steps.create_conversation(&authors);
        for &author in &authors {
            hidden = Some((conversation, steps.create_message(conversation, author)));
        }
    }
    let (conversation, message) = hidden.unwrap();
    let never = Id(conversation.0.0 + 1);
    Scene {
        steps,
        outsider,
        authors,
        conversations: [conversation, ConversationId(never)],
        messages: [message, MessageId(Id(message.0.0 + 1))],
    }
}

fn search(kind: Kind, field: Field, ids: Vec<Id>) -> Query {
    let mut ids = ids;
    ids.sort_unstable();
    Query::Search(Search {
        kind,
        filter: vec![Condition {
            field,
            tests: vec![Test::AnyId(ids)],
        }],
        fields: Vec::new(),
        size: 100,
        max_bytes: 100_000,
        from: 0,
        sort_by: Vec::new(),
        descending: false,
        total: true,
    })
}

impl Scene {
    /// Rows that are looked for when the outsider asks this, which finds nothing.
    fn cost(&self, query: &Query) -> u64 {
        let (answer, rows) = self.steps.counted(Principal::User(self.outsider), query);
        match answer {
            Ok(Answer::Json(page)) => assert_eq!(&page[..], br#"{"total":0,"data":[]}"#),
            Err(error) => assert!(
                matches!(
                    error.code(),
                    Code::ConversationNotFound | Code::MessageNotFound | Code::UserNotFound
                ),
                "{error}"
            ),
            other => panic!("{other:?}"),
        }
        rows
    }

    fn cost_the_same(&self, there: &Query, never_was: &Query) {
        assert_eq!(self.cost(there), self.cost(never_was), "{there:?}");
    }
}

#[test]
fn a_search_by_author_costs_an_outsider_the_same_whatever_the_authors_have_written() {
    let scene = scene();
    let search = |users: &[UserId]| {
        let ids = users.iter().map(|user| user.0).collect();
        search(Kind::Message, Field::UserId, ids)
    };
    let strangers: Vec<UserId> = (1..=20).map(|number| UserId(Id(number))).collect();
    scene.cost_the_same(&search(&scene.authors), &search(&strangers));
    let few = scene.cost(&search(&scene.authors[..1]));
    let many = scene.cost(&search(&scene.authors));
    // One look for each author in the outsider's only conversation, and no more.
    assert_eq!(many - few, 19);
}

#[test]
fn a_search_by_author_of_whoever_is_in_no_conversation_reads_nothing_of_the_authors() {
    let mut scene = scene();
    scene.outsider = scene.steps.create_user("hermit");
    let ids = scene.authors.iter().map(|user| user.0).collect();
    let rows = scene.cost(&search(Kind::Message, Field::UserId, ids));
    assert!(rows < 20, "{rows}");
}

#[test]
fn what_may_not_be_seen_costs_what_does_not_exist_costs() {
    let scene = scene();
    let [[here, never], [message, no_message]] = [
        scene.conversations.map(|id| id.0),
        scene.messages.map(|id| id.0),
    ];
    let gets = [
        scene
            .conversations
            .map(|id| Query::Conversation(Given::Id(id))),
        scene.messages.map(|id| Query::Message(Given::Id(id))),
        scene
            .conversations
            .map(|id| Query::Reachable(Given::Id(id))),
        scene.conversations.map(|id| Query::Members {
            conversation: Given::Id(id),
            from: 0,
            size: None,
        }),
        // A list of ids, and each of the ways to name a conversation.
        [
            vec![message, no_message],
            vec![no_message, Id(no_message.0 + 1)],
        ]
        .map(|ids| search(Kind::Message, Field::MessageId, ids)),
        [vec![here, never], vec![never, Id(never.0 + 1)]]
            .map(|ids| search(Kind::Conversation, Field::ConversationId, ids)),
        [here, never].map(|id| search(Kind::Message, Field::ConversationId, vec![id])),
        [[here, never], [never, Id(never.0 + 1)]]
            .map(|ids| search(Kind::Message, Field::ConversationId, ids.to_vec())),
        [scene.authors[0].0, Id(1)].map(|id| search(Kind::Conversation, Field::UserIds, vec![id])),
    ];
    for [there, never_was] in &gets {
        scene.cost_the_same(there, never_was);
    }
}

#[test]
fn a_user_that_may_not_be_seen_costs_what_one_that_does_not_exist_costs() {
    let mut scene = scene();
    scene.steps.directory = Directory::Companions;
    let other = scene.steps.create_user("companion");
    for _ in 0..30 {
        scene.steps.create_conversation(&[scene.outsider, other]);
    }
    let [there, never, never_either] = [scene.authors[0].0, Id(1), Id(2)];
    let get = |id| Query::User(Given::Id(UserId(id)));
    scene.cost_the_same(&get(there), &get(never));
    let find = |ids: &[Id]| search(Kind::User, Field::UserId, ids.to_vec());
    scene.cost_the_same(&find(&[there]), &find(&[never]));
    scene.cost_the_same(&find(&[there, never]), &find(&[never, never_either]));
    let by_login = |login: &str| {
        let mut query = search(Kind::User, Field::Login, Vec::new());
        if let Query::Search(search) = &mut query {
            search.filter[0].tests = vec![Test::AnyText(vec![login.to_owned()])];
        }
        query
    };
    scene.cost_the_same(&by_login("0"), &by_login("nobody"));
}

#[test]
fn a_search_for_companions_reads_nothing_of_other_users() {
    let mut scene = scene();
    scene.steps.directory = Directory::Companions;
    scene.outsider = scene.steps.create_user("hermit");
    for number in 0..200 {
        scene.steps.create_user(&format!("more{number}"));
    }
    let name = |name: &str| {
        let mut query = search(Kind::User, Field::Name, Vec::new());
        if let Query::Search(search) = &mut query {
            search.filter[0].tests = vec![Test::AnyText(vec![name.to_owned()])];
        }
        query
    };
    let rows = scene.cost(&name("more7"));
    assert!(rows < 20, "{rows}");
}

#[test]
fn at_once_those_in_a_users_newest_conversations_are_told_of_it() {
    let mut steps = Steps::new();
    let busy = steps.create_user("busy");
    let all: Vec<Id> = (0..COMPANY_MAX_CONVERSATIONS + 3)
        .map(|_| steps.create_conversation(&[busy]).0)
        .collect();
    let mut company = rules::company_of(&steps.state, &steps.events).unwrap();
    let mut found = company.remove(&busy.0).unwrap();
    found.reverse();
    assert_eq!(found, all[3..]);
    assert!(company.is_empty());
}
