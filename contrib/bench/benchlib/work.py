"""The work: what is asked of chatd and of each contender, and what is taken down of it.

Every function runs one load against a server that was just started, checks that nothing was lost, and gives a result:
`value` in the group's unit, `latency_us` where the client tells it, and `raw`, what the client printed.
"""

import csv
import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from benchlib import servers
from benchlib.machine import Failure, command_on

ROOMS = 16
PAGE_MESSAGES = 200_000


@dataclass(frozen=True)
class Options:
    """What is the same for every contender."""

    cores: object
    peers: Path
    seconds: float = 5.0
    payload: int = 200
    subscribers: int = 1000
    idle_connections: int = 5000


@dataclass(frozen=True)
class Contender:
    """A server, with the work that it does in a group."""

    name: str
    server: type
    run: object


@dataclass(frozen=True)
class Group:
    """The same work, by several."""

    key: str
    title: str
    unit: str
    contenders: list
    note: str = ""
    lower_is_better: bool = field(default=False)


def client(options, command):
    """Runs a load client on the clients' cores, and gives what it printed."""
    done = subprocess.run(
        command_on(options.cores.client, command), capture_output=True, text=True, check=False,
        timeout=10 * options.seconds + 600,
    )
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}\nfailed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def reported(options, command, value):
    """The result of a client that prints the JSON of `chatd bench`."""
    report = json.loads(client(options, command))
    if report["errors"]:
        raise Failure(f"missing or wrong: {report}")
    # That of idle connections is of opening them.
    times = report.get("latency_us") if report["scenario"] != "idle" else None
    return {"value": report[value], "latency_us": times, "raw": report}


def chatd(scenario, value, **flags):
    """A scenario of `chatd bench`."""

    def run(server, options):
        command = [server.binary, "bench", scenario, "--address", server.address, "--json", "--seconds", options.seconds]
        for name, number in flags.items():
            command += [f"--{name}", number(options) if callable(number) else number]
        if scenario == "idle":
            command += ["--pid", server.process.pid]
        return reported(options, command, value)

    return run


def peers(scenario, kind, value, **flags):
    """A scenario of the load client for the other servers."""

    def run(server, options):
        command = [options.peers, scenario, "--kind", kind, "--address", server.address]
        if scenario == "idle":
            command += ["--pid", server.process.pid]
        else:
            command += ["--seconds", options.seconds, "--payload", options.payload]
        for name, number in flags.items():
            command += [f"--{name}", number(options) if callable(number) else number]
        return reported(options, command, value)

    return run


def ephemeral(window):
    """Events that chatd sends on and does not keep."""

    def run(server, options):
        user = server.ask("user", "create", login="bench", name="bench", password="bench")["user_id"]
        room = server.ask("conversation", "create", name="bench", user_ids=[user])["conversation_id"]
        send = peers(
            "fanout", "chatd", "deliveries_per_second", subscribers=options.subscribers, pipeline=window,
            **{"conversation-id": room},
        )
        return send(server, options)

    return run


# PostgreSQL: a message and its event in one statement, which is one transaction and one round trip; the text travels
# as a parameter of a prepared statement.
INSERT = """
\\set room random(1, {rooms})
WITH made AS (
    INSERT INTO message (conversation_id, user_id, message) VALUES {rows} RETURNING *
), logged AS (
    INSERT INTO event (type, obj_id, body) SELECT 'created_message', conversation_id, row_to_json(made) FROM made
)
SELECT message_id FROM made;
"""
PAGE = "SELECT message_id, user_id, message, created_time FROM message WHERE conversation_id = 1 ORDER BY message_id DESC LIMIT 50;"


