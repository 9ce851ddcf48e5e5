"""The example as a program: demo, port, log, end, and under gunicorn."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import typing as t

import pytest
from control import until
from example_server import SCRIPT, Server, server
from limits import LIMIT

import example_app


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT * 2,
        cwd=SCRIPT.parent,
        env={**os.environ, **env},
    )


def test_demo() -> None:
    """``--demo`` does all four, cancels one, prints what happened and ends well."""
    done = run(str(SCRIPT), "--demo")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (
        *("'Please confirm' for ada@example.org", "100% 200,000 lines"),
        *("count 200000", "46368", "ms  cancelled", "20 pictures"),
    ):
        assert word in done.stdout


def ended(server: Server) -> list[t.Any]:
    """The tasks of the visitor, once all have ended."""
    pause = threading.Event()
    for _ in range(LIMIT * 20):
        tasks: list[t.Any] = json.loads(server.ask("/status"))["tasks"]
        if all(task["ended"] for task in tasks):
            return tasks
        pause.wait(0.05)
    raise AssertionError(f"Not all have ended: {tasks}")


def has_submitted_all(server: Server) -> bool:
    """Return True if all thumbnails of a task are submitted: it reports that then."""
    status = json.loads(server.ask("/status"))
    drawing = [one for one in status["tasks"] if one["job"] == "thumbnails"]
    return any(not one["ended"] and one["fraction"] is not None for one in drawing)


def test_serving() -> None:
    """The server says once where the page is, does not log that the page asks for news,
    and Ctrl-C ends it soon, with lines that say only which tasks it leaves.
    """
    with server(str(SCRIPT), "--port", "0") as one:
        one.ask("/thumbnails", key="another-key")
        ended(one)  # both worker processes are there
        one.ask("/fibonacci", n="35")
        one.ask("/all", key="a-random-key")
        until(lambda: has_submitted_all(one))
        said = len(one.lines)
        assert one.interrupt() == 0
        left = one.lines[said:]
    said_of = r"Executor \S+ (waits for|is drained:)"
    assert [line for line in left if not re.search(said_of, line)] == []
    log = "".join(one.lines)
    assert re.findall(r"http://\S+", log) == [one.url + "/"]
    assert "POST /fibonacci" in log
    assert "/status" not in log


def test_port_that_is_taken() -> None:
    """Without a port asked for, the next free one is taken; one that was asked for is
    not changed, and the reason is given.
    """
    with example_app.listener(None) as first, example_app.listener(None) as second:
        taken, other = first.getsockname()[1], second.getsockname()[1]
        assert 5000 <= taken < other < 5020
        for arguments, env in (
            (["--port", str(taken)], {}),
            ([], {"PORT": str(taken)}),
        ):
            done = run(str(SCRIPT), *arguments, **env)
            assert (done.returncode, done.stdout) == (1, "")
            assert re.fullmatch(
                rf"Cannot listen on port {taken}: .*in use.*\n"
                r"Choose another one: python example_app.py --port 8000\n",
                done.stderr,
            )


def test_port_of_the_environment() -> None:
    """``PORT`` chooses the port, and what is not a number is refused."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with server(str(SCRIPT), PORT=str(port)) as one:
        assert one.url == f"http://127.0.0.1:{port}"
    done = run(str(SCRIPT), PORT="web")
    assert done.returncode == 2
    assert "argument --port: invalid int value: 'web'" in done.stderr
    done = run(str(SCRIPT), "--port", "70000")
    assert done.returncode == 1
    assert "Cannot listen on port 70000: " in done.stderr


