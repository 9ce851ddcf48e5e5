"""Real servers that share a store: one answer everywhere, kills, restarts, workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import databases
import pytest
from limits import LIMIT
from scripts import PYTHONPATH, commands
from scripts import environment as plain_environment
from test_servers import Server, gunicorn

from flask_executor.stores.sql import SqlStore

LEASE = 2
"""Seconds; see EXECUTOR_STORE_LEASE."""
GUARANTEES = "at_least_once", "at_most_once", "ephemeral"


@contextlib.contextmanager
def environment(url: str, **config: object) -> t.Iterator[None]:
    """Start processes with this store and config."""
    with pytest.MonkeyPatch.context() as patch:
        values = {"STORE": url, "STORE_LEASE": LEASE} | config
        for key, value in values.items():
            patch.setenv(f"SHARED_EXECUTOR_{key}", str(value))
        yield


def serve(folder: Path, url: str, *options: str, **config: object) -> Server:
    with environment(url, **config):
        return gunicorn(folder, *options, app="shared_app:app")


class Worker(Server):
    """A process of ``flask executor worker``."""

    def __init__(self, folder: Path, url: str, *options: str, **config: object) -> None:
        folder.mkdir(exist_ok=True)
        paths = os.pathsep.join((str(commands(folder)), PYTHONPATH))
        words = ("-m", "flask", "--app", "shared_app", "executor", "worker")
        with environment(url, **config), pytest.MonkeyPatch.context() as patch:
            patch.setattr("scripts.PYTHONPATH", paths)
            super().__init__(folder, *words, *options)

    def __enter__(self) -> Worker:
        try:
            self.log.until(" starts: ")
        except BaseException:
            self.__exit__()
            raise
        return self


class Gate:
    """Where held tasks wait until the test lets them go."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LIMIT)
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *exc: object) -> None:
        for one in [self._listener, *self._open]:
            one.close()

    def let_in(self, count: int = 1) -> None:
        """Wait until so many more tasks stand here."""
        self._open += [self._listener.accept()[0] for _ in range(count)]

    def let_go(self) -> None:
        """Let all end that stand here."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.sendall(b"x")


def ask(server: Server, method: str, path: str) -> tuple[int, t.Any]:
    """Return the status and the JSON of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
    with contextlib.closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if response.status < 300 else data


def post(server: Server, path: str) -> t.Any:
    status, answer = ask(server, "POST", path)
    assert status < 300, answer
    return answer


def at_once(fn: t.Callable[[], t.Any], count: int) -> list[t.Any]:
    """Call a function on several threads at the same time."""
    with ThreadPoolExecutor(count) as threads:
        return [one.result(LIMIT) for one in [threads.submit(fn) for _ in range(count)]]


def state_of(server: Server, key: str) -> str:
    status, answer = ask(server, "GET", f"/status/{key}")
    return str(answer["state"]) if status == 200 else f"HTTP {status}"


