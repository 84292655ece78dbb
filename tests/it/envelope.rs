//! Requests and refusals: the protocol's section 2, down to the byte.

use serde_json::json;

use crate::harness::Daemon;
use crate::lines::{ask, goes_on, refused};

#[test]
fn a_tid_comes_back_to_the_byte() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for tid in [
        "0",
        "-0",
        "1.50",
        "1e5",
        "1E+5",
        "-1.0e-10",
        "123456789012345678901234567890",
        "18446744073709551616",
        "0.1000000000000000000001",
        r#""""#,
        r#""a""#,
        r#""\u00e9\n""#,
        r#""é""#,
        r#""\/\\\"""#,
        r#""\ud83d\ude00""#,
        r#""tid""#,
    ] {
        client.send_line(&format!(
            r#"{{"tid":{tid},"class":"chat","subclass":"session","cmd":"ping"}}"#
        ));
        assert_eq!(
            client.read_line(),
            Some(format!(r#"{{"result":"ok","data":{{}},"tid":{tid}}}"#))
        );
        client.send_line(&format!(
            r#"{{"class":"chat","subclass":"user","cmd":"get","data":{{}},"tid":{tid}}}"#
        ));
        let error = client.read_line().unwrap();
        assert!(
            error.starts_with(r#"{"result":"error","data":{"#)
                && error.ends_with(&format!(r#","tid":{tid}}}"#)),
            "{error}"
        );
    }
}

#[test]
fn without_a_tid_the_answer_has_none() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    client.send_line(
        r#"{"class":"chat","subclass":"session","cmd":"ping","data":{"a":[1,{"b":null}]}}"#,
    );
    assert_eq!(
        client.read_line().as_deref(),
        Some(r#"{"result":"ok","data":{"a":[1,{"b":null}]}}"#)
    );
    assert_eq!(
        refused(
            &mut client,
            r#"{"class":"chat"}"#,
            "missing_field",
            "subclass"
        )
        .get("tid"),
        None
    );
}

/// Lines, the code that each is refused with, and the field where the protocol names one: in the order of the checks.
const REFUSED: &[(&str, &str, &str)] = &[
    // JSON that is no object.
    ("[]", "bad_request", ""),
    ("null", "bad_request", ""),
    ("5", "bad_request", ""),
    (r#""text""#, "bad_request", ""),
    // Repeated and unknown fields, before the tid.
    (
        r#"{"class":"chat","class":"chat","subclass":"session","cmd":"ping"}"#,
        "bad_request",
        "",
    ),
    (r#"{"cmd":"x","cmd":"y","tid":[]}"#, "bad_request", ""),
    (
        r#"{"class":"chat","subclass":"session","cmd":"ping","extra":1,"tid":5}"#,
        "unknown_field",
        "extra",
    ),
    (
        r#"{"class":"nonsense","extra":1,"tid":[]}"#,
        "unknown_field",
        "extra",
    ),
    // The tid, before the class.
    (r#"{"class":"nonsense","tid":[]}"#, "invalid_field", "tid"),
    (
        r#"{"class":"chat","subclass":"session","cmd":"ping","tid":true}"#,
        "invalid_field",
        "tid",
    ),
    (
        r#"{"class":"chat","subclass":"session","cmd":"ping","tid":{"a":1}}"#,
        "invalid_field",
        "tid",
    ),
    // The class, the subclass, the command; a wrong type is unknown.
    (
        r#"{"class":"nonsense","subclass":"nonsense","cmd":"nonsense","data":5,"tid":1}"#,
        "unknown_class",
        "",
    ),
    (
        r#"{"class":5,"subclass":"session","cmd":"ping","tid":1}"#,
        "unknown_class",
        "",
    ),
    (
        r#"{"class":"CHAT","subclass":"session","cmd":"ping","tid":1}"#,
        "unknown_class",
        "",
    ),
    (
        r#"{"class":"chat","subclass":"nonsense","cmd":"nonsense","data":5,"tid":1}"#,
        "unknown_subclass",
        "",
    ),
    (
        r#"{"class":"chat","subclass":["user"],"cmd":"get","tid":1}"#,
        "unknown_subclass",
        "",
    ),
    (
        r#"{"class":"chat","subclass":"user","cmd":"nonsense","data":5,"tid":1}"#,
        "unknown_command",
        "",
    ),
    (
        r#"{"class":"chat","subclass":"user","cmd":{},"data":5,"tid":1}"#,
        "unknown_command",
        "",
    ),
    (
        r#"{"class":"chat","subclass":"user","cmd":"ping","tid":1}"#,
        "unknown_command",
        "",
    ),
    // The data: unknown, missing, wrong fields, then what they name.
    (
        r#"{"class":"chat","subclass":"user","cmd":"get","data":5,"tid":1}"#,
        "invalid_field",
        "data",
    ),
    (
        r#"{"class":"chat","subclass":"user","cmd":"get","data":[],"tid":1}"#,
        "invalid_field",
        "data",
    ),
    (
        r#"{"class":"chat","subclass":"user","cmd":"get","data":{"user_id":"a","user_id":"a"},"tid":1}"#,
        "bad_request",
        "",
    ),
    (
        r#"{"class":"chat","subclass":"user","cmd":"create","data":{"login":5,"extra":1},"tid":1}"#,
        "unknown_field",
        "extra",
    ),
    (
        r#"{"class":"chat","subclass":"user","cmd":"create","data":{"login":5,"name":"a"},"tid":1}"#,
        "missing_field",
        "password",
    ),
    (
        r#"{"class":"chat","subclass":"user","cmd":"get","tid":1}"#,
        "missing_field",
        "user_id",
    ),
    (
        r#"{"class":"chat","subclass":"message","cmd":"create","data":{"conversation_id":"no","user_id":"no","message":""},"tid":1}"#,
        "invalid_field",
        "message",
    ),
    (
        r#"{"class":"chat","subclass":"user","cmd":"get","data":{"user_id":"no"},"tid":1}"#,
        "user_not_found",
        "user_id",
    ),
];

#[test]
fn the_envelope_is_checked_in_the_order_that_the_protocol_gives() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    goes_on(&mut client);
    for (line, code, field) in REFUSED {
        let answer = refused(&mut client, line, code, field);
        let expected_tid = if line.ends_with(r#""tid":1}"#) {
            Some(&json!(1))
        } else {
            answer.get("tid").filter(|tid| **tid == 5)
        };
        assert_eq!(
            answer.get("tid"),
            expected_tid,
            "{line} was answered with {answer}"
        );
    }
    goes_on(&mut client);
}

#[test]
fn a_missing_part_of_the_envelope_is_refused() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    // Whether what is missing is unknown, too, is left open.
    for (line, unknown) in [
        (
            r#"{"subclass":"session","cmd":"ping","tid":1}"#,
            "unknown_class",
        ),
        (
            r#"{"class":"chat","cmd":"ping","tid":1}"#,
            "unknown_subclass",
        ),
        (
            r#"{"class":"chat","subclass":"session","tid":1}"#,
            "unknown_command",
        ),
        ("{}", "unknown_class"),
    ] {
        let answer = ask(&mut client, line);
        let code = &answer["data"]["code"];
        assert!(
            code == "missing_field" || code == unknown,
            "{line} was answered with {answer}"
        );
    }
}

#[test]
fn an_unknown_command_is_told_what_there_is() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    for (subclass, commands) in [
        ("user", &["create", "get", "delete", "search", "update"][..]),
        (
            "conversation",
            &["add_members", "remove_members", "get_members"],
        ),
        (
            "event",
            &["subscribe", "unsubscribe", "get_subscriptions", "send"],
        ),
        ("session", &["get", "ping"]),
        ("server", &["info", "help"]),
    ] {
        let error = client.error(subclass, "nonsense", json!({}));
        let text = error["error"].as_str().unwrap();
        assert!(
            commands.iter().all(|command| text.contains(command)),
            "{error}"
        );
    }
}

#[test]
fn hostile_json_never_kills_the_daemon() {
    // Big lines are let through here, so that the parser sees them.
    let daemon = Daemon::with("[limits]\nmax_line_bytes = 1048576\n");
    let mut client = daemon.client();
    goes_on(&mut client);
    let nested =
        |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let ping = |data: &str| {
        format!(r#"{{"class":"chat","subclass":"session","cmd":"ping","data":{data},"tid":1}}"#)
    };
    let search = |data: &str| {
        format!(r#"{{"class":"chat","subclass":"user","cmd":"search","data":{data},"tid":1}}"#)
    };
    let lines = [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        nested("[", "]"),
        nested("{\"a\":", "}"),
        ping(&nested("[", "]")),
        ping(&format!("{{\"a\":{}}}", nested("[", "]"))),
        search(&format!("{{\"filter\":{{\"name\":{}}}}}", nested("[", "]"))),
        search(&format!("{{\"filter\":{}}}", nested("{\"name\":", "}"))),
        format!("{{\"nonsense\":{}}}", nested("[", "]")),
        format!("{{\"tid\":{}}}", nested("[", "]")),
        format!("{{\"tid\":{}}}", "9".repeat(500_000)),
        ping("{\"a\":1e999}"),
        ping(&format!("{{\"a\":1e{}}}", "9".repeat(1000))),
        ping(&format!("{{\"a\":0.{}1}}", "0".repeat(100_000))),
        ping("{\"a\":1,\"a\":2}"),
        ping("{\"a\":NaN}"),
        ping("{\"a\":\"\\u0000\"}"),
        ping("{\"a\":\"\\ud800\"}"),
        ping("{\"\\ud800\":1}"),
        ping("{\"a\":\"\\ud800\\ud800\"}"),
        search("{\"size\":1e400}"),
        search("{\"size\":99999999999999999999999999}"),
        search("{\"from\":18446744073709551615,\"size\":1000}"),
        search("{\"filter\":{\"created_time\":{\"gt\":-9223372036854775809}}}"),
        search("{\"filter\":{\"name\":{\"match\":\"\\u0301\"}}}"),
        "{\"tid\":\"\\ud800\"}".to_owned(),
        "{\"class\":\"\\u0000\"}".to_owned(),
        "\u{feff}{}".to_owned(),
        "\0".to_owned(),
    ];
    for line in &lines {
        client.send_line(line);
        // Not parsed: what was nested deeply may come back nested deeply.
        let answer = client
            .read_line()
            .unwrap_or_else(|| panic!("{line:.100} closed the connection"));
        assert!(
            answer.starts_with("{\"result\":"),
            "{line:.100} was answered with {answer:.1000}"
        );
        goes_on(&mut client);
    }
    assert_eq!(
        client.code("user", "get", json!({"user_id": "a\0b"})),
        "invalid_field"
    );
    assert_eq!(
        client.code(
            "user",
            "create",
            json!({"login": "a\0b", "name": "n", "password": "p"})
        ),
        "invalid_field"
    );
}
