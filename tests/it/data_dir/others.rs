//! Other users on the machine: what is theirs is not used, and what they plant or lock holds up nobody.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::write_something;
use crate::crash::CONFIG;
use crate::harness::Daemon;
use crate::harness::machine::{root_with, skipped};
use crate::ledger::all;
use crate::lifecycle::refusal;

/// Somebody else.
const NOBODY: u32 = 65534;

/// A folder that everybody may enter.
fn scratch() -> TempDir {
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
    scratch
}

fn directory(path: &Path, mode: u32) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn refused(data: &Path) -> String {
    let (code, said) = refusal(&["--data-dir", data.to_str().unwrap()], CONFIG);
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    said
}

#[test]
fn a_data_directory_of_somebody_else_is_refused_and_what_to_do_is_said() {
    if let Err(why) = root_with(&["chown"]) {
        let name = "a_data_directory_of_somebody_else_is_refused_and_what_to_do_is_said";
        return skipped(name, &why);
    }
    let scratch = scratch();
    let data = scratch.path().join("data");
    directory(&data, 0o700);
    chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    // Not even root starts there: what it made would be root's from then on.
    let said = refused(&data);
    for part in [
        "belongs to nobody",
        "runs as root",
        "runuser -u nobody",
        "chown -R root",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "it left something");
    // Data in a directory of one's own that is somebody else's is not used either.
    chown(&data, Some(0), Some(0)).unwrap();
    let mut daemon = Daemon::on_dir(&data, CONFIG);
    write_something(&daemon);
    assert!(daemon.terminate().success());
    for name in ["journal", "state", "journal/MANIFEST"] {
        let path = data.join(name);
        chown(&path, Some(NOBODY), None).unwrap();
        let said = refused(&data);
        assert!(said.contains(path.to_str().unwrap()), "{said}");
        assert!(said.contains("belongs to nobody"), "{said}");
        chown(&path, Some(0), None).unwrap();
    }
    let daemon = Daemon::on_dir(&data, CONFIG);
    assert_eq!(all(&mut daemon.client(), "message").len(), 1);
}

#[test]
fn what_others_can_write_into_is_closed_or_refused() {
    let scratch = scratch();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    for open in [0o777, 0o775, 0o755] {
        let data = scratch.path().join(format!("{open:o}"));
        directory(&data, open);
        drop(Daemon::on_dir(&data, CONFIG));
        assert_eq!(mode(&data), 0o700, "{open:o}");
        // A directory with other things in it is the operator's.
        let mixed = scratch.path().join(format!("{open:o}-mixed"));
        directory(&mixed, open);
        fs::write(mixed.join("letter.txt"), "").unwrap();
        if open & 0o022 == 0 {
            drop(Daemon::on_dir(&mixed, CONFIG));
        } else {
            let said = refused(&mixed);
            assert!(said.contains("chmod go-rwx"), "{said}");
            assert_eq!(
                fs::read_dir(&mixed).unwrap().count(),
                1,
                "it left something"
            );
        }
        assert_eq!(mode(&mixed), open);
    }
    let shared = scratch.path().join("tmp");
    directory(&shared, 0o1777);
    assert!(refused(&shared).contains("others on this machine can write"));
    assert_eq!(mode(&shared), 0o1777);
}

