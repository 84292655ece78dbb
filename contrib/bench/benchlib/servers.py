"""The servers: each is started on its own free port of the loopback interface, with its data in a directory of its
own, and stopped again. None touches a server that the machine runs already."""

import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from benchlib.machine import Failure, command_on, version_of

STOP_SECONDS = 60


class Server:
    """A server that is started on entry and stopped on exit."""

    name = ""
    # (program, Debian package) of what must be there.
    needed = ()
    version_command = ()
    stop_signal = signal.SIGTERM
    start_seconds = 30
    # Some servers refuse to run as root.
    unprivileged = False

    def __init__(self, directory, cores):
        self.directory = Path(directory, self.name)
        self.cores = cores
        self.process = None
        self.port = 0

    def prepare(self):
        """Writes configuration and data before the start."""

    def command(self):
        """What to run."""
        raise NotImplementedError

    def ready(self):
        """Whether it can be used: by default, whether something listens."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def after_start(self):
        """What is done once it can be used."""

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def log(self):
        return self.directory / "log"

    def user(self):
        """As whom it runs, if not as whoever runs this."""
        if not self.unprivileged or os.getuid() != 0:
            return None
        try:
            return pwd.getpwnam(self.name).pw_name
        except KeyError:
            return "nobody"

    def run(self, command, **more):
        """Runs a command as the server's user, and gives what it printed."""
        done = subprocess.run(
            command_on(self.cores.server, command, self.user()), capture_output=True, text=True, check=False,
            cwd=self.directory, **more,
        )
        if done.returncode != 0:
            raise Failure(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def __enter__(self):
        self.directory.mkdir()
        if self.user() is not None:
            shutil.chown(self.directory, self.user())
        self.port = free_port()
        try:
            self.prepare()
            self.start()
            self.after_start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        """Starts it and waits until it can be used."""
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command_on(self.cores.server, self.command(), self.user()),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=self.directory, start_new_session=True,
            )
        deadline = time.monotonic() + self.start_seconds
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    @classmethod
    def version(cls):
        return version_of([*map(str, cls.version_command)])


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Chatd(Server):
    """chatd, as it comes, but for the number of connections that it takes."""

    name = "chatd"
    binary = Path("chatd")

    def prepare(self):
        configuration = (
            f'data_dir = "{self.directory}/data"\n\n[[listen]]\naddress = "127.0.0.1:0"\n\n'
            "[limits]\nmax_connections = 1\nmax_connections_trusted = 20000\n\n[log]\nlevel = \"warn\"\n"
        )
        (self.directory / "chatd.toml").write_text(configuration)

    def command(self):
        return [self.binary, "--config", self.directory / "chatd.toml"]

    def ready(self):
        listening = re.search(r"^listening on 127\.0\.0\.1:(\d+) ", self.log.read_text(errors="replace"), re.MULTILINE)
        if listening is None:
            return False
        self.port = int(listening.group(1))
        return True


    def ask(self, subclass, command, **data):
        """The data of the answer to a request."""
        request = {"class": "chat", "subclass": subclass, "cmd": command, "data": data}
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as stream:
            stream.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(stream.makefile().readline())
        if answer["result"] != "ok":
            raise Failure(f"chatd: {answer}")
        return answer["data"]


