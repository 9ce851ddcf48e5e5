"""The dispatcher: which pool takes a call, and what becomes of a failure."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import traceback
import typing as t
import weakref
from functools import partial

import pytest
from flask import Flask
from internals import clear_locals, is_coroutine_function
from limits import LIMIT

from flask_executor import Executor, ExecutorShutDown


class Secret:
    """Something whose end can be seen."""


async def coroutine_function() -> None: ...


class AsyncCallable:
    async def __call__(self) -> str:
        return threading.current_thread().name


def test_coroutine_functions_are_known() -> None:
    """Also behind a partial, as a method, or as a callable object."""
    assert is_coroutine_function(coroutine_function)
    assert is_coroutine_function(partial(coroutine_function))
    assert is_coroutine_function(AsyncCallable())
    assert is_coroutine_function(AsyncCallable().__call__)
    for plain in (len, lambda: 1, partial(len), Secret, None, 3):
        assert not is_coroutine_function(plain)


def test_a_decorated_function_is_asked_again() -> None:
    """A function with attributes of its own is known for what it is."""

    def plain() -> None: ...

    async def marked() -> None: ...

    for fn in (plain, marked):
        t.cast(t.Any, fn).mark = 1
    assert is_coroutine_function(marked) and not is_coroutine_function(plain)


def test_coroutines_take_no_worker(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """Coroutines run, many at a time, while every worker is taken."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    executor.submit(gate.wait, LIMIT)
    arrived = 0
    all_there = asyncio.Event()

    async def meet() -> str:
        nonlocal arrived
        arrived += 1
        if arrived == 1000:
            all_there.set()
        await all_there.wait()
        return threading.current_thread().name

    futures = [executor.submit(meet) for _ in range(1000)]
    names = {future.result(LIMIT) for future in futures}
    assert names == {"executor_loop"}
    assert executor.submit(AsyncCallable()).result(LIMIT) == "executor_loop"


def test_a_coroutine_after_shutdown(executor: Executor) -> None:
    """It is refused, as any other call."""
    executor.shutdown()
    with pytest.raises(ExecutorShutDown, match="coroutine_function"):
        executor.submit(coroutine_function)


@pytest.mark.holds("g-ends")
def test_a_logger_that_fails_hangs_nobody(app: Flask, executor: Executor) -> None:
    """Where a failure cannot be logged, its future ends and its worker goes on."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1

    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise OSError("disk full")

    handler = Broken()
    app.logger.addHandler(handler)
    try:
        future = executor.submit(divmod, 1, 0)
        assert isinstance(future.exception(5), ZeroDivisionError)
        assert executor.submit(abs, -1).result(5) == 1
    finally:
        app.logger.removeHandler(handler)


def test_a_callable_without_a_name(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A callable object is logged by its repr."""

    class Send:
        def __call__(self) -> None:
            raise ValueError

        def __repr__(self) -> str:
            return "<Send>"

    executor.submit(partial(Send())).exception(LIMIT)
    assert "Task <Send> failed" in caplog.text


def test_a_repr_that_fails_hangs_nobody(executor: Executor) -> None:
    """Where the callable cannot even be named, its future ends all the same."""

    class Unspeakable:
        def __call__(self) -> None:
            raise ValueError

        def __repr__(self) -> str:
            raise OSError("no repr")

    future = executor.submit(Unspeakable())
    assert isinstance(future.exception(5), ValueError)


def test_locals_of_all_that_led_to_it_are_cleared() -> None:
    """Causes, contexts and members of groups lose their locals, and still print."""
    refs = []

    def hold(name: str) -> None:
        secret = Secret()
        refs.append(weakref.ref(secret))
        raise KeyError(name)

    def outer() -> None:
        members = []
        for name in ("one", "two"):
            try:
                hold(name)
            except KeyError as error:
                members.append(error)
        try:
            hold("context")
        except KeyError:
            try:
                hold("cause")
            except KeyError as cause:
                raise ExceptionGroup("both", members) from cause

    with pytest.raises(ExceptionGroup) as info:
        outer()
    group = info.value
    group.exceptions[0].__context__ = group  # a circle
    clear_locals(group)
    gc.collect()
    assert [ref() for ref in refs] == [None] * 4
    printed = "".join(traceback.format_exception(group))
    assert printed.count("in hold") >= 4


def test_the_failure_is_logged_with_its_locals_then_cleared(
    app: Flask, executor: Executor
) -> None:
    """A log handler still finds the task's locals in the traceback."""
    seen: list[t.Any] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            exc_info = t.cast(t.Any, record.exc_info)
            *_, (frame, _) = traceback.walk_tb(exc_info[2])
            seen.append(frame.f_locals.get("answer"))

    def fail() -> None:
        answer = 42
        raise ValueError(answer)

    handler = Handler()
    app.logger.addHandler(handler)
    try:
        error = t.cast(BaseException, executor.submit(fail).exception(LIMIT))
        executor.shutdown()
    finally:
        app.logger.removeHandler(handler)
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    assert seen == [42] and frame.f_locals == {}


@pytest.mark.parametrize("key", ["LOG_EXCEPTIONS", "PROPAGATE_EXCEPTIONS"])
@pytest.mark.holds("g-no-locals")
def test_locals_are_cleared_whoever_logs(
    app: Flask, executor: Executor, key: str
) -> None:
    """Also where failures are not logged, or propagated."""
    app.config[f"EXECUTOR_{key}"] = key == "PROPAGATE_EXCEPTIONS"
    refs = []

    def fail() -> None:
        secret = Secret()
        refs.append(weakref.ref(secret))
        raise ValueError

    future = executor.submit(fail)
    executor.shutdown()
    gc.collect()
    assert refs[0]() is None
    assert "in fail" in "".join(
        traceback.format_exception(t.cast(BaseException, future.exception()))
    )


@pytest.mark.holds("g-logged-once")
def test_a_failed_coroutine_is_logged_once(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """As any other task, with its name and key."""

    async def fail() -> None:
        raise LookupError("lost")

    future = executor.submit_stored(7, fail)
    assert isinstance(future.exception(LIMIT), LookupError)
    (record,) = caplog.records
    assert record.getMessage().endswith("fail (key 7) failed")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.holds("g-ends")
def test_exit_in_a_coroutine_ends_it_alone(
    executor: Executor, error: type[BaseException]
) -> None:
    """sys.exit() in a coroutine ends that task, and not the event loop."""

    async def leave() -> None:
        raise error

    assert isinstance(executor.submit(leave).exception(LIMIT), error)
    assert executor.submit(AsyncCallable()).result(LIMIT) == "executor_loop"
