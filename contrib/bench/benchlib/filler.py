"""Fills a chatd with messages and reads pages, from Python: fast enough, since it sends one line again and again and
only counts what comes back."""

import json
import selectors
import socket
import time

from benchlib.machine import Failure

CONNECTIONS = 16
IN_FLIGHT = 64
PAGE_ROWS = 50
READ_BYTES = 1 << 18


def request(subclass, command, **data):
    """A request line."""
    return json.dumps({"class": "chat", "subclass": subclass, "cmd": command, "data": data}).encode() + b"\n"


class Room:
    """A conversation that grows."""

    def __init__(self, server, payload):
        self.server = server
        user = server.ask("user", "create", login=f"filler-{time.monotonic_ns()}", name="filler", password="filler")
        made = server.ask("conversation", "create", name="room", user_ids=[user["user_id"]])
        self.conversation_id = made["conversation_id"]
        self.line = request(
            "message", "create", conversation_id=self.conversation_id, user_id=user["user_id"], message="x" * payload
        )
        self.page = request(
            "message", "search", filter={"conversation_id": self.conversation_id}, fields="_all", sort_order="desc",
            size=PAGE_ROWS,
        )
        self.count = 0

    def fill(self, count, seconds=None):
        """Sends messages until there are `count` at least, or for a time; gives how many were stored a second."""
        missing, awaited = max(0, count - self.count), 0
        deadline = None if seconds is None else time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            streams = []
            for _ in range(CONNECTIONS):
                stream = socket.create_connection(("127.0.0.1", self.server.port))
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(stream, selectors.EVENT_READ)
                streams.append(stream)
            began = time.monotonic()
            for stream in streams:
                now = min(missing, IN_FLIGHT)
                stream.sendall(self.line * now)
                missing, awaited = missing - now, awaited + now
            stored = 0
            while awaited:
                ready = selector.select(30)
                if not ready:
                    raise Failure("chatd answers no more")
                for key, _ in ready:
                    data = key.fileobj.recv(READ_BYTES)
                    if not data or b'"result":"error"' in data:
                        raise Failure(f"a message was refused: {data[:200]!r}")
                    # What ends here is answered; as much is sent again.
                    answered = data.count(b"\n")
                    stored, awaited = stored + answered, awaited - answered
                    if deadline is not None and time.monotonic() > deadline:
                        missing = 0
                    now = min(missing, answered)
                    if now:
                        key.fileobj.sendall(self.line * now)
                        missing, awaited = missing - now, awaited + now
            took = time.monotonic() - began
            for stream in streams:
                stream.close()
        self.count += stored
        return stored / took


def page_latencies(server, rooms, rounds):
    """Times in microseconds of the newest page of each room, in turns, one request at a time."""
    times = {room: [] for room in rooms}
    with socket.create_connection(("127.0.0.1", server.port)) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(rounds):
            for room in rooms:
                began = time.perf_counter_ns()
                stream.sendall(room.page)
                answer = stream.recv(READ_BYTES)
                while not answer.endswith(b"\n"):
                    answer += stream.recv(READ_BYTES)
                times[room].append((time.perf_counter_ns() - began) / 1000)
                if answer.count(b'"message_id"') != min(PAGE_ROWS, room.count) or f'"total":{room.count},'.encode() not in answer:
                    raise Failure(f"a page of {room.count} messages is wrong: {answer[:200]!r}")
    return times
