"""The status API under real servers: streams never hold all of a server."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from limits import LIMIT
from scripts import SUPPORT
from test_servers import Server, gunicorn

from flask_executor.settings import Settings

STREAMS = 50
MOST = Settings().events_max

# Which servers may let streams wait.
SERVERS: dict[str, tuple[tuple[str, ...], bool]] = {
    "sync": ((), False),
    "gthread": (("-k", "gthread", "--threads", "8"), True),
    "gevent": (("-k", "gevent"), True),
    "waitress": ((), True),
}


def start(folder: Path, kind: str) -> Server:
    if kind == "waitress":
        return Server(folder, str(SUPPORT / "status_app.py"))
    options, _ = SERVERS[kind]
    return gunicorn(folder, "-w", "1", *options, app="status_app:app")


class Stream:
    """An event stream, as an EventSource opens it; closed if the server ends it."""

    def __init__(self, server: Server, url: str) -> None:
        address = ("127.0.0.1", server.port)
        self.socket = socket.create_connection(address, LIMIT)
        request = f"GET {url} HTTP/1.1\r\nHost: tests\r\nConnection: close\r\n"
        self.socket.sendall(f"{request}Accept: text/event-stream\r\n\r\n".encode())
        self.seen = b""
        while b"data: " not in self.seen:
            self.read()
        # The whole answer, or one that goes on.
        self.is_held: bool = b"content-length" not in self.seen.lower()
        if not self.is_held:
            assert re.search(r"^retry: 1000$", self.rest(), re.M)
            self.socket.close()

    def read(self) -> None:
        data = self.socket.recv(65536)
        assert data, self.seen
        self.seen += data

    def rest(self) -> str:
        """Read to the end, and return all."""
        while data := self.socket.recv(65536):
            self.seen += data
        return self.seen.decode()


@contextlib.contextmanager
def held(server: Server) -> t.Iterator[tuple[str, socket.socket]]:
    """A task that runs until something is sent to the socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        port = listener.getsockname()[1]
        url = json.loads(server.ask(f"/hold/{port}", b""))["location"]
        gate, _ = listener.accept()
        with gate:
            yield url, gate


@pytest.mark.parametrize("kind", SERVERS)
def test_fifty_streams(tmp_path: Path, kind: str) -> None:
    """Of fifty streams, EXECUTOR_EVENTS_MAX wait where the server has threads, and the
    others get one event and come back; everybody else is answered meanwhile. The end
    reaches those that wait. A client that has left makes room for another.
    """
    _, has_threads = SERVERS[kind]
    most = MOST if has_threads else 0
    with start(tmp_path, kind) as server, held(server) as (url, gate):
        with ThreadPoolExecutor(STREAMS) as threads:
            streams = [*threads.map(lambda _: Stream(server, url), range(STREAMS))]
        waiting = [stream for stream in streams if stream.is_held]
        assert len(waiting) == most
        begun = time.monotonic()
        assert json.loads(server.ask(url))["state"] == "running"
        assert server.ask("/")
        assert time.monotonic() - begun < 5
        for stream in waiting:
            stream.socket.close()  # these clients have left
        deadline = time.monotonic() + LIMIT
        while (stream := Stream(server, url)).is_held is not has_threads:
            assert time.monotonic() < deadline, "no room was made"
            time.sleep(0.1)
        gate.sendall(b"x")
        if has_threads:
            assert '"state": "succeeded"' in stream.rest()
            stream.socket.close()


def ask(server: Server, url: str) -> tuple[int, t.Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
    with contextlib.closing(connection):
        connection.request("GET", url)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_a_store_and_four_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an SQLite store, each poll at any of four workers is answered with 200, from
    the first one to the end, and after a restart.
    """
    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    monkeypatch.setenv("STATUS_EXECUTOR_STORE", url)
    with serve(tmp_path / "first", "-w", "4") as server, held(server) as (url, gate):
        polled = poll(server, url, 80)
        assert polled <= {(200, "waiting"), (200, "running")}
        gate.sendall(b"x")
        deadline = time.monotonic() + LIMIT
        while poll(server, url, 8) != {(200, "succeeded")}:
            assert time.monotonic() < deadline
    with serve(tmp_path / "second", "-w", "2") as server:
        assert poll(server, url, 8) == {(200, "succeeded")}


def serve(folder: Path, *options: str) -> Server:
    return gunicorn(folder, *options, app="status_app:app")


def poll(server: Server, url: str, count: int) -> set[tuple[int, str]]:
    """Ask so often, from many threads; return what was answered."""
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda _: ask(server, url), range(count))
        answers = [*found]
    return {(status, body.get("state", "")) for status, body in answers}


def test_four_workers_without_a_store(tmp_path: Path) -> None:
    """Without one, each poll gets the status or a 503, never a 404; each worker that
    cannot answer says once in the log that EXECUTOR_STORE is missing.
    """
    with serve(tmp_path, "-w", "4") as server, held(server) as (url, gate):
        seen: set[tuple[int, str]] = set()
        deadline = time.monotonic() + LIMIT
        while {status for status, _ in seen} != {200, 503}:
            assert time.monotonic() < deadline
            seen |= poll(server, url, 40)
        gate.sendall(b"x")
        server.log.until("Set EXECUTOR_STORE, or run one process")
        server.log.drain()
        said = server.log.matching("EXECUTOR_STORE")
        assert 1 <= len(said) <= 3
