//! Who may do what: the permission table of the protocol's section 7, cell by cell.
//!
//! What is expected stands in [`CELLS`] as data, written down from the protocol document. Every command of the daemon's
//! own table must have a row there, so that a command that nobody decided about fails this test.

mod answers;
mod identity;
mod scene;

use std::collections::BTreeSet;

use chatd::command::{Access, TABLE};
use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS};

use scene::{Actor, Scene};

/// Each row is a command, what it is done to, and what comes of it for each actor.
///
/// The objects: `itself` is the actor's user (for those who are nobody, a user that they name), `another` a user that
/// shares the conversation with it. `here` is the conversation that the actor is, was, or never was in; `elsewhere` one
/// of `another`'s that the actor was never in. `mine` and `theirs` are the messages, tokens and sessions of the two.
///
/// The outcomes: `ok`; for a search `0` or `1` for the rows found; and, for the codes of refusals, `-` for
/// `not_logged_in`, `F` for `forbidden`, `C` for `conversation_not_found`, `M` for `message_not_found`, `T` for
/// `token_not_found`, `?` for `missing_field`, `I` for `invalid_field`.
const CELLS: &str = "
command                     object        stranger outsider former member creator departed admin trusted by_token admin_by_token
user create                 plain         -        F        F      F      F       F        ok    ok      F        ok
user create                 with_role     -        F        F      F      F       F        ok    ok      F        F
user get                    itself        -        ok       ok     ok     ok      ok       ok    ok      ok       ok
user get                    another       -        ok       ok     ok     ok      ok       ok    ok      ok       ok
user update                 itself        -        ok       ok     ok     ok      ok       ok    ok      ok       ok
user update                 another       -        F        F      F      F       F        ok    ok      F        ok
user update                 my_password   -        ok       ok     ok     ok      ok       ok    ok      F        F
user update                 my_unproven   -        ?        ?      ?      ?       ?        ?     ok      F        F
user update                 my_short      -        I        I      I      I       I        I     ok      F        F
user update                 its_password  -        F        F      F      F       F        ok    ok      F        F
user update                 my_role       -        F        F      F      F       F        ok    ok      F        F
user update                 its_role      -        F        F      F      F       F        ok    ok      F        F
user delete                 itself        -        ok       ok     ok     ok      ok       ok    ok      F        F
user delete                 another       -        F        F      F      F       F        ok    ok      F        ok
user search                 itself        -        1        1      1      1       1        1     1       1        1
user search                 another       -        1        1      1      1       1        1     1       1        1
conversation create         itself        -        ok       ok     ok     ok      ok       ok    ok      ok       ok
conversation create         another       -        ok       ok     ok     ok      ok       ok    ok      ok       ok
conversation get            here          -        C        C      ok     ok      C        ok    ok      ok       ok
conversation get            elsewhere     -        C        C      C      C       C        ok    ok      C        ok
conversation update         here          -        C        C      F      ok      C        ok    ok      F        ok
conversation update         elsewhere     -        C        C      C      C       C        ok    ok      C        ok
conversation delete         here          -        C        C      F      ok      C        ok    ok      F        ok
conversation delete         elsewhere     -        C        C      C      C       C        ok    ok      C        ok
conversation add_members    itself        -        C        C      ok     ok      C        ok    ok      ok       ok
conversation add_members    a_third       -        C        C      ok     ok      C        ok    ok      ok       ok
conversation add_members    elsewhere     -        C        C      C      C       C        ok    ok      C        ok
conversation remove_members itself        -        C        C      ok     ok      C        ok    ok      ok       ok
conversation remove_members another       -        C        C      F      ok      C        ok    ok      F        ok
conversation remove_members a_third       -        C        C      F      ok      C        ok    ok      F        ok
conversation remove_members elsewhere     -        C        C      C      C       C        ok    ok      C        ok
conversation get_members    here          -        C        C      ok     ok      C        ok    ok      ok       ok
conversation get_members    elsewhere     -        C        C      C      C       C        ok    ok      C        ok
conversation search         here          -        0        0      1      1       0        1     1       1        1
conversation search         elsewhere     -        0        0      0      0       0        1     1       0        1
message create              itself        -        C        C      ok     ok      C        ok    ok      ok       ok
message create              another       -        C        C      F      F       C        ok    ok      F        ok
message create              unnamed       -        C        C      ok     ok      C        ok    ?       ok       ok
message create              elsewhere     -        C        C      C      C       C        ok    ok      C        ok
message get                 mine          -        M        M      ok     ok      M        ok    ok      ok       ok
message get                 theirs        -        M        M      ok     ok      M        ok    ok      ok       ok
message get                 elsewhere     -        M        M      M      M       M        ok    ok      M        ok
message update              mine          -        M        M      ok     ok      M        ok    ok      ok       ok
message update              theirs        -        M        M      F      F       M        ok    ok      F        ok
message update              elsewhere     -        M        M      M      M       M        ok    ok      M        ok
message delete              mine          -        M        M      ok     ok      M        ok    ok      ok       ok
message delete              theirs        -        M        M      F      ok      M        ok    ok      F        ok
message delete              elsewhere     -        M        M      M      M       M        ok    ok      M        ok
message search              mine          -        0        0      1      1       0        1     1       1        1
message search              theirs        -        0        0      1      1       0        1     1       1        1
message search              elsewhere     -        0        0      0      0       0        1     1       0        1
event subscribe             here          -        ok       ok     ok     ok      ok       ok    ok      ok       ok
event subscribe             elsewhere     -        ok       ok     ok     ok      ok       ok    ok      ok       ok
event unsubscribe           here          -        ok       ok     ok     ok      ok       ok    ok      ok       ok
event unsubscribe           elsewhere     -        ok       ok     ok     ok      ok       ok    ok      ok       ok
event get_subscriptions     any           -        ok       ok     ok     ok      ok       ok    ok      ok       ok
event send                  here          -        C        C      ok     ok      C        ok    ok      ok       ok
event send                  elsewhere     -        C        C      C      C       C        ok    ok      C        ok
session login               itself        ok       ok       ok     ok     ok      ok       ok    ok      ok       ok
session login               another       ok       ok       ok     ok     ok      ok       ok    ok      ok       ok
session login               named         F        F        F      F      F       F        F     ok      F        F
session logout              any           ok       ok       ok     ok     ok      ok       ok    ok      ok       ok
session get                 any           ok       ok       ok     ok     ok      ok       ok    ok      ok       ok
session ping                any           ok       ok       ok     ok     ok      ok       ok    ok      ok       ok
session token_create        unnamed       -        ok       ok     ok     ok      ok       ok    ?       F        F
session token_create        itself        -        ok       ok     ok     ok      ok       ok    ok      F        F
session token_create        another       -        F        F      F      F       F        ok    ok      F        F
session token_list          unnamed       -        ok       ok     ok     ok      ok       ok    ?       ok       ok
session token_list          itself        -        ok       ok     ok     ok      ok       ok    ok      ok       ok
session token_list          another       -        F        F      F      F       F        ok    ok      F        ok
session token_delete        mine          -        ok       ok     ok     ok      ok       ok    ok      F        F
session token_delete        theirs        -        T        T      T      T       T        ok    ok      F        F
session list                any           -        F        F      F      F       F        ok    ok      F        ok
session stop                mine          -        F        F      F      F       F        ok    ok      F        ok
session stop                theirs        -        F        F      F      F       F        ok    ok      F        ok
server info                 any           ok       ok       ok     ok     ok      ok       ok    ok      ok       ok
server help                 any           ok       ok       ok     ok     ok      ok       ok    ok      ok       ok
";

