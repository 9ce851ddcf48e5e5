"""The example as a program: demo, port, log, end, and under gunicorn."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
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


def test_serving() -> None:
    """The server says once where the page is, does not log that the page asks for news,
    and Ctrl-C ends it at once and without a word, with all its tasks.
    """
    with server(str(SCRIPT), "--port", "0") as one:
        one.ask("/thumbnails", key="another-key")
        ended(one)  # both worker processes are there
        one.ask("/fibonacci", n="35")
        one.ask("/all", key="a-random-key")
        until(lambda: any("POST /all" in line for line in one.lines))
        said = len(one.lines)
        assert one.interrupt() == 0
        assert one.lines[said:] == []
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
sys.modules["aiosmtpd"] = None
sys.argv = ["example_app.py"]
runpy.run_path("example_app.py", run_name="__main__")
"""


def test_without_its_extra() -> None:
    """Without aiosmtpd, the example says what to install."""
    done = run("-c", WITHOUT_EXTRA)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("Install it: python -m pip install aiosmtpd\n")


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


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["plain", "preload"])
def test_under_gunicorn(options: list[str]) -> None:
    """All uses work under gunicorn, with one worker as the example says."""
    command = ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "4", *options]
    with server(*command, "example_app:app", PYTHONPATH=str(SCRIPT.parent)) as one:
        one.ask("/sign-up", address="ada@example.org")
        one.ask("/fibonacci", n="12")
        one.ask("/summary", sample="yes")
        tasks = ended(one)
        assert [task["state"] for task in tasks] == ["succeeded"] * 3
        html = "".join(
            json.loads(one.ask(f"/tasks/{task['key']}"))["html"] for task in tasks
        )
    for words in ("to ada@example.org", ">144<", "400,000 rows"):
        assert words in html
