//! `chatd bench`: what it prints, what it leaves behind, and that nothing missing or wrong escapes it.

mod fake;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Daemon, PATIENCE};
use fake::Fault;

const CHATD: &str = env!("CARGO_BIN_EXE_chatd");

fn bench(arguments: &str) -> Output {
    Command::new(CHATD)
        .arg("bench")
        .args(arguments.split_whitespace())
        .output()
        .expect("run chatd bench")
}

/// Runs what must succeed, and gives its reports.
fn reports(arguments: &str) -> Vec<Value> {
    let output = bench(&format!("{arguments} --json"));
    let (out, log) = texts(&output);
    assert!(output.status.success(), "{arguments}: {log}{out}");
    assert_eq!(log, "", "{arguments}: nothing to complain of");
    out.lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

fn report(arguments: &str) -> Value {
    let mut all = reports(arguments);
    assert_eq!(all.len(), 1, "{arguments}: {all:?}");
    all.remove(0)
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn number(report: &Value, field: &str) -> u64 {
    report[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} of {report}"))
}

fn check_latency(latency: &Value) {
    let rising: Vec<u64> = ["p50", "p90", "p99", "p999", "max"]
        .iter()
        .map(|quantile| number(latency, quantile))
        .collect();
    assert!(rising.is_sorted() && rising[4] > 0, "{latency}");
}

/// Checks the fields that every report has.
fn check(report: &Value, scenario: &str, connections: u64) {
    assert_eq!(report["scenario"], scenario);
    assert_eq!(report["connections"], connections, "{report}");
    assert!(report["address"].as_str().is_some(), "{report}");
    assert!(
        number(report, "pipeline") > 0 && number(report, "requests") > 0,
        "{report}"
    );
    assert_eq!(report["errors"], 0, "{report}");
    let (seconds, rate) = (report["seconds"].as_f64(), report["per_second"].as_f64());
    assert!(seconds > Some(0.0) && rate > Some(0.0), "{report}");
    let (_, _) = (number(report, "payload_bytes"), number(report, "events"));
    check_latency(&report["latency_us"]);
}

#[test]
fn requests_of_one_kind_are_counted() {
    for scenario in ["ping", "send"] {
        let report = report(&format!(
            "{scenario} --seconds 0.2 --connections 3 --pipeline 2"
        ));
        check(&report, scenario, 3);
        assert_eq!(report["events"], 0);
    }
}

#[test]
fn fanout_delivers_every_message_to_every_subscriber() {
    let report = report("fanout --seconds 0.2 --connections 3 --pipeline 2 --payload 40");
    check(&report, "fanout", 3);
    assert_eq!(report["subscribers"], 3);
    assert_eq!(report["payload_bytes"], 40);
    let deliveries = number(&report, "requests") * 3;
    assert_eq!(report["deliveries"], deliveries, "{report}");
    assert_eq!(report["events"], deliveries, "{report}");
    assert!(report["deliveries_per_second"].as_f64() > Some(0.0));
}

#[test]
fn reading_is_told_by_kind() {
    let history = report("history --seconds 0.2 --connections 2 --messages 300");
    check(&history, "history", 2);
    let lengths: Vec<u64> = history["pages"]
        .as_array()
        .expect("pages")
        .iter()
        .map(|page| number(page, "messages"))
        .collect();
    assert_eq!(lengths, [300, 200]);
    let search = report("search --seconds 0.2 --connections 2 --messages 300");
    check(&search, "search", 2);
    for (report, list) in [(&history, "pages"), (&search, "kinds")] {
        for part in report[list].as_array().expect(list) {
            check_latency(&part["latency_us"]);
        }
    }
}

#[test]
fn a_chat_day_sends_its_changes_to_everybody() {
    let report = report("mixed --seconds 0.5 --connections 10 --payload 30");
    check(&report, "mixed", 10);
    assert!(number(&report, "events") > 0, "{report}");
    let kinds = report["kinds"].as_array().expect("kinds");
    let all: u64 = kinds.iter().map(|kind| number(kind, "requests")).sum();
    assert_eq!(report["requests"], all, "{report}");
}

#[test]
fn memory_and_deletion_are_measured() {
    let idle = report("idle --connections 300");
    check(&idle, "idle", 300);
    let (before, after) = (
        number(&idle, "rss_before_bytes"),
        number(&idle, "rss_after_bytes"),
    );
    assert!(before > 0 && after >= before, "{idle}");
    assert_eq!(idle["bytes_per_connection"], (after - before) / 300);
    let delete = report("delete --seconds 0.4 --connections 2 --messages 500");
    check(&delete, "delete", 2);
    assert_eq!(delete["messages"], 500);
    assert!(number(&delete, "delete_us") > 0);
    check_latency(&delete["before_latency_us"]);
}

#[test]
fn logins_are_measured_with_passwords_and_tokens() {
    let scratch = TempDir::new().expect("a temporary directory");
    let file = scratch.path().join("chatd.toml");
    fs::write(
        &file,
        "[[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n",
    )
    .expect("write");
    let known = Command::new(CHATD)
        .arg("--check-config")
        .arg("--config")
        .arg(&file)
        .output();
    if !known.expect("run chatd").status.success() {
        println!("skipped: this chatd has no listeners with access = \"login\"");
        return;
    }
    let report = report("login --seconds 2 --connections 2");
    check(&report, "login", 2);
    let kinds = report["kinds"].as_array().expect("kinds");
    let all: u64 = kinds.iter().map(|kind| number(kind, "requests")).sum();
    assert_eq!(report["requests"], all, "{report}");
}

#[test]
fn without_a_scenario_it_is_a_tour_and_a_table_for_people() {
    let tour = "--seconds 0.1 --connections 2 --messages 250";
    let names: Vec<String> = reports(tour)
        .iter()
        .map(|report| report["scenario"].as_str().expect("a scenario").to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "ping", "send", "fanout", "history", "search", "mixed", "idle"
        ]
    );
    let output = bench("ping --seconds 0.1 --connections 2");
    let (out, log) = texts(&output);
    assert!(out.contains("requests/s") && out.contains("2 x 1"), "{out}");
    assert_eq!(
        (out.lines().count(), log.as_str()),
        (2, ""),
        "no progress bar in a pipe"
    );
}

#[test]
fn a_daemon_that_is_there_keeps_nothing_of_a_run() {
    let scratch = TempDir::new().expect("a temporary directory");
    let socket = format!("unix:{}", scratch.path().join("chatd.sock").display());
    let daemon = Daemon::with(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n\n[[listen]]\naddress = \"{socket}\"\n"
    ));
    for address in [daemon.address(), &socket] {
        for scenario in ["send", "fanout", "mixed"] {
            let report = report(&format!(
                "{scenario} --address {address} --seconds 0.1 --connections 2"
            ));
            check(&report, scenario, 2);
            assert_eq!(report["address"], address);
        }
    }
    let idle = format!(
        "idle --address {} --pid {} --connections 2",
        daemon.address(),
        daemon.pid()
    );
    check(&report(&idle), "idle", 2);
    // A large deletion goes on after its answer.
    let (mut client, began) = (daemon.client(), Instant::now());
    loop {
        let info = client.ok("server", "info", json!({}));
        if ["users", "conversations", "messages"]
            .iter()
            .all(|field| info[field] == 0)
        {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{info}");
    }
}

#[test]
fn what_is_missing_or_wrong_is_an_error() {
    let ping = "ping --connections 2 --pipeline 4 --seconds 0.1";
    let fanout = "fanout --connections 2 --pipeline 4 --seconds 0.1";
    for (fault, load, said) in [
        (Fault::LosesAnAnswer, ping, "1 answers and 0 events missing"),
        (Fault::AnswersWrong, ping, "a wrong answer"),
        (Fault::AnswersTwice, ping, "an answer too many"),
        (Fault::Refuses, ping, "\"code\":\"internal\""),
        (Fault::HangsUp, ping, "a connection"),
        (
            Fault::LosesAnEvent,
            fanout,
            "got message 2 with seq 3, after message 0 with seq 1",
        ),
        (
            Fault::DoublesAnEvent,
            fanout,
            "got message 1 with seq 2, after message 1 with seq 2",
        ),
    ] {
        let address = fake::serve(Fault::None);
        let sound = bench(&format!("{load} --json --address {address}"));
        assert!(sound.status.success(), "{}", texts(&sound).1);
        let address = fake::serve(fault);
        let output = bench(&format!("{load} --timeout 1 --json --address {address}"));
        let (_, log) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{fault:?}: {log}");
        assert!(
            log.contains(said) && log.lines().count() == 1,
            "{fault:?}: {log}"
        );
    }
}

#[test]
fn a_schedule_counts_what_it_could_not_send() {
    let report = report("ping --connections 2 --seconds 0.5 --rate 200");
    assert_eq!(
        number(&report, "requests") + number(&report, "unsent"),
        100,
        "{report}"
    );
    // The one request that a silent server lets out hides none of those that wait behind it.
    let silent = fake::serve(Fault::AnswersNothing);
    let output = bench(&format!(
        "ping --connections 1 --seconds 0.3 --rate 100 --timeout 0.5 --json --address {silent}"
    ));
    let (out, _) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_str(&out).expect(&out);
    assert_eq!(
        (&report["requests"], &report["unsent"]),
        (&json!(0), &json!(29)),
        "{report}"
    );
    assert!(number(&report["latency_us"], "max") >= 289_000, "{report}");
}

#[test]
fn a_wrong_command_line_is_one_clear_line() {
    for (arguments, said) in [
        ("nosuch", "nosuch"),
        ("ping --connections 0", "--connections"),
        ("ping --seconds never", "--seconds"),
        ("ping --rate 0", "--rate"),
        ("ping --pid 1", "--address"),
        ("idle --address 127.0.0.1:1", "--pid"),
        ("fanout --payload 3", "--payload"),
        ("send --payload 0", "--payload"),
        ("ping --connections 4294967295", "descriptors"),
    ] {
        let output = bench(arguments);
        let (out, log) = texts(&output);
        assert_eq!(output.status.code(), Some(78), "{arguments}: {log}");
        assert!(
            log.contains(said) && log.contains("chatd bench --help"),
            "{arguments}: {log}"
        );
        assert_eq!(
            (log.lines().count(), out.as_str()),
            (1, ""),
            "{arguments}: {log}"
        );
    }
    let both = Command::new(CHATD)
        .args(["--check-config", "bench"])
        .output()
        .expect("run chatd");
    assert_eq!(
        both.status.code(),
        Some(78),
        "the daemon's flags are not the load tool's"
    );
}

#[test]
fn ctrl_c_and_a_dead_daemon_leave_nothing_behind() {
    for (victim, code) in [("bench", 130), ("daemon", 1)] {
        let scratch = TempDir::new().expect("a temporary directory");
        let mut run = Command::new(CHATD)
            .args("bench send --connections 2 --seconds 600".split(' '))
            .env("TMPDIR", scratch.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run chatd bench");
        let daemon = until_the_journal_grows(scratch.path(), &mut run);
        if victim == "bench" {
            kill_process(Pid::from_child(&run), Signal::INT).expect("interrupt");
        } else {
            kill_process(daemon, Signal::KILL).expect("kill");
        }
        let output = run.wait_with_output().expect("wait for chatd bench");
        assert_eq!(output.status.code(), Some(code), "{}", texts(&output).1);
        let left = fs::read_dir(scratch.path()).expect("read").count();
        assert_eq!(left, 0, "after the end of {victim}");
        assert!(
            daemon_on(scratch.path()).is_none(),
            "after the end of {victim}"
        );
    }
}

/// Waits until the run's own daemon writes messages, and gives its process.
fn until_the_journal_grows(directory: &Path, run: &mut Child) -> Pid {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        assert!(
            run.try_wait().expect("wait").is_none(),
            "the run ended by itself"
        );
        let written: u64 = journals(directory).iter().sum();
        if written > 50_000
            && let Some(daemon) = daemon_on(directory)
        {
            return daemon;
        }
        thread::yield_now();
    }
    panic!("no messages within {PATIENCE:?}");
}

/// The sizes of the journal's files of the daemon that runs somewhere below a directory.
fn journals(directory: &Path) -> Vec<u64> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    entries(directory)
        .flat_map(|run| entries(&run.path().join("data/journal")).collect::<Vec<_>>())
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .collect()
}

/// The process whose command line names a directory.
fn daemon_on(directory: &Path) -> Option<Pid> {
    let name = directory.display().to_string();
    fs::read_dir("/proc")
        .expect("read /proc")
        .flatten()
        .find_map(|entry| {
            let id: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            String::from_utf8_lossy(&line)
                .contains(&name)
                .then(|| Pid::from_raw(id))?
        })
}
