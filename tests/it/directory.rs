//! Whom `user get`, `user search` and events of users show to a user: `security.directory` (the protocol's section 7).

mod events;

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS};

/// An id that no user ever had.
const NEVER: &str = "01k9aaaaaaaaa";

/// Ann and Ben share a conversation; Cat is in none with either.
struct Town {
    daemon: Daemon,
    /// A trusted connection.
    root: Client,
    ann: Client,
    ann_id: String,
    ben_id: String,
    cat_id: String,
    home: String,
}

impl Town {
    fn with(security: &str) -> Self {
        let security = format!("[security]\n{security}");
        let daemon = Daemon::with(&LOGINS.replace("[security]", &security));
        let mut root = daemon.client();
        let ann_id = root.create_user("ann@example.org");
        let ben_id = root.create_user("ben@example.org");
        let cat_id = root.create_user("cat@example.org");
        let mut ann = daemon.user("ann@example.org");
        let home = ann.create_conversation("home", &[&ben_id]);
        root.create_conversation("elsewhere", &[&cat_id]);
        Self {
            daemon,
            root,
            ann,
            ann_id,
            ben_id,
            cat_id,
            home,
        }
    }

    fn of_companions() -> Self {
        Self::with("directory = \"companions\"")
    }

    /// The ids that Ann finds, in the order in which they come, and how many there are said to be.
    fn found(&mut self, data: Value) -> (Vec<String>, u64) {
        let page = self.ann.ok("user", "search", data);
        let rows = page["data"].as_array().expect("rows").iter();
        let ids = rows.map(|row| row["user_id"].as_str().expect("an id").to_owned());
        (ids.collect(), page["total"].as_u64().expect("a total"))
    }

    /// Takes Ben out of the only conversation that he shares with Ann.
    fn part(&mut self) {
        let data = json!({"conversation_id": self.home, "user_ids": [self.ben_id]});
        self.ann.ok("conversation", "remove_members", data);
    }
}

/// Asserts that a user is refused in the words in which one is refused that does not exist.
fn expect_unseen(client: &mut Client, id: &str) {
    let refused = client.error("user", "get", json!({"user_id": id}));
    let never = client.error("user", "get", json!({"user_id": NEVER}));
    assert_eq!(refused["code"], "user_not_found");
    assert_eq!(refused.to_string().replace(id, NEVER), never.to_string());
}

#[test]
fn where_everybody_is_shown_each_user_is_found_with_its_login() {
    let mut town = Town::with("directory = \"everyone\"");
    let cat = town.ann.ok("user", "get", json!({"user_id": town.cat_id}));
    assert_eq!(cat["login"], "cat@example.org");
    let everybody = vec![
        town.ann_id.clone(),
        town.ben_id.clone(),
        town.cat_id.clone(),
    ];
    assert_eq!(town.found(json!({})), (everybody.clone(), 3));
    let by_login = json!({"sort_by": "login"});
    assert_eq!(town.found(by_login), (everybody.clone(), 3));
    for filter in [
        json!({"login": "CAT@example.org"}),
        json!({"login": {"prefix": "cat"}}),
        json!({"login": {"gt": "cas"}}),
    ] {
        let found = town.found(json!({"filter": filter}));
        assert_eq!(found, (vec![town.cat_id.clone()], 1));
    }
}

#[test]
fn a_user_is_shown_itself_and_its_companions_without_their_logins() {
    let mut town = Town::of_companions();
    let own = town.ann.ok("user", "get", json!({"user_id": town.ann_id}));
    assert_eq!(own["login"], "ann@example.org");
    let ben = town.ann.ok("user", "get", json!({"user_id": town.ben_id}));
    assert_eq!(ben["name"], "ben");
    assert_eq!(ben.get("login"), None);
    expect_unseen(&mut town.ann, &town.cat_id);
}

#[test]
fn a_search_finds_companions_alone_and_counts_no_others() {
    let mut town = Town::of_companions();
    let (ann, ben) = (town.ann_id.clone(), town.ben_id.clone());
    let (both, cat) = (vec![ann.clone(), ben.clone()], town.cat_id.clone());
    for filter in [
        json!({}),
        json!({"user_id": [ann, ben, cat, NEVER]}),
        json!({"user_id": {"gt": "0"}}),
        json!({"created_time": {"gt": 0}}),
        json!({"name": {"gte": ""}}),
        json!({"role": "user"}),
    ] {
        let found = town.found(json!({"filter": filter}));
        assert_eq!(found, (both.clone(), 2), "{filter}");
        let none = town.found(json!({"filter": filter, "size": 0}));
        assert_eq!(none, (vec![], 2), "{filter}");
        let turned = json!({"filter": filter, "sort_by": "name", "sort_order": "desc"});
        let of_turned = vec![ben.clone(), ann.clone()];
        assert_eq!(town.found(turned), (of_turned, 2), "{filter}");
        let second = json!({"filter": filter, "size": 1, "from": 1, "sort_order": "desc"});
        assert_eq!(town.found(second), (vec![ann.clone()], 2), "{filter}");
    }
    for filter in [
        json!({"user_id": cat}),
        json!({"user_id": {"gte": cat}}),
        json!({"name": "cat"}),
        json!({"name": {"prefix": "cat"}}),
        json!({"name": {"match": "cat"}}),
        json!({"user_id": []}),
    ] {
        let found = town.found(json!({"filter": filter}));
        assert_eq!(found, (vec![], 0), "{filter}");
    }
    let found = town.found(json!({"filter": {"user_id": {"gt": ann}}}));
    assert_eq!(found, (vec![ben.clone()], 1));
    let found = town.found(json!({"filter": {"name": {"match": "ben"}}}));
    assert_eq!(found, (vec![ben], 1));
}

