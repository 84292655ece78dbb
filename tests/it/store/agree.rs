//! The two stores side by side.

use chatd::model::{Given, Kind};
use chatd::store::{Change, Outcome, Principal, Query};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::subject::{KEEP_MS, Subject, given, new_conversation, new_message, new_user, search};
use super::{TRUSTED, everything};
use crate::crash::seed;

/// One of the newest, which is more likely to be there still.
fn recent<T: Copy>(random: &mut StdRng, made: &[T]) -> Option<T> {
    let newest = &made[made.len().saturating_sub(8)..];
    (!newest.is_empty()).then(|| newest[random.random_range(0..newest.len())])
}

/// By how much the clocks are set, in milliseconds: much longer than events are kept.
const SET_MS: u64 = 600_000;

/// The same changes on both, with the clock at the same times, must give the same answers, objects and events.
#[test]
fn the_stores_agree_on_random_changes() {
    let mut random = StdRng::seed_from_u64(seed());
    let (memory, mut embedded) = (Subject::memory(), Subject::embedded());
    let mut users = Vec::new();
    let mut conversations = Vec::new();
    let mut messages = Vec::new();
    for step in 0..2000 {
        let user = recent(&mut random, &users);
        let conversation = recent(&mut random, &conversations);
        let message = recent(&mut random, &messages);
        let roll = random.random_range(0..100);
        let nonce = random.random_bool(0.3).then(|| (roll % 5).to_string());
        let change = || -> Option<Change> {
            Some(match roll {
                0..6 => new_user(&format!("user{}", step % 50)),
                6..12 => new_conversation("c", &[user?]),
                12..14 => Change::DeleteUser {
                    user: Given::Id(user?),
                },
                14..16 => Change::DeleteConversation {
                    conversation: Given::Id(conversation?),
                },
                16..26 => Change::RemoveMembers {
                    conversation: Given::Id(conversation?),
                    users: given(&[user?]),
                },
                26..36 => Change::AddMembers {
                    conversation: Given::Id(conversation?),
                    users: given(&[user?]),
                },
                36..50 => Change::DeleteMessage {
                    conversation: Given::Id(conversation?),
                    message: Given::Id(message?),
                },
                _ => new_message(conversation?, user?, &roll.to_string(), nonce.as_deref()),
            })
        };
        if random.random_bool(0.03) {
            // The clocks are set, and something is stored by them before the embedded store may be opened again.
            let now = memory.clock.now_ms();
            let set = if random.random_bool(0.5) {
                now + SET_MS
            } else {
                now - SET_MS
            };
            memory.clock.set(set);
            embedded.clock.set(set);
            let login = format!("timekeeper{step}");
            let outcome = memory.apply(TRUSTED, new_user(&login));
            assert_eq!(embedded.apply(TRUSTED, new_user(&login)), outcome);
        }
        let (Some(here), Some(there)) = (change(), change()) else {
            continue;
        };
        let by = match user {
            Some(user) if random.random_bool(0.3) => Principal::User(user),
            _ => TRUSTED,
        };
        let outcome = memory.apply(by, here);
        assert_eq!(embedded.apply(by, there), outcome, "step {step}");
        match outcome {
            Ok(Outcome::User { user_id }) => users.push(user_id),
            Ok(Outcome::Conversation { conversation_id }) => conversations.push(conversation_id),
            Ok(Outcome::Message { message_id }) => messages.push(message_id),
            _ => {}
        }
        let pause = random.random_range(0..KEEP_MS / 50);
        memory.clock.advance(pause);
        embedded.clock.advance(pause);
        if step % 100 == 99 {
            if random.random_bool(0.3) {
                embedded = embedded.reopened();
            }
            assert_eq!(everything(&embedded), everything(&memory), "step {step}");
            for &user in &users {
                for kind in [Kind::Conversation, Kind::Message] {
                    let by = Principal::User(user);
                    // A user that was deleted may not even ask.
                    let find = |subject: &Subject| subject.query(by, Query::Search(search(kind)));
                    assert_eq!(find(&embedded), find(&memory));
                }
            }
            let (here, there) = (memory.log_head(), embedded.log_head());
            assert_eq!((there.oldest, there.seq), (here.oldest, here.seq));
            assert!(embedded.events_after(0) == memory.events_after(0));
        }
    }
    assert!(memory.counts().messages > 0, "the changes came to nothing");
}
