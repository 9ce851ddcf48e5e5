"""How long the store remembers what has ended."""

from __future__ import annotations

import typing as t
from unittest import mock

import pytest
from internals import Dispatcher
from limits import LIMIT
from processes import NewProcess, Process, until

from flask_executor.sharing import feeding
from flask_executor.testing import ManualClock

HOUR = 3600.0


@pytest.fixture(autouse=True)
def often() -> t.Iterator[None]:
    """What is old is removed at once, and not each minute."""
    with mock.patch.object(feeding, "_PRUNE", 0.0):
        yield


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def kept_for(
    process: NewProcess, clock: ManualClock, keep: dict[str, t.Any] | None
) -> Process:
    """A process that claims tasks, whose clock is moved by hand."""
    made = process(EXECUTOR_STORE_KEEP=keep)
    state = made.executor._state()
    state.new_dispatcher = lambda *facts: Dispatcher(*facts, clock)
    return made.serve()


def ended(process: Process, key: str, fn: t.Any = abs, *args: t.Any) -> t.Any:
    """A task with a key that has ended."""
    future = process.executor.submit_stored(key, fn, *args)
    future.exception(LIMIT)
    return future


def keys(process: Process) -> set[t.Any]:
    process.node.wake()
    return set(process.futures)


def test_each_state_has_its_time(process: NewProcess, clock: ManualClock) -> None:
    """What succeeded, what failed and what was cancelled goes when its time is over;
    its key is free then. What has not ended stays.
    """
    one = kept_for(
        process, clock, {"succeeded": HOUR, "failed": 2 * HOUR, "cancelled": None}
    )
    ended(one, "good", abs, -1)
    ended(one, "bad", int, "x")
    waiting = one.executor.using(key="later", delay=100 * HOUR).submit(abs, -1)
    gone = one.executor.using(key="gone", delay=100 * HOUR).submit(abs, -1)
    assert gone.cancel()
    until(lambda: one.record(gone).finished)
    clock.advance(HOUR - 1)
    assert keys(one) == {"good", "bad", "later", "gone"}
    clock.advance(2)
    until(lambda: keys(one) == {"bad", "later", "gone"})
    assert "good" not in one.futures and one.futures.done("good") is None
    assert ended(one, "good", abs, -2).result(LIMIT) == 2
    clock.advance(HOUR)
    until(lambda: keys(one) == {"later", "gone"} | (keys(one) & {"good"}))
    clock.advance(50 * HOUR)
    until(lambda: keys(one) == {"later", "gone"})
    assert not waiting.done()


def test_the_defaults(process: NewProcess, clock: ManualClock) -> None:
    """A day for what succeeded, two weeks for what failed."""
    one = kept_for(process, clock, None)
    ended(one, "good", abs, -1)
    ended(one, "bad", int, "x")
    clock.advance(24 * HOUR - 1)
    assert keys(one) == {"good", "bad"}
    clock.advance(2)
    until(lambda: keys(one) == {"bad"})
    clock.advance(13 * 24 * HOUR - 2)
    assert keys(one) == {"bad"}
    clock.advance(2)
    until(lambda: keys(one) == set())


def test_another_process_sees_it_gone(process: NewProcess, clock: ManualClock) -> None:
    """A future that somebody holds has its outcome, also when the row is gone."""
    one = kept_for(process, clock, {"succeeded": HOUR})
    future = ended(one, "k", abs, -1)
    other = process(EXECUTOR_STORE_RUN=False)
    assert "k" in other.futures
    clock.advance(HOUR + 1)
    until(lambda: "k" not in other.futures)
    assert other.futures.pop("k") is None and len(other.futures) == 0
    assert future.result() == 1
