"""Coroutine functions: on one event loop thread, thousands at a time, with contexts."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import typing as t
import weakref

import pytest
from flask import Flask, g, request, session, url_for
from limits import LIMIT

from flask_executor import Executor, ExecutorShutDown

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


def test_thousands_at_once(executor: Executor) -> None:
    """All of 5,000 are under way at the same time, without a worker each."""
    count = 5_000
    arrived = 0
    everybody = asyncio.Event()

    async def meet() -> str:
        nonlocal arrived
        arrived += 1
        if arrived == count:
            everybody.set()
        await everybody.wait()
        return threading.current_thread().name

    futures = [executor.submit(meet) for _ in range(count)]
    assert {future.result(LIMIT) for future in futures} == {"executor_loop"}


def test_context_after_an_await(app: Flask, executor: Executor) -> None:
    """Two coroutines of two requests keep their own contexts across awaits."""
    app.add_url_rule("/<name>", "view", lambda name: name)
    turns = [asyncio.Event(), asyncio.Event()]

    async def look(number: int) -> tuple[t.Any, ...]:
        g.own = number
        session["own"] = number
        var.set(f"task {number}")
        turns[number].set()
        await turns[1 - number].wait()
        return request.path, g.own, session["own"], var.get(), url_for("view", name="x")

    futures = []
    for number in range(2):
        with app.test_request_context(f"/{number}"):
            futures.append(executor.submit(look, number))
    assert [future.result(LIMIT) for future in futures] == [
        ("/0", 0, 0, "task 0", "/x"),
        ("/1", 1, 1, "task 1", "/x"),
    ]
    assert var.get() == "unset"


def test_teardown_once_each(app: Flask, executor: Executor) -> None:
    """Each coroutine's teardown runs once, on the loop, with its own exception."""
    noted: list[tuple[str, str]] = []

    @app.teardown_appcontext
    def note(error: BaseException | None) -> None:
        noted.append((threading.current_thread().name, repr(error)))

    async def end(error: Exception | None) -> None:
        await asyncio.sleep(0)
        if error is not None:
            raise error

    futures = [executor.submit(end, error) for error in (None, KeyError("x"))]
    for future in futures:
        future.exception(LIMIT)
    loop = "executor_loop"
    assert sorted(noted) == [(loop, "KeyError('x')"), (loop, "None")]


