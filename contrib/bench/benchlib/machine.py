"""The machine: what it is, how fast it syncs, how busy others keep it, and on which cores things run."""

import os
import platform
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


class Failure(Exception):
    """Something that a person must read, without a stack trace."""


@dataclass(frozen=True)
class Cores:
    """Where servers and clients run, as taskset's lists: the same for every contender."""

    server: str
    client: str

    @staticmethod
    def default():
        """Halves of the machine; on two cores or fewer, all share all of them: no server is held to one core."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 4:
            every = ",".join(map(str, cores))
            return Cores(every, every)
        half = len(cores) // 2
        return Cores(",".join(map(str, cores[:half])), ",".join(map(str, cores[half:])))


def command_on(cores, command, user=None):
    """The command, held to cores, as a user, and gone when this script goes, however that happens."""
    prefix = ["setpriv", "--pdeathsig", "TERM"]
    if user is not None:
        account = pwd.getpwnam(user)
        prefix += ["--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups"]
    return [*prefix, "taskset", "--cpu-list", cores, *map(str, command)]


def build(*targets):
    """Builds in release mode and gives the directory of the binaries."""
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet", *targets], cwd=ROOT, check=True
    )
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release"


def temporary_directory(parent):
    """A directory for data on a real disk, that servers running as other users may enter."""
    directory = Path(tempfile.mkdtemp(prefix="chatd-bench-", dir=parent))
    directory.chmod(0o755)
    return directory


def file_system_of(directory):
    """The type of the file system that a directory is on."""
    listed = subprocess.run(["df", "--output=fstype", directory], capture_output=True, text=True, check=True)
    return listed.stdout.split()[-1]


def syncs_per_second(directory, seconds=1.0):
    """Appends of 4 KiB, each followed by fdatasync: the speed that bounds every durable write, one by one."""
    path = Path(directory, "sync-speed")
    block = bytes(4096)
    count = 0
    with open(path, "wb", buffering=0) as file:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            file.write(block)
            os.fdatasync(file.fileno())
            count += 1
        took = time.monotonic() - began
    path.unlink()
    return count / took


def busy_percent(seconds=0.3):
    """How much of the processors' time goes to others, while nothing of ours runs."""

    def times():
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    total, idle = times()
    time.sleep(seconds)
    total_after, idle_after = times()
    return 100 * (1 - (idle_after - idle) / max(1, total_after - total))


def facts(directory, cores):
    """The machine in a few lines."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    memory = re.search(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    release = re.search(r'PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text())
    return {
        "processor": model.group(1) if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.group(1)) / 2**20),
        "system": f"{release.group(1) if release else platform.system()}, Linux {platform.release()}",
        "file_system": file_system_of(directory),
        "fdatasync_per_second": round(syncs_per_second(directory)),
        "server_cores": cores.server,
        "client_cores": cores.client,
    }


def facts_line(facts):
    """The same as one sentence."""
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, "
        f"{facts['file_system']} with {facts['fdatasync_per_second']:,} fdatasync of 4 KiB a second one after another; "
        f"servers on core(s) {facts['server_cores']}, clients on core(s) {facts['client_cores']}"
    )


def version_of(command):
    """The first line that a program prints of its version."""
    printed = subprocess.run(command, capture_output=True, text=True, check=False)
    return (printed.stdout + printed.stderr).strip().split("\n")[0]


def commit():
    """The commit that is measured, marked where files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=10"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"


def missing_packages(needed):
    """The packages, of a list of (program, package), whose program is not there."""
    return sorted({package for program, package in needed if shutil.which(str(program)) is None})


def provide(needed, install):
    """Makes sure that programs are there: installs their packages when told to, else says how."""
    missing = missing_packages(needed)
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if not install:
        raise Failure(
            f"not installed: {', '.join(missing)}; run this again with --install, or: {' '.join(command)}"
        )
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    subprocess.run(["apt-get", "update", "--quiet", "--quiet"], check=True, env=environment)
    subprocess.run(command, check=True, env=environment)
