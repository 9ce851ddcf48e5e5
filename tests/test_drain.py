"""Draining: what is finished, what is given up, and what is said of it."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import control_app
import pytest
from control import Door, Journal, until, with_clock
from flask import Flask
from limits import LIMIT
from scripts import environment
from test_servers import gunicorn

from flask_executor import (
    Drained,
    Executor,
    ExecutorShutDown,
    Retry,
    Task,
    TaskFuture,
    current_task,
)


def drained_of(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    (record,) = [r for r in caplog.records if "is drained" in r.getMessage()]
    return record


def tasks_of(*futures: TaskFuture[t.Any]) -> tuple[Task | None, ...]:
    return tuple(future.task for future in futures)


@pytest.fixture(autouse=True)
def info(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tests")


def test_nothing_to_do(executor: Executor, caplog: pytest.LogCaptureFixture) -> None:
    """An executor without tasks is drained at once."""
    assert executor.drain() == Drained((), (), ())
    record = drained_of(caplog)
    assert record.levelno == logging.INFO
    assert record.getMessage() == (
        "Executor executor is drained: there was nothing to do"
    )


def test_it_accepts_nothing_more(executor: Executor) -> None:
    """After a drain a submit is refused, with or without options; init_app opens."""
    executor.submit(abs, -1)
    executor.drain()
    for submit in (
        lambda: executor.submit(abs, -1),
        lambda: executor.using(delay=1).submit(abs, -1),
        lambda: executor.submit_stored("key", abs, -1),
    ):
        with pytest.raises(ExecutorShutDown):
            submit()
    assert "key" not in executor.futures
    executor.init_app(t.cast(Flask, executor._last_app))
    assert executor.submit(abs, -1).result(LIMIT) == 1


@pytest.mark.holds("g-drain")
def test_what_runs_is_finished(
    executor: Executor, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """What runs ends, and what is in line runs too, well or not."""
    began = threading.Event()

    def run() -> str:
        began.set()
        gate.wait(LIMIT)
        return "done"

    running = executor.using(name="running", key=1).submit(run)
    assert began.wait(LIMIT)
    failing = executor.using(name="failing").submit(divmod, 1, 0)
    line = [executor.using(name="line").submit(abs, n) for n in range(20)]
    found: list[Drained] = []
    draining = threading.Thread(target=lambda: found.append(executor.drain()))
    draining.start()
    until(lambda: executor._state().dispatcher.table.leaving)
    with pytest.raises(ExecutorShutDown):
        executor.submit(abs, -1)
    gate.set()
    draining.join(LIMIT)
    (drained,) = found
    assert running.result(0) == "done" and failing.exception(0) is not None
    assert all(future.done() for future in line)
    assert running.task in drained.finished
    assert (drained.cancelled, drained.running) == ((), ())
    record = drained_of(caplog)
    assert record.levelno == logging.INFO and "running (key 1)" in record.getMessage()


@pytest.mark.holds("g-drain")
def test_what_is_not_due_is_cancelled(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """Delayed tasks do not become due: they are cancelled, and listed."""
    clock = with_clock(executor)
    with Journal(app) as journal:
        futures = [
            executor.using(delay=60, name="mail", key=n).submit(abs, n)
            for n in range(2)
        ]
        drained = executor.drain()
    assert drained == Drained((), t.cast(t.Any, tasks_of(*futures)), ())
    assert all(future.cancelled() for future in futures)
    assert all(
        journal.of(future.task) == ["submitted", "cancelled"] for future in futures
    )
    assert clock.is_idle
    record = drained_of(caplog)
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "Executor executor is drained: 2 cancelled (mail (key 0), mail (key 1))"
    )


@pytest.mark.holds("g-drain")
def test_what_has_not_begun_in_time(
    app: Flask,
    executor: Executor,
    gate: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When the time is over what waits is cancelled, and what runs is listed."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    began = threading.Event()

    def run() -> str:
        began.set()
        gate.wait(LIMIT)
        return "late"

    running = executor.using(name="stuck", key="s").submit(run)
    assert began.wait(LIMIT)
    waiting = executor.using(name="waiting").submit(abs, -1)
    drained = executor.drain(0.02)
    assert drained.running == tasks_of(running)
    assert drained.cancelled == tasks_of(waiting) and waiting.cancelled()
    assert not running.done()
    record = drained_of(caplog)
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "Executor executor is drained: 1 cancelled (waiting),"
        " 1 still running (stuck (key 's'))"
    )
    gate.set()
    assert running.result(LIMIT) == "late"


def test_the_configured_time(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """EXECUTOR_DRAIN_TIMEOUT is how long a drain waits that does not say so."""
    app.config["EXECUTOR_DRAIN_TIMEOUT"] = "0.02"
    running = executor.submit(gate.wait, LIMIT)
    assert executor.drain().running == tasks_of(running)


def test_no_time_at_all(executor: Executor, gate: threading.Event) -> None:
    """drain(0) waits for nothing."""
    running = executor.submit(gate.wait, LIMIT)
    until(running.running)
    assert executor.drain(0).running == tasks_of(running)


def test_an_overrun_still_runs(executor: Executor, gate: threading.Event) -> None:
    """A run that goes on after its timeout is listed as running."""
    future = executor.using(timeout=0.02).submit(gate.wait, LIMIT)
    assert future.exception(LIMIT) is not None
    assert executor.drain(0.02) == Drained((), (), t.cast(t.Any, tasks_of(future)))


def test_held_tasks(executor: Executor, gate: threading.Event) -> None:
    """Tasks held by max_concurrency run while there is time, then are cancelled."""
    began = threading.Event()

    @executor.job(max_concurrency=1)
    def limited() -> None:
        began.set()
        gate.wait(LIMIT)

    running, *held = (limited.submit() for _ in range(3))
    assert began.wait(LIMIT)
    drained = executor.drain(0.02)
    assert drained.running == tasks_of(running)
    assert {*drained.cancelled} == {*tasks_of(*held)}


def test_held_tasks_run_in_time(executor: Executor) -> None:
    """The same where there is time: all of them run."""

    @executor.job(max_concurrency=1)
    def limited(n: int) -> int:
        return n

    futures = [limited.submit(n) for n in range(50)]
    drained = executor.drain()
    assert [future.result(0) for future in futures] == [*range(50)]
    assert not drained.cancelled and not drained.running


def test_children_of_what_runs(executor: Executor, gate: threading.Event) -> None:
    """A running task may still wait for what it has submitted before."""
    began = threading.Event()

    def parent() -> int:
        child = executor.submit(abs, -1)
        began.set()
        gate.wait(LIMIT)
        return child.result()

    future = executor.submit(parent)
    assert began.wait(LIMIT)
    draining = threading.Thread(target=executor.drain)
    draining.start()
    gate.set()
    draining.join(LIMIT)
    assert future.result(0) == 1


def test_coroutines(executor: Executor) -> None:
    """Coroutines end, or are listed as running and go on."""
    release: list[t.Any] = []
    began = threading.Event()

    async def run() -> str:
        release.append((asyncio.get_running_loop(), asyncio.Event()))
        began.set()
        await release[0][1].wait()
        return "late"

    future = executor.submit(run)
    assert began.wait(LIMIT)
    assert executor.drain(0.02).running == tasks_of(future)
    ((loop, event),) = release
    loop.call_soon_threadsafe(event.set)
    assert future.result(LIMIT) == "late"


def test_processes(app: Flask) -> None:
    """The same on worker processes."""
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor = Executor(app)
    door = Door()
    running = executor.submit(control_app.wait_at, door.port)
    door.reached()
    waiting = executor.submit(control_app.pid)
    drained = executor.drain(0.02)
    assert drained == Drained(
        (), t.cast(t.Any, tasks_of(waiting)), t.cast(t.Any, tasks_of(running))
    )
    door.close()
    assert running.result(LIMIT) == b"x"


def test_sync(app: Flask) -> None:
    """Where submit runs the call there is nothing to wait for."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    executor.submit(abs, -1)
    assert executor.drain() == Drained((), (), ())


