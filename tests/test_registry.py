"""The registry: what it costs, what it keeps, and who may have a key."""

from __future__ import annotations

import threading
import time
import typing as t
from concurrent.futures import Future
from types import SimpleNamespace
from unittest import mock

import pytest
from flask import Flask
from limits import LIMIT

from flask_executor import DuplicateKey, Executor, QueueFull, TaskFuture, registry
from flask_executor.futures import FutureCollection


class Counting(Future[t.Any]):
    """A future that counts how often anybody asks whether it is done."""

    asked = 0

    def done(self) -> bool:
        Counting.asked += 1
        return super().done()


def finished(value: object = None) -> Future[t.Any]:
    future: Future[t.Any] = Future()
    future.set_result(value)
    return future


# What it costs


@pytest.mark.parametrize("length", [50, 400])
def test_adding_beyond_the_length_looks_at_a_few(length: int) -> None:
    """With nothing finished, an addition asks some ten futures, however many there
    are.
    """
    collection = FutureCollection(length)
    for n in range(length):
        collection.add(n, Counting())
    Counting.asked = 0
    for n in range(length, 3 * length):
        collection.add(n, Counting())
    assert Counting.asked <= 12 * 2 * length
    assert collection.keys() == [*range(2 * length, 3 * length)]


def seconds_to_expire(number: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """What it takes to expire so many futures at one access."""
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now)
    with monkeypatch.context() as patched:
        patched.setattr(registry, "time", clock)
        collection = FutureCollection(ttl=1)
        for n in range(number):
            collection.add(n, finished())
        assert len(collection) == number
        now = 2.0
        began = time.thread_time()
        assert len(collection) == 0
        return time.thread_time() - began


def test_expiry_of_many_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight times as many futures take some eight times as long, not sixty-four."""
    few = min(seconds_to_expire(2_000, monkeypatch) for _ in range(3))
    many = min(seconds_to_expire(16_000, monkeypatch) for _ in range(3))
    assert many / few < 20


def test_one_that_finished_just_now_is_found_among_many() -> None:
    """Who waits for a future and stores the next takes its place, not an unfinished
    one's.
    """
    collection = FutureCollection(100)
    waiting: list[Future[t.Any]] = [Future() for _ in range(99)]
    for n, future in enumerate(waiting):
        collection.add(n, future)
    for n in range(100, 150):
        future = Future()
        # Called before the collection's own callback, as who waits is woken.
        future.add_done_callback(lambda _, n=n: collection.add(n + 1, Future()))  # type: ignore[misc]
        if n > 100:
            collection.pop(n)
        collection.add(n, future)
        future.set_result(None)
        assert n not in collection and n + 1 in collection
    assert collection.keys()[:99] == [*range(99)]


# What it keeps


def test_a_length_of_nothing(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """EXECUTOR_FUTURES_MAX_LENGTH = 0 keeps nothing that has finished: a key is known,
    and taken, until then, and nothing is dropped with a warning.
    """
    app.config["EXECUTOR_FUTURES_MAX_LENGTH"] = "0"
    gate = threading.Event()
    futures = [executor.submit_stored(n, gate.wait, LIMIT) for n in range(3)]
    assert executor.futures.keys() == [0, 1, 2] and executor.futures.max_length == 0
    with pytest.raises(DuplicateKey):
        executor.submit_stored(0, abs, 1)
    gate.set()
    assert all(future.result(LIMIT) for future in futures)
    executor.shutdown()
    assert not executor.futures and not executor.futures._by_key
    assert executor.futures.result(0) is None
    assert not caplog.records


def test_a_length_of_nothing_from_now_on() -> None:
    """Set at run time, it drops what has finished already; another one keeps again."""
    collection = FutureCollection()
    waiting: Future[t.Any] = Future()
    collection.add("waiting", waiting)
    collection.add("done", finished())
    collection.max_length = 0
    assert collection.keys() == ["waiting"]
    collection.add("at once", finished())
    collection._futures = {"waiting": waiting, "done": finished()}
    assert collection.keys() == ["waiting"]
    collection.max_length = None
    waiting.set_result(None)
    assert collection.done("waiting") is True


def test_whatever_the_length_the_newest_is_kept() -> None:
    """A bound of one keeps the future stored last."""
    collection = FutureCollection(1)
    for key in "abc":
        collection.add(key, Future())
    assert collection.keys() == ["c"]


# Who may have a key


def test_a_reserved_key(app: Flask) -> None:
    """It is nobody else's, and is not seen before its future is stored."""
    collection = FutureCollection(app=app)
    future: Future[t.Any] = Future()
    collection.reserve("key", future)
    for use in (collection.add, collection.reserve):
        with pytest.raises(DuplicateKey, match="'key'"):
            use("key", Future())
    assert "key" not in collection and collection.get("key") is None
    collection.add("key", future)
    assert collection["key"] is future
    collection.discard("key", future)
    collection.reserve("key", "somebody")
    collection.discard("key", Future())
    with pytest.raises(DuplicateKey):
        collection.add("key", Future())
    collection.reserve("key", future, instead_of="somebody")
    collection.discard("key", future)
    collection.add("key", Future())


def test_a_stored_future_has_its_task(executor: Executor) -> None:
    """Who finds it can cancel it: it has its task and its key before it is stored."""
    found: list[t.Any] = []
    add = executor.futures.add

    def find(key: str, future: TaskFuture[t.Any]) -> None:
        assert executor.futures.get(key) is None
        add(key, future)
        task = executor.futures.task(key)
        found.append((task.state, executor.futures.key(key)))
        found.append(executor.futures.cancel(key))

    executor.futures.add = find  # type: ignore[method-assign, assignment]
    ran: list[int] = []
    future = executor.submit_stored("key", ran.append, 1)
    executor.shutdown()
    assert found == [("waiting", "key"), True]
    assert future.cancelled() and not ran


def test_what_is_refused_leaves_no_trace(app: Flask, executor: Executor) -> None:
    """What QueueFull refuses, or cannot be stored after all, never runs, and its key is
    free.
    """
    gate, started = threading.Event(), threading.Event()
    app.config.update(EXECUTOR_MAX_WORKERS=1, EXECUTOR_MAX_PENDING=1)
    executor.submit(lambda: (started.set(), gate.wait(LIMIT)))
    assert started.wait(LIMIT)
    ran: list[int] = []
    with (
        mock.patch.object(executor.futures, "add", side_effect=LookupError),
        pytest.raises(LookupError),
    ):
        executor.submit_stored("key", ran.append, 1)
    assert "key" not in executor.futures
    executor.submit(ran.append, 2)  # there is room
    with pytest.raises(QueueFull):
        executor.submit_stored("key", ran.append, 3)
    gate.set()
    executor.drain(LIMIT)
    executor.init_app(app)
    executor.submit_stored("key", ran.append, 4).result(LIMIT)
    executor.shutdown()
    assert ran == [2, 4]
