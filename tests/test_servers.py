"""Real servers on a loopback port: before and after the fork, uploads, the way out."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import typing as t
import zlib
from pathlib import Path

import pytest
from limits import LIMIT
from scripts import SUPPORT, environment

AFTER_FORK = """
import os

def post_worker_init(worker):
    import server_app
    server_app.executor.submit(server_app.note, "worker")
"""

UPLOAD = os.urandom(700_000)  # more than werkzeug keeps in memory
BOUNDARY = "a-boundary"
FORM = b"".join(
    (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="name"\r\n\r\n'.encode(),
        f"ada\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; ".encode(),
        b'name="file"; filename="f.bin"\r\n\r\n',
        UPLOAD,
        f"\r\n--{BOUNDARY}--\r\n".encode(),
    )
)
FORM_TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


class Lines:
    """Lines that somebody writes to a pipe, waited for with a limit."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""
        self.all: list[str] = []

    def until(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """All lines so far that match, once there are so many."""
        deadline = time.monotonic() + LIMIT
        while len(found := self.matching(pattern)) < count:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._fd], [], [], max(left, 0))
            data = os.read(self._fd, 65536) if ready else b""
            if not data:
                raise AssertionError(f"no {count} of {pattern!r} in {self.all}")
            self._take(data)
        return found

    def drain(self) -> None:
        """Take in what is there already."""
        while select.select([self._fd], [], [], 0)[0]:
            if not (data := os.read(self._fd, 65536)):
                return
            self._take(data)

    def matching(self, pattern: str) -> list[re.Match[str]]:
        """The lines so far that match."""
        return [match for line in self.all if (match := re.search(pattern, line))]

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.all += [line.decode() for line in lines]