def until(condition: t.Callable[[], object], limit: float = LIMIT) -> float:
    """Wait for a condition; return how long it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit, condition
        time.sleep(0.02)
    return time.monotonic() - start


@pytest.fixture(scope="module")
def postgresql() -> t.Iterator[str]:
    server = databases.Server()
    yield server.url
    server.remove()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tasks.db'}"


@pytest.fixture
def gate() -> t.Iterator[Gate]:  # type: ignore[override]
    with Gate() as gate:
        yield gate


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def four(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> t.Iterator[Server]:
    """gunicorn with four workers; on SQLite the app is loaded before the fork."""
    folder = tmp_path_factory.mktemp("four")
    if request.param == "sqlite":
        url, options = f"sqlite:///{folder / 'tasks.db'}", ("-w", "4", "--preload")
    else:
        url, options = request.getfixturevalue("postgresql"), ("-w", "4")
    with serve(folder, url, *options) as server:
        yield server


@pytest.mark.holds("g-store-everywhere")
def test_every_worker_answers(four: Server) -> None:
    """Of 40 and more polls, at all four workers, none says that it knows no task."""
    post(four, "/double/polled")
    answers: list[t.Any] = []

    def poll() -> None:
        answers.extend(at_once(lambda: ask(four, "GET", "/status/polled"), 8))
        assert {status for status, _ in answers} == {200}

    until(lambda: poll() or {one["state"] for _, one in answers[-8:]} == {"succeeded"})
    answers.clear()
    until(lambda: poll() or len({one["pid"] for _, one in answers}) == 4)
    while len(answers) < 40:
        poll()
    assert {(one["state"], one["value"]) for _, one in answers} == {("succeeded", 12)}


@pytest.mark.holds("g-store-everywhere")
def test_a_key_is_taken_everywhere(four: Server) -> None:
    """Of eight submits of one key at the same time, one is accepted."""
    found = at_once(lambda: ask(four, "POST", "/double/once"), 8)
    assert sorted(status for status, _ in found) == [200] * 7 + [202]


@pytest.mark.holds("g-store-pop")
def test_a_pop_is_won_once(four: Server) -> None:
    """Of eight processes and threads that pop one key, one gets the future."""
    post(four, "/double/popped")
    found = at_once(lambda: post(four, "/pop/popped"), 8)
    assert sorted(one["won"] for one in found) == [False] * 7 + [True]
    assert state_of(four, "popped") == "HTTP 404"


@pytest.mark.holds("g-store-killed")
def test_what_becomes_of_the_tasks_of_a_killed_process(
    four: Server, gate: Gate
) -> None:
    """What runs at least once runs again elsewhere, within two seconds after the lease;
    all others are interrupted, and every process says so.
    """
    seen = len(four.notes.matching("^began"))
    killed = post(four, f"/hold/{gate.port}/{','.join(GUARANTEES)}")["pid"]
    gate.let_in(3)
    until(lambda: {state_of(four, one) for one in GUARANTEES} == {"running"})
    os.kill(killed, signal.SIGKILL)
    start = time.monotonic()
    gate.let_in(1)
    took = time.monotonic() - start
    again = four.notes.until(r"^began (\S+) (\d+)$", seen + 4)[-1]
    assert again[1] == "at_least_once"
    assert int(again[2]) != killed
    assert took < LEASE + 2
    for one in GUARANTEES[1:]:
        found = at_once(lambda key=one: state_of(four, key), 8)  # type: ignore[misc]
        assert {*found} == {"interrupted"}
    gate.let_go()
    until(lambda: state_of(four, "at_least_once") == "succeeded")


@pytest.mark.holds("g-store-hand-back")
def test_a_restart_loses_nothing(tmp_path: Path, url: str, gate: Gate) -> None:
    """At SIGTERM what has not begun goes back at once, and what runs ends; the next
    server knows what was finished, and runs the rest from its first request on.
    """
    options = ("-w", "1", "--threads", "4")
    with serve(tmp_path / "first", url, *options, MAX_WORKERS=1) as first:
        post(first, "/double/before")
        until(lambda: state_of(first, "before") == "succeeded")
        post(first, f"/hold/{gate.port}/at_most_once,at_least_once-2")
        gate.let_in(1)
        with contextlib.closing(SqlStore(url)) as store:
            first.process.terminate()

            def owner() -> str | None:
                record = store.get("key", "s:at_least_once-2")
                assert record is not None
                assert record.state in ("held", "waiting")
                return record.owner

            until(lambda: owner() is None)
            gate.let_go()
            assert first.process.wait(LIMIT) == 0
            assert store.get("key", "s:at_most_once").state == "succeeded"  # type: ignore[union-attr]
            assert store.workers() == []
    with serve(tmp_path / "second", url, *options, MAX_WORKERS=1) as second:
        assert state_of(second, "before") == "succeeded"
        gate.let_in(1)
        gate.let_go()
        until(lambda: state_of(second, "at_least_once-2") == "succeeded")
        second.notes.drain()
        assert len(second.notes.matching("^began at_least_once-2")) == 1


@pytest.mark.holds("g-store-fresh")
def test_a_fresh_process_takes_up_what_the_dead_left(
    tmp_path: Path, url: str, gate: Gate
) -> None:
    """After a kill of the whole server, the first request to the next one is enough."""
    with serve(tmp_path / "first", url, "-w", "1") as first:
        post(first, f"/hold/{gate.port}/at_least_once-1")
        gate.let_in(1)
        os.killpg(first.process.pid, signal.SIGKILL)
    with serve(tmp_path / "second", url, "-w", "1") as second:
        assert second.ask("/")
        second.notes.until("^began at_least_once-1")


def test_a_worker_waits_for_its_database(tmp_path: Path, gate: Gate) -> None:
    """If the database is away when it starts, or later, it says so and goes on when it
    is back; nobody is declared dead because the database was away longer than a lease.
    """
    database = databases.Server()
    try:
        database.stop()
        with Worker(tmp_path / "worker", database.url) as worker:
            worker.log.until("looks for tasks again and again, because: .* not avail")
            database.start()
            with serve(tmp_path / "web", database.url, STORE_RUN=False) as web:
                post(web, f"/hold/{gate.port}/at_least_once-1")
                gate.let_in(1)
                database.stop(signal.SIGINT)  # so that it forgets nothing
                gate.let_go()
                worker.log.until(", the database is away$")
                time.sleep(LEASE + 0.5)  # every lease is over
                database.start()
                until(lambda: state_of(web, "at_least_once-1") == "succeeded")
                worker.notes.drain()
                assert len(worker.notes.matching("^began")) == 1
    finally:
        database.remove()


def test_the_reloader(tmp_path: Path, url: str) -> None:
    """Under Flask's reloader, its child runs saved tasks, and its parent does not."""
    words = ("-m", "flask", "--app", "shared_app", "run", "--port", "0", "--reload")
    with (
        environment(url),
        Server(tmp_path / "server", *words) as server,
        contextlib.closing(SqlStore(url)) as store,
    ):
        child = int(server.ask("/"))
        until(store.workers)
        assert [one.pid for one in store.workers()] == [child]
        assert child != server.process.pid


