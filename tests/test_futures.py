"""The registry of futures, and the future itself."""

from __future__ import annotations

import asyncio
import copy
import enum
import gc
import logging
import random
import threading
import traceback
import typing as t
import weakref
from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace
from unittest import mock

import pytest
from flask import Flask, g, request
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from limits import LIMIT

from flask_executor import DuplicateKey, Executor, TaskFuture
from flask_executor import registry as registry_module
from flask_executor.futures import FutureCollection


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
    monkeypatch.setattr(registry_module.time, "monotonic", lambda: now)
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
    ttl = 10

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        self.patched = mock.patch.object(registry_module, "time", clock)
        self.patched.start()
        self.collection = FutureCollection(ttl=self.ttl)
        self.model: dict[int, Future[t.Any]] = {}
        self.finished: dict[int, int] = {}

    def teardown(self) -> None:
        self.patched.stop()

    @rule(key=keys, done=st.booleans())
    def add(self, key: int, done: bool) -> None:
        future: Future[t.Any] = finished() if done else Future()
        if key in self.model:
            with pytest.raises(DuplicateKey):
                self.collection.add(key, future)
            return
        limit = self.collection.max_length
        while limit is not None and len(self.model) >= limit:
            self.forget(next(iter(self.finished or self.model)))
        self.collection.add(key, future)
        self.remember(key, future)

    @rule(key=keys)
    def pop(self, key: int) -> None:
        assert self.collection.pop(key) is self.model.get(key)
        self.forget(key)

    @rule(key=keys)
    def finish(self, key: int) -> None:
        future = self.model.get(key)
        if future is not None and not future.done():
            future.set_result(None)
            for k, f in self.model.items():
                if f is future:
                    self.finished[k] = self.now

    @rule(key=keys, done=st.booleans())
    def assign(self, key: int, done: bool) -> None:
        future: Future[t.Any] = finished() if done else Future()
        self.collection._futures[key] = future
        self.finished.pop(key, None)
        self.remember(key, future)

    @rule(key=keys, second=keys)
    def store_twice(self, key: int, second: int) -> None:
        if key in self.model:
            future = self.model[key]
            self.collection._futures[second] = future
            self.finished.pop(second, None)
            self.remember(second, future)

    @rule(last=st.booleans())
    def popitem(self, last: bool) -> None:
        if self.model:
            key = [*self.model][-1 if last else 0]
            futures = t.cast(t.Any, self.collection._futures)
            assert futures.popitem(last) == (key, self.model[key])
            self.forget(key)

    @rule(limit=st.none() | st.integers(1, 4))
    def bound(self, limit: int | None) -> None:
        self.collection.max_length = limit

    @rule(seconds=st.integers(1, 8))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        for key, since in list(self.finished.items()):
            if self.now - since > self.ttl:
                self.forget(key)

    def remember(self, key: int, future: Future[t.Any]) -> None:
        self.model[key] = future
        if future.done():
            self.finished[key] = self.now

    def forget(self, key: int) -> None:
        self.model.pop(key, None)
        self.finished.pop(key, None)

    @invariant()
    def same(self) -> None:
        assert self.collection.items() == [*self.model.items()]
        assert self.collection.keys() == [*self.model]
        assert len(self.collection) == len(self.model)
        for key, future in self.model.items():
            assert future in self.collection and key in self.collection
            assert self.collection.done(key) is future.done()
        distinct = {id(future) for future in self.model.values()}
        assert self.collection._by_key._keys_of.keys() == distinct


AgainstAModel.TestCase.settings = settings(deadline=None, max_examples=100)
test_against_a_model = AgainstAModel.TestCase


@pytest.mark.holds("g-threads")
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
    assert len(collection._by_key._keys_of) == len(collection)
    assert len(collection._by_key._finished) == len(collection)


@pytest.mark.holds("g-no-locals")
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


def test_it_can_be_patched() -> None:
    """mock.patch.object of _futures, with a dictionary, puts back what was there."""
    collection = FutureCollection()
    future, other = finished(), finished()
    collection.add("a", future)
    before = collection._futures
    with mock.patch.object(collection, "_futures", {"b": other}):
        assert collection.keys() == ["b"] and other in collection
        collection.add("c", finished())
    assert collection._futures is before
    assert collection.keys() == ["a"] and future in collection
    with mock.patch.object(collection, "done", return_value="patched"):
        assert collection.done("a") == "patched"
    assert collection.done("a") is True


