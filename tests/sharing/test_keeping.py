"""How long the store remembers what has ended."""

from __future__ import annotations

import typing as t
from unittest import mock

import pytest
from limits import LIMIT
from processes import NewProcess, Process, until

from flask_executor.sharing import feeding

KEEP = {"succeeded": 0.3, "failed": None, "cancelled": 0.3}


@pytest.fixture(autouse=True)
def often() -> t.Iterator[None]:
    """What is old is removed at once, and not each minute."""
    with mock.patch.object(feeding, "_PRUNE", 0.0):
        yield


def ended(process: Process, key: str, fn: t.Any, *args: t.Any) -> t.Any:
    """A task with a key that has ended."""
    future = process.executor.submit_stored(key, fn, *args)
    future.exception(LIMIT)
    return future


def test_each_state_has_its_time(process: NewProcess) -> None:
    """What has ended goes when the time of its state is over, and its key is free. What
    has not ended stays, as does a state without a limit.
    """
    one = process(EXECUTOR_STORE_KEEP=KEEP).serve()
    other = process(EXECUTOR_STORE_RUN=False)
    good = ended(one, "good", abs, -1)
    ended(one, "bad", int, "x")
    waiting = one.executor.using(key="later", delay=3600).submit(abs, -1)
    assert one.executor.using(key="gone", delay=3600).submit(abs, -1).cancel()
    for process_ in (one, other):
        until(lambda seen=process_: set(seen.futures) == {"bad", "later"})
    assert other.futures.pop("good") is None and len(other.futures) == 2
    assert good.result() == 1  # who holds the future has it still
    assert ended(other, "good", abs, -2).result(LIMIT) == 2
    assert not waiting.done() and waiting.cancel()


def test_the_default_is_longer(process: NewProcess) -> None:
    """Nothing goes within a day."""
    one = process().serve()
    pruned: list[int] = []
    prune = one.store.prune

    def note(*args: t.Any) -> int:
        pruned.append(prune(*args))
        return pruned[-1]

    with mock.patch.object(one.store, "prune", note):
        ended(one, "good", abs, -1)
        until(lambda: one.node.wake() or len(pruned) > 2)
    assert not any(pruned) and "good" in one.futures
