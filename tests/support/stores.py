"""What the tests of the store share: tasks, workers, a clock by hand."""

from __future__ import annotations

import itertools
import typing as t
from concurrent.futures import Future

from limits import LIMIT

from flask_executor.stores.base import Store
from flask_executor.stores.records import (
    Claimed,
    Fence,
    Finish,
    Inserted,
    NewTask,
    Record,
    Sealed,
    Taken,
)

T = t.TypeVar("T")
LEASE = 30.0
PAYLOAD = Sealed("pickle", b"\0call\xff", b"signed")
RESULT = Sealed("json", b"42", b"signed too")
_numbers = itertools.count(1)


class HandClock:
    """The time of a database, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def new(job: str | None = "mail.send", **facts: t.Any) -> NewTask:
    """Return a task with a payload that is run at least once."""
    facts = {
        "uid": f"uid-{next(_numbers)}",
        "name": job or "a name",
        "guarantee": "at_least_once",
        "payload": PAYLOAD,
    } | facts
    return NewTask(job=job, **facts)


def done(future: Future[T]) -> T:
    return future.result(LIMIT)


def insert(store: Store, *tasks: NewTask) -> list[int]:
    """Insert tasks that nothing refuses; return their ids."""
    outcomes = done(store.insert(tasks))
    assert all(isinstance(one, Inserted) for one in outcomes), outcomes
    return [t.cast(Inserted, one).id for one in outcomes]


def refused(store: Store, task: NewTask) -> Taken:
    """Insert a task that must be refused; return by what."""
    [outcome] = done(store.insert([task]))
    assert isinstance(outcome, Taken), outcome
    return outcome


def held(store: Store, me: str, **facts: t.Any) -> Fence:
    """Insert a task that a worker holds from the start; return its fence."""
    [outcome] = done(store.insert([new(owner=me, **facts)]))
    assert isinstance(outcome, Inserted)
    assert outcome.fence is not None
    return outcome.fence


def claim(store: Store, me: str, jobs: t.Collection[str] = ("mail.send",)) -> Claimed:
    """Claim the one task that is next."""
    [claimed] = done(store.claim(me, jobs, 1))
    return claimed


def running(store: Store, me: str, **facts: t.Any) -> Fence:
    """Insert a task, claim it and begin it."""
    fence = held(store, me, **facts)
    assert done(store.begin(fence, synced=True)) is not None
    return fence


def finish(
    store: Store, fence: Fence, state: t.Any = "succeeded", **facts: t.Any
) -> bool:
    return done(store.finish(Finish(fence=fence, state=state, **facts)))


def get(store: Store, id: int) -> Record:
    record = store.get("id", id)
    assert record is not None
    return record


def state_of(store: Store, id: int) -> str:
    return get(store, id).state


def join(store: Store, *workers: str) -> None:
    for worker in workers:
        store.join(worker, lease=LEASE)