/// A row of [`CELLS`].
struct Row {
    subclass: &'static str,
    cmd: &'static str,
    object: &'static str,
    outcomes: Vec<&'static str>,
}

fn rows() -> Vec<Row> {
    let mut lines = CELLS.trim().lines();
    let head: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let actors = Actor::ALL.map(Actor::name);
    assert_eq!(head[2..], actors, "the columns");
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words.len(), 3 + actors.len(), "{line}");
            Row {
                subclass: words[0],
                cmd: words[1],
                object: words[2],
                outcomes: words[3..].to_vec(),
            }
        })
        .collect()
}

#[test]
fn every_command_has_its_rows_and_every_row_its_command() {
    let decided: BTreeSet<(&str, &str)> =
        rows().iter().map(|row| (row.subclass, row.cmd)).collect();
    let commands: BTreeSet<(&str, &str)> = TABLE
        .iter()
        .map(|row| (row.subclass.as_str(), row.name))
        .collect();
    assert_eq!(decided, commands);
    // Who may use a command at all must be what the cells say of those who may everywhere use it. One form of a login is
    // for trusted connections alone.
    for command in TABLE {
        let of_command: Vec<Row> = rows()
            .into_iter()
            .filter(|row| (row.subclass, row.cmd) == (command.subclass.as_str(), command.name))
            .filter(|row| (row.cmd, row.object) != ("login", "named"))
            .collect();
        let all = |actor: Actor, outcome: &str| {
            of_command
                .iter()
                .all(|row| row.outcomes[actor as usize] == outcome)
        };
        let stranger_may = all(Actor::Stranger, "ok");
        let user_never = all(Actor::Member, "F");
        let expected = match command.access {
            Access::Everyone => (true, false),
            Access::Users => (false, false),
            Access::Admins | Access::Registration => (false, true),
        };
        assert_eq!(
            (stranger_may, user_never),
            expected,
            "{} {}",
            command.subclass.as_str(),
            command.name
        );
    }
}

