//! What chatd refuses to start with, and who gets through a Unix socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Authority, Client, Daemon, PATIENCE, run_to_end};
use crate::lines::goes_on;

/// The exit code of a configuration that cannot be used.
const EXIT_CONFIG: i32 = 78;
/// The exit code of an address that may be had later.
const EXIT_TEMPORARY: i32 = 75;

/// Asserts that chatd does not start with this chatd.toml, and says all of this in one line; the same when it is only
/// asked to check it.
fn is_refused(config: &str, arguments: &[&str], said: &[&str]) {
    for check in [&[][..], &["--check-config"]] {
        let (code, error) = run_to_end(config, &[arguments, check].concat());
        assert_eq!(code, EXIT_CONFIG, "{config}: {error}");
        assert!(error.starts_with("chatd: "), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        for part in said {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
    }
}

fn is_accepted(config: &str) {
    let (code, error) = run_to_end(config, &["--check-config"]);
    assert_eq!(code, 0, "{config}: {error}");
}

fn listen(address: &str, more: &str) -> String {
    format!("[[listen]]\naddress = \"{address}\"\n{more}\n")
}

#[test]
fn a_listener_that_others_can_reach_is_refused_unless_it_is_safe_or_said_to_be() {
    for address in [
        "0.0.0.0:0",
        "[::]:0",
        "192.0.2.1:24283",
        "[2001:db8::1]:24283",
    ] {
        let secure = "tls = { cert = \"c.pem\", key = \"k.pem\" }";
        for more in [
            "access = \"trusted\"",
            &format!("access = \"trusted\"\n{secure}"),
        ] {
            let said = [address, "access = \"login\"", "tls = {", "insecure = true"];
            is_refused(&listen(address, more), &[], &said);
        }
        for more in ["", "access = \"login\""] {
            let said = [address, "passwords", "tls = {", "insecure = true"];
            is_refused(&listen(address, more), &[], &said);
        }
        for access in ["", "access = \"login\"\n", "access = \"trusted\"\n"] {
            is_accepted(&listen(address, &format!("{access}insecure = true")));
        }
    }
    // So is a Unix socket that everybody on the machine can open, unless it says who may.
    let open = "mode = \"0666\"\n";
    let said = [
        "unix:/run/chatd.sock",
        "0666",
        "0660",
        "allow_groups",
        "insecure = true",
    ];
    is_refused(&listen("unix:/run/chatd.sock", open), &[], &said);
    for safe in ["insecure = true", "access = \"login\"", "allow_uids = [0]"] {
        is_accepted(&listen("unix:/run/chatd.sock", &format!("{open}{safe}")));
    }
    let said = ["0.0.0.0:0", "insecure = true"];
    is_refused("", &["--listen", "0.0.0.0:0"], &said);
    for address in ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0"] {
        for access in ["trusted", "login"] {
            is_accepted(&listen(address, &format!("access = \"{access}\"")));
        }
    }
}

#[test]
fn certificates_that_cannot_be_used_are_refused() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let (server, other) = (authority.issue("server"), authority.issue("other"));
    let folder = TempDir::new().expect("a temporary directory");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("write a file");
        path
    };
    let whole = fs::read(&server.cert).expect("a certificate");
    let garbage = "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n";
    let missing = folder.path().join("missing.pem");
    let empty = file("empty.pem", b"");
    let cut = file("cut.pem", &whole[..whole.len() / 2]);
    let broken = file("broken.pem", garbage.as_bytes());
    let binary = file("binary.pem", &[0, 255, 10, 0, 7]);
    let config = |cert: &Path, key: &Path, client_ca: Option<&Path>| {
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let client_ca = client_ca.map(|path| format!(", client_ca = {}", quoted(path)));
        let (cert, key) = (quoted(cert), quoted(key));
        let tls = format!(
            "tls = {{ cert = {cert}, key = {key}{} }}",
            client_ca.unwrap_or_default()
        );
        listen("127.0.0.1:0", &tls)
    };
    for bad in [&missing, &empty, &cut, &broken, &binary, folder.path()] {
        let shown = bad.to_str().unwrap();
        is_refused(&config(bad, &server.key, None), &[], &["tls cert", shown]);
        is_refused(&config(&server.cert, bad, None), &[], &["tls key", shown]);
        let refused = config(&server.cert, &server.key, Some(bad));
        is_refused(&refused, &[], &["tls client_ca", shown]);
    }
    let cert = server.cert.to_str().unwrap();
    let mixed = config(&server.cert, &other.key, None);
    is_refused(
        &mixed,
        &[],
        &[
            "tls cert",
            cert,
            "does not belong to the key",
            other.key.to_str().unwrap(),
        ],
    );
    for incomplete in [
        "tls = { cert = \"c.pem\" }",
        "tls = { key = \"k.pem\" }",
        "tls = {}",
    ] {
        is_refused(
            &listen("127.0.0.1:0", incomplete),
            &[],
            &["line 3", "missing field"],
        );
    }
    is_accepted(&config(
        &server.cert,
        &server.key,
        Some(&authority.certificate()),
    ));
}

#[test]
fn a_private_key_that_others_can_read_is_refused() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let server = authority.issue("server");
    let config = listen("127.0.0.1:0", &server.toml());
    let key = server.key.to_str().unwrap();
    let set = |mode| fs::set_permissions(&server.key, fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o644, 0o604, 0o660, 0o601, 0o777] {
        set(mode);
        let shown = format!("mode {mode:04o}");
        is_refused(&config, &[], &["tls key", key, &shown, "0600"]);
    }
    for mode in [0o600, 0o400] {
        set(mode);
        is_accepted(&config);
    }
    // A certificate is no secret.
    fs::set_permissions(&server.cert, fs::Permissions::from_mode(0o644)).unwrap();
    is_accepted(&config);
}

