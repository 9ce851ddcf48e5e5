"""Periodic jobs: who runs them, when, how often, and what happens to missed ticks."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import re
import subprocess
import sys
import threading
import typing as t
import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from control import HandClock, until
from flask import Flask, current_app, g, has_request_context
from internals import Dispatcher, Timer
from limits import LIMIT
from scripts import environment, problems, run_code
from test_servers import Server, gunicorn
from werkzeug.test import create_environ, run_wsgi_app

from flask_executor import (
    Executor,
    ExecutorJob,
    InvalidSchedule,
    InvalidSetting,
    PeriodicJobs,
    Retry,
)
from flask_executor.testing import CapturedTasks, ManualClock, capture

HOUR = 3600.0


@pytest.fixture
def tasks(executor: Executor) -> t.Iterator[CapturedTasks]:
    """The tasks of a test, whose clock begins at noon."""
    clock = ManualClock()
    clock.advance(86_400 - (clock.time() - 43_200) % 86_400)
    with capture(executor, clock=clock) as tasks:
        yield tasks


class StepClock(HandClock):
    """A clock moved by hand that can also be set, as that of a machine."""

    def __init__(self) -> None:
        super().__init__()
        self.set_by = 0.0

    def time(self) -> float:
        return 1_800_000_000 + self.elapsed + self.set_by


@pytest.fixture
def clock(app: Flask, executor: Executor) -> StepClock:
    """The clock of an executor whose calls run at once."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor.init_app(app)
    clock = StepClock()
    state = executor._state()
    state.ready = Dispatcher(state.settings, "executor", app, clock)
    return clock


@pytest.fixture
def serving(app: Flask) -> t.Iterator[Flask]:
    """An app in a process that serves: not in a test."""
    app.testing = False
    yield app


def nothing() -> None: ...


def served(app: Flask, **environ: t.Any) -> bytes:
    """What a server gets for a request."""
    body, _, _ = run_wsgi_app(app, {**create_environ("/"), **environ})
    return b"".join(body)


def timer_of(executor: Executor) -> Timer:
    timer: Timer = executor._state().dispatcher.timer
    return timer


# When they run


def test_every_so_many_seconds(executor: Executor, tasks: CapturedTasks) -> None:
    """A job runs at each tick, once the schedule was started."""
    ran: list[datetime] = []

    @executor.every(20)
    def note() -> None:
        ran.append(tasks.clock.now())

    tasks.clock.advance(60)
    assert not ran and not executor.periodic.running
    executor.periodic.start()
    executor.periodic.start()
    tasks.clock.advance(60)
    assert [f"{one:%H:%M:%S}" for one in ran] == ["12:01:20", "12:01:40", "12:02:00"]
    assert executor.periodic.running


def test_by_a_cron_expression(executor: Executor, tasks: CapturedTasks) -> None:
    """A job runs at its times in its zone, a function becomes a job."""
    ran: list[str] = []

    @executor.cron("30 8 * * *", timezone="Asia/Kolkata")
    def morning() -> None:
        ran.append(f"{tasks.clock.now():%H:%M}")

    assert type(morning) is ExecutorJob
    executor.periodic.start()
    tasks.clock.advance(timedelta(days=2))
    assert ran == ["03:00", "03:00"]
    assert [one.name for one in tasks.submitted] == [
        "test_periodic.test_by_a_cron_expression.<locals>.morning"
    ] * 2


def test_several_jobs_in_order(executor: Executor, tasks: CapturedTasks) -> None:
    """Jobs with different schedules run in the order of their ticks."""
    ran: list[str] = []
    executor.every(30)(executor.job(name="b")(lambda: ran.append("b")))
    executor.every(20)(executor.job(name="a")(lambda: ran.append("a")))
    executor.periodic.start()
    executor.every(25)(executor.job(name="later")(lambda: ran.append("c")))
    tasks.clock.advance(60)
    assert ran == ["a", "c", "b", "a", "c", "b", "a"]


def test_in_a_context_of_its_own(
    app: Flask, executor: Executor, tasks: CapturedTasks
) -> None:
    """A tick's task has an app context, no request, and an empty g."""
    seen: list[t.Any] = []

    @executor.every(10)
    def note() -> None:
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        seen.append((app, has_request_context(), "user" in g))

    executor.periodic.start()
    with app.test_request_context():
        g.user = "ada"
        tasks.clock.advance(10)
        executor.periodic[note].run_now()
    assert seen == [(app, False, False)] * 2


