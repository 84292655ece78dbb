//! Events of users, where a user is shown its companions alone.

use serde_json::json;

use super::Town;
use crate::harness::Client;

/// What is left of an event: its type, and whom it is about.
fn next(client: &mut Client) -> (String, String) {
    let event = client.next_event();
    assert_eq!(event["subclass"], "user", "{event}");
    assert_eq!(event.get("body"), None, "{event}");
    let text = |field: &str| event[field].as_str().expect("a text").to_owned();
    (text("type"), text("obj_id"))
}

fn rename(client: &mut Client, id: &str) {
    client.ok("user", "update", json!({"user_id": id, "name": "new"}));
}

fn updated(id: &str) -> (String, String) {
    ("updated".to_owned(), id.to_owned())
}

#[test]
fn events_of_users_reach_those_who_are_companions_when_they_are_delivered() {
    let mut town = Town::of_companions();
    let (ann, ben, cat) = (
        town.ann_id.clone(),
        town.ben_id.clone(),
        town.cat_id.clone(),
    );
    town.ann.subscribe(json!({"subclass": "user"}));
    // By object too, each in a connection of its own; one is to be told what it is told, once.
    let mut of_object = Vec::new();
    for id in [&ann, &ben, &cat] {
        let mut client = town.daemon.user("ann@example.org");
        client.subscribe(json!({"subclass": "user", "obj_id": id}));
        of_object.push(client);
    }
    for id in [&ann, &ben, &cat] {
        rename(&mut town.root, id);
    }
    town.root.create_user("dan@example.org");
    for id in [&ann, &ben] {
        assert_eq!(next(&mut town.ann), updated(id));
    }
    town.ann.no_more_events();
    town.part();
    rename(&mut town.root, &ben);
    town.ann.no_more_events();
    let meeting = town.ann.create_conversation("meeting", &[&cat]);
    rename(&mut town.root, &cat);
    assert_eq!(next(&mut town.ann), updated(&cat));
    let data = json!({"conversation_id": meeting});
    town.ann.ok("conversation", "delete", data);
    rename(&mut town.root, &cat);
    town.ann.no_more_events();
    for (client, id) in of_object.iter_mut().zip([&ann, &ben, &cat]) {
        assert_eq!(next(client), updated(id));
        client.no_more_events();
    }
}

#[test]
fn stored_events_of_users_reach_those_who_are_companions_by_then() {
    let mut town = Town::of_companions();
    let (ann, ben, cat) = (
        town.ann_id.clone(),
        town.ben_id.clone(),
        town.cat_id.clone(),
    );
    for id in [&ann, &ben, &cat] {
        rename(&mut town.root, id);
    }
    let created = |id: &str| ("created".to_owned(), id.to_owned());
    let resumed = |town: &Town, due: Vec<(String, String)>| {
        let mut client = town.daemon.user("ann@example.org");
        client.subscribe(json!({"subclass": "user", "since": 0}));
        for one in due {
            assert_eq!(next(&mut client), one);
        }
        rename(&mut client, &town.ann_id);
        assert_eq!(next(&mut client), updated(&town.ann_id));
        client.no_more_events();
    };
    let of_two = vec![created(&ann), created(&ben), updated(&ann), updated(&ben)];
    resumed(&town, of_two);
    town.part();
    let of_one = vec![created(&ann), updated(&ann), updated(&ann)];
    resumed(&town, of_one);
    town.ann.create_conversation("meeting", &[&cat]);
    let of_cat_too = vec![
        created(&ann),
        created(&cat),
        updated(&ann),
        updated(&cat),
        updated(&ann),
        updated(&ann),
    ];
    resumed(&town, of_cat_too);
}

#[test]
fn that_a_companion_was_deleted_is_told_by_the_conversations_it_leaves() {
    let mut town = Town::of_companions();
    let ben = town.ben_id.clone();
    let (begin, _) = town.ann.subscribe(json!({}));
    town.root.ok("user", "delete", json!({"user_id": ben}));
    let mut again = town.daemon.user("ann@example.org");
    again.subscribe(json!({"since": begin}));
    for client in [&mut town.ann, &mut again] {
        let event = client.next_event();
        assert_eq!(event["type"], "removed_memebers", "{event}");
        assert_eq!(event["body"]["user_ids"], json!([ben]), "{event}");
        client.no_more_events();
    }
}

#[test]
fn admins_and_trusted_connections_are_told_of_every_user() {
    let mut town = Town::of_companions();
    let data =
        json!({"login": "eve@example.org", "name": "Eve", "password": "s3cret", "role": "admin"});
    town.root.ok("user", "create", data);
    let mut eve = town.daemon.user("eve@example.org");
    let mut back_end = town.daemon.client();
    for client in [&mut eve, &mut back_end] {
        client.subscribe(json!({"subclass": "user"}));
    }
    let (begin, _) = town.root.subscribe(json!({"subclass": "user"}));
    let dan = town.root.create_user("dan@example.org");
    rename(&mut town.root, &dan);
    town.root.ok("user", "delete", json!({"user_id": dan}));
    let mut late = town.daemon.user("eve@example.org");
    late.subscribe(json!({"subclass": "user", "since": begin}));
    for client in [&mut town.root, &mut eve, &mut back_end, &mut late] {
        for kind in ["created", "updated", "deleted"] {
            assert_eq!(next(client), (kind.to_owned(), dan.clone()));
        }
        client.no_more_events();
    }
}

#[test]
fn where_everybody_is_shown_everybody_is_told_of_every_user() {
    let mut town = Town::with("directory = \"everyone\"");
    let (begin, _) = town.ann.subscribe(json!({"subclass": "user"}));
    let dan = town.root.create_user("dan@example.org");
    rename(&mut town.root, &dan);
    town.root.ok("user", "delete", json!({"user_id": dan}));
    let mut late = town.daemon.user("ann@example.org");
    late.subscribe(json!({"subclass": "user", "since": begin}));
    for client in [&mut town.ann, &mut late] {
        for kind in ["created", "updated", "deleted"] {
            assert_eq!(next(client), (kind.to_owned(), dan.clone()));
        }
        client.no_more_events();
    }
}
