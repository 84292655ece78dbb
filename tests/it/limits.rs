//! Limits: each refuses what goes beyond it, says so, is counted, and lets the rest go on.

mod logins;
mod rates;

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, wait_until};
use crate::lines::goes_on;

/// A trusted listener, one for logins, and these limits.
fn limited(limits: &str, security: &str) -> Daemon {
    Daemon::with(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n\
         [limits]\n{limits}\n[security]\nbcrypt_cost = 4\n{security}\n"
    ))
}

/// A connection to the listener for logins from the address 127.0.N.1.
fn from(daemon: &Daemon, network: u8) -> Client {
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, network, 1));
    Client::connect_from(source, daemon.address_of("login"))
}

/// How often a limit refused, as a trusted connection is told.
fn count(trusted: &mut Client, counter: &str) -> u64 {
    let info = trusted.ok("server", "info", json!({}));
    let count = info["counters"][counter].as_u64();
    count.unwrap_or_else(|| panic!("no {counter} in {info}"))
}

/// Asserts that a connection is refused with a line that says why.
fn is_refused(mut client: Client) {
    let line = client.next_value();
    assert_eq!(line["type"], "closed", "{line}");
    assert_eq!(line["body"]["code"], "too_many_connections", "{line}");
    assert_eq!(line["body"]["retry"], true, "{line}");
    client.expect_end();
}

/// Waits until a connection that failed before is served.
fn wait_for_place(mut connect: impl FnMut() -> Client) -> Client {
    let mut served = None;
    wait_until("a place", || {
        let mut client = connect();
        let answer = client.call_or_end("session", "ping", json!({}));
        let is_served = answer.is_some_and(|answer| answer["result"] == "ok");
        served = is_served.then_some(client);
        is_served
    });
    served.expect("a client")
}

#[test]
fn connections_in_total() {
    let daemon = limited("max_connections = 2", "");
    let mut clients = [daemon.client(), from(&daemon, 1), from(&daemon, 2)];
    clients.iter_mut().for_each(goes_on);
    is_refused(from(&daemon, 3));
    is_refused(from(&daemon, 4));
    // Trusted connections have places of their own.
    goes_on(&mut daemon.client());
    let [mut trusted, second, mut third] = clients;
    assert_eq!(count(&mut trusted, "refused_max_connections"), 2);
    goes_on(&mut third);
    drop(second);
    wait_for_place(|| from(&daemon, 3));
}

#[test]
fn trusted_connections_in_total() {
    let daemon = limited("max_connections_trusted = 2", "");
    let mut clients = [daemon.client(), daemon.client()];
    clients.iter_mut().for_each(goes_on);
    is_refused(daemon.client());
    goes_on(&mut from(&daemon, 1));
    let [mut first, second] = clients;
    assert_eq!(count(&mut first, "refused_max_connections_trusted"), 1);
    drop(second);
    wait_for_place(|| daemon.client());
}

#[test]
fn connections_of_one_address() {
    let daemon = limited("max_connections_per_address = 2", "");
    let mut trusted = daemon.client();
    let mut here = [from(&daemon, 1), from(&daemon, 1)];
    here.iter_mut().for_each(goes_on);
    is_refused(from(&daemon, 1));
    goes_on(&mut from(&daemon, 2));
    // Trusted connections are not counted by address.
    let mut more: Vec<Client> = (0..5).map(|_| daemon.client()).collect();
    more.iter_mut().for_each(goes_on);
    assert_eq!(
        count(&mut trusted, "refused_max_connections_per_address"),
        1
    );
    drop(here);
    wait_for_place(|| from(&daemon, 1));
}

#[test]
fn connections_on_which_nobody_is_logged_in() {
    let daemon = limited("max_connections_not_logged_in = 2", "");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let mut strangers = [from(&daemon, 1), from(&daemon, 2)];
    strangers.iter_mut().for_each(goes_on);
    is_refused(from(&daemon, 3));
    strangers[0].login("ann", "s3cret");
    let mut third = from(&daemon, 3);
    goes_on(&mut third);
    is_refused(from(&daemon, 4));
    third.login("ann", "s3cret");
    strangers[0].ok("session", "logout", json!({}));
    is_refused(from(&daemon, 4));
    let name = "refused_max_connections_not_logged_in";
    assert_eq!(count(&mut trusted, name), 3);
    drop(strangers);
    wait_for_place(|| from(&daemon, 4));
}

/// A user's connection from the address 127.0.N.1. All of them are the same user's.
fn user_from(daemon: &Daemon, network: u8) -> Client {
    let mut client = from(daemon, network);
    client.login("ann", "s3cret");
    client
}

