"""Pebble's worker processes: what runs there can be killed, and harms nobody else."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import typing as t
from concurrent.futures import Future, ProcessPoolExecutor, wait
from pathlib import Path

import pebble_app
import process_app
import pytest
from control import Door
from flask import Flask, g, request, session
from internals import (
    Answers,
    Attempt,
    Call,
    PebblePool,
    Task,
    TaskInfo,
    WorkerHandle,
    bare_owner,
    pebble_pool,
    rebuild_outcome,
    request_for,
    serve_one,
    split_message,
)
from limits import LIMIT
from pebble.common import CONSTS
from scripts import cannot_at_exit, environment, problems
from werkzeug.datastructures import FileStorage

from flask_executor import Executor, ExecutorShutDown, WorkerLost
from flask_executor.errors import PoolNotInstalled, TaskCancelled, TaskTimeout
from flask_executor.signals import task_progressed, task_started

METHODS = multiprocessing.get_all_start_methods()


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The app that workers import; here with an executor of another name."""
    app = process_app.app
    monkeypatch.setattr(app, "extensions", app.extensions.copy())
    monkeypatch.setattr(app, "config", app.config.copy())
    app.config.update(PEBBLE_EXECUTOR_TYPE="pebble", PEBBLE_EXECUTOR_MAX_WORKERS=2)
    return app


@pytest.fixture
def executor(app: Flask) -> t.Iterator[Executor]:
    executor = Executor(app, "pebble")
    yield executor
    executor.shutdown()


@pytest.fixture
def gate(executor: Executor) -> t.Iterator[Door]:
    gate = Door()
    yield gate
    gate.close()


@pytest.fixture
def other_gate(executor: Executor) -> t.Iterator[Door]:
    gate = Door()
    yield gate
    gate.close()


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def neighbour(executor: Executor, gate: Door) -> Future[bytes]:
    """A task that has begun on one of the two workers."""
    future: Future[bytes] = executor.submit(pebble_app.wait_at, gate.port)
    gate.process()
    return future


# What it shares with the process pool


@pytest.mark.parametrize("method", METHODS)
def test_context_travels(app: Flask, method: str) -> None:
    """Under each start method a worker has app, request, session and g."""
    app.config["PEBBLE_EXECUTOR_START_METHOD"] = method
    executor = Executor(app, "pebble")
    with app.test_request_context("/here?q=1"):
        session["a"] = 1
        g.plain = 1
        g.closable = io.BytesIO()
        seen = executor.submit(process_app.context).result(LIMIT)
    executor.shutdown()
    assert seen.pop("pid") != os.getpid()
    assert seen == {
        "app": "process_app",
        "path": "/here?q=1",
        "session": {"a": 1},
        "g": ["plain"],
        "var": "none",
    }


def test_uploads_travel(app: Flask, executor: Executor) -> None:
    """So do form and uploads, by way of the request or as an argument."""
    data = {"file": FileStorage(io.BytesIO(b"x" * 700_000), "a.csv"), "name": "Ada"}
    with app.test_request_context("/", method="POST", data=data):
        as_argument = executor.submit(process_app.read, request.files["file"])
        future = executor.submit(process_app.upload_and_form)
        request.close()
        request.environ["wsgi.input"].close()
    assert future.result(LIMIT) == (700_000, "Ada")
    assert as_argument.result(LIMIT) == ("a.csv", 700_000)


def test_large_payloads(executor: Executor) -> None:
    """Ten megabytes there and back."""
    big = b"x" * 10_000_000
    assert executor.submit(bytes.upper, big).result(LIMIT) == big.upper()


def test_coroutine_functions(executor: Executor) -> None:
    """They run on the event loop of this process."""
    assert executor.submit(process_app.coroutine).result(LIMIT) == os.getpid()


def test_it_answers_as_a_process_pool(executor: Executor) -> None:
    """What people ask of a ProcessPoolExecutor it answers."""
    pid = executor.submit(pebble_app.pid).result(LIMIT)
    assert isinstance(executor._self, ProcessPoolExecutor)
    assert executor._max_workers == 2
    assert [*executor._processes] == [pid]
    assert list(executor.map(abs, [-1, -2], timeout=LIMIT)) == [1, 2]


