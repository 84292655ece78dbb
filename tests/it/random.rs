//! Thousands of random requests against the daemon and the model at once; they must never differ.
//!
//! Some are asked by a trusted client, others by users that are logged in, an admin among them. Beside the connections that
//! ask, one receives every event, each user has one that receives what it may see, and others resume again and again; now and
//! then the daemon is killed or stopped and started on the same data, with another time on its clock. A failure prints the seed; `CHATD_SEED` takes it back, and
//! `CHATD_OPERATIONS` says how many operations to try.

pub mod operations;
mod people;
mod queries;

use std::env;
use std::fmt::Display;
use std::str::FromStr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::fake_time::FakeTime;
use crate::harness::machine::skipped;
use crate::harness::{Client, Daemon, LOGINS};
use crate::model::{Expected, Kind, Model, Subscription};

use operations::{Operation, operation, operation_of};
use people::People;

#[test]
fn random_operations_agree_with_the_model() {
    let seed = setting("CHATD_SEED").unwrap_or_else(rand::random);
    let operations = setting("CHATD_OPERATIONS").unwrap_or(if cfg!(debug_assertions) {
        4_000
    } else {
        20_000
    });
    eprintln!("CHATD_SEED={seed} CHATD_OPERATIONS={operations}");
    let mut world = World::new(seed);
    for number in 0..operations {
        world.step(number);
        if world.rng.random_range(0..40) == 0 {
            world.resume();
        }
        if world.rng.random_range(0..400) == 0 {
            world.restart();
        }
        if world.rng.random_range(0..200) == 0 {
            world.ask_too_much();
        }
    }
    world.restart();
    println!(
        "{} operations by users, {} of them done",
        world.by_users.0, world.by_users.1
    );
    assert!(world.by_users.1 > 0);
}

/// A number from the environment.
pub fn setting<T: FromStr>(name: &str) -> Option<T>
where
    T::Err: Display,
{
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text}: {error}")),
    )
}

/// The daemon, what is connected to it, and what the model knows.
struct World {
    rng: StdRng,
    daemon: Daemon,
    data_dir: TempDir,
    /// Sets the daemon's clock.
    fake_time: Option<FakeTime>,
    model: Model,
    /// Asks.
    client: Client,
    /// Receives every event, at once.
    watcher: Client,
    /// Users that are logged in.
    people: People,
    /// Operations that users asked for, and those of them that were done.
    by_users: (u64, u64),
    /// Resumed some time ago and has received some events since.
    follower: Option<Follower>,
    /// The number of the newest event when the data was new.
    first_seq: u64,
    epoch: String,
}