SHELL = """
from shared_app import *
assert app.test_client().get("/").status_code == 200
print("keys", executor.futures.keys())
print("runs", executor._state().dispatcher.node.runs)
print("result", double.using(guarantee="at_least_once").submit(21).result(30))
"""


def test_a_shell(tmp_path: Path, url: str) -> None:
    """A shell runs nothing because it looks, or makes a request by hand; what it
    submits, it runs.
    """
    with environment(url):
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "shared_app", "shell"],
            env=plain_environment(SERVER_NOTES=os.devnull),
            input=SHELL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    assert re.findall(r"(keys|runs|result) (.*)", done.stdout) == [
        *(("keys", "[]"), ("runs", "False"), ("result", "42")),
    ], done


@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_other_kinds_of_workers(tmp_path: Path, url: str, kind: str) -> None:
    """Threads and greenlets that serve share the tasks, too."""
    with serve(tmp_path, url, "-w", "2", "-k", kind) as server:
        keys = [f"key-{number}" for number in range(10)]
        with ThreadPoolExecutor(5) as threads:
            [*threads.map(lambda key: post(server, f"/double/{key}"), keys)]
        until(lambda: {state_of(server, key) for key in keys} == {"succeeded"})
        assert server.terminate() == 0


@pytest.mark.holds("g-store-hand-back")
def test_a_worker_beside_a_server(tmp_path: Path, url: str, gate: Gate) -> None:
    """With EXECUTOR_STORE_RUN = False the worker runs what the server accepts. At
    SIGTERM it hands back what has not begun, and ends what runs.
    """
    folder = tmp_path / "web"
    with (
        serve(folder, url, "-w", "1", "--threads", "2", STORE_RUN=False) as web,
        contextlib.closing(SqlStore(url)) as store,
    ):
        post(web, f"/hold/{gate.port}/at_least_once-1")
        options = ("--concurrency", "1", "--name", "press")
        with Worker(tmp_path / "worker", url, *options) as worker:
            gate.let_in(1)
            (began,) = worker.notes.until(r"^began at_least_once-1 (\d+)$")
            assert int(began[1]) == worker.process.pid
            until(lambda: state_of(web, "at_least_once-1") == "running")
            [shown] = [one for one in store.workers() if one.pid == worker.process.pid]
            assert (shown.info["name"], shown.info["slots"]) == ("press", 1)
            post(web, f"/hold/{gate.port}/at_least_once-2")
            worker.process.terminate()
            worker.log.until("^press drains: 1 to finish")
            assert state_of(web, "at_least_once-2") == "waiting"
            gate.let_go()
            assert worker.process.wait(LIMIT) == 0
            worker.log.until("^press ends: 0 of 1 busy, .* 1 succeeded, 0 failed")
        assert state_of(web, "at_least_once-1") == "succeeded"
        assert state_of(web, "at_least_once-2") == "waiting"
        web.notes.drain()
        assert not web.notes.matching("^began")


@pytest.mark.parametrize("how", ["twice", "too late"])
def test_a_worker_that_does_not_wait(
    tmp_path: Path, url: str, gate: Gate, how: str
) -> None:
    """A second SIGTERM ends it at once; without one it ends after its time to drain,
    and what still ran is there for others at once.
    """
    config = {} if how == "twice" else {"DRAIN_TIMEOUT": 0.2}
    with (
        serve(tmp_path / "web", url, "-w", "1", STORE_RUN=False) as web,
        contextlib.closing(SqlStore(url)) as store,
        Worker(tmp_path / "worker", url, **config) as worker,
    ):
        post(web, f"/hold/{gate.port}/at_least_once-1")
        gate.let_in(1)
        worker.process.terminate()
        worker.log.until("drains: 1 to finish")
        if how == "twice":
            worker.process.terminate()
            assert worker.process.wait(LIMIT) == 128 + signal.SIGTERM
            worker.log.until(r"abandons 1 task: hold \(key 'at_least_once-1'\)")
        else:
            assert worker.process.wait(LIMIT) == 1
            record = store.get("key", "s:at_least_once-1")
            assert record is not None
            assert (record.state, record.lost) == ("waiting", 1)
