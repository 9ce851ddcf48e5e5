"""Worker processes: the same contexts, and faults that stay where they happen."""

from __future__ import annotations

import errno
import io
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
import typing as t
from functools import partial
from pathlib import Path

import process_app
import pytest
from flask import Flask, g, request, session
from internals import WorkerHandle
from limits import LIMIT
from werkzeug.datastructures import FileStorage

from flask_executor import (
    AppNotFound,
    CallNotPicklable,
    Executor,
    ExecutorShutDown,
    ResultNotPicklable,
    WorkerLost,
)

METHODS = multiprocessing.get_all_start_methods()


@pytest.fixture
def app() -> Flask:
    return process_app.app


@pytest.fixture
def executor(app: Flask) -> t.Iterator[Executor]:
    executor = process_app.executor
    executor.init_app(app)
    yield executor
    executor.shutdown()


@pytest.fixture
def stranger() -> Flask:
    """An app that no module holds."""
    app = Flask("stranger")
    app.secret_key = "tests"
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    return app


@pytest.mark.parametrize("method", METHODS)
def test_context_travels(
    app: Flask, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Under each start method a worker has app, request, session and g."""
    monkeypatch.setitem(app.config, "EXECUTOR_START_METHOD", method)
    executor = process_app.executor
    executor.init_app(app)
    with app.test_request_context("/here?q=1"):
        session["deep"] = {"list": [1]}
        g.plain = 1
        g.closable = io.BytesIO()
        g.unpicklable = lambda: 1
        process_app.var.set("here")
        seen = executor.submit(process_app.context).result(LIMIT)
        process_app.var.set("none")
    executor.shutdown()
    assert seen.pop("pid") != os.getpid()
    assert seen == {
        "app": "process_app",
        "path": "/here?q=1",
        "session": {"deep": {"list": [1]}},
        "g": ["plain"],
        "var": "none",
    }


def test_route_travels(app: Flask, executor: Executor) -> None:
    """A worker knows the endpoint, and links from the blueprint of the request."""
    with app.test_request_context("/page/7"):
        seen = executor.submit(process_app.route).result(LIMIT)
    assert seen == ("pages.page", "pages", {"number": 7}, "/other")


def test_route_of_another_app(app: Flask, executor: Executor) -> None:
    """A route that the worker's app does not have is none there."""
    app.config["EXECUTOR_APP"] = "process_app:make_app"
    try:
        executor.init_app(app)
        with app.test_request_context("/page/7"):
            seen = executor.submit(process_app.endpoint).result(LIMIT)
    finally:
        app.config["EXECUTOR_APP"] = None
    assert seen == ("made", None)


def test_what_stays_is_listed_once(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be pickled stays, and is in the debug log once."""
    caplog.set_level(logging.DEBUG, "flask_executor")
    with app.app_context():
        g.stays_here = lambda: 1
        for _ in range(2):
            executor.submit(process_app.context).result(LIMIT)
    listed = [r for r in caplog.records if "'stays_here'" in r.getMessage()]
    assert len(listed) == 1


@pytest.mark.parametrize("size", [5, 700_000])
@pytest.mark.parametrize("parsed", [False, True])
def test_uploads_travel(
    app: Flask, executor: Executor, size: int, parsed: bool
) -> None:
    """Body, form and uploads travel by value, read by the view or not."""
    data = {"file": FileStorage(io.BytesIO(b"x" * size), "a.csv"), "name": "Ada"}
    with app.test_request_context("/", method="POST", data=data):
        stream = request.environ["wsgi.input"]
        if parsed:
            assert request.form["name"] == "Ada"
        future = executor.submit(process_app.upload_and_form)
        as_argument = executor.submit(process_app.read, request.files["file"])
        request.close()
        stream.close()
    assert future.result(LIMIT) == (size, "Ada")
    assert as_argument.result(LIMIT) == ("a.csv", size)


@pytest.mark.holds("g-teardown")
def test_teardown_runs_in_the_worker(
    app: Flask, executor: Executor, tmp_path: Path
) -> None:
    """teardown_appcontext runs once per call there, with its exception; and once here,
    for the context in which the failure is logged.
    """
    with app.app_context():
        g.journal = str(tmp_path / "journal")
        executor.submit(process_app.context).result(LIMIT)
        executor.submit(process_app.fail).exception(LIMIT)
        del g.journal
    assert (tmp_path / "journal").read_text() == "NoneType\nKeyError\nNoneType\n"


@pytest.mark.parametrize(
    ("reference", "name"),
    [("process_app:app", "process_app"), ("process_app:make_app", "made")],
)
def test_executor_app(stranger: Flask, reference: str, name: str) -> None:
    """EXECUTOR_APP names an app or a factory."""
    stranger.config["EXECUTOR_APP"] = reference
    executor = Executor(stranger)
    with stranger.test_request_context("/x"):
        session["a"] = 1
        seen = executor.submit(process_app.context).result(LIMIT)
    assert (seen["app"], seen["path"], seen["session"]) == (name, "/x?", {"a": 1})
    executor.shutdown()


@pytest.mark.parametrize(
    "reference", ["no_such_module:app", "process_app:note", "process_app:var"]
)
def test_executor_app_that_is_none(stranger: Flask, reference: str) -> None:
    """A wrong EXECUTOR_APP fails the call, by name."""
    stranger.config["EXECUTOR_APP"] = reference
    executor = Executor(stranger)
    error = executor.submit(process_app.context).exception(LIMIT)
    assert isinstance(error, AppNotFound)
    assert f"EXECUTOR_APP = {reference!r}" in str(error)
    executor.shutdown()


def test_flask_app(stranger: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without EXECUTOR_APP and a module that holds the app, FLASK_APP is used."""
    monkeypatch.setenv("FLASK_APP", "process_app:make_app()")
    executor = Executor(stranger)
    assert executor.submit(process_app.context).result(LIMIT)["app"] == "made"
    executor.shutdown()


@pytest.mark.parametrize("flask_app", [None, "no_such_module"])
def test_no_app_anywhere(
    stranger: Flask,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    flask_app: str | None,
) -> None:
    """Then calls run without contexts, and one warning names EXECUTOR_APP."""
    if flask_app is None:
        monkeypatch.delenv("FLASK_APP", raising=False)
    else:
        monkeypatch.setenv("FLASK_APP", flask_app)
    executor = Executor(stranger)
    with stranger.app_context():
        for _ in range(2):
            assert executor.submit(process_app.context).result(LIMIT)["app"] is None
    executor.shutdown()
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "set EXECUTOR_APP" in record.getMessage()


def test_callables(executor: Executor) -> None:
    """Jobs (recursive), methods, partials, coroutines, bare submits."""
    assert process_app.factorial.submit(5).result(LIMIT) == 120
    assert list(process_app.factorial.map([2, 3], chunksize=2)) == [2, 6]
    assert executor.submit(process_app.Thing().method, 1).result(LIMIT) == 2
    assert executor.submit(partial(pow, 2), 3).result(LIMIT) == 8
    assert executor.submit(process_app.coroutine).result(LIMIT) == os.getpid()
    assert executor._self.submit(pow, 2, 4).result(LIMIT) == 16


def test_local_function_is_refused(executor: Executor) -> None:
    """What no worker could import is refused at submit, with what to do."""
    with pytest.raises(CallNotPicklable, match=r"lambda.*top level of a module"):
        executor.submit_stored("key", lambda: 1)
    assert "key" not in executor.futures


def test_arguments_that_do_not_pickle(executor: Executor) -> None:
    """They fail the future, and harm nothing else."""
    future = executor.submit(print, lambda: 1)
    error = future.exception(LIMIT)
    assert isinstance(error, CallNotPicklable)
    assert "its arguments do not pickle" in str(error)
    assert executor.submit(abs, -1).result(LIMIT) == 1


class Speechless(Exception):
    """Fails when it is asked for its message."""

    def __str__(self) -> t.NoReturn:
        raise ValueError


class Stubborn:
    """Refuses to be pickled, without giving a reason."""

    def __reduce__(self) -> t.NoReturn:
        raise Speechless


def test_an_argument_whose_error_has_no_message(executor: Executor) -> None:
    """The error names its kind then."""
    error = executor.submit(print, Stubborn()).exception(LIMIT)
    assert isinstance(error, CallNotPicklable)
    assert "its arguments do not pickle (Speechless)" in str(error)


def test_a_key_that_does_not_unpickle(executor: Executor) -> None:
    """The task runs all the same; its code sees no key."""
    key = process_app.OnlyIn(os.getpid())
    assert executor.submit_stored(key, process_app.own_key).result(LIMIT) is None
    assert executor.submit_stored("k", process_app.own_key).result(LIMIT) == "k"


def test_a_log_handler_that_fails(
    stranger: Flask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call keeps its result if the warning about it cannot be logged."""

    def refuse(*args: object, **kwargs: object) -> t.NoReturn:
        raise OSError("the disk is full")

    monkeypatch.delenv("FLASK_APP", raising=False)
    monkeypatch.setattr(stranger.logger, "handle", refuse)
    executor = Executor(stranger)
    assert executor.submit(process_app.echo, 1).result(LIMIT) == (1,)
    executor.shutdown()
    assert "the disk is full" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fn",
    [process_app.lamb, process_app.raise_unpicklable, process_app.raise_unpackable],
)
def test_outcomes_that_do_not_pickle(
    executor: Executor, fn: t.Callable[[], t.Any]
) -> None:
    """A result or an exception that cannot travel is a clear error."""
    error = executor.submit(fn).exception(LIMIT)
    assert isinstance(error, ResultNotPicklable)
    assert fn.__name__ in str(error)
    assert executor.submit(abs, -1).result(LIMIT) == 1


@pytest.mark.holds("g-ends")
def test_exit_in_a_worker(executor: Executor) -> None:
    """sys.exit() ends the call, not its worker."""
    error = executor.submit(process_app.leave).exception(LIMIT)
    assert isinstance(error, SystemExit) and error.code == 3


def test_traceback_of_the_worker(executor: Executor) -> None:
    """An exception brings the worker's traceback as its cause."""
    error = t.cast(BaseException, executor.submit(process_app.fail).exception(LIMIT))
    assert isinstance(error, KeyError)
    assert "in fail" in "".join(traceback.format_exception(error))


@pytest.mark.holds("g-worker-killed", "g-at-most-once")
def test_ten_killed_workers(app: Flask, executor: Executor, tmp_path: Path) -> None:
    """Ten times in a row a killed worker costs its own call and no other."""
    journal = tmp_path / "journal"
    for n in range(10):
        lost = executor.submit(process_app.kill_self)
        others = [
            executor.submit(process_app.note, str(journal), f"{n} {i}")
            for i in range(4)
        ]
        error = lost.exception(LIMIT)
        assert isinstance(error, WorkerLost)
        assert "kill_self was lost: its worker process" in str(error)
        # 255 is what multiprocessing says where its fork server was not asked in time.
        assert error.pid is not None and error.exitcode in (-9, 255)
        for other in others:
            other.result(LIMIT)
    ran = sorted(journal.read_text().split("\n")[:-1])
    assert ran == sorted(f"{n} {i}" for n in range(10) for i in range(4))


@pytest.mark.holds("g-neighbours")
def test_neighbours_are_unharmed(executor: Executor, tmp_path: Path) -> None:
    """A call that runs beside a killed one goes on."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    neighbour = executor.submit(process_app.wait_for, str(fifo))
    assert isinstance(
        executor.submit(process_app.kill_self).exception(LIMIT), WorkerLost
    )
    fifo.open("w").close()
    assert neighbour.result(LIMIT) is True


@pytest.mark.holds("g-died-before")
def test_idle_worker_killed(executor: Executor) -> None:
    """A worker killed between calls costs nothing."""
    pid = executor.submit(process_app.context).result(LIMIT)["pid"]
    process = executor._processes[pid]
    os.kill(pid, signal.SIGKILL)
    process.join(LIMIT)
    assert executor.submit(abs, -1).result(LIMIT) == 1


@pytest.mark.holds("g-died-before")
def test_worker_that_dies_at_the_call(stranger: Flask) -> None:
    """A worker that dies while it makes the app is lost with its call; no hang."""
    stranger.config["EXECUTOR_APP"] = "process_app:crash_at_start"
    executor = Executor(stranger)
    error = executor.submit(process_app.context).exception(LIMIT)
    assert isinstance(error, WorkerLost) and error.exitcode == 7
    executor.shutdown()


def test_no_worker_can_be_started(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system starts no process, the call fails with its reason; the next
    one is tried anew.
    """

    def refuse(worker: t.Any) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(WorkerHandle, "_launch", refuse)
        error = executor.submit(abs, -1).exception(LIMIT)
    assert isinstance(error, WorkerLost)
    assert str(error).startswith(
        "builtins.abs was lost: no worker process could be started for it."
    )
    assert isinstance(error.__cause__, BlockingIOError)
    assert executor.submit(abs, -1).result(LIMIT) == 1


def test_a_script_without_main_guard(tmp_path: Path) -> None:
    """A script that submits while a worker imports it fails, with Python's advice."""
    path = tmp_path / "unguarded.py"
    path.write_text(
        """
from flask import Flask
from flask_executor import Executor
app = Flask("unguarded")
app.config.update(EXECUTOR_TYPE="process", EXECUTOR_START_METHOD="spawn")
print(Executor(app).submit(abs, -1).result())
"""
    )
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=LIMIT
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "WorkerLost: builtins.abs was lost" in done.stderr
    assert "if __name__ == '__main__':" in done.stderr


def test_result_that_does_not_unpickle(executor: Executor) -> None:
    """A result that only the worker can make fails with an error that says so."""
    future = executor.submit(process_app.only_there)
    with pytest.raises(
        ResultNotPicklable, match=r"only_there ran .* its result cannot"
    ):
        future.result(LIMIT)
    assert executor.submit(abs, -1).result(LIMIT) == 1


def test_argument_that_does_not_unpickle(executor: Executor) -> None:
    """An argument that a worker cannot make fails with an error that says so."""
    future = executor.submit(process_app.echo, process_app.OnlyIn(os.getpid()))
    with pytest.raises(CallNotPicklable, match="a worker could not load it"):
        future.result(LIMIT)


def test_a_function_from_the_prompt() -> None:
    """What was defined at a prompt is refused: no worker could import it."""
    script = """
from flask import Flask
from flask_executor import Executor
app = Flask("prompt")
app.config["EXECUTOR_TYPE"] = "process"
executor = Executor(app)
def local(): pass
try:
    executor.submit(local)
except Exception as error:
    print(type(error).__name__, "at a prompt" in str(error))
print(executor.submit(abs, -1).result())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.stdout == "CallNotPicklable True\n1\n", done.stderr


def test_refused_beside_a_shutdown(executor: Executor) -> None:
    """A call that comes while the pool shuts down is refused, and does not stay."""
    pool = executor._self
    pool._threads_pool.shutdown()  # as far as another thread may have come
    with pytest.raises(ExecutorShutDown):
        executor.submit(abs, -1)
    assert not pool._threads_pool._queue


def test_shutdown_leaves_no_process(executor: Executor, tmp_path: Path) -> None:
    """After shutdown the workers are gone, and submit is refused."""
    executor.submit(abs, 1).result(LIMIT)
    executor.shutdown()
    assert not any(p.is_alive() for p in executor._processes.values())
    with pytest.raises(ExecutorShutDown):
        executor.submit(abs, 1)


def test_large_payloads(executor: Executor) -> None:
    """Ten megabytes there and back."""
    big = b"x" * 10_000_000
    assert executor.submit(bytes.upper, big).result(LIMIT) == big.upper()


@pytest.mark.holds("g-shutdown-cancel")
def test_shutdown_cancels_what_waits(executor: Executor, tmp_path: Path) -> None:
    """shutdown(cancel_futures=True) cancels what no worker has."""
    fifos = [tmp_path / "one", tmp_path / "two"]
    for fifo in fifos:
        os.mkfifo(fifo)
    running = [executor.submit(process_app.wait_for, str(fifo)) for fifo in fifos]
    waiting = [executor.submit(abs, 1) for _ in range(3)]
    assert waiting[0].cancel()
    gates = [fifo.open("w") for fifo in fifos]  # opens when its reader is there
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(f.cancelled() for f in waiting)
    for gate, future in zip(gates, running, strict=True):
        gate.close()
        assert future.result(LIMIT) is True
