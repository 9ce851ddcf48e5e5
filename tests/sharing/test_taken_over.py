"""A process that was declared dead although it lives: others go on with its tasks."""

from __future__ import annotations

import threading
import typing as t

import pytest
from limits import LIMIT
from processes import NewProcess, Process, reached, until

from flask_executor import current_task
from flask_executor.store_errors import FailedElsewhere, TaskInterrupted

LEASE = 0.6


@pytest.fixture
def frozen(process: NewProcess) -> Process:
    """A process whose lease thread can be stopped."""
    return process(EXECUTOR_STORE_LEASE=LEASE, EXECUTOR_STORE_MAX_LOST=2).serve()


@pytest.fixture
def living(process: NewProcess) -> Process:
    return process(EXECUTOR_STORE_LEASE=LEASE, EXECUTOR_STORE_MAX_LOST=2)


class Frozen:
    """Stops the thread of a lease within the block, until others have reaped it."""

    def __init__(self, process: Process, other: Process) -> None:
        self._patch = pytest.MonkeyPatch()
        self._process = process
        self._other = other

    def __enter__(self) -> None:
        presence = self._process.node.presence
        self._me = presence.me
        self._patch.setattr(presence, "_try", lambda duty: None)
        # What a frozen process would not do, either.
        self._patch.setattr(self._process.node.feeding, "_feed", lambda: None)
        until(self._is_dead)

    def _is_dead(self) -> bool:
        return self._me not in [worker.id for worker in self._other.store.workers()]

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


def test_a_late_end_is_dropped(
    frozen: Process, living: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Its task runs elsewhere; its own end counts for nothing; its future follows."""
    begun, gate, asked = (threading.Event() for _ in range(3))

    def slow() -> str:
        begun.set()
        while not current_task.cancel_requested:
            assert not gate.wait(0.01)
        asked.set()
        return "frozen"

    job = frozen.job(slow)
    future = job.submit_stored("k")
    reached(begun)
    living.job(lambda: ("living", current_task.attempt))
    living.serve()
    before = frozen.node.presence.me
    with Frozen(frozen, living):
        assert living.futures.result("k", timeout=LIMIT) == ("living", 2)
    reached(asked)
    assert future.result(LIMIT) == ("living", 2)
    until(lambda: "was not written" in caplog.text)
    assert "declared dead" in caplog.text
    assert future.task.attempt == 2
    assert frozen.node.presence.me != before
    assert frozen.job(lambda: 7, name="next").submit().result(LIMIT) == 7


@pytest.mark.parametrize("guarantee", ["at_most_once", "ephemeral"])
def test_what_is_not_run_again(
    frozen: Process, living: Process, guarantee: t.Any
) -> None:
    """A task that may run once ends as interrupted, for everyone."""
    begun, ran = threading.Event(), []

    def slow() -> None:
        ran.append(1)
        begun.set()
        while not current_task.cancel_requested:
            current_task.progress(1)

    job = frozen.job(slow, guarantee=guarantee)
    future = job.submit_stored("k")
    reached(begun)
    living.job(slow, guarantee=guarantee)
    living.serve()
    with Frozen(frozen, living):
        error = living.futures.exception("k", timeout=LIMIT)
        assert isinstance(error, TaskInterrupted)
    assert isinstance(future.exception(LIMIT), TaskInterrupted)
    assert future.task.state == "interrupted"
    assert ran == [1]


def test_what_waits_runs_elsewhere(frozen: Process, living: Process) -> None:
    """Tasks that had not begun run elsewhere, and none of them here."""
    gate = threading.Event()
    fill = [frozen.executor.submit(reached, gate) for _ in range(2)]
    ran: list[str] = []
    jobs = {
        guarantee: frozen.job(
            lambda: ran.append("frozen"), name=guarantee, guarantee=guarantee
        )
        for guarantee in ("at_most_once", "at_least_once")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen.node.holding, "room", lambda: 1)
        futures = [job.submit() for job in jobs.values()]
    for guarantee in jobs:
        living.job(
            lambda: ran.append("living"),
            name=guarantee,
            guarantee=t.cast(t.Any, guarantee),
        )
    living.serve()
    with Frozen(frozen, living):
        until(lambda: len(ran) == 2)
    for future in futures:
        future.result(LIMIT)
    gate.set()
    for future in fill:
        future.result(LIMIT)
    assert ran == ["living"] * 2


def test_a_task_that_is_lost_too_often_fails(
    process: NewProcess, living: Process
) -> None:
    """After EXECUTOR_STORE_MAX_LOST deaths a task is not run any more."""
    frozen = process(EXECUTOR_STORE_LEASE=LEASE, EXECUTOR_STORE_MAX_LOST=1).serve()
    begun = threading.Event()

    def slow() -> None:
        begun.set()
        while not current_task.cancel_requested:
            current_task.progress(1)

    future = frozen.job(slow).submit()
    reached(begun)
    reaper = process(EXECUTOR_STORE_LEASE=LEASE, EXECUTOR_STORE_MAX_LOST=1)
    reaper.serve()
    with Frozen(frozen, reaper):
        until(lambda: reaper.record(future).finished)
    error = future.exception(LIMIT)
    assert isinstance(error, FailedElsewhere)
    assert "worker died" in str(error)
    assert reaper.record(future).state == "failed"


def test_a_begin_after_the_death_stops(frozen: Process, living: Process) -> None:
    """A run that began before its begin was refused is asked to stop."""
    asked, gate, never = (threading.Event() for _ in range(3))

    def slow() -> None:
        while not current_task.cancel_requested:
            assert not never.wait(0.01)
        asked.set()
        current_task.raise_if_cancelled()

    job = frozen.job(slow)
    fill = [frozen.executor.submit(reached, gate) for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen.node.holding, "room", lambda: 1)
        patch.setattr(frozen.node.holding, "stop_what_was_asked", lambda: None)
        future = job.submit()
        assert living.store.cancel(future.task.id) == "held"
        gate.set()
        for one in fill:
            one.result(LIMIT)
        reached(asked)
    until(future.done)
    assert frozen.record(future).state == "cancelled"
