//! What an operator meets: sockets for groups, paths in chatd.toml, and what strangers leave in
//! the log.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Authority, Client, Daemon, Socket, wait_until};
use crate::lines::goes_on;
use crate::listeners::ping_as;

const EXIT_CONFIG: i32 = 78;
/// Connections of strangers that leave their line.
const STRANGERS: usize = 20;
/// A user and a group that nobody else is.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: only root can become another user");
    }
    root
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("set a mode");
}

#[test]
fn a_check_says_as_whom_it_read_the_keys() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let tls = authority.issue("server").toml();
    let folder = TempDir::new().expect("a temporary directory");
    let check = |config: &str| {
        let file = folder.path().join("chatd.toml");
        fs::write(&file, config).expect("write chatd.toml");
        let output = Command::new(env!("CARGO_BIN_EXE_chatd"))
            .arg("--config")
            .arg(file)
            .arg("--check-config")
            .output()
            .expect("run chatd");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let uid = rustix::process::geteuid().as_raw();
    let said = check(&format!("[[listen]]\naddress = \"127.0.0.1:0\"\n{tls}"));
    assert!(said.contains("is in order; its keys"), "{said}");
    assert!(said.contains(&format!("user id {uid}")), "{said}");
    let said = check("");
    assert!(said.ends_with("is in order\n"), "{said}");
}

/// A folder that everybody may enter, and a listener on a socket in it.
fn socket_listener(more: &str) -> (TempDir, String, String) {
    let folder = TempDir::new().expect("a temporary directory");
    set_mode(folder.path(), 0o755);
    let address = format!("unix:{}", folder.path().join("chatd.sock").display());
    let listen = format!("[[listen]]\naddress = \"{address}\"\n{more}\n");
    (folder, address, listen)
}

#[test]
fn the_members_of_the_group_that_is_allowed_can_open_the_socket() {
    if !is_root() {
        return;
    }
    for mode in ["", "mode = \"0660\"\n", "mode = \"0620\"\n"] {
        let (folder, address, listen) =
            socket_listener(&format!("{mode}allow_groups = [\"{NOBODY}\"]"));
        let _daemon = Daemon::with(&listen);
        let about = fs::metadata(folder.path().join("chatd.sock")).expect("the socket");
        assert_eq!((about.uid(), about.gid()), (0, NOBODY), "{mode}");
        let answer = ping_as(NOBODY, NOBODY, &address);
        assert!(answer.contains("\"result\":\"ok\""), "{mode}: {answer}");
        assert_eq!(ping_as(NOBODY - 1, NOBODY - 1, &address), "", "{mode}");
    }
    // A user that the mode keeps out is told of.
    let (_folder, _, listen) = socket_listener(&format!("allow_uids = [{}]", NOBODY - 1));
    let daemon = Daemon::with(&listen);
    daemon.wait_for_log("the mode of the socket keeps out");
    assert!(daemon.log().contains("0666"), "{}", daemon.log());
}

#[test]
fn a_socket_that_cannot_be_given_to_its_group_says_what_to_set() {
    if !is_root() {
        return;
    }
    // The program is copied to where another user can run it.
    let (folder, _, listen) = socket_listener("allow_groups = [\"0\"]");
    let program = folder.path().join("chatd");
    fs::copy(env!("CARGO_BIN_EXE_chatd"), &program).expect("copy chatd");
    set_mode(&program, 0o755);
    let config = folder.path().join("chatd.toml");
    fs::write(&config, listen).expect("write chatd.toml");
    set_mode(folder.path(), 0o777);
    let output = Command::new(&program)
        .arg("--config")
        .arg(&config)
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .output()
        .expect("run chatd");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EXIT_CONFIG), "{said}");
    for part in ["allow_groups", "SupplementaryGroups=", "mode = \"0666\""] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(
        !folder.path().join("chatd.sock").exists(),
        "the socket is left behind"
    );
}

#[test]
fn relative_paths_in_the_file_begin_where_it_is() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let (folder, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let server = authority.issue("server");
    fs::copy(&server.cert, folder.path().join("cert.pem")).expect("copy the certificate");
    fs::copy(&server.key, folder.path().join("key.pem")).expect("copy the key");
    let config = folder.path().join("chatd.toml");
    let listen = "data_dir = \"kept\"\n[[listen]]\naddress = \"unix:chatd.sock\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
                  tls = { cert = \"cert.pem\", key = \"key.pem\" }\n";
    fs::write(&config, listen).expect("write chatd.toml");
    let mut child = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .arg("--config")
        .arg(&config)
        .current_dir(elsewhere.path())
        .env_remove("STATE_DIRECTORY")
        .spawn()
        .expect("run chatd");
    let address = format!("unix:{}", folder.path().join("chatd.sock").display());
    let mut socket = None;
    wait_until("the socket beside the file", || {
        socket = Socket::connect(&address).ok();
        socket.is_some()
    });
    goes_on(&mut Client::over(socket.take().expect("a connection")));
    assert!(folder.path().join("kept/journal").exists());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    child.kill().expect("kill chatd");
    child.wait().expect("wait for chatd");
}

#[test]
fn http_and_broken_handshakes_leave_a_counter_and_a_line_with_the_address() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let tls = authority.issue("server").toml();
    let listen = format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n[[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"login\"\n{tls}"
    );
    let daemon = Daemon::with(&listen);
    let from = "127.0.7.7".parse().expect("an address");
    for (counter, access) in [("http", "trusted"), ("failed_handshakes", "login")] {
        for _ in 0..STRANGERS {
            let mut socket =
                Socket::connect_from(from, daemon.address_of(access)).expect("connect");
            let _ = socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let _ = std::io::Read::read_to_end(&mut socket, &mut Vec::new());
        }
        // A handshake has failed a little before it is counted.
        wait_until("the count of them all", || {
            let info = daemon.client().ok("server", "info", json!({}));
            info["counters"][counter] == STRANGERS
        });
        let line = format!("event=\"{counter}\" first=\"127.0.7.7:");
        daemon.wait_for_log(&line);
        let total = format!("total={STRANGERS}");
        wait_until("the line that counts them all", || {
            daemon
                .log()
                .lines()
                .any(|have| have.contains(&line) && have.contains(&total))
        });
        // One line a second, and not one for each.
        assert!(daemon.log().matches(&line).count() < STRANGERS);
    }
}
