//! What people write that is JSON only to a person, and words that are nearly right: the refusal says what to write.

use serde_json::{Value, json};

use crate::harness::Daemon;
use crate::lines::{ask, goes_on, refused};

const PING: &str = r#"{"class":"chat","subclass":"session","cmd":"ping"}"#;

/// Lines, what the refusal says of the habit, and at which character it begins.
const MENDED: &[(&str, &str, usize)] = &[
    (
        r#"{class: "chat", subclass: "session", cmd: "ping"}"#,
        "names stand in double quotes",
        2,
    ),
    (
        r"{'class': 'chat', 'subclass': 'session', 'cmd': 'ping'}",
        "not in single quotes",
        2,
    ),
    (
        "{“class”: “chat”, “subclass”: “session”, “cmd”: “ping”}",
        "quotes are straight, not curly",
        2,
    ),
    (
        "{‘class’: ‘chat’, ‘subclass’: ‘session’, ‘cmd’: ‘ping’}",
        "quotes are straight, not curly",
        2,
    ),
    (
        r#"{"class":"chat","subclass":"session","cmd":ping}"#,
        "texts stand in double quotes",
        44,
    ),
    (
        r#"{"class":"chat","subclass":"session","cmd":"ping",}"#,
        "trailing comma too many",
        51,
    ),
    (
        r#"{"class":"chat" "subclass":"session","cmd":"ping"}"#,
        "a comma is missing",
        17,
    ),
    (
        r#"{"class":"chat","subclass":"session","cmd":"ping","data":None}"#,
        "true, false and null",
        58,
    ),
    (
        r#"{"class":"chat","subclass":"session","cmd":"ping"} // a ping"#,
        "no comments",
        52,
    ),
    (
        r#"{"class":"chat",/* a ping */"subclass":"session","cmd":"ping"}"#,
        "no comments",
        17,
    ),
    (
        "{\"class\":\u{a0}\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\"}",
        "no-break space",
        10,
    ),
    (
        "\u{feff}{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\"}",
        "byte order mark",
        1,
    ),
    (
        r#"{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\"}"#,
        "no backslash",
        2,
    ),
    (
        r#"'{"class":"chat","subclass":"session","cmd":"ping"}'"#,
        "no quotes around it",
        1,
    ),
    (
        r#"{"class"=>"chat","subclass"=>"session","cmd"=>"ping"}"#,
        "stands a colon",
        9,
    ),
    // As a person counts: characters, not bytes.
    (
        r#"{"class":"chat","subclass":"session","cmd":"ping","data":{"é‍é":"日本"},}"#,
        "trailing comma",
        71,
    ),
];

#[test]
fn a_habit_is_named_with_its_place_and_the_line_is_shown_mended() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    goes_on(&mut client);
    for (line, habit, character) in MENDED {
        let answer = refused(&mut client, line, "bad_json", "");
        let text = answer["data"]["error"].as_str().unwrap();
        assert!(text.contains(habit), "{line}: {text}");
        assert!(
            text.contains(&format!("character {character};")),
            "{line}: {text}"
        );
        assert!(
            text.contains("example shows the line mended"),
            "{line}: {text}"
        );
        let example = &answer["data"]["example"];
        let plain: Value = serde_json::from_str(PING).unwrap();
        for field in ["class", "subclass", "cmd"] {
            assert_eq!(example[field], plain[field], "{line}: {answer}");
        }
        let again = ask(&mut client, &example.to_string());
        assert_eq!(again["result"], "ok", "{example}: {again}");
    }
}

/// A request over several lines: each of its lines is refused, and each says so.
#[test]
fn a_request_over_several_lines_is_told_that_it_is_one_line() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let request = "{\n  \"class\": \"chat\",\n  \"subclass\": \"session\",\n  cmd: \"ping\",\n  \"data\": {\n    \"login\": \"a\"\n  }\n}\n";
    for line in request.lines() {
        let answer = refused(&mut client, line, "bad_json", "");
        let text = answer["data"]["error"].as_str().unwrap();
        assert!(text.contains("a request is one line"), "{line}: {text}");
        assert_eq!(answer["data"]["example"]["cmd"], "ping", "{answer}");
    }
    goes_on(&mut client);
}

#[test]
fn a_line_that_cannot_be_mended_shows_a_request_that_works() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for (line, said) in [
        ("{\"class\":\"chat\"", "missing_field"),
        (
            "{class:chat,subclass:user,cmd:craete}",
            "did you mean create?",
        ),
        (
            "{class:chat,subclass:user,cmd:get,data:{id:1}}",
            "unknown_field",
        ),
        ("{} {}", "something stands behind it"),
        ("{\"class\":NaN}", "a number is written in decimal"),
        (
            "{\"a\":\"\\ud800\"}",
            "half of a surrogate pair at character 7",
        ),
    ] {
        let answer = refused(&mut client, line, "bad_json", "");
        let text = answer["data"]["error"].as_str().unwrap();
        assert!(text.contains(said), "{line}: {text}");
        let again = ask(&mut client, &answer["data"]["example"].to_string());
        assert_eq!(again["result"], "ok", "{answer}");
    }
}

#[test]
fn a_password_in_a_line_that_is_mended_is_not_shown() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for line in [
        "{class:chat,subclass:user,cmd:create,data:{login:'a@example.org',name:A,password:'hunter2'}}",
        "{'class':'chat','subclass':'session','cmd':'login','data':{'login':'a','password':'hunter2',}}",
        "{“class”:“chat”,“subclass”:“session”,“cmd”:“login”,“data”:{“token”:“hunter2”}}",
        "{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\",\"data\":{\"a\":[{\"password\":hunter2}]}}",
    ] {
        let answer = refused(&mut client, line, "bad_json", "");
        assert!(!answer.to_string().contains("hunter2"), "{answer}");
        assert!(
            answer["data"]["example"].to_string().contains("\"…\""),
            "{answer}"
        );
    }
}

