//! Values as clients' languages write them: the protocol's section 2, and what is passed on as it was written.

use serde_json::{Value, json};

use crate::harness::{Client, Daemon};
use crate::lines::{ask, goes_on, refused};

/// The most levels of objects and lists within each other in one line.
const MAX_DEPTH: usize = 127;

/// A request as a line, its data written as given.
fn line(subclass: &str, cmd: &str, data: &str) -> String {
    format!(r#"{{"class":"chat","subclass":"{subclass}","cmd":"{cmd}","data":{data},"tid":1}}"#)
}

/// A conversation with one member and five messages, and its connection.
struct Scene {
    daemon: Daemon,
    client: Client,
    user: String,
    conversation: String,
}

impl Scene {
    fn new() -> Self {
        let daemon = Daemon::start();
        let mut client = daemon.client();
        let user = client.create_user("ann@example.org");
        let conversation = client.create_conversation("talk", &[&user]);
        for number in 0..5 {
            client.send_message(&conversation, &user, &format!("message {number}"));
        }
        Self {
            daemon,
            client,
            user,
            conversation,
        }
    }
}

#[test]
fn whole_numbers_written_as_floats_are_whole_numbers_in_every_field() {
    let mut scene = Scene::new();
    let (user, conversation) = (scene.user.clone(), scene.conversation.clone());
    let get_members = format!(r#"{{"conversation_id":"{conversation}","size":N}}"#);
    let members_from = format!(r#"{{"conversation_id":"{conversation}","from":N}}"#);
    let token = format!(r#"{{"name":"t","user_id":"{user}","expires_time":9N}}"#);
    // The field's number is 2 in each of its spellings; expires_time has to lie ahead.
    let places = [
        ("message", "search", r#"{"size":N}"#),
        ("message", "search", r#"{"from":N}"#),
        (
            "message",
            "search",
            r#"{"filter":{"created_time":{"gt":N}}}"#,
        ),
        ("message", "search", r#"{"filter":{"created_time":N}}"#),
        ("message", "search", r#"{"filter":{"created_time":[N,1]}}"#),
        ("conversation", "search", r#"{"filter":{"member_count":N}}"#),
        (
            "conversation",
            "search",
            r#"{"filter":{"member_count":{"lte":N}}}"#,
        ),
        ("conversation", "get_members", get_members.as_str()),
        ("conversation", "get_members", members_from.as_str()),
    ];
    for (subclass, cmd, data) in places {
        let plain = ask(
            &mut scene.client,
            &line(subclass, cmd, &data.replace('N', "2")),
        );
        assert_eq!(plain["result"], "ok", "{data}: {plain}");
        for spelled in ["2.0", "2e0", "20e-1", "0.2E+1", "2.000"] {
            let request = line(subclass, cmd, &data.replace('N', spelled));
            assert_eq!(ask(&mut scene.client, &request), plain, "{request}");
        }
        for wrong in ["2.5", "\"2\"", "1e400", "2e-1", "true", "null"] {
            let request = line(subclass, cmd, &data.replace('N', wrong));
            refused(&mut scene.client, &request, "invalid_field", "");
        }
        let zero = ask(
            &mut scene.client,
            &line(subclass, cmd, &data.replace('N', "0")),
        );
        let minus = ask(
            &mut scene.client,
            &line(subclass, cmd, &data.replace('N', "-0")),
        );
        assert_eq!(minus, zero, "{data}");
    }
    for place in [r#"{"size":-1}"#, r#"{"from":-1.0}"#, r#"{"size":1001.0}"#] {
        let request = line("message", "search", place);
        refused(&mut scene.client, &request, "invalid_field", "");
    }
    let request = line("session", "token_create", &token.replace("9N", "1.9e15"));
    assert_eq!(ask(&mut scene.client, &request)["result"], "ok");
    let tokens = scene
        .client
        .ok("session", "token_list", json!({"user_id": user}));
    assert_eq!(
        tokens["tokens"][0]["expires_time"],
        1_900_000_000_000_000_u64
    );
    // Beyond 2^53, where a float of the machine would be another number.
    let request = line(
        "session",
        "token_create",
        &token.replace("9N", "9007199254740993.0"),
    );
    assert_eq!(ask(&mut scene.client, &request)["result"], "ok");
    let tokens = scene
        .client
        .ok("session", "token_list", json!({"user_id": user}));
    assert_eq!(
        tokens["tokens"][1]["expires_time"],
        9_007_199_254_740_993_u64
    );
    let mut subscriber = scene.daemon.client();
    let answer = ask(
        &mut subscriber,
        &line("event", "subscribe", r#"{"since":2.0}"#),
    );
    assert_eq!(answer["result"], "ok", "{answer}");
    assert_eq!(subscriber.next_event()["seq"], 3);
}

#[test]
fn null_for_data_and_tid_is_absence() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for data in [r#""data":null,"#, ""] {
        client.send_line(&format!(
            r#"{{"class":"chat","subclass":"session","cmd":"ping",{data}"tid":null}}"#
        ));
        assert_eq!(
            client.read_line().as_deref(),
            Some(r#"{"result":"ok","data":{}}"#)
        );
    }
    let request = r#"{"class":"chat","subclass":"user","cmd":"get","data":null,"tid":null}"#;
    let answer = refused(&mut client, request, "missing_field", "user_id");
    assert_eq!(answer.get("tid"), None, "{answer}");
}

#[test]
fn what_is_passed_on_is_passed_on_as_written() {
    let mut scene = Scene::new();
    scene.client.subscribe(json!({"subclass": "conversation"}));
    let conversation = scene.conversation.clone();
    for body in [
        r#"{"$serde_json::private::RawValue":1}"#,
        r#"{"a":{"$serde_json::private::RawValue":"{\"x\":1}"}}"#,
        r#"{"$serde_json::private::Number":"1"}"#,
        r#"{"v":1e400}"#,
        r#"{"v":-0}"#,
        r#"{"v":1.000000000000000000000000001}"#,
        r#"{"v":123456789012345678901234567890}"#,
        r#"{"v":1E+2}"#,
        r#"{ "v" : [ 1 , 2 ] }"#,
        r#"{"v":{"a":1,"a":2}}"#,
        r#"{"v":"\u00e9\/\ud83d\ude00\u0000"}"#,
        r#"{"":{"__proto__":null}}"#,
    ] {
        scene.client.send_line(&line("session", "ping", body));
        let expected = format!(r#"{{"result":"ok","data":{body},"tid":1}}"#);
        assert_eq!(scene.client.read_line(), Some(expected));
        let data = format!(r#"{{"type":"typing","obj_id":"{conversation}","body":{body}}}"#);
        scene.client.send_line(&line("event", "send", &data));
        assert_eq!(
            scene.client.read_line().as_deref(),
            Some(r#"{"result":"ok","data":{},"tid":1}"#)
        );
        let event = scene.client.read_line().unwrap();
        assert!(event.contains(&format!(r#""body":{body},"#)), "{event}");
    }
    for tid in ["1e400", "-0", "1.50"] {
        scene.client.send_line(&format!(
            r#"{{"class":"chat","subclass":"session","cmd":"ping","tid":{tid}}}"#
        ));
        let expected = format!(r#"{{"result":"ok","data":{{}},"tid":{tid}}}"#);
        assert_eq!(scene.client.read_line(), Some(expected));
    }
}

#[test]
fn nesting_has_one_limit_wherever_it_stands_in_a_line() {
    let mut scene = Scene::new();
    let conversation = scene.conversation.clone();
    // Places, and how many levels of the line are around what stands there.
    let body = format!(r#"{{"type":"typing","obj_id":"{conversation}","body":{{"a":N}}}}"#);
    let subscriptions = line("event", "subscribe", r#"{"subscriptions":[{"obj_id":N}]}"#);
    let places = [
        (line("session", "ping", r#"{"a":N}"#), 2, "ok"),
        (line("event", "send", &body), 3, "ok"),
        (line("user", "get", r#"{"user_id":N}"#), 2, "invalid_field"),
        (
            line("user", "search", r#"{"filter":{"name":N}}"#),
            3,
            "invalid_field",
        ),
        (line("user", "get", r#"{"nonsense":N}"#), 2, "unknown_field"),
        (subscriptions, 4, "invalid_field"),
        (r#"{"nonsense":N}"#.to_owned(), 1, "unknown_field"),
        (r#"{"tid":N}"#.to_owned(), 1, "invalid_field"),
        (r#"{"class":N}"#.to_owned(), 1, "unknown_class"),
        ("N".to_owned(), 0, "bad_request"),
    ];
    for (place, around, code) in places {
        goes_on(&mut scene.client);
        let nested = |levels: usize| {
            let inside = "[".repeat(levels - around) + &"]".repeat(levels - around);
            place.replace('N', &inside)
        };
        let answer = ask(&mut scene.client, &nested(MAX_DEPTH));
        let found = answer["data"].get("code").unwrap_or(&answer["result"]);
        // A list of lists is no list of names, whatever the depth.
        assert_eq!(found, code, "{place}: {answer}");
        let answer = refused(&mut scene.client, &nested(MAX_DEPTH + 1), "bad_json", "");
        let text = answer["data"]["error"].as_str().unwrap();
        assert!(
            text.contains("nested deeper than 127 levels at character"),
            "{text}"
        );
    }
}

#[test]
fn half_a_surrogate_pair_is_refused_wherever_it_stands() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for request in [
        line("session", "ping", r#"{"a":"\ud800"}"#),
        line("session", "ping", r#"{"\udc00":1}"#),
        line(
            "event",
            "send",
            r#"{"type":"t","obj_id":"c","body":{"a":["\ud800\ud800"]}}"#,
        ),
        line("user", "get", r#"{"user_id":"\ud800"}"#),
        r#"{"tid":"\ud800"}"#.to_owned(),
        r#"{"nonsense":"\ud800x"}"#.to_owned(),
    ] {
        let answer = refused(&mut client, &request, "bad_json", "");
        assert_eq!(answer.get("tid"), None, "{answer}");
    }
    let pair = line("session", "ping", r#"{"a":"\ud83d\ude00\\ud800"}"#);
    assert_eq!(ask(&mut client, &pair)["result"], "ok");
}

#[test]
fn a_repeated_name_is_refused_in_every_object_that_is_read() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for request in [
        line("user", "search", r#"{"filter":{"name":"a","name":"b"}}"#),
        line(
            "user",
            "search",
            r#"{"filter":{"name":{"gt":"a","gt":"b"}}}"#,
        ),
        line("user", "search", r#"{"size":1,"\u0073ize":2}"#),
        line(
            "event",
            "subscribe",
            r#"{"subscriptions":[{"type":"a","\u0074ype":"b"}]}"#,
        ),
        r#"{"tid":1,"\u0074id":2}"#.to_owned(),
    ] {
        refused(&mut client, &request, "bad_request", "");
    }
}

/// What is in `example` is an object that is sent as it stands, never a string of JSON.
#[test]
fn every_example_that_help_shows_can_be_sent_as_it_stands() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let help = client.ok("server", "help", json!({}));
    let commands = help["commands"].as_array().unwrap();
    assert!(commands.len() > 30, "{help}");
    for command in commands {
        let example = &command["example"];
        assert_eq!(example["class"], "chat", "{command}");
        let mut other = daemon.client();
        let answer = ask(&mut other, &example.to_string());
        let code = answer["data"]
            .get("code")
            .and_then(Value::as_str)
            .unwrap_or("ok");
        // The ids in it are made up, and nobody is logged in by then.
        let accepted = ["ok", "login_failed", "login_taken"];
        assert!(
            accepted.contains(&code) || code.ends_with("_not_found"),
            "{example} was answered with {answer}"
        );
    }
}
