//! Logins and names in which something cannot be seen (the protocol's section 4).

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS};

/// What no login has in it: white space, controls, formats, fillers, blanks.
const INVISIBLE: [char; 30] = [
    ' ',
    '\t',
    '\n',
    '\r',
    '\u{7}',
    '\u{1b}',
    '\u{7f}',
    '\u{85}',
    '\u{9b}',
    '\u{a0}',
    '\u{ad}',
    '\u{34f}',
    '\u{61c}',
    '\u{115f}',
    '\u{1680}',
    '\u{17b5}',
    '\u{180e}',
    '\u{200b}',
    '\u{200d}',
    '\u{2028}',
    '\u{202e}',
    '\u{2060}',
    '\u{2066}',
    '\u{2800}',
    '\u{3000}',
    '\u{3164}',
    '\u{fe0f}',
    '\u{feff}',
    '\u{ffa0}',
    '\u{e0041}',
];

/// Asserts that a field is refused, and gives the text that says why.
fn refused(
    client: &mut Client,
    (subclass, cmd): (&str, &str),
    data: &Value,
    field: &str,
) -> String {
    let error = client.error(subclass, cmd, data.clone());
    let told = (&error["code"], &error["field"]);
    assert_eq!(
        told,
        (&json!("invalid_field"), &json!(field)),
        "{data} was answered with {error}"
    );
    error["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_login_that_looks_like_another_one_is_refused() {
    let daemon = Daemon::with(&LOGINS.replace("[security]", "[security]\nregistration = \"open\""));
    let mut client = daemon.client();
    client.create_user("ann@example.org");
    let user = |login: &str| json!({"login": login, "name": "Ann", "password": "s3cret-s3cret"});
    for c in INVISIBLE {
        for (number, login) in [
            (16, format!("ann@example.org{c}")),
            (1, format!("{c}ann@example.org")),
            (2, format!("a{c}nn@example.org")),
            (1, c.to_string()),
        ] {
            for mut client in [daemon.client(), daemon.stranger()] {
                let text = refused(&mut client, ("user", "create"), &user(&login), "login");
                let place = format!("holds U+{:04X} as character {number},", u32::from(c));
                assert!(text.contains(&place), "{text}");
            }
        }
    }
    for login in [
        "ann+work@example.org",
        "élise",
        "हिन्दी",
        "안나",
        "김🙂",
        "ann's_x-1.0#!",
    ] {
        client.ok("user", "create", user(login));
    }
}

/// It may have been given when more was allowed: so it is tried, and looked for, like any other.
#[test]
fn a_login_that_could_not_be_given_any_more_can_be_tried() {
    let daemon = Daemon::with(LOGINS);
    let mut stranger = daemon.stranger();
    let tried = json!({"login": "ann@example.org ", "password": "s3cret"});
    assert_eq!(stranger.code("session", "login", tried), "login_failed");
    let filter = json!({"filter": {"login": "\u{200b}ann"}});
    assert_eq!(daemon.client().ok("user", "search", filter)["total"], 0);
}

#[test]
fn a_name_shows_something_and_changes_nothing_around_it() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let ann = client.create_user("ann@example.org");
    let lunch = client.create_conversation("lunch", &[&ann]);
    let of_user = |field: &str, name: &str| {
        let mut data = json!({"login": "ben", "name": "Ben", "password": "s3cret"});
        data[field] = json!(name);
        data
    };
    let mut try_everywhere = |name: &str| -> Vec<String> {
        let update = |field: &str| {
            let mut data = json!({"user_id": ann});
            data[field] = json!(name);
            data
        };
        [
            ("user", "create", of_user("name", name), "name"),
            ("user", "create", of_user("surname", name), "surname"),
            ("user", "update", update("name"), "name"),
            ("user", "update", update("surname"), "surname"),
            ("conversation", "create", json!({"name": name}), "name"),
            (
                "conversation",
                "update",
                json!({"conversation_id": lunch, "name": name}),
                "name",
            ),
            (
                "session",
                "token_create",
                json!({"name": name, "user_id": ann}),
                "name",
            ),
        ]
        .map(|(subclass, cmd, data, field)| refused(&mut client, (subclass, cmd), &data, field))
        .to_vec()
    };
    for name in [
        " ",
        "   ",
        "\u{3000}",
        "\u{200b}",
        "\u{3164}",
        "\u{2800}",
        "\u{301}",
        "\u{fe0f} \u{ad}",
    ] {
        for text in try_everywhere(name) {
            assert!(text.contains("nothing that can be seen"), "{text}");
        }
    }
    for c in "\n\t\u{7}\u{1b}\u{7f}\u{85}\u{9b}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}".chars() {
        for text in try_everywhere(&format!("An{c}n")) {
            let place = format!("holds U+{:04X} as character 3,", u32::from(c));
            assert!(text.contains(&place), "{text}");
        }
    }
    let allowed = [
        " Ann ",
        "می\u{200c}خواهم",
        "👩\u{200d}👩\u{200d}👧",
        "❤\u{fe0f}",
        "co\u{ad}op",
        "…",
        "Zoe\u{308}",
    ];
    for (number, name) in allowed.into_iter().enumerate() {
        let login = format!("ben{number}");
        let user = json!({"login": login, "name": name, "surname": "", "password": "s3cret"});
        let user = client.ok("user", "create", user)["user_id"].clone();
        assert_eq!(
            client.ok("user", "get", json!({"user_id": user}))["name"],
            name
        );
        client.create_conversation(name, &[&ann]);
    }
}

#[test]
fn an_audit_line_shows_what_was_tried_and_does_nothing_else() {
    let daemon = Daemon::with(LOGINS);
    let login = "x\u{85}\u{9b}2J\u{2028}\u{202e}\u{200b}\u{1b}[2J\r\n{\"event\":\"login\"}";
    let mut stranger = daemon.stranger();
    stranger.error(
        "session",
        "login",
        json!({"login": login, "password": "s3cret"}),
    );
    daemon.wait_for_log("login_failed");
    let log = daemon.log();
    let lines: Vec<&str> = log
        .split('\n')
        .filter(|line| line.contains("audit"))
        .collect();
    let [line] = lines[..] else {
        panic!("{log:?}");
    };
    let json = &line[line.find('{').unwrap()..];
    let written: Value = serde_json::from_str(json).unwrap();
    assert_eq!(written["login"], login, "{line}");
    let acts = |c: char| c.is_control() || "\u{2028}\u{202e}\u{200b}".contains(c);
    assert!(!json.contains(acts), "{json:?}");
}

#[test]
fn a_refused_user_create_names_its_login_in_the_audit_log() {
    let daemon = Daemon::with(&LOGINS.replace("[security]", "[security]\nregistration = \"open\""));
    let mut root = daemon.client();
    root.create_user("ann@example.org");
    let again = json!({"login": "Ann@example.org", "name": "n", "password": "a good one"});
    assert_eq!(root.code("user", "create", again.clone()), "login_taken");
    let mut stranger = daemon.stranger();
    assert_eq!(stranger.code("user", "create", again), "login_taken");
    root.ok("session", "ping", json!({}));
    daemon.wait_for_log("login_taken");
    let log = daemon.log();
    let refused: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("login_taken"))
        .collect();
    assert_eq!(refused.len(), 2, "{log}");
    for line in refused {
        assert!(line.contains(r#""login":"Ann@example.org""#), "{line}");
    }
}