def test_priorities(executor: Executor, gate: Door, tmp_path: Path) -> None:
    """What waits is in our line: pebble gets a task when a worker is free for it."""
    journal = str(tmp_path / "journal")
    running = [executor.submit(pebble_app.wait_at, gate.port) for _ in range(2)]
    pids = {gate.process() for _ in range(2)}
    ports = Door()
    held = executor.submit(pebble_app.wait_at, ports.port)  # takes one of the two
    waiting = [
        executor.using(priority=priority).submit(pebble_app.note, journal, word)
        for priority, word in ((-1, "last"), (0, "middle"), (1, "first"))
    ]
    assert not any(future.running() for future in (held, *waiting))
    held.cancel()
    ports.close()
    kept = running.pop()
    gate._waiting[0].sendall(b"x")
    wait(waiting, LIMIT)
    assert Path(journal).read_text().split() == ["first", "middle", "last"]
    gate.open()
    assert kept.result(LIMIT) == running[0].result(LIMIT) == b"x"
    assert len(pids) == 2


# Kills


@pytest.mark.holds("g-timeout")
def test_timeout_kills(executor: Executor, gate: Door, other_gate: Door) -> None:
    """At the deadline the worker is killed; the neighbour and the next are unharmed."""
    other = neighbour(executor, other_gate)
    executor.submit(pebble_app.pid).result(LIMIT)  # the other worker is there, too
    future = executor.using(timeout=0.3).submit(pebble_app.wait_at, gate.port)
    task = future.task
    pid = gate.process()
    assert isinstance(future.exception(LIMIT), TaskTimeout)
    assert (task.state, task.overrun) == ("timed_out", False)
    assert executor.submit(pebble_app.pid).result(LIMIT) != pid
    assert ended(pid)
    other_gate.open()
    assert other.result(LIMIT) == b"x"


@pytest.mark.parametrize("fn", [pebble_app.wait_at, pebble_app.stubborn])
@pytest.mark.holds("g-request-cancel")
def test_request_cancel_kills(
    executor: Executor,
    gate: Door,
    other_gate: Door,
    monkeypatch: pytest.MonkeyPatch,
    fn: t.Callable[[int], bytes],
) -> None:
    """So it is on request, deaf to SIGTERM or not; then the future is cancelled."""
    monkeypatch.setattr(CONSTS, "term_timeout", 0.2)
    other = neighbour(executor, other_gate)
    future = executor.submit(fn, gate.port)
    task = future.task
    pid = gate.process()
    assert future.running() and future.request_cancel()
    wait([future], LIMIT)
    assert future.cancelled() and task.state == "cancelled"
    assert ended(pid)
    other_gate.open()
    assert other.result(LIMIT) == b"x"
    assert executor.submit(abs, -1).result(LIMIT) == 1


@pytest.mark.holds("g-request-cancel")
def test_request_cancel_of_what_waits(executor: Executor, gate: Door) -> None:
    """What is in line is cancelled at once, and costs no worker."""
    running = [executor.submit(pebble_app.wait_at, gate.port) for _ in range(2)]
    pids = {gate.process() for _ in range(2)}
    waiting = executor.submit(abs, -1)
    assert waiting.request_cancel() and waiting.cancelled()
    gate.open()
    assert [future.result(LIMIT) for future in running] == [b"x", b"x"]
    assert {*executor._processes} == pids


def test_stopped_before_it_is_sent(executor: Executor, tmp_path: Path) -> None:
    """A task that is asked to stop before a worker has it does not run, and the worker
    lives on.
    """
    pid = executor.submit(pebble_app.pid).result(LIMIT)
    journal = tmp_path / "journal"

    def stop(app: Flask, task: Task, **_: t.Any) -> None:
        t.cast(t.Any, task.future).request_cancel()

    with task_started.connected_to(stop):
        future = executor.submit(pebble_app.note, str(journal), "ran")
        wait([future], LIMIT)
    assert future.cancelled() and not journal.exists()
    assert executor.submit(pebble_app.pid).result(LIMIT) == pid


def test_stopped_before_it_is_begun(tmp_path: Path) -> None:
    """A worker that starts with a call that is not wanted any more does not run it."""
    journal = tmp_path / "journal"
    call = Call(pebble_app.note, (str(journal), "ran"), {}, None)
    task = Task(Future(), call, t.cast(t.Any, bare_owner))
    PebblePool(1, "unused").prepare(call)
    request = request_for(0, call.payload, TaskInfo.of(Attempt(task, 1, call)))
    here, there = multiprocessing.Pipe(duplex=False)
    with here, there:
        serve_one(request, Answers(there), [0, 1], None)
        _, _, reply = split_message(here.recv_bytes())
    outcome = rebuild_outcome(task.name, pickle.loads(reply)[0])
    assert isinstance(outcome.error, TaskCancelled) and not journal.exists()


