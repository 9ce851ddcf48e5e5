"""Periodic jobs with a store: each tick once, for all processes."""

from __future__ import annotations

import collections
import itertools
import logging
import subprocess
import sys
import typing as t
from pathlib import Path
from unittest import mock

import pytest
from internals import Dispatcher
from limits import LIMIT
from processes import NewProcess, Process, until
from scripts import SUPPORT, environment
from sqlalchemy import text

from flask_executor import PeriodicJob, StoreUnavailable, cli
from flask_executor.stores.sql import SqlStore
from flask_executor.testing import ManualClock

MINUTE = 60.0


@pytest.fixture
def clock() -> ManualClock:
    """A clock that shows ten seconds after a full hour."""
    clock = ManualClock()
    clock.advance(3610 - clock.time() % 3600)
    return clock


class Ticking:
    """A process with one periodic job, and a clock moved by hand."""

    def __init__(
        self, process: Process, clock: ManualClock, missed: t.Any, **options: t.Any
    ) -> None:
        self.process = process
        state = process.executor._state()
        state.new_dispatcher = lambda *facts: Dispatcher(*facts, clock)
        job = process.executor.job(**{"name": "tidy"} | options)(lambda: 42)
        process.executor.every(MINUTE, missed=missed)(job)

    @property
    def periodic(self) -> PeriodicJob:
        return self.process.executor.periodic["tidy"]

    def start(self) -> Ticking:
        self.process.executor.periodic.start()
        until(lambda: self.process.node.ticks.is_ready)
        return self

    def tasks(self) -> list[t.Any]:
        found: list[t.Any] = self.process.store.tasks()
        return found


@pytest.fixture
def ticking(process: NewProcess, clock: ManualClock) -> t.Callable[..., Ticking]:
    def make(missed: str = "latest", **options: t.Any) -> Ticking:
        return Ticking(process(), clock, missed, **options)

    return make


NewTicking = t.Callable[..., Ticking]


def test_each_tick_once(ticking: NewTicking, clock: ManualClock) -> None:
    """Of several processes one submits each tick, and all know the last one."""
    first, second = ticking().start(), ticking().start()
    assert first.periodic.last is None
    began = clock.time()
    clock.advance(3 * MINUTE)
    tasks = until(lambda: [one for one in first.tasks() if one.finished])
    until(lambda: all(one.state == "succeeded" for one in first.tasks()))
    assert len(first.tasks()) == 3 and tasks
    for one in (first, second):
        assert one.periodic.last is not None and one.periodic.next is not None
        assert one.periodic.last.timestamp() == began + 170
        assert one.periodic.next.timestamp() == began + 230
    records = first.process.store.schedules()
    assert [one.spec for one in records] == ["every 60 s"]


@pytest.mark.parametrize(
    ("options", "config", "guarantee"),
    [
        ({}, {}, "at_least_once"),
        ({"guarantee": "at_most_once"}, {}, "at_most_once"),
        ({"guarantee": "ephemeral"}, {}, "ephemeral"),
        ({}, {"EXECUTOR_GUARANTEE": "at_most_once"}, "at_most_once"),
    ],
)
def test_its_guarantee(
    process: NewProcess,
    clock: ManualClock,
    options: dict[str, t.Any],
    config: dict[str, t.Any],
    guarantee: str,
) -> None:
    """A tick is saved and runs at least once, unless the job or the config says else;
    without a guarantee it is still submitted once.
    """
    both = [Ticking(process(**config), clock, "latest", **options) for _ in range(2)]
    for one in both:
        one.start()
    clock.advance(MINUTE)
    [task] = both[0].tasks()
    assert task.guarantee == guarantee and task.name == "tidy"
    both[1].periodic.run_now().result(LIMIT)
    assert {one.guarantee for one in both[0].tasks()} <= {guarantee}


@pytest.mark.parametrize(("missed", "runs"), [("latest", 1), ("all", 10), ("skip", 0)])
def test_after_all_were_down(
    ticking: NewTicking, clock: ManualClock, missed: str, runs: int
) -> None:
    """Ticks that came while no process was there are missed, as those of a sleep."""
    first = ticking(missed).start()
    clock.advance(MINUTE)
    assert len(first.tasks()) == 1
    first.process.close()
    with mock.patch("flask_executor.periodic.schedules.GRACE", 5.0):
        clock.advance(10 * MINUTE)
        second = ticking(missed).start()
        until(lambda: len(second.tasks()) == 1 + runs)
        third = ticking(missed).start()
    clock.advance(MINUTE)
    assert len(third.tasks()) == 2 + runs


