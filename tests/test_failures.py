"""A call that fails: logged once, on its future, and harmful to nobody else."""

from __future__ import annotations

import concurrent.futures
import logging
import sys
import threading
import typing as t
from unittest import mock

import pytest
from callables import echo
from flask import Flask
from limits import LIMIT

from flask_executor import (
    Executor,
    ExecutorShutDown,
    NotCallable,
)
from flask_executor.executor import propagate_exceptions_callback


@pytest.mark.holds("g-logged-once")
def test_failure_is_logged_once(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed task is logged once, with its name, its key and its traceback."""
    future = executor.submit_stored("report", divmod, 1, 0)
    assert isinstance(future.exception(LIMIT), ZeroDivisionError)
    (record,) = caplog.records
    assert record.getMessage() == "Task builtins.divmod (key 'report') failed"
    assert record.levelno == logging.ERROR
    assert record.exc_info


def test_failures_need_not_be_logged(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """EXECUTOR_LOG_EXCEPTIONS = False turns the log off."""
    app.config["EXECUTOR_LOG_EXCEPTIONS"] = "no"
    executor.submit(divmod, 1, 0).exception(LIMIT)
    executor.shutdown()
    assert not caplog.records


def test_propagate_exceptions(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """EXECUTOR_PROPAGATE_EXCEPTIONS raises in a callback, in place of the log line."""
    app.config["EXECUTOR_PROPAGATE_EXCEPTIONS"] = "true"
    executor.submit(divmod, 1, 0).exception(LIMIT)
    executor.submit(echo).result(LIMIT)
    executor.shutdown()
    (record,) = caplog.records
    assert "propagate_exceptions_callback" in record.getMessage()


def test_propagate_callback() -> None:
    """The callback raises what the task raised, and nothing else."""
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    future.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        propagate_exceptions_callback(future)
    done: concurrent.futures.Future[int] = concurrent.futures.Future()
    done.cancel()
    propagate_exceptions_callback(done)


def test_propagated_in_the_calls_context(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """Propagation replaces the log line of the task, for a key and a map too."""
    app.config["EXECUTOR_PROPAGATE_EXCEPTIONS"] = True
    executor.submit_stored("k", divmod, 1, 0)
    executor.map(divmod, [1], [0])
    executor.shutdown()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all("propagate_exceptions_callback" in message for message in messages)
    assert caplog.text.count("ZeroDivisionError") >= 2


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.holds("g-ends")
def test_exit_ends_the_task_alone(
    app: Flask, executor: Executor, error: type[BaseException]
) -> None:
    """sys.exit() in a task ends that task, and no worker."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1

    def leave() -> None:
        raise error

    assert isinstance(executor.submit(leave).exception(LIMIT), error)
    assert executor.submit(echo).result(LIMIT) == ((), {})


def test_exit_leaves_the_submitter_alone(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """sys.exit() in a task is logged as its failure; its worker thread goes on."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    before = executor.submit(threading.get_ident).result(LIMIT)
    for _ in range(3):
        assert isinstance(executor.submit(sys.exit, 1).exception(LIMIT), SystemExit)
    assert executor.submit(threading.get_ident).result(LIMIT) == before
    assert len([r for r in caplog.records if "sys.exit" in r.getMessage()]) == 3


def test_cancelled_is_no_failure(
    app: Flask,
    executor: Executor,
    gate: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A cancelled task is not logged; its callbacks run."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    callback = mock.Mock()
    executor.add_default_done_callback(callback)
    running = executor.submit(gate.wait, LIMIT)
    waiting = executor.submit(echo)
    assert waiting.cancel()
    gate.set()
    executor.shutdown()
    assert running.result() and waiting.cancelled()
    assert callback.call_count == 2
    assert not caplog.records


def test_submit_of_no_callable(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """submit(None) raises nothing; its future fails, and the log says what it was."""
    future = executor.submit(None)  # type: ignore[call-overload]
    assert isinstance(future.exception(LIMIT), NotCallable)
    assert "None was submitted" in caplog.text
    with pytest.raises(NotCallable):
        executor.job(3)  # type: ignore[arg-type]
    executor.shutdown()
    with pytest.raises(ExecutorShutDown, match="None"):
        executor.submit(None)  # type: ignore[call-overload]


def test_submit_stored_of_no_callable(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """The slip's future is stored and fails; the log holds key and value, once."""
    future = executor.submit_stored("slip", t.cast(t.Any, {"sent": True}))
    assert isinstance(executor.futures.exception("slip", timeout=LIMIT), NotCallable)
    assert future in executor.futures
    (record,) = caplog.records
    assert "key 'slip'" in record.getMessage()
    assert "{'sent': True} was submitted" in caplog.text
    with pytest.raises(TypeError, match="not callable"):
        future.result(LIMIT)
