"""The registry of futures, and the future itself."""

from __future__ import annotations

import enum
import gc
import logging
import random
import threading
import traceback
import typing as t
import weakref
from concurrent.futures import Future
from unittest import mock

import pytest
from conftest import LIMIT
from flask import Flask
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flask_executor import DuplicateKey, Executor, TaskFuture
from flask_executor import futures as futures_module
from flask_executor.futures import FutureCollection, FutureProxy


class Colour(enum.Enum):
    RED = 1


def finished(value: object = None) -> Future[t.Any]:
    future: Future[t.Any] = Future()
    future.set_result(value)
    return future


@pytest.mark.parametrize("key", ["text", 7, Colour.RED, ("a", 1)])
def test_a_future_is_asked_by_key(executor: Executor, key: t.Hashable) -> None:
    """Every attribute and method of a future is asked by any hashable key."""
    executor.submit_stored(key, abs, -1).result(LIMIT)
    assert executor.futures.done(key) is True
    assert executor.futures.running(key) is False
    assert executor.futures.cancel(key) is False
    assert executor.futures.result(key, timeout=LIMIT) == 1
    assert executor.futures._state(key) == "FINISHED"
    assert executor.futures.key(key) == key
    assert key in executor.futures
    assert executor.futures.pop(key) is not None
    assert executor.futures.pop(key) is None
    assert executor.futures.done(key) is None


def test_an_attribute_no_future_has() -> None:
    """It is an AttributeError, whatever the key."""
    collection = FutureCollection()
    with pytest.raises(AttributeError, match="nonsense"):
        collection.nonsense("unknown")
    with pytest.raises(AttributeError):
        collection.__wrapped__  # noqa: B018


def test_it_reads_as_a_mapping() -> None:
    """len, truth, in, [], get, keys, items and iteration."""
    collection = FutureCollection()
    assert not collection
    future = finished()
    collection.add("a", future)
    assert len(collection) == 1 and collection
    assert future in collection and "a" in collection
    assert finished() not in collection and "b" not in collection
    assert collection["a"] is collection.get("a") is future
    assert collection.get("b", 3) == 3
    assert list(collection) == collection.keys() == ["a"]
    assert collection.items() == [("a", future)]
    with pytest.raises(KeyError):
        collection["b"]
    assert "1 futures" in repr(collection)


def test_a_taken_key_is_an_error() -> None:
    """The error is a ValueError that holds the key."""
    collection = FutureCollection()
    collection.add(("k", 1), finished())
    with pytest.raises(ValueError, match=r"\('k', 1\)") as info:
        collection.add(("k", 1), finished())
    assert isinstance(info.value, DuplicateKey)
    assert info.value.key == ("k", 1)


def test_the_dictionary_under_it_is_real() -> None:
    """_futures can be read, iterated, assigned to and patched."""
    collection = FutureCollection()
    future, other = finished(), finished()
    collection._futures["a"] = future
    assert future in collection and list(collection._futures) == ["a"]
    with mock.patch.dict(collection._futures, {"b": other}, clear=True):
        assert other in collection and future not in collection
    assert future in collection and other not in collection
    collection._futures["a"] = other
    assert future not in collection and other in collection
    collection._futures["c"] = other
    del collection._futures["a"]
    assert other in collection
    collection._futures = {"x": future}
    assert collection.keys() == ["x"] and future in collection
    collection._futures.clear()
    assert len(collection) == 0 and future not in collection


def test_the_oldest_finished_go_first(app: Flask) -> None:
    """Beyond max_length finished futures go, in the order in which they finished."""
    collection = FutureCollection(3, app=app)
    waiting: Future[t.Any] = Future()
    collection.add("waiting", waiting)
    collection.add("first", finished())
    collection.add("second", finished())
    collection.add("third", finished())
    assert collection.keys() == ["waiting", "second", "third"]
    collection.max_length = 1
    collection.add("fourth", finished())
    assert collection.keys() == ["fourth"]


