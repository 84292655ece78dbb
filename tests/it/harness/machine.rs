//! What some tests need of the machine beyond a user's rights: file systems of their own, and tools that break them.
//!
//! Where the machine does not give it, a test says so through [`skipped`] and ends.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use super::Daemon;

/// Says on standard output, past the test runner's capture, that a test did not run and why.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stdout(), "SKIPPED {test}: {why}");
}

/// Whether this is root and every tool is there; an error says what is missing.
pub fn root_with(tools: &[&str]) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("it needs root".to_owned());
    }
    tools.iter().try_for_each(|tool| has_tool(tool))
}

/// Whether a program is there. Where all of them have been installed, as by .ci/run, one that is missing is a failure.
pub fn has_tool(tool: &str) -> Result<(), String> {
    let look = ["-c", "command -v \"$0\"", tool];
    if run(Command::new("sh").args(look)).is_ok() {
        return Ok(());
    }
    assert!(
        std::env::var_os("CHATD_TESTS_HAVE_TOOLS").is_none(),
        "{tool} is to be there"
    );
    Err(format!("it needs {tool}"))
}

/// Runs a command to its end; an error has what it said.
pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", said.trim()))
}

/// A file formatted as an ext4 disk.
pub struct Disk {
    scratch: TempDir,
}

impl Disk {
    /// Makes a disk of this many bytes, which takes no room until it is used.
    pub fn ext4(bytes: u64) -> Result<Self, String> {
        let scratch = TempDir::new().map_err(|error| error.to_string())?;
        let disk = Self { scratch };
        let image = File::create(disk.image()).map_err(|error| error.to_string())?;
        image.set_len(bytes).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(disk.image()))?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.scratch.path().join("image")
    }

    /// Mounts the disk; `options` are those of mount(8).
    pub fn mount(&self, options: &str) -> Result<Mount, String> {
        let path = self.scratch.path().join("mounted");
        fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        run(Command::new("mount")
            .args(["-o", options])
            .args([&self.image(), &path]))?;
        Ok(Mount {
            path,
            _scratch: None,
        })
    }
}

/// A mounted file system, unmounted when it goes away.
pub struct Mount {
    path: PathBuf,
    _scratch: Option<TempDir>,
}

impl Mount {
    /// An empty file system of this many bytes in memory.
    pub fn tmpfs(bytes: u64) -> Result<Self, String> {
        let scratch = TempDir::new().map_err(|error| error.to_string())?;
        let path = scratch.path().to_path_buf();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(&path))?;
        Ok(Self {
            path,
            _scratch: Some(scratch),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A failing test may still have files open here; then the kernel lets go when they are closed.
        if run(Command::new("umount").arg(&self.path)).is_err() {
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.path));
        }
    }
}

/// Takes the power of a file system away: nothing that it has not yet written is ever written.
pub struct PowerSwitch {
    process: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
}

impl PowerSwitch {
    /// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`. Perl is part of every Debian, and its ioctl takes plain
    /// numbers.
    const PROGRAM: &str = r#"
        $| = 1;
        open(my $disk, "<", $ARGV[0]) or die "open: $!";
        my $without_flushing = pack("L", 2);
        print "ready\n";
        <STDIN>;
        ioctl($disk, 0x8004587d, $without_flushing) or die "ioctl: $!";
        print "down\n";
    "#;

    /// A switch that is ready to be thrown at once.
    pub fn of(mount: &Mount) -> Result<Self, String> {
        let mut process = Command::new("perl")
            .args(["-e", Self::PROGRAM])
            .arg(mount.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let (orders, reports) = (process.stdin.take(), process.stdout.take());
        let (Some(orders), Some(reports)) = (orders, reports) else {
            return Err("no pipes".to_owned());
        };
        let mut switch = Self {
            process,
            orders,
            reports: BufReader::new(reports),
        };
        switch.expect("ready")?;
        Ok(switch)
    }

    /// Cuts the power; when this returns, it is gone.
    pub fn cut(mut self) -> Result<(), String> {
        self.orders
            .write_all(b"\n")
            .map_err(|error| error.to_string())?;
        self.expect("down")
    }

    fn expect(&mut self, report: &str) -> Result<(), String> {
        let mut line = String::new();
        self.reports
            .read_line(&mut line)
            .map_err(|error| error.to_string())?;
        if line.trim_end() == report {
            Ok(())
        } else {
            Err(format!("the power switch is not {report}"))
        }
    }
}

impl Drop for PowerSwitch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Lets a system call of a running daemon fail, until it goes away.
pub struct Fault {
    strace: Child,
    /// Open as long as strace has something to say.
    _said: Option<BufReader<ChildStderr>>,
}

impl Fault {
    /// Attaches to the daemon. Calls on the files of its journal fail with an error such as `EIO`.
    pub fn inject(daemon: &Daemon, calls: &[&str], error: &str) -> Result<Self, String> {
        let entries = fs::read_dir(daemon.data_dir().join("journal"));
        let paths = entries
            .map_err(|error| error.to_string())?
            .map(|entry| Ok(entry.map_err(|error| error.to_string())?.path()))
            .collect::<Result<Vec<_>, String>>()?;
        Self::inject_on(daemon, &paths, calls, error)
    }

    /// Attaches to the daemon. Calls on these files fail with an error such as `EIO`.
    pub fn inject_on(
        daemon: &Daemon,
        paths: &[PathBuf],
        calls: &[&str],
        error: &str,
    ) -> Result<Self, String> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null"]);
        strace.args(["-e", &format!("trace={}", calls.join(","))]);
        for call in calls {
            strace.args(["-e", &format!("inject={call}:error={error}:when=1+")]);
        }
        for path in paths {
            strace.arg("-P").arg(path);
        }
        let mut strace = strace
            .args(["-p", &daemon.pid().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stderr = strace.stderr.take().map(BufReader::new);
        let mut said = String::new();
        if let Some(stderr) = &mut stderr {
            let _ = stderr.read_line(&mut said);
        }
        let fault = Self {
            strace,
            _said: stderr,
        };
        if said.contains("attached") {
            Ok(fault)
        } else {
            Err(format!("strace cannot attach: {}", said.trim()))
        }
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.strace);
        // Asked kindly, it detaches first.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.strace.wait();
    }
}
