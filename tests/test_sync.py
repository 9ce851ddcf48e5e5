"""EXECUTOR_TYPE = 'sync': each call runs in submit, in the context of its caller."""

from __future__ import annotations

import asyncio
import threading
import traceback
import typing as t
from unittest import mock

import pytest
from callables import echo
from flask import Flask, current_app, g

from flask_executor import (
    DuplicateKey,
    Executor,
    ExecutorShutDown,
)


def test_sync_runs_in_the_callers_context(app: Flask) -> None:
    """With EXECUTOR_TYPE = 'sync' a call runs at once, in the caller's own context."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    teardown = mock.Mock()
    app.teardown_appcontext(teardown)
    assert executor.submit(lambda: current_app.name).result(0) == "tests"
    teardown.assert_called_once()
    with app.test_request_context("/"):
        future = executor.submit(lambda: setattr(g, "mine", threading.get_ident()))
        assert future.done()
        assert g.mine == threading.get_ident()
        teardown.assert_called_once()

        async def double(n: int) -> int:
            return 2 * n

        assert executor.submit(double, 2).result(0) == 4

        async def nested() -> int:
            return executor.submit(double, 4).result(0)

        assert asyncio.run(nested()) == 8
        assert isinstance(executor.submit(exit).exception(0), SystemExit)
    executor.shutdown()
    with pytest.raises(ExecutorShutDown):
        executor.submit(echo)


def test_sync_keeps_the_callers_session_open(app: Flask) -> None:
    """With 'sync' in a context, no teardown runs and g is the caller's own."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    teardown = mock.Mock()
    app.teardown_appcontext(teardown)
    with app.test_request_context("/"):
        g.session = object()
        assert executor.submit(lambda: g.session).result(0) is g.session
        assert executor.submit(divmod, 1, 0).exception(0)
        teardown.assert_not_called()
    teardown.assert_called_once()
    executor.shutdown()


def test_sync_failures(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """With 'sync' a failure stays in the future and is logged once, as elsewhere."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    seen: list[t.Any] = []
    executor.add_default_done_callback(seen.append)
    future = executor.submit_stored("k", divmod, 1, 0)
    assert seen == [future] and future.done() and not future.cancel()
    assert isinstance(future.exception(0), ZeroDivisionError)
    assert "k" in executor.futures
    (record,) = caplog.records
    assert record.getMessage() == "Task builtins.divmod (key 'k') failed"
    assert list(executor.map(abs, [-1, -2])) == [1, 2]
    with pytest.raises(DuplicateKey):
        executor.submit_stored("k", abs, 1)
    executor.shutdown()


def test_sync_spares_what_its_caller_handles(app: Flask) -> None:
    """A 'sync' failure inside an except block leaves the caller's own error whole."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)

    def risky() -> None:
        detail = "kept"
        raise ValueError(detail)

    try:
        risky()
    except ValueError as error:
        executor.submit(divmod, 1, 0).exception(0)
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        assert frame.f_locals == {"detail": "kept"}
    executor.shutdown()