/// The files below a directory, by their names there.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(directory).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn no_file_is_made_through_a_link_that_was_planted() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let mut daemon = Daemon::on_dir(&data, CONFIG);
    write_something(&daemon);
    let mut names = files(&data);
    assert!(daemon.terminate().success());
    names.extend(files(&data));
    names.sort();
    names.dedup();
    for name in [
        "lock",
        "running",
        "stopped",
        "reserve",
        "journal/MANIFEST",
        "state/db",
    ] {
        assert!(names.contains(&name.into()), "no {name} in {names:?}");
    }
    // Each is first written under another name, if at all.
    let new = names
        .iter()
        .map(|name| PathBuf::from(format!("{}.new", name.display())));
    let names: Vec<PathBuf> = new.chain(names.iter().cloned()).collect();
    let target = scratch.path().join("target");
    for name in &names {
        let planted = data.join(name);
        let aside = fs::read(&planted).ok();
        if name.ends_with("lock") || aside.is_none() {
            // A link to what is not there, by which it would be made.
            let _ = fs::remove_file(&planted);
        } else {
            fs::rename(&planted, &target).unwrap();
        }
        let before = fs::read(&target).ok();
        symlink(&target, &planted).unwrap();
        if name.extension().is_some_and(|ending| ending == "journal") {
            refused_at(&data, name);
            fs::remove_file(&planted).unwrap();
            fs::rename(&target, &planted).unwrap();
            continue;
        }
        let mut daemon = Daemon::on_dir(&data, CONFIG);
        write_something_more(&daemon);
        assert!(daemon.terminate().success(), "{}", name.display());
        assert_eq!(
            fs::read(&target).ok(),
            before,
            "{} was written through",
            name.display()
        );
        let _ = fs::remove_file(&target);
    }
}

fn refused_at(data: &Path, name: &Path) {
    let (code, said) = refusal(&["--data-dir", data.to_str().unwrap()], CONFIG);
    assert_eq!(code, Some(74), "{}: {said}", name.display());
}

fn write_something_more(daemon: &Daemon) {
    let mut client = daemon.client();
    assert_eq!(all(&mut client, "message").len(), 1);
    client.create_conversation("more", &[]);
}

/// Somebody else's lock, held until it is dropped.
struct ForeignLock(Child);

impl ForeignLock {
    fn hold(path: &Path) -> Self {
        let mut child = Command::new("flock")
            .arg("--no-fork")
            .arg(path)
            .args(["sh", "-c", "echo locked; exec sleep 600"])
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/")
            .stdout(Stdio::piped())
            .spawn()
            .expect("run flock");
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        assert_eq!(said, "locked\n", "{}", path.display());
        Self(child)
    }
}

impl Drop for ForeignLock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_lock_of_another_user_stops_no_start() {
    if let Err(why) = root_with(&["flock"]) {
        return skipped("the_lock_of_another_user_stops_no_start", &why);
    }
    // The directory itself; a file of the other user's; one that an older build of chatd left open.
    for (name, mode, own) in [
        (".", 0o755, false),
        ("lock", 0o777, false),
        ("lock", 0o755, true),
    ] {
        let scratch = scratch();
        let data = scratch.path().join("data");
        directory(&data, mode);
        if own {
            fs::write(data.join(name), "").unwrap();
            fs::set_permissions(data.join(name), Permissions::from_mode(0o644)).unwrap();
        }
        let lock = ForeignLock::hold(&data.join(name));
        let daemon = Daemon::on_dir(&data, CONFIG);
        write_something(&daemon);
        assert_eq!(fs::metadata(data.join("lock")).unwrap().uid(), 0, "{name}");
        // It is locked all the same, for every other chatd.
        assert!(refused(&data).contains("in use"), "{name}");
        drop(daemon);
        // From now on nobody else gets that far.
        let mut again = Command::new("flock");
        let again = again.arg("-n").arg(data.join(name)).arg("true");
        let again = again.uid(NOBODY).gid(NOBODY).current_dir("/");
        let again = again.stderr(Stdio::null()).status().unwrap();
        assert!(!again.success(), "{name}");
        // And whoever still has its lock stops no later start either.
        drop(Daemon::on_dir(&data, CONFIG));
        drop(lock);
    }
}

#[test]
fn of_several_state_directories_the_first_has_the_data() {
    let scratch = scratch();
    let [first, second] = ["first", "second"].map(|name| scratch.path().join(name));
    let output = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(["--config", "chatd.toml"])
        .current_dir({
            fs::write(scratch.path().join("chatd.toml"), "must_exist = true").unwrap();
            scratch.path()
        })
        .env(
            "STATE_DIRECTORY",
            format!("{}:{}", first.display(), second.display()),
        )
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(74), "{said}");
    let named = format!("no chatd data in {},", first.display());
    assert!(said.contains(&named), "{said}");
}