def test_the_dictionary_keeps_the_manners_of_one() -> None:
    """Assigning while iterating, |, copy, setdefault, popitem, reversed and repr."""
    collection = FutureCollection()
    a, b, c = finished(1), finished(2), finished(3)
    collection._futures.update(a=a, b=b)
    futures: t.Any = collection._futures
    for key in futures:
        futures[key] = c
    assert list(futures.items()) == [("a", c), ("b", c)] and c in collection
    assert list(futures.values()) == [c, c] and list(futures.keys()) == ["a", "b"]
    assert list(reversed(futures)) == ["b", "a"]
    assert futures | {"b": b} == {"a": c, "b": b}
    assert copy.copy(futures) == futures.copy() == {"a": c, "b": c} == futures
    assert type(futures.copy()) is dict and repr(futures) == repr(futures.copy())
    collection._futures |= {"d": a}  # type: ignore[operator]
    futures = collection._futures
    assert a in collection and collection.keys() == ["a", "b", "d"]
    assert futures.setdefault("a", b) is c and futures.setdefault("e", b) is b
    assert b in collection
    assert futures.popitem() == ("e", b) and b not in collection
    assert futures.popitem(last=False) == ("a", c) and c in collection
    assert futures.pop("nothing", 5) == 5
    for key in futures:
        del futures[key]
    assert not collection
    with pytest.raises(KeyError, match="empty"):
        futures.popitem()
    with pytest.raises(KeyError):
        futures.pop("a")


def test_stand_ins_for_futures() -> None:
    """Mocks, and what is no future at all, can be patched in, and evicted again."""
    collection = FutureCollection(3)
    like_a_future = mock.Mock(spec=Future)
    like_a_future.running.return_value = True
    unhashable: t.Any = ["result"]
    collection._futures.update(a=like_a_future, b=unhashable, c=mock.MagicMock())
    assert collection.running("a") is True
    assert like_a_future in collection
    assert collection["b"] is unhashable
    collection.add("d", Future())
    assert collection.keys() == ["b", "c", "d"]


def test_a_future_may_be_a_key() -> None:
    """Anything hashable is a key: a future too."""
    collection = FutureCollection()
    key, future = finished(), finished()
    collection.add(key, future)
    assert key in collection and future in collection and collection[key] is future
    collection.pop(key)
    assert key not in collection and future not in collection


def test_an_unhashable_key_schedules_nothing(executor: Executor) -> None:
    """What is not hashable is a TypeError before anything runs."""
    ran = mock.Mock()
    with pytest.raises(TypeError, match="unhashable"):
        executor.submit_stored(t.cast(t.Any, []), ran)
    executor.shutdown()
    ran.assert_not_called()


def test_what_is_asked_may_be_callable(executor: Executor) -> None:
    """An attribute is given, not called: a class as key, a function as result."""
    executor.submit_stored(int, lambda: print).result(LIMIT)
    assert executor.futures.key(int) is int
    assert executor.futures._result(int) is print
    assert executor.futures.result(int) is print
    assert executor.futures.app(int) is executor.futures[int].app  # type: ignore[attr-defined]
    error = executor.futures.exception(int, timeout=LIMIT)
    assert error is None
    callback = mock.Mock()
    executor.futures.add_done_callback(int, callback)
    callback.assert_called_once_with(executor.futures[int])


