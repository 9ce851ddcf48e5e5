"""What the tests of the store share: tasks, workers, a clock by hand."""

from __future__ import annotations

import itertools
import os
import threading
import traceback
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


def race(*calls: t.Callable[[], t.Any]) -> list[t.Any]:
    """Return what functions return that begin at the same moment on threads."""
    start = threading.Barrier(len(calls))
    results: dict[int, t.Any] = {}

    def run(number: int) -> None:
        start.wait(LIMIT)
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    return [results[number] for number in range(len(calls))]


def in_child(check: t.Callable[[], object]) -> int:
    """Run a function in a forked child; return the child's id."""
    child = os.fork()
    if not child:
        code = 1
        try:
            check()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def has_succeeded(child: int) -> bool:
    return os.waitpid(child, 0)[1] == 0