/// The code that stands for an outcome; none where the request succeeds.
fn code_of(outcome: &str) -> Option<&'static str> {
    match outcome {
        "ok" | "0" | "1" => None,
        "-" => Some("not_logged_in"),
        "F" => Some("forbidden"),
        "C" => Some("conversation_not_found"),
        "M" => Some("message_not_found"),
        "T" => Some("token_not_found"),
        "?" => Some("missing_field"),
        "I" => Some("invalid_field"),
        other => panic!("the outcome {other}"),
    }
}

#[test]
fn the_permission_table_holds_cell_by_cell() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let mut cells = 0;
    for row in rows() {
        for actor in Actor::ALL {
            let outcome = row.outcomes[actor as usize];
            let mut scene = Scene::new(&daemon, &mut root, actor, cells);
            let data = scene.data(row.subclass, row.cmd, row.object);
            let cell = format!(
                "{} {} {} by a {}: {data}",
                row.subclass,
                row.cmd,
                row.object,
                actor.name()
            );
            let before = newest(&mut root);
            let answer = scene.client.call(row.subclass, row.cmd, data.clone());
            match code_of(outcome) {
                Some(code) => {
                    assert_eq!(answer["data"]["code"], code, "{cell}: {answer}");
                    assert_eq!(
                        newest(&mut root),
                        before,
                        "{cell} was refused and did something"
                    );
                }
                None => assert_eq!(answer["result"], "ok", "{cell}: {answer}"),
            }
            if let Ok(found) = outcome.parse::<usize>() {
                assert_eq!(answer["data"]["total"], found, "{cell}: {answer}");
                let data = answer["data"]["data"].as_array().unwrap();
                assert_eq!(data.len(), found, "{cell}: {answer}");
            }
            cells += 1;
        }
    }
    println!("{cells} cells");
}

#[test]
fn the_session_of_a_deleted_user_does_nothing_more() {
    let daemon = Daemon::with(LOGINS);
    let mut root = daemon.client();
    let mut rows = rows();
    rows.dedup_by_key(|row| (row.subclass, row.cmd));
    for (number, row) in rows.iter().enumerate() {
        let mut scene = Scene::new(&daemon, &mut root, Actor::Creator, number);
        let data = scene.data(row.subclass, row.cmd, row.object);
        root.ok("user", "delete", json!({"user_id": scene.itself}));
        let before = newest(&mut root);
        let request =
            json!({"class": "chat", "subclass": row.subclass, "cmd": row.cmd, "data": data});
        // The connection may be gone already: then this cannot be sent, which is as well.
        let _ = std::io::Write::write_all(
            &mut scene.client.sender(),
            format!("{request}\n").as_bytes(),
        );
        scene.client.expect_session_ended();
        assert_eq!(newest(&mut root), before, "{request} did something");
        let mut again = daemon.stranger();
        for credentials in [
            json!({"token": scene.token}),
            json!({"login": scene.login, "password": "s3cret"}),
        ] {
            assert_eq!(again.code("session", "login", credentials), "login_failed");
        }
    }
}

/// The number of the newest event.
fn newest(root: &mut Client) -> Value {
    root.ok("server", "info", json!({}))["seq"].take()
}