class Server:
    """A server process, its log, and the notes of its tasks."""

    def __init__(
        self, directory: Path, *command: str, cwd: Path = SUPPORT, port: int = 0
    ) -> None:
        directory.mkdir(exist_ok=True)
        notes = directory / "notes"
        os.mkfifo(notes)
        # For writing too: the pipe then lives, and never ends.
        self._notes_fd = os.open(notes, os.O_RDWR)
        self.notes = Lines(self._notes_fd)
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=cwd,
            env=environment(SERVER_NOTES=str(notes), PYTHONUNBUFFERED="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.log = Lines(self.process.stdout.fileno())
        self.port = port

    def __enter__(self) -> Server:
        try:
            (found, *_) = self.log.until(
                r"(?:Listening at:|[Rr]unning on|Serving on) http://127.0.0.1:(\d+)"
                r"|uwsgi socket 0 bound to TCP address 127.0.0.1:(\d+)"
            )
        except BaseException:
            self.__exit__()
            raise
        self.port = self.port or int(found[1])
        return self

    def __exit__(self, *exc: object) -> None:
        # The whole session: workers, fork servers and their children.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(LIMIT)
        assert self.process.stdout is not None
        self.process.stdout.close()
        os.close(self._notes_fd)

    def ask(
        self, path: str, body: t.Any = None, headers: t.Any = None, **options: t.Any
    ) -> bytes:
        """The body of a response, which must be a good one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            method = "GET" if body is None else "POST"
            headers = {"User-Agent": "tests", **(headers or {})}
            connection.request(method, path, body, headers, **options)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status not in (200, 202):
            self.log.drain()
            raise AssertionError("\n".join((answer.decode(), *self.log.all)))
        return answer

    def terminate(self) -> int:
        """Ask the server to stop gracefully, and wait until it has."""
        self.process.terminate()
        code = self.process.wait(LIMIT)
        self.notes.drain()
        return code


def gunicorn(directory: Path, *options: str, app: str = "server_app:app") -> Server:
    directory.mkdir(exist_ok=True)
    config = directory / "gunicorn_conf.py"
    config.write_text(AFTER_FORK if app == "server_app:app" else "")
    return Server(
        directory,
        *("-m", "gunicorn", "-c", str(config), "-b", "127.0.0.1:0"),
        *("--worker-tmp-dir", str(directory), "--no-control-socket"),
        *options,
        app,
    )


GUNICORNS = {
    "sync": ("-w", "2"),
    "sync-preload": ("-w", "2", "--preload"),
    "gthread": ("-w", "2", "-k", "gthread", "--threads", "2"),
    "gthread-preload": ("-w", "2", "-k", "gthread", "--threads", "2", "--preload"),
    "gevent": ("-w", "2", "-k", "gevent"),
}


@pytest.fixture(scope="module", params=GUNICORNS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> t.Iterator[Server]:
    directory = tmp_path_factory.mktemp("gunicorn")
    with gunicorn(directory, *GUNICORNS[request.param]) as server:
        server.preload = "preload" in request.param  # type: ignore[attr-defined]
        yield server


def pids(found: t.Iterable[re.Match[str]]) -> set[int]:
    return {int(match[1]) for match in found}


def test_what_is_submitted_before_and_after_the_fork_runs(server: Server) -> None:
    """Tasks submitted at import and in each worker after the fork all run."""
    workers = pids(server.notes.until(r"^worker (\d+)$", 2))
    assert len(workers) == 2
    expected = {server.process.pid} if server.preload else workers  # type: ignore[attr-defined]
    assert pids(server.notes.until(r"^import (\d+)$", len(expected))) == expected
    assert len(server.notes.matching("^import")) == len(expected)


def test_a_forked_worker_has_its_own_futures(server: Server) -> None:
    """What was stored before the fork is the parent's; a worker starts with none."""
    stored = json.loads(server.ask("/"))["stored"]
    assert stored == ([] if server.preload else ["import"])  # type: ignore[attr-defined]


def test_a_task_sees_the_request(server: Server) -> None:
    """A task runs in its worker's own threads, and sees the view's request and g."""
    answer = json.loads(server.ask("/?q=1"))
    task = answer["task"]
    assert task["pid"] == answer["view"] != server.process.pid
    assert (task["app"], task["path"], task["agent"], task["url"], task["g"]) == (
        *("server_app", "/?q=1", "tests", "/", "ada"),
    )


def test_coroutines_run(server: Server) -> None:
    """Coroutine functions run on the event loop thread and see the request."""
    seen = json.loads(server.ask("/coroutine?q=1"))
    assert [one["path"] for one in seen] == ["/coroutine?q=1"] * 20
    assert {one["g"] for one in seen} == {"ada"}


def test_the_process_pool_works_in_a_worker(server: Server) -> None:
    """A process pool started in a forked worker finds the app and the request."""
    answer = json.loads(server.ask("/process?q=1"))
    assert answer["task"]["pid"] not in (answer["view"], server.process.pid)
    assert answer["task"]["path"] == "/process?q=1"
    assert answer["task"]["g"] == "ada"


def chunks() -> t.Iterator[bytes]:
    for start in range(0, len(FORM), 100_000):
        yield FORM[start : start + 100_000]


@pytest.mark.parametrize("path", ["/upload", "/upload-seen"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_outlives_its_request(
    server: Server, path: str, chunked: bool
) -> None:
    """A task reads an upload after the response, whether the view read it or not."""
    seen = len(server.notes.matching("^upload"))
    if chunked:
        headers = {**FORM_TYPE, "Transfer-Encoding": "chunked"}
        server.ask(path, chunks(), headers, encode_chunked=True)
    else:
        server.ask(path, FORM, FORM_TYPE)
    found = json.loads(server.notes.until(r"^upload (\{.*\}) \d+$", seen + 1)[-1][1])
    assert found == {"name": "ada", "size": len(UPLOAD), "crc": zlib.crc32(UPLOAD)}


def test_view_and_task_both_read_the_body(server: Server) -> None:
    """The copy a submit takes leaves the view its own stream."""
    seen = len(server.notes.matching("^body"))
    assert server.ask("/body", UPLOAD) == str(len(UPLOAD)).encode()
    found = server.notes.until(r"^body (\d+) (\d+)", seen + 1)[-1]
    assert (int(found[1]), int(found[2])) == (len(UPLOAD), zlib.crc32(UPLOAD))


@pytest.mark.parametrize("kind", GUNICORNS)
def test_sigterm_runs_what_was_accepted(tmp_path: Path, kind: str) -> None:
    """At SIGTERM a worker runs all that was accepted, also what was still in line."""
    with (
        gunicorn(tmp_path, *GUNICORNS[kind]) as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        listener.settimeout(LIMIT)
        # A SIGTERM that meets a worker before its handlers are set is lost on it.
        server.notes.until(r"^worker (\d+)$", 2)
        worker = server.ask(f"/queue/{listener.getsockname()[1]}/10").decode()
        gate, _ = listener.accept()
        with gate:  # the first task runs, and nine are in line
            server.process.terminate()
            server.log.until(rf"Worker exiting \(pid: {worker}\)")
            server.notes.drain()
            assert not server.notes.matching("^queued")
            gate.sendall(b"x")
        assert server.process.wait(LIMIT) == 0
        server.notes.drain()
    ran = [int(match[1]) for match in server.notes.matching(r"^queued (\d+)")]
    assert ran == list(range(10))
    assert not [line for line in server.log.all if "SIGKILL" in line]


def test_the_development_server(tmp_path: Path) -> None:
    """Flask's own server: contexts, coroutines, processes and uploads, too."""
    command = ("-m", "flask", "--app", "server_app", "run", "--port", "0")
    with Server(tmp_path, *command, "--no-reload") as server:
        server.notes.until("^import")
        assert json.loads(server.ask("/?q=1"))["task"]["path"] == "/?q=1"
        assert json.loads(server.ask("/coroutine"))[0]["g"] == "ada"
        assert json.loads(server.ask("/process"))["task"]["g"] == "ada"
        server.ask("/upload", FORM, FORM_TYPE)
        (found,) = server.notes.until(r"^upload (\{.*\}) \d+$")
        assert json.loads(found[1])["crc"] == zlib.crc32(UPLOAD)


def test_a_body_that_is_too_large(server: Server) -> None:
    """A submit in front of it is answered with 413; the worker goes on."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/body")
        connection.putheader("Content-Length", "6000000")
        connection.endheaders(b"x" * 100_000)
        assert connection.getresponse().status == 413
    assert json.loads(server.ask("/"))["task"]["path"] == "/?"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_that_is_broken_off(server: Server, chunked: bool) -> None:
    """A submit in front of it raises, and what comes next is served."""
    seen = len(server.notes.matching("^broken"))
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
        length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 9999"
        start = "5\r\nhello\r\n" if chunked else "hello"
        client.sendall(
            f"POST /broken HTTP/1.1\r\nHost: tests\r\n{length}\r\n\r\n{start}".encode()
        )
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass
    found = server.notes.until(r"^broken (\w+)", seen + 1)[-1]
    assert found[1] == "ClientDisconnected"
    assert json.loads(server.ask("/"))["task"]["path"] == "/?"
