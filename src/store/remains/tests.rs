//! A deletion looked at between its slices: what is left of it is shown nowhere.

use crate::limits::SLICE_MAX_ROWS;
use crate::model::{
    Comparison, Condition, ConversationId, EventType, Field, Given, Kind, Search, Test, UserId,
};
use crate::store::operation::{Principal, Query};
use crate::store::steps::Steps;
use serde_json::{Value, json};

/// Conversations of the user that is deleted: several slices of them.
const CONVERSATIONS: usize = 4 * SLICE_MAX_ROWS + 5;
/// Messages of the conversation that is deleted beside it: many more slices.
const MESSAGES: usize = 40 * SLICE_MAX_ROWS;

fn search(filter: Vec<Condition>, sort_by: Vec<Field>) -> Query {
    Query::Search(Search {
        kind: Kind::Conversation,
        filter,
        fields: vec![Field::MemberCount, Field::UserIds],
        size: 1000,
        from: 0,
        sort_by,
        max_bytes: usize::MAX,
        descending: false,
        total: true,
    })
}

fn condition(field: Field, test: Test) -> Condition {
    Condition {
        field,
        tests: vec![test],
    }
}

/// Asks in every way that there is whether the ghost is still a member of anything.
fn is_nowhere(steps: &Steps, ghost: UserId, kept: UserId, conversations: &[ConversationId]) {
    for by in [Principal::Trusted, Principal::User(kept)] {
        let all = steps.query(by, &search(vec![], vec![]));
        assert_eq!(all["total"], conversations.len());
        let rows = all["data"].as_array().unwrap();
        assert_eq!(rows.len(), conversations.len());
        for row in rows {
            assert_eq!(row["user_ids"], json!([kept]));
            assert_eq!(row["member_count"], 1);
        }
        let of = |users: Vec<UserId>| {
            let ids = users.into_iter().map(|user| user.0).collect();
            search(vec![condition(Field::UserIds, Test::AnyId(ids))], vec![])
        };
        let none = json!({"total": 0, "data": []});
        assert_eq!(steps.query(by, &of(vec![ghost])), none);
        let both = steps.query(by, &of(vec![kept, ghost]));
        assert_eq!(both["total"], conversations.len());
        let two = Test::Integer(Comparison::Gte, 2);
        let crowded = search(vec![condition(Field::MemberCount, two)], vec![]);
        assert_eq!(steps.query(by, &crowded), none);
        // All have one member, so that their order is that of their ids.
        let sorted = steps.query(by, &search(vec![], vec![Field::MemberCount]));
        assert_eq!(sorted["data"], all["data"]);
        for &id in [conversations.first(), conversations.last()]
            .into_iter()
            .flatten()
        {
            let got = steps.query(by, &Query::Conversation(Given::Id(id)));
            assert_eq!(
                (&got["user_ids"], &got["member_count"]),
                (&json!([kept]), &json!(1))
            );
            let members = |from| {
                let conversation = Given::Id(id);
                let size = Some(1);
                steps.query(
                    by,
                    &Query::Members {
                        conversation,
                        from,
                        size,
                    },
                )
            };
            assert_eq!(members(0), json!({"user_ids": [kept], "total": 1}));
            assert_eq!(members(1), json!({"user_ids": [], "total": 1}));
        }
    }
    let users = Query::Search(Search {
        kind: Kind::User,
        filter: vec![],
        fields: vec![],
        size: 10,
        from: 0,
        sort_by: vec![],
        max_bytes: usize::MAX,
        descending: false,
        total: true,
    });
    let users = steps.query(Principal::Trusted, &users);
    assert_eq!(users, json!({"total": 1, "data": [{"user_id": kept}]}));
}

#[test]
fn a_deleted_user_is_nowhere_while_its_deletion_waits_behind_another() {
    let mut steps = Steps::new();
    // The ghost's id is the first in every list.
    let ghost = steps.create_user("ghost");
    let kept = steps.create_user("kept");
    let conversations: Vec<ConversationId> = (0..CONVERSATIONS)
        .map(|_| steps.create_conversation(&[ghost, kept]))
        .collect();
    let big = steps.create_conversation(&[kept]);
    for _ in 0..MESSAGES {
        steps.create_message(big, kept);
    }
    steps.delete_conversation(big);
    steps.delete_user(ghost);
    let mut rounds = 0;
    loop {
        is_nowhere(&steps, ghost, kept, &conversations);
        if rounds % 3 == 1 {
            steps.restart();
        }
        if !steps.take_slices() {
            break;
        }
        rounds += 1;
    }
    assert!(rounds >= MESSAGES / SLICE_MAX_ROWS, "{rounds}");
    let told: Vec<_> = steps
        .events
        .iter()
        .filter(|event| event.kind == EventType::RemovedMembers)
        .collect();
    let mut objects: Vec<_> = told.iter().map(|event| event.object).collect();
    objects.sort_unstable();
    let expected: Vec<_> = conversations.iter().map(|id| id.0).collect();
    assert_eq!(objects, expected, "one event for each conversation");
    for event in told {
        let line: Value = serde_json::from_slice(&event.line).unwrap();
        assert_eq!(line["body"], json!({"user_ids": [ghost]}));
    }
}

#[test]
fn a_small_deletion_does_not_wait_for_a_large_one() {
    let mut steps = Steps::new();
    let ghost = steps.create_user("ghost");
    let kept = steps.create_user("kept");
    for _ in 0..CONVERSATIONS {
        steps.create_conversation(&[ghost, kept]);
    }
    for _ in 0..2 {
        let big = steps.create_conversation(&[kept]);
        for _ in 0..MESSAGES {
            steps.create_message(big, kept);
        }
        steps.delete_conversation(big);
    }
    steps.delete_user(ghost);
    let left = |steps: &Steps| CONVERSATIONS - removed(steps);
    assert_eq!(left(&steps), CONVERSATIONS - SLICE_MAX_ROWS);
    let slices = left(&steps).div_ceil(SLICE_MAX_ROWS);
    for _ in 0..3 * slices {
        assert!(steps.take_slices());
    }
    assert_eq!(left(&steps), 0);
    // Many small ones fit in one round.
    let small: Vec<_> = (0..10)
        .map(|_| steps.create_conversation(&[kept]))
        .collect();
    for id in small {
        steps.create_message(id, kept);
        steps.delete_conversation(id);
    }
    let mut rounds = 0;
    while steps.take_slices() {
        rounds += 1;
    }
    let messages_left = 2 * (MESSAGES - slices * SLICE_MAX_ROWS);
    assert!(
        rounds <= messages_left / SLICE_MAX_ROWS + 5,
        "{rounds} rounds for {messages_left} messages"
    );
}

fn removed(steps: &Steps) -> usize {
    let events = steps.events.iter();
    events
        .filter(|event| event.kind == EventType::RemovedMembers)
        .count()
}