def test_coroutines(executor: Executor) -> None:
    """A coroutine function can be periodic."""
    ran = threading.Event()

    @executor.every(0.01)
    async def note() -> None:
        ran.set()

    executor.periodic.start()
    assert ran.wait(LIMIT)


def test_each_app_has_its_own(app: Flask, executor: Executor) -> None:
    """The jobs of an executor run for each of its apps that serves."""
    seen: list[str] = []
    other = Flask("other")
    with capture(executor) as tasks:
        executor.every(10)(
            executor.job(name="n")(lambda: seen.append(current_app.name))
        )
        executor.init_app(other)
        for each in (app, other):
            with each.app_context():
                executor.periodic.start()
                assert len(executor.periodic) == 1
        tasks.clock.advance(10)
        with other.app_context():
            executor.periodic["n"].pause()
        tasks.clock.advance(10)
    assert sorted(seen) == ["other", "tests", "tests"]


# What people see


def test_what_is_listed(executor: Executor, tasks: CapturedTasks) -> None:
    """executor.periodic has each job with its schedule, its last and its next tick."""
    tidy = executor.cron("@daily", missed="skip", jitter=timedelta(minutes=1))(nothing)
    pings = executor.job(name="ping")(lambda: None)
    executor.every(20)(pings)
    jobs = executor.periodic
    assert isinstance(jobs, PeriodicJobs) and len(jobs) == 2 and tidy in jobs
    assert "ping" in jobs and "other" not in jobs
    assert repr(jobs) == "<PeriodicJobs test_periodic.nothing, ping>"
    first, second = jobs
    assert (first.name, first.job) == ("test_periodic.nothing", tidy)
    assert (first.schedule, first.missed, first.jitter) == ("@daily (UTC)", "skip", 60)
    assert (second.job, second.schedule, second.last) == (pings, "every 20 s", None)
    noon = tasks.clock.now()
    assert second.next == noon + timedelta(seconds=20)
    jobs.start()
    tasks.clock.advance(50)
    assert second.last == noon + timedelta(seconds=40)
    assert second.next == noon + timedelta(seconds=60)
    assert first.last is None and first.next == noon + timedelta(hours=12)
    assert "ping every 20 s" in repr(jobs["ping"])
    with pytest.raises(KeyError):
        jobs["other"]


def test_paused_and_resumed(executor: Executor, tasks: CapturedTasks) -> None:
    """A paused job misses its ticks for good; resumed, it goes on with the next."""
    ran: list[str] = []
    executor.every(10, missed="all")(executor.job(name="a")(lambda: ran.append("a")))
    executor.every(10)(executor.job(name="b")(lambda: ran.append("b")))
    jobs = executor.periodic
    jobs.start()
    jobs["a"].pause()
    assert jobs["a"].paused and jobs["a"].next is None and "paused" in repr(jobs["a"])
    tasks.clock.advance(35)
    assert ran == ["b"] * 3
    jobs["a"].resume()
    assert not jobs["a"].paused
    tasks.clock.advance(5)
    assert ran == ["b", "b", "b", "a", "b"]


def test_run_now(executor: Executor, tasks: CapturedTasks) -> None:
    """It gives the future, works while it is paused or not started, moves no tick."""
    executor.every(10)(executor.job(name="a")(lambda: 7))
    one = executor.periodic["a"]
    one.pause()
    assert one.run_now().result() == 7
    one.resume()
    executor.periodic.start()
    following = one.next
    assert one.run_now().result() == 7
    assert (one.next, one.last) == (following, None)
    assert len(tasks.submitted) == 2


# The options of the job


def test_unique_leaves_ticks_out(
    executor: Executor, tasks: CapturedTasks, caplog: pytest.LogCaptureFixture
) -> None:
    """With unique a tick is left out while the task before has not ended."""
    current_app_logger = logging.getLogger("tests")
    current_app_logger.setLevel("INFO")
    executor.every(10)(executor.job(name="a", unique="a")(nothing))
    executor.periodic.start()
    tasks.hold = True
    tasks.clock.advance(30)
    assert len(tasks.submitted) == 1
    left_out = [r for r in caplog.records if "is left out" in r.message]
    assert len(left_out) == 2 and left_out[0].levelname == "INFO"
    assert "A tick of the periodic job a is left out: unique = 'a'" in caplog.text
    tasks.release()
    tasks.clock.advance(10)
    assert len(tasks.submitted) == 2
    tasks.release()