struct Follower {
    client: Client,
    subscriptions: Vec<Subscription>,
    /// It has been given every event up to this one.
    seen: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let data_dir = TempDir::new().unwrap();
        let daemon = Daemon::on_dir(data_dir.path(), LOGINS);
        let mut watcher = daemon.client();
        let (first_seq, epoch) = watcher.subscribe(json!({}));
        Self {
            rng: StdRng::seed_from_u64(seed),
            client: daemon.client(),
            model: Model::default(),
            people: People::default(),
            by_users: (0, 0),
            follower: None,
            fake_time: FakeTime::new()
                .inspect_err(|why| skipped("random::the clock of the daemon is never set", why))
                .ok(),
            data_dir,
            daemon,
            watcher,
            first_seq,
            epoch,
        }
    }

    fn seq(&self) -> u64 {
        self.model.seq().unwrap_or(self.first_seq)
    }

    /// One operation, on the daemon and on the model.
    fn step(&mut self, number: u64) {
        self.people.fill(&mut self.rng, &self.daemon, &self.model);
        let before = self.seq();
        let person = self.people.any(&mut self.rng);
        let asker = person.map(|index| self.people.0[index].id.clone());
        let operation = match &asker {
            Some(user) => operation_of(&mut self.rng, &self.model, user),
            None => operation(&mut self.rng, &self.model),
        };
        let client = match person {
            Some(index) => &mut self.people.0[index].client,
            None => &mut self.client,
        };
        let answer = client.call(operation.subclass, operation.cmd, operation.data.clone());
        let done = answer["result"] == "ok";
        if person.is_some() {
            self.by_users.0 += 1;
            self.by_users.1 += u64::from(done);
        }
        let expected = self.model.execute(
            asker.as_deref(),
            operation.subclass,
            operation.cmd,
            &operation.data,
            &answer["data"],
        );
        check_answer(number, asker.as_deref(), &operation, &answer, &expected);
        for (kind, id) in std::mem::take(&mut self.model.unread) {
            let got = self
                .client
                .ok(kind.subclass(), "get", json!({ kind.id_field(): id }));
            self.model.learn(kind, &id, &got);
        }
        for _ in 0..self.model.pending_count() {
            let event = self.watcher.next_event();
            self.model.take_event(event);
        }
        let ends = done
            && operation.subclass == "user"
            && (operation.cmd == "delete"
                || operation.cmd == "update" && operation.data.get("password").is_some());
        let ended = ends.then(|| operation.data["user_id"].as_str().unwrap());
        self.people
            .hear(&self.daemon, &self.model, before, ended, person);
        if let Some(first) = self.model.events.first() {
            assert_eq!(
                first["seq"],
                self.first_seq + 1,
                "the first event after {}: {first}",
                self.first_seq
            );
        }
    }

    /// Gives the follower what it must have by now, and sends a new one off from an event in the past.
    fn resume(&mut self) {
        self.finish_follower();
        let subscriptions = self.subscriptions();
        let seq = self.seq();
        // Mostly from not long ago, sometimes from the very beginning.
        let oldest = if self.rng.random_bool(0.1) {
            self.first_seq
        } else {
            seq.saturating_sub(60).max(self.first_seq)
        };
        let since = self.rng.random_range(oldest..=seq);
        let with_position = self.rng.random_bool(0.5);
        let mut data = match subscriptions.as_slice() {
            [one] => one.0.clone(),
            several => {
                json!({"subscriptions": several.iter().map(|one| one.0.clone()).collect::<Vec<_>>()})
            }
        };
        data["since"] = json!(since);
        if self.rng.random_bool(0.5) {
            data["epoch"] = json!(self.epoch);
        }
        if with_position {
            data["position"] = json!(true);
        }
        let mut client = self.daemon.client();
        assert_eq!(client.subscribe(data), (seq, self.epoch.clone()));
        let mut follower = Follower {
            client,
            subscriptions,
            seen: since,
        };
        let due = self
            .model
            .stored_events_after(None, since, &follower.subscriptions);
        follower.read(due, seq);
        if with_position {
            let position = follower.client.next_event();
            let is_position = position["subclass"] == "event" && position["type"] == "position";
            assert!(
                is_position && position["seq"] == seq,
                "expected position {seq}, got {position}"
            );
        }
        self.follower = Some(follower);
        if let Some(person) = self.people.any(&mut self.rng) {
            let subscriptions = self.subscriptions();
            let person = &mut self.people.0[person];
            person.resume(&self.daemon, &self.model, subscriptions, (since, seq));
        }
    }

    fn finish_follower(&mut self) {
        let seq = self.seq();
        if let Some(mut follower) = self.follower.take() {
            let due = self
                .model
                .events_after(None, follower.seen, &follower.subscriptions);
            follower.read(due, seq);
            follower.client.no_more_events();
        }
    }

    fn subscriptions(&mut self) -> Vec<Subscription> {
        let conversation = operations::pick(&mut self.rng, &self.model, Kind::Conversation);
        let user = operations::pick(&mut self.rng, &self.model, Kind::User);
        let subscriptions = match self.rng.random_range(0..7) {
            0 => vec![json!({})],
            1 => vec![json!({"class": "chat", "subclass": "user", "type": "*"})],
            2 => vec![
                json!({"subclass": "conversation", "type": ["created_message", "deleted_message"]}),
            ],
            3 => vec![json!({"obj_id": conversation})],
            4 => vec![
                json!({"obj_id": user}),
                json!({"obj_id": conversation, "type": "updated_message"}),
            ],
            5 => vec![
                json!({"type": ["added_members", "removed_members"]}),
                json!({"type": "removed_memebers"}),
            ],
            _ => vec![
                json!({"type": "updated"}),
                json!({}),
                json!({"subclass": "user"}),
            ],
        };
        subscriptions.into_iter().map(Subscription).collect()
    }

    /// Resumes from where nobody can: from the future, and in another log.
    fn ask_too_much(&mut self) {
        let seq = self.seq();
        let mut client = self.daemon.client();
        for data in [
            json!({"since": seq + 1}),
            json!({"since": seq, "epoch": "another"}),
        ] {
            let error = client.error("event", "subscribe", data);
            assert_eq!(error["code"], "events_expired", "{error}");
            assert_eq!(
                (&error["seq"], &error["epoch"]),
                (&json!(seq), &json!(self.epoch)),
                "{error}"
            );
            assert!(error["oldest"].is_u64(), "no oldest in {error}");
        }
        assert_eq!(
            client.ok("event", "get_subscriptions", json!({})),
            json!({"subscriptions": []})
        );
    }

    /// Ends the daemon one way or the other, starts it on the same data, and finds everything as it was.
    fn restart(&mut self) {
        self.finish_follower();
        self.people = People::default();
        self.watcher.no_more_events();
        if self.rng.random_bool(0.5) {
            self.daemon.kill();
        } else {
            let status = self.daemon.terminate();
            assert!(status.success(), "chatd ended with {status}");
        }
        self.daemon = self.start();
        self.client = self.daemon.client();
        self.watcher = self.daemon.client();
        let seq = self.seq();
        assert_eq!(
            self.watcher
                .subscribe(json!({"since": seq, "epoch": self.epoch})),
            (seq, self.epoch.clone())
        );
        for kind in Kind::ALL {
            self.compare_all(kind);
        }
    }

    /// Starts the daemon, mostly with its clock set anew: nothing is as old that it may expire.
    fn start(&mut self) -> Daemon {
        let Some(fake_time) = &self.fake_time else {
            return Daemon::on_dir(self.data_dir.path(), LOGINS);
        };
        let offsets = ["+0", "+365d", "-365d", "+3650d", "+30m", "-2h"];
        fake_time.set(offsets[self.rng.random_range(0..offsets.len())]);
        self.model.clock_is_set();
        fake_time.daemon(self.data_dir.path(), LOGINS)
    }

    /// Reads every object of a kind, a page at a time, and compares each with the model.
    fn compare_all(&mut self, kind: Kind) {
        let mut found = Vec::new();
        let mut filter = json!({});
        loop {
            let data = json!({"fields": "_all", "filter": filter, "size": 100, "total": false});
            let mut page = self.client.ok(kind.subclass(), "search", data);
            let Value::Array(rows) = page["data"].take() else {
                panic!("no rows in a search of {kind:?}")
            };
            let Some(last) = rows.last() else { break };
            filter = json!({ kind.id_field(): {"gt": last[kind.id_field()]} });
            found.extend(rows);
        }
        let expected: Vec<&Value> = self.model.objects(kind).map(|(_, object)| object).collect();
        assert_eq!(
            found.iter().collect::<Vec<_>>(),
            expected,
            "every {kind:?} after a restart, and as the model has it"
        );
    }
}