#[test]
fn a_login_is_shown_filtered_and_sorted_by_where_it_is_ones_own() {
    let mut town = Town::of_companions();
    let (ann, ben) = (town.ann_id.clone(), town.ben_id.clone());
    let rows = town.ann.ok("user", "search", json!({"fields": "_all"}));
    assert_eq!(rows["data"][0]["login"], "ann@example.org");
    assert_eq!(rows["data"][1]["name"], "ben");
    assert_eq!(rows["data"][1].get("login"), None);
    for (login, is_found) in [
        (json!("ANN@example.org"), true),
        (json!({"prefix": "a"}), true),
        (json!({"gte": "a"}), true),
        (json!(["ben@example.org", "ann@example.org"]), true),
        (json!({"lt": "a"}), false),
        (json!("ben@example.org"), false),
        (json!({"prefix": "be"}), false),
        (json!({"gte": "b"}), false),
        (json!("cat@example.org"), false),
    ] {
        let found = town.found(json!({"filter": {"login": login}}));
        let due = if is_found { vec![ann.clone()] } else { vec![] };
        let count = due.len() as u64;
        assert_eq!(found, (due, count), "{login}");
    }
    // Ben has no login that she could see, and comes last both ways.
    for order in ["asc", "desc"] {
        let found = town.found(json!({"sort_by": "login", "sort_order": order}));
        assert_eq!(found, (vec![ann.clone(), ben.clone()], 2), "{order}");
    }
}

#[test]
fn who_shares_no_conversation_any_more_is_no_companion() {
    let mut town = Town::of_companions();
    let (ann, ben) = (town.ann_id.clone(), town.ben_id.clone());
    let mut of_ben = town.daemon.user("ben@example.org");
    of_ben.ok("user", "get", json!({"user_id": ann}));
    town.part();
    expect_unseen(&mut town.ann, &ben);
    expect_unseen(&mut of_ben, &ann);
    assert_eq!(town.found(json!({})), (vec![ann.clone()], 1));
    let both = json!({"filter": {"user_id": [ann, ben]}});
    assert_eq!(town.found(both.clone()), (vec![ann.clone()], 1));
    // The same where the conversation goes.
    let again = town.ann.create_conversation("again", &[&ben]);
    assert_eq!(town.found(both.clone()).1, 2);
    let data = json!({"conversation_id": again});
    town.ann.ok("conversation", "delete", data);
    expect_unseen(&mut town.ann, &ben);
    assert_eq!(town.found(both.clone()), (vec![ann.clone()], 1));
    // And where the user goes.
    town.ann.create_conversation("once more", &[&ben]);
    assert_eq!(town.found(both.clone()).1, 2);
    town.root.ok("user", "delete", json!({"user_id": ben}));
    expect_unseen(&mut town.ann, &ben);
    assert_eq!(town.found(both), (vec![ann], 1));
}

#[test]
fn a_conversation_may_begin_with_somebody_whose_id_one_was_given() {
    let mut town = Town::of_companions();
    let cat = town.cat_id.clone();
    for (cmd, data) in [
        ("create", json!({"name": "new", "user_ids": [NEVER]})),
        (
            "add_members",
            json!({"conversation_id": town.home, "user_ids": [NEVER]}),
        ),
    ] {
        let code = town.ann.code("conversation", cmd, data);
        assert_eq!(code, "user_not_found", "{cmd}");
    }
    expect_unseen(&mut town.ann, &cat);
    town.ann.create_conversation("hello", &[&cat]);
    let shown = town.ann.ok("user", "get", json!({"user_id": cat}));
    assert_eq!(shown["name"], "cat");
    assert_eq!(shown.get("login"), None);
}

#[test]
fn admins_and_trusted_connections_see_everybody() {
    let mut town = Town::of_companions();
    let data =
        json!({"login": "eve@example.org", "name": "Eve", "password": "s3cret", "role": "admin"});
    town.root.ok("user", "create", data);
    let mut eve = town.daemon.user("eve@example.org");
    for client in [&mut town.root, &mut eve] {
        let cat = client.ok("user", "get", json!({"user_id": town.cat_id}));
        assert_eq!(cat["login"], "cat@example.org");
        assert_eq!(client.ok("user", "search", json!({}))["total"], 4);
        let by_login = json!({"filter": {"login": "cat@example.org"}});
        let found = client.ok("user", "search", by_login);
        assert_eq!(found["data"][0]["user_id"], json!(town.cat_id));
    }
}

#[test]
fn whoever_acts_as_a_user_sees_what_that_user_does() {
    let mut town = Town::of_companions();
    let token = town
        .ann
        .ok("session", "token_create", json!({"name": "bot"}));
    let mut by_token = town.daemon.stranger();
    by_token.ok("session", "login", json!({"token": token["token"]}));
    let mut on_trusted = town.daemon.client();
    on_trusted.login("ann@example.org", "s3cret");
    for client in [&mut by_token, &mut on_trusted] {
        expect_unseen(client, &town.cat_id);
        assert_eq!(client.ok("user", "search", json!({}))["total"], 2);
    }
    // Until it acts as nobody again.
    on_trusted.ok("session", "logout", json!({}));
    on_trusted.ok("user", "get", json!({"user_id": town.cat_id}));
}

#[test]
fn where_anybody_may_register_companions_alone_are_shown_unless_it_is_said() {
    for (security, seen) in [
        ("", 3),
        ("registration = \"closed\"", 3),
        ("registration = \"open\"", 2),
        ("registration = \"open\"\ndirectory = \"everyone\"", 3),
    ] {
        let mut town = Town::with(security);
        assert_eq!(town.found(json!({})).1, seen, "{security}");
    }
}
