"""Jobs: functions that know their executor."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import threading
import typing as t
from functools import partial

import pytest
from flask import Flask, g
from limits import LIMIT

from flask_executor import (
    CallNotPicklable,
    Executor,
    ExecutorJob,
    ExecutorNotInitialized,
    NotCallable,
)


def test_a_job_is_still_its_function(executor: Executor) -> None:
    """It is callable, recursive, and keeps name, docstring and signature."""

    @executor.job
    def factorial(n: int) -> int:
        """n!"""
        return 1 if n < 2 else n * factorial(n - 1)

    assert factorial(5) == 120
    assert factorial.submit(5).result(LIMIT) == 120
    assert factorial.submit_stored("key", 4).result(LIMIT) == 24
    assert list(factorial.map([1, 2, 3])) == [1, 2, 6]
    assert factorial.__name__ == "factorial"
    assert factorial.__doc__ == "n!"
    assert str(inspect.signature(factorial)) == "(n: 'int') -> 'int'"
    assert "factorial" in repr(factorial)


def test_declared_before_init_app(app: Flask) -> None:
    """A job may be declared before there is an app."""
    executor = Executor()

    @executor.job
    def one() -> int:
        return 1

    executor.init_app(app)
    assert one.submit().result(LIMIT) == 1
    executor.shutdown()


def test_coroutine_job(executor: Executor) -> None:
    """A coroutine function makes a job that runs on the event loop."""

    @executor.job
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    assert double.submit(2).result(LIMIT) == 4
    assert asyncio.run(double(3)) == 6  # type: ignore[arg-type]


def test_methods_and_partials(executor: Executor) -> None:
    """Bound methods, partials and callable objects are submitted as they are."""

    class Adder:
        def add(self, a: int, b: int = 0) -> int:
            return a + b

        async def __call__(self) -> str:
            return "called"

    adder: t.Any = Adder()
    assert executor.submit(adder.add, 1, b=2).result(LIMIT) == 3
    assert executor.submit(partial(adder.add, 1), 3).result(LIMIT) == 4
    assert executor.submit(adder).result(LIMIT) == "called"


def test_a_job_no_worker_could_import(app: Flask) -> None:
    """On a process pool a local job is refused where it is declared."""
    app.config["EXECUTOR_TYPE"] = "process"
    executor = Executor(app)

    def local() -> None: ...

    with pytest.raises(CallNotPicklable, match=r"local.*top level of a module"):
        executor.job(local)
    executor.shutdown()


def test_a_local_job_declared_too_early(app: Flask) -> None:
    """Declared before init_app, such a job is refused when it is submitted."""
    app.config["EXECUTOR_TYPE"] = "process"
    executor = Executor()

    @executor.job
    def local() -> None: ...

    executor.init_app(app)
    with pytest.raises(CallNotPicklable, match=r"local.*top level of a module"):
        local.submit()
    assert len(executor.futures) == 0
    executor.shutdown()


def test_before_init_app_a_job_runs_inline(app: Flask) -> None:
    """Without an app a job can be called; submitting it names init_app."""
    executor = Executor()
    double = executor.job(lambda n: 2 * n)
    assert double(2) == 4
    with pytest.raises(ExecutorNotInitialized, match="init_app"):
        double.submit(2)
    with pytest.raises(ExecutorNotInitialized, match="init_app"):
        double.map([2])
    executor.init_app(app)
    assert list(double.map([1, 2], chunksize=2)) == [2, 4]
    executor.shutdown()


def test_a_recursive_job_runs_inline(app: Flask, executor: Executor) -> None:
    """A job that calls itself stays on its worker."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1

    @executor.job
    def fib(n: int) -> int:
        threads.add(threading.current_thread())
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    threads: set[threading.Thread] = set()
    assert fib.submit(10).result(LIMIT) == 55
    assert len(threads) == 1 and threading.current_thread() not in threads