def test_the_other_options_hold(executor: Executor, tasks: CapturedTasks) -> None:
    """A tick's task has the timeout, the limit and the retries of its job."""
    attempts: list[datetime] = []

    @executor.every(HOUR)
    @executor.job(timeout=5, max_concurrency=1, retry=Retry(attempts=2, delay=60))
    def fails() -> None:
        attempts.append(tasks.clock.now())
        raise ValueError

    executor.periodic.start()
    tasks.clock.advance(HOUR + 120)
    assert [f"{one:%H:%M}" for one in attempts] == ["13:00", "13:01"]
    (submitted,) = tasks.submitted
    assert submitted.options.timeout == 5 and submitted.options.max_concurrency == 1


def test_jitter(executor: Executor, clock: StepClock) -> None:
    """A task starts later by a random share of the jitter, on top of its own delay."""
    delays: list[t.Any] = []
    executor.add_default_done_callback(
        lambda future: delays.append(future.task.options.delay)
    )
    executor.every(10, jitter=4)(executor.job(delay=1)(nothing))
    executor.periodic.start()
    with mock.patch("random.random", return_value=0.5):
        clock.advance(10)
    assert delays == [3.0]


def test_a_tick_that_is_refused_is_logged(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A full queue costs that tick, with an error in the log; the next one comes."""
    app.config["EXECUTOR_MAX_PENDING"] = 1
    executor.every(10)(executor.job(name="a")(nothing))
    with capture(executor, hold=True) as tasks:
        executor.periodic.start()
        tasks.clock.advance(20)
        (record,) = [r for r in caplog.records if "is lost" in r.message]
        assert "A tick of the periodic job a is lost" in record.message
        assert record.levelname == "ERROR" and "QueueFull" in caplog.text
        tasks.release()
        tasks.clock.advance(10)
        tasks.release()
        assert len(tasks.submitted) == 2


# Clocks that are set, machines that sleep


@pytest.mark.parametrize(("missed", "count"), [("latest", 1), ("all", 4), ("skip", 0)])
def test_missed_ticks(
    executor: Executor, clock: StepClock, missed: t.Any, count: int
) -> None:
    """After a sleep of the machine the last tick runs, or all, or none that is late."""
    ran: list[float] = []
    executor.every(600, missed=missed)(lambda: ran.append(clock.time()))
    executor.periodic.start()
    clock.set_by = 2500  # for the timer no time has passed
    clock.advance(30)
    assert len(ran) == count
    clock.advance(600)
    assert len(ran) == count + 1


def test_a_clock_that_is_set_is_noticed_soon(
    executor: Executor, clock: StepClock
) -> None:
    """It looks at the clock every 30 seconds, not only when the timer says so."""
    ran: list[float] = []
    executor.cron("0 * * * *")(lambda: ran.append(clock.time()))
    executor.periodic.start()
    assert clock.to_next() == 30 and not ran
    clock.set_by = HOUR
    assert clock.to_next() == 30 and len(ran) == 1


@pytest.mark.parametrize(
    ("expression", "back", "ran_again"),
    [
        ("0 * * * *", HOUR, True),  # follows the time that passes
        ("0 8 * * *", HOUR, False),  # has run at that time of day
        ("0 8 * * *", 5 * HOUR, True),  # a clock that was wrong
        ("0 * * * *", 20, False),  # as a clock is corrected
    ],
)
def test_a_clock_that_is_set_back(
    executor: Executor, clock: StepClock, expression: str, back: float, ran_again: bool
) -> None:
    """As with cron: less than three hours back, a time of day does not come again."""
    start = datetime(2026, 5, 5, 7, 59, tzinfo=UTC).timestamp()
    clock.set_by = start - clock.time()
    ran: list[float] = []
    executor.cron(expression)(lambda: ran.append(clock.time()))
    executor.periodic.start()
    clock.advance(70)
    assert len(ran) == 1
    clock.set_by -= back
    clock.advance(back + 5)
    assert (len(ran) == 2) is ran_again


# Where a store takes over


class SharedTicks:
    """What a store does: each tick once, and the same knowledge for everybody."""

    is_shared = is_ready = True

    def begin(self, specs: t.Mapping[str, str], then: t.Callable[[], object]) -> None:
        then()

    def refresh(self) -> None: ...

    def __init__(self) -> None:
        self.taken: set[tuple[str, float]] = set()
        self.paused: set[str] = set()

    def submit(self, name: str, tick: float, submit: t.Callable[[], object]) -> bool:
        if (name, tick) in self.taken:
            return False
        submit()
        self.taken.add((name, tick))
        return True

    def last(self, name: str) -> float | None:
        return max((tick for its, tick in self.taken if its == name), default=None)

    def is_paused(self, name: str) -> bool:
        return name in self.paused

    def pause(self, name: str, paused: bool) -> None:
        (self.paused.add if paused else self.paused.discard)(name)


def test_a_store_makes_each_tick_run_once(app: Flask) -> None:
    """Of several processes that share their ticks one submits; all know of a pause, and
    one that starts makes up for what nobody has run.
    """
    shared = SharedTicks()
    executors = [Executor(app, name) for name in ("a", "b", "c")]
    with capture(*executors) as tasks:
        for executor in executors:
            executor.every(60, missed="all")(executor.job(name="tidy")(nothing))
            executor._planning.runner(executor._state().dispatcher).ticks = shared
        first, second, third = (executor.periodic for executor in executors)
        first.start(), second.start()
        tasks.clock.advance(180)
        assert len(tasks.submitted) == 3
        first["tidy"].pause()
        tasks.clock.advance(60)
        assert second["tidy"].paused and len(tasks.submitted) == 3
        second["tidy"].resume()
        third.start()
        assert len(tasks.submitted) == 4
    for executor in executors:
        executor.shutdown()


def test_a_store_that_is_away(
    executor: Executor, tasks: CapturedTasks, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be told is logged and does not stop the others; nothing is lost."""
    executor.every(20, missed="all")(executor.job(name="a")(nothing))
    executor.every(30)(executor.job(name="b")(nothing))
    shared = SharedTicks()
    executor._planning.runner(executor._state().dispatcher).ticks = shared
    executor.periodic.start()
    tasks.clock.advance(10)
    with mock.patch.object(shared, "is_paused", side_effect=OSError("away")):
        tasks.clock.advance(50)
    assert "The next tick of the periodic job a cannot be told" in caplog.text
    assert not tasks.submitted
    tasks.clock.advance(30)
    assert [one.name for one in tasks.submitted] == ["a", "a", "a", "a", "b"]


# Which processes run them


def test_a_process_that_submits_runs_them(serving: Flask) -> None:
    """They start with the first submit, and end with the executor."""
    executor = Executor(serving)
    ran = threading.Event()
    executor.every(0.01)(lambda: ran.set())
    assert not ran.is_set()
    executor.submit(nothing).result(LIMIT)
    assert ran.wait(LIMIT)
    executor.shutdown()


def test_declared_after_the_first_submit(serving: Flask) -> None:
    """A job that is declared later, in a module imported later, runs as well."""
    executor = Executor(serving)
    executor.submit(nothing).result(LIMIT)
    ran = threading.Event()
    executor.every(0.01)(lambda: ran.set())
    assert ran.wait(LIMIT)
    executor.shutdown()


def test_a_process_that_serves_runs_them(serving: Flask) -> None:
    """They start with the first request that a server serves."""
    executor = Executor()
    executor.every(0.01)(executor.job(name="a")(lambda: ran.set()))
    executor.init_app(serving)
    ran = threading.Event()
    serving.testing = True
    served(serving)
    assert executor._state().ready is None
    serving.testing = False
    served(serving)
    assert ran.wait(LIMIT)
    executor.shutdown()


@pytest.mark.parametrize("where", ["test", "flask", "shell", "worker"])
def test_other_processes_run_none(app: Flask, where: str) -> None:
    """No submit starts them in a test, a flask command, a shell or a worker process."""
    app.testing = where == "test"
    executor = Executor(app)
    executor.every(0.01)(nothing)
    cli = {"FLASK_RUN_FROM_CLI": "true"} if where == "flask" else {}
    parent = mock.patch("multiprocessing.parent_process", return_value=object())
    with mock.patch.dict(os.environ, cli), pytest.MonkeyPatch.context() as patch:
        if where == "shell":
            patch.setattr(sys, "ps1", ">>> ", raising=False)
        if where == "worker":
            parent.start()
        executor.submit(nothing).result(LIMIT)
        mock.patch.stopall()
        assert timer_of(executor).next_due() is None
        assert not executor.periodic.running
    executor.shutdown()


def test_without_periodic_jobs_nothing_listens(serving: Flask) -> None:
    """An app without periodic jobs and without a store has no receiver for its requests
    after the first one, and no timer.
    """
    executor = Executor(serving)
    executor.submit(nothing).result(LIMIT)
    serving.test_client().get("/")
    assert not executor._serving._receivers
    assert not executor._planning._receivers
    assert timer_of(executor)._thread is None
    executor.shutdown()


def test_croniter_is_imported_only_for_cron(tmp_path: Path) -> None:
    """Neither the package nor every() imports croniter."""
    script = (
        "import sys, flask, flask_executor\n"
        "executor = flask_executor.Executor()\n"
        "executor.every(5)(lambda: None)\n"
        "assert 'croniter' not in sys.modules\n"
        "executor.cron('@daily')(print)\n"
        "assert 'croniter' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True)


def test_several_processes_are_warned_of(
    serving: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """Behind a server with several processes one line says that each runs them."""
    executor = Executor(serving)
    executor.every(HOUR)(executor.job(name="tidy")(nothing))
    served(serving)
    executor.shutdown()
    assert not caplog.records
    executor.init_app(serving)
    for _ in range(3):
        served(serving, **{"wsgi.multiprocess": True})
    executor.shutdown()
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "\n" not in record.message
    assert "in every process of this server, tidy also in process" in record.message
    assert "EXECUTOR_STORE" in record.message


def test_a_forked_child_runs_them_anew(serving: Flask, tmp_path: Path) -> None:
    """The timer of a parent does not survive a fork: the child starts its own."""
    executor = Executor(serving)
    executor.every(0.01)(executor.job(name="a")(lambda: ran.set()))
    ran = threading.Event()
    executor.submit(nothing).result(LIMIT)
    assert ran.wait(LIMIT)
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            ran.clear()
            before = executor.periodic.running
            served(serving)
            os.write(writer, f"{before} {ran.wait(LIMIT)}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as told:
        assert told.read() == "True True"
    os.waitpid(pid, 0)
    executor.shutdown()


def test_under_gunicorn(tmp_path: Path) -> None:
    """Each worker that has served a request runs them and warns, and ends with it."""
    with gunicorn(tmp_path, "-w", "2", app="periodic_app:app") as server:
        workers: set[bytes] = set()
        until(lambda: workers.add(server.ask("/")) or len(workers) == 2)
        expected = {int(worker) for worker in workers}
        until(
            lambda: (
                server.notes.drain()
                or {int(m[1]) for m in server.notes.matching(r"^tick (\d+)$")}
                == expected
            )
        )
        warned = server.log.until(r"tick also in process (\d+): without a store", 2)
        assert {int(match[1]) for match in warned} == expected
        assert server.terminate() == 0
    assert not [line for line in server.log.all if "SIGKILL" in line]


@pytest.mark.parametrize("by", ["flask run", "app.run"])
def test_under_the_reloader(tmp_path: Path, by: str) -> None:
    """The parent of Flask's reloader runs none; its child does, once it serves."""
    run = ("-m", "flask", "--app", "periodic_app", "run", "--port", "0", "--reload")
    script = "import periodic_app as p; p.executor.submit(abs, 1); p.app.run(port=0"
    if by == "app.run":
        (tmp_path / "run.py").write_text(f"{script}, use_reloader=True)")
        run = (str(tmp_path / "run.py"),)  # type: ignore[assignment]
    with Server(tmp_path / "server", *run) as server:
        parent, child = (
            int(match[1]) for match in server.notes.until(r"^imported (\d+)$", 2)
        )
        assert int(server.ask("/")) == child != parent
        found = server.notes.until(r"^tick (\d+)$", 3)
        assert {int(match[1]) for match in found} == {child}


def test_without_a_thread(app: Flask, executor: Executor) -> None:
    """If no thread can be started, start() says so, and the next one tries again."""
    ran = threading.Event()
    executor.every(0.01)(lambda: ran.set())
    with (
        mock.patch("threading.Thread.start", side_effect=RuntimeError("no thread")),
        pytest.raises(RuntimeError, match="no thread"),
    ):
        executor.periodic.start()
    assert not executor.periodic.running
    executor.periodic.start()
    assert ran.wait(LIMIT)


def test_where_the_reloader_is_only_imported(
    executor: Executor, tasks: CapturedTasks
) -> None:
    """A process that only has werkzeug's module of the reloader runs them."""
    importlib.import_module("werkzeug._reloader")
    executor.every(10)(nothing)
    executor.periodic.start()
    tasks.clock.advance(10)
    assert len(tasks.submitted) == 1


# How they end


def test_they_end_with_the_executor(executor: Executor, tasks: CapturedTasks) -> None:
    """After shutdown nothing comes any more, and nothing is logged."""
    executor.every(10)(nothing)
    executor.periodic.start()
    tasks.clock.advance(10)
    executor.shutdown()
    tasks.clock.advance(100)
    assert len(tasks.submitted) == 1


@pytest.mark.parametrize("end", ["shutdown", "drain"])
def test_their_timer_ends_at_once(serving: Flask, end: str) -> None:
    """Shutdown and drain do not wait for the next tick."""
    executor = Executor(serving)
    executor.every(24 * HOUR)(nothing)
    executor.submit(nothing).result(LIMIT)
    timer = timer_of(executor)
    thread = timer._thread
    assert thread is not None and thread.is_alive()
    getattr(executor, end)()
    thread.join(LIMIT / 3)
    assert not thread.is_alive()


def test_a_tick_after_shutdown_is_none(
    serving: Flask, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """While the last tasks run, after shutdown, ticks are neither run nor logged."""
    executor = Executor(serving)
    count: list[int] = []
    executor.every(0.01)(lambda: count.append(1))
    running = executor.submit(gate.wait, LIMIT)
    until(lambda: count and running.running())
    executor.shutdown(wait=False)
    until(lambda: timer_of(executor).next_due() is None)
    gate.set()
    running.result(LIMIT)
    assert not caplog.records


def test_the_process_ends() -> None:
    """A script with periodic jobs ends as soon as its own tasks have."""
    script = (
        "import flask, flask_executor\n"
        "executor = flask_executor.Executor(flask.Flask('script'))\n"
        "executor.every(3600)(lambda: None)\n"
        "executor.submit(print, 'ran')\n"
    )
    done = run_code(script)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert not problems(done.stderr)


def test_dropped_with_its_app() -> None:
    """An executor and its app that nobody refers to go, with their timer's thread."""
    app = Flask("dropped")
    executor = Executor(app)
    executor.every(24 * HOUR)(nothing)
    executor.submit(nothing).result(LIMIT)
    thread = timer_of(executor)._thread
    gone = weakref.ref(executor), weakref.ref(app)
    assert thread is not None
    del app, executor
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    thread.join(LIMIT / 3)
    assert not thread.is_alive()


# From the config


def job_of_config() -> str:
    return "configured"


def configured(app: Flask, **entry: t.Any) -> Executor:
    app.config["EXECUTOR_PERIODIC"] = {"one": entry}
    return Executor(app)


@pytest.mark.parametrize(
    "job", ["test_periodic:job_of_config", "test_periodic.job_of_config", job_of_config]
)
def test_from_the_config(app: Flask, job: t.Any) -> None:
    """A job of the config is imported at first use, and runs under its name there."""
    app.config["EXECUTOR_PERIODIC"] = {
        "nightly": {"job": job, "cron": "0 3 * * *", "timezone": "Europe/Berlin"},
        "often": {"job": job, "every": 10, "missed": "skip", "jitter": 1},
    }
    executor = Executor(app)
    with capture(executor) as tasks:
        executor.periodic.start()
        tasks.clock.advance(10)
        assert [one.name for one in executor.periodic] == ["nightly", "often"]
        assert executor.periodic["nightly"].schedule == "0 3 * * * (Europe/Berlin)"
        (submitted,) = tasks.submitted
        assert submitted.future.result() == "configured"
    executor.shutdown()


def test_the_config_of_an_executor_with_a_name(app: Flask) -> None:
    """An executor with a name has a key of its own."""
    app.config["MAIL_EXECUTOR_PERIODIC"] = {"one": {"job": nothing, "every": 5}}
    mail, other = Executor(app, "mail"), Executor(app)
    assert len(mail.periodic) == 1 and len(other.periodic) == 0
    mail.shutdown(), other.shutdown()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "a dictionary of jobs by name"),
        ({"a": 5}, "EXECUTOR_PERIODIC['a'] = 5 is not understood: use a dictionary"),
        (
            {"a": {"job": nothing, "each": 5}},
            "with the keys job, cron, timezone, every",
        ),
        ({"a": {"every": 5}}, "'job', and either 'cron' or 'every'"),
        ({"a": {"job": nothing}}, "'job', and either 'cron' or 'every'"),
        ({"a": {"job": nothing, "every": 5, "cron": "@daily"}}, "either 'cron' or"),
        ({"a": {"job": nothing, "every": 0}}, "above 0, or a timedelta as 'every'"),
        ({"a": {"job": nothing, "cron": "x"}}, "five fields"),
        ({"a": {"job": nothing, "every": 5, "timezone": "UTC"}}, "it with cron only"),
        ({5: {"job": nothing, "every": 5}}, "a text as the name of each job"),
    ],
)
def test_a_wrong_config_is_refused(app: Flask, value: t.Any, words: str) -> None:
    """init_app refuses what is not understood, with the key, the value and the rule."""
    app.config["EXECUTOR_PERIODIC"] = value
    with pytest.raises(InvalidSetting, match="EXECUTOR_PERIODIC") as caught:
        Executor(app)
    assert words in str(caught.value)


@pytest.mark.parametrize("job", ["no_such:job", "test_periodic:no_such", 5, "os:sep"])
def test_a_job_that_is_none(
    serving: Flask, job: t.Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be imported is an error in the log and at executor.periodic; the
    tasks of the app are not affected.
    """
    executor = configured(serving, job=job, every=5)
    assert executor.submit(abs, -1).result(LIMIT) == 1
    assert "The periodic jobs do not run in process" in caplog.text
    with pytest.raises(InvalidSetting, match=r"EXECUTOR_PERIODIC\['one'\].*as the job"):
        executor.periodic.start()
    executor.shutdown()


# What is refused


@pytest.mark.parametrize("wrong", [{"missed": "none"}, {"jitter": -1}, {"jitter": "x"}])
def test_values_that_are_refused(executor: Executor, wrong: t.Any) -> None:
    """What is not allowed is refused where the job is declared."""
    ((what, value),) = wrong.items()
    with pytest.raises(InvalidSchedule, match=f"{what} = {re.escape(repr(value))}"):
        executor.every(5, **wrong)(nothing)
    assert not executor.periodic


def test_jobs_that_are_refused(executor: Executor) -> None:
    """A job that needs arguments is refused, and a second schedule for the same one."""
    with pytest.raises(InvalidSchedule, match=r"no arguments \(missing a required arg"):
        executor.every(5)(lambda order: order)
    executor.every(5)(lambda order=7: order)
    job = executor.job(nothing)
    executor.every(5)(job)
    with pytest.raises(InvalidSchedule, match="it has every 5 s already"):
        executor.cron("@daily")(job)
    with pytest.raises(InvalidSchedule, match="every = 0 cannot be scheduled"):
        executor.every(0)


def test_a_factory_that_runs_twice(executor: Executor) -> None:
    """A function that is declared again replaces the one of its name."""

    def declare(interval: int) -> None:
        @executor.every(interval)
        def tidy() -> None: ...

    declare(5)
    declare(7)
    assert [one.schedule for one in executor.periodic] == ["every 7 s"]


def test_the_package_has_them() -> None:
    """Their types can be imported from the package."""
    package = importlib.import_module("flask_executor")
    assert {"PeriodicJob", "PeriodicJobs", "InvalidSchedule"} <= {*package.__all__}
