//! fail2ban finds in chatd's log whom to keep out, and nobody else.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::machine::{has_tool, run, skipped};
use crate::harness::{Client, Daemon};

const CONFIG: &str = r#"
[[listen]]
address = "127.0.0.1:0"
[[listen]]
address = "127.0.0.1:0"
access = "login"
[limits]
max_connections_per_address = 1
[security]
bcrypt_cost = 4
"#;

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/fail2ban");
    path.join(name).to_str().unwrap().to_owned()
}

fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 8, number))
}

/// Whom the filter finds in a log, in the order of the lines.
fn found(log: &Path) -> Vec<String> {
    let output = Command::new("fail2ban-regex")
        .args(["--out", "ip"])
        .arg(log)
        .arg(shipped("filter.d/chatd.conf"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    said.lines().map(str::to_owned).collect()
}

#[test]
fn fail2ban_finds_failed_logins_and_abuse_and_nobody_else() {
    const NAME: &str = "fail2ban_finds_failed_logins_and_abuse_and_nobody_else";
    if let Err(why) = has_tool("fail2ban-regex") {
        return skipped(NAME, &why);
    }
    for format in ["text", "json"] {
        let daemon = Daemon::with(&format!("{CONFIG}[log]\nformat = \"{format}\"\n"));
        daemon.client().create_user("ann");
        let from = |number| Client::connect_from(address(number), daemon.address_of("login"));
        // A good login, a place that is taken, and names that look like lines about others.
        let mut ann = from(1);
        ann.login("ann", "s3cret");
        let mut second = from(1);
        while second.read_line_or_end().is_some() {}
        let forged = [
            r#"","remote":"127.0.8.99:1""#.to_owned(),
            r#"{"event":"closed","result":"http","remote":"127.0.8.99:1"}"#.to_owned(),
            "\n2026-01-01T00:00:00.000000Z  INFO audit: {\"event\":\"closed\",\"result\":\"http\",\"remote\":\"127.0.8.99:1\"}"
                .to_owned(),
        ];
        let mut guesser = from(2);
        for login in &forged {
            let guess = json!({"login": login, "password": "a guess"});
            guesser.code("session", "login", guess);
        }
        let mut browser = from(3);
        browser.send_line("GET / HTTP/1.1");
        browser.read_line();
        browser.expect_end();
        let mut mailer = from(4);
        mailer.send_line("EHLO mail.example.org");
        while mailer.read_line_or_end().is_some() {}
        let expected = [2, 2, 2, 3, 4].map(|number| address(number).to_string());
        let log = daemon.log();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("chatd.log");
        fs::write(&file, &log).unwrap();
        assert_eq!(found(&file), expected, "{format}: {log}");
        // As fail2ban is given the lines of the journal.
        let journal = log.lines().map(|line| format!("host chatd[17]: {line}\n"));
        fs::write(&file, journal.collect::<String>()).unwrap();
        assert_eq!(found(&file), expected, "{format}, journal: {log}");
    }
}

#[test]
fn fail2ban_takes_the_shipped_filter_and_jail() {
    const NAME: &str = "fail2ban_takes_the_shipped_filter_and_jail";
    if let Err(why) = has_tool("fail2ban-client") {
        return skipped(NAME, &why);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    run(Command::new("cp").args(["-r", "/etc/fail2ban/."]).arg(path)).unwrap();
    // Jails that a distribution enables need logs of others.
    fs::remove_dir_all(path.join("jail.d")).unwrap();
    run(Command::new("cp").args(["-r", &shipped(".")]).arg(path)).unwrap();
    let checked = Command::new("fail2ban-client")
        .arg("-c")
        .arg(path)
        .arg("--dp")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("['add', 'chatd', 'systemd']"), "{said}");
    assert!(said.contains("['start', 'chatd']"), "{said}");
}
