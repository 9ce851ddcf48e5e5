"""Jobs: functions that know their executor."""

from __future__ import annotations

import asyncio
import inspect
import typing as t
from functools import partial

import pytest
from conftest import LIMIT
from flask import Flask

from flask_executor import CallNotPicklable, Executor


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