def test_twice_and_at_once(executor: Executor, gate: threading.Event) -> None:
    """Several threads may drain; each returns."""
    executor.submit(gate.wait, LIMIT)
    threads = [threading.Thread(target=executor.drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(LIMIT)
    assert not any(thread.is_alive() for thread in threads)
    assert executor.drain() == Drained((), (), ())
    executor.shutdown()


@pytest.mark.holds("g-exactly-once")
def test_submits_meanwhile(executor: Executor) -> None:
    """What is accepted while a drain begins is finished or cancelled, never lost."""
    futures: list[TaskFuture[t.Any]] = []
    begun = threading.Event()

    def submit(**options: t.Any) -> None:
        view = executor.using(**options)
        while True:
            try:
                futures.append(view.submit(abs, -1))
            except ExecutorShutDown:
                return
            begun.set()

    options: list[dict[str, t.Any]] = [{}, {"delay": 3600}, {"priority": 1}]
    threads = [threading.Thread(target=submit, kwargs=one) for one in options]
    for thread in threads:
        thread.start()
    assert begun.wait(LIMIT)
    drained = executor.drain()
    for thread in threads:
        thread.join(LIMIT)
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert drained.running == ()
    cancelled = {future.task for future in futures if future.cancelled()}
    assert {*drained.cancelled} == cancelled


@pytest.mark.holds("g-drain")
def test_what_fails_in_the_end(executor: Executor) -> None:
    """A task that pauses before another attempt has failed, as it failed last."""
    clock = with_clock(executor)

    def fail() -> None:
        raise ValueError(current_task.attempt)

    future = executor.using(retry=Retry(attempts=5, delay=60)).submit(fail)
    clock.to_next()
    clock.armed()
    assert executor.drain().finished == tasks_of(future)
    error = future.exception(0)
    assert isinstance(error, ValueError) and error.args == (2,)


# The end of the process

HEAD = """
import logging
import os
import threading

from flask import Flask
from flask_executor import Executor, Retry

logging.basicConfig(level=logging.INFO, format="%(message)s")
app = Flask("script")
app.config.update(EXECUTOR_MAX_WORKERS=1)
executor = Executor(app)


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

"""


def run_script(tmp_path: Path, body: str, **env: str) -> tuple[int, list[str], str]:
    path = tmp_path / "script.py"
    path.write_text(HEAD + body)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(path)],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.holds("g-exit")
def test_a_script_with_delayed_tasks(tmp_path: Path) -> None:
    """It ends at once: what runs and is in line ends, what is not due is cancelled."""
    code, lines, errors = run_script(
        tmp_path,
        """
executor.using(delay=3600, name="later", key="k").submit(say, "never")
executor.using(retry=Retry(delay=3600), name="again").submit(divmod, 1, 0)
for n in range(3):
    executor.submit(say, n)
""",
    )
    assert (code, lines) == (0, ["0", "1", "2"])
    assert "1 cancelled (later (key 'k'))\n" in errors
    assert "ZeroDivisionError" in errors
    assert "Task again failed and is not tried again, since the process ends" in errors


def test_a_script_that_fails(tmp_path: Path) -> None:
    """It ends likewise where the script itself has failed."""
    code, lines, errors = run_script(
        tmp_path,
        """
executor.using(delay=3600, name="later").submit(say, "never")
executor.submit(say, "accepted")
raise SystemExit(3)
""",
    )
    assert (code, lines) == (3, ["accepted"])
    assert "1 cancelled (later)\n" in errors


def test_a_script_with_nothing_left(tmp_path: Path) -> None:
    """Where all has ended nothing is said."""
    code, lines, errors = run_script(
        tmp_path, "executor.using(timeout=60).submit(say, 'done').result()"
    )
    assert (code, lines, errors) == (0, ["done"], "")


@pytest.mark.holds("g-exit-drained")
def test_a_script_that_has_so_much_time(tmp_path: Path) -> None:
    """EXECUTOR_DRAIN_TIMEOUT: what has not begun by then does not run."""
    code, lines, errors = run_script(
        tmp_path,
        """
app.config["EXECUTOR_DRAIN_TIMEOUT"] = 0.05
gate = threading.Event()


class Opener(logging.Handler):
    def emit(self, record):
        if "is drained" in record.getMessage():
            gate.set()


app.logger.addHandler(Opener())
executor.using(name="stuck", key="s").submit(lambda: say(gate.wait(30)))
executor.using(name="in line").submit(say, "never")
""",
    )
    assert (code, lines) == (0, ["True"])
    assert "1 cancelled (in line), 1 still running (stuck (key 's'))" in errors


def test_a_coroutine_that_never_ends(tmp_path: Path) -> None:
    """When the time is over coroutines that still run are stopped: the process ends."""
    code, lines, errors = run_script(
        tmp_path,
        """
import asyncio

app.config["EXECUTOR_DRAIN_TIMEOUT"] = 0.05


async def never():
    try:
        await asyncio.Event().wait()
    finally:
        say("cleaned up")


executor.using(name="never").submit(never)
""",
    )
    assert (code, lines) == (0, ["cleaned up"])
    assert "1 still running (never)" in errors


def test_code_that_asks_at_the_end(tmp_path: Path) -> None:
    """So does code on threads that asks whether it is to stop."""
    code, lines, errors = run_script(
        tmp_path,
        """
from flask_executor import current_task

app.config["EXECUTOR_DRAIN_TIMEOUT"] = 0.05


def endless():
    for _ in current_task.track(iter(int, 1)):
        threading.Event().wait(0.001)


executor.submit(endless).add_done_callback(lambda future: say(future.cancelled()))
""",
    )
    assert (code, lines) == (0, ["True"])
    assert "1 still running (__main__.endless)" in errors


def test_an_overrun_at_the_end(tmp_path: Path) -> None:
    """A run that goes on after its timeout is not passed over in silence."""
    code, _, errors = run_script(
        tmp_path,
        """
app.config["EXECUTOR_DRAIN_TIMEOUT"] = 0.05
gate = threading.Event()


class Opener(logging.Handler):
    def emit(self, record):
        if "is drained" in record.getMessage():
            gate.set()


app.logger.addHandler(Opener())
executor.using(name="slow", timeout=0.02).submit(gate.wait, 30).exception()
""",
    )
    assert code == 0
    assert "1 still running (slow)" in errors


def test_several_executors(tmp_path: Path) -> None:
    """Each of them is drained, and a handler that raises stops none."""
    code, lines, errors = run_script(
        tmp_path,
        """
class Broken(logging.Handler):
    def handle(self, record):
        raise OSError("disk full")


for n in range(3):
    other = Executor(app, f"n{n}")
    other.using(delay=3600).submit(say, "never")
    other.submit(say, "ran")
app.logger.addHandler(Broken())
""",
    )
    assert (code, lines) == (0, ["ran"] * 3)
    assert (
        3 <= errors.count("OSError: disk full") <= 6
    )  # that it waits, that it is drained


@pytest.mark.parametrize("worker", ["sync", "gthread"])
@pytest.mark.holds("g-sigterm-server")
def test_gunicorn(tmp_path: Path, worker: str) -> None:
    """At SIGTERM a worker's log says what finished, what was cancelled, what still
    runs: by name and key.
    """
    options = ("-w", "1", "-k", worker, "--threads", "2")
    if worker == "sync":
        options = ("-w", "1")
    with (
        gunicorn(tmp_path, *options, app="drain_app:app") as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        listener.settimeout(LIMIT)
        assert server.ask(f"/{listener.getsockname()[1]}") == b"submitted"
        door, _ = listener.accept()
        with door:
            server.process.send_signal(signal.SIGTERM)
            (found,) = server.log.until(r"Executor executor is drained: (.*)")
            (waits,) = server.log.matching("Executor executor waits for (.*)")
            door.sendall(b"x")
        assert server.process.wait(LIMIT) == 0
    assert waits[1] == (
        "3 tasks to finish: finishing, stuck (key ('s', 1)), in line."
        " Press Ctrl-C again to abandon them."
    )
    groups = re.findall(r"(\d) ([a-z ]+) \((.*?)\)(?:, (?=\d)|$)", found[1])
    expected = {
        "finished": {"failing (key 'f')", "finishing"},
        "cancelled": {"delayed (key 'd')", "in line"},
        "still running": {"stuck (key ('s', 1))"},
    }
    assert [what for _, what, _ in groups] == [*expected]
    for count, what, names in groups:
        assert int(count) == len(expected[what])
        assert len(names) == len(", ".join(expected[what]))
        assert all(name in names for name in expected[what])
    assert not [line for line in server.log.all if "SIGKILL" in line]