def test_paused_for_everyone(ticking: NewTicking, clock: ManualClock) -> None:
    """A pause holds in all processes and for later ones; what it left out never comes,
    and run_now runs meanwhile.
    """
    first, second = ticking("all").start(), ticking("all").start()
    clock.advance(MINUTE)
    first.periodic.pause()
    assert second.periodic.paused and second.periodic.next is None
    clock.advance(3 * MINUTE)
    assert len(first.tasks()) == 1
    assert second.periodic.run_now().result(LIMIT) == 42
    third = ticking("all").start()
    clock.advance(MINUTE)
    assert len(first.tasks()) == 2
    second.periodic.resume()
    assert not first.periodic.paused and third.periodic.next is not None
    fourth = ticking("all").start()
    assert len(fourth.tasks()) == 2
    clock.advance(MINUTE)
    assert len(fourth.tasks()) == 3


def test_the_store_is_away(
    ticking: NewTicking, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A tick that cannot be written waits until the database is back."""
    one = ticking().start()
    away = StoreUnavailable("the store", "it is away")
    with mock.patch.object(one.process.store, "tick", side_effect=away):
        clock.advance(MINUTE)
    assert one.tasks() == []
    assert "A tick of the periodic job tidy waits: The store" in caplog.text
    clock.advance(30)
    assert len(one.tasks()) == 1
    clock.advance(30)
    assert len(one.tasks()) == 2


def test_a_unique_job(
    ticking: NewTicking, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """While the task before has not ended, in any process, the tick is left out."""
    caplog.set_level(logging.INFO)
    first = ticking(unique="tidy", delay=MINUTE * 1.5).start()
    second = ticking(unique="tidy", delay=MINUTE * 1.5).start()
    clock.advance(2 * MINUTE)
    assert len(first.tasks()) == 1 and second.tasks()[0].state == "delayed"
    assert "A tick of the periodic job tidy is left out: unique = 'tidy'" in caplog.text


def test_nobody_is_warned_of_several_processes(
    ticking: NewTicking, caplog: pytest.LogCaptureFixture
) -> None:
    """With a store, several processes are as good as one."""
    one = ticking()
    executor = one.process.executor
    executor._planning.runner(executor._state().dispatcher).warn_of_several()
    assert caplog.text == ""


def test_a_job_that_cannot_be_saved(
    process: NewProcess, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that another process could not find by a name is refused in the log."""
    one = Ticking(process(), clock, "latest")
    nameless = one.process.executor.job(lambda: 1)
    one.process.executor.every(MINUTE)(nameless)
    one.start()
    clock.advance(MINUTE)
    assert len(one.tasks()) == 1
    assert "declare it with @executor.job(name=...)" in caplog.text


# Real processes


def ticks_of(store: SqlStore) -> dict[float, int]:
    """The task of each tick."""
    rows = store.database.read(
        lambda db: db.execute(text("SELECT at, task_id FROM executor_tick")).all()
    )
    return dict(t.cast(t.Any, rows))


def test_processes_that_race_for_ticks(
    process: NewProcess, url: str, tmp_path: Path
) -> None:
    """Four processes run each tick once, also while one of them is killed."""
    effects = tmp_path / "effects"
    command = [sys.executable, str(SUPPORT / "ticks_app.py"), url, str(effects)]
    store: SqlStore = process().store
    store.setup()
    started = [
        subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for one in started:
            assert t.cast(t.Any, one.stdout).readline() == "runs\n"
        until(lambda: len(ticks_of(store)) >= 6)
        started[0].kill()
        until(lambda: len(ticks_of(store)) >= 16)
        ticks = sorted(ticks_of(store))
        ids = {ticks_of(store)[tick] for tick in ticks}
        until(lambda: all(one.finished for one in store.get_many("id", ids)))
    finally:
        for one in started:
            one.communicate("", timeout=LIMIT)
    gaps = {round(b - a, 6) for a, b in itertools.pairwise(ticks)}
    assert gaps == {0.25}  # none was left out
    assert len(ids) == len(ticks)  # each has a task of its own
    assert {one.state for one in store.get_many("id", ids)} == {"succeeded"}
    assert len(store.tasks(limit=1000)) == len(ticks_of(store))
    ran = collections.Counter(effects.read_text().split())
    for one in store.get_many("id", ids):
        assert ran[one.uid] == 1 or (one.lost and ran[one.uid] == 2)


def test_a_worker_runs_them(process: NewProcess) -> None:
    """flask executor worker submits the ticks, if there are periodic jobs."""
    with_jobs, without = process(), process()
    with_jobs.executor.every(3600)(with_jobs.executor.job(name="tidy")(lambda: 42))
    run = "flask_executor.sharing.worker.Worker.run"
    with mock.patch(run, return_value=0):
        for one in (with_jobs, without):
            result = one.app.test_cli_runner().invoke(cli.executor, ["worker"])
            assert result.exit_code == 0, result.output
    assert with_jobs.executor.periodic.running
    assert not without.executor.periodic.running