class Postgres(Server):
    """PostgreSQL: a cluster of its own. The settings are the defaults but for those that would slow it down here."""

    name = "postgres"
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), default=Path("/usr/bin"))
    needed = (("pgbench", "postgresql"), (binaries / "initdb", "postgresql"), (binaries / "postgres", "postgresql"))
    version_command = (binaries / "postgres", "--version")
    # SIGTERM would wait for clients.
    stop_signal = signal.SIGINT
    unprivileged = True

    SCHEMA = """
        CREATE TABLE message (
            message_id bigserial PRIMARY KEY, conversation_id bigint NOT NULL, user_id bigint NOT NULL,
            message text NOT NULL, created_time timestamptz NOT NULL DEFAULT now());
        CREATE INDEX ON message (conversation_id, message_id);
        CREATE TABLE event (
            seq bigserial PRIMARY KEY, type text NOT NULL, obj_id bigint NOT NULL, body json NOT NULL,
            time timestamptz NOT NULL DEFAULT now());
    """

    def prepare(self):
        self.run([
            self.binaries / "initdb", "--pgdata", "data", "--username", "postgres", "--auth", "trust",
            "--no-locale", "--encoding", "UTF8", "--no-sync", "--no-instructions",
        ])
        settings = (
            f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\n"
            "synchronous_commit = on\nfsync = on\nmax_connections = 300\n"
            "shared_buffers = 1GB\nmax_wal_size = 8GB\nmin_wal_size = 2GB\n"
        )
        with open(self.directory / "data/postgresql.conf", "a", encoding="utf-8") as file:
            file.write(settings)

    def command(self):
        return [self.binaries / "postgres", "-D", "data"]

    def ready(self):
        return "database system is ready to accept connections" in self.log.read_text(errors="replace")

    def after_start(self):
        self.query(self.SCHEMA)

    def query(self, sql):
        """The result of a query, or of several."""
        return self.run([
            "psql", "--host", "127.0.0.1", "--port", self.port, "--username", "postgres", "--no-psqlrc",
            "--tuples-only", "--no-align", "--quiet", "--set", "ON_ERROR_STOP=1", "--command", sql,
        ]).strip()


class Redis(Server):
    """Redis: every write is in the append-only file and synced before it is answered."""

    name = "redis"
    needed = (("redis-server", "redis-server"), ("redis-benchmark", "redis-tools"))
    version_command = ("redis-server", "--version")

    def command(self):
        return [
            "redis-server", "--bind", "127.0.0.1", "--port", self.port, "--dir", self.directory, "--daemonize", "no",
            "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--maxclients", 19000,
        ]

    def after_start(self):
        if self.ask("CONFIG", "GET", "appendfsync").split()[-1] != "always":
            raise Failure("redis does not sync its append-only file")

    def ask(self, *words):
        """The answer to a command."""
        return self.run(["redis-cli", "-h", "127.0.0.1", "-p", self.port, *words]).strip()


class Nats(Server):
    """nats-server with JetStream. Only from 2.10 on can it sync each message before it acknowledges it."""

    name = "nats"
    needed = (("nats-server", "nats-server"),)
    version_command = ("nats-server", "--version")

    @classmethod
    def syncs(cls):
        """Whether it can be told to sync before it acknowledges."""
        number = re.search(r"v(\d+)\.(\d+)", cls.version())
        return number is not None and tuple(map(int, number.groups())) >= (2, 10)

    def prepare(self):
        always = "  sync_interval: always\n" if self.syncs() else ""
        (self.directory / "nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\nmax_connections: 20000\n'
            f'jetstream {{\n  store_dir: "{self.directory}/data"\n  max_file_store: 20G\n{always}}}\n'
        )

    def command(self):
        return ["nats-server", "--config", "nats.conf"]


class Inspircd(Server):
    """InspIRCd, with its protection against floods and clones off: they would be all that is measured."""

    name = "inspircd"
    needed = (("inspircd", "inspircd"),)
    version_command = ("inspircd", "--version")
    unprivileged = True

    def prepare(self):
        (self.directory / "inspircd.conf").write_text(f"""
            <server name="irc.example.org" description="bench" network="bench">
            <admin name="bench" nick="bench" email="bench@example.org">
            <bind address="127.0.0.1" port="{self.port}" type="clients">
            <connect name="all" allow="*" timeout="60" hardsendq="64M" softsendq="64M" recvq="1M" threshold="1000000"
                commandrate="1000000000" fakelag="no" localmax="20000" globalmax="20000" maxconnwarn="no"
                maxchans="20" resolvehostnames="no" useident="no" limit="20000">
            <performance netbuffersize="65536" somaxconn="4096" softlimit="20000" clonesonconnect="no">
            <security allowcoreunload="no">
            <path datadir="{self.directory}" logdir="{self.directory}" runtimedir="{self.directory}">
            <pid file="{self.directory}/pid">
        """)

    def command(self):
        return ["inspircd", "--nofork", "--nolog", "--config", self.directory / "inspircd.conf"]
