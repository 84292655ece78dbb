//! What is shipped for servers: the systemd unit, and the configuration that goes with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use serde_json::json;

use crate::harness::Daemon;
use crate::harness::machine::{has_tool, root_with, run, skipped};
use crate::listeners::ping_as;

const UNIT: &str = include_str!("../../contrib/chatd.service");
const CONFIG: &str = include_str!("../../contrib/chatd.server.toml");
/// A group that stands for the one in the unit, a member of it, and somebody else.
const GROUP: u32 = 65534;
const MEMBER: u32 = 65533;
const OTHER: u32 = 65532;

/// What the unit says under a name.
fn unit(name: &str) -> &'static str {
    let mut values = UNIT
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values
        .next()
        .unwrap_or_else(|| panic!("no {name}= in the unit"))
}

#[test]
fn the_unit_and_its_configuration_name_the_same_paths_and_listen_on_a_unix_socket() {
    let config: toml::Table = CONFIG.parse().unwrap();
    let data = format!("/var/lib/{}", unit("StateDirectory"));
    assert_eq!(config["data_dir"].as_str(), Some(&*data));
    let listeners = config["listen"].as_array().unwrap();
    let addresses: Vec<&str> = listeners
        .iter()
        .filter_map(|listener| listener["address"].as_str())
        .collect();
    let socket = format!("unix:/run/{}/chatd.sock", unit("RuntimeDirectory"));
    assert_eq!(addresses, [socket]);
    assert!(
        CONFIG.contains(&format!("`{}`", unit("Group"))),
        "the group"
    );
}

#[test]
fn systemd_finds_no_fault_with_the_unit() {
    if let Err(why) = has_tool("systemd-analyze") {
        return skipped("systemd_finds_no_fault_with_the_unit", &why);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chatd.service");
    let installed = UNIT.replace("/usr/local/bin/chatd", env!("CARGO_BIN_EXE_chatd"));
    fs::write(&file, installed).unwrap();
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // What it only warns of.
    assert!(!said.contains("chatd.service"), "{said}");
}

#[test]
fn the_configuration_of_servers_is_in_order_and_lets_the_group_in_alone() {
    const NAME: &str = "the_configuration_of_servers_is_in_order_and_lets_the_group_in_alone";
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let runtime = format!("/run/{}", unit("RuntimeDirectory"));
    let config = CONFIG.replace(&runtime, folder.path().to_str().unwrap());
    let file = folder.path().join("chatd.toml");
    fs::write(&file, &config).unwrap();
    let check = ["--check-config", "--config"];
    run(Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(check)
        .arg(&file))
    .unwrap();
    // Started as the unit does it, with its group and its umask.
    let as_group = format!(
        "umask {}; exec setpriv --regid={GROUP} --clear-groups \"$0\" \"$@\"",
        unit("UMask")
    );
    if let Err(why) = root_with(&["setpriv"]) {
        return skipped(NAME, &why);
    }
    let daemon = Daemon::under(&["sh", "-c", &as_group], &config);
    daemon.client().ok("session", "ping", json!({}));
    let about = fs::metadata(folder.path().join("chatd.sock")).unwrap();
    assert_eq!((about.mode() & 0o777, about.gid()), (0o660, GROUP));
    let answer = ping_as(MEMBER, GROUP, daemon.address());
    assert!(answer.contains("\"result\":\"ok\""), "{answer}");
    assert_eq!(ping_as(OTHER, OTHER, daemon.address()), "");
}