def test_timeout_while_the_worker_starts(executor: Executor) -> None:
    """Nothing hangs, and the pool goes on, where the time is over before a run can
    begin.
    """
    futures = [executor.using(timeout=0.001).submit(abs, -1) for _ in range(3)]
    errors = [future.exception(LIMIT) for future in futures]
    assert {type(error) for error in errors} <= {TaskTimeout, type(None)}
    assert isinstance(errors[0], TaskTimeout)
    assert executor.submit(abs, -1).result(LIMIT) == 1


def test_interrupt_alone(gate: Door) -> None:
    """A pool whose task is interrupted says that it was cancelled, not lost."""
    pool = PebblePool(1, "executor-pool")
    future: Future[bytes] = Future()
    call = Call(pebble_app.wait_at, (gate.port,), {}, None)
    task = Task(future, call, t.cast(t.Any, bare_owner))
    pool.interrupt(Attempt(task, 1, call))  # not here: nothing to stop
    pool.prepare(call)
    pool.enqueue(task)
    gate.process()
    pool.interrupt(t.cast(Attempt, task._run))
    assert isinstance(future.exception(LIMIT), TaskCancelled)
    assert pool.submit(abs, -1).result(LIMIT) == 1
    pool.shutdown()


def test_stopped_when_it_has_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that returns all the same has its result; its worker, which is about to
    be killed, gets no other task. Who asks later still kills nothing.
    """
    late: list[t.Callable[[], None]] = []
    run = WorkerHandle.run

    def run_and_ask(handle: t.Any, call: Call, attempt: Attempt) -> t.Any:
        came = run(handle, call, attempt)
        if not late:
            handle.ask_to_stop(attempt)  # between the reply and what is made of it
            late.append(lambda: handle.ask_to_stop(attempt))
        return came

    monkeypatch.setattr(WorkerHandle, "run", run_and_ask)
    pool = PebblePool(1, "executor-pool")
    pids = [pool.submit(pebble_app.pid).result(LIMIT) for _ in range(2)]
    late[0]()
    pids.append(pool.submit(pebble_app.pid).result(LIMIT))
    pool.shutdown()
    assert pids[0] != pids[1] == pids[2]
    assert ended(pids[0])


# Crashes


@pytest.mark.parametrize("code", [0, 3, -signal.SIGKILL])
def test_crash(executor: Executor, gate: Door, code: int) -> None:
    """A process that dies costs the call that it ran, which says how it died."""
    other = neighbour(executor, gate)
    error = executor.submit(pebble_app.crash, code).exception(LIMIT)
    assert isinstance(error, WorkerLost)
    assert (error.name, error.exitcode) == ("pebble_app.crash", code)
    assert error.pid is not None and ended(error.pid)
    gate.open()
    assert other.result(LIMIT) == b"x"
    assert executor.submit(abs, -1).result(LIMIT) == 1


@pytest.mark.holds("g-neighbours")
def test_killed_from_outside(executor: Executor, gate: Door, other_gate: Door) -> None:
    """The same where somebody else kills it, while both workers are at work."""
    other = neighbour(executor, other_gate)
    future = executor.submit(pebble_app.wait_at, gate.port)
    waiting = executor.submit(abs, -1)
    pid = gate.process()
    os.kill(pid, signal.SIGKILL)
    error = future.exception(LIMIT)
    assert isinstance(error, WorkerLost) and error.pid == pid
    assert waiting.result(LIMIT) == 1
    other_gate.open()
    assert other.result(LIMIT) == b"x"


@pytest.mark.holds("g-worker-killed", "g-at-most-once")
def test_many_crashes_in_a_row(executor: Executor, tmp_path: Path) -> None:
    """Each costs its own call; the others run, once."""
    journal = tmp_path / "journal"
    for n in range(4):
        lost = executor.submit(pebble_app.crash, -signal.SIGKILL)
        others = [
            executor.submit(pebble_app.note, str(journal), f"{n} {i}") for i in range(4)
        ]
        assert isinstance(lost.exception(LIMIT), WorkerLost)
        wait(others, LIMIT)
    ran = sorted(journal.read_text().split("\n")[:-1])
    assert ran == sorted(f"{n} {i}" for n in range(4) for i in range(4))


@pytest.mark.holds("g-died-before")
def test_idle_worker_killed(executor: Executor) -> None:
    """A worker that is killed between calls costs nothing, noticed or not."""
    for _ in range(3):
        pid = executor.submit(pebble_app.pid).result(LIMIT)
        os.kill(pid, signal.SIGKILL)
        assert executor.submit(abs, -1).result(LIMIT) == 1


def test_lost_workers_are_retried(executor: Executor, tmp_path: Path) -> None:
    """With a retry a lost worker is one attempt."""
    retrying = executor.using(retry=3)
    crash_until = pebble_app.crash_until
    future = retrying.submit(crash_until, str(tmp_path / "journal"), 2)
    assert future.result(LIMIT) == 2


@pytest.mark.holds("g-attempts")
def test_timeouts_are_retried_one_after_another(
    executor: Executor, gate: Door, tmp_path: Path
) -> None:
    """The next attempt begins when the process of the last one has ended."""
    retrying = executor.using(retry=2, timeout=3)
    future = retrying.submit(pebble_app.wait_once, gate.port, str(tmp_path / "pid"))
    assert future.result(LIMIT) is True
    assert future.task.attempt == 2


def test_a_task_that_breaks_the_way_back(executor: Executor) -> None:
    """Where a reply cannot even be made, the call fails and nobody waits for ever."""
    pool = executor._self
    assert pool.submit(abs, -1).result(LIMIT) == 1
    task = Task(Future(), Call(abs, (-1,), {}, None), t.cast(t.Any, bare_owner))
    task._call.payload = ()  # nothing that a worker can read
    pool.enqueue(task)
    assert isinstance(t.cast(t.Any, task.future).exception(LIMIT), WorkerLost)
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_no_worker_can_be_started(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system starts no process, the call fails with its reason; the next
    one is tried anew.
    """

    def refuse(context: t.Any, **how: t.Any) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(pebble_pool._OneProcess, "Process", refuse)
        error = executor.submit(abs, -1).exception(LIMIT)
    assert isinstance(error, WorkerLost) and error.pid is None
    assert "no worker process could be started" in str(error)
    assert executor.submit(abs, -1).result(LIMIT) == 1


