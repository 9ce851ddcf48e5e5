"""From the first use of an executor to its shutdown, and to init_app again."""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor

import pytest
from callables import echo
from flask import Flask, current_app, request
from limits import LIMIT

from flask_executor import (
    Executor,
    ExecutorNotInitialized,
    ExecutorShutDown,
    InvalidSetting,
)


def test_nothing_starts_before_first_use(app: Flask) -> None:
    """init_app and its attributes start no thread."""
    before = threading.active_count()
    executor = Executor(app)
    assert executor._max_workers == 4 and len(executor.futures) == 0
    assert isinstance(executor, ThreadPoolExecutor)
    assert threading.active_count() == before
    executor.shutdown()


def test_type_changed_after_init_is_a_warning(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """Other keys are read at first use; the type stays, and the log says so."""
    app.config["EXECUTOR_TYPE"] = "process"
    app.config["EXECUTOR_MAX_WORKERS"] = 2
    assert executor._max_workers == 2
    assert isinstance(executor._self, ThreadPoolExecutor)
    assert "EXECUTOR_TYPE was changed to 'process' after init_app" in caplog.text


def test_bad_type_is_refused_at_init(app: Flask) -> None:
    """A type that is none is refused at once, by name."""
    app.config["EXECUTOR_TYPE"] = "celery"
    with pytest.raises(InvalidSetting, match=r"EXECUTOR_TYPE = 'celery'.*'thread'"):
        Executor(app)


def test_before_init_app(app: Flask) -> None:
    """Without an app it is a plain Executor that names init_app."""
    executor = Executor()
    assert not isinstance(executor, ThreadPoolExecutor)
    assert "None" in repr(executor)
    with pytest.raises(AttributeError, match="init_app"):
        executor._threads  # noqa: B018
    executor.shutdown()
    with pytest.raises(TypeError):
        executor.__class__ = int  # type: ignore[assignment]


def test_without_any_app() -> None:
    """Before any init_app every use says so and names init_app."""
    executor = Executor()
    for use in (
        lambda: executor.submit(echo),
        lambda: executor.submit_stored("k", echo),
        lambda: executor.map(echo, [1]),
        lambda: executor.futures,
    ):
        with pytest.raises(ExecutorNotInitialized, match=r"any app: call.*init_app"):
            use()


def test_in_the_context_of_an_unknown_app(executor: Executor) -> None:
    """In the context of an app that was never initialised the error names it."""
    other = Flask("other")
    for context in (other.app_context(), other.test_request_context("/")):
        with context:
            with pytest.raises(ExecutorNotInitialized, match=r"'other'.*init_app"):
                executor.submit_stored("k", echo)
            with pytest.raises(RuntimeError, match="init_app"):
                list(executor.map(abs, [1]))
    assert len(executor.futures) == 0


def test_an_attribute_in_the_context_of_a_stranger(executor: Executor) -> None:
    """hasattr asks, in the context of an app that was never initialised, too."""
    with Flask("stranger").app_context():
        assert not hasattr(executor, "_max_workers")


def test_two_apps_have_their_own(app: Flask, executor: Executor) -> None:
    """Pool, futures and settings are those of the current app, else of the last."""
    other = Flask("other")
    other.config["EXECUTOR_MAX_WORKERS"] = 2
    executor.init_app(other)
    with app.app_context():
        executor.submit_stored("k", echo).result(LIMIT)
        assert executor._max_workers == 4 and "k" in executor.futures
    assert executor._max_workers == 2 and "k" not in executor.futures
    executor.shutdown()
    with pytest.raises(ExecutorShutDown):
        executor.submit(echo)
    with app.app_context():
        assert executor.submit(lambda: current_app.name).result(LIMIT) == "tests"
        executor.shutdown()


def test_lazy_executor_in_a_view(app: Flask) -> None:
    """An executor may be made inside a view."""

    @app.route("/")
    def view() -> str:
        executor = Executor(t.cast(t.Any, current_app)._get_current_object())
        try:
            return executor.submit(lambda: request.path).result(LIMIT)
        finally:
            executor.shutdown()

    assert app.test_client().get("/").text == "/"


def test_made_in_a_view_with_current_app(app: Flask) -> None:
    """An executor may be made in a view, of the current_app proxy."""

    @app.get("/")
    def view() -> str:
        made = Executor(current_app)  # type: ignore[arg-type]
        try:
            return str(made.submit(abs, -1).result(LIMIT))
        finally:
            made.shutdown()

    assert app.test_client().get("/").text == "1"


def test_shutdown_and_init_again(app: Flask, executor: Executor) -> None:
    """A shut down executor says what to do, and works again after init_app."""
    executor.shutdown()
    with pytest.raises(ExecutorShutDown, match=r"after shutdown.*init_app"):
        executor.submit(echo)
    executor.init_app(app)
    assert executor.submit(echo).result(LIMIT) == ((), {})


@pytest.mark.holds("g-init-again")
def test_replaced_pool_is_shut_down(app: Flask, executor: Executor) -> None:
    """init_app of the same app replaces its pool; what was accepted still runs."""
    old = executor._self
    future = executor.submit(echo)
    executor.init_app(app)
    assert old._shutdown
    assert future.result(LIMIT) == ((), {})
    assert executor._self is not old


@pytest.mark.holds("g-init-again")
def test_shutdown_per_test(app: Flask, executor: Executor) -> None:
    """init_app again and again starts with an empty registry and a new pool."""
    pools = set()
    for _ in range(3):
        assert executor.submit_stored("same", abs, -1).result(LIMIT) == 1
        pools.add(executor._self)
        executor.shutdown()
        executor.init_app(app)
    assert len(pools) == 3 and all(pool._shutdown for pool in pools)


@pytest.mark.parametrize(
    "submit",
    [
        lambda executor: executor.submit(echo),
        lambda executor: executor.submit_stored("k", echo),
        lambda executor: executor.map(echo, [1]),
        lambda executor: executor.map(echo, [1], chunksize=2),
        lambda executor: executor.job(echo).submit(),
    ],
)
def test_submit_after_shutdown(
    executor: Executor, submit: t.Callable[[Executor], object]
) -> None:
    """It is a RuntimeError in the standard library's words, with the next step."""
    executor.shutdown()
    executor.shutdown()
    match = r"cannot schedule new futures after shutdown.*init_app"
    with pytest.raises(RuntimeError, match=match):
        submit(executor)
    assert len(executor.futures) == 0 and executor._shutdown is True


def test_refused_call_leaves_no_key(executor: Executor) -> None:
    """A submit that raises stores nothing."""
    executor.shutdown()
    with pytest.raises(ExecutorShutDown):
        executor.submit_stored("key", echo)
    assert "key" not in executor.futures


@pytest.mark.holds("g-shutdown-cancel")
def test_shutdown_cancels_what_waits(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """shutdown(cancel_futures=True) cancels what has not started."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    started = threading.Event()
    running = executor.submit(lambda: started.set() or gate.wait(LIMIT))
    assert started.wait(LIMIT)
    waiting = [executor.submit(echo) for _ in range(3)]
    executor.shutdown(wait=False, cancel_futures=True)
    gate.set()
    assert running.result(LIMIT)
    assert all(future.cancelled() for future in waiting)


@pytest.mark.holds("g-shutdown-no-wait")
def test_shutdown_without_waiting(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """shutdown(wait=False) returns while a task runs; the queue is still worked off."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    running = executor.submit(gate.wait, LIMIT)
    waiting = executor.submit(echo)
    executor.shutdown(wait=False)
    assert not running.done() and not waiting.done()
    gate.set()
    assert running.result(LIMIT) and waiting.result(LIMIT) == ((), {})


def test_as_a_with_block(app: Flask) -> None:
    """Leaving the block waits for what was accepted, and accepts nothing more."""
    with Executor(app) as executor:
        future = executor.submit(abs, -1)
    assert future.done() and future.result() == 1
    with pytest.raises(ExecutorShutDown):
        executor.submit(abs, 1)
