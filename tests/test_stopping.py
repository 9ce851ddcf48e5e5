"""Real servers that are stopped, with the very lines of docs/howto/servers.rst."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from limits import LIMIT
from scripts import free_port
from test_docs import DOCS, examples
from test_servers import Server

UWSGI = "import sys, pyuwsgi; pyuwsgi.run(sys.argv[1:])"

SERVERS: dict[str, list[str]] = {
    "flask": ["-m", "flask", "--app", "wsgi", "run", "--port", "{port}"],
    "waitress": ["-m", "waitress", "--listen", "127.0.0.1:{port}", "wsgi:app"],
    "uvicorn": ["-m", "uvicorn", "--port", "{port}", "asgi:asgi"],
    "uvicorn-workers": [
        *("-m", "uvicorn", "--port", "{port}", "--workers", "2", "asgi:asgi")
    ],
    "hypercorn": [
        *("-m", "hypercorn", "--workers", "0", "-b", "127.0.0.1:{port}", "shop:app")
    ],
    "granian": [
        *("-m", "granian", "--interface", "wsgi", "--workers", "2"),
        *("--port", "{port}", "shop:app"),
    ],
    "uwsgi-processes": [
        *("-c", UWSGI, "--http-socket", "127.0.0.1:{port}", "--module", "shop:app"),
        *("--master", "--processes", "2", "--enable-threads", "--lazy-apps"),
        *("--hook-master-start", "unix_signal:15 gracefully_kill_them_all"),
    ],
    "uwsgi-threads": [
        *("-c", UWSGI, "--http-socket", "127.0.0.1:{port}", "--module", "shop:app"),
        *("--master", "--processes", "1", "--threads", "4", "--lazy-apps"),
        *("--hook-master-start", "unix_signal:15 gracefully_kill_them_all"),
    ],
    "uwsgi-gevent": [
        *(
            "-c",
            UWSGI,
            "--http-socket",
            "127.0.0.1:{port}",
            "--module",
            "green:app",
        ),
        *("--master", "--gevent", "100", "--gevent-early-monkey-patch", "--lazy-apps"),
        *("--enable-threads", "--die-on-term"),
    ],
}


def serve(directory: Path, command: t.Iterable[str]) -> Server:
    """A server for the app of the docs, with the routes of the tests."""
    for file, code in examples(DOCS / "howto/servers.rst"):
        if file is not None:
            more = "\nimport stop_app\n" if file == "shop.py" else ""
            (directory / file).write_text(code + more)
    port = free_port()
    filled = [part.format(port=port) for part in command]
    return Server(directory, *filled, cwd=directory, port=port)


def until_it_listens(server: Server) -> None:
    """Some say it before they do."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", server.port)).close()
        time.sleep(0.01)
    raise AssertionError(f"nobody listens: {server.log.all}")


uwsgi_here = pytest.mark.skipif(
    sys.version_info >= (3, 15), reason="uWSGI has no wheel for this Python"
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=uwsgi_here if name.startswith("uwsgi") else ())
        for name in SERVERS
    ],
)
def test_sigterm_runs_what_was_accepted(tmp_path: Path, name: str) -> None:
    """What runs and what waits ends, and so does the server, which has used worker
    processes, one of which was killed.
    """
    with (
        serve(tmp_path, SERVERS[name]) as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        listener.settimeout(LIMIT)
        until_it_listens(server)
        assert server.ask("/process") == b"WorkerLost 1"
        server.ask(f"/queue/{listener.getsockname()[1]}/5")
        gate, _ = listener.accept()
        with gate:  # the first task runs, and five wait
            server.process.terminate()
            server.notes.until("^leaving")
            assert not server.notes.matching("^queued")
            gate.sendall(b"x")
        server.process.wait(LIMIT)
        server.notes.drain()
    ran = [int(match[1]) for match in server.notes.matching(r"^queued (\d+)")]
    assert ran == list(range(5))


def test_hypercorns_own_workers(tmp_path: Path) -> None:
    """They cannot have worker processes: a submit says so, and what to do."""
    command = ["-m", "hypercorn", "-b", "127.0.0.1:{port}", "shop:app"]
    with serve(tmp_path, command) as server:
        until_it_listens(server)
        answer = server.ask("/process").decode()
    assert answer.startswith("stop_app.end was not accepted: ")
    assert "run hypercorn with --workers 0" in answer


@uwsgi_here
def test_uwsgis_threads_block_signals(tmp_path: Path) -> None:
    """A process pool that one of them starts notices a killed worker all the same."""
    with (
        serve(tmp_path, SERVERS["uwsgi-threads"]) as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(2) as clients,
    ):
        listener.settimeout(LIMIT)
        path = f"/here/{listener.getsockname()[1]}"
        # At once, so on two threads; one of them may be the main one.
        answers = [clients.submit(server.ask, path) for _ in range(2)]
        views = [listener.accept()[0] for _ in range(2)]
        blocking = {view.recv(1): view for view in views}[b"b"]
        for view in views:
            with view:
                view.sendall(b"y" if view is blocking else b"n")
        found = sorted(answer.result(LIMIT) for answer in answers)
    assert found == [b"WorkerLost 1", b"not here"]
