//! Users that log in and ask, each with a connection that is given every event that it may see, and one that resumed.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::harness::{Client, Daemon};
use crate::model::{Kind, Model, Subscription};

/// So many users are logged in.
const PEOPLE: usize = 4;

/// A connection of a user that is subscribed.
struct Listener {
    client: Client,
    subscriptions: Vec<Subscription>,
}

/// One user that is logged in.
pub struct Person {
    /// Its id.
    pub id: String,
    /// Asks.
    pub client: Client,
    listeners: Vec<Listener>,
}

/// Those who are logged in.
#[derive(Default)]
pub struct People(pub Vec<Person>);

impl Listener {
    /// Reads what has just happened, as far as it is for this user to see.
    fn hear(&mut self, user: &str, model: &Model, since: u64) {
        let due = model.events_after(Some(user), since, &self.subscriptions);
        self.read(user, due);
    }

    fn read(&mut self, user: &str, due: Vec<Value>) {
        for expected in due {
            let event = self.client.next_event();
            assert_eq!(
                event, expected,
                "{user}, subscribed to {:?}: the left came where the right was due",
                self.subscriptions
            );
        }
    }
}

impl Person {
    fn log_in(daemon: &Daemon, model: &Model, id: &str) -> Client {
        let user = model.object(Kind::User, id).expect("a user to log in");
        let mut client = daemon.stranger();
        client.login(user["login"].as_str().unwrap(), model.password(id));
        client
    }

    fn enter(daemon: &Daemon, model: &Model, id: &str) -> Self {
        let mut watcher = Self::log_in(daemon, model, id);
        watcher.subscribe(json!({}));
        Self {
            id: id.to_owned(),
            client: Self::log_in(daemon, model, id),
            listeners: vec![Listener {
                client: watcher,
                subscriptions: vec![Subscription(json!({}))],
            }],
        }
    }

    /// Resumes on a connection of its own, and goes on listening there.
    pub fn resume(
        &mut self,
        daemon: &Daemon,
        model: &Model,
        subscriptions: Vec<Subscription>,
        (since, seq): (u64, u64),
    ) {
        for listener in &mut self.listeners {
            listener.client.no_more_events();
        }
        self.listeners.truncate(1);
        let wanted: Vec<Value> = subscriptions.iter().map(|one| one.0.clone()).collect();
        let data = json!({"subscriptions": wanted, "since": since, "position": true});
        let mut listener = Listener {
            client: Self::log_in(daemon, model, &self.id),
            subscriptions,
        };
        assert_eq!(listener.client.subscribe(data).0, seq);
        let due = model.stored_events_after(Some(&self.id), since, &listener.subscriptions);
        listener.read(&self.id, due);
        let position = listener.client.next_event();
        assert_eq!(
            (&position["type"], &position["seq"]),
            (&json!("position"), &json!(seq)),
            "{position}"
        );
        self.listeners.push(listener);
    }
}

impl People {
    /// Lets users in until there are enough; one that is an admin, if there is one, and others.
    pub fn fill(&mut self, rng: &mut StdRng, daemon: &Daemon, model: &Model) {
        while self.0.len() < PEOPLE {
            let is_in = |id: &String| self.0.iter().any(|person| person.id == *id);
            let has_admin = self.0.iter().any(|person| model.is_admin(&person.id));
            let (mut admins, mut others) = (Vec::new(), Vec::new());
            for id in model.ids(Kind::User).into_iter().filter(|id| !is_in(id)) {
                if model.is_admin(&id) {
                    admins.push(id);
                } else {
                    others.push(id);
                }
            }
            let from = if has_admin || admins.is_empty() {
                &others
            } else {
                &admins
            };
            let Some(id) = from.choose(rng) else { return };
            self.0.push(Person::enter(daemon, model, id));
        }
    }

    /// One of them, now and then.
    pub fn any(&self, rng: &mut StdRng) -> Option<usize> {
        (!self.0.is_empty() && rng.random_bool(0.6)).then(|| rng.random_range(0..self.0.len()))
    }

    /// Gives each what happened after `since`. `ended` is the user whose sessions that ended, all but that of `asker`.
    pub fn hear(
        &mut self,
        daemon: &Daemon,
        model: &Model,
        since: u64,
        ended: Option<&str>,
        asker: Option<usize>,
    ) {
        for (index, person) in self.0.iter_mut().enumerate() {
            for listener in &mut person.listeners {
                listener.hear(&person.id, model, since);
            }
            if ended != Some(&person.id) {
                continue;
            }
            for listener in &mut person.listeners {
                listener.client.expect_session_ended();
            }
            let is_gone = model.object(Kind::User, &person.id).is_none();
            if is_gone || asker != Some(index) {
                person.client.expect_session_ended();
            } else {
                person.client.no_more_events();
            }
            if !is_gone {
                *person = Person::enter(daemon, model, &person.id);
            }
        }
        self.0
            .retain(|person| model.object(Kind::User, &person.id).is_some());
    }
}
