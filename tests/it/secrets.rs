//! Passwords, tokens and hashes: they go in, and come out nowhere.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Client, Daemon};

const PASSWORD: &str = "canary-of-a-password";
/// As long as bcrypt reads, and one byte longer.
const LONG: usize = 72;

const CONFIG: &str = "\
[[listen]]
address = \"127.0.0.1:0\"
[[listen]]
address = \"127.0.0.1:0\"
access = \"login\"
[limits]
max_connections_per_address = 10000
[security]
bcrypt_cost = 4
registration = \"open\"
failed_logins_per_minute = 1000000
[log]
level = \"trace\"
";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Trusted,
    Admin,
    User,
    Stranger,
}

/// The objects that a command may need, made anew for each since it may be the end of them.
struct Objects {
    user: String,
    other: String,
    login: String,
    conversation: String,
    message: String,
    token_id: String,
    token: String,
}

/// A daemon full of secrets, and everything that it said.
struct Watched {
    daemon: Daemon,
    setup: Client,
    said: String,
    tokens: Vec<String>,
    made: usize,
}

impl Watched {
    fn new() -> Self {
        let daemon = Daemon::with(CONFIG);
        let mut setup = daemon.client();
        let chief = json!({"login": "chief", "name": "n", "password": PASSWORD, "role": "admin"});
        setup.ok("user", "create", chief);
        Self {
            daemon,
            setup,
            said: String::new(),
            tokens: Vec::new(),
            made: 0,
        }
    }

    fn objects(&mut self) -> Objects {
        self.made += 1;
        let login = format!("user-{}", self.made);
        let setup = &mut self.setup;
        let mut create = |login: &str| {
            let data = json!({"login": login, "name": "n", "password": PASSWORD});
            text(&setup.ok("user", "create", data)["user_id"])
        };
        let (user, other) = (create(&login), create(&format!("{login}-other")));
        let conversation = setup.create_conversation("room", &[&user]);
        let message = setup.send_message(&conversation, &user, "hello");
        let token = json!({"name": "n", "user_id": user});
        let token = setup.ok("session", "token_create", token);
        self.tokens.push(text(&token["token"]));
        Objects {
            user,
            other,
            login,
            conversation,
            message,
            token_id: text(&token["token_id"]),
            token: text(&token["token"]),
        }
    }

    fn connect(&self, who: Who, objects: &Objects) -> Client {
        match who {
            Who::Trusted => self.daemon.client(),
            Who::Stranger => Client::connect(self.daemon.address_of("login")),
            Who::Admin | Who::User => {
                let mut client = Client::connect(self.daemon.address_of("login"));
                if who == Who::Admin {
                    client.login("chief", PASSWORD);
                } else {
                    client.ok("session", "login", json!({"token": objects.token}));
                }
                client
            }
        }
    }

