use super::*;
use crate::model::{EventType, Events, Subclass};
use crate::wire::Batch;

fn subscription(subclass: &str, kind: &str, object: &str) -> Pattern {
    Pattern {
        subclass: Subclass::parse(subclass),
        types: vec![Type::new(kind)],
        object: Object::new(object),
    }
}

fn wish(added: Vec<Pattern>, viewer: Option<u64>) -> Wish {
    Wish {
        added,
        begin: Begin::Now,
        position: false,
        viewer: viewer.map(user),
    }
}

fn everything() -> Vec<Pattern> {
    vec![subscription(ANY, ANY, ANY)]
}

fn user(number: u64) -> UserId {
    UserId(Id(number))
}

fn event(seq: Seq, object: u64) -> Event {
    Event {
        seq,
        subclass: Subclass::Conversation,
        kind: EventType::Created,
        object: Id(object),
        audience: Audience::default(),
        line: Bytes::from(format!("{seq} ")),
    }
}

/// The event that lets a user into a conversation, or out of it.
fn membership(seq: Seq, object: u64, member: u64, added: bool) -> Event {
    let mut event = event(seq, object);
    if added {
        event.audience.added.push(user(member));
    } else {
        event.audience.removed.push(user(member));
    }
    event
}

fn outbox() -> Arc<Outbox> {
    Arc::new(Outbox::new(
        100_000,
        8,
        Arc::new(crate::memory::Memory::new(&crate::limits::Limits::default())).connection(None),
    ))
}

fn sight(everything: bool, conversations: &[u64]) -> Sight {
    Sight {
        everything,
        conversations: conversations.iter().copied().map(Id).collect(),
    }
}

fn show(hub: &Hub, number: u64, mut sees: Sight) {
    while hub.show_some(user(number), &mut sees) {}
}

/// A subscriber to everything that acts as a user who sees these conversations.
fn viewer(hub: &Hub, connection: ConnectionId, number: u64, sees: Sight) -> Arc<Outbox> {
    let outbox = outbox();
    assert!(hub.follow(user(number), connection));
    show(hub, number, sees);
    hub.subscribe(connection, &outbox, wish(everything(), Some(number)), 0);
    outbox
}

