use super::*;
use crate::limits::{LEAVING_MAX_CONNECTIONS, PROXY_HEADERS_MAX_WAITING};
use crate::wire::Outbox;

fn outbox() -> Arc<Outbox> {
    let memory = Arc::new(crate::memory::Memory::new(&Limits::default()));
    Arc::new(Outbox::new(1000, 8, memory.connection(None)))
}

fn registry(limits: Limits) -> Arc<Registry> {
    Arc::new(Registry::new(limits))
}

fn remote(address: &str) -> Remote {
    Remote::Tcp(address.parse().unwrap())
}

fn account(user: u64) -> Account {
    Account {
        user_id: UserId(Id(user)),
        login: "ann".to_owned(),
        token: None,
        expires_time: None,
        remote: None,
    }
}

#[test]
fn places_are_free_again_whatever_became_of_the_connection() {
    let limits = Limits {
        max_connections: 3,
        max_connections_per_address: 2,
        max_connections_not_logged_in: 2,
        ..Limits::default()
    };
    let registry = registry(limits);
    // Who has said something gives way to nobody here.
    let admit = |address: &str| {
        let ticket = registry.admit(Access::Login, &remote(address), 1);
        ticket.inspect(Ticket::has_spoken)
    };
    let first = admit("10.0.0.1:1").unwrap();
    let second = admit("10.0.0.2:1").unwrap();
    assert_eq!(admit("10.0.0.3:1").err(), Some(Refused::NotLoggedIn));
    first.begin_session(Some(account(7)), None, 1).unwrap();
    let third = admit("10.0.0.1:2").unwrap();
    assert_eq!(admit("10.0.0.4:1").err(), Some(Refused::Total));
    drop(second);
    assert_eq!(admit("10.0.0.1:3").err(), Some(Refused::PerAddress));
    first.begin_session(None, None, 1).unwrap();
    assert_eq!(admit("10.0.0.5:1").err(), Some(Refused::NotLoggedIn));
    drop((first, third));
    let state = registry.lock();
    assert!(state.connections.is_empty() && state.places.is_empty());
    assert!(state.by_user.is_empty() && state.strangers.is_empty());
}

#[test]
fn an_ipv6_network_is_one_source() {
    let same = remote("[2001:db8:1:2::1]:1").source();
    assert_eq!(remote("[2001:db8:1:2:ffff::9]:2").source(), same);
    assert_ne!(remote("[2001:db8:1:3::1]:1").source(), same);
    let mapped = remote("[::ffff:10.0.0.1]:1").source();
    assert_eq!(mapped, remote("10.0.0.1:5").source());
}

fn sessions(registry: &Registry) -> Vec<Session> {
    let mut last = 0;
    std::iter::from_fn(|| registry.next_sessions(&mut last))
        .flatten()
        .collect()
}

#[test]
fn sessions_are_listed_in_slices_and_each_once() {
    let registry = registry(Limits::default());
    let remote = remote("127.0.0.1:1");
    let admit = |_| registry.admit(Access::Trusted, &remote, 5).unwrap();
    let mut tickets: Vec<Ticket> = (0..=2 * SLICE_SESSIONS).map(admit).collect();
    let mut last = 0;
    let first = registry.next_sessions(&mut last).unwrap();
    assert_eq!(first.len(), SLICE_SESSIONS);
    // One that was listed ends, one that was not does, and one comes.
    drop(tickets.remove(0));
    drop(tickets.remove(SLICE_SESSIONS));
    tickets.push(admit(0));
    let rest: Vec<Session> = std::iter::from_fn(|| registry.next_sessions(&mut last))
        .flatten()
        .collect();
    assert_eq!(rest.len(), SLICE_SESSIONS + 1);
    assert_eq!(sessions(&registry).len(), tickets.len());
}

#[test]
fn sessions_of_one_millisecond_have_ids_of_their_own() {
    let registry = registry(Limits::default());
    let tickets: Vec<Ticket> = (0..3)
        .map(|_| {
            registry
                .admit(Access::Trusted, &remote("127.0.0.1:1"), 5)
                .unwrap()
        })
        .collect();
    let ids: Vec<Id> = sessions(&registry)
        .iter()
        .map(|session| session.session_id)
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    assert_eq!(ids.len(), tickets.len());
}