#[test]
fn an_address_that_is_taken_is_refused() {
    let daemon = Daemon::start();
    let (code, error) = run_to_end("", &["--listen", daemon.address()]);
    assert_eq!(code, EXIT_TEMPORARY, "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains(daemon.address()), "{error}");
    goes_on(&mut daemon.client());
}

/// A folder that everybody may enter, and the address of a socket in it.
fn socket_place() -> (TempDir, String) {
    let folder = TempDir::new().expect("a temporary directory");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("set its mode");
    let address = format!("unix:{}", folder.path().join("chatd.sock").display());
    (folder, address)
}

fn path_of(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix:").expect("a Unix socket"))
}

#[test]
fn a_unix_socket_has_the_mode_that_is_written_whatever_the_umask() {
    for umask in ["000", "077"] {
        let under = ["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"];
        for (more, expected) in [
            ("", 0o660),
            ("mode = \"0600\"", 0o600),
            ("mode = \"0666\"\ninsecure = true", 0o666),
        ] {
            let (_folder, address) = socket_place();
            let mut daemon = Daemon::under(&under, &listen(&address, more));
            let path = path_of(&address);
            let mode = fs::metadata(path).expect("the socket").permissions().mode();
            assert_eq!(mode & 0o777, expected, "{more} under umask {umask}");
            goes_on(&mut Client::connect(&address));
            daemon.terminate();
            assert!(!path.exists(), "the socket is left behind");
        }
    }
}

#[test]
fn a_socket_that_a_crash_left_behind_is_taken_and_no_other_file() {
    let (_folder, address) = socket_place();
    let config = listen(&address, "");
    Daemon::with(&config).kill();
    assert!(path_of(&address).exists(), "this proves nothing");
    let mut daemon = Daemon::with(&config);
    goes_on(&mut daemon.client());
    let refused = |expected: i32, said: &str| {
        let (code, error) = run_to_end(&config, &[]);
        assert_eq!(code, expected, "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(&address) && error.contains(said), "{error}");
    };
    refused(EXIT_TEMPORARY, "another process listens there");
    goes_on(&mut daemon.client());
    daemon.terminate();
    fs::write(path_of(&address), "somebody's").expect("write a file");
    refused(EXIT_CONFIG, "no socket");
    assert_eq!(fs::read(path_of(&address)).unwrap(), b"somebody's");
}

/// What a user of this number and group gets for a ping on a Unix socket.
pub fn ping_as(user: u32, group: u32, address: &str) -> String {
    use std::io::Write;
    let mut child = Command::new("timeout")
        .arg(PATIENCE.as_secs().to_string())
        .args(["nc", "-N", "-U"])
        .arg(path_of(address))
        .uid(user)
        .gid(group)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run netcat");
    let ping = b"{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\",\"tid\":1}\n";
    // One that is refused may be gone already.
    let _ = child.stdin.take().expect("its input").write_all(ping);
    let output = child.wait_with_output().expect("wait for netcat");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_unix_socket_lets_in_only_the_users_and_groups_that_are_named() {
    const NOBODY: u32 = 65534;
    const PONG: &str = "{\"result\":\"ok\",\"data\":{},\"tid\":1}\n";
    let own = rustix::process::geteuid().as_raw();
    let own_group = rustix::process::getegid().as_raw();
    let (_folder, address) = socket_place();
    let start = |allow: &str| {
        let more = format!("mode = \"0666\"\ninsecure = true\n{allow}");
        Daemon::with(&(listen("127.0.0.1:0", "") + &listen(&address, &more)))
    };
    let count = |daemon: &Daemon| {
        daemon.client().ok("server", "info", json!({}))["counters"]["refused_peers"].take()
    };
    for (number, allow) in [
        format!("allow_uids = [{}]", own + 1),
        format!("allow_groups = [\"{}\"]", own_group + 1_000_000),
        "allow_uids = []".to_owned(),
        "allow_groups = []".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let mut daemon = start(allow);
        let mut client = Client::connect(&address);
        let line = client.next_value();
        assert_eq!(
            line["body"]["code"], "forbidden",
            "{number}, {allow}: {line}"
        );
        assert_eq!(line["body"]["retry"], false, "{line}");
        client.expect_end();
        assert_eq!(count(&daemon), 1, "{allow}");
        daemon.terminate();
    }
    for allow in [
        format!("allow_uids = [{own}]"),
        format!("allow_groups = [\"{own_group}\"]"),
    ] {
        let mut daemon = start(&allow);
        goes_on(&mut Client::connect(&address));
        assert_eq!(count(&daemon), 0, "{allow}");
        daemon.terminate();
    }
    if own != 0 {
        println!("skipped: other users on a Unix socket, since only root can become them");
        return;
    }
    for (allow, nobody, root) in [
        (format!("allow_uids = [{NOBODY}]"), true, false),
        (format!("allow_groups = [\"{NOBODY}\"]"), true, false),
        ("allow_uids = [0]".to_owned(), false, true),
        (
            format!("allow_uids = [0]\nallow_groups = [\"{NOBODY}\"]"),
            true,
            true,
        ),
        (String::new(), true, true),
    ] {
        let mut daemon = start(&allow);
        for (user, is_allowed) in [(NOBODY, nobody), (0, root)] {
            let answer = ping_as(user, user, &address);
            assert_eq!(answer == PONG, is_allowed, "{user}, {allow}: {answer}");
        }
        daemon.terminate();
    }
}