WITHOUT_EXTRA = """
import runpy, sys
sys.modules["sqlalchemy"] = sys.modules["croniter"] = None
sys.argv = {argv!r}
runpy.run_module({argv[0]!r}, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "argv", [["example_app"], ["flask", "--app", "example_app", "run"]], ids=len
)
def test_without_its_extra(argv: list[str]) -> None:
    """Without its packages, the example says in one line what to install."""
    done = run("-c", WITHOUT_EXTRA.format(argv=argv))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "The example needs more packages: pip install croniter sqlalchemy\n"
    )


def test_two_servers_on_one_machine() -> None:
    """Cookies do not know ports, so each server has its own: a browser that visits both
    keeps its tasks in both.
    """
    with server(str(SCRIPT), "--port", "0") as one:
        one.ask("/fibonacci", n="1")
        with server(str(SCRIPT), "--port", "0") as other:
            home, one.url = one.url, other.url
            one.ask("/status")
        one.url = home
        assert len(json.loads(one.ask("/status"))["tasks"]) == 1


def gunicorn(*options: str, **env: str) -> t.ContextManager[Server]:
    command = ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "4", *options]
    paths = {"PYTHONPATH": str(SCRIPT.parent)}
    return server(*command, "example_app:app", **paths, **env)


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["plain", "preload"])
def test_under_gunicorn(options: list[str]) -> None:
    """All uses work with four workers, and each of them shows the same tasks."""
    with gunicorn("-w", "4", *options) as one:
        one.ask("/sign-up", address="ada@example.org")
        one.ask("/fibonacci", n="12")
        one.ask("/summary", sample="yes")
        one.ask("/clean-up", now="yes")
        tasks = ended(one)
        assert [task["state"] for task in tasks] == ["succeeded"] * 4
        for _ in range(20):
            assert json.loads(one.ask("/status"))["tasks"] == tasks
        html = "".join(
            json.loads(one.ask(f"/tasks/{task['key']}"))["html"] for task in tasks
        )
    for words in ("to ada@example.org", ">144<", "400,000 rows", "Removed 0 of 2"):
        assert words in html


def test_a_killed_worker_loses_nothing() -> None:
    """Every task of a worker that is killed ends all the same, in another worker."""
    with gunicorn("-w", "4", FLASK_EXECUTOR_STORE_LEASE="2") as one:
        for n in range(4):
            one.ask("/summary", sample="yes", key=f"summary-{n}")
            one.ask("/sign-up", address=f"{n}@example.org", key=f"sign-up-{n}")
        kill_one_with_a_task(one)
        tasks = ended(one)
    assert [task["state"] for task in tasks] == ["succeeded"] * 8
    assert re.search(r"The process of task \w+ has died", "".join(one.lines))


def kill_one_with_a_task(one: Server) -> None:
    """Kill a worker while it runs a task, which cannot end before: it is stopped."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        for pid in workers_with_a_task(one):
            os.kill(pid, signal.SIGSTOP)
            if pid in workers_with_a_task(one):
                os.kill(pid, signal.SIGKILL)
                return
            os.kill(pid, signal.SIGCONT)
    raise AssertionError("No worker runs a task")


def workers_with_a_task(one: Server) -> set[int]:
    """The process ids of the workers that run a task."""
    query = (
        "SELECT pid FROM executor_worker AS worker"
        " JOIN executor_task AS task ON task.owner = worker.id"
        " WHERE task.state = 'running'"
    )
    with contextlib.closing(sqlite3.connect(one.folder / "tasks.db")) as database:
        return {pid for (pid,) in database.execute(query)}


def test_restart() -> None:
    """Tasks, their results and what waits or runs survive a restart of the server."""
    with tempfile.TemporaryDirectory() as folder:
        port = ["--port", "0"]
        with server(str(SCRIPT), *port, EXAMPLE_FOLDER=folder) as first:
            first.ask("/fibonacci", n="12", key="has-ended")
            ended(first)
            first.ask("/summary", sample="yes", key="still-runs")
            until(lambda: json.loads(first.ask("/status"))["load"]["thread"]["busy"])
            for n in range(3):
                first.ask("/fibonacci", n="30", key=f"in-line-{n}")
            assert first.interrupt() == 0
        port = ["--port", first.url.rpartition(":")[2]]
        with server(str(SCRIPT), *port, EXAMPLE_FOLDER=folder):
            tasks = ended(first)
            assert [task["state"] for task in tasks] == ["succeeded"] * 5
            html = json.loads(first.ask("/tasks/has-ended-fibonacci"))["html"]
    assert ">144<" in html
