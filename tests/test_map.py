"""map: results in the order of the items, failures where their results would be."""

from __future__ import annotations

import concurrent.futures
import gc
import threading
import typing as t
import weakref
from unittest import mock

import pytest
from callables import echo
from flask import Flask
from limits import LIMIT

from flask_executor import (
    Executor,
)


@pytest.mark.holds("g-map")
def test_map_gives_results_in_order(executor: Executor) -> None:
    """Results come in the order of the items, chunked or not."""
    assert list(executor.map(pow, [2, 3, 4], [5, 2, 2])) == [32, 9, 16]
    assert list(executor.map(abs, range(-9, 0), chunksize=4)) == list(range(9, 0, -1))
    with pytest.raises(ValueError, match="chunksize must be >= 1, not 0"):
        executor.map(abs, [], chunksize=0)


def test_map_takes_the_shortest(executor: Executor) -> None:
    """As zip: the shortest iterable ends it; no items make no calls."""
    assert list(executor.map(pow, [2, 3, 4], [2])) == [4]
    assert list(executor.map(abs, [])) == []
    assert list(executor.map(abs, [-1, -2, -3], chunksize=100)) == [1, 2, 3]


def test_map_reads_its_items_at_once(executor: Executor) -> None:
    """The iterables are read before map returns, and an error in one is raised."""
    read: list[int] = []
    executor.map(abs, (read.append(n) or n for n in range(3)))  # type: ignore[func-returns-value]
    assert read == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        executor.map(abs, (1 // n for n in (1, 0)))


@pytest.mark.holds("g-map")
def test_map_runs_without_iteration(executor: Executor) -> None:
    """A map whose results nobody reads runs all the same."""
    seen: list[int] = []
    executor.map(seen.append, range(3))
    executor.shutdown()
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.parametrize("chunksize", [0, -1])
def test_a_chunksize_below_one(executor: Executor, chunksize: int) -> None:
    """It is a ValueError that names the rule and the value; nothing runs."""
    ran = mock.Mock()
    match = rf"chunksize .*>= 1, not {chunksize}"
    with pytest.raises(ValueError, match=match):
        executor.map(ran, [1], chunksize=chunksize)
    with pytest.raises(ValueError, match=match):
        executor.job(ran).map([1], chunksize=chunksize)
    executor.shutdown()
    ran.assert_not_called()


@pytest.mark.holds("g-map")
def test_closing_a_map_cancels_the_rest(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """Closing the generator cancels what has not started."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    seen: list[int] = []

    def run(n: int) -> int:
        if n == 1:
            assert gate.wait(LIMIT)
        seen.append(n)
        return n

    results = t.cast("t.Generator[int, None, None]", executor.map(run, range(9)))
    assert next(results) == 0
    results.close()
    gate.set()
    executor.shutdown()
    assert 8 not in seen


def test_closing_a_chunked_map_cancels_the_rest(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """A map with a chunksize can be closed as one without."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    ran: list[int] = []

    def run(n: int) -> int:
        if n == 2:
            assert gate.wait(LIMIT)
        ran.append(n)
        return n

    results: t.Any = executor.map(run, range(10), chunksize=2)
    assert next(results) == 0
    results.close()
    gate.set()
    executor.shutdown()
    assert 9 not in ran


def test_map_timeout(executor: Executor, gate: threading.Event) -> None:
    """A result that is not there in time is a TimeoutError."""
    results = executor.map(lambda _: gate.wait(LIMIT), [1], timeout=0)
    with pytest.raises(TimeoutError):
        next(results)
    gate.set()


def test_map_timeout_cancels_the_rest(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """After the timeout, what has not started is cancelled, chunked or not."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    ran: list[int] = []

    def run(n: int) -> None:
        ran.append(n)
        assert gate.wait(LIMIT)

    for chunksize in (1, 2):
        ran.clear()
        gate.clear()
        results = executor.map(run, range(6), timeout=0.01, chunksize=chunksize)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        gate.set()
        executor.submit(echo).result(LIMIT)
        assert len(ran) <= chunksize


@pytest.mark.holds("g-map")
def test_map_failure_is_raised(executor: Executor) -> None:
    """The first failure is raised where its result would have been."""
    results = executor.map(lambda n: 1 // n, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.holds("g-map")
def test_map_failure_cancels_the_rest(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """When a result is a failure, what has not started is cancelled."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    ran: list[int] = []

    def run(n: int) -> None:
        if n == 0:
            raise ValueError
        if n == 1:
            assert gate.wait(LIMIT)
        ran.append(n)

    with pytest.raises(ValueError):
        next(executor.map(run, range(5)))
    gate.set()
    executor.shutdown()
    assert ran in ([], [1])


@pytest.mark.holds("g-map-chunk")
def test_a_failure_loses_the_results_of_its_chunk(executor: Executor) -> None:
    """The results of the chunks before it are given."""
    results = executor.map(lambda n: 1 // n, [2, 1, 1, 0], chunksize=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_of_failures_is_logged_with_the_functions_name(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed call of a map is logged once, under its own name, chunked too."""
    for chunksize in (1, 2):
        caplog.clear()
        with pytest.raises(ZeroDivisionError):
            list(executor.map(divmod, [1], [0], chunksize=chunksize))
        executor.submit(echo).result(LIMIT)
        (record,) = caplog.records
        assert "builtins.divmod" in record.getMessage()


@pytest.mark.parametrize("chunksize", [1, 3])
def test_map_drops_results(executor: Executor, chunksize: int) -> None:
    """A result that was read is no longer referred to by the map."""

    class Thing:
        def __init__(self, _: int) -> None: ...

    gc.disable()
    try:
        results = executor.map(Thing, range(3), chunksize=chunksize)
        first = weakref.ref(next(results))
        executor.shutdown()
        assert first() is None
        assert len(list(results)) == 2
    finally:
        gc.enable()