def test_failure_is_logged(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A coroutine that fails is logged once, with its name and key."""

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        executor.submit_stored("key", fail).result(LIMIT)
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "fail" in record.getMessage() and "'key'" in record.getMessage()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_nothing_ends_the_loop(executor: Executor, error: type[BaseException]) -> None:
    """Whatever one coroutine raises, those beside it go on."""
    gate = asyncio.Event()

    async def wait() -> str:
        await gate.wait()
        return "well"

    async def leave() -> None:
        raise error

    async def open_gate() -> None:
        gate.set()

    waiting = executor.submit(wait)
    assert type(executor.submit(leave).exception(LIMIT)) is error
    executor.submit(open_gate)
    assert waiting.result(LIMIT) == "well"


def test_cancelled_from_within(executor: Executor) -> None:
    """A coroutine that is cancelled as asyncio does it fails with that error."""

    async def cancel() -> None:
        t.cast("asyncio.Task[t.Any]", asyncio.current_task()).cancel()
        await asyncio.sleep(0)

    assert isinstance(executor.submit(cancel).exception(LIMIT), asyncio.CancelledError)
    assert executor.submit(asyncio.sleep, 0, "well").result(LIMIT) == "well"


def test_a_thread_from_a_coroutine(app: Flask, executor: Executor) -> None:
    """``asyncio.to_thread`` works, and sees the task's context."""

    async def ask() -> str:
        return await asyncio.to_thread(lambda: request.path)

    with app.test_request_context("/here"):
        assert executor.submit(ask).result(LIMIT) == "/here"


def test_awaiting_other_tasks(executor: Executor) -> None:
    """A coroutine awaits futures of its own executor, threads and coroutines alike."""

    async def leaf(n: int) -> int:
        await asyncio.sleep(0)
        return n

    async def tree() -> int:
        coroutines = [executor.submit(leaf, n) for n in range(3)]
        return sum([await future for future in (*coroutines, executor.submit(abs, -7))])

    assert executor.submit(tree).result(LIMIT) == 10


@pytest.mark.parametrize("kind", ["thread", "sync"])
def test_callable_objects(app: Flask, kind: str) -> None:
    """Partials, methods and objects with an async ``__call__`` are awaited."""

    class Adder:
        async def __call__(self, n: int) -> int:
            return n + 1

        async def method(self, n: int) -> int:
            return n + 2

    app.config["EXECUTOR_TYPE"] = kind
    executor = Executor(app)
    assert executor.submit(Adder(), 1).result(LIMIT) == 2
    assert executor.submit(Adder().method, 1).result(LIMIT) == 3
    executor.shutdown()


def test_map(executor: Executor) -> None:
    """map runs coroutine functions, alone and in chunks."""

    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return n * 2

    assert list(executor.map(double, range(5))) == [0, 2, 4, 6, 8]
    assert list(executor.map(double, range(5), chunksize=2)) == [0, 2, 4, 6, 8]


@pytest.mark.holds("g-shutdown")
def test_shutdown_runs_what_was_accepted(executor: Executor) -> None:
    """shutdown waits for coroutines under way, and refuses others from then on."""
    order: list[str] = []

    async def work() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        order.append("worked")

    for _ in range(3):
        executor.submit(work)
    executor.shutdown()
    order.append("shut down")
    assert order == ["worked"] * 3 + ["shut down"]
    with pytest.raises(ExecutorShutDown, match="work"):
        executor.submit(work)


def test_first_coroutine_after_shutdown(executor: Executor) -> None:
    """An executor that never had a coroutine refuses one after shutdown, too."""

    async def work() -> None:
        """Not run."""

    executor.submit(abs, 1)
    executor.shutdown()
    with pytest.raises(ExecutorShutDown, match="work"):
        executor.submit(work)


def test_cancelled_while_it_waits(executor: Executor) -> None:
    """What is cancelled before the loop comes to it does not start."""
    started: list[str] = []
    busy, go_on = threading.Event(), threading.Event()

    async def hold_up() -> None:
        busy.set()
        assert go_on.wait(LIMIT)  # the whole loop waits

    async def late() -> None:
        started.append("late")

    holding = executor.submit(hold_up)
    assert busy.wait(LIMIT)
    cancelled, other = executor.submit(late), executor.submit(asyncio.sleep, 0)
    assert cancelled.cancel()
    go_on.set()
    holding.result(LIMIT)
    other.result(LIMIT)
    assert started == []


@pytest.mark.holds("g-shutdown-cancel")
def test_shutdown_cancels_what_waits(executor: Executor) -> None:
    """shutdown(cancel_futures=True) cancels what the loop has not come to."""
    busy, go_on = threading.Event(), threading.Event()

    async def hold_up() -> None:
        busy.set()
        assert go_on.wait(LIMIT)

    holding = executor.submit(hold_up)
    assert busy.wait(LIMIT)
    waiting = [executor.submit(asyncio.sleep, 0) for _ in range(3)]
    executor.shutdown(wait=False, cancel_futures=True)
    go_on.set()
    assert holding.result(LIMIT) is None
    assert all(future.cancelled() for future in waiting)


@pytest.mark.holds("g-references")
def test_references_are_dropped(app: Flask, executor: Executor) -> None:
    """When a coroutine has ended, nothing refers to its request, g or arguments."""

    class Thing:
        """Something to refer to."""

    async def use(thing: Thing) -> None:
        g.thing = thing
        await asyncio.sleep(0)
        refs.append(weakref.ref(request._get_current_object()))

    thing = Thing()
    refs: list[weakref.ref[t.Any]] = [weakref.ref(thing)]
    with app.test_request_context("/"):
        future = executor.submit(use, thing)
        del thing
        future.result(LIMIT)
    executor.submit(asyncio.sleep, 0).result(LIMIT)
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


def test_sync_beside_a_running_loop(app: Flask) -> None:
    """With 'sync' a coroutine runs at once, in an async view too: on a thread."""

    async def work(fail: bool) -> str:
        await asyncio.sleep(0)
        if fail:
            raise KeyError("x")
        return request.path

    async def view() -> tuple[t.Any, t.Any]:
        return executor.submit(work, False).result(0), executor.submit(work, True)

    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    with app.test_request_context("/here"):
        path, failed = asyncio.run(view())
    assert path == "/here"
    assert isinstance(failed.exception(0), KeyError)
    executor.shutdown()