# Progress


def test_progress(executor: Executor, gate: Door) -> None:
    """A task tells how far it is, while it runs and at its end."""
    seen = threading.Event()

    def receive(app: Flask, task: Task, **_: t.Any) -> None:
        seen.set()

    with task_progressed.connected_to(receive):
        options = executor.using(name="count", key="key")
        future = options.submit(pebble_app.report_and_wait, gate.port)
        gate.process()
        assert seen.wait(LIMIT)
        assert future.task.progress is not None
        assert future.task.progress.fraction == 0.25
        gate.open()
        assert future.result(LIMIT) == (future.task.id, "count", "key", 1)
    assert future.task.progress[:2] == (4, 4)


def test_killed_while_it_reports(
    executor: Executor, gate: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed between two reports, or in the middle of one, leaves
    nothing behind that another task would show.
    """
    for method in ("request_cancel", "kill") * 3:
        future = executor.submit(pebble_app.report_for_ever, gate.port)
        pid = gate.process()
        if method == "kill":
            os.kill(pid, signal.SIGKILL)
        else:
            future.request_cancel()
        after = [executor.submit(abs, -n) for n in range(4)]
        assert [one.result(LIMIT) for one in after] == [0, 1, 2, 3]
        assert [one.task.progress for one in after] == [None] * 4
        wait([future], LIMIT)
        assert future.cancelled() is (method == "request_cancel")


# Lifecycle


def test_shutdown_leaves_nothing(executor: Executor) -> None:
    """After shutdown there is no worker, and submit is refused."""
    pids = [executor.submit(pebble_app.pid).result(LIMIT) for _ in range(4)]
    executor.shutdown()
    assert all(map(ended, pids))
    with pytest.raises(ExecutorShutDown):
        executor.submit(abs, 1)


def test_a_pool_that_is_dropped(gate: Door) -> None:
    """A pool that nobody shuts down and nobody has any more ends its worker."""
    pool = PebblePool(1, "executor-pool")
    future = pool.submit(pebble_app.wait_at, gate.port)
    pid = gate.process()
    worker = pool._processes[pid]
    gate.open()
    assert future.result(LIMIT) == b"x"
    del pool
    worker.join(LIMIT)
    assert ended(pid)


def test_drain(executor: Executor, gate: Door) -> None:
    """What does not end in time still runs, and can then be killed."""
    running = executor.submit(pebble_app.wait_at, gate.port)
    other = executor.submit(pebble_app.wait_at, gate.port)
    pids = [gate.process() for _ in range(2)]
    waiting = executor.submit(abs, -1)
    drained = executor.drain(0)
    assert {*drained.running} == {running.task, other.task}
    assert drained.cancelled == (waiting.task,) and waiting.cancelled()
    for future in (running, other):
        future.request_cancel()
    executor.shutdown()
    assert all(map(ended, pids))


def test_pebble_is_missing(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pebble init_app says how to get it."""
    monkeypatch.setitem(sys.modules, "pebble", None)
    monkeypatch.delitem(sys.modules, "flask_executor.pools.pebble")
    with pytest.raises(PoolNotInstalled) as raised:
        Executor(app, "pebble")
    assert isinstance(raised.value, ImportError) and raised.value.kind == "pebble"
    assert str(raised.value) == (
        "EXECUTOR_TYPE = 'pebble' needs a library that is not installed: run"
        " pip install 'Flask-Executor[pebble]'."
    )


# Scripts

HEAD = """
import os
import signal
import sys

from flask import Flask
from flask_executor import Executor, ExecutorShutDown
import pebble_app

app = Flask("script")
app.config.update(
    EXECUTOR_TYPE="pebble",
    EXECUTOR_MAX_WORKERS=2,
    EXECUTOR_START_METHOD=os.environ["METHOD"],
)
executor = Executor(app)


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

"""


def start(directory: Path, body: str, method: str) -> subprocess.Popen[str]:
    path = directory / "script.py"
    path.write_text(HEAD + body)
    # Python 3.12 warns of each fork beside threads; here that is the point.
    options = ["-X", "faulthandler", "-W", "ignore:This process:DeprecationWarning"]
    return subprocess.Popen(
        [sys.executable, *options, str(path)],
        env=environment(METHOD=method),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_of(directory: Path, body: str, method: str = "forkserver") -> list[str]:
    """What a script says, which ends well."""
    with start(directory, body, method) as process:
        try:
            out, errors = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert (process.returncode, problems(errors)) == (0, "")
    return out.splitlines()


@pytest.mark.parametrize("method", METHODS)
def test_exit_runs_what_was_accepted(tmp_path: Path, method: str) -> None:
    """At the end of a script all runs that was accepted, and no process is left."""
    body = """
if __name__ == "__main__":
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    # Started in time: Python 3.12.1 starts no thread when the script has ended.
    pid = executor.submit(pebble_app.pid).result()
    for number in range(3):
        executor.submit(say, "ran", number)
    say(pid)
"""
    lines = lines_of(tmp_path, body, method)
    (pid,) = [line for line in lines if not line.startswith("ran")]
    assert [line for line in lines if line != pid] == ["ran 0", "ran 1", "ran 2"]
    assert ended(int(pid))


@cannot_at_exit("threading.Thread(target=print).start()")
def test_exit_starts_the_workers_it_needs(tmp_path: Path) -> None:
    """So it does where no worker has started yet."""
    body = """
if __name__ == "__main__":
    for number in range(4):
        executor.submit(say, "ran", number)
"""
    assert len(lines_of(tmp_path, body)) == 4


def test_submit_while_the_interpreter_ends(tmp_path: Path) -> None:
    """A submit that comes too late is refused; it does not hang."""
    body = """
import atexit


def late():
    try:
        executor.submit(say, "too late")
    except ExecutorShutDown:
        say("refused")


if __name__ == "__main__":
    atexit.register(late)
    executor.submit(say, "in time").result()
"""
    assert lines_of(tmp_path, body) == ["in time", "refused"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.holds("g-fork")
def test_a_forked_child_starts_anew(tmp_path: Path, method: str) -> None:
    """A child has workers of its own; the parent goes on with its own."""
    body = """
def in_child(body):
    child = os.fork()
    if not child:
        try:
            body()
        except BaseException as error:
            say("child failed", repr(error))
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def use():
    with app.app_context():
        assert executor.submit(abs, -1).result(20) == 1


if __name__ == "__main__":
    pid = executor.submit(pebble_app.pid).result()
    say(in_child(use), in_child(lambda: None))
    use()
    say(pid in executor._processes, executor._processes[pid].is_alive())
"""
    assert lines_of(tmp_path, body, method) == ["0 0", "True True"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.holds("g-killed")
def test_workers_end_with_a_killed_parent(tmp_path: Path, method: str) -> None:
    """When the parent is killed, its workers end, too."""
    body = """
if __name__ == "__main__":
    both = [executor.submit(pebble_app.pid) for _ in range(9)]
    for one in both:
        one.result()
    say("ready")
    signal.pause()
"""
    with start(tmp_path, body, method) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        # Each of them holds the script's output open: with the last, it ends.
        assert select.select([process.stdout], [], [], LIMIT)[0]
        assert process.stdout.read() == ""