#[test]
fn sessions_of_one_user() {
    let daemon = limited("max_sessions_per_user = 2", "");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    trusted.create_user("bob");
    let mut first = user_from(&daemon, 1);
    let mut second = user_from(&daemon, 2);
    let mut third = from(&daemon, 3);
    let ann = json!({"login": "ann", "password": "s3cret"});
    let code = third.code("session", "login", ann.clone());
    assert_eq!(code, "too_many_connections");
    assert_eq!(count(&mut trusted, "refused_max_sessions_per_user"), 1);
    // The others and the connection go on, other users log in, and so does a trusted connection.
    goes_on(&mut second);
    third.login("bob", "s3cret");
    trusted.ok("session", "login", ann.clone());
    first.ok("session", "logout", json!({}));
    third.ok("session", "login", ann);
}

#[test]
fn subscriptions_of_one_connection() {
    let daemon = limited("max_subscriptions = 3", "");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let mut client = from(&daemon, 1);
    client.login("ann", "s3cret");
    for name in ["a", "b", "c"] {
        client.subscribe(json!({"obj_id": name}));
    }
    let code = client.code("event", "subscribe", json!({"obj_id": "d"}));
    assert_eq!(code, "too_many_subscriptions");
    client.ok("event", "unsubscribe", json!({"obj_id": "a"}));
    client.subscribe(json!({"obj_id": "d"}));
    assert_eq!(count(&mut trusted, "refused_subscriptions"), 1);
    let shown = client.ok("event", "get_subscriptions", json!({}));
    assert_eq!(shown["subscriptions"].as_array().map(Vec::len), Some(3));
}

#[test]
fn time_without_a_login() {
    let daemon = limited("", "login_seconds = 1");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    let timed_out = |mut client: Client| {
        let line = client.next_value();
        assert_eq!(line["body"]["code"], "login_timeout", "{line}");
        client.expect_end();
    };
    let mut user = from(&daemon, 1);
    user.login("ann", "s3cret");
    let mut stranger = from(&daemon, 1);
    goes_on(&mut stranger);
    timed_out(stranger);
    // The user came first, and is still there.
    goes_on(&mut user);
    user.ok("session", "logout", json!({}));
    timed_out(user);
    assert_eq!(count(&mut trusted, "login_timeouts"), 2);
}

#[test]
fn failed_logins_of_one_account_from_one_address() {
    let daemon = limited("", "failed_logins_per_minute = 3");
    let mut trusted = daemon.client();
    trusted.create_user("ann");
    trusted.create_user("ben");
    let mut client = from(&daemon, 1);
    let guess = json!({"login": "ANN", "password": "a guess"});
    for _ in 0..3 {
        assert_eq!(
            client.code("session", "login", guess.clone()),
            "login_failed"
        );
    }
    // Not even the right password gets through from here now …
    let right = json!({"login": "ann", "password": "s3cret"});
    let refused = client.error("session", "login", right);
    assert_eq!(refused["code"], "rate_limited");
    assert!(refused["retry_after_ms"].as_u64() > Some(1000), "{refused}");
    assert_eq!(count(&mut trusted, "limited_logins"), 1);
    assert_eq!(count(&mut trusted, "failed_logins"), 3);
    // … but it does from elsewhere, as another account does from here.
    from(&daemon, 2).login("ann", "s3cret");
    from(&daemon, 1).login("ben", "s3cret");
    trusted.login("ann", "s3cret");
    trusted.ok("session", "logout", json!({}));
    assert_eq!(count(&mut trusted, "logins"), 3);
}

#[test]
fn a_client_that_takes_nothing() {
    let daemon = limited("stalled_seconds = 1", "");
    let (mut trusted, mut stalled) = (daemon.client(), daemon.client());
    for _ in 0..2000 {
        stalled.request("server", "help", json!({}));
    }
    wait_until("the end of the stalled connection", || {
        count(&mut trusted, "stalled") == 1
    });
    wait_until("its place to be free", || {
        trusted.ok("server", "info", json!({}))["connections"] == 1
    });
}

#[test]
fn limits_are_shown_to_all_and_counters_to_those_who_run_the_server() {
    let daemon = limited("max_subscriptions = 17", "");
    let mut trusted = daemon.client();
    let chief = json!({"login": "chief", "name": "n", "password": "s3cret", "role": "admin"});
    trusted.ok("user", "create", chief);
    trusted.create_user("ann");
    let mut client = from(&daemon, 1);
    let mut info = |login: &str| {
        if !login.is_empty() {
            client.login(login, "s3cret");
        }
        client.ok("server", "info", json!({}))
    };
    let (stranger, user, admin) = (info(""), info("ann"), info("chief"));
    let all = trusted.ok("server", "info", json!({}));
    let names = |info: &Value| -> Vec<String> {
        info.as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(names(&stranger), ["limits", "protocol"]);
    for info in [&stranger, &user, &admin, &all] {
        assert_eq!(info["limits"]["max_subscriptions"], 17, "{info}");
        let may = info == &admin || info == &all;
        for name in [
            "counters",
            "connections",
            "users",
            "conversations",
            "messages",
        ] {
            assert_eq!(info.get(name).is_some(), may, "{name} in {info}");
        }
    }
    assert_eq!(names(&admin), names(&all));
}