impl Follower {
    /// Reads the events up to number `seq` that are for it.
    fn read(&mut self, due: Vec<Value>, seq: u64) {
        for expected in due {
            let event = self.client.next_event();
            assert_eq!(
                event, expected,
                "resumed with {:?}: the left came where the right was due",
                self.subscriptions
            );
        }
        self.seen = seq;
    }
}

fn check_answer(
    number: u64,
    asker: Option<&str>,
    operation: &Operation,
    answer: &Value,
    expected: &Expected,
) {
    let context = || {
        let Operation {
            subclass,
            cmd,
            data,
        } = operation;
        format!(
            "operation {number} by {asker:?}, {subclass} {cmd} {data}\n was answered with {answer}\n not with {expected:?}"
        )
    };
    match expected {
        Expected::Data(any) => {
            assert!(
                answer["result"] == "ok" && any.contains(&answer["data"]),
                "{}",
                context()
            );
        }
        Expected::Refused(refusal) => {
            let error = &answer["data"];
            assert_eq!(answer["result"], "error", "{}", context());
            assert!(
                refusal.codes.iter().any(|code| error["code"] == *code),
                "{}",
                context()
            );
            assert!(
                refusal
                    .field
                    .as_ref()
                    .is_none_or(|field| error["field"] == **field),
                "{}",
                context()
            );
            let text = error["error"].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{}", context());
            assert!(
                refusal
                    .names
                    .as_ref()
                    .is_none_or(|name| text.contains(name)),
                "{}",
                context()
            );
        }
    }
}
