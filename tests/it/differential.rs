//! What happens in private conversations changes not one byte of what somebody else is sent.
//!
//! Two daemons are told the same by Eve, and by Ben where Eve may know of it; one of them is also busy with thousands of
//! random operations in conversations that Eve is in none of. Everything that Eve's connections are sent, answers and
//! events, live and on resume, must be the same line for line. What cannot be the same is masked, and no more than that
//! (`mask.rs`): ids and times, for which two daemons never agree, and the numbers of events, which the protocol counts
//! across the whole server. An id that Eve was not told before is no mask's to hide, and fails the test.

mod mask;
mod private;
mod steps;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{Client, Daemon, LOGINS};
use crate::random::setting;

use mask::Names;
use private::Private;
use steps::{Script, Step, Who};

/// A daemon, and those connected to it that are told the same on both.
struct Side {
    daemon: Daemon,
    root: Client,
    ben: Client,
    /// Eve asks on this one, which is subscribed to everything.
    eve: Client,
    /// And has another one, subscribed to what she may not see.
    second: Client,
    names: Names,
    /// The numbers of the events that she was sent.
    seqs: Vec<u64>,
}

impl Side {
    fn new() -> Self {
        let daemon = Daemon::with(LOGINS);
        let mut root = daemon.client();
        let mut names = Names::default();
        for name in ["eve", "ben", "cyd", "dan"] {
            let id = root.create_user(&format!("{name}@example.org"));
            names.insert(name, &id);
        }
        let mut eve = daemon.user("eve@example.org");
        eve.subscribe(json!({}));
        Self {
            second: daemon.user("eve@example.org"),
            ben: daemon.user("ben@example.org"),
            daemon,
            root,
            eve,
            names,
            seqs: Vec::new(),
        }
    }

    /// Takes a step, and gives the lines that Eve is sent, masked.
    fn take(&mut self, step: &Step) -> Vec<String> {
        let mut lines = Vec::new();
        match step.who {
            Who::Ben | Who::Root => {
                let client = if step.who == Who::Ben {
                    &mut self.ben
                } else {
                    &mut self.root
                };
                let data = self.names.resolve(&step.data);
                let answer = client.call(step.subclass, step.cmd, data);
                self.names.learn(step.makes.as_deref(), &answer);
                // Whether it was done is no secret; what it was answered is not Eve's.
                lines.push(answer["result"].to_string());
            }
            Who::Eve => self.ask(false, step, &mut lines),
            Who::Second => self.ask(true, step, &mut lines),
        }
        // Whatever the step caused is on its way to her before it is answered, and so comes before this answer.
        self.ask(false, &Step::ping(), &mut lines);
        self.ask(true, &Step::ping(), &mut lines);
        lines
    }

    /// Sends a request of Eve's, on her first or second connection, and reads to its answer.
    fn ask(&mut self, on_second: bool, step: &Step, lines: &mut Vec<String>) {
        let (client, names) = if on_second {
            (&mut self.second, &mut self.names)
        } else {
            (&mut self.eve, &mut self.names)
        };
        let data = names.resolve(&step.data);
        client.send(&json!({"class": "chat", "subclass": step.subclass, "cmd": step.cmd, "data": data, "tid": "t"}));
        loop {
            let line = client.read_line().unwrap();
            let value: Value = serde_json::from_str(&line).unwrap();
            if value.get("result").is_some() {
                names.learn(step.makes.as_deref(), &value);
                let masked = names.mask(&line);
                lines.push(if step.cmd == "get_subscriptions" {
                    sorted_by_name(&masked)
                } else {
                    masked
                });
                return;
            }
            if !on_second {
                self.seqs.extend(value["seq"].as_u64());
            }
            lines.push(names.mask(&line));
        }
    }

    /// Resumes on a new connection behind the event that was the so-manieth Eve was sent, and gives what comes.
    fn resume(&mut self, behind: Option<usize>, mut data: Value) -> Vec<String> {
        data["since"] = behind.map_or(json!(0), |index| json!(self.seqs[index]));
        data["position"] = json!(true);
        let data = self.names.resolve(&data);
        let mut client = self.daemon.user("eve@example.org");
        client.request("event", "subscribe", data);
        let mut lines = Vec::new();
        loop {
            let line = client.read_line().unwrap();
            lines.push(self.names.mask(&line));
            if line.contains(r#""type":"position""#) {
                return lines;
            }
        }
    }
}

#[test]
fn private_conversations_change_no_byte_of_what_others_are_sent() {
    let seed = setting("CHATD_SEED").unwrap_or_else(rand::random);
    let steps = setting("CHATD_OPERATIONS").unwrap_or(3_000_u32);
    eprintln!("CHATD_SEED={seed} CHATD_OPERATIONS={steps}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut busy = Side::new();
    let mut quiet = Side::new();
    let mut private = Private::new(&busy.daemon, &busy.names);
    let mut script = Script::default();
    let mut lines = 0;
    for number in 0..steps {
        // Still under way while the step is taken.
        private.send(&mut rng);
        for (name, id) in private.take_new() {
            busy.names.insert(&name, &id);
            quiet.names.invent(&name, &id);
            script.hear_of(name);
        }
        let step = script.step(&mut rng);
        let (with, without) = (busy.take(&step), quiet.take(&step));
        same(&format!("step {number}, {step:?}"), &with, &without);
        let done = with[0].contains("ok");
        script.done(&step, done);
        // Guests are in private conversations too, so that deleting one ends memberships there.
        private.guests = script.guests().map(|name| busy.names.id(name)).collect();
        lines += with.len();
        private.receive();
        if rng.random_range(0..40) == 0 {
            assert_eq!(busy.seqs.len(), quiet.seqs.len());
            let count = busy.seqs.len();
            let behind = (count > 0 && rng.random_bool(0.7)).then(|| rng.random_range(0..count));
            let data = script.subscription(&mut rng);
            let with = busy.resume(behind, data.clone());
            let without = quiet.resume(behind, data.clone());
            same(
                &format!("resumed behind {behind:?} with {data}"),
                &with,
                &without,
            );
            lines += with.len();
        }
    }
    println!("{lines} lines to Eve, {} private operations", private.done);
    assert!(private.done > u64::from(steps));
}

/// Her subscriptions come in the order of ids that she named herself, of which each daemon has its own.
fn sorted_by_name(masked: &str) -> String {
    let mut answer: Value = serde_json::from_str(masked).unwrap();
    let subscriptions = answer["data"]["subscriptions"].as_array_mut().unwrap();
    subscriptions.sort_by_key(Value::to_string);
    answer.to_string()
}

fn same(context: &str, with: &[String], without: &[String]) {
    for (one, other) in with.iter().zip(without) {
        assert_eq!(one, other, "{context}: the left with, the right without");
    }
    assert_eq!(with.len(), without.len(), "{context}: {with:?} {without:?}");
}
