"""Metrics for Prometheus: what is counted, for whom, and over how many processes."""

from __future__ import annotations

import gc
import threading
import typing as t
from pathlib import Path

import pytest
from control import occupy, until, with_clock
from databases import Server as Database
from flask import Flask, Response, make_response
from limits import LIMIT
from processes import Process, declare
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from scripts import run_code
from store_fixtures import empty_file, postgresql_url, server, sqlite_url
from test_servers import Server, gunicorn

from flask_executor import Executor, Retry
from flask_executor.metrics import Metrics
from flask_executor.metrics.counts import MOST

__all__ = ["empty_file", "postgresql_url", "server", "sqlite_url"]


class Seen:
    """What a registry shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def value(self, name: str, **labels: str) -> float | None:
        """A number, for the executor without a name unless the labels say otherwise."""
        labels = {"executor": "", **labels}
        return self.registry.get_sample_value(f"flask_executor_{name}", labels)

    def ended(self, job: str) -> dict[str, float | None]:
        """How many tasks of a job have ended in each state, without the zeros."""
        states = ("succeeded", "failed", "timed_out", "cancelled")
        found = {s: self.value("tasks_ended_total", job=job, state=s) for s in states}
        assert None not in found.values()
        return {state: number for state, number in found.items() if number}

    def jobs(self) -> set[str]:
        """All values of the label ``job``."""
        samples = [one for family in self.registry.collect() for one in family.samples]
        return {one.labels["job"] for one in samples if "job" in one.labels}


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def counted(executor: Executor, seen: Seen) -> Executor:
    """An executor that is counted."""
    Metrics(executor, registry=seen.registry)
    return executor


@pytest.fixture
def process(sqlite_url: str) -> t.Iterator[t.Callable[..., Process]]:
    """Makes processes that share a store."""
    made: list[Process] = []

    def make(**config: t.Any) -> Process:
        made.append(Process(sqlite_url, **config))
        return made[-1]

    yield make
    for one in made:
        one.close(cancel_futures=True)


# What is counted


def test_every_end(counted: Executor, seen: Seen, gate: threading.Event) -> None:
    """Each task is counted once when it comes, and once by how it ends."""

    @counted.job(name="work")
    def work(what: t.Callable[[], object]) -> None:
        what()

    def fail() -> None:
        raise ValueError

    for _ in range(3):
        work.submit(int).result(LIMIT)
    work.submit(fail).exception(LIMIT)
    retry = Retry(attempts=3, delay=0.001)
    work.using(retry=retry).submit(fail).exception(LIMIT)
    work.using(timeout=0.02).submit(lambda: gate.wait(LIMIT)).exception(LIMIT)
    work.using(delay=3600, name="other name").submit(int).cancel()
    gate.set()
    counted.shutdown()
    assert seen.value("tasks_submitted_total", job="work") == 7
    assert seen.ended("work") == {
        "succeeded": 3,
        "failed": 2,
        "timed_out": 1,
        "cancelled": 1,
    }
    assert seen.value("tasks_retried_total", job="work") == 2
    assert seen.value("task_run_seconds_count", job="work") == 8
    assert seen.value("task_wait_seconds_count", job="work") == 6
    assert seen.jobs() == {"work"}


def test_a_delay_is_no_wait(executor: Executor, seen: Seen) -> None:
    """The wait begins when a task is due; its run is what its attempts take."""
    clock = with_clock(executor)
    Metrics(executor, registry=seen.registry)
    job = executor.job(name="move on")(clock.advance)
    gate = threading.Event()
    occupy(executor, gate, 4)
    future = job.using(delay=100).submit(5)
    clock.advance(107)
    gate.set()
    future.result(LIMIT)
    executor.shutdown()
    assert seen.value("task_wait_seconds_sum", job="move on") == 7
    assert seen.value("task_run_seconds_sum", job="move on") == 5
    buckets = [
        seen.value("task_wait_seconds_bucket", job="move on", le=bound)
        for bound in ("5.0", "10.0", "+Inf")
    ]
    assert buckets == [0, 1, 1]


def test_what_runs_now(counted: Executor, seen: Seen, gate: threading.Event) -> None:
    """Running is what runs at this moment; overrun is what should not run any more."""
    assert seen.value("tasks_running") == 0
    occupy(counted, gate)
    assert seen.value("tasks_running") == 1
    late = counted.using(timeout=0.02).submit(gate.wait, LIMIT)
    late.exception(LIMIT)
    assert seen.value("tasks_running") == 1
    assert seen.value("tasks_overrun") == 1
    gate.set()
    counted.shutdown()
    assert seen.value("tasks_running") == seen.value("tasks_overrun") == 0


# Labels


def test_names_that_nobody_declared(counted: Executor, seen: Seen) -> None:
    """A name that a call was given, or a plain function, is no label."""
    counted.submit(abs, -1).result(LIMIT)
    counted.using(name="user 17").submit(abs, -1).result(LIMIT)
    counted.using(name="user 18", delay=3600).submit(abs, -1).cancel()
    counted.shutdown()
    assert seen.jobs() == {"other"}
    assert seen.ended("other") == {"succeeded": 2, "cancelled": 1}


def test_names_beyond_the_limit(counted: Executor, seen: Seen) -> None:
    """However many jobs there are, there are 200 labels; the rest is other."""
    jobs = [counted.job(name=f"job {n}")(lambda: None) for n in range(MOST + 50)]
    for job in jobs:
        job.submit().result(LIMIT)
    jobs[0].submit().result(LIMIT)
    counted.shutdown()
    assert len(seen.jobs()) == MOST == 200
    assert seen.ended("job 0") == {"succeeded": 2}
    assert seen.ended("other") == {"succeeded": 51}


def test_several_executors(app: Flask, seen: Seen) -> None:
    """One registry has all executors, each under its name, each counted once."""
    one, mail = Executor(app), Executor(app, "mail")
    for executor in (one, mail, mail):
        Metrics(executor, registry=seen.registry)
        executor.submit(abs, -1).result(LIMIT)
    one.shutdown()
    mail.shutdown()
    assert seen.value("tasks_submitted_total", job="other") == 1
    mails = seen.value("tasks_submitted_total", job="other", executor="mail")
    assert mails == 2


def test_what_was_made_before(executor: Executor, seen: Seen) -> None:
    """An executor that is in use already is counted from then on."""
    executor.submit(abs, -1).result(LIMIT)
    Metrics(executor, registry=seen.registry)
    executor.submit(abs, -1).result(LIMIT)
    executor.shutdown()
    assert seen.ended("other") == {"succeeded": 1}


def test_an_app_that_is_dropped(seen: Seen) -> None:
    """A registry keeps what was counted, and neither the app nor its executor."""
    app = Flask("dropped")
    executor = Executor(app)
    Metrics(executor, registry=seen.registry)
    executor.submit(abs, -1).result(LIMIT)
    executor.shutdown()
    del app, executor
    gc.collect()
    apps = [one.name for one in gc.get_objects() if type(one) is Flask]
    assert "dropped" not in apps
    assert seen.ended("other") == {"succeeded": 1}


# With a store


def test_the_store(process: t.Callable[..., Process], seen: Seen) -> None:
    """From the store: tasks by state, the longest wait, the processes alive."""
    one, other = process(EXECUTOR_STORE_RUN=False), process()
    Metrics(one.executor, registry=seen.registry)
    job = declare(one, lambda: None)
    declare(other, lambda: None)
    assert seen.value("store_up") == 1
    assert seen.value("store_workers") == 0
    assert seen.value("store_oldest_wait_seconds") == 0
    future = job.using(delay=0.001).submit()
    until(lambda: (seen.value("store_oldest_wait_seconds") or 0) > 0)
    other.serve()
    future.result(LIMIT)
    assert seen.value("store_tasks", state="succeeded") == 1
    assert seen.value("store_tasks", state="waiting") == 0
    assert seen.value("store_workers") == 1


def test_who_counts_what(process: t.Callable[..., Process], seen: Seen) -> None:
    """A saved task counts as submitted where that was, and as ended where it ran."""
    there = Seen()
    one, other = process(EXECUTOR_STORE_RUN=False), process()
    Metrics(one.executor, registry=seen.registry)
    Metrics(other.executor, registry=there.registry)
    declare(other, lambda: None)
    future = declare(one, lambda: None).using(delay=2.0).submit()
    other.serve()
    future.result(LIMIT)
    other.close()
    assert seen.value("tasks_submitted_total", job="job") == 1
    assert seen.ended("job") == {}
    assert there.value("tasks_submitted_total", job="job") == 0
    assert there.ended("job") == {"succeeded": 1}
    wait = there.value("task_wait_seconds_sum", job="job")
    assert wait is not None and wait < 2  # its delay is not in it


def test_no_store(counted: Executor, seen: Seen) -> None:
    """Without a store there are no numbers of one."""
    counted.submit(abs, -1).result(LIMIT)
    names = {family.name for family in seen.registry.collect()}
    assert names and not [name for name in names if "store" in name]


def test_a_store_that_is_away(
    postgresql_url: str, server: Database, seen: Seen
) -> None:
    """If the database is away, up is 0, and all that was counted here is there."""
    one = Process(postgresql_url)
    Metrics(one.executor, registry=seen.registry)
    one.executor.submit(abs, -1).result(LIMIT)
    assert seen.value("store_up") == 1
    server.stop()
    try:
        assert seen.value("store_up") == 0
        assert seen.value("store_workers") is None
        assert seen.ended("other") == {"succeeded": 1}
    finally:
        server.start()
    until(lambda: seen.value("store_up") == 1)
    one.close()


# The page


def page(app: Flask, metrics: Metrics, **environ: t.Any) -> t.Any:
    if metrics.name not in app.blueprints:
        app.register_blueprint(metrics)
    options = {"base_url": "http://localhost", **environ}
    return app.test_client().get("/metrics", **options)


def test_the_page(app: Flask, executor: Executor, seen: Seen) -> None:
    """Who is allowed to gets all of the registry, as Prometheus reads it."""
    asked: list[str] = []

    def may(action: str) -> bool:
        asked.append(action)
        return True

    metrics = Metrics(executor, registry=seen.registry, authorize=may)
    executor.submit(abs, -1).result(LIMIT)
    executor.shutdown()
    answer = page(app, metrics)
    assert answer.status_code == 200 and asked == ["view"]
    assert answer.content_type.startswith("text/plain; version=")
    assert answer.headers["Cache-Control"] == "no-store"
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert "flask_executor_task_run_seconds" in names
    assert metrics.registry() is seen.registry


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    ("environ", "is_local"),
    [
        ({}, True),
        ({"environ_base": {"REMOTE_ADDR": "10.0.0.7"}}, False),
        ({"base_url": "http://evil.example"}, False),
        ({"headers": {"X-Forwarded-For": "127.0.0.1"}}, False),
    ],
)
def test_closed_by_default(
    app: Flask,
    executor: Executor,
    seen: Seen,
    debug: bool,
    environ: t.Any,
    is_local: bool,
) -> None:
    """Without authorize it is not there, except on this machine in debug mode."""
    app.debug = debug
    answer = page(app, Metrics(executor, registry=seen.registry), **environ)
    assert answer.status_code == (200 if debug and is_local else 404)


def _raises(action: str) -> bool:
    raise RuntimeError("no session")


@pytest.mark.parametrize(
    ("authorize", "logged"),
    [
        (lambda action: False, []),
        (lambda action: None, ["returned a NoneType"]),
        (lambda action: "yes", ["returned a str"]),
        (lambda action: 1, ["returned a int"]),
        (_raises, ["has raised"]),
    ],
)
def test_no_is_no(
    app: Flask,
    executor: Executor,
    seen: Seen,
    authorize: t.Any,
    logged: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Anything except True or a response is no, in debug mode, too."""
    app.debug = True
    metrics = Metrics(executor, registry=seen.registry, authorize=authorize)
    answer = page(app, metrics)
    assert answer.status_code == 404
    assert "flask_executor" not in answer.text
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == len(logged)
    assert all(part in text for part, text in zip(logged, texts, strict=True))


