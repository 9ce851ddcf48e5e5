"""Done-callbacks: each runs once, in the context in which it was added."""

from __future__ import annotations

import concurrent.futures
import threading
import typing as t
from unittest import mock

import pytest
from callables import echo
from flask import Flask, current_app, g, has_request_context, request
from limits import LIMIT

from flask_executor import (
    Executor,
)


def test_default_callbacks_run_in_the_submitters_context(
    app: Flask, executor: Executor
) -> None:
    """Default callbacks, of submit and of map, see the submitter's request and g."""
    seen: list[t.Any] = []

    @executor.add_default_done_callback
    def note(future: t.Any) -> None:
        seen.append((request.path, g.x, future.result(), future.key))

    with app.test_request_context("/here"):
        g.x = 1
        executor.submit_stored("k", abs, -1).result(LIMIT)
        assert list(executor.map(abs, [-2])) == [2]
    executor.shutdown()
    seen.sort(key=lambda entry: t.cast(int, entry[2]))
    assert seen == [("/here", 1, 1, "k"), ("/here", 1, 2, None)]


@pytest.mark.holds("g-callbacks")
def test_default_callbacks_keep_their_order(
    executor: Executor, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """They run in the order added, before those of the future; none stops another."""
    seen: list[str] = []

    def fail(future: t.Any) -> None:
        seen.append("fail")
        raise ValueError("in a callback")

    executor.add_default_done_callback(lambda f: seen.append("first"))
    executor.add_default_done_callback(fail)
    executor.add_default_done_callback(lambda f: seen.append("last"))
    future = executor.submit(gate.wait, LIMIT)
    future.add_done_callback(lambda f: seen.append("own"))
    gate.set()
    executor.shutdown()
    assert seen == ["first", "fail", "last", "own"]
    (record,) = caplog.records
    assert record.name == "tests" and "fail" in record.getMessage()
    assert "in a callback" in caplog.text


@pytest.mark.holds("g-key-first")
def test_default_callbacks_of_every_kind_of_call(executor: Executor) -> None:
    """Jobs, stored calls, coroutines, chunks and failures have them; keys are set."""
    keys: list[t.Any] = []
    executor.add_default_done_callback(lambda f: keys.append((f.key, f.done())))

    async def coroutine() -> None: ...

    executor.job(echo).submit_stored("job")
    executor.submit_stored("coroutine", coroutine)
    executor.submit_stored("failure", divmod, 1, 0)
    executor.submit_stored("slip", t.cast(t.Any, None))
    list(executor.map(abs, range(4), chunksize=2))
    executor.shutdown()
    names = ["coroutine", "failure", "job", "slip", None, None]
    assert sorted(keys, key=str) == sorted(((n, True) for n in names), key=str)


def test_callback_contexts(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """A callback runs where it was added: a request, or else an app context."""
    seen: list[t.Any] = []
    future = executor.submit(gate.wait, LIMIT)
    future.add_done_callback(
        lambda f: seen.append((current_app.name, has_request_context()))
    )
    with app.test_request_context("/a"):
        future.add_done_callback(lambda f: seen.append(request.path))
    gate.set()
    executor.shutdown()
    future.add_done_callback(lambda f: seen.append(current_app.name))
    with app.test_request_context("/b"):
        future.add_done_callback(lambda f: seen.append(request.path))
    assert seen == [("tests", False), "/a", "tests", "/b"]


def test_a_callback_gets_the_future_itself(executor: Executor) -> None:
    """The argument is the very future; its result and its key can be asked."""
    seen: list[t.Any] = []
    future = executor.submit_stored("k", abs, -1)
    future.add_done_callback(lambda f: seen.append((f, f.result(), f.key)))
    future.result(LIMIT)
    executor.shutdown()
    assert seen == [(future, 1, "k")] and seen[0][0] is future


@pytest.mark.holds("g-callbacks")
def test_a_callback_of_a_cancelled_call(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """Cancelling runs the callbacks in the submitter's context, once."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    seen: list[t.Any] = []
    executor.add_default_done_callback(
        lambda f: seen.append((request.path, f.cancelled()))
    )
    with app.test_request_context("/from"):
        executor.submit(gate.wait, LIMIT)
        waiting = executor.submit_stored("w", echo)
        assert executor.futures.cancel("w") is True
    assert seen == [("/from", True)]
    gate.set()
    executor.shutdown()
    assert seen == [("/from", True), ("/from", False)] and waiting.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result(LIMIT)


@pytest.mark.parametrize("error", [ValueError, SystemExit])
@pytest.mark.holds("g-callbacks")
def test_callback_that_raises(
    executor: Executor, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """What a callback raises is logged, and stops no other."""

    def fail(future: t.Any) -> None:
        raise error("callback")

    after = mock.Mock()
    executor.add_default_done_callback(fail)
    executor.add_default_done_callback(after)
    future = executor.submit(echo)
    future.result(LIMIT)
    executor.shutdown()
    after.assert_called_once_with(future)
    assert [r.message for r in caplog.records if "done-callback" in r.message]
    assert caplog.records[0].name == "tests"


def test_a_callback_that_exits_on_a_finished_future(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """What a callback raises at once is logged, and not raised where it is added."""
    future = executor.submit(echo)
    future.result(LIMIT)
    future.add_done_callback(lambda f: exit(3))
    assert "SystemExit" in caplog.text


def test_callbacks_may_submit(executor: Executor) -> None:
    """A callback may submit the next call."""
    results: list[t.Any] = []
    following = threading.Event()

    def chain(future: t.Any) -> None:
        if future.result() < 3:
            executor.submit(lambda n: n + 1, future.result()).add_done_callback(chain)
        else:
            results.append(future.result())
            following.set()

    executor.submit(abs, 0).add_done_callback(chain)
    assert following.wait(LIMIT) and results == [3]