#[test]
fn a_session_that_is_stopped_before_it_is_served_ends_when_it_is() {
    let registry = registry(Limits::default());
    let ticket = registry
        .admit(Access::Login, &remote("127.0.0.1:1"), 5)
        .unwrap();
    assert!(registry.stop(ticket.session().unwrap().session_id));
    let closer = Closer::new(outbox(), &CancellationToken::new());
    ticket.served(closer.clone());
    assert!(closer.is_closing() && closer.session().is_over(|| 0));
}

#[test]
fn a_session_that_was_ended_is_known_no_more_and_none_begins_behind_it() {
    let registry = registry(Limits::default());
    let remote = remote("127.0.0.1:1");
    let enders: [fn(&Registry, &Ticket) -> bool; 4] = [
        |registry, ticket| registry.stop(ticket.session().unwrap().session_id),
        |registry, _| {
            registry.end(Ends::All(UserId(Id(7))), 0);
            true
        },
        |registry, _| {
            registry.end(Ends::Token(TokenId(Id(8))), 0);
            true
        },
        |registry, _| registry.end_expired(100).is_none(),
    ];
    for end in enders {
        let ticket = registry.admit(Access::Trusted, &remote, 5).unwrap();
        ticket.served(Closer::new(outbox(), &CancellationToken::new()));
        let by_token = Account {
            token: Some(TokenId(Id(8))),
            expires_time: Some(100),
            ..account(7)
        };
        assert_eq!(registry.end_expired(99), None);
        let id = ticket.begin_session(Some(by_token), None, 5).unwrap();
        assert_eq!(registry.end_expired(99), Some(100));
        assert_eq!(sessions(&registry).len(), 1);
        assert!(end(&registry, &ticket));
        assert!(sessions(&registry).is_empty());
        assert!(!registry.stop(id));
        for account in [Some(account(7)), None] {
            let revived = ticket.begin_session(account, None, 6);
            assert_eq!(revived, Err(NotBegun::Ended));
        }
        drop(ticket);
        let state = registry.lock();
        assert!(state.expiring.is_empty() && state.by_user.is_empty());
    }
}

#[test]
fn a_change_of_password_ends_the_other_sessions_only() {
    let registry = registry(Limits::default());
    let open = |user| {
        let ticket = registry
            .admit(Access::Trusted, &remote("127.0.0.1:1"), 5)
            .unwrap();
        let closer = Closer::new(outbox(), &CancellationToken::new());
        ticket.served(closer.clone());
        ticket.begin_session(Some(account(user)), None, 5).unwrap();
        (ticket, closer)
    };
    let sessions = [open(1), open(1), open(2)];
    let ended = || sessions.each_ref().map(|(_, closer)| closer.is_closing());
    registry.end(Ends::Others(UserId(Id(1))), sessions[0].0.id());
    assert_eq!(ended(), [false, true, false]);
    let late = sessions[2].0.begin_session(Some(account(1)), Some(0), 6);
    assert_eq!(
        late,
        Err(NotBegun::OthersEnded),
        "its credentials may be those from before"
    );
    registry.end(Ends::All(UserId(Id(1))), sessions[2].0.id());
    assert_eq!(ended(), [true, true, false]);
    let last = sessions[2].0.session().unwrap().session_id;
    assert!(registry.stop(last) && !registry.stop(Id(99)));
    assert_eq!(ended(), [true, true, true]);
}

