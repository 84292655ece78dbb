//! A log that cannot be written, or that nobody reads, fails nothing.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::pipe::fcntl_setpipe_size;
use serde_json::json;

use crate::harness::machine::{run, skipped};
use crate::harness::{Client, Daemon, run_to_end, wait_until};
use crate::ledger::all;

const PING: &[u8] = b"{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\"}\n";

/// Does what is logged, over and over, and what must be done all the same.
fn work(mut client: Client) {
    let user = client.create_user("ann@example.org");
    let conversation = client.create_conversation("lunch", &[&user]);
    for number in 0..200 {
        let wrong = json!({"login": "ann@example.org", "password": "wrong"});
        client.error("session", "login", wrong);
        let doomed = client.create_user(&format!("{number}@example.org"));
        client.ok("user", "delete", json!({"user_id": doomed}));
        client.send_message(&conversation, &user, "hello");
    }
    assert_eq!(all(&mut client, "message").len(), 200);
}

#[test]
fn a_log_that_cannot_be_written_fails_nothing() {
    const NAME: &str = "a_log_that_cannot_be_written_fails_nothing";
    for (name, redirection) in [
        ("a reader that is gone", "2> >(head -n 1)"),
        ("a closed descriptor", "2>&-"),
        ("a full disk", "2>/dev/full"),
    ] {
        if let Err(why) = run(Command::new("bash").args(["-c", "true"])) {
            return skipped(NAME, &why);
        }
        let script = format!("exec \"$0\" \"$@\" {redirection}");
        let mut daemon = Daemon::under(&["bash", "-c", &script], "[log]\nlevel = \"debug\"\n");
        work(daemon.client());
        assert!(daemon.terminate().success(), "{name}");
    }
}

/// A daemon whose log goes into a pipe that holds little, and the end where it comes out.
fn piped(scratch: &Path) -> (Daemon, File) {
    const PIPE_BYTES: usize = 4096;
    let pipe = scratch.join("log");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // It can be opened at once, since whoever opens it is at both ends.
    let reader = OpenOptions::new().read(true).write(true).open(&pipe);
    let reader = reader.unwrap();
    fcntl_setpipe_size(&reader, PIPE_BYTES).unwrap();
    let script = format!("exec \"$0\" \"$@\" 2>{}", pipe.display());
    let daemon = Daemon::under(&["sh", "-c", &script], "[log]\nlevel = \"debug\"\n");
    (daemon, reader)
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_requests_nor_the_stop() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut daemon, _reader) = piped(scratch.path());
    work(daemon.client());
    assert!(daemon.terminate().success());
}

#[test]
fn what_waits_for_whoever_reads_the_log_is_still_written_when_the_daemon_stops() {
    const END: &[u8] = b"the end\n";
    let scratch = tempfile::tempdir().unwrap();
    let (mut daemon, mut reader) = piped(scratch.path());
    let mut end = reader.try_clone().unwrap();
    work(daemon.client());
    let read = thread::spawn(move || {
        let mut log = Vec::new();
        let mut some = [0; 4096];
        while !log.ends_with(END) {
            let count = reader.read(&mut some).unwrap();
            log.extend_from_slice(&some[..count]);
        }
        String::from_utf8(log).unwrap()
    });
    assert!(daemon.terminate().success());
    end.write_all(END).unwrap();
    let log = read.join().unwrap();
    assert!(log.contains(" stopped\n"), "{log}");
    // The order is kept, and nothing is missing.
    let deletions = log.matches(r#""event":"user delete","result":"ok""#);
    assert_eq!(deletions.count(), 200, "{log}");
    assert!(!log.contains("could not be written"), "{log}");
}

#[test]
fn a_level_that_does_not_exist_is_refused_instead_of_silencing_the_log() {
    for level in ["warning", "verbose", "chatd=loud", ""] {
        let config = format!("[log]\nlevel = {level:?}\n");
        for arguments in [&["--check-config"][..], &[]] {
            let (code, said) = run_to_end(&config, arguments);
            assert_eq!(code, 78, "{level}: {said}");
            assert!(
                said.contains("error, warn, info, debug, trace"),
                "{level}: {said}"
            );
            assert!(said.contains("log.level"), "{level}: {said}");
        }
    }
    let output = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(["--listen", "127.0.0.1:0", "--check-config"])
        .env("RUST_LOG", "warning")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("RUST_LOG = \"warning\""), "{said}");
}

#[test]
fn audit_lines_are_written_whatever_the_level() {
    for (level, environment) in [
        ("off", ""),
        ("error", ""),
        ("audit=off,chatd::store=debug", ""),
        ("info", "off"),
        ("info", "audit=error"),
    ] {
        let variable = format!("RUST_LOG={environment}");
        let config = format!("[log]\nlevel = {level:?}\n");
        let daemon = Daemon::under(&["env", &variable], &config);
        let wrong = json!({"login": "ann@example.org", "password": "wrong"});
        daemon.client().error("session", "login", wrong);
        wait_until("the audit line", || daemon.log().contains("login_failed"));
        let log = daemon.log();
        assert!(!log.contains("started"), "{level} {environment}: {log}");
    }
}

#[test]
fn a_closed_standard_output_fails_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("chatd.sock");
    let address = format!("unix:{}", socket.display());
    let start = |redirection: &str, data: &Path| {
        let script = format!("exec \"$0\" \"$@\" {redirection}");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_chatd")])
            .args(["--listen", &address, "--data-dir"])
            .arg(data)
            .current_dir(scratch.path())
            .env_remove("STATE_DIRECTORY")
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    };
    for redirection in [">&-", ">/dev/full"] {
        let data = scratch.path().join("data");
        let mut daemon = start(redirection, &data);
        wait_until("the daemon to answer", || {
            assert_eq!(daemon.try_wait().unwrap(), None, "{redirection}: it ended");
            if UnixStream::connect(&socket).is_err() {
                return false;
            }
            let mut client = Client::connect(&address);
            client.send_bytes_or_end(PING);
            // Until the store is open, the line says that the connection is closed.
            let line = client.read_line_or_end();
            line.is_some_and(|line| line.contains(r#""result":"ok""#))
        });
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
}