def pgbench(server, options, script, clients):
    """Transactions a second of a script, and how many were made."""
    path = server.directory / "script.sql"
    path.write_text(script)
    log = server.directory / "transactions"
    printed = client(options, [
        "pgbench", "--host", "127.0.0.1", "--port", server.port, "--username", "postgres", "--no-vacuum",
        "--protocol", "prepared", "--client", clients, "--jobs", 2, "--time", max(1, round(options.seconds)),
        "--define", f"payload={'x' * options.payload}", "--file", path,
        "--log", "--sampling-rate", "0.05", "--log-prefix", log, "postgres",
    ])
    rate = re.search(r"^tps = ([\d.]+)", printed, re.MULTILINE)
    made = re.search(r"^number of transactions actually processed: (\d+)", printed, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", printed, re.MULTILINE)
    if rate is None or made is None or failed is None or int(failed.group(1)) != 0:
        raise Failure(f"pgbench: {printed}")
    times = []
    for part in server.directory.glob("transactions.*"):
        times += [int(line.split()[2]) for line in part.read_text().splitlines()]
    # Where its script stood says nothing.
    return float(rate.group(1)), int(made.group(1)), latencies(times), printed.replace(f"{server.directory}/", "")


def latencies(micros):
    """Quantiles of a list of times."""
    if not micros:
        return None
    micros = sorted(micros)
    at = lambda quantile: micros[min(len(micros) - 1, int(quantile * len(micros)))]
    return {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": micros[-1]}


def postgres_insert(batch):
    """Messages with their events, so many in a transaction, by 64 clients."""

    def run(server, options):
        script = INSERT.format(rooms=ROOMS, rows=", ".join(["(:room, 1, :payload)"] * batch))
        rate, made, times, printed = pgbench(server, options, script, 64)
        for table in ("message", "event"):
            stored = int(server.query(f"SELECT count(*) FROM {table}"))
            if stored != made * batch:
                raise Failure(f"{stored} rows in {table}, not {made * batch}")
        return {"value": rate * batch, "latency_us": times, "raw": printed}

    return run


def postgres_page(server, options):
    """The newest 50 of a long conversation, by 16 clients."""
    server.query(
        "INSERT INTO message (conversation_id, user_id, message) "
        f"SELECT 1, 1, repeat('x', {options.payload}) FROM generate_series(1, {PAGE_MESSAGES}); ANALYZE message"
    )
    rate, _, times, printed = pgbench(server, options, PAGE, 16)
    return {"value": rate, "latency_us": times, "raw": printed}


def redis_benchmark(server, options, clients, pipeline, requests, *words):
    """So many requests, by redis-benchmark: it has no duration."""
    printed = client(options, [
        "redis-benchmark", "-h", "127.0.0.1", "-p", server.port, "-c", clients, "-P", pipeline, "-n", requests,
        "--csv", *words,
    ])
    return list(csv.DictReader(printed.splitlines()))[-1]


def redis_add(pipeline):
    """Messages added to streams, by 64 clients."""
    add = peers("request", "redis", "per_second", what="store", connections=64, pipeline=pipeline)

    def run(server, options):
        result = add(server, options)
        stored = sum(int(server.ask("XLEN", key)) for key in server.ask("KEYS", "room:*").split())
        if stored != result["raw"]["requests"]:
            raise Failure(f"redis has {stored} messages, not {result['raw']['requests']}")
        return result

    return run


def redis_page(server, options):
    """The newest 50 of a long stream, by 16 clients."""
    add = ("XADD", "room", "*", "user_id", "000000000001", "message", "x" * options.payload)
    redis_benchmark(server, options, 16, 100, PAGE_MESSAGES, *add)
    page = ("XREVRANGE", "room", "+", "-", "COUNT", "50")
    trial = redis_benchmark(server, options, 16, 1, 2000, *page)
    row = redis_benchmark(server, options, 16, 1, max(2000, round(float(trial["rps"]) * options.seconds)), *page)
    micros = lambda name: round(1000 * float(row[f"{name}_latency_ms"]))
    times = {"p50": micros("p50"), "p99": micros("p99"), "max": micros("max")}
    return {"value": float(row["rps"]), "latency_us": times, "raw": row}


def groups(options):
    """Everything, in order."""
    payload = {"payload": options.payload}
    stream = "nats JetStream" + ("" if servers.Nats.syncs() else " (not synced)")
    unsynced = (
        "" if servers.Nats.syncs()
        else "This nats-server has no `sync_interval: always`: it acknowledges what is only in the page cache, "
        "so its figure is not one of durable messages."
    )
    durable = [
        Group(
            f"durable-{deep}",
            f"durable messages, 64 clients, {'one' if deep == 1 else deep} in flight each",
            "messages/s",
            [
                Contender("chatd", servers.Chatd, chatd("send", "per_second", connections=64, pipeline=deep, **payload)),
                Contender(
                    "PostgreSQL" if deep == 1 else f"PostgreSQL, {deep} a transaction",
                    servers.Postgres, postgres_insert(deep),
                ),
                Contender("Redis XADD", servers.Redis, redis_add(deep)),
                Contender(stream, servers.Nats, peers(
                    "request", "nats", "per_second", what="store", connections=64, pipeline=deep)),
            ],
            note=unsynced,
        )
        for deep in (1, 16)
    ]
    ping = [
        Group(
            f"ping-{deep}",
            f"ping, 50 connections, {'one' if deep == 1 else deep} in flight each",
            "requests/s",
            [
                Contender("chatd", servers.Chatd, chatd("ping", "per_second", connections=50, pipeline=deep)),
                Contender("Redis", servers.Redis, peers(
                    "request", "redis", "per_second", what="ping", connections=50, pipeline=deep)),
            ],
        )
        for deep in (1, 16)
    ]
    fanout = [
        Group(
            f"fanout-{window}",
            f"fan-out, 1 sender, {options.subscribers:,} subscribers, {window} messages under way",
            "deliveries/s",
            [
                Contender("chatd, events not kept", servers.Chatd, ephemeral(window)),
                Contender("chatd, durable messages", servers.Chatd, chatd(
                    "fanout", "deliveries_per_second", connections=options.subscribers, pipeline=window, **payload)),
                *(
                    Contender(name, server, peers(
                        "fanout", kind, "deliveries_per_second", subscribers=options.subscribers, pipeline=window))
                    for name, server, kind in (
                        ("nats core", servers.Nats, "nats"),
                        ("Redis PUBLISH", servers.Redis, "redis"),
                        ("InspIRCd", servers.Inspircd, "irc"),
                    )
                ),
            ],
            note="A durable message is on stable storage, and numbered, before it is delivered. The others keep nothing, "
            "as chatd does not keep what `event send` is given.",
        )
        for window in (16, 64)
    ]
    page = Group(
        "page", f"newest 50 of {PAGE_MESSAGES:,} messages, 16 clients", "pages/s",
        [
            Contender("chatd", servers.Chatd, chatd(
                "history", "per_second", connections=16, messages=PAGE_MESSAGES, **payload)),
            Contender("PostgreSQL", servers.Postgres, postgres_page),
            Contender("Redis XREVRANGE", servers.Redis, redis_page),
        ],
        note="chatd's page also has the exact total; every second one is of a conversation of 200 messages.",
    )
    idle = Group(
        "idle", f"memory of each of {options.idle_connections:,} idle connections",
        "bytes/connection",
        [
            Contender("chatd", servers.Chatd, chatd(
                "idle", "bytes_per_connection", connections=options.idle_connections)),
            Contender("nats", servers.Nats, peers(
                "idle", "nats", "bytes_per_connection", connections=options.idle_connections)),
            Contender("Redis", servers.Redis, peers(
                "idle", "redis", "bytes_per_connection", connections=options.idle_connections)),
            Contender("InspIRCd", servers.Inspircd, peers(
                "idle", "irc", "bytes_per_connection", connections=options.idle_connections)),
            Contender("PostgreSQL", servers.Postgres, peers(
                "idle", "postgres", "bytes_per_connection", connections=200)),
        ],
        note="PostgreSQL: 200 connections.",
        lower_is_better=True,
    )
    return [*durable, *ping, *fanout, page, idle]