def test_one_that_has_just_finished_is_finished(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """A future is finished from the moment that who waits for it may know it."""
    collection = FutureCollection(2, app=app)
    future: Future[t.Any] = Future()
    # Its callbacks are called in order: this one before the collection's own.
    future.add_done_callback(lambda f: collection.add("new", Future()))
    collection.add("waiting", Future())
    collection.add("finishing", future)
    future.set_result(1)
    assert collection.keys() == ["waiting", "new"]
    assert not caplog.records


def test_max_length_of_an_executor(
    app: Flask,
    executor: Executor,
    gate: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The config bounds what submit_stored keeps; it can be changed at run time."""
    app.config["EXECUTOR_FUTURES_MAX_LENGTH"] = "2"
    executor.submit_stored("running", gate.wait, LIMIT)
    for n in range(3):
        executor.submit_stored(n, abs, n).result(LIMIT)
    assert executor.futures.keys() == ["running", 2]
    assert not caplog.records
    executor.futures.max_length = None
    for n in range(10, 80):
        executor.submit_stored(n, abs, n)
    assert len(executor.futures) == 72
    executor.futures.max_length = 1
    waiting = executor.submit_stored("waiting", gate.wait, LIMIT)
    assert waiting in executor.futures and len(executor.futures) == 1
    assert "'running' was dropped before it had finished" in caplog.text


def test_time_to_live_of_an_executor(
    app: Flask, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished future is kept for a day unless EXECUTOR_FUTURES_TTL says else."""
    app.config["HOUR_EXECUTOR_FUTURES_TTL"] = "3600"
    hour = Executor(app, name="hour")
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(registry_module, "time", clock)
    day_future = executor.submit_stored("day", abs, 1)
    hour_future = hour.submit_stored("hour", abs, 1)
    hour.shutdown()
    executor.shutdown()
    now = 3601
    assert hour_future not in hour.futures and hour.futures.result("hour") is None
    assert not hour.futures._futures and day_future in executor.futures
    now = 86_401
    assert "day" not in executor.futures and len(executor.futures) == 0


@pytest.mark.holds("g-threads")
def test_membership_compares_with_no_other_future() -> None:
    """Whether a future is stored is known without looking at the others."""

    class Picky(Future[t.Any]):
        __hash__ = Future.__hash__

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

    collection = FutureCollection()
    futures = [Picky() for _ in range(100)]
    for n, future in enumerate(futures):
        collection.add(n, future)
    assert all(future in collection for future in futures)
    assert Picky() not in collection


@pytest.mark.holds("g-threads")
def test_sixteen_threads_on_the_same_keys() -> None:
    """Threads that share keys, and the dictionary under it, break nothing."""
    collection = FutureCollection(4, ttl=0)
    errors: list[BaseException] = []
    barrier = threading.Barrier(16)

    def step(rng: random.Random) -> None:
        key, future = rng.randrange(6), Future[t.Any]()
        try:
            collection.add(key, future)
        except DuplicateKey:
            collection._futures[key] = future
        assert collection.done(key) in (True, False, None)
        assert all(isinstance(f, Future) for _, f in collection._futures.items())
        assert len(list(collection._futures)) <= 7 + 16
        future.set_result(1)
        collection.get(rng.randrange(6))
        collection._futures.pop(rng.randrange(6), None)
        if rng.random() < 0.01:
            collection._futures.clear()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        barrier.wait(LIMIT)
        try:
            for _ in range(200):
                step(rng)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert not errors
    collection._futures.clear()
    registry = collection._by_key
    assert not registry._keys_of and not registry._finished


def test_finishing_beside_eviction(executor: Executor) -> None:
    """Futures that finish while others are evicted leave nothing behind."""
    executor.futures.max_length = 3
    for n in range(500):
        executor.submit_stored(n, abs, n)
    executor.shutdown()
    registry = executor.futures._by_key
    assert len(registry) == len(registry._finished) == len(registry._keys_of) == 3


def test_awaiting_a_failure_and_a_cancellation(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """await raises what the task raised; cancelling who awaits cancels the future."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await executor.submit(divmod, 1, 0)
        executor.submit(gate.wait, LIMIT)
        waiting = executor.submit(abs, 1)
        task = asyncio.ensure_future(waiting)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert waiting.cancelled()

    asyncio.run(asyncio.wait_for(main(), LIMIT))


def test_await_in_an_async_view(app: Flask, executor: Executor) -> None:
    """An async coroutine inside a request awaits the future, and sees its request."""

    async def view() -> str:
        first = await executor.submit(lambda: request.path)
        return f"{first} {request.path}"

    with app.test_request_context("/async"):
        assert asyncio.run(asyncio.wait_for(view(), LIMIT)) == "/async /async"


@pytest.mark.holds("g-references")
def test_nothing_refers_to_a_finished_call(executor: Executor) -> None:
    """Callable, arguments and callbacks are let go without the garbage collector."""

    class Thing:
        def __call__(self, *args: t.Any, **kwargs: t.Any) -> None:
            if kwargs.get("fail"):
                raise ValueError("failed")

    refs: list[weakref.ref[t.Any]] = []
    futures = []
    gc.disable()
    try:
        for fail in (False, True):
            things = [Thing() for _ in range(4)]
            refs += map(weakref.ref, things)
            future = executor.submit(things[0], things[1], x=things[2], fail=fail)
            future.add_done_callback(partial(print, things[3], end="", file=None))
            futures.append(future)
            del things
        executor.shutdown()
        assert [ref() for ref in refs] == [None] * 8
    finally:
        gc.enable()
    assert [f.exception() is None for f in futures] == [True, False]


@pytest.mark.parametrize("propagate", [False, True])
def test_a_callback_that_raises_keeps_nothing(app: Flask, propagate: bool) -> None:
    """The error that a stored future keeps does not keep the request's g by it."""

    class Thing:
        """Something in g."""

    def fail() -> None:
        raise ValueError("no")

    app.config["EXECUTOR_PROPAGATE_EXCEPTIONS"] = propagate
    executor = Executor(app)
    with app.test_request_context("/"):
        g.thing = Thing()
        ref = weakref.ref(g.thing)
        future = executor.submit_stored("key", fail)
        future.add_done_callback(lambda future: future.result())
    executor.shutdown()
    gc.collect()
    assert isinstance(future.exception(LIMIT), ValueError)
    assert ref() is None


def test_representations(executor: Executor) -> None:
    """What one meets in a debugger says what it is."""
    future = executor.submit_stored("k", abs, 1)
    future.result(LIMIT)
    assert repr(future) == "<TaskFuture of builtins.abs (key 'k') succeeded>"
    assert repr(executor.futures) == "<FutureCollection of 1 futures>"
    assert "'k'" in repr(executor.futures._futures)


def test_a_callback_added_late_runs_where_it_is_added(
    app: Flask, executor: Executor
) -> None:
    """On a finished future it runs at once, in the very context that is current."""
    seen: list[t.Any] = []
    future = executor.submit(abs, 1)
    executor.shutdown()
    with app.app_context():
        future.add_done_callback(lambda f: setattr(g, "noted", f))
        seen.append(g.noted)
    assert seen == [future]


def test_it_has_all_that_a_future_has(app: Flask) -> None:
    """What the base class would make is there, for it is made here in its place."""
    future: TaskFuture[int] = TaskFuture(app)
    assert {name for name in vars(Future()) if not hasattr(future, name)} == set()
    assert future._state == Future()._state
    future.end_with(3)
    assert future.done() and future.result(0) == 3