#[test]
fn what_a_back_end_names_is_counted_by_its_address_until_it_is_not() {
    let registry = registry(Limits {
        max_connections_per_address: 2,
        ..Limits::default()
    });
    let own = Remote::Unix { uid: None };
    let on_behalf = |address: &str| {
        Some(Account {
            remote: Remote::parse(address),
            ..account(7)
        })
    };
    let tickets: Vec<Ticket> = (0..4)
        .map(|_| registry.admit(Access::Trusted, &own, 1).unwrap())
        .collect();
    let begin = |ticket: usize, account| tickets[ticket].begin_session(account, None, 1);
    for ticket in [0, 1, 1, 0] {
        begin(ticket, on_behalf("192.0.2.7")).unwrap();
    }
    assert_eq!(tickets[0].session().unwrap().remote, "192.0.2.7");
    let here = remote("192.0.2.7:1");
    let direct = |registry: &Arc<Registry>| registry.admit(Access::Login, &here, 1);
    assert_eq!(direct(&registry).err(), Some(Refused::PerAddress));
    let refused = begin(2, on_behalf("[::ffff:192.0.2.7]:80"));
    assert_eq!(refused, Err(NotBegun::PerAddress));
    assert_eq!(tickets[2].session().unwrap().account.map(|_| ()), None);
    begin(2, on_behalf("192.0.2.8")).unwrap();
    // Whoever acts for another, or for nobody, is counted there no more.
    begin(0, on_behalf("192.0.2.8")).unwrap();
    let first = direct(&registry).unwrap();
    begin(1, None).unwrap();
    assert_eq!(tickets[1].session().unwrap().remote, "unix");
    let second = direct(&registry).unwrap();
    assert_eq!(begin(3, on_behalf("192.0.2.8")), Err(NotBegun::PerAddress));
    drop((tickets, first, second));
    assert!(registry.lock().places.is_empty());
}

#[test]
fn proxies_that_say_nothing_take_a_bounded_number_of_places() {
    let few = Arc::new(Registry::new(Limits {
        max_connections_trusted: 2,
        ..Limits::default()
    }));
    let remote = Remote::Unix { uid: None };
    let expected = few.expect(Access::Trusted).unwrap();
    let _admitted = few.admit(Access::Trusted, &remote, 1).unwrap();
    assert_eq!(few.expect(Access::Trusted).unwrap_err(), Refused::Trusted);
    assert_eq!(
        few.admit(Access::Trusted, &remote, 1).unwrap_err(),
        Refused::Trusted
    );
    drop(expected);
    let _admitted_then = few.admit(Access::Trusted, &remote, 1).unwrap();
    let many = Arc::new(Registry::new(Limits::default()));
    let waiting: Vec<Expected> = (0..PROXY_HEADERS_MAX_WAITING)
        .map(|_| many.expect(Access::Login).unwrap())
        .collect();
    assert_eq!(many.expect(Access::Login).unwrap_err(), Refused::Total);
    assert!(many.admit(Access::Login, &remote, 1).is_ok());
    drop(waiting);
    assert!(many.expect(Access::Login).is_ok());
}

#[test]
fn a_user_has_a_bounded_number_of_sessions_from_outside() {
    let registry = registry(Limits {
        max_sessions_per_user: 2,
        ..Limits::default()
    });
    let admit = |access| registry.admit(access, &remote("10.0.0.1:1"), 1).unwrap();
    let [one, two, three] = [(); 3].map(|()| admit(Access::Login));
    let trusted = admit(Access::Trusted);
    let log_in = |ticket: &Ticket, user| ticket.begin_session(Some(account(user)), None, 1);
    log_in(&trusted, 7).unwrap();
    log_in(&one, 7).unwrap();
    log_in(&two, 7).unwrap();
    // Once more on the same connection is not one more.
    log_in(&two, 7).unwrap();
    assert_eq!(log_in(&three, 7), Err(NotBegun::PerUser));
    log_in(&trusted, 7).unwrap();
    log_in(&three, 8).unwrap();
    drop(one);
    log_in(&three, 7).unwrap();
    assert_eq!(log_in(&admit(Access::Login), 7), Err(NotBegun::PerUser));
}

#[test]
fn a_stolen_token_does_not_keep_out_whoever_has_the_password() {
    let registry = registry(Limits {
        max_sessions_per_user: 2,
        ..Limits::default()
    });
    let admit = || {
        let ticket = registry.admit(Access::Login, &remote("10.0.0.1:1"), 1);
        ticket.unwrap()
    };
    let by_password = account(7);
    let by_token = Account {
        token: Some(TokenId(Id(9))),
        ..account(7)
    };
    let log_in = |ticket: &Ticket, account: &Account| {
        let begun = ticket.begin_session(Some(account.clone()), None, 1);
        begun.map(|_| ())
    };
    let is_ended = |ticket: &Ticket| registry.lock().connections[&ticket.id()].ended;
    let [one, two, three, owner] = [(); 4].map(|()| admit());
    log_in(&one, &by_token).unwrap();
    log_in(&two, &by_token).unwrap();
    assert_eq!(log_in(&three, &by_token), Err(NotBegun::PerUser));
    log_in(&owner, &by_password).unwrap();
    assert_eq!([&one, &two, &owner].map(is_ended), [true, false, false]);
    log_in(&three, &by_password).unwrap();
    assert_eq!([&two, &owner, &three].map(is_ended), [true, false, false]);
    // Passwords do not displace each other.
    assert_eq!(log_in(&admit(), &by_password), Err(NotBegun::PerUser));
}