    /// Sends bytes, and keeps whatever comes back until an answer to what was sent last.
    fn say(&mut self, client: &mut Client, bytes: &[u8]) {
        const LAST: &str = r#"{"class":"chat","subclass":"session","cmd":"ping","tid":"last"}"#;
        client.send_bytes(bytes);
        client.send_bytes(format!("\n{LAST}\n").as_bytes());
        while let Some(line) = client.read_line() {
            self.said.push_str(&line);
            self.said.push('\n');
            if line.ends_with(r#""tid":"last"}"#) {
                break;
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The example of `server help` with what there is in place of what there is not.
fn fill_in(example: &Value, objects: &Objects, session: &str) -> String {
    // Only who creates a user needs a login that nobody has.
    let creates = example["subclass"] == "user" && example["cmd"] == "create";
    let login = if creates {
        format!("{}-new", objects.login)
    } else {
        objects.login.clone()
    };
    example
        .to_string()
        .replace("01k9user00001", &objects.user)
        .replace("01k9user00002", &objects.other)
        .replace("01k9conv00001", &objects.conversation)
        .replace("01k9mess00001", &objects.message)
        .replace("01k9token0001", &objects.token_id)
        .replace("81k9sess00001", session)
        .replace("ann@example.org", &login)
        .replace("a good s3cret", PASSWORD)
}

/// Requests that ask for secrets, or hold them where they are refused.
fn tricks(objects: &Objects) -> Vec<Vec<u8>> {
    let request = |subclass: &str, cmd: &str, data: Value| {
        json!({"class": "chat", "subclass": subclass, "cmd": cmd, "data": data})
            .to_string()
            .into_bytes()
    };
    let mut lines = Vec::new();
    for name in [
        "password",
        "password_hash",
        "hash",
        "token",
        "token_hash",
        "secret",
    ] {
        for data in [
            json!({"fields": name}),
            json!({"fields": ["_all", name]}),
            json!({"fields": "_all", "sort_by": name}),
            json!({"fields": "_all", "filter": {name: PASSWORD}}),
            json!({"fields": "_all", "filter": {name: {"prefix": "$2"}}}),
            json!({"fields": "_all", "filter": {"name": {name: PASSWORD}}}),
        ] {
            lines.push(request("user", "search", data));
        }
        lines.push(request(
            "user",
            "get",
            json!({"user_id": objects.user, "fields": name}),
        ));
        lines.push(request("server", "help", json!({"subclass": name})));
    }
    let long = PASSWORD.repeat(4);
    for password in [
        json!([PASSWORD]),
        json!({"password": PASSWORD}),
        json!({PASSWORD: 1}),
        json!(&long[..=LONG]),
        json!(format!("{PASSWORD}\0")),
        json!(&long[..LONG]),
        json!(format!("{PASSWORD}-wrong")),
    ] {
        let login = json!({"login": objects.login, "password": password});
        lines.push(request("session", "login", login));
        let create = json!({"login": objects.login, "name": "n", "password": password});
        lines.push(request("user", "create", create));
        let update = json!({"user_id": objects.user, "password": password});
        lines.push(request("user", "update", update));
        let own = json!({"user_id": objects.user, "password": PASSWORD, "old_password": password});
        lines.push(request("user", "update", own));
        let unknown = json!({"user_id": objects.user, "password": password, "nonsense": 1});
        lines.push(request("user", "update", unknown));
    }
    for token in [
        objects.token.clone(),
        objects.token.replace("cht_", ""),
        format!("{}0", objects.token),
        objects.token.to_uppercase(),
        format!("cht_{}", "0".repeat(64)),
    ] {
        lines.push(request("session", "login", json!({"token": token})));
        lines.push(request("session", "login", json!({"token": [token]})));
        let both = json!({"token": token, "login": objects.login, "password": PASSWORD});
        lines.push(request("session", "login", both));
    }
    let whole = request(
        "session",
        "login",
        json!({"login": objects.login, "password": PASSWORD, "token": objects.token}),
    );
    // Lines that are none: cut off, not UTF-8, a field twice, no object, too long.
    for end in [whole.len() - 1, whole.len() - 3, whole.len() / 2] {
        lines.push(whole[..end].to_vec());
    }
    lines.push([&whole[..], b"\xff"].concat());
    lines.push(
        String::from_utf8_lossy(&whole)
            .replace("\"login\":\"", "\"password\":\"")
            .into(),
    );
    lines.push(format!("[{:?},{:?}]", PASSWORD, objects.token).into_bytes());
    lines.push([&whole[..], &vec![b' '; 70_000]].concat());
    lines.push(PASSWORD.as_bytes().to_vec());
    lines
}

/// Every file under a folder, its bytes behind one another.
fn bytes_under(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            bytes.extend(bytes_under(&path));
        } else {
            bytes.extend(fs::read(&path).unwrap_or_default());
        }
    }
    bytes
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}

/// The bcrypt hashes among these bytes.
fn hashes_in(bytes: &[u8]) -> BTreeSet<String> {
    const MARK: &[u8] = b"$2b$04$";
    const HASH_BYTES: usize = 60;
    let hashes = memchr::memmem::find_iter(bytes, MARK).filter_map(|place| {
        let hash = bytes.get(place..place + HASH_BYTES)?;
        let whole = hash.iter().all(u8::is_ascii_graphic);
        whole.then(|| String::from_utf8_lossy(hash).into_owned())
    });
    hashes.collect()
}

const EVERYBODY: [Who; 4] = [Who::Trusted, Who::Admin, Who::User, Who::Stranger];

#[test]
fn secrets_reach_no_answer_event_log_line_or_process_title() {
    let mut watched = Watched::new();
    let first = watched.objects();
    let mut listeners = [Who::Trusted, Who::Admin, Who::User].map(|who| {
        let mut listener = watched.connect(who, &first);
        listener.subscribe(json!({}));
        listener
    });
    try_every_command(&mut watched);
    for who in EVERYBODY {
        let objects = watched.objects();
        for line in tricks(&objects) {
            let mut client = watched.connect(who, &objects);
            watched.say(&mut client, &line);
        }
    }
    let before = watched.said.len();
    for listener in &mut listeners {
        watched.say(listener, b"");
    }
    let events = &watched.said[before..];
    assert!(
        events.contains(r#""type":"created""#),
        "the listeners saw nothing"
    );

    let stored = bytes_under(watched.daemon.data_dir());
    let hashes = hashes_in(&stored);
    assert!(
        hashes.len() > 10,
        "the hashes are not where they were looked for"
    );
    let mut secrets = vec![PASSWORD.to_owned(), "$2b$".to_owned()];
    secrets.extend(hashes);
    for token in &watched.tokens {
        let digits = token.strip_prefix("cht_").expect("a token").to_owned();
        assert!(
            !holds(&stored, digits.as_bytes()),
            "a token is stored as text"
        );
        let bits = hex::decode(&digits).expect("a token");
        assert!(!holds(&stored, &bits), "a token is stored");
        secrets.push(digits);
    }
    assert!(!holds(&stored, PASSWORD.as_bytes()), "a password is stored");

    let data_dir = TempDir::new().expect("a temporary directory");
    let process = format!("/proc/{}", watched.daemon.pid());
    let title = ["cmdline", "comm", "environ", "status"].map(|name| {
        let read = fs::read_to_string(format!("{process}/{name}"));
        read.unwrap_or_else(|error| {
            println!("skipped: looking into {name}: {error}");
            String::new()
        })
    });
    let title = title.concat();
    watched.daemon.terminate();
    let log = watched.daemon.log();
    assert!(
        log.contains("audit") && log.contains("login_failed"),
        "nothing was logged: {log}"
    );
    // What is read back at the next start passes through the log of that one.
    copy(watched.daemon.data_dir(), data_dir.path());
    let again = Daemon::on_dir(data_dir.path(), CONFIG);
    let logs = log + &again.log();
    for (place, text) in [
        ("an answer or event", &watched.said),
        ("the log", &logs),
        ("the process", &title),
    ] {
        for secret in &secrets {
            let found = text.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(found, None, "{secret} is in {place}");
        }
    }
}

/// How a token stands in the answer that shows it.
const SHOWN: &str = r#""token":"cht_"#;
const TOKEN_BYTES: usize = 68;

/// Every command that there is, as everybody; each is done for somebody at least.
fn try_every_command(watched: &mut Watched) {
    let commands = watched.setup.ok("server", "help", json!({}))["commands"].take();
    for command in commands.as_array().expect("the commands") {
        let example = &command["example"];
        let before = watched.said.len();
        for who in EVERYBODY {
            let objects = watched.objects();
            let mut client = watched.connect(who, &objects);
            let mut other = watched.connect(Who::User, &objects);
            let session = other.ok("session", "get", json!({}));
            let line = fill_in(example, &objects, &text(&session["session_id"]));
            watched.say(&mut client, line.as_bytes());
        }
        let said = &watched.said[before..];
        let done = said.lines().any(|line| {
            line.starts_with(r#"{"result":"ok""#) && !line.ends_with(r#""tid":"last"}"#)
        });
        assert!(done, "{example} is for nobody: {said}");
    }
    // A token is shown once, to who creates it; from then on it is a secret.
    while let Some(place) = watched.said.find(SHOWN) {
        let begin = place + SHOWN.len() - 4;
        let token = watched.said[begin..begin + TOKEN_BYTES].to_owned();
        watched.said = watched.said.replacen(&token, "", 1);
        watched.tokens.push(token);
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir(&target).expect("make a folder");
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copy a file");
        }
    }
}

#[test]
fn a_crash_leaves_no_core_dump() {
    // The shell lifts the limit that the machine may have set, so that it is chatd's own that is seen.
    let lifted = [
        "sh",
        "-c",
        "ulimit -c unlimited 2>/dev/null; exec \"$@\"",
        "sh",
    ];
    let control = Command::new("sh")
        .args(["-c", "ulimit -c unlimited 2>/dev/null; kill -ABRT $$"])
        .current_dir(TempDir::new().expect("a temporary directory").path())
        .status()
        .expect("run a shell");
    if !control.core_dumped() {
        println!("this machine dumps nobody's core, so that only the limit is tested");
    }
    let mut daemon = Daemon::under(&lifted, "");
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let words: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
    let status = daemon.end_with(Signal::ABORT);
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    assert!(!status.core_dumped());
}

#[test]
fn another_process_of_the_same_user_cannot_look_into_its_memory() {
    const NOBODY: u32 = 65534;
    let scratch = TempDir::new().expect("a temporary directory");
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    let chatd = scratch.path().join("chatd");
    fs::copy(env!("CARGO_BIN_EXE_chatd"), &chatd).expect("copy chatd");
    open(scratch.path());
    let start = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(scratch.path());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().expect("start a program");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = lines.next().expect("a line").expect("a line");
        let owner = fs::metadata(format!("/proc/{}/environ", child.id()))
            .unwrap()
            .uid();
        child.kill().expect("kill it");
        child.wait().expect("wait for it");
        (line, owner)
    };
    // The files in /proc of a process that is not dumpable belong to root.
    let (_, control) = start(Path::new("sh"), &["-c", "echo here; read line"]);
    assert_ne!(control, 0, "this proves nothing");
    let (line, owner) = start(&chatd, &["--listen", "127.0.0.1:0", "--data-dir", "data"]);
    assert!(line.starts_with("chatd "), "{line}");
    assert_eq!(owner, 0);
}