def test_a_response_instead(app: Flask, executor: Executor, seen: Seen) -> None:
    """What authorize returns as a response is sent, for example to ask for a name."""

    def may(action: str) -> Response:
        return make_response("who?", 401)

    answer = page(app, Metrics(executor, registry=seen.registry, authorize=may))
    assert (answer.status_code, answer.text) == (401, "who?")


# Several processes


def numbers(text: str) -> dict[tuple[str, str, str], float]:
    """What a page shows, by name, job and state."""
    return {
        (one.name, one.labels.get("job", ""), one.labels.get("state", "")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


TOTAL = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_under_gunicorn(
    tmp_path: Path,
    sqlite_url: str,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any worker shows the sum over all, and what the store knows once."""
    files = tmp_path / "metrics"
    files.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(files))
    monkeypatch.setenv("METRICS_STORE", sqlite_url)

    def ended(server: Server) -> float | None:
        found = numbers(server.ask("/metrics").decode())
        return found.get(("flask_executor_tasks_ended_total", "work", "succeeded"))

    with gunicorn(tmp_path, "-w", "2", *options, app="metrics_app:app") as server:
        workers: dict[bytes, int] = {}

        def both() -> bool:
            pid = server.ask("/work", b"")
            workers[pid] = workers.get(pid, 0) + 1
            return len(workers) == 2

        until(both)
        server.ask("/saved", b"")
        count = sum(workers.values()) + 1
        for _ in range(4):  # whichever worker answers
            until(lambda: ended(server) == count)
        server.ask("/hold", b"")
        server.notes.until("holds")
        running = ("flask_executor_tasks_running", "", "")
        until(lambda: numbers(server.ask("/metrics").decode())[running] == 1)
        found = numbers(server.ask("/metrics").decode())
        assert found["flask_executor_store_up", "", ""] == 1
        assert found["flask_executor_store_tasks", "", "succeeded"] == 1
        assert found["flask_executor_store_workers", "", ""] >= 1
        freed: set[bytes] = set()
        until(lambda: freed.add(server.ask("/free", b"")) or len(freed) == 2)
        assert server.terminate() == 0
    done = run_code(TOTAL)
    assert done.returncode == 0, done.stderr
    found = numbers(done.stdout)
    assert found["flask_executor_tasks_ended_total", "work", "succeeded"] == count
    assert found["flask_executor_tasks_ended_total", "hold", "succeeded"] == 1
    assert found[running] == 0


# What is off costs nothing


def test_nothing_is_imported() -> None:
    """An app that uses no surface imports none, nor a library of one."""
    code = (
        "import sys, flask_executor.executor\n"
        "from flask import Flask\n"
        "executor = flask_executor.Executor(Flask('x'))\n"
        "assert executor.submit(abs, -1).result(30) == 1\n"
        "names = ('prometheus_client', 'opentelemetry', 'flask_executor.web',\n"
        "         'flask_executor.metrics', 'flask_executor.tracing')\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    done = run_code(code)
    assert done.stdout == "[]\n", done.stderr


def test_an_executor_that_is_not_counted(executor: Executor) -> None:
    """Each event has the sinks that it had."""
    events = executor._state().dispatcher.events
    assert events.started.__name__ == "started"
    assert events.submitted.__name__ == "submitted"
    assert events.ended.__name__ == "ended"


def test_without_the_library() -> None:
    """The error names the extra."""
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "try: import flask_executor.metrics\n"
        "except ImportError as error: print(type(error).__name__, error)\n"
    )
    done = run_code(code)
    assert done.stdout == (
        "SurfaceNotInstalled flask_executor.metrics needs prometheus-client, which is"
        " not installed: run pip install 'Flask-Executor[metrics]'.\n"
    ), done.stderr


def test_no_list_grows(counted: Executor, seen: Seen) -> None:
    """What comes is counted in time, also if nobody asks."""
    for _ in range(2_500):
        counted.submit(int)
    counts = t.cast(t.Any, counted._state().dispatcher.events._sinks[-1])
    assert len(counts._came) <= 1_001
    counted.shutdown()
    assert seen.value("tasks_submitted_total", job="other") == 2_500
    assert seen.ended("other") == {"succeeded": 2_500}