#[test]
fn who_says_nothing_gives_its_place_to_a_newcomer() {
    let limits = Limits {
        max_connections: 3,
        max_connections_not_logged_in: 2,
        ..Limits::default()
    };
    let registry = registry(limits);
    let admit = |address: &str| registry.admit(Access::Login, &remote(address), 1);
    let first = admit("10.0.0.1:1").unwrap();
    let second = admit("10.0.0.2:1").unwrap();
    let closer = Closer::new(outbox(), &CancellationToken::new());
    first.served(closer.clone());
    let third = admit("10.0.9.1:1").unwrap();
    assert!(third.took_place() && closer.is_closing());
    // Its place is another's: nobody logs in on it any more.
    let late = first.begin_session(Some(account(7)), None, 1);
    assert_eq!(late, Err(NotBegun::Ended));
    // One whose handshake is under way is told too.
    let handshake = second.handshake();
    let fourth = admit("10.0.9.1:2").unwrap();
    assert!(handshake.displaced.is_cancelled());
    let closer = Closer::new(outbox(), &CancellationToken::new());
    second.served(closer.clone());
    assert!(closer.is_closing());
    // Where there is no place at all, it is the same.
    third.begin_session(Some(account(7)), None, 1).unwrap();
    fourth.begin_session(Some(account(7)), None, 1).unwrap();
    let fifth = admit("10.0.9.1:3").unwrap();
    drop((first, second));
    let sixth = admit("10.0.9.1:4").unwrap();
    assert!(sixth.took_place() && fifth.handshake().displaced.is_cancelled());
    sixth.begin_session(Some(account(7)), None, 1).unwrap();
    assert_eq!(admit("10.0.9.1:5").err(), Some(Refused::Total));
    drop((third, fourth, fifth, sixth));
    let state = registry.lock();
    assert!(state.places.is_empty() && state.strangers.is_empty());
}

#[test]
fn trusted_listeners_have_places_of_their_own() {
    let registry = registry(Limits {
        max_connections: 1,
        max_connections_trusted: 1,
        ..Limits::default()
    });
    let admit = |access| registry.admit(access, &remote("127.0.0.1:1"), 1);
    let login = admit(Access::Login).unwrap();
    login.begin_session(Some(account(7)), None, 1).unwrap();
    let trusted = admit(Access::Trusted).unwrap();
    assert_eq!(admit(Access::Login).err(), Some(Refused::Total));
    assert_eq!(admit(Access::Trusted).err(), Some(Refused::Trusted));
    drop(login);
    assert_eq!(admit(Access::Trusted).err(), Some(Refused::Trusted));
    drop(trusted);
    admit(Access::Trusted).unwrap();
}

#[test]
fn whoever_is_as_busy_as_the_busiest_does_not_pile_up_connections_that_are_closing() {
    let registry = registry(Limits {
        max_connections_not_logged_in: 2 * LEAVING_MAX_CONNECTIONS,
        ..Limits::default()
    });
    let admit = |network: usize, port: usize| {
        let address = format!("10.0.{network}.1:{port}");
        registry.admit(Access::Login, &remote(&address), 1)
    };
    let mut held: Vec<Ticket> = (0..3 * LEAVING_MAX_CONNECTIONS)
        .map(|number| admit(number % 2, number + 1).unwrap())
        .collect();
    assert_eq!(admit(0, 100).err(), Some(Refused::NotLoggedIn));
    // Newcomers from elsewhere have a place all the same.
    held.extend((2..6).map(|network| admit(network, 1).unwrap()));
}