/// A word that is nearly right, and the word that was meant.
#[test]
fn an_unknown_word_is_told_the_nearest_one() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for (line, code, meant) in [
        (
            r#"{"class":"chat","sublcass":"user","cmd":"get"}"#,
            "unknown_field",
            "subclass",
        ),
        (
            r#"{"class":"chat","subclass":"users","cmd":"get"}"#,
            "unknown_subclass",
            "user",
        ),
        (
            r#"{"class":"chat","subclass":"Message","cmd":"get"}"#,
            "unknown_subclass",
            "message",
        ),
        (
            r#"{"class":"chat","subclass":"user","cmd":"craete"}"#,
            "unknown_command",
            "create",
        ),
        (
            r#"{"class":"chat","subclass":"conversation","cmd":"addMembers"}"#,
            "unknown_command",
            "add_members",
        ),
        (
            r#"{"class":"chat","subclass":"user","cmd":"get","data":{"userid":"a"}}"#,
            "unknown_field",
            "user_id",
        ),
        (
            r#"{"class":"chat","subclass":"user","cmd":"search","data":{"filter":{"surnam":"a"}}}"#,
            "unknown_field",
            "surname",
        ),
        (
            r#"{"class":"chat","subclass":"user","cmd":"search","data":{"fields":["logn"]}}"#,
            "unknown_field",
            "login",
        ),
        (
            r#"{"class":"chat","subclass":"user","cmd":"search","data":{"sort_by":"createdTime"}}"#,
            "unknown_field",
            "created_time",
        ),
        (
            r#"{"class":"chat","subclass":"user","cmd":"search","data":{"filter":{"name":{"$gte":"a"}}}}"#,
            "unknown_field",
            "gte",
        ),
        (
            r#"{"class":"chat","subclass":"user","cmd":"search","data":{"sort_order":"DESC"}}"#,
            "invalid_field",
            "\"desc\"",
        ),
        (
            r#"{"class":"chat","subclass":"user","cmd":"create","data":{"login":"a","name":"a","password":"a","role":"administrator"}}"#,
            "invalid_field",
            "\"admin\"",
        ),
        (
            r#"{"class":"chat","subclass":"event","cmd":"subscribe","data":{"obj":"a","subclass":"user"}}"#,
            "unknown_field",
            "obj_id",
        ),
        (
            r#"{"class":"chat","subclass":"server","cmd":"help","data":{"cmd":"craete"}}"#,
            "unknown_command",
            "create",
        ),
        (
            r#"{"class":"chat","subclass":"server","cmd":"help","data":{"subclass":"mesage"}}"#,
            "unknown_subclass",
            "message",
        ),
    ] {
        let answer = refused(&mut client, line, code, "");
        let text = answer["data"]["error"].as_str().unwrap();
        assert!(
            text.contains(&format!("did you mean {meant}?")),
            "{line}: {text}"
        );
    }
    // Far from everything: no guess, and still the list; a command of another subclass is told from which.
    let error = client.error("user", "promote", json!({}));
    assert!(
        !error["error"].as_str().unwrap().contains("did you mean"),
        "{error}"
    );
    let error = client.error("user", "login", json!({}));
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains("a command of session"),
        "{error}"
    );
}

#[test]
fn a_subscription_that_would_never_fire_is_refused_and_told_what_to_subscribe_to() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for (subclass, told) in [
        ("message", "created_message"),
        ("event", "conversation"),
        ("session", "user, conversation"),
        ("server", "user, conversation"),
        ("conversations", "did you mean conversation?"),
        ("weather", "user, conversation"),
    ] {
        for data in [
            json!({"subclass": subclass}),
            json!({"subscriptions": [{}, {"subclass": subclass}]}),
        ] {
            let error = client.error("event", "subscribe", data.clone());
            assert_eq!(error["code"], "invalid_field", "{data}: {error}");
            let text = error["error"].as_str().unwrap();
            assert!(text.contains(told), "{data}: {error}");
        }
    }
    let none = client.ok("event", "get_subscriptions", json!({}));
    assert_eq!(none, json!({"subscriptions": []}));
    // What cannot be known to be wrong is taken: types of one's own, and objects that nobody has.
    let any = json!({"subclass": "conversation", "type": "typing", "obj_id": "anything"});
    client.ok("event", "subscribe", any);
}

#[test]
fn a_login_in_the_place_of_an_id_is_told_how_to_find_the_id() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    client.create_user("ann@example.org");
    let conversation = client.create_conversation("lunch", &[]);
    for (subclass, cmd, data) in [
        ("user", "get", json!({"user_id": "ann@example.org"})),
        (
            "conversation",
            "add_members",
            json!({"conversation_id": conversation, "user_ids": ["ann@example.org"]}),
        ),
    ] {
        let error = client.error(subclass, cmd, data);
        assert_eq!(error["code"], "user_not_found", "{error}");
        let text = error["error"].as_str().unwrap();
        assert!(
            text.contains("login") && text.contains("user search"),
            "{error}"
        );
    }
    let error = client.error("user", "get", json!({"user_id": "zzzzzzzzzz"}));
    assert!(
        !error["error"].as_str().unwrap().contains("login"),
        "{error}"
    );
}