def test_an_unfinished_one_goes_with_a_warning(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """An unfinished future is dropped only with a logged warning."""
    collection = FutureCollection(1, app=app)
    collection.add("a", Future())
    collection.add("b", Future())
    assert collection.keys() == ["b"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'a' was dropped before it had finished" in record.getMessage()


def test_finished_ones_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the TTL a finished future is gone at the next access; others stay."""
    now = 1000.0
    monkeypatch.setattr(futures_module.time, "monotonic", lambda: now)
    collection = FutureCollection(ttl=10)
    forever = FutureCollection(ttl=None)
    collection.add("waiting", Future())
    collection.add("done", finished())
    forever.add("done", finished())
    now += 10
    assert "done" in collection
    now += 1
    assert collection.keys() == ["waiting"]
    assert "done" in forever


def test_a_popped_key_may_finish_later() -> None:
    """A future that finishes when its key is gone or taken changes nothing."""
    collection = FutureCollection(ttl=0)
    late: Future[t.Any] = Future()
    collection.add("a", late)
    collection.pop("a")
    replacement: Future[t.Any] = Future()
    collection.add("a", replacement)
    late.set_result(1)
    assert collection["a"] is replacement


class AgainstAModel(RuleBasedStateMachine):
    """The collection does what a plain dictionary and a few rules do."""

    keys = st.integers(0, 5)

    def __init__(self) -> None:
        super().__init__()
        self.collection = FutureCollection(ttl=None)
        self.model: dict[int, Future[t.Any]] = {}
        self.finished: list[int] = []

    @rule(key=keys, done=st.booleans())
    def add(self, key: int, done: bool) -> None:
        future: Future[t.Any] = finished() if done else Future()
        if key in self.model:
            with pytest.raises(DuplicateKey):
                self.collection.add(key, future)
            return
        limit = self.collection.max_length
        while limit is not None and len(self.model) >= limit:
            gone = self.finished[0] if self.finished else next(iter(self.model))
            self.forget(gone)
        self.collection.add(key, future)
        self.model[key] = future
        if done:
            self.finished.append(key)

    @rule(key=keys)
    def pop(self, key: int) -> None:
        assert self.collection.pop(key) is self.model.get(key)
        self.forget(key)

    @rule(key=keys)
    def finish(self, key: int) -> None:
        future = self.model.get(key)
        if future is not None and not future.done():
            future.set_result(None)
            self.finished.append(key)

    @rule(key=keys)
    def assign(self, key: int) -> None:
        future: Future[t.Any] = Future()
        self.collection._futures[key] = future
        self.forget(key)
        self.model[key] = future

    @rule(limit=st.none() | st.integers(1, 4))
    def bound(self, limit: int | None) -> None:
        self.collection.max_length = limit

    def forget(self, key: int) -> None:
        self.model.pop(key, None)
        if key in self.finished:
            self.finished.remove(key)

    @invariant()
    def same(self) -> None:
        assert dict(self.collection.items()) == self.model
        assert len(self.collection) == len(self.model)
        for key, future in self.model.items():
            assert future in self.collection
            assert self.collection.done(key) is future.done()


AgainstAModel.TestCase.settings = settings(deadline=None, max_examples=60)
test_against_a_model = AgainstAModel.TestCase


def test_sixteen_threads_at_once() -> None:
    """Adding, popping, asking and evicting at once loses and breaks nothing."""
    collection = FutureCollection(50)
    errors: list[BaseException] = []
    barrier = threading.Barrier(16)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        barrier.wait(LIMIT)
        try:
            for n in range(300):
                key = (seed, n)
                future = finished(n)
                collection.add(key, future)
                assert collection.result(key, timeout=0) in (n, None)
                assert all(k is not None for k in collection)
                if rng.random() < 0.5:
                    collection.pop(key)
                    assert future not in collection
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert not errors
    assert len(collection) <= 50
    assert len(collection._registry._keys_of) == len(collection)
    assert len(collection._registry._finished) == len(collection)


def test_a_failed_future_keeps_no_locals(executor: Executor) -> None:
    """The traceback prints, with its causes; the task's objects are gone."""

    class Big:
        pass

    refs = []

    def inner() -> None:
        big = Big()
        refs.append(weakref.ref(big))
        raise KeyError("cause")

    def outer() -> None:
        try:
            inner()
        except KeyError as error:
            raise ExceptionGroup("group", [ValueError("x")]) from error

    future = executor.submit(outer)
    error = t.cast(BaseException, future.exception(LIMIT))
    executor.submit(abs, 1).result(LIMIT)
    gc.collect()
    assert refs[0]() is None
    printed = "".join(traceback.format_exception(error))
    assert "in inner" in printed and "in outer" in printed


def test_names_of_1_0_0() -> None:
    """FutureProxy is the future; it is a real one."""
    assert FutureProxy is TaskFuture
    assert issubclass(FutureProxy, Future)