/// What waits, up to a mark that is put behind it.
async fn written(outbox: &Outbox) -> String {
    outbox.push(Bytes::from_static(b"."));
    match outbox.next_batch(100_000).await {
        Batch::Write(bytes) => {
            outbox.wrote(bytes.len());
            String::from_utf8_lossy(&bytes)
                .trim_end_matches('.')
                .to_owned()
        }
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn an_event_comes_once_however_many_subscriptions_match() {
    let hub = Hub::new(0, Directory::Everyone);
    let outbox = outbox();
    let object = Id(9).to_string();
    let all = vec![
        subscription(ANY, ANY, ANY),
        subscription("conversation", ANY, &object),
        subscription(ANY, "created", &object),
    ];
    hub.subscribe(1, &outbox, wish(all.clone(), None), 0);
    hub.publish(&[event(1, 9), event(2, 8)], &Company::new(), 0);
    assert_eq!(written(&outbox).await, "1 2 ");
    hub.unsubscribe(1, all[0].clone());
    hub.publish(&[event(3, 9), event(4, 8)], &Company::new(), 0);
    assert_eq!(written(&outbox).await, "3 ");
    for pattern in &all[1..] {
        hub.unsubscribe(1, pattern.clone());
    }
    assert_eq!(hub.size(1), Size::default());
    hub.leave(1);
    nothing_is_left(&hub);
}

#[test]
fn an_event_is_counted_by_those_it_is_given_to() {
    let hub = Hub::new(0, Directory::Everyone);
    for connection in 1..=3 {
        hub.subscribe(connection, &outbox(), wish(everything(), None), 0);
    }
    let object = Id(9).to_string();
    let others = vec![subscription(ANY, "deleted", &object)];
    hub.subscribe(4, &outbox(), wish(others, None), 0);
    hub.publish(&[event(1, 9), event(2, 9), event(3, 8)], &Company::new(), 0);
    let counts = [9, 8, 7].map(|object| hub.delivered(Id(object)));
    assert_eq!(counts, [3, 3, 0]);
    hub.publish(&[event(4, 7)], &Company::new(), 0);
    assert_eq!(hub.delivered(Id(9)), 0, "what was before is forgotten");
}

fn nothing_is_left(hub: &Hub) {
    let state = hub.lock();
    assert!(state.subscribers.is_empty() && state.routes.is_empty());
}

#[tokio::test]
async fn a_position_is_told_once_a_minute_while_the_log_moves_on() {
    let hub = Hub::new(7, Directory::Everyone);
    let outbox = outbox();
    let wish = Wish {
        position: true,
        ..wish(vec![subscription("user", ANY, ANY)], None)
    };
    hub.subscribe(1, &outbox, wish, 1000);
    let line = written(&outbox).await;
    assert!(line.contains(r#""type":"position","seq":7"#), "{line}");
    hub.publish(&[event(8, 9)], &Company::new(), 2000);
    hub.tell_positions(60_999);
    hub.tell_positions(61_000);
    hub.tell_positions(61_000);
    let line = written(&outbox).await;
    assert!(
        line.contains(r#""seq":8"#) && line.matches("position").count() == 1,
        "{line}"
    );
}

#[tokio::test]
async fn a_user_receives_what_its_conversations_do_and_the_event_that_ends_that() {
    let hub = Hub::new(0, Directory::Everyone);
    let member = viewer(&hub, 1, 7, sight(false, &[9]));
    let other = viewer(&hub, 2, 8, sight(false, &[]));
    hub.publish(
        &[event(1, 9), event(2, 10), membership(3, 10, 7, true)],
        &Company::new(),
        0,
    );
    hub.publish(
        &[event(4, 10), membership(5, 9, 7, false), event(6, 9)],
        &Company::new(),
        0,
    );
    assert_eq!(written(&member).await, "1 3 4 5 ");
    hub.send("typing", Id(10), &Bytes::from_static(b"here "));
    hub.send("typing", Id(9), &Bytes::from_static(b"there "));
    assert_eq!(written(&member).await, "here ");
    let mut deleted = event(7, 10);
    deleted.kind = EventType::Deleted;
    hub.publish(&[deleted, event(8, 10)], &Company::new(), 0);
    assert_eq!(written(&member).await, "7 ");
    let mut of_users = event(9, 3);
    of_users.subclass = Subclass::User;
    hub.publish(&[of_users], &Company::new(), 0);
    assert_eq!(written(&member).await, "9 ");
    assert_eq!(written(&other).await, "9 ");
    hub.leave(1);
    hub.leave(2);
    nothing_is_left(&hub);
}

#[tokio::test]
async fn naming_a_conversation_does_not_show_it() {
    let hub = Hub::new(0, Directory::Everyone);
    let outbox = outbox();
    assert!(hub.follow(user(7), 1));
    show(&hub, 7, sight(false, &[]));
    let named = vec![subscription("conversation", ANY, &Id(9).to_string())];
    hub.subscribe(1, &outbox, wish(named, Some(7)), 0);
    hub.publish(
        &[event(1, 9), membership(2, 9, 7, true), event(3, 9)],
        &Company::new(),
        0,
    );
    assert_eq!(written(&outbox).await, "2 3 ");
}

#[tokio::test]
async fn what_happens_while_a_sight_is_read_is_not_lost() {
    let hub = Hub::new(0, Directory::Everyone);
    let outbox = outbox();
    assert!(hub.follow(user(7), 1));
    hub.publish(
        &[membership(1, 9, 7, true), membership(2, 10, 7, false)],
        &Company::new(),
        0,
    );
    // Read before the two events, or between them: they are newer.
    show(&hub, 7, sight(false, &[10]));
    assert!(!hub.follow(user(7), 2), "it is known now");
    hub.subscribe(1, &outbox, wish(everything(), Some(7)), 0);
    hub.publish(&[event(3, 9), event(4, 10)], &Company::new(), 0);
    assert_eq!(written(&outbox).await, "3 ");
}

#[tokio::test]
async fn who_was_not_followed_sees_no_conversation() {
    let hub = Hub::new(0, Directory::Everyone);
    let outbox = outbox();
    hub.subscribe(1, &outbox, wish(everything(), Some(7)), 0);
    hub.publish(&[event(1, 9)], &Company::new(), 0);
    assert_eq!(written(&outbox).await, "");
}

#[tokio::test]
async fn an_admin_sees_everything_as_long_as_it_is_one() {
    let hub = Hub::new(0, Directory::Everyone);
    let outbox = viewer(&hub, 1, 7, sight(false, &[9]));
    let role = |seq, admin| {
        let mut event = membership(seq, 7, 7, admin);
        event.subclass = Subclass::User;
        event.kind = EventType::Updated;
        event
    };
    hub.publish(
        &[event(1, 10), role(2, true), event(3, 10), event(4, 9)],
        &Company::new(),
        0,
    );
    hub.publish(
        &[role(5, false), event(6, 10), event(7, 9)],
        &Company::new(),
        0,
    );
    assert_eq!(written(&outbox).await, "2 3 4 5 7 ");
}

#[tokio::test]
async fn stored_events_are_sifted_by_what_may_be_seen_now() {
    let hub = Hub::new(3, Directory::Everyone);
    let outbox = outbox();
    assert!(hub.follow(user(7), 1));
    show(&hub, 7, sight(false, &[9]));
    let wish = Wish {
        begin: Begin::After(0),
        ..wish(everything(), Some(7))
    };
    hub.subscribe(1, &outbox, wish, 0);
    let stored = [
        event(1, 10),
        membership(2, 10, 7, false),
        event(3, 9),
        // Stored, and not given out yet: whether it may be seen is not known.
        event(4, 9),
    ];
    hub.catch_up(1, 1, 1, Some(&Events::new(&stored)), (None, &[]), 0);
    assert_eq!(written(&outbox).await, "2 3 ");
    assert!(outbox.is_live());
    hub.publish(&stored[3..], &Company::new(), 0);
    assert_eq!(written(&outbox).await, "4 ");
}

#[tokio::test]
async fn a_page_of_events_that_was_read_for_the_stream_before_is_dropped() {
    let hub = Hub::new(3, Directory::Everyone);
    let outbox = outbox();
    let resume = |after| Wish {
        begin: Begin::After(after),
        ..wish(everything(), None)
    };
    hub.subscribe(1, &outbox, resume(0), 0);
    let stored = [event(1, 9), event(2, 9), event(3, 9)];
    hub.leave(1);
    hub.catch_up(1, 1, 1, Some(&Events::new(&stored)), (None, &[]), 0);
    hub.subscribe(1, &outbox, resume(2), 0);
    hub.catch_up(1, 1, 1, Some(&Events::new(&stored)), (None, &[]), 0);
    hub.catch_up(1, 3, 1, Some(&Events::new(&stored[2..])), (None, &[]), 0);
    assert_eq!(written(&outbox).await, "3 ");
}

#[tokio::test]
async fn no_event_behind_the_number_that_is_given_is_missed_while_many_objects_are_added() {
    // What the outbox takes, however late the subscriber is.
    const EVENTS: Seq = 600;
    let hub = Hub::new(0, Directory::Everyone);
    let outbox = outbox();
    let objects = |from: u64, to: u64| {
        let named = (from..to).map(|object| subscription(ANY, ANY, &Id(object).to_string()));
        wish(named.collect(), None)
    };
    let (first, second) = std::thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 1..=EVENTS {
                hub.publish(&[event(seq, 1000 + seq % 2 * 1000)], &Company::new(), 0);
            }
        });
        let (first, _) = hub.subscribe(1, &outbox, objects(1, 1001), 0);
        let (second, size) = hub.subscribe(1, &outbox, objects(1001, 2001), 0);
        assert_eq!(size.count, 2000);
        (first, second)
    });
    let got = written(&outbox).await;
    let got: Vec<Seq> = got
        .split_whitespace()
        .map(|seq| seq.parse().unwrap())
        .collect();
    assert!(got.is_sorted_by(|one, next| one < next), "{got:?}");
    let of = |rest, after| move |seq: &Seq| seq % 2 == rest && *seq > after;
    let due = |rest, after| (1..=EVENTS).filter(of(rest, after)).count();
    let came = |rest, after| got.iter().filter(|seq| of(rest, after)(seq)).count();
    assert_eq!(came(0, 0), due(0, first), "{first}");
    assert_eq!(came(1, second), due(1, second), "{second}");
    hub.leave(1);
    nothing_is_left(&hub);
}

#[tokio::test]
async fn very_many_conversations_are_taken_in_and_forgotten_in_slices() {
    let hub = Hub::new(0, Directory::Everyone);
    let many: Vec<u64> = (1..=1000).collect();
    let outbox = outbox();
    assert!(hub.follow(user(7), 1));
    let mut sees = sight(false, &many);
    assert!(hub.show_some(user(7), &mut sees));
    assert!(hub.follow(user(7), 2), "it is not known yet");
    hub.subscribe(2, &outbox, wish(everything(), Some(7)), 0);
    // One that was taken in already, and one that was not.
    let first = *many.last().unwrap();
    let meanwhile = [
        membership(1, first, 7, false),
        membership(2, 1, 7, false),
        event(3, first),
    ];
    hub.publish(&meanwhile, &Company::new(), 0);
    show(&hub, 7, sees);
    // What another connection has read meanwhile is older than what is known now.
    show(&hub, 7, sight(false, &many));
    hub.publish(
        &[event(4, first), event(5, 1), event(6, 2)],
        &Company::new(),
        0,
    );
    assert_eq!(written(&outbox).await, "1 2 6 ");
    hub.leave(1);
    hub.leave(2);
    // It comes back before what it saw is forgotten.
    let again = viewer(&hub, 3, 7, sight(false, &[3, 4]));
    hub.publish(&[event(7, 2), event(8, 3)], &Company::new(), 0);
    assert_eq!(written(&again).await, "8 ");
    hub.leave(3);
    for _ in 0..10 {
        hub.tell_positions(0);
    }
    nothing_is_left(&hub);
}