def test_keywords_of_a_job(executor: Executor) -> None:
    """A job takes every keyword whole, called inline too."""
    words = {"fn": 1, "self": 2, "timeout": 3, "future_key": 4, "key": 5, "executor": 6}

    @executor.job
    def take(**kwargs: int) -> dict[str, int]:
        return kwargs

    assert take(**words) == words
    assert take.submit(**words).result(LIMIT) == words
    assert take.submit_stored("k", **words).result(LIMIT) == words
    assert executor.futures.result("k") == words


def test_a_job_is_logged_by_its_functions_name(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed job, a partial too, is logged under the function's name."""

    def fail(n: int) -> None:
        raise ValueError(n)

    executor.job(fail).submit_stored("k", 1).exception(LIMIT)
    executor.job(partial(fail, 2)).submit().exception(LIMIT)
    executor.shutdown()
    first, second = (record.getMessage() for record in caplog.records)
    assert first == f"Task {__name__}.{fail.__qualname__} (key 'k') failed"
    assert fail.__qualname__ in second


def test_jobs_of_what_has_no_name(executor: Executor) -> None:
    """Partials, methods and callable objects make jobs that one can look at."""

    class Greeter:
        def greet(self, name: str) -> str:
            """Say hello."""
            return f"hello {name}"

        def __call__(self, name: str) -> str:
            return self.greet(name)

        def __repr__(self) -> str:
            return "<Greeter>"

    method = executor.job(Greeter().greet)
    assert method.__doc__ == "Say hello." and method.__name__ == "greet"
    called = executor.job(Greeter())
    bound = executor.job(partial(Greeter().greet, "you"))
    assert str(inspect.signature(method)) == str(inspect.signature(called))
    assert str(inspect.signature(bound)) == "() -> 'str'"
    assert repr(called) == "<ExecutorJob <Greeter>>"
    assert "Greeter.greet" in repr(bound) and "Greeter.greet" in repr(method)
    assert method.submit("a").result(LIMIT) == called.submit("a").result(LIMIT)
    assert bound.submit().result(LIMIT) == "hello you"
    with pytest.raises((pickle.PicklingError, AttributeError), match="ExecutorJob"):
        pickle.dumps(bound)


def test_a_job_of_an_async_callable(executor: Executor) -> None:
    """A callable object with an async call makes a job for the event loop."""

    class Where:
        async def __call__(self) -> str:
            return threading.current_thread().name

    job: t.Any = executor.job(Where())
    assert job.submit().result(LIMIT) == "executor_loop"
    assert executor.job(partial(Where().__call__)).submit().result(LIMIT)


def test_what_makes_no_job(executor: Executor) -> None:
    """A job of what cannot be called is refused where it is declared."""
    for nothing in (None, 3, "name"):
        with pytest.raises(NotCallable, match="which is not callable") as info:
            executor.job(nothing)  # type: ignore[arg-type]
        assert isinstance(info.value, TypeError)
        assert repr(nothing) in str(info.value)


def test_a_job_follows_its_context(app: Flask, executor: Executor) -> None:
    """A job submitted sees the submitter's g; it is an ExecutorJob of its executor."""
    job = executor.job(lambda: g.x)
    assert isinstance(job, ExecutorJob) and job.executor is executor
    with app.app_context():
        g.x = 5
        assert job.submit().result(LIMIT) == 5


def test_a_job_declared_in_another_apps_context(app: Flask, executor: Executor) -> None:
    """A job may be declared before the app at hand is initialised, too."""
    other = Flask("other")
    with other.app_context():
        job = executor.job(abs)
    assert job.submit(-1).result(LIMIT) == 1


def test_representation(executor: Executor) -> None:
    """A job says in a debugger whose it is."""

    @executor.job
    def send() -> None:
        """Not called."""

    assert repr(send).startswith("<ExecutorJob test_jobs.test_representation")
    assert repr(send).endswith("send>")
